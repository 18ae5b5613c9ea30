"""A model at the gate: the comparison with the champion, the limits, and the decision."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from doctogres.catalogue import DEFAULT_NAME
from doctogres.errors import DoctogresError, ParameterError, UpstreamError
from doctogres.evaluation.null_models import NULL_MODELS
from doctogres.files import workspace
from doctogres.progress import counted
from doctogres.registry.champion_comparison import Evaluation, compare_with_champion, read_evaluation
from doctogres.registry.gate import CHAMPION, ChampionComparison, GateDecision, gate, held
from doctogres.registry.limits import Measured, recalls, violations
from doctogres.registry.versions import PROMOTED_TAG, RegisteredModel, reason_of
from doctogres.remote import is_address
from doctogres.serving.loading import classifier_folder
from doctogres.settings import Preset
from doctogres.slides.cohort import open_cohort
from doctogres.slides.selection import split_name
from doctogres.slides.splits import HOLDOUT
from doctogres.stages.scored_slides import scored_slides
from doctogres.tracking.datasets import source_of
from doctogres.tracking.runs import PART_TAG, SLIDES_TAG

FORCE: Final = "force"
ASK: Final = "ask"
ALREADY: Final = "it is already the champion: "


class ScoringNeeded(Exception):
    """A dry run would have to evaluate the champion on the new slides, which is a run of its own."""


@dataclass(frozen=True)
class Candidate:
    """An evaluated model, and what the gate's decision depends on."""

    scored: Evaluation
    source: str  # the address of its logged model
    model: RegisteredModel
    preset: Preset
    seed: int
    promote: str
    data: str
    dry_run: bool = False

    @property
    def split(self) -> str:
        """The name of the split, for messages."""
        return split_name(self.scored.scores.split)

    @property
    def moved_to(self) -> str:
        """Where the slides lie if not where the evaluation read them; otherwise empty, given or not."""
        read = self.scored.run.data.tags.get(SLIDES_TAG, "") if self.scored.run else ""
        there = is_address(self.data) or Path(self.data).exists()
        same = there and str(open_cohort(self.data, workspace=workspace())) == read
        return "" if same else self.data


def candidate_of(
    *,
    evaluation: str,
    preset: Preset,
    seed: int,
    split: str = HOLDOUT,
    promote: str = "auto",
    model_name: str = DEFAULT_NAME,
    data: str = "",
    dry_run: bool = False,
) -> Candidate:
    """The model of an evaluation, as the parameters of `register` name it.

    `promote="force"` makes it champion regardless of the gate; with `promote="ask"` it becomes a version, but no alias moves
    until a person runs `promote`.

    Raises:
        ParameterError: the evaluation is of another split than `split`.
    """
    scored = read_evaluation(evaluation, split=split)
    if scored.scores.split != split:
        raise ParameterError(
            f"evaluation={evaluation}: its split is {scored.scores.split}, but {split} decides; give an evaluation of "
            f"{split}, or split={scored.scores.split} to let this one decide"
        )
    source, model = _source(scored.scores.model), RegisteredModel(model_name)
    return Candidate(scored, source, model, preset, seed, promote, data, dry_run)


def _source(model: str) -> str:
    """The address `models:/m-...` of a model, however the evaluation referred to it; a folder stays a folder."""
    if not model.startswith(("models:/", "runs:/")):
        return model
    try:
        model_id = mlflow.models.get_model_info(model).model_id
    except (MlflowException, OSError) as error:
        raise UpstreamError(f"{model}: the evaluated model could not be fetched ({error})") from error
    return f"models:/{model_id}" if model_id else model


@dataclass(frozen=True)
class Outcome:
    """The decision with what it rests on; `measured` is None if the limits did not matter."""

    decision: GateDecision
    comparison: ChampionComparison | None = None
    measured: Measured | None = None


def decide(candidate: Candidate, champion: ModelVersion | None) -> Outcome:
    """The gate's decision: a model that would become champion must also keep the limits.

    Raises:
        ScoringNeeded: in a dry run, if the champion was evaluated on other slides.
    """
    decision, comparison = _compared(candidate, champion)
    if decision.alias != CHAMPION or decision.reason.startswith(ALREADY):
        return Outcome(decision, comparison)
    measured = _measured(candidate, champion)
    return Outcome(held(decision, violations(measured, candidate.preset.gate)), comparison, measured)


