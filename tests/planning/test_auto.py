"""What a command makes of `preset=auto`, on cohorts that no slide of is opened."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from doctogres.catalogue import STAGES
from doctogres.errors import ParameterError, WeightsError
from doctogres.planning import machine as looking
from doctogres.planning.auto import chosen_preset, warn_of_demo
from doctogres.planning.cohort import find_cohort, is_drawn
from doctogres.presets import load_preset
from doctogres.settings import Preset
from doctogres.slides.cohort import open_cohort
from doctogres.slides.table import COLUMNS, CohortTable
from entrypoints.reference import command_of


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """Twelve slides of six patients and two classes, of which two have no mask, and three test slides; the files are empty."""
    root = tmp_path / "cohort"
    for part, count in (("train_data", 12), ("test_data", 3)):
        (root / part).mkdir(parents=True)
        for number in range(count):
            (root / part / f"img_{number:04d}.png").touch()
            if number < 10:
                (root / part / f"mask_{number:04d}.png").touch()
    names = [f"img_{number:04d}.png" for number in range(12)]
    rows = {"sample_index": names, "label": ["a", "b"] * 6, "group": [f"p{number // 2}" for number in range(12)]}
    pd.DataFrame(rows).to_csv(root / "train_labels.csv", index=False)
    return root


@pytest.fixture
def weights(tmp_path: Path) -> str:
    file = tmp_path / "backbone.safetensors"
    file.touch()
    return str(file)


def chosen(stage: str, overrides: dict[str, Any], **values: Any) -> Preset:
    return chosen_preset(STAGES[stage], values, overrides)


def test_only_slides_that_can_be_used_count(real: Path) -> None:
    found = find_cohort(real)
    assert (found.cohort.classes, found.cohort.groups, found.cohort.test) == ({"a": 5, "b": 5}, 5, 3)
    assert len(found.slides) == 10
    assert not found.cohort.drawn


def test_every_stage_that_sees_the_slides_chooses_the_same_and_says_why(
    real: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = load_preset("small", {"weights": weights})
    for stage in ("main", "clean", "ablate"):
        preset = chosen(stage, {"weights": weights}, data=str(real))
        assert preset == wanted
        assert preset.given["preset"] == "small"
        assert preset.given["auto"].startswith("small, because ")
        first, cohort, machine = capsys.readouterr().out.splitlines()
        assert first == f"preset=auto: {preset.given['auto']}"
        assert cohort == "  cohort   10 slides of 2 classes (5 each) and 5 patients; 3 test slides"
        assert "cores" in machine
        assert "free on the disk" in machine


def test_what_demo_data_drew_gets_the_demo(real: Path) -> None:
    (real / "cohort.json").write_text("{}")
    assert chosen("main", {"epochs": 3}, data=str(real)) == load_preset("demo", {"epochs": 3})


def test_the_demo_is_recognised_by_a_table_of_its_slides(real: Path, tmp_path: Path) -> None:
    table = tmp_path / "cohort.csv"
    rows = [f"{real}/train_data/img_000{number}.png,{real}/train_data/mask_000{number}.png,a" for number in range(3)]
    table.write_text("\n".join(["image,mask,label", *rows]))
    root = open_cohort(table, workspace=tmp_path / "workspace")
    assert not is_drawn(root)
    (real / "cohort.json").write_text("{}")
    assert is_drawn(root)


@pytest.mark.parametrize("stage", ["main", "clean", "ablate"])
def test_the_demos_settings_for_other_slides_are_warned_of_in_one_line(
    real: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_of_demo(STAGES[stage], {"data": str(real)}, load_preset("demo", {"seeds": 2}))
    assert capsys.readouterr().out == (
        f"{stage}: preset demo suits only the synthetic slides of demo_data; for real slides give preset=small to every stage "
        "(docs/training.md)\n"
    )


def test_nothing_is_said_where_the_settings_suit_or_the_slides_are_gone(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo, data = load_preset("demo"), {"data": str(real)}
    warn_of_demo(STAGES["clean"], data, load_preset("small"))
    warn_of_demo(STAGES["predict"], data, demo)  # its settings do not depend on the slides
    CohortTable(pd.DataFrame(columns=COLUMNS, dtype=object), tmp_path / "gone", "digest").write(
        tmp_path / "cohort.parquet"
    )
    warn_of_demo(STAGES["patch"], {"cohort": str(tmp_path / "cohort.parquet"), "data": ""}, demo)
    (real / "cohort.json").write_text("{}")
    warn_of_demo(STAGES["clean"], data, demo)
    assert capsys.readouterr().out == ""


def test_without_weights_it_says_so_and_what_to_do(real: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"preset=auto: small suits this cohort.*nowhere\.safetensors.*give one of these"
    ):
        chosen("main", {"weights": "nowhere.safetensors"}, data=str(real))


@pytest.mark.parametrize("stage", ["clean", "patch"])
def test_a_stage_that_trains_nothing_needs_no_weights(real: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "check_all_weights", lambda preset: pytest.fail("it asked for weights"))
    assert chosen(stage, {}, data=str(real)) == load_preset("small")


def test_a_cohort_to_predict_needs_no_weights(real: Path) -> None:
    (real / "train_labels.csv").unlink()
    for file in (real / "train_data").iterdir():
        file.unlink()
    (real / "train_data").rmdir()
    assert chosen("predict", {}, data=str(real)) == load_preset("small")


@pytest.mark.parametrize("stage", ["evaluate", "register"])
def test_a_stage_whose_settings_all_presets_share_needs_no_cohort(
    stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = chosen(stage, {})
    assert all(getattr(preset, section) == getattr(load_preset("small"), section) for section in STAGES[stage].sections)
    assert capsys.readouterr().out == ""


def test_the_accelerator_is_asked_only_where_it_matters(
    real: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "accelerator", lambda: ("a GPU", 0))
    monkeypatch.setattr(looking, "MANY_GROUPS", 5)
    cohort = find_cohort(real).cohort
    assert looking.this_machine(cohort, {"weights": weights}).accelerator == "a GPU"
    assert looking.this_machine(cohort, {"weights": weights, "device": "cpu"}).accelerator == ""
    monkeypatch.setattr(looking, "MANY_GROUPS", 6)
    assert looking.this_machine(cohort, {"weights": weights}).accelerator == ""


def test_several_processes_cannot_choose(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("entrypoints.command.keep_private", lambda: None)  # the umask is of the whole process
    with pytest.raises(SystemExit):
        command_of("train").main(["--preset", "auto"])
    assert "preset=auto chooses in a single process; give one of demo, small, challenge" in capsys.readouterr().err


def test_a_program_gives_the_name_of_a_preset() -> None:
    with pytest.raises(
        ParameterError, match="preset=auto: only a command chooses one, for its cohort; give demo, small"
    ):
        load_preset("auto")
