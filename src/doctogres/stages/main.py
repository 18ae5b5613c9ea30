"""main: all stages in one process, as nested runs of one parent run; ends with a summary."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import mlflow
import yaml
from mlflow.entities import Run

from doctogres.catalogue import DEFAULT_NAME
from doctogres.evaluation.null_models import NULL_MODELS
from doctogres.files import workspace
from doctogres.model.weights import check_all_weights
from doctogres.pages import markdown
from doctogres.planning.auto import CHOSEN
from doctogres.presets import check_space
from doctogres.registry.champion_comparison import read_evaluation
from doctogres.registry.gate import CHAMPION, NOT_REGISTERED
from doctogres.registry.origin import origin_of, recorded_origin
from doctogres.registry.versions import RegisteredModel
from doctogres.settings import Preset
from doctogres.slides.cohort import find_slides, find_test_groups, open_cohort
from doctogres.slides.layout import TEST
from doctogres.slides.splits import HOLDOUT
from doctogres.slides.subgroups import AUTO
from doctogres.stages.candidate import candidate_of
from doctogres.stages.clean import clean
from doctogres.stages.evaluate import evaluate
from doctogres.stages.patch import patch
from doctogres.stages.predict import predict
from doctogres.stages.promised import promised_seconds
from doctogres.stages.register import decision, register
from doctogres.stages.steps import Steps
from doctogres.stages.train import read_params, train
from doctogres.stages.tune import tune
from doctogres.tracking.runs import NAME_TAG, NOTE_TAG, SECONDS, STAGE_TAG, StageResult, code_tags, open_run
from doctogres.tracking.view import COLUMNS, run_link

RIVALS: Final = tuple(f"null/{name}" for name in NULL_MODELS)
STAGES: Final = ("clean", "patch", "tune", "train", "evaluate", "register", "predict")


def run_all(
    *,
    data: str,
    preset: Preset,
    seed: int,
    decisions: str = "",
    ignore_columns: str = "",
    subgroups: str = AUTO,
    annotations: str = "",
    model_name: str = DEFAULT_NAME,
    rerun: bool = False,
    strict: bool = False,
) -> StageResult:
    """Runs or reuses every stage on the cohort at `data`; predicts the test slides if there are any."""
    started = time.perf_counter()
    check_space(preset)
    check_all_weights(preset)  # not found out after two finished stages
    with open_run("main") as parent:
        cohort = Path(data).name
        mlflow.set_tags({STAGE_TAG: "main", NAME_TAG: f"main {cohort}", **code_tags()})
        _record(parent, {"data": data, "seed": seed}, preset)
        root = open_cohort(data, workspace=workspace())
        if to_predict := (root / TEST).is_dir():  # what `predict` would refuse is not found out after the training
            find_slides(root, labelled=False, annotations=annotations)
            find_test_groups(root)
        of_slides = {"ignore_columns": ignore_columns, "subgroups": subgroups, "annotations": annotations}
        promised = promised_seconds(data, preset, seed, of_slides, rerun=rerun) if CHOSEN in preset.given else {}
        step = Steps(STAGES if to_predict else STAGES[:-1], promised)
        results = _stages(
            step, data, preset, seed, decisions, ignore_columns, subgroups, annotations, model_name, rerun, strict
        )
        standing = standing_of(RegisteredModel(model_name), {result.stage: result for result in results})
        if to_predict:
            test: dict[str, Any] = {"annotations": annotations, "mpp": str(preset.clean.mpp or ""), "strict": strict}

            def answer() -> StageResult:
                print(f"predict: {standing.answered}", flush=True)
                return predict(data=data, model=standing.model, preset=preset, rerun=rerun, **test)

            results.append(step("predict", answer))
        else:
            print("predict: skipped, the cohort has no test_data folder", flush=True)
        by_stage = {result.stage: result for result in results}
        scores = by_stage["evaluate"].metrics
        metrics = {name: scores[name] for name in (*COLUMNS, *RIVALS) if name in scores and name != SECONDS}
        mlflow.log_metrics(metrics | step.metrics | {SECONDS: round(time.perf_counter() - started, 1)})
        decided = decision(by_stage["register"])
        mlflow.set_tags(
            {NAME_TAG: f"{scores['macro_f1']:.3f} main {cohort}", NOTE_TAG: _note(results, decided, standing)}
        )
        summary = summarise(by_stage, decided, standing, run_link(parent.info.run_id))
        artifacts = {f"{result.stage}/{name}": uri for result in results for name, uri in result.artifacts.items()}
        artifacts |= {name: uri for name, uri in by_stage["register"].artifacts.items() if name == "model"}
        return StageResult("main", parent.info.run_id, artifacts, metrics, title="main", summary=summary)


def _record(parent: Run, given: dict[str, Any], preset: Preset) -> None:
    """The given parameters, unless `mlflow run` has recorded them, and all settings as settings.yaml."""
    new = {name: value for name, value in (given | preset.given).items() if name not in parent.data.params}
    mlflow.log_params(new)
    mlflow.log_text(yaml.safe_dump(preset.model_dump(mode="json"), sort_keys=False), "settings.yaml")


def _stages(
    step: Steps,
    data: str,
    preset: Preset,
    seed: int,
    decisions: str,
    ignore_columns: str,
    subgroups: str,
    annotations: str,
    model_name: str,
    rerun: bool,
    strict: bool,
) -> list[StageResult]:
    again: dict[str, Any] = {"rerun": rerun}
    columns: dict[str, Any] = {"ignore_columns": ignore_columns, "subgroups": subgroups, "annotations": annotations}
    given: dict[str, Any] = {"decisions": decisions, "strict": strict, **columns, **again}
    cleaned = step("clean", lambda: clean(data=data, preset=preset, seed=seed, **given))
    cut = step("patch", lambda: patch(cohort=cleaned.run_id, preset=preset, data=data, **again))
    common: dict[str, Any] = {"preset": preset, "seed": seed, "data": data}
    tuned = step("tune", lambda: tune(patches=cut.run_id, **common, **again))
    step.choose(read_params(tuned.run_id).applied_to(preset).train.recipe)
    trained = step("train", lambda: train(patches=cut.run_id, params=tuned.run_id, **common, **again))
    of_split: dict[str, Any] = {"split": HOLDOUT, "subgroups": subgroups, **again}
    scored = step("evaluate", lambda: evaluate(model=trained.run_id, cohort=cleaned.run_id, **of_split, **common))
    asked = partial(candidate_of, evaluation=scored.run_id, model_name=model_name, **common)
    return [cleaned, cut, tuned, trained, scored, step("register", lambda: register(asked(), **again))]


@dataclass(frozen=True)
class Standing:
    """The champion of the registered model beside the model of this run.

    Attributes:
        champion: its version, cohort, classes and training run in words; empty if there is no champion.
        warning: how it differs from this run; empty if it does not.
        model: address of the model that answers the test slides.
        answered: which one that is, and why, in words.
    """

    champion: str
    warning: str
    model: str
    answered: str


def standing_of(registered: RegisteredModel, results: dict[str, StageResult]) -> Standing:
    """Compares the champion with this run; it answers the test slides unless it has other classes."""
    own_model, champion = results["train"].artifacts["model"], registered.champion()
    this = "the test slides are answered by the model of this run, because"
    if champion is None:
        return Standing("", "", own_model, f"{this} {registered.name} has no champion")
    origin, own = recorded_origin(champion), origin_of(read_evaluation(results["evaluate"].run_id))
    named = f"{registered.name} version {champion.version}"
    said, warning = f"{named}: {origin}", ""
    if differs := origin.differs_from(own):
        warning = f"the champion has {differs} than this run: {said}; give this cohort a model_name of its own"
    if origin.classes != own.classes:
        return Standing(said, warning, own_model, f"{this} the champion ({named}) has other classes")
    answered = f"the test slides are answered by the champion ({named})"
    return Standing(said, warning, registered.address(str(champion.version)), answered)


def summarise(results: dict[str, StageResult], decided: dict[str, Any], standing: Standing, link: str) -> str:
    """The summary: the model's status, its score compared with null models, and the next commands."""
    metrics = results["evaluate"].metrics
    rivals = ", ".join(f"{words} {metrics[f'null/{name}']:.3f}" for name, words in NULL_MODELS.items())
    return "\n".join(
        [
            "",
            *([f"warning     {standing.warning}"] if standing.warning else []),
            f"model       {_standing(decided)}: {decided['reason']}",
            f"hold-out    macro-F1 {_score(results['evaluate'])}; null models: {rivals}",
            f"champion    {standing.champion or 'none'}",
            *(
                [f"test slides {standing.answered.removeprefix('the test slides are ')}"]
                if "predict" in results
                else []
            ),
            "",
            f"next        make ui       browse the runs; this one is {link}",
            *_serving(decided["name"]),
        ]
    )


