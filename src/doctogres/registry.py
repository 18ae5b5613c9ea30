"""The gate to the registry: what becomes a version, which version is served, and how the aliases move."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.report import NULL_MODELS
from doctogres.tracking import REGISTERED_MODEL

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
FORMER: Final = "former-champion"  # what a rollback makes champion again
NOT_REGISTERED: Final = "not registered"
NOBODY: Final = "nobody"

REASON_TAG: Final = "gate_reason"
PROMOTED_TAG: Final = "promoted_by"  # gate or force, on versions that became champion
EVALUATION_TAG: Final = "evaluation_run"
COMPARED_TAG: Final = "compared_with"
DESCRIPTION_LIMIT: Final = 5000  # characters; the registry's column is no longer, and PostgreSQL refuses more
ABOUT: Final = (
    "Classifies histology slides (picture and lesion mask) by their lesion regions. For research; not a medical device. "
    f"`{CHAMPION}` is what is served; each version's description is its model card."
)


@dataclass(frozen=True)
class Verdict:
    """Which alias a model gets (empty: it becomes no version), why, and whether a person forced it."""

    alias: str
    reason: str
    forced: bool = False

    @property
    def place(self) -> str:
        """The alias, or `not registered`."""
        return self.alias or NOT_REGISTERED


@dataclass(frozen=True)
class Versus:
    """How a model stands against the champion on the same slides."""

    champion: str  # its version
    slides: int
    difference: Estimate | None  # macro-F1 of the model minus the champion's, paired; None: they cannot be compared
    remark: str  # how the champion's answers were come by, or why the two cannot be compared


def gate(macro_f1: Estimate, nulls: Mapping[str, Estimate], versus: Versus | None, *, loss_margin: float) -> Verdict:
    """Decides between champion, challenger, and no version.

    A model becomes a version when the lower end of its macro-F1 interval lies above each null model's value. It becomes
    champion when there is none, or when it scores at least as high on the same slides and the paired interval of the
    difference excludes a loss of more than `loss_margin` (non-inferiority; Piaggio et al., JAMA 2012); else challenger.

    Args:
        macro_f1: of the model, on slides that it has not seen.
        nulls: macro-F1 of the null models on these slides, by their names in `metrics.null_metrics`.
        versus: the comparison with the champion; None when there is no champion.
        loss_margin: of macro-F1.
    """
    rivals = ", ".join(f"{NULL_MODELS[name]}: {null.value:.3f}" for name, null in nulls.items())
    if not all(macro_f1.low > null.value for null in nulls.values()):  # an undefined edge is above nothing
        return Verdict("", f"macro-F1 {macro_f1} does not lie above the null models with its whole interval ({rivals})")
    if versus is None:
        return Verdict(CHAMPION, f"macro-F1 {macro_f1} lies above the null models ({rivals}); there was no champion")
    if versus.difference is None:
        return Verdict(
            CHALLENGER, f"it cannot be compared with the champion (version {versus.champion}): {versus.remark}"
        )
    gain = versus.difference
    compared = (
        f"macro-F1 {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] against the champion (version {versus.champion}) "
        f"on the same {versus.slides} slides" + (f" ({versus.remark})" if versus.remark else "")
    )
    if not round(gain.value, 9) >= 0:
        return Verdict(CHALLENGER, f"{compared}: it scores lower")
    if not gain.low >= -loss_margin:
        return Verdict(CHALLENGER, f"{compared}: a loss of more than {loss_margin:g} is not excluded")
    return Verdict(CHAMPION, f"{compared}: it scores no lower, and a loss of more than {loss_margin:g} is excluded")


def overruled(verdict: Verdict) -> Verdict:
    """The verdict when a person wants the champion whatever the gate says."""
    return Verdict(CHAMPION, f"promote=force; the gate says {verdict.place}: {verdict.reason}", forced=True)


def aliases() -> dict[str, str]:
    """Every alias of the registered model with the version that holds it; empty when there is no such model."""
    try:
        held = MlflowClient().get_registered_model(REGISTERED_MODEL).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise  # a registry that does not answer is not a registry without a champion
    return {alias: str(version) for alias, version in held.items()}


def champion() -> ModelVersion | None:
    """The champion's version, None when there is none."""
    version = aliases().get(CHAMPION)
    return None if version is None else MlflowClient().get_model_version(REGISTERED_MODEL, version)


def version_of(source: str) -> ModelVersion | None:
    """The version that was made of this model, the newest if there are several."""
    versions = MlflowClient().search_model_versions(f"name = '{REGISTERED_MODEL}'")
    return max((one for one in versions if one.source == source), key=lambda one: int(one.version), default=None)


def register_version(source: str, *, tags: Mapping[str, str], card: str, card_uri: str, verdict: Verdict) -> str:
    """Makes a version of the model, or takes the one there is, with its card and tags; returns its number."""
    client = MlflowClient()
    found = version_of(source)
    if found is None:
        found = mlflow.register_model(source, REGISTERED_MODEL, tags=dict(tags))
    version = str(found.version)
    for name, value in tags.items():
        client.set_model_version_tag(REGISTERED_MODEL, version, name, value)
    if verdict.alias != CHAMPION:
        client.delete_model_version_tag(REGISTERED_MODEL, version, PROMOTED_TAG)
    client.update_model_version(REGISTERED_MODEL, version, description=_fitted(card, card_uri))
    if not client.get_registered_model(REGISTERED_MODEL).description:
        client.update_registered_model(REGISTERED_MODEL, ABOUT)
    return version


def move_aliases(version: str, alias: str, holder: ModelVersion | None) -> bool:
    """Gives a finished version its alias, unless the champion is no longer the one that this was decided against.

    Last of all, so that `champion` never names a half-made version, and right after looking who holds it. MLflow has no
    way to do both in one step: two registrations in the same moment can still cross.

    Args:
        version: gets the alias.
        alias: `champion` or `challenger`.
        holder: the champion when this was decided.

    Returns:
        False where another one is champion by now; then nothing was moved.
    """
    client, held = MlflowClient(), aliases()
    if held.get(CHAMPION) != (str(holder.version) if holder else None):
        return False
    if alias == CHAMPION and held.get(CHAMPION, version) != version:
        client.set_registered_model_alias(REGISTERED_MODEL, FORMER, held[CHAMPION])
    if alias == CHAMPION and held.get(CHALLENGER) == version:
        client.delete_registered_model_alias(REGISTERED_MODEL, CHALLENGER)
    if held.get(alias) != version:
        client.set_registered_model_alias(REGISTERED_MODEL, alias, version)
    return True


def _fitted(card: str, uri: str) -> str:
    """The card as far as it fits a description, cut at a line."""
    if len(card) <= DESCRIPTION_LIMIT:
        return card
    end = f"\n\n(Cut here; the whole card is `{uri}`.)"
    return card[: card.rindex("\n", 0, DESCRIPTION_LIMIT - len(end))] + end


def tags_of(verdict: Verdict, **more: Any) -> dict[str, str]:
    """The version's tags that say why it stands where it stands."""
    promoted = {PROMOTED_TAG: "force" if verdict.forced else "gate"} if verdict.alias == CHAMPION else {}
    return {REASON_TAG: verdict.reason, **promoted, **{name: str(value) for name, value in more.items()}}
