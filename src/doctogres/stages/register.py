"""register: an evaluated model -> a registered version with card and tags, as `champion` or `challenger`, or none."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from doctogres.catalogue import DEFAULT_NAME, SECOND
from doctogres.errors import DoctogresError, ParameterError, UpstreamError
from doctogres.evaluation.null_models import NULL_MODELS
from doctogres.files import workspace
from doctogres.registry.champion_comparison import Evaluation, compare_with_champion, read_evaluation
from doctogres.registry.gate import CHAMPION, NOT_REGISTERED, ChampionComparison, GateDecision, gate, overruled
from doctogres.registry.lineage import card_facts
from doctogres.registry.origin import origin_of
from doctogres.registry.versions import (
    COMPARED_TAG,
    EVALUATION_TAG,
    NO_CHAMPION,
    PROMOTED_TAG,
    RegisteredModel,
    reason_of,
    tags_of,
)
from doctogres.report.model_card import model_card
from doctogres.settings import Preset
from doctogres.slides.cohort import open_cohort
from doctogres.slides.selection import SPLIT_NAMES
from doctogres.slides.splits import HOLDOUT
from doctogres.tracking.datasets import source_of
from doctogres.tracking.runs import (
    NOTE_TAG,
    PART_TAG,
    SLIDES_TAG,
    STAGE_TAG,
    StageResult,
    StageRun,
    result_of,
    run_stage,
)
from doctogres.tracking.upstream import find_artifact

FORCE: Final = "force"
ALREADY: Final = "it is already the champion: "


class ChampionChangedError(DoctogresError):
    """Another model became champion while this one was being compared with the previous champion."""

    code = "champion_changed"


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

    @property
    def split(self) -> str:
        """The name of the split, for messages."""
        name = self.scored.scores.split
        return SPLIT_NAMES.get(name, name)

    @property
    def moved_to(self) -> str:
        """Where the slides lie if not where the evaluation read them; otherwise empty, given or not."""
        read = self.scored.run.data.tags.get(SLIDES_TAG, "") if self.scored.run else ""
        same = Path(self.data).exists() and str(open_cohort(self.data, workspace=workspace())) == read
        return "" if same else self.data


def register(
    *,
    evaluation: str,
    preset: Preset,
    seed: int,
    split: str = HOLDOUT,
    promote: str = "auto",
    model_name: str = DEFAULT_NAME,
    data: str = "",
    rerun: bool = False,
) -> StageResult:
    """Registers an evaluated model or reuses a finished run; `promote="force"` makes it champion regardless of the gate.

    A finished run is reused if the evaluation, the settings and the champion are the same. Aliases then stay as they
    are, even if a user has moved them since; a message says so. If another model becomes champion during the
    comparison, the run fails with a note and the gate decides again.

    Raises:
        ParameterError: the evaluation is of another split than `split`.
    """
    scored = read_evaluation(evaluation, split=split)
    if scored.scores.split != split:
        raise ParameterError(
            f"evaluation={evaluation}: its split is {scored.scores.split}, but {split} decides; give an evaluation of "
            f"{split}, or split={scored.scores.split} to let this one decide"
        )
    source = _source(scored.scores.model)
    candidate = Candidate(scored, source, RegisteredModel(model_name), preset, seed, promote, data)
    if moved := candidate.model.notice_moved_champion():
        print(f"register: {moved}; the next model is compared with that one", flush=True)
    while True:
        try:
            result = _run(candidate, rerun=rerun)
            if result.reused and (why := _outdated(decision(result), candidate)):
                print(f"register: {why}", flush=True)
                result = _run(candidate, rerun=True)
        except ChampionChangedError as error:
            print(f"register: {error}; the gate decides again", flush=True)
            continue
        if result.reused:
            _say_if_moved(decision(result), candidate)
        return result


def decision(result: StageResult) -> dict[str, Any]:
    """The decision of the stage (version.json): name, version, alias, reason, forced."""
    artifact = find_artifact(result.run_id, stage="register", name="version")
    content: dict[str, Any] = json.loads(artifact.path.read_text(encoding="utf-8"))
    return content


def _run(candidate: Candidate, *, rerun: bool) -> StageResult:
    """Runs or reuses the stage with the current champion."""
    champion, scored = candidate.model.champion(), candidate.scored
    compared_with = _compared_with(champion, candidate.source)

    def body(run: StageRun) -> None:
        decided, comparison = _decide(candidate, champion)
        if candidate.promote == FORCE and not decided.reason.startswith(ALREADY):
            decided = overruled(decided)
        version = _version(run, candidate, decided, compared_with)
        if version is not None and not candidate.model.move_alias(version, decided.alias, champion):
            changed = "another model became champion meanwhile"
            mlflow.set_tag(NOTE_TAG, f"No decision: {changed}. The next run compares the model with that one.")
            raise ChampionChangedError(changed)
        _report(run, candidate, decided, comparison, version)
        if version is not None and (everything := _model_of_everything(candidate)):
            second = candidate.model.register_unevaluated(everything, of=version)
            run.artifacts[SECOND] = candidate.model.address(second)
            print(
                f"register: {candidate.model.name} version {second} was trained on the hold-out, too; it has no alias and no score",
                flush=True,
            )

    return run_stage(
        "register",
        body,
        settings=candidate.preset.gate.model_dump()
        | {
            "promote": candidate.promote,
            "split": scored.scores.split,
            "model_name": candidate.model.name,
            "resamples": candidate.preset.evaluate.resamples,
            "seed": candidate.seed,
            "data": candidate.moved_to,
        },
        inputs={
            "evaluation": scored.digest,
            "split": scored.split_digest,
            "champion": compared_with,
        },
        data_digest=scored.data_digest,
        rerun=rerun,
    )


def _decide(candidate: Candidate, champion: ModelVersion | None) -> tuple[GateDecision, ChampionComparison | None]:
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
    )
    if not scored.reused and (parent := mlflow.active_run()):
        mlflow.MlflowClient().set_tag(scored.run_id, PART_TAG, parent.info.run_id)
    return scored.run_id


def _version(run: StageRun, candidate: Candidate, decided: GateDecision, compared_with: str) -> str | None:
    """Writes the card, and registers the version, without an alias yet, if the gate passed it."""
    scored = candidate.scored
    card = model_card(card_facts(scored), decided)
    run.publish("card").write_text(card, encoding="utf-8")
    if not decided.alias:
        return None
    tags = tags_of(
        decided,
        macro_f1=f"{scored.scores.metrics['macro_f1'].value:.6f}",
        split=scored.scores.split,
        split_digest=scored.split_digest,
        **origin_of(scored).tags,
        **{EVALUATION_TAG: scored.run.info.run_id if scored.run else "", COMPARED_TAG: compared_with},
    )
    version = candidate.model.register(
        candidate.source, tags=tags, card=card, card_uri=run.artifacts["card"], decision=decided
    )
    run.artifacts["model"] = candidate.model.address(version)
    return version


def _model_of_everything(candidate: Candidate) -> str:
    """The address of the model that the same training run fitted to the hold-out, too; empty without one."""
    trained_by = mlflow.models.get_model_info(candidate.source).run_id
    run = mlflow.get_run(trained_by) if trained_by else None
    if run is None or run.data.tags.get(STAGE_TAG) != "train":
        return ""
    artifacts = result_of(run).artifacts
    return artifacts.get(SECOND, "") if artifacts["model"] == candidate.source else ""


def _source(model: str) -> str:
    """The address `models:/m-...` of a model, however the evaluation referred to it; a folder stays a folder."""
    if not model.startswith(("models:/", "runs:/")):
        return model
    try:
        model_id = mlflow.models.get_model_info(model).model_id
    except (MlflowException, OSError) as error:
        raise UpstreamError(f"{model}: the evaluated model could not be fetched ({error})") from error
    return f"models:/{model_id}" if model_id else model


def _compared_with(champion: ModelVersion | None, source: str) -> str:
    """The champion to compare with, for the fingerprint; for the champion itself, the one it was compared with."""
    if champion is None:
        return NO_CHAMPION
    if champion.source == source:
        return str(champion.tags.get(COMPARED_TAG, NO_CHAMPION))
    return f"version {champion.version} ({champion.source})"


def _report(
    run: StageRun,
    candidate: Candidate,
    decided: GateDecision,
    comparison: ChampionComparison | None,
    version: str | None,
) -> None:
    name, model = candidate.model.name, candidate.scored.scores.model
    content = {"name": name, "version": version, "alias": decided.alias, "reason": decided.reason}
    path = run.publish("version")
    path.write_text(json.dumps(content | {"forced": decided.forced}, indent=1), encoding="utf-8")
    if comparison:
        run.attach("comparison.json").write_text(json.dumps(asdict(comparison), indent=1), encoding="utf-8")
    forced = ", by force" if decided.forced else ""
    run.name(f"register · version {version} · {decided.place}{forced}" if version else f"register · {decided.place}")
    done = f"{model} is {name} version {version}, {decided.place}{forced}" if version else f"{model} was not registered"
    run.note(f"{done}. Reason: {decided.reason}.")
    print(f"register: {done}: {decided.reason}", flush=True)
    run.log_metrics({"macro_f1": candidate.scored.scores.metrics["macro_f1"].value})
    if version:
        run.log_metrics({"version": float(version)})
    if comparison and (gain := comparison.difference):
        run.log_metrics(
            {"gain": gain.value, "gain/low": gain.low, "gain/high": gain.high, "gain/slides": comparison.slides}
        )


def _outdated(decided: dict[str, Any], candidate: Candidate) -> str:
    """Why a finished run cannot be reused although nothing it depends on has changed; otherwise empty."""
    version = candidate.model.version_of(candidate.source)
    if version is None:
        gone = f"version {decided['version']} is no longer in the registry; registering it again"
        return gone if decided["version"] else ""
    is_champion = candidate.model.aliases().get(CHAMPION) == str(version.version)
    if candidate.promote == FORCE and not is_champion:
        return f"version {version.version} is no longer champion; promote=force makes it champion again"
    if is_champion and decided["alias"] != CHAMPION:
        return f"version {version.version} has become champion since"
    return ""


def _say_if_moved(decided: dict[str, Any], candidate: Candidate) -> None:
    version = candidate.model.version_of(candidate.source)
    if version and decided["alias"] not in (now := candidate.model.aliases_of(str(version.version))).split(", "):
        print(
            f"register: decision of that run: {decided['alias'] or NOT_REGISTERED}; version {version.version} now has {now}. "
            "Aliases stay as they are; rerun=true lets the gate decide again",
            flush=True,
        )