def _score(scored: StageResult) -> str:
    """The macro-F1 with its interval."""
    value, low, high = (scored.metrics[name] for name in COLUMNS[:3])
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _standing(decided: dict[str, Any]) -> str:
    if not decided["version"]:
        return NOT_REGISTERED
    now = RegisteredModel(decided["name"]).aliases_of(decided["version"])
    moved = "" if decided["alias"] in now.split(", ") else f" (now {now})"
    return f"{decided['name']} version {decided['version']}, {decided['alias']}{moved}"


def _serving(name: str) -> list[str]:
    champion = RegisteredModel(name).aliases().get(CHAMPION)
    if champion is None:
        return ["            make serve    serve the champion (there is none yet)"]
    chosen = "" if name == DEFAULT_NAME else f" MODEL={name}"
    return [
        f"            make serve{chosen}    serve the champion (version {champion}) on http://127.0.0.1:5001; then, in another terminal:",
        "            make request  classify one of the demo's test slides",
    ]


def _note(results: list[StageResult], decided: dict[str, Any], standing: Standing) -> str:
    """The result in sentences, then a line per stage with the link to its run."""
    scored = next(result for result in results if result.stage == "evaluate")
    lines = [
        f"- {result.stage}: [{markdown(result.title)}]({run_link(result.run_id, absolute=False)})"
        + " (reused)" * result.reused
        for result in results
    ]
    result = f"Macro-F1 on the hold-out: {_score(scored)}. Model: {markdown(_standing(decided))}. Reason: {markdown(decided['reason'])}."
    if standing.warning:
        result += f" Warning: {markdown(standing.warning)}."
    return "\n".join([result, "", *lines])
