"""register: an evaluated model -> a model version with its card and tags, as `champion` or `challenger`; or none."""

import json
from typing import Any, Final

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from doctogres.errors import DoctogresError, UpstreamError
from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.null_models import NULL_MODELS
from doctogres.registry.contest import Evaluation, against, read_evaluation, split_digest
from doctogres.registry.gate import CHAMPION, NOT_REGISTERED, Verdict, Versus, gate, overruled
from doctogres.registry.lineage import card_facts
from doctogres.registry.versions import (
    COMPARED_TAG,
    EVALUATION_TAG,
    NOBODY,
    PROMOTED_TAG,
    REASON_TAG,
    REGISTERED_MODEL,
    aliases,
    champion,
    move_aliases,
    register_version,
    tags_of,
    version_of,
)
from doctogres.report.model_card import model_card
from doctogres.settings import Preset
from doctogres.tracking.fingerprints import fingerprint
from doctogres.tracking.runs import FINGERPRINT_TAG, StageResult, StageRun, run_stage
from doctogres.tracking.upstream import find_artifact

FORCE: Final = "force"
ALREADY: Final = "it is the champion already: "


def register(
    *, evaluation: str, preset: Preset, seed: int, promote: str = "auto", data: str = "", rerun: bool = False
) -> StageResult:
    """Runs or reuses the stage for an evaluation; `promote="force"` makes its model champion whatever the gate says.

    A finished run stands for this one when the evaluation, the settings and the champion it was compared with are the
    same. Then nothing is moved, although a person may have moved the aliases since; a line says so. Should another model
    become champion while this one is compared, it is decided anew.
    """
    scored = read_evaluation(evaluation)
    source = _source(scored.metrics["model"])
    holder = champion()
    settings = {
        "promote": promote,
        "loss_margin": preset.gate.loss_margin,
        "resamples": preset.evaluate.resamples,
        "seed": seed,
        "data": data,
    }
    inputs = {
        "evaluation": scored.digest,
        "split": split_digest(scored.predictions),
        "champion": _rival(holder, source),
    }

    def body(run: StageRun) -> None:
        compared = holder
        while True:
            verdict, versus = _decide(scored, compared, source, preset=preset, seed=seed, data=data)
            if promote == FORCE and not verdict.reason.startswith(ALREADY):
                verdict = overruled(verdict)
            version = _version(run, scored, source, verdict, inputs["champion"])
            if version is None or move_aliases(version, verdict.alias, compared):
                break
            compared = champion()
            print("register: the champion is another one by now; it is decided anew", flush=True)
            inputs["champion"] = _rival(compared, source)
            mark = fingerprint("doctogres.stages.register", settings, inputs)
            mlflow.set_tags({FINGERPRINT_TAG: mark, "doctogres.input.champion": inputs["champion"]})
        if version:
            run.artifacts["model"] = f"models:/{REGISTERED_MODEL}/{version}"
        _report(run, scored, verdict, versus, version)

    def stage(*, repeat: bool) -> StageResult:
        return run_stage(
            "register",
            body,
            settings=settings,
            inputs=inputs,
            data_digest=scored.data_digest,
            rerun=repeat,
        )

    result = stage(repeat=rerun)
    if result.reused and (why := _stale(decision(result), source, promote)):
        print(f"register: {why}", flush=True)
        result = stage(repeat=True)
    if result.reused:
        _say_if_moved(decision(result), source)
    return result


def decision(result: StageResult) -> dict[str, Any]:
    """What the stage decided (version.json): name, version, alias, reason, forced."""
    found = find_artifact(result.run_id, stage="register", name="version", file="version.json")
    content: dict[str, Any] = json.loads(found.path.read_text(encoding="utf-8"))
    return content


def holds_now(version: str) -> str:
    """The aliases of a version at this moment, as text."""
    return ", ".join(sorted(alias for alias, held in aliases().items() if held == version)) or "no alias"


