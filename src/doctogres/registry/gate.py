"""The gate: which models are registered, and which version is served."""

from collections.abc import Mapping, Sequence
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
    """The alias for a model (empty: it is not registered), the reason, and whether a user forced it."""

    alias: str
    reason: str
    forced: bool = False

    @property
    def place(self) -> str:
        """The alias, or `not registered`."""
        return self.alias or NOT_REGISTERED


@dataclass(frozen=True)
class ChampionComparison:
    """Comparison of a model with the champion on the same slides."""

    champion: str  # the champion's version
    slides: int
    difference: Estimate | None  # macro-F1 of the model minus the champion's, paired; None: not comparable
    remark: str  # where the champion's predictions came from, or why the two are not comparable


def gate(
    macro_f1: Estimate,
    nulls: Mapping[str, Estimate],
    comparison: ChampionComparison | None,
    *,
    settings: GateSettings,
    split: str,
) -> GateDecision:
    """Decides between champion, challenger and not registered.

    A model is registered if the lower end of its macro-F1 interval is above the value of each null model. It becomes
    champion if there is none, or if it scores at least as high on the same slides and the interval of the paired
    difference excludes a loss of more than `loss_margin` (non-inferiority; Piaggio et al., JAMA 2012). Otherwise it
    becomes challenger.

    Args:
        macro_f1: of the model, on slides that it was not trained on.
        nulls: macro-F1 of the null models on these slides, by their names in `null_models.NULL_MODELS`.
        comparison: with the champion; None if there is no champion.
        settings: the thresholds.
        split: name of the split, such as "hold-out".
    """
    scored = f"on the {split} slides, macro-F1 {macro_f1}"
    limits = ", ".join(f"{NULL_MODELS[name]}: {null.value:.3f}" for name, null in nulls.items())
    if not all(macro_f1.low > null.value for null in nulls.values()):  # false for NaN, too
        return GateDecision("", f"{scored}: the interval does not lie entirely above the null models ({limits})")
    if comparison is None:
        return GateDecision(
            CHAMPION, f"{scored}: the interval lies above the null models ({limits}), and there was no champion"
        )
    champion = f"the champion (version {comparison.champion})"
    if comparison.difference is None:
        return GateDecision(CHALLENGER, f"not comparable with {champion}: {comparison.remark}")
    gain = comparison.difference
    remark = f" ({comparison.remark})" if comparison.remark else ""
    compared = (
        f"macro-F1 {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] relative to {champion} "
        f"on the same {comparison.slides} {split} slides{remark}"
    )
    if not round(gain.value, 9) >= 0:
        return GateDecision(CHALLENGER, f"{compared}: it scores lower")
    if not gain.low >= -settings.loss_margin:
        return GateDecision(CHALLENGER, f"{compared}: a loss of more than {settings.loss_margin:g} cannot be excluded")
    return GateDecision(
        CHAMPION,
        f"{compared}: it scores at least as high, and a loss of more than {settings.loss_margin:g} is excluded",
    )


def held(decision: GateDecision, violated: Sequence[str]) -> GateDecision:
    """The decision if the model would become champion, but violates these limits: it becomes challenger."""
    if decision.alias != CHAMPION or not violated:
        return decision
    return GateDecision(CHALLENGER, f"{'; '.join(violated)} (otherwise champion: {decision.reason})")


def overruled(decision: GateDecision) -> GateDecision:
    """The decision if a user makes the model champion regardless of the gate."""
    return GateDecision(CHAMPION, f"promote=force (gate decision: {decision.place}; {decision.reason})", forced=True)