def _measured(candidate: Candidate, champion: ModelVersion | None) -> Measured:
    scores = candidate.scored.scores
    files = [path for path in classifier_folder(candidate.source).rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    latency = {}
    if candidate.preset.gate.max_latency_ms > 0:
        latency = _latency(candidate, champion)
    recall = recalls(scores.metrics, scores.classes)
    return Measured(size, recall, latency.get("model"), latency.get(CHAMPION))


def _latency(candidate: Candidate, champion: ModelVersion | None) -> dict[str, float]:
    """The latency of the model and of the champion on the slides that decide, each read from its files as in serving."""
    from doctogres.cleaning.reading import read_slide
    from doctogres.evaluation.latency import slide_latency_ms
    from doctogres.serving.loading import load_classifier

    run, reading = candidate.scored.run, candidate.scored.reading
    if run is None or not (cohort := source_of(run)):
        raise UpstreamError("max_latency_ms needs the slides: give the id of a run of `evaluate` as evaluation")
    data, split = candidate.data or run.data.tags.get(SLIDES_TAG, ""), candidate.scored.scores.split
    chosen = scored_slides(split, cohort, data=data, subgroups="none", **reading)
    sources = {"model": candidate.source} | ({CHAMPION: str(champion.source)} if champion else {})
    loaded = {name: load_classifier(source) for name, source in sources.items()}
    models = {
        name: lambda row, classifier=classifier: classifier.classify(*read_slide(chosen.root, row)[:2])
        for name, classifier in loaded.items()
    }
    rows = chosen.slides.itertuples(index=False)
    return slide_latency_ms(models, counted(rows, "latency", "slides", len(chosen.slides)))


def _compared(candidate: Candidate, champion: ModelVersion | None) -> tuple[GateDecision, ChampionComparison | None]:
    scored, preset = candidate.scored, candidate.preset
    macro_f1, nulls = scored.scores.metrics["macro_f1"], {name: scored.scores.null[name] for name in NULL_MODELS}

    def gated(comparison: ChampionComparison | None) -> GateDecision:
        return gate(macro_f1, nulls, comparison, settings=preset.gate, split=candidate.split)

    if (
        champion is not None and champion.source == candidate.source
    ):  # checked first, because a forced champion may be no better than guessing
        reason = ALREADY + reason_of(champion).removeprefix(ALREADY)
        return GateDecision(CHAMPION, reason, forced=champion.tags.get(PROMOTED_TAG) == FORCE), None
    against_nulls = gated(None)
    if champion is None or not against_nulls.alias:
        return against_nulls, None
    address = candidate.model.address(str(champion.version))
    try:
        comparison = compare_with_champion(
            champion,
            scored,
            score_champion=lambda new: _score(address, new, candidate),
            resamples=preset.evaluate.resamples,
            seed=candidate.seed,
        )
    except DoctogresError as error:  # a champion that cannot be compared must not block later models
        comparison = ChampionComparison(str(champion.version), 0, None, f"the comparison failed: {error}")
    return gated(comparison), comparison


def _score(model: str, new: Evaluation, candidate: Candidate) -> str:
    """The run of `evaluate` for a model on the slides of another model's evaluation."""
    from doctogres.stages.evaluate import (
        evaluate,
    )  # loads torch, which a comparison of stored predictions does not need

    if candidate.dry_run:
        raise ScoringNeeded
    cohort = source_of(new.run) if new.run else ""
    if new.run is None or not cohort:
        raise UpstreamError("the new evaluation does not name its cohort table; give the id of a run of `evaluate`")
    scored = evaluate(
        model=model,
        cohort=cohort,
        split=new.scores.split,
        preset=candidate.preset,
        seed=candidate.seed,
        data=candidate.data or new.run.data.tags.get(SLIDES_TAG, ""),
        **new.reading,
    )
    if not scored.reused and (parent := mlflow.active_run()):
        mlflow.MlflowClient().set_tag(scored.run_id, PART_TAG, parent.info.run_id)
    return scored.run_id
