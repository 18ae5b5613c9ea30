"""The ladder on a small cohort: what each row changes, what a person finds in the tracking store, and what is reused."""

import copy
import dataclasses
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from doctogres.errors import CohortError, ParameterError, UpstreamError
from doctogres.presets import load_preset
from doctogres.settings import Preset
from doctogres.slides.splits import HOLDOUT, check_no_leakage
from doctogres.slides.table import DROPPED, KEPT, usable
from doctogres.spreadsheets import read_back
from doctogres.stages import ablate as module
from doctogres.stages.ablate import LADDER, ablate, changes, naming, uncleaned
from doctogres.stages.evaluate import evaluate
from doctogres.tracking.runs import StageResult, finished_runs
from doctogres.tracking.store import experiment_id
from doctogres.tracking.view import compare_link
from doctogres.training.sources import sources_of
from doctogres.tuning import outcome
from doctogres.tuning.outcome import outcome_of

SEED, SEEDS = 5, 2
TUNED = {"learning_rate": 0.002, "dropout": 0.25}


def cohort(rows: list[tuple[str, str, str | None, str, str | None]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["slide_id", "group", "twin_of", "outcome", "fold"]).astype(object)


def test_without_cleaning_copies_come_back_beside_their_twins_and_the_hold_out_stays_as_it_is() -> None:
    table = cohort([
        ("genuine", "patient 1", None, KEPT, "fold1"),
        ("cartoon", "cartoon", "genuine", DROPPED, None),
        ("held", "patient 2", None, KEPT, HOLDOUT),
        ("copy of held", "copy of held", "held", DROPPED, None),
        ("unreadable", "unreadable", None, DROPPED, None),
        ("twin of a dropped one", "other", "unreadable", DROPPED, None),
    ])  # fmt: skip
    found = uncleaned(table)
    back = found[found["slide_id"] == "cartoon"].iloc[0]
    assert (back["outcome"], back["fold"], back["group"]) == (KEPT, "fold1", "patient 1")
    others = found["slide_id"] != "cartoon"
    pd.testing.assert_frame_equal(found[others], table[others])
    assert table.loc[1, "outcome"] == DROPPED  # the table given is not touched
    slides = usable(found)
    check_no_leakage(slides["fold"].tolist(), slides["group"].tolist())


def test_every_row_changes_what_its_name_says() -> None:
    preset = load_preset("challenge", {"repeats": 3, "tta": True})
    recipes = [module._flat(row.recipe(preset)) | {"cleaned": row.cleaned, "tuned": row.tuned} for row in LADDER]
    probes = [recipe for recipe in recipes if recipe["recipe"] == "probe"]
    assert recipes[-3:] == probes
    assert [recipe["patching"] for recipe in probes] == ["regions", "window", "window,regions"]
    steps = [changes(before, after) for before, after in pairwise(recipes[:-3])]
    assert steps == [
        "cleaned=True",
        "patching=regions, min_area=1",
        "backbone=convnext_tiny, weights=imagenet, start=probe",
        "unfreeze_every=20",
        "min_area=200",
        "tuned=True",
        "oof_folds=0, ensemble=True, tta=True",
    ]
    alone = {name: recipes[0][name] for name in ("patching", "backbone", "weights", "oof_folds", "repeats")}
    assert alone == {"patching": "whole", "backbone": "test_resnet", "weights": "none", "oof_folds": 1, "repeats": 1}
    assert not recipes[0]["ensemble"]
    assert not recipes[0]["tta"]
    assert changes(recipes[0], recipes[0]) == "nothing"


@pytest.mark.parametrize("own", [{"fusion": "features"}, {"stages": 9, "backbone": "vit_small_patch16_224"}])
def test_a_row_has_no_setting_of_the_preset_that_its_network_cannot_have(own: dict[str, Any]) -> None:
    recipes = [row.recipe(load_preset("small", own)) for row in LADDER]
    for recipe in recipes:
        assert all(source.architecture for source in sources_of(recipe, recipe.patch))
        if recipe.train.backbone == module.BASELINE_CNN:
            assert recipe.train.stages == 0
    assert recipes[-1].answer.fusion == own.get("fusion", "log_probabilities")


def test_a_study_that_cannot_begin_is_refused_before_the_first_row(store: Path) -> None:
    preset = load_preset("small", {"learning_rate": 0.1})  # which the preset's own recipe, a probe, does not use
    with pytest.raises(ParameterError, match=r"learning_rate=0\.1: outside the study's search space"):
        ablate(data="not/looked/at", preset=preset, seed=SEED)


def test_an_error_says_where_on_the_ladder_it_came_up() -> None:
    with pytest.raises(CohortError, match=r"^row-2: seed 7: no slides$"), naming("row-2"), naming("seed 7"):
        raise CohortError("no slides")
    with pytest.raises(MemoryError) as caught, naming("row-2"):
        raise MemoryError("full")
    assert "row-2" in caught.value.__notes__[0]


@pytest.fixture(scope="module")
def quick() -> Preset:
    values = {"epochs": 2, "unfreeze_every": 1, "trials": 2, "trial_epochs": 1, "resamples": 200, "seeds": SEEDS}
    return load_preset("demo", values)


def planted(*given: Any) -> outcome.Outcome:
    """A study's outcome whose trial has the settings `TUNED`."""
    found = outcome_of(*given)
    kept = copy.deepcopy(found.kept)
    kept.params = TUNED
    return dataclasses.replace(found, kept=kept)


@pytest.fixture(scope="module")
def interrupted(module_store: Path, small_cohort: Path, quick: Preset) -> Iterator[dict[str, Run]]:
    """A store in which a ladder broke in its third row; its finished trainings by row and seed.

    The study's best recipe is planted, so that the tuned rows differ from the preset's.
    """
    with pytest.MonkeyPatch.context() as patcher:
        patcher.setattr(outcome, "outcome_of", planted)
        evaluated = []

        def breaking(**parameters: Any) -> StageResult:
            evaluated.append(parameters)
            if len(evaluated) > 2 * SEEDS:
                raise UpstreamError("the disk is full")
            return evaluate(**parameters)

        with pytest.MonkeyPatch.context() as breaker:
            breaker.setattr(module, "evaluate", breaking)
            with pytest.raises(UpstreamError, match=r"^row-3 \+ patch extraction: seed 5: the disk is full$"):
                ablate(data=str(small_cohort), preset=quick, seed=SEED)
        trained = {run.info.run_id: run for run in finished_runs("train", limit=100)}
        assert len(trained) == 2 * SEEDS + 1
        yield trained


@pytest.fixture(scope="module")
def ladder(interrupted: dict[str, Run], small_cohort: Path, quick: Preset) -> StageResult:
    """The ladder that went on, launched as `mlflow run` does."""
    launched = MlflowClient().create_run(experiment_id()).info.run_id
    with pytest.MonkeyPatch.context() as patcher:
        patcher.setenv("MLFLOW_RUN_ID", launched)
        result = ablate(data=str(small_cohort), preset=quick, seed=SEED)
    assert result.run_id == launched
    return result


@pytest.fixture(scope="module")
def table(ladder: StageResult) -> pd.DataFrame:
    return read_back(pd.read_csv(local(ladder.artifacts["ladder"])).fillna({"verdict": "", "changes": ""}))


def local(uri: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))


