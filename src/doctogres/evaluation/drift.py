"""Whether the slides of a period differ from those that a model was trained on, quantity by quantity.

Distributions are compared by the two-sample Kolmogorov-Smirnov test, classes by the chi-squared test, and the share of slides
without an answer by an exact binomial test. The p-values are corrected for their number (Holm, A simple sequentially rejective
multiple test procedure, 1979), so that `alpha` is the chance of any alarm in a period without a shift. An alarm also needs a
shift that is large: among many slides, a small one is significant, too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

LARGE: Final = 0.15  # a shift: how far distributions differ, from 0 to 1
UNANSWERED: Final = 0.05  # share of slides that may stay without an answer: cleaning has taken them out of the training
LABEL: Final = "label"
UNANSWERED_SHARE: Final = "unanswered_share"
SCANNER: Final = "look whether scanner, stain or the slides' file format have changed"
MASKS: Final = "look at the masks of some slides: inverted, another scale, or marked by another rule?"


@dataclass(frozen=True)
class Quantity:
    """What is compared.

    Attributes:
        name: its column in the answer log.
        what: in words.
        remedy: what to do about an alarm.
        digits: after the decimal point.
        marked: whether only slides with a mask count.
    """

    name: str
    what: str
    remedy: str
    digits: int = 2
    marked: bool = False


QUANTITIES: Final = (
    Quantity(LABEL, "predicted classes", "ask whether other patients are examined, and check a sample of the answers"),
    Quantity("confidence", "confidence", "check a sample of the answers against a pathologist's"),
    Quantity("novelty", "novelty", "look whether the slides show another organ, stain or magnification"),
    Quantity("hue", "hue of the tissue in degrees", SCANNER, 0),
    Quantity("saturation", "saturation of the tissue", SCANNER),
    Quantity("stain_share", "share of pixels in the stain's colour", SCANNER),
    Quantity("glass", "brightness of the glass", SCANNER, 0),
    Quantity("inside_share", "share of the image that is tissue", SCANNER),
    Quantity("pixels", "size of the image in megapixels", SCANNER),
    Quantity("mask_share", "share of the image that is marked", MASKS, marked=True),
    Quantity("n_patches", "regions per slide", MASKS, 0, marked=True),
    Quantity("patch_side", "side of the regions in pixels", MASKS, 0, marked=True),
)
REFUSALS: Final = Quantity(
    UNANSWERED_SHARE, "slides without an answer", "see the column `refusal` of the answer log for the reasons"
)


@dataclass(frozen=True)
class Shift:
    """How a quantity of a period compares with the reference.

    Attributes:
        quantity: what was compared.
        before: of the reference, in words.
        after: of the period, in words.
        slides: of the period.
        effect: how far the distributions differ, from 0 to 1: the largest distance between the distribution functions, for classes
            the total variation distance, for slides without an answer their share beyond `UNANSWERED`.
        p: of the test.
        adjusted: the same, corrected for the number of quantities.
        alarm: whether it is significant and large.
    """

    quantity: Quantity
    before: str
    after: str
    slides: int
    effect: float
    p: float
    adjusted: float = 1.0
    alarm: bool = False

    @property
    def sentence(self) -> str:
        """The alarm: what, from what to what, in how many slides, and what to do."""
        return (
            f"{self.quantity.what}: from {self.before} to {self.after} in {self.slides} slides "
            f"(shift {self.effect:.0%}, p {_p(self.adjusted)}); {self.quantity.remedy}"
        )


def distinct(answers: pd.DataFrame) -> pd.DataFrame:
    """The rows of the answer log without repetitions: of each picture with the same mask, the newest.

    Requests without files have no digests and stay.
    """
    repeated = answers.duplicated(["image_sha256", "mask_sha256"], keep="last")
    return answers[~repeated | answers["image_sha256"].isna()]


def compare(reference: pd.DataFrame, answers: pd.DataFrame, *, alpha: float) -> list[Shift]:
    """Compares every quantity that the reference has; see the module.

    Args:
        reference: a row per training slide; a column that it lacks is not compared.
        answers: the distinct rows of the period.
        alpha: chance of an alarm in a period without a shift.
    """
    before, after = with_pixels(reference), with_pixels(answers)
    answered = after[after["label"].notna()]
    found = [_refusals(after), *_shifts(before, answered)] if len(after) else []
    adjusted = holm([shift.p for shift in found])
    return [
        replace(
            shift, adjusted=p, alarm=p < alpha and shift.effect >= (UNANSWERED if shift.quantity is REFUSALS else LARGE)
        )
        for shift, p in zip(found, adjusted, strict=True)
    ]


def daily(answers: pd.DataFrame) -> Iterator[tuple[Any, dict[str, float]]]:
    """Every day (UTC) with its slides, medians, shares of the classes, and shares without a sure answer or any."""
    for day, rows in with_pixels(answers).groupby(answers["time"].dt.date):
        answered = rows[rows[LABEL].notna()]
        values = {"slides": float(len(rows)), UNANSWERED_SHARE: float(rows[LABEL].isna().mean())}
        if len(answered):
            values["not_sure_share"] = float(answered["abstained"].astype(float).mean())
            values |= {
                f"{LABEL}/{name}": float(share) for name, share in answered[LABEL].value_counts(normalize=True).items()
            }
            values |= dict(_medians(answered))
        yield day, values


def _medians(answered: pd.DataFrame) -> Iterator[tuple[str, float]]:
    for quantity in QUANTITIES[1:]:
        if len(known := values_of(quantity, answered)):
            known = centred(known, known) if quantity.name == "hue" else known
            yield quantity.name, float(np.median(known)) % (360 if quantity.name == "hue" else np.inf)


def missing(reference: pd.DataFrame) -> list[str]:
    """The quantities, in words, of which the model has no reference."""
    table = with_pixels(reference)
    return [quantity.what for quantity in QUANTITIES if quantity.name not in table]


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, corrected for their number."""
    order = np.argsort(p_values)
    scaled = np.arange(len(order), 0, -1) * np.asarray(p_values, float)[order]
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return [float(p) for p in adjusted]


