"""The registered model's versions, their tags and descriptions, and how the aliases move."""

from collections.abc import Mapping
from typing import Any, Final

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from doctogres.registry.gate import CHALLENGER, CHAMPION, Verdict

FORMER: Final = "former-champion"  # what a rollback makes champion again
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


REGISTERED_MODEL: Final = "doctogres"