def children(run_id: str) -> list[Run]:
    query = f"tags.mlflow.parentRunId = '{run_id}'"
    return list(MlflowClient().search_runs([experiment_id()], query, order_by=["attributes.start_time ASC"]))


def rows(ladder: StageResult) -> list[Run]:
    return [run for run in children(ladder.run_id) if " row-" in run.info.run_name]


@pytest.mark.slow
def test_every_row_is_a_finished_child_with_its_stages_under_it(ladder: StageResult, table: pd.DataFrame) -> None:
    found = rows(ladder)
    assert [run.info.run_name for run in found] == [
        f"{run.data.metrics['macro_f1']:.3f} row-{n} {row.name}"
        for n, (run, row) in enumerate(zip(found, LADDER, strict=True), 1)
    ]
    assert table["row"].tolist() == [row.name for row in LADDER]
    for run, line in zip(found, table.to_dict("records"), strict=True):
        assert run.info.status == "FINISHED"
        metrics = run.data.metrics
        assert [
            metrics[name] for name in ("macro_f1", "ci/macro_f1_low", "ci/macro_f1_high", "seconds")
        ] == pytest.approx([line[name] for name in ("macro_f1", "low", "high", "seconds")])
        assert ("difference" in metrics) == bool(line["verdict"])
        if line["verdict"]:
            ends = [metrics[name] for name in ("difference", "ci/difference_low", "ci/difference_high")]
            assert ends == pytest.approx([line["difference"], line["difference_low"], line["difference_high"]])
            assert run.data.params["changes"] == line["changes"]
        assert line["verdict"] in run.data.tags["mlflow.note.content"]
    under = [[run.data.tags["doctogres.stage"] for run in children(row.info.run_id)] for row in found]
    assert under[4] == ["train", "evaluate"] * SEEDS  # the patches are row 3's
    assert under[6] == ["tune"] + ["train", "evaluate"] * SEEDS  # and here row 6's
    assert under[7] == ["train", "evaluate"] * SEEDS  # the study is there
    assert under[3] == []  # the demo's backbone is the small network from scratch: the same recipe
    assert table["verdict"][3] == "same recipe"


