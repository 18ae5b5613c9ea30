"""A stage in shares of its slides: joined, they are the stage."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest

from doctogres.errors import CohortError, MissingSharesError, ParameterError
from doctogres.files import workspace
from doctogres.presets import load_preset
from doctogres.slides.cohort import content_digest, file_hashes, find_slides, slide_files
from doctogres.slides.table import CohortTable
from doctogres.stages.clean import clean
from doctogres.tracking.places import fetch
from doctogres.tracking.runs import StageResult, finished_runs
from entrypoints.reference import ROOT
from tests.cleaning.drawn_slides import STAINS, draw_cartoon, draw_splat, draw_tissue, write_slide
from tests.stores import plain_environment


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes with twins, cartoons, splats and near-copies in different shares, and a slide of each common fault."""
    root = tmp_path / "cohort"
    (root / "train_data").mkdir(parents=True)
    stains = list(STAINS)
    drawn: dict[str, Any] = {f"img_{number:04}": draw_tissue(number, stain=stains[number % 4]) for number in range(10)}
    drawn["img_0020"] = (draw_cartoon(drawn["img_0000"][0]), drawn["img_0000"][1])
    drawn["img_0022"] = draw_splat(*drawn["img_0003"])
    drawn["img_0024"] = tuple(array[:, ::-1] for array in drawn["img_0004"])
    for name, (picture, mask) in drawn.items():
        write_slide(root, name, picture, mask)
    (root / "train_data/mask_0007.png").unlink()
    cut_off = root / "train_data/img_0008.png"
    cut_off.write_bytes(cut_off.read_bytes()[:3000])
    labels = [f"{name}.png,{'ab'[place % 2]}" for place, name in enumerate(drawn) if name != "img_0009"]
    (root / "train_labels.csv").write_text("\n".join(["sample_index,label", *labels]))
    return root


def run(data: Path, shard: str = "", **options: Any) -> StageResult:
    return clean(data=str(data), preset=load_preset("demo"), seed=1, shard=shard, **options)


def artifact(result: StageResult, name: str) -> Path:
    return fetch(result.artifacts[name])


def shares_of(data: Path, count: int, **options: Any) -> list[StageResult]:
    return [run(data, f"{number}/{count}", **options) for number in range(1, count + 1)]


@pytest.mark.parametrize("count", [1, 3, 40])
def test_joined_shares_are_one_run_row_for_row(store: Path, data: Path, count: int) -> None:
    made = shares_of(data, count)
    assert [share.run_id for share in made] == [""] * count
    assert sum(share.metrics["slides"] for share in made) == 13
    assert not finished_runs("clean")
    joined = run(data, "join")
    assert not joined.reused
    alone = run(data)
    assert alone.reused  # the same fingerprint
    alone = run(data, rerun=True)
    tables = [CohortTable.read(artifact(result, "cohort")) for result in (joined, alone)]
    pd.testing.assert_frame_equal(tables[0].rows, tables[1].rows)
    assert tables[0].data_digest == tables[1].data_digest
    for name in ("audit", "decisions", "twin_groups", "class_shares"):
        assert artifact(joined, name).read_bytes() == artifact(alone, name).read_bytes()
    twins = pd.read_csv(artifact(joined, "twin_groups"))
    assert {"mask", "near-copy"} <= set(twins["kind"])
    assert {"duplicate", "cartoon_twin"} & {reason.partition(":")[0] for reason in tables[0].rows["reason"]}


def test_a_join_reads_no_slide_again(store: Path, data: Path) -> None:
    shares_of(data, 2)
    picture = data / "train_data/img_0022.png"  # dropped for its splat: no picture of the run shows it
    status = picture.stat()
    before = data_digest(picture.parents[1])
    picture.write_bytes(bytes(status.st_size))
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns))
    joined = run(data, "join")
    assert CohortTable.read(artifact(joined, "cohort")).data_digest == before


def data_digest(root: Path) -> str:
    return content_digest(file_hashes(root, ["train_labels.csv", *slide_files(root, find_slides(root))]))


def test_missing_shares_are_named(store: Path, data: Path) -> None:
    with pytest.raises(MissingSharesError, match="no share of these slides"):
        run(data, "join")
    for number in (1, 4, 6):
        run(data, f"{number}/7")
    with pytest.raises(MissingSharesError, match=r"4 of 7 shares are missing in .*: 2-3,5,7$") as caught:
        run(data, "join")
    assert caught.value.shares == ["2/7", "3/7", "5/7", "7/7"]


