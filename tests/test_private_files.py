"""Whatever the commands leave of patients' pixels is readable by their user only."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT
from tests.stores import new_store, plain_environment

pytestmark = pytest.mark.slow


def run(command: str, folder: Path, *options: str) -> None:
    """Runs a command as an account with the usual umask does, with everything it writes in the folder."""
    (folder / "tmp").mkdir(exist_ok=True)
    environment = plain_environment() | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "TMPDIR": str(folder / "tmp"),
    }
    done = subprocess.run(
        [sys.executable, "-m", f"entrypoints.{command}", *options],
        cwd=folder, env=environment, umask=0o022, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_workspace_caches_and_artifacts_are_for_their_user_only(
    empty_store: Path, small_cohort: Path, tmp_path: Path
) -> None:
    new_store(empty_store, tmp_path)
    cohort = shutil.make_archive(str(tmp_path / "cohort"), "zip", small_cohort)
    run("clean", tmp_path, "--data", cohort)
    run("patch", tmp_path, "--data", cohort)
    left = [path for name in (".doctogres", "mlruns", "tmp") for path in (tmp_path / name).rglob("*")]
    assert any(path.suffix == ".npy" for path in left)
    assert any(path.suffix == ".png" for path in left)
    left.append(tmp_path / ".doctogres")
    assert not [path for path in left if path.stat().st_mode & 0o077]
