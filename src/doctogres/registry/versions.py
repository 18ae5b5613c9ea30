"""The registered model's versions, their tags and descriptions, and how the aliases move."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from doctogres.errors import ParameterError
from doctogres.registry.gate import CHALLENGER, CHAMPION, GateDecision

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


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model by its name: its versions, and which of them holds which alias."""

    name: str

    def __post_init__(self) -> None:
        """Refuses a name that no address can hold."""
        if not self.name.strip() or any(letter in self.name for letter in "/:@'"):
            raise ParameterError(f"model_name={self.name}: give a name without / : @ and quotes, such as doctogres")

    def address(self, version: str) -> str:
        """The `models:/` address of a version."""
        return f"models:/{self.name}/{version}"

    def aliases(self) -> dict[str, str]:
        """Every alias with the version that holds it; empty when there is no such model."""
        try:
            held = MlflowClient().get_registered_model(self.name).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise  # a registry that does not answer is not a registry without a champion
        return {alias: str(version) for alias, version in held.items()}

    def aliases_of(self, version: str) -> str:
        """The aliases that a version holds at this moment, as text."""
        return ", ".join(sorted(alias for alias, held in self.aliases().items() if held == version)) or "no alias"

    def champion(self) -> ModelVersion | None:
        """The champion's version, None when there is none."""
        version = self.aliases().get(CHAMPION)
        return None if version is None else MlflowClient().get_model_version(self.name, version)

    def version_of(self, source: str) -> ModelVersion | None:
        """The version that was made of this logged model, the newest if there are several."""
        versions = MlflowClient().search_model_versions(f"name = '{self.name}'")
        made = (version for version in versions if version.source == source)
        return max(made, key=lambda version: int(version.version), default=None)

    def register(
        self, source: str, *, tags: Mapping[str, str], card: str, card_uri: str, decision: GateDecision
    ) -> str:
        """Makes a version of a logged model, or takes the one there is, with its card and tags; returns its number."""
        client = MlflowClient()
        version = str((self.version_of(source) or mlflow.register_model(source, self.name, tags=dict(tags))).version)
        for tag, value in tags.items():
            client.set_model_version_tag(self.name, version, tag, value)
        if decision.alias != CHAMPION:
            client.delete_model_version_tag(self.name, version, PROMOTED_TAG)
        client.update_model_version(self.name, version, description=_shortened(card, card_uri))
        if not client.get_registered_model(self.name).description:
            client.update_registered_model(self.name, ABOUT)
        return version

    def move_alias(self, version: str, alias: str, champion: ModelVersion | None) -> bool:
        """Gives a finished version its alias, unless the champion is no longer the one that this was decided against.

        Last of all, so that `champion` never names a half-made version, and right after looking who holds it. MLflow has
        no way to do both in one step: two registrations in the same moment can still cross.

        Args:
            version: gets the alias.
            alias: `champion` or `challenger`.
            champion: the one when this was decided.

        Returns:
            False where another model became champion meanwhile; then nothing was moved.
        """
        client, held = MlflowClient(), self.aliases()
        if held.get(CHAMPION) != (str(champion.version) if champion else None):
            return False
        if alias == CHAMPION and held.get(CHAMPION, version) != version:
            client.set_registered_model_alias(self.name, FORMER, held[CHAMPION])
        if alias == CHAMPION and held.get(CHALLENGER) == version:
            client.delete_registered_model_alias(self.name, CHALLENGER)
        if held.get(alias) != version:
            client.set_registered_model_alias(self.name, alias, version)
        return True


def _shortened(card: str, uri: str) -> str:
    """The card as far as it fits a description, cut at a line."""
    if len(card) <= DESCRIPTION_LIMIT:
        return card
    end = f"\n\n(Cut here; the whole card is `{uri}`.)"
    return card[: card.rindex("\n", 0, DESCRIPTION_LIMIT - len(end))] + end


def tags_of(decision: GateDecision, **more: Any) -> dict[str, str]:
    """The version's tags that say why it stands where it stands."""
    promoted = {PROMOTED_TAG: "force" if decision.forced else "gate"} if decision.alias == CHAMPION else {}
    return {REASON_TAG: decision.reason, **promoted, **{name: str(value) for name, value in more.items()}}
