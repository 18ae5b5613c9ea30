"""The package as `pip install` puts it somewhere: the command `doctogres`, with all files that it needs."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from doctogres import __version__ as VERSION
from tests.servers import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package and its command, without the packages that it needs."""
    folder = tmp_path_factory.mktemp("installed")
    files = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "-z"], capture_output=True, check=True, text=True
    ).stdout
    for name in filter(None, files.split("\0")):
        if (source := ROOT / name).is_file() and name.split("/")[0] in (
            "src",
            "entrypoints",
            "pyproject.toml",
            "LICENSE",
        ):
            (copy := folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    built = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "source")]
    subprocess.run(built, check=True)
    (wheel,) = folder.glob("doctogres-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


def doctogres(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    variables = {
        "PYTHONPATH": str(installed),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(installed / "bin" / "doctogres"), *words]
    return subprocess.run(command, cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False)


def test_every_folder_of_the_library_is_packaged() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT / "src") for path in (ROOT / "src").rglob("__init__.py")}
    assert packages == sorted({*(".".join(path.parts) for path in folders), "doctogres.entrypoints"})


def test_the_command_has_the_entry_points_and_runs_them(installed: Path, tmp_path: Path) -> None:
    table = doctogres(installed, tmp_path)
    assert table.returncode == 0, table.stderr
    for name in ("main", "clean", "evaluate", "promote", "doctor", "client"):
        assert f"\n  {name} " in table.stdout
    assert doctogres(installed, tmp_path, "--version").stdout == f"{VERSION}\n"
    drawn = doctogres(installed, tmp_path, "demo_data", "--target", "slides", "--size", "40")
    assert drawn.returncode == 0, drawn.stderr
    cleaned = doctogres(installed, tmp_path, "clean", "--data", "slides", "--preset", "demo")
    assert cleaned.returncode == 0, cleaned.stderr
    assert "slides clean" in cleaned.stdout
    wrong = doctogres(installed, tmp_path, "clean", "--data", "nowhere")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("clean: error: nowhere does not exist: it was looked for at ")
    unknown = doctogres(installed, tmp_path, "clear")
    assert unknown.returncode == 2
    assert "No such command 'clear'" in unknown.stderr
    assert "--overlay" in doctogres(installed, tmp_path, "client", "--help").stdout


def test_paths_are_those_of_the_folder_in_which_mlflow_run_was_typed(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = {"PATH": path, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "OMP_NUM_THREADS": "1"}
    command = [
        str(Path(sys.executable).with_name("mlflow")),
        "run",
        str(ROOT),
        "--env-manager",
        "local",
        "-e",
        "demo_data",
    ]
    given = ["-P", "target=slides", "-P", "size=12"]
    done = subprocess.run(
        [*command, *given], cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "slides" / "train_labels.csv").is_file()
    assert not (ROOT / "slides").exists()
