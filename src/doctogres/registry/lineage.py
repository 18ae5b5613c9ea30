"""The runs behind an evaluated model, for its card: clean, patch, train, evaluate."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import mlflow
import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from doctogres import __version__
from doctogres.catalogue import STAGES, Stage
from doctogres.errors import DoctogresError
from doctogres.evaluation.scores import Scores
from doctogres.presets import PRESETS, load_preset, sections_of
from doctogres.registry.champion_comparison import Evaluation
from doctogres.serving.loading import classifier_json
from doctogres.settings import Preset
from doctogres.slides.table import CohortTable
from doctogres.tracking.datasets import source_of
from doctogres.tracking.runs import DATA_TAG
from doctogres.tracking.upstream import find_artifact

COMMIT_TAG: Final = "mlflow.source.git.commit"
DECISIONS: Final = "decisions_given.csv"  # the decisions given to `clean`, an artifact of its run


@dataclass(frozen=True)
class CardFacts:
    """What the runs behind a model recorded; missing information is empty."""

    scores: Scores
    slides: pd.DataFrame  # the evaluated slides, rows of predictions.csv
    cohort: CohortTable | None
    classifier: Mapping[str, Any]  # classifier.json
    recipe: Mapping[str, Mapping[str, str]]  # stage -> its logged parameters
    commands: Sequence[str]
    data_digest: str
    origin: Mapping[str, str]  # model, evaluation, commit, version of doctogres


def card_facts(scored: Evaluation) -> CardFacts:
    """What the runs behind an evaluation recorded."""
    model = scored.scores.model
    info = mlflow.models.get_model_info(model)
    runs = runs_behind(scored, info.run_id)
    recipe = {
        stage: {name.removeprefix(f"{stage}."): value for name, value in run.data.params.items() if name.startswith(f"{stage}.")}
        for stage, run in runs.items()
    }  # fmt: skip
    decisions, first = _decisions(runs.get("clean"))
    given = {"clean": {"data": source_of(runs["clean"]), **decisions}} if "clean" in runs else {}
    tags = {stage: run.data.tags for stage, run in runs.items()}
    maker = tags.get("train", {})
    return CardFacts(
        scores=scored.scores,
        slides=scored.slides,
        cohort=_cohort(scored),
        classifier=classifier_json(model),
        recipe=recipe,
        commands=first + commands(recipe, given | {"train": {"params": "none"}}),
        data_digest=tags.get("evaluate", {}).get(DATA_TAG, ""),
        origin={
            "model": model,
            "evaluation": scored.run.info.run_id if scored.run else scored.uri,
            "commit": maker.get(COMMIT_TAG, ""),
            "doctogres": maker.get("doctogres.version", __version__),
        },
    )


def _decisions(clean: Run | None) -> tuple[dict[str, str], list[str]]:
    """The parameter for the decisions given to `clean`, and the command that downloads them or a comment why not."""
    if clean is None or "doctogres.input.decisions" not in clean.data.tags:
        return {}, []
    run_id = clean.info.run_id
    if DECISIONS not in {file.path for file in MlflowClient().list_artifacts(run_id)}:
        return {}, [f"# missing: {DECISIONS} of run {run_id}; without these decisions `clean` gives a different cohort"]
    download = ["mlflow", "artifacts", "download", "--run-id", run_id, "--artifact-path", DECISIONS, "--dst-path", "."]
    return {"decisions": DECISIONS}, [shlex.join(download)]


def runs_behind(scored: Evaluation, trained_by: str | None) -> dict[str, Run]:
    """The runs found in this store, by stage, in the order in which they ran."""
    train = _run(trained_by)
    runs = {"clean": _run_of(scored.run), "patch": _run_of(train), "train": train, "evaluate": scored.run}
    return {stage: run for stage, run in runs.items() if run is not None}


def _run_of(run: Run | None) -> Run | None:
    """The run whose output this run used as input."""
    source = source_of(run) if run else ""
    return _run(source.removeprefix("runs:/").partition("/")[0]) if source.startswith("runs:/") else None


def _run(run_id: str | None) -> Run | None:
    try:
        return MlflowClient().get_run(run_id) if run_id else None
    except MlflowException:
        return None  # the model comes from another store


def _cohort(scored: Evaluation) -> CohortTable | None:
    source = source_of(scored.run) if scored.run else ""
    try:
        return CohortTable.read(find_artifact(source, stage="clean", name="cohort").path)
    except DoctogresError:
        return None


def commands(recipe: Mapping[str, Mapping[str, str]], given: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The commands that reproduce these stages: `mlflow run . -e STAGE` with what differs from a preset and the defaults.

    Args:
        recipe: stage -> its logged parameters, in the order of the stages.
        given: stage -> parameters that are not logged (`data`, `params`), listed first.
    """
    presets = {name: load_preset(name) for name in PRESETS}
    differing = {
        name: {stage: _differing(STAGES[stage], values, preset) for stage, values in recipe.items()}
        for name, preset in presets.items()
    }
    nearest = min(differing, key=lambda name: sum(map(len, differing[name].values())))
    lines = []
    for stage, values in recipe.items():
        parameters = _parameters(STAGES[stage], values)
        named = {**given.get(stage, {}), "preset": nearest, **parameters, **differing[nearest][stage]}
        words = [word for name, value in named.items() for word in ("-P", f"{name}={value}")]
        lines.append(shlex.join(["mlflow", "run", ".", "-e", stage, "--env-manager", "local", *words]))
    return lines


def _parameters(stage: Stage, values: Mapping[str, str]) -> dict[str, str]:
    """The logged parameters that are not settings: seed and split, and others that are given and not at their defaults."""
    logged = [one for one in stage.parameters if one.name in values]
    return {
        one.name: values[one.name]
        for one in logged
        if one.name in ("seed", "split") or values[one.name] not in ("", str(one.default))
    }


def _differing(stage: Stage, values: Mapping[str, str], preset: Preset) -> dict[str, str]:
    """The logged settings of the stage that differ from the preset's; `mpp` of `evaluate` is not that of `clean`."""
    own = {name: section for name in values for section in sections_of(name) if section in stage.sections}
    return {
        name: values[name]
        for name, section in own.items()
        if str(getattr(getattr(preset, section), name)) != values[name]
    }
