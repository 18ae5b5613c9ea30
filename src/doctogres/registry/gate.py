"""The gate to the registry: what becomes a version, and which version is served."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.null_models import NULL_MODELS
from doctogres.settings import GateSettings

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
NOT_REGISTERED: Final = "not registered"


@dataclass(frozen=True)
class GateDecision:
    """Which alias a model gets (empty: it is not registered), why, and whether a person forced it."""

    alias: str
    reason: str
    forced: bool = False

    @property
    def place(self) -> str:
        """The alias, or `not registered`."""
        return self.alias or NOT_REGISTERED


@dataclass(frozen=True)
class ChampionComparison:
    """How a model does against the champion on the same slides."""

    champion: str  # its version
    slides: int
    difference: Estimate | None  # macro-F1 of the model minus the champion's, paired; None: they cannot be compared
    remark: str  # where the champion's answers came from, or why the two cannot be compared


def gate(
    macro_f1: Estimate,
    nulls: Mapping[str, Estimate],
    comparison: ChampionComparison | None,
    *,
    settings: GateSettings,
    split: str,
) -> GateDecision:
    """Decides between champion, challenger, and no version.

    A model becomes a version when the lower end of its macro-F1 interval lies above each null model's value. It becomes
    champion when there is none, or when it scores at least as high on the same slides and the paired interval of the
    difference excludes a loss of more than `loss_margin` (non-inferiority; Piaggio et al., JAMA 2012); else challenger.

    Args:
        macro_f1: of the model, on slides that it has not seen.
        nulls: macro-F1 of the null models on these slides, by their names in `null_models.NULL_MODELS`.
        comparison: with the champion; None when there is no champion.
        settings: the thresholds.
        split: what these slides are called, as in "hold-out".
    """
    scored = f"on the {split} slides, macro-F1 {macro_f1}"
    limits = ", ".join(f"{NULL_MODELS[name]}: {null.value:.3f}" for name, null in nulls.items())
    if not all(macro_f1.low > null.value for null in nulls.values()):  # an undefined edge is above nothing
        return GateDecision("", f"{scored} does not lie above the null models with its whole interval ({limits})")
    if comparison is None:
        return GateDecision(CHAMPION, f"{scored} lies above the null models ({limits}); there was no champion")
    against = f"the champion (version {comparison.champion})"
    if comparison.difference is None:
        return GateDecision(CHALLENGER, f"it cannot be compared with {against}: {comparison.remark}")
    gain = comparison.difference
    remark = f" ({comparison.remark})" if comparison.remark else ""
    compared = (
        f"macro-F1 {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] against {against} "
        f"on the same {comparison.slides} {split} slides{remark}"
    )
    if not round(gain.value, 9) >= 0:
        return GateDecision(CHALLENGER, f"{compared}: it scores lower")
    if not gain.low >= -settings.loss_margin:
        return GateDecision(CHALLENGER, f"{compared}: a loss of more than {settings.loss_margin:g} is not excluded")
    return GateDecision(
        CHAMPION, f"{compared}: it scores no lower, and a loss of more than {settings.loss_margin:g} is excluded"
    )


def overruled(decision: GateDecision) -> GateDecision:
    """The decision when a person wants the champion whatever the gate says."""
    return GateDecision(CHAMPION, f"promote=force; the gate says {decision.place}: {decision.reason}", forced=True)