def _decide(
    scored: Evaluation, holder: ModelVersion | None, source: str, *, preset: Preset, seed: int, data: str
) -> tuple[Verdict, Versus | None]:
    macro_f1 = Estimate.from_dict(scored.metrics["metrics"]["macro_f1"])
    nulls = {name: Estimate.from_dict(scored.metrics["null"][name]) for name in NULL_MODELS}
    margin = preset.gate.loss_margin
    if holder is not None and holder.source == source:  # first: a champion by force may be no better than guessing
        reason = ALREADY + holder.tags.get(REASON_TAG, "made so by a person").removeprefix(ALREADY)
        return Verdict(CHAMPION, reason, forced=holder.tags.get(PROMOTED_TAG) == FORCE), None
    alone = gate(macro_f1, nulls, None, loss_margin=margin)
    if holder is None or not alone.alias:
        return alone, None
    try:
        versus = against(holder, scored, preset=preset, seed=seed, data=data)
    except DoctogresError as error:  # a champion that nothing can be compared with must not stop what comes after it
        versus = Versus(str(holder.version), 0, None, f"the comparison failed: {error}")
    return gate(macro_f1, nulls, versus, loss_margin=margin), versus


def _version(run: StageRun, scored: Evaluation, source: str, verdict: Verdict, rival: str) -> str | None:
    """Writes the card; makes the version, still without an alias, where there is to be one."""
    card = model_card(card_facts(scored), verdict)
    run.publish("card", "model_card.md").write_text(card, encoding="utf-8")
    if not verdict.alias:
        return None
    tags = tags_of(
        verdict,
        macro_f1=f"{scored.metrics['metrics']['macro_f1']['value']:.6f}",
        split_digest=split_digest(scored.predictions),
        data_digest=scored.data_digest,
        **{EVALUATION_TAG: scored.run.info.run_id if scored.run else "", COMPARED_TAG: rival},
    )
    return register_version(source, tags=tags, card=card, card_uri=run.artifacts["card"], verdict=verdict)


def _source(model: str) -> str:
    """The one address of a model, `models:/m-...`, however the evaluation named it; a folder stays a folder."""
    if not model.startswith(("models:/", "runs:/")):
        return model
    try:
        model_id = mlflow.models.get_model_info(model).model_id
    except (MlflowException, OSError) as error:
        raise UpstreamError(f"{model}: the evaluated model could not be fetched ({error})") from error
    return f"models:/{model_id}" if model_id else model


def _rival(holder: ModelVersion | None, source: str) -> str:
    """Whom the model is compared with, for the fingerprint; for the champion itself: whom it was compared with."""
    if holder is None:
        return NOBODY
    if holder.source == source:
        return str(holder.tags.get(COMPARED_TAG, NOBODY))
    return f"version {holder.version} ({holder.source})"


def _report(run: StageRun, scored: Evaluation, verdict: Verdict, versus: Versus | None, version: str | None) -> None:
    content = {"name": REGISTERED_MODEL, "version": version, "alias": verdict.alias, "reason": verdict.reason}
    path = run.publish("version", "version.json")
    path.write_text(json.dumps(content | {"forced": verdict.forced}, indent=1), encoding="utf-8")
    forced = ", by force" if verdict.forced else ""
    what = f"version {version} · {verdict.place}{forced}" if version else verdict.place
    run.name(f"register · {what}")
    model = scored.metrics["model"]
    done = f"{model} is version {version}, {verdict.place}{forced}" if version else f"{model} became no version"
    run.note(f"{done}. Why: {verdict.reason}.")
    print(f"register: {done}: {verdict.reason}", flush=True)
    run.log_metrics({"macro_f1": scored.metrics["metrics"]["macro_f1"]["value"]})
    if version:
        run.log_metrics({"version": float(version)})
    if versus and versus.difference:
        gain = versus.difference
        run.log_metrics(
            {"gain": gain.value, "gain/low": gain.low, "gain/high": gain.high, "gain/slides": versus.slides}
        )


def _stale(decided: dict[str, Any], source: str, promote: str) -> str:
    """Why a finished run cannot stand for this one although nothing it depends on has changed; else empty."""
    version = version_of(source)
    if version is None:
        gone = f"version {decided['version']} is no longer in the registry; it is registered again"
        return gone if decided["version"] else ""
    serves = aliases().get(CHAMPION) == str(version.version)
    if promote == FORCE and not serves:
        return f"version {version.version} is no longer champion, and promote=force wants it to be"
    if serves and decided["alias"] != CHAMPION:
        return f"version {version.version} is champion by now"
    return ""


def _say_if_moved(decided: dict[str, Any], source: str) -> None:
    version = version_of(source)
    if version and decided["alias"] not in (now := holds_now(str(version.version))).split(", "):
        made = decided["alias"] or NOT_REGISTERED
        print(
            f"register: that run decided {made}; version {version.version} holds {now} now, and nothing is moved "
            "(rerun=true decides anew)",
            flush=True,
        )
