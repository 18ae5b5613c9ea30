"""register: an evaluated model -> a registered version with card and tags, as `champion` or `challenger`, or none."""

import json
from dataclasses import asdict
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion

from doctogres.catalogue import SECOND
from doctogres.errors import DoctogresError
from doctogres.names import interval
from doctogres.registry.gate import CHAMPION, NOT_REGISTERED, GateDecision, overruled
from doctogres.registry.lineage import card_facts
from doctogres.registry.origin import origin_of
from doctogres.registry.promotion import how_to_promote
from doctogres.registry.versions import (
    COMPARED_TAG,
    EVALUATION_TAG,
    NO_CHAMPION,
    PROMOTED_TAG,
    PROPOSED_TAG,
    tags_of,
)
from doctogres.report.model_card import model_card
from doctogres.serving.signing import sign_model
from doctogres.stages.candidate import ALREADY, ASK, FORCE, Candidate, Outcome, ScoringNeeded, decide
from doctogres.tracking.runs import (
    NOTE_TAG,
    SLIDES,
    STAGE_TAG,
    StageResult,
    StageRun,
    result_of,
    run_stage,
)
from doctogres.tracking.upstream import find_artifact


class ChampionChangedError(DoctogresError):
    """Another model became champion while this one was being compared with the previous champion."""

    code = "champion_changed"


def register(candidate: Candidate, *, rerun: bool = False) -> StageResult:
    """Registers an evaluated model (see `candidate_of`) or reuses a finished run.

    A finished run is reused if the evaluation, the settings and the champion are the same. Aliases then stay as they
    are, even if a user has moved them since; a message says so. If another model becomes champion during the
    comparison, the run fails with a note and the gate decides again.

    Raises:
        SignatureError: DOCTOGRES_SIGNING_KEY is set, but the model cannot be signed.
    """
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
            if decision(result)["version"]:
                sign_model(candidate.source)
        return result


def foretell(candidate: Candidate) -> str:
    """What `register` would decide now, in words, for the candidate of a dry run: no run, no version, no alias."""
    return f"{_foretold(candidate)}; nothing was changed"


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
        outcome = decide(candidate, champion)
        decided = _final(outcome.decision, candidate)
        version = _version(run, candidate, decided, compared_with)
        if (
            version is not None
            and not _asked(decided, candidate)
            and not candidate.model.move_alias(version, decided.alias, champion)
        ):
            candidate.model.withdraw_reason(version)
            changed = "another model became champion meanwhile"
            mlflow.set_tag(NOTE_TAG, f"No decision: {changed}. The next run compares the model with that one.")
            raise ChampionChangedError(changed)
        _report(run, candidate, decided, outcome, version)
        if version is not None and (everything := _model_of_everything(candidate)):
            second = candidate.model.register_unevaluated(everything, of=version)
            sign_model(everything)
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


def _version(run: StageRun, candidate: Candidate, decided: GateDecision, compared_with: str) -> str | None:
    """Writes the card, and registers the version, without an alias yet, if the gate passed it."""
    scored = candidate.scored
    card = model_card(card_facts(scored), decided)
    run.publish("card").write_text(card, encoding="utf-8")
    if not decided.alias:
        return None
    asked = _asked(decided, candidate)
    tags = tags_of(
        decided,
        macro_f1=f"{scored.scores.metrics['macro_f1'].value:.6f}",
        split=scored.scores.split,
        split_digest=scored.split_digest,
        **origin_of(scored).tags,
        **{EVALUATION_TAG: scored.run.info.run_id if scored.run else "", COMPARED_TAG: compared_with},
    )
    if asked:
        tags |= {PROPOSED_TAG: decided.alias}
        tags.pop(PROMOTED_TAG, None)
    version = candidate.model.register(
        candidate.source, tags=tags, card=card, card_uri=run.artifacts["card"], decision=decided
    )
    run.artifacts["model"] = candidate.model.address(version)
    sign_model(candidate.source)
    return version