def with_pixels(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the size of the image in megapixels, if it has width and height."""
    sized = {"width", "height"} <= set(table)
    return table.assign(pixels=table["width"].astype(float) * table["height"].astype(float) / 1e6) if sized else table


def values_of(quantity: Quantity, table: pd.DataFrame) -> NDArray[Any]:
    """The known values of a quantity, of the slides that count: numbers, or classes as text."""
    chosen = table[table["mask_source"] == "given"] if quantity.marked and "mask_source" in table else table
    return chosen[quantity.name].dropna().to_numpy(object if quantity.name == LABEL else np.float64)


def centred(hues: NDArray[np.float64], around: NDArray[np.float64]) -> NDArray[np.float64]:
    """Degrees within 180 of the mean of other ones: red lies at both 0 and 360."""
    angles = np.deg2rad(around)
    middle = np.rad2deg(np.arctan2(np.sin(angles).mean(), np.cos(angles).mean()))
    return np.asarray(middle % 360 + (hues - middle + 180) % 360 - 180)


def _shifts(before: pd.DataFrame, after: pd.DataFrame) -> Iterator[Shift]:
    for quantity in QUANTITIES:
        if quantity.name not in before:
            continue
        old, new = values_of(quantity, before), values_of(quantity, after)
        if not len(old) or not len(new):
            continue
        yield _classes(quantity, old, new) if quantity.name == LABEL else _numbers(quantity, old, new)


def _numbers(quantity: Quantity, old: NDArray[Any], new: NDArray[Any]) -> Shift:
    from scipy.stats import ks_2samp

    turn = np.inf
    if quantity.name == "hue":
        old, new, turn = centred(old, old), centred(new, old), 360.0
    test = ks_2samp(old, new)
    before, after = (_quartiles(np.percentile(values, (25, 50, 75)) % turn, quantity.digits) for values in (old, new))
    return Shift(quantity, before, after, len(new), float(test.statistic), float(test.pvalue))


def _classes(quantity: Quantity, old: NDArray[Any], new: NDArray[Any]) -> Shift:
    from scipy.stats import chi2_contingency

    classes = sorted({*old, *new})
    counts = np.array([[np.count_nonzero(values == name) for name in classes] for values in (old, new)])
    shares = counts / counts.sum(axis=1, keepdims=True)
    most = int(np.abs(shares[1] - shares[0]).argmax())
    before, after = (f"{classes[most]} {share:.0%}" for share in shares[:, most])
    p = float(chi2_contingency(counts, correction=False).pvalue) if len(classes) > 1 else 1.0
    return Shift(quantity, before, after, len(new), float(np.abs(shares[1] - shares[0]).sum() / 2), p)


def _refusals(answers: pd.DataFrame) -> Shift:
    from scipy.stats import binomtest

    count, total = int(answers["label"].isna().sum()), len(answers)
    p = float(binomtest(count, total, UNANSWERED, alternative="greater").pvalue)
    effect = max(0.0, count / total - UNANSWERED)
    return Shift(REFUSALS, f"at most {UNANSWERED:.0%}", f"{count / total:.0%}", total, effect, p)


def _quartiles(values: NDArray[np.float64], digits: int) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} ({low} to {high})"


def _p(value: float) -> str:
    return f"= {value:.3f}" if value >= 0.001 else "< 0.001"
