"""The registered model's versions, their tags, descriptions and aliases."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from doctogres.errors import ParameterError
from doctogres.registry.gate import CHALLENGER, CHAMPION, GateDecision

FORMER: Final = "former-champion"  # the version to roll back to
NO_CHAMPION: Final = "no champion"

REASON_TAG: Final = "gate_reason"  # of the first decision, which stays
LATEST_REASON_TAG: Final = "latest_gate_reason"  # of a later one
PROMOTED_TAG: Final = "promoted_by"  # on versions that became champion: gate, force, a user's name, or BY_HAND
BY_HAND: Final = "by hand, outside doctogres"
SET_TAG: Final = "doctogres.champion"  # of the registered model: the version that was last made champion here
NEXT_TAG: Final = "doctogres.next_champion"  # set before the alias moves: whoever finds it there was interrupted
PROPOSED_TAG: Final = "proposed_alias"  # until a person runs `promote`
EVALUATION_TAG: Final = "evaluation_run"
COMPARED_TAG: Final = "compared_with"
UNEVALUATED_TAG: Final = "not_evaluated_on_holdout"
DESCRIPTION_LIMIT: Final = 5000  # characters: the size of the registry's column, which PostgreSQL enforces
ABOUT: Final = (
    "Classifies histology slides (picture and lesion mask) by their lesion regions. For research; not a medical device. "
    f"`{CHAMPION}` is the version to serve; the description of each version is its model card."
)


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model by name: its versions and their aliases."""

    name: str

    def __post_init__(self) -> None:
        """Refuses a name that cannot be part of an address."""
        if not self.name.strip() or any(letter in self.name for letter in "/:@'"):
            raise ParameterError(f"model_name={self.name}: give a name without / : @ or quotes, such as doctogres")

    def address(self, version: str) -> str:
        """The `models:/` address of a version."""
        return f"models:/{self.name}/{version}"

    def aliases(self) -> dict[str, str]:
        """Alias -> version; empty if there is no such model."""
        try:
            aliases = MlflowClient().get_registered_model(self.name).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise  # an unreachable registry is not a registry without a champion
        return {alias: str(version) for alias, version in aliases.items()}

    def aliases_of(self, version: str) -> str:
        """The current aliases of a version, as text."""
        return ", ".join(sorted(alias for alias, other in self.aliases().items() if other == version)) or "no alias"

    def champion(self) -> ModelVersion | None:
        """The champion, None if there is none."""
        version = self.aliases().get(CHAMPION)
        return None if version is None else MlflowClient().get_model_version(self.name, version)

    def version_of(self, source: str) -> ModelVersion | None:
        """The version registered from this logged model, the newest if there are several."""
        versions = MlflowClient().search_model_versions(f"name = '{self.name}'")
        matching = (version for version in versions if version.source == source)
        return max(matching, key=lambda version: int(version.version), default=None)

    def register(
        self, source: str, *, tags: Mapping[str, str], card: str, card_uri: str, decision: GateDecision
    ) -> str:
        """Registers a logged model, or updates its existing version, with card and tags; returns the version number."""
        client = MlflowClient()
        known = self.version_of(source)
        version = str((known or mlflow.register_model(source, self.name, tags=dict(tags))).version)
        if known and known.tags.get(REASON_TAG, tags[REASON_TAG]) != tags[REASON_TAG]:
            tags = {LATEST_REASON_TAG if tag == REASON_TAG else tag: value for tag, value in tags.items()}
        for tag, value in tags.items():
            client.set_model_version_tag(self.name, version, tag, value)
        if decision.alias != CHAMPION:
            client.delete_model_version_tag(self.name, version, PROMOTED_TAG)
        client.update_model_version(self.name, version, description=_shortened(card, card_uri))
        if not client.get_registered_model(self.name).description:
            client.update_registered_model(self.name, ABOUT)
        return version

    def withdraw_reason(self, version: str) -> None:
        """Removes the newest reason from a version's tags, because its decision did not take effect."""
        client = MlflowClient()
        newest = (
            LATEST_REASON_TAG if LATEST_REASON_TAG in client.get_model_version(self.name, version).tags else REASON_TAG
        )
        client.delete_model_version_tag(self.name, version, newest)

    def register_unevaluated(self, source: str, *, of: str) -> str:
        """Registers the model that was trained on the hold-out, too, without an alias; returns the version number.

        Args:
            source: address of the logged model.
            of: the version of the same training that was evaluated.
        """
        client = MlflowClient()
        version = str((self.version_of(source) or mlflow.register_model(source, self.name)).version)
        client.set_model_version_tag(self.name, version, UNEVALUATED_TAG, f"trained on it; see version {of}")
        text = (
            f"Not evaluated on its own hold-out, which it was trained on, too. Version {of} is the same recipe without these "
            "slides; its scores, temperature and threshold are the nearest estimate. The gate never makes this version champion."
        )
        client.update_model_version(self.name, version, description=text)
        return version

    def move_alias(self, version: str, alias: str, champion: ModelVersion | None) -> bool:
        """Sets the alias of a finished version, unless the champion has changed since the decision.

        `set_alias` is the last step, so that `champion` never points to an incomplete version, and directly follows the
        check. MLflow cannot do both atomically: two registrations at the same moment can still interfere.

        Args:
            version: receives the alias.
            alias: `champion` or `challenger`.
            champion: the champion at the time of the decision.

        Returns:
            False if another model became champion meanwhile; then no alias was changed.
        """
        if self.aliases().get(CHAMPION) != (str(champion.version) if champion else None):
            return False
        self.set_alias(version, alias)
        return True

    def set_alias(self, version: str, alias: str) -> None:
        """Gives an alias to a version: the only place that moves one.

        A new champion loses its other aliases first, so that not even an interruption leaves `champion` and
        `former-champion` on the same version; then the champion before it becomes the former one.
        """
        client, aliases = MlflowClient(), self.aliases()
        for other in (FORMER, CHALLENGER) if alias == CHAMPION else ():
            if aliases.get(other) == version:
                client.delete_registered_model_alias(self.name, other)
        before = aliases.get(alias, version)
        if alias == CHAMPION:
            client.set_registered_model_tag(self.name, NEXT_TAG, version)
        if aliases.get(alias) != version:
            client.set_registered_model_alias(self.name, alias, version)
        if alias == CHAMPION:
            if before != version:
                client.set_registered_model_alias(self.name, FORMER, before)
            client.set_registered_model_tag(self.name, SET_TAG, version)

    def notice_moved_champion(self) -> str:
        """A sentence if `champion` was moved in the UI, or here but not to the end; otherwise empty.

        The move stays, and is completed: the version that was champion before becomes `former-champion`. The new one's tags
        say that it was promoted by hand if it was.
        """
        client, champion = MlflowClient(), self.champion()
        if champion is None:
            return ""
        version, tags = str(champion.version), client.get_registered_model(self.name).tags
        before = tags.get(SET_TAG, version)
        if before == version:
            return ""
        interrupted = tags.get(NEXT_TAG) == version
        known = {str(one.version) for one in client.search_model_versions(f"name = '{self.name}'")}
        if before in known:
            client.set_registered_model_alias(self.name, FORMER, before)
        if not interrupted:
            client.set_model_version_tag(self.name, version, PROMOTED_TAG, BY_HAND)
        self.set_alias(version, CHAMPION)  # last: what is interrupted before is noticed again
        move = f"from version {before} to version {version}"
        if interrupted:
            return f"an interrupted command has moved {CHAMPION} {move}; the move is complete now"
        return f"{CHAMPION} was moved by hand {move}"


def reason_of(version: ModelVersion) -> str:
    """The gate's newest reason for a version's place."""
    return str(version.tags.get(LATEST_REASON_TAG) or version.tags.get(REASON_TAG, "promoted by hand"))


def _shortened(card: str, uri: str) -> str:
    """The card, cut at the end of a line to fit into a description."""
    if len(card) <= DESCRIPTION_LIMIT:
        return card
    end = f"\n\n(Truncated; the full card is `{uri}`.)"
    return card[: card.rindex("\n", 0, DESCRIPTION_LIMIT - len(end))] + end


def tags_of(decision: GateDecision, **more: Any) -> dict[str, str]:
    """The version's tags, which record the decision."""
    promoted = {PROMOTED_TAG: "force" if decision.forced else "gate"} if decision.alias == CHAMPION else {}
    return {REASON_TAG: decision.reason, **promoted, **{name: str(value) for name, value in more.items()}}
