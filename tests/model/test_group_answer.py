"""One answer for several slides."""

import numpy as np
import pytest

from doctogres.model.group_answer import GroupRule, SlideOfGroup, pool
from doctogres.model.temperature import Calibration

CLASSES = ("a", "b", "c")
CALIBRATION = Calibration.none(0.9).model_copy(update={"threshold": 0.6})
MEAN = GroupRule(method="mean", calibration=CALIBRATION)


def slide(name: str, *shares: float, reasons: tuple[str, ...] = ()) -> SlideOfGroup:
    return SlideOfGroup(name, np.array(shares) if shares else None, reasons)


def test_the_mean_and_the_geometric_mean() -> None:
    rows = np.array([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2]])
    np.testing.assert_allclose(pool(rows, "mean"), [0.5, 0.35, 0.15])
    product = np.sqrt(rows[0] * rows[1])
    np.testing.assert_allclose(pool(rows, "log_probabilities"), product / product.sum())
    impossible = pool(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), "log_probabilities")
    np.testing.assert_allclose(impossible, [0.5, 0.5, 0], atol=1e-6)  # no class is ruled out by one slide


def test_slides_without_an_answer_are_named_and_do_not_count() -> None:
    refused = slide("s3", reasons=("s3 (image) is not a picture",))
    bare = slide("s4", reasons=("the mask is empty",))
    found = MEAN.answer([slide("s1", 0.8, 0.1, 0.1), slide("s2", 0.6, 0.2, 0.2), refused, bare], CLASSES)
    assert (found.label, found.slides, found.reasons) == ("a", 2, ())
    assert found.probabilities == pytest.approx({"a": 0.7, "b": 0.15, "c": 0.15})
    assert found.confidence == pytest.approx(0.7)
    assert found.left_out == ("s3 (image) is not a picture", "s4: the mask is empty")
    nothing = MEAN.answer([refused], CLASSES)
    assert (nothing.label, nothing.slides, dict(nothing.probabilities)) == ("", 0, {})
    assert nothing.reasons == ("no slide of the group has an answer",)


def test_it_is_sure_by_its_own_threshold_and_without_doubts_about_a_slide() -> None:
    unsure = slide("s1", 0.55, 0.4, 0.05, reasons=("low_confidence: the confidence 0.55 is below it",))
    clear = slide("s2", 0.9, 0.05, 0.05)
    assert MEAN.answer([unsure, clear], CLASSES).reasons == ()  # the group is clear although one of its slides is not
    (reason,) = MEAN.answer([unsure, slide("s2", 0.1, 0.5, 0.4)], CLASSES).reasons
    assert reason == "low_confidence: the confidence 0.45 is below the model's threshold 0.60"
    odd = slide("s3", 0.9, 0.05, 0.05, reasons=("novel: unlike the others",))
    assert MEAN.answer([clear, odd], CLASSES).reasons == ("s3: novel: unlike the others",)


def test_it_has_a_temperature_of_its_own() -> None:
    sharper = MEAN.model_copy(update={"calibration": CALIBRATION.model_copy(update={"temperature": 0.5})})
    rows = [slide("s1", 0.6, 0.2, 0.2), slide("s2", 0.6, 0.3, 0.1)]
    plain, sharp = (np.array(list(rule.answer(rows, CLASSES).probabilities.values())) for rule in (MEAN, sharper))
    np.testing.assert_allclose(sharp, plain**2 / (plain**2).sum())
