"""The gate to the registry, the aliases, and the model card."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from doctogres.tracking import REGISTERED_MODEL

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
SCORE_TAG: Final = "macro_f1"
SPLIT_TAG: Final = "split_digest"


@dataclass(frozen=True)
class Verdict:
    """The gate's decision: which alias the version gets (empty: none) and why."""

    alias: str
    reason: str


def gate(metrics: Mapping[str, Any], champion: Mapping[str, str] | None, *, split: str) -> Verdict:
    """Decides between champion, challenger and neither.

    A model must beat the null model: the low end of its macro-F1 interval above the null model's value. It becomes
    champion when there is none, or when it scores higher than the champion on the same slides; else challenger.

    Args:
        metrics: `metrics.json` of the evaluation.
        champion: tags of the champion's version, None when there is none.
        split: digest of the slides that were scored.
    """
    own, null = metrics["metrics"]["macro_f1"], metrics["null"]["majority/macro_f1"]
    if own["low"] is None or own["low"] <= null["value"]:
        return Verdict(
            "", f"macro-F1 {_text(own)} is not above the null model's {null['value']:.3f} with its whole interval"
        )
    if champion is None:
        return Verdict(
            CHAMPION, f"macro-F1 {_text(own)} beats the null model's {null['value']:.3f}; there was no champion"
        )
    if champion.get(SPLIT_TAG) != split:
        return Verdict(CHALLENGER, "the champion was scored on other slides, so the two cannot be compared")
    held = float(champion[SCORE_TAG])
    if own["value"] > held:
        return Verdict(CHAMPION, f"macro-F1 {_text(own)} on the same slides, the champion's is {held:.3f}")
    return Verdict(CHALLENGER, f"macro-F1 {_text(own)} on the same slides does not exceed the champion's {held:.3f}")


def _text(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def champion_tags() -> dict[str, str] | None:
    """Tags of the champion's version, None when there is none."""
    try:
        return dict(MlflowClient().get_model_version_by_alias(REGISTERED_MODEL, CHAMPION).tags)
    except MlflowException:
        return None


def model_card(metrics: Mapping[str, Any], facts: Mapping[str, str], verdict: Verdict) -> str:
    """The version's description, in Markdown."""
    own, null = metrics["metrics"]["macro_f1"], metrics["null"]["majority/macro_f1"]
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    return "\n".join([
        "Classifies a histology slide (picture and lesion mask) by its lesion regions.",
        "",
        f"**Slide-level macro-F1 {_text(own)}** on {metrics['slides']} slides of the split `{metrics['split']}`; "
        f"a null model (always the most frequent class) reaches {null['value']:.3f}.",
        "",
        f"Gate: {verdict.alias or 'not passed'}: {verdict.reason}.",
        "",
        *lines,
        "",
        "For research; not a medical device.",
    ])  # fmt: skip


def register_version(uri: str, *, tags: Mapping[str, str], card: str, verdict: Verdict) -> str:
    """Makes a version of the registered model, with its card, tags and alias; returns its number."""
    client = MlflowClient()
    version = mlflow.register_model(uri, REGISTERED_MODEL, tags=dict(tags))
    client.update_model_version(REGISTERED_MODEL, version.version, description=card)
    if verdict.alias:
        client.set_registered_model_alias(REGISTERED_MODEL, verdict.alias, version.version)
    return str(version.version)
