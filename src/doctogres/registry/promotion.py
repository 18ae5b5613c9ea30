"""A promotion by a person: which version gets which alias, who moved it, when, from where and why."""

from dataclasses import dataclass
from typing import Final

from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from doctogres.errors import ParameterError
from doctogres.registry.gate import CHAMPION
from doctogres.registry.versions import EVALUATION_TAG, PROPOSED_TAG, UNEVALUATED_TAG, RegisteredModel

NOT_EVALUATED: Final = "not evaluated on its hold-out"
NOBODY: Final = "no version"


def how_to_promote(name: str, version: str, alias: str) -> str:
    """The command that gives a version an alias."""
    return f"to make it {alias}: mlflow run . -e promote --env-manager local -P model_name={name} -P version={version} -P alias={alias}"


@dataclass(frozen=True)
class Promotion:
    """An alias that moves from one version to another.

    Attributes:
        model: the registered model.
        version: the number of the version that gets the alias.
        alias: `champion` or `challenger`.
        before: the number of the version that has it now; empty if none has.
        reason: given by the user, with a remark if the version was never evaluated on its hold-out.
    """

    model: RegisteredModel
    version: str
    alias: str
    before: str
    reason: str

    @property
    def sentence(self) -> str:
        """The move in words."""
        if self.before == self.version:
            return f"version {self.version} of {self.model.name} already was {self.alias}; no alias was moved"
        moved_from = f"version {self.before}" if self.before else NOBODY
        return f"{self.alias} of {self.model.name} moved from {moved_from} to version {self.version}"

    def carry_out(self, *, user: str, time: str) -> None:
        """Records the move in the version's tags, then moves the alias. The gate's reason stays as it is."""
        prefix = "promoted" if self.alias == CHAMPION else self.alias
        tags = {
            f"{prefix}_by": user,  # versions.PROMOTED_TAG for a champion
            f"{prefix}_at": time,
            f"{prefix}_from": f"version {self.before}" if self.before else NOBODY,
            f"{prefix}_to": f"version {self.version}",
            f"{prefix}_reason": self.reason or "none given",
        }
        if self.before != self.version:
            for tag, value in tags.items():
                MlflowClient().set_model_version_tag(self.model.name, self.version, tag, value)
        self.model.set_alias(self.version, self.alias)
        MlflowClient().delete_model_version_tag(self.model.name, self.version, PROPOSED_TAG)


def promotion(model: RegisteredModel, version: str, alias: str, reason: str) -> Promotion:
    """The promotion that the parameters ask for.

    Args:
        model: the registered model.
        version: the number of a version, or an alias that it has.
        alias: `champion` or `challenger`.
        reason: why; may be empty if the version was evaluated on its hold-out.

    Raises:
        ParameterError: there is no such version, it was never evaluated on its hold-out and no reason is given, or the
            champion would become a challenger.
    """
    aliases = model.aliases()
    found = _version(model, aliases.get(version, version))
    number, reason = str(found.version), " ".join(reason.split())
    if alias != CHAMPION and aliases.get(CHAMPION) == number:
        raise ParameterError(
            f"version={version}: version {number} of {model.name} is the champion, and {alias} would leave none; make "
            "another version champion first"
        )
    if UNEVALUATED_TAG in found.tags or not found.tags.get(EVALUATION_TAG):
        if not reason:
            raise ParameterError(
                f"version={version}: version {number} of {model.name} was {NOT_EVALUATED}, so no score tells how good it is; "
                f"give the reason for making it {alias} all the same, as reason=..."
            )
        reason = f"{NOT_EVALUATED}; {reason}"
    return Promotion(model, number, alias, aliases.get(alias, ""), reason)


def _version(model: RegisteredModel, number: str) -> ModelVersion:
    versions = MlflowClient().search_model_versions(f"name = '{model.name}'")
    for version in versions:
        if str(version.version) == number:
            return MlflowClient().get_model_version(model.name, number)
    numbers = ", ".join(str(version.version) for version in sorted(versions, key=lambda one: int(one.version)))
    known = f"{model.name} has the versions {numbers}" if numbers else f"there is no registered model {model.name}"
    raise ParameterError(f"version={number}: there is no such version; {known}")