def test_a_share_is_made_once_and_again_if_asked(store: Path, data: Path) -> None:
    first = run(data, "1/2")
    path = Path(first.artifacts["share"])
    written = path.stat().st_mtime_ns
    again = run(data, "1/2")
    assert (first.reused, again.reused) == (False, True)
    assert again.metrics["problem_slides"] == first.metrics["problem_slides"]
    assert path.stat().st_mtime_ns == written
    assert not run(data, "1/2", rerun=True).reused
    assert path.stat().st_mtime_ns > written
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_slide_that_changed_since_is_named_and_only_its_share_made_again(store: Path, data: Path) -> None:
    shares_of(data, 3)
    write_slide(data, "img_0005", *draw_tissue(77))
    with pytest.raises(MissingSharesError, match=r"1 of 3 .*before these slides changed: img_0005") as caught:
        run(data, "join")
    assert run(data, caught.value.shares[0]).reused is False
    joined = run(data, "join")
    assert run(data).run_id == joined.run_id


def test_labels_may_be_corrected_after_the_shares(store: Path, data: Path) -> None:
    shares_of(data, 2)
    with (data / "train_labels.csv").open("a") as labels:
        labels.write("\nimg_0009.png,a\n")
    joined = run(data, "join")
    rows = CohortTable.read(artifact(joined, "cohort")).rows.set_index("slide_id")
    assert rows.loc["img_0009", "outcome"] == "kept"
    assert run(data).run_id == joined.run_id


def test_shares_of_other_code_are_ignored_and_named(store: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("doctogres.stages.clean.code_digest", lambda module: "older")
        run(data, "2/2")
    run(data, "1/2")
    with pytest.raises(MissingSharesError, match=r"1 of 2 .*: 2; 2/2 was made by another version of the code"):
        run(data, "join")


def test_a_damaged_share_is_named_and_made_again(store: Path, data: Path) -> None:
    path = Path(shares_of(data, 2)[1].artifacts["share"])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MissingSharesError, match=r"1 of 2 .*: 2; 2/2 .*not a share of `clean`") as caught:
        run(data, "join")
    assert caught.value.shares == ["2/2"]
    assert not run(data, "2/2").reused
    assert run(data).run_id == run(data, "join").run_id


def test_strict_makes_the_share_and_fails(store: Path, data: Path) -> None:
    with pytest.raises(CohortError, match=r"share 1/1 made .* 2 with a problem: .*parquet; strict=true"):
        run(data, "1/1", strict=True)
    assert not run(data, "join").reused


def test_a_share_that_is_no_share_is_refused(store: Path, data: Path) -> None:
    with pytest.raises(ParameterError, match="shard=3/2"):
        run(data, "3/2")


def command(data: Path, folder: Path, *more: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "entrypoints.clean", "--data", str(data), *more]
    environment = plain_environment() | {
        "DOCTOGRES_WORKSPACE": str(folder / "shared"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/none.db",
    }
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, cwd=ROOT, env=environment, **pipes)


@pytest.mark.slow
def test_an_array_of_commands_needs_no_store_and_the_join_says_what_to_type(data: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        done = command(data, tmp_path, "--shard", f"{number}/3")
        out, error = done.communicate()
        assert done.returncode == 0, error
        assert f"share {number}/3 made in" in out.splitlines()[-1]
    assert not (tmp_path / "none.db").exists()
    join = command(data, tmp_path, "--shard", "join")
    _, error = join.communicate()
    assert join.returncode == 1
    assert error.strip().endswith(f"type: python -m entrypoints.clean --data {data} --shard 3/3")


@pytest.mark.slow
def test_killed_shares_leave_nothing_and_are_made_by_the_next_call(data: Path, tmp_path: Path) -> None:
    for picture in range(30, 90):  # long enough to be killed in the middle
        for part in ("img", "mask"):
            shutil.copy(data / f"train_data/{part}_0001.png", data / f"train_data/{part}_{picture:04}.png")
    shards = tmp_path / "shared/shards"
    for after in (2.0, 3.0, 4.0, 5.0):
        killed = command(data, tmp_path, "--shard", "1/1")
        time.sleep(after)
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
        assert all(len(pd.read_parquet(file)) == 73 for file in shards.glob("*/[!.]*.parquet"))
    assert command(data, tmp_path, "--shard", "1/1").wait() == 0
    (file,) = next(shards.iterdir()).iterdir()
    assert len(pd.read_parquet(file)) == 73


def test_the_workspace_holds_the_shares(store: Path, data: Path) -> None:
    path = Path(run(data, "1/2").artifacts["share"])
    assert path.parent.parent == workspace() / "shards"
    assert mlflow.active_run() is None
