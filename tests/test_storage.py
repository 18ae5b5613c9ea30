"""What the workspace holds, who uses it, and what is removed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from doctogres import storage
from doctogres.errors import DoctogresError
from doctogres.files import WORKSPACE_VARIABLE
from doctogres.liveness import process_name
from doctogres.patches.cutting import cut_cohort
from doctogres.patches.pixels import load_patches
from doctogres.storage import DAY, held, hold, stored
from entrypoints.clean_cache import command
from tests.patches.test_pixels import SETTINGS, cohort_row, draw_slide, table_of

KEPT = (
    "networks/0123abcd.pt",
    "networks/89.checkpoint",
    "shards/clean-0123/1-of-2.parquet",
    "optuna.db",
    "answers/ab/1.csv",
)
CACHES = (
    "patches/regions-0123456789abcdef.npy", "patches/tiles128-0123456789abcdef.npy", "patches/0123456789abcdef.json",
    "patches-0123456789abcdef-window224.npy", "features/0123456789abcdef01234567-turn3.npy",
    "features/0123456789abcdef01234567-augmented1.npy", "0123456789abcdef/train_data/img_0000.png",
)  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "workspace"
    for name in (*KEPT, *CACHES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(1000))
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(folder))
    return folder


def clean_cache(*options: str) -> Result:
    return CliRunner().invoke(command, options)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_is_made_again_is_removed_and_the_rest_stays(workspace):
    said = clean_cache()
    assert said.exit_code == 0, said.output
    assert files(workspace) == set(KEPT)
    for line in (
        f"clean-cache: {workspace}",
        "removed: 3 kB, 3 of pixels of patches (cut from the slides)",
        "removed: 1 kB, 1 of pixels as older versions kept them (not needed any more)",
        "removed: 2 kB, 2 of features of frozen backbones (computed by train and tune)",
        "removed: 1 kB, 1 of slides from a zip (unpacked from the zip)",
        "kept: 1 kB, 1 of networks of train",
        "kept: 1 kB, 1 of states of interrupted trainings (train starts again)",
        "kept: 1 kB, 1 of shares of a cohort",
        "kept: 1 kB, 1 of the study's database",
        "kept: 1 kB, 1 of answers still to be copied",
        "clean-cache: 7 kB freed",
    ):
        assert line in said.output
    assert "clean-cache: 0 bytes freed" in clean_cache().output


def test_a_trial_run_removes_nothing(workspace):
    before = files(workspace)
    assert "would remove: 3 kB, 3 of pixels of patches" in clean_cache("--dry-run").output
    assert files(workspace) == before


def test_what_was_used_lately_stays(workspace):
    old = workspace / CACHES[0]
    then = old.stat().st_mtime - 8 * DAY
    os.utime(old, (then, then))
    os.utime(workspace / CACHES[1], (then + 2 * DAY, then + 2 * DAY))
    said = clean_cache("--older-than", "7")
    assert files(workspace) == {*KEPT, *CACHES} - {CACHES[0]}
    assert "kept: 2 kB, 2 of pixels of patches" in said.output


def test_the_state_of_a_training_goes_a_day_after_it_was_written(workspace):
    state = workspace / "networks/89.checkpoint"
    then = state.stat().st_mtime - 1.5 * DAY
    os.utime(state, (then, then))
    clean_cache("--older-than", "2")
    assert state.is_file()
    assert "removed: 1 kB, 1 of states of interrupted trainings (train starts again)" in clean_cache().output
    assert files(workspace) == set(KEPT) - {"networks/89.checkpoint"}


@pytest.mark.parametrize("foreign", ["thesis.docx", "patches/my_own.npy", "images/scan.png"])
def test_a_folder_with_other_peoples_files_is_refused(workspace, foreign):
    (workspace / foreign).parent.mkdir(exist_ok=True)
    (workspace / foreign).write_bytes(b"")
    said = clean_cache()
    named = foreign.partition("/")[0] if foreign.startswith("images") else foreign
    assert said.exit_code == 1
    assert f"{workspace}: it holds {named}, which doctogres does not write" in said.output
    assert files(workspace) == {*KEPT, *CACHES, foreign}


def test_a_link_is_not_followed(workspace, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (workspace / "fedcba9876543210").symlink_to(tmp_path / "elsewhere")
    assert "it holds fedcba9876543210" in clean_cache().output
    assert (tmp_path / "elsewhere").is_dir()


def test_a_missing_workspace_is_named(tmp_path):
    with pytest.raises(DoctogresError, match=re.escape(f"{tmp_path / 'none'}: no such folder; give the workspace as")):
        stored(tmp_path / "none")


def test_what_a_living_process_uses_stays_until_it_ends(workspace):
    used = workspace / CACHES[0]
    program = "import sys; from pathlib import Path; from doctogres.storage import hold; "
    program += "hold(Path(sys.argv[1]), [Path(sys.argv[2])]); print('holds', flush=True); sys.stdin.read()"
    arguments = [sys.executable, "-c", program, str(workspace), str(used)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline()
        said = clean_cache()
        assert "kept, in use: 1 kB, 1 of pixels of patches" in said.output
        assert files(workspace) - set(KEPT) == {CACHES[0], f".in-use.{process_name(process.pid)}"}
        process.kill()
    clean_cache()
    assert files(workspace) == set(KEPT)


def test_a_folder_of_caches_may_be_a_link_to_a_larger_disk(workspace, tmp_path):
    (workspace / "patches").rename(tmp_path / "larger")
    (workspace / "patches").symlink_to(tmp_path / "larger")
    used = [workspace / CACHES[0], workspace / CACHES[4]]
    os.utime(used[0], (0, 0))
    hold(workspace, used)
    assert held(workspace) == set(used)
    assert used[0].stat().st_mtime > 0
    (tmp_path / "name").symlink_to(workspace)  # of a workspace that is a link itself
    hold(tmp_path / "name", [tmp_path / "name" / CACHES[5]])
    assert held(workspace) == {*used, workspace / CACHES[5]}


def test_what_another_machine_uses_stays(workspace):
    (workspace / ".in-use.01234567-89abcdef-1-2-3").write_text(f"{CACHES[4]}\n")
    clean_cache()
    assert files(workspace) == {*KEPT, CACHES[4], ".in-use.01234567-89abcdef-1-2-3"}


def test_the_patches_that_were_loaded_are_in_use(tmp_path, monkeypatch):
    root, cache = tmp_path / "slides", tmp_path / "cache"
    cohort = table_of(root, [cohort_row(root, f"img_000{number}", *draw_slide(number)) for number in range(2)])
    manifest, (path,) = cut_cohort(cohort, root, SETTINGS, cache=cache)
    os.utime(path, (0, 0))
    pixels = load_patches(manifest, cache=cache).pixels
    assert path.stat().st_mtime > 0  # the last use
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(cache))
    assert "kept, in use: " in clean_cache().output
    assert np.asarray(pixels).any()


def test_a_workspace_that_may_only_be_read_is_used_all_the_same(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    hold(tmp_path, [tmp_path / "features"])
    assert storage.held(tmp_path) == set()