def _model_of_everything(candidate: Candidate) -> str:
    """The address of the model that the same training run fitted to the hold-out, too; empty without one."""
    trained_by = mlflow.models.get_model_info(candidate.source).run_id
    run = mlflow.get_run(trained_by) if trained_by else None
    if run is None or run.data.tags.get(STAGE_TAG) != "train":
        return ""
    artifacts = result_of(run).artifacts
    return artifacts.get(SECOND, "") if artifacts["model"] == candidate.source else ""


def _compared_with(champion: ModelVersion | None, source: str) -> str:
    """The champion to compare with, for the fingerprint; for the champion itself, the one it was compared with."""
    if champion is None:
        return NO_CHAMPION
    if champion.source == source:
        return str(champion.tags.get(COMPARED_TAG, NO_CHAMPION))
    return f"version {champion.version} ({champion.source})"


def _final(decided: GateDecision, candidate: Candidate) -> GateDecision:
    """The decision after the user's `promote`."""
    forced = candidate.promote == FORCE and not decided.reason.startswith(ALREADY)
    return overruled(decided) if forced else decided


def _asked(decided: GateDecision, candidate: Candidate) -> bool:
    """Whether the alias waits for a person."""
    return candidate.promote == ASK and bool(decided.alias) and not decided.reason.startswith(ALREADY)


def _foretold(candidate: Candidate) -> str:
    """What `register` would do now, in words."""
    name, champion = candidate.model.name, candidate.model.champion()
    try:
        decided = _final(decide(candidate, champion).decision, candidate)
    except ScoringNeeded:
        return "the champion would first be evaluated on these slides, on which the decision depends"
    would = "would not be registered"
    if decided.alias:
        known = candidate.model.version_of(candidate.source)
        version = f"version {known.version}" if known else "a new version"
        would = f"would be {version} of {name} and {'proposed as ' if candidate.promote == ASK else ''}{decided.alias}"
    return f"{candidate.scored.scores.model} {would}: {decided.reason}"


def _report(
    run: StageRun,
    candidate: Candidate,
    decided: GateDecision,
    outcome: Outcome,
    version: str | None,
) -> None:
    name, model = candidate.model.name, candidate.scored.scores.model
    asked = version is not None and _asked(decided, candidate)
    content: dict[str, Any] = {"name": name, "version": version, "alias": decided.alias, "reason": decided.reason}
    content |= {"forced": decided.forced, "moved": bool(version) and not asked}
    run.publish("version").write_text(json.dumps(content, indent=1), encoding="utf-8")
    if comparison := outcome.comparison:
        run.attach("comparison.json").write_text(json.dumps(asdict(comparison), indent=1), encoding="utf-8")
    how = "by force" if decided.forced else "proposed" if asked else ""
    run.name(f"v{version} {decided.place}" if version else "refused", how)
    place = ", ".join(filter(None, (decided.place, how)))
    done = f"{model} is {name} version {version}, {place}" if version else f"{model} was not registered"
    run.note(f"{done}. Reason: {decided.reason}.")
    print(f"register: {done}: {decided.reason}", flush=True)
    if asked:
        print(f"register: no alias was moved; {how_to_promote(name, str(version), decided.alias)}", flush=True)
    scores = candidate.scored.scores
    macro_f1 = scores.metrics["macro_f1"]
    ends = interval("macro_f1", macro_f1.low, macro_f1.high)
    run.log_metrics({"macro_f1": macro_f1.value, **ends, SLIDES: scores.slides})
    if version:
        mlflow.log_param("register.version", version)
    if outcome.measured:
        run.log_metrics(outcome.measured.metrics)
    if comparison and (gain := comparison.difference):
        run.log_metrics({"gain": gain.value, **interval("gain", gain.low, gain.high)})


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
    if version and not decided.get("moved", True) and version.tags.get(PROPOSED_TAG):
        name, number = candidate.model.name, str(version.version)
        print(f"register: {how_to_promote(name, number, decided['alias'])}", flush=True)
        return
    if version and decided["alias"] not in (now := candidate.model.aliases_of(str(version.version))).split(", "):
        print(
            f"register: decision of that run: {decided['alias'] or NOT_REGISTERED}; version {version.version} now has {now}. "
            "Aliases stay as they are; rerun=true lets the gate decide again",
            flush=True,
        )