@pytest.mark.slow
def test_the_parent_has_the_curve_and_links_to_the_comparison(ladder: StageResult, table: pd.DataFrame) -> None:
    curve = MlflowClient().get_metric_history(ladder.run_id, "macro_f1")
    assert [point.step for point in curve] == list(range(1, len(LADDER) + 1))
    assert [point.value for point in curve] == pytest.approx(table["macro_f1"].tolist())
    note = mlflow.get_run(ladder.run_id).data.tags["mlflow.note.content"]
    assert local(ladder.artifacts["ladder_md"]).read_text() in note
    assert compare_link([run.info.run_id for run in rows(ladder)]) in note
    assert local(ladder.artifacts["ladder_png"]).read_bytes().startswith(b"\x89PNG")
    assert {
        "first/macro_f1",
        "last/macro_f1",
        "null/majority/macro_f1",
        "null/chance/macro_f1",
    } <= ladder.metrics.keys()


@pytest.mark.slow
def test_all_rows_are_scored_on_the_hold_out_of_one_split(ladder: StageResult, table: pd.DataFrame) -> None:
    before = pd.read_parquet(local(ladder.artifacts["uncleaned"]))
    held = set(before.loc[before["fold"] == HOLDOUT, "slide_id"])
    for line in table.to_dict("records"):
        scores = []
        for run_id in line["runs"].split():
            predictions = pd.read_csv(local(f"runs:/{run_id}/predictions.csv"))
            assert set(predictions["slide_id"]) == held
            scores.append(mlflow.get_run(run_id).data.metrics["macro_f1"])
        assert [float(score) for score in line["by_seed"].split()] == pytest.approx(scores, abs=1e-6)
        assert line["macro_f1"] == pytest.approx(sum(scores) / SEEDS)
        assert (line["lowest_seed"], line["highest_seed"]) == pytest.approx((min(scores), max(scores)))
    assert table["difference"].iloc[1:].tolist() == pytest.approx(table["macro_f1"].diff().iloc[1:].tolist())
    patches = [run for run in finished_runs("patch", limit=100) if run.data.params["patch.patching"] == "whole"]
    cleaned, without = sorted(int(run.data.metrics["patches/kept"]) for run in patches)
    assert without == len(usable(before)) > cleaned


@pytest.mark.slow
def test_the_last_rows_train_with_the_studys_recipe_each_seed_its_own(ladder: StageResult) -> None:
    for number, row in enumerate(rows(ladder), 1):
        tuned = number in (7, 8)
        trainings = [run for run in children(row.info.run_id) if run.data.tags["doctogres.stage"] == "train"]
        for run in trainings:
            own = {name: float(run.data.params[f"train.{name}"]) for name in TUNED}
            assert (own == TUNED) == tuned
            assert run.data.params["train.oof_folds"] == ("0" if number >= 8 else "1")
        if trainings and number > 3:
            assert [run.data.params["train.seed"] for run in trainings] == [str(SEED + own) for own in range(SEEDS)]
    assert rows(ladder)[6].data.params["changes"] == "learning_rate=0.002, dropout=0.25"
    assert rows(ladder)[7].data.params["changes"] == "oof_folds=0, ensemble=True, tta=True"


@pytest.mark.slow
def test_a_ladder_that_broke_goes_on_and_a_finished_one_is_reused(
    interrupted: dict[str, Run], ladder: StageResult, small_cohort: Path, quick: Preset, table: pd.DataFrame
) -> None:
    trainings = {run.info.run_id for run in finished_runs("train", limit=100)}
    assert interrupted.keys() < trainings
    assert len(trainings) == SEEDS * 10  # eleven rows, of which two are the same recipe; none was trained twice
    again = ablate(data=str(small_cohort), preset=quick, seed=SEED)
    assert (again.run_id, again.reused) == (ladder.run_id, True)
    forced = ablate(data=str(small_cohort), preset=quick, seed=SEED, rerun=True)
    assert forced.run_id != ladder.run_id
    assert {run.info.run_id for run in finished_runs("train", limit=100)} == trainings
    assert local(forced.artifacts["ladder"]).read_text() == local(ladder.artifacts["ladder"]).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["seeds", "resamples", "trials", "tta", "label_smoothing"])
def test_another_setting_is_another_ladder(
    ladder: StageResult, small_cohort: Path, setting: str, monkeypatch: pytest.MonkeyPatch, quick: Preset
) -> None:
    values = {"seeds": 3, "resamples": 300, "trials": 3, "tta": True, "label_smoothing": 0.1}
    content = quick.model_dump()
    for section in content.values():
        section |= {setting: values[setting]} if setting in section else {}

    def started(*_: object, **__: object) -> None:
        raise ParameterError("started")

    monkeypatch.setattr(module, "clean", started)
    with pytest.raises(ParameterError, match="started"):
        ablate(data=str(small_cohort), preset=Preset.model_validate(content), seed=SEED)
