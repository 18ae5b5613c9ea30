"""Masks that can and cannot belong to their picture."""

import cv2
import numpy as np
import pytest

from doctogres.slides.plausibility import (
    MaskFit,
    MaskRange,
    better_of,
    contrast_of,
    doubt_about,
    fit_of,
    open_glass,
    turn_fits_better,
)
from doctogres.slides.reasons import Reason

GLASS, TISSUE, LESION = (190, 190, 188), (205, 140, 180), (120, 70, 150)
TRAINED = MaskRange(share=0.1, on_glass=0.04, regions=12, sides=(20.0, 60.0))
LESIONS = ((60, 50), (70, 110), (130, 70), (200, 60), (110, 140))  # x, y of their corners
SIDES = np.full(len(LESIONS), 24)


def drawn(size: tuple[int, int] = (300, 400)) -> tuple[np.ndarray, np.ndarray]:
    """A blob of tissue in the upper left with five lesions, on glass: picture and mask."""
    rgb = np.full((*size, 3), GLASS, np.uint8)
    cv2.ellipse(rgb, (145, 110), (120, 90), 0, 0, 360, TISSUE, -1)
    mask = np.zeros(size, bool)
    for x, y in LESIONS:
        mask[y : y + 24, x : x + 24] = True
    rgb[mask] = LESION
    return (rgb + np.random.default_rng(0).integers(0, 6, rgb.shape)).astype(np.uint8), mask


def doubted(rgb: np.ndarray, mask: np.ndarray, trained: MaskRange | None) -> tuple[Reason | None, str]:
    reason = doubt_about(fit_of(rgb, mask), trained, SIDES)
    return Reason.of(reason), reason


@pytest.mark.parametrize("trained", [None, TRAINED])
def test_the_mask_of_the_picture_is_not_doubted(trained: MaskRange | None) -> None:
    rgb, mask = drawn()
    assert doubted(rgb, mask, trained) == (None, "")
    assert doubted(rgb, np.zeros_like(mask), trained) == (None, "")  # an empty one is another matter


@pytest.mark.parametrize("trained", [None, TRAINED])
def test_an_inverted_mask_is_called_inverted_and_a_white_one_blank(trained: MaskRange | None) -> None:
    rgb, mask = drawn()
    code, reason = doubted(rgb, ~mask, trained)
    assert (code, "marks 98% of the picture as lesion; is it inverted?" in reason) == (Reason.FULL_MASK, True)
    code, reason = doubted(rgb, np.ones_like(mask), trained)
    assert (code, "marks 100% of the picture as lesion; is it blank?" in reason) == (Reason.FULL_MASK, True)


@pytest.mark.parametrize("trained", [None, TRAINED])
def test_an_inverted_mask_of_large_lesions_is_known_by_the_glass_that_it_marks(trained: MaskRange | None) -> None:
    rgb, _ = drawn()
    mask = (rgb[..., 1] < 160) & (np.arange(400) < 250)  # nearly all of the tissue
    mask[:, :100] = False
    code, reason = doubted(rgb, ~mask, trained)
    assert code in (Reason.MASK_ON_GLASS, Reason.FULL_MASK)
    assert reason.endswith("is it inverted?")


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        (lambda mask: mask[::-1], "flipped vertically"),
        (lambda mask: mask[:, ::-1], "flipped horizontally"),
        (lambda mask: mask[::-1, ::-1], "rotated by 180 degrees"),
    ],
)
def test_a_turned_mask_is_told_how_it_fits(turn, name) -> None:
    rgb, mask = drawn()
    code, reason = doubted(rgb, turn(mask), None)
    assert (code, f"{name}, it would be 0%" in reason) == (Reason.MASK_ON_GLASS, True)


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        (np.rot90, "rotated by 270 degrees"),
        (lambda mask: np.rot90(mask, 3), "rotated by 90 degrees"),
        (np.transpose, "transposed"),
        (lambda mask: mask[::-1, ::-1].T, "transposed and rotated by 180 degrees"),
    ],
)
def test_a_square_mask_may_be_turned_by_quarters(turn, name) -> None:
    rgb, mask = drawn((400, 400))
    rgb[:, 150:270] = np.maximum(rgb[:, 150:270], GLASS)  # a slim piece: no turn but the right one fits
    mask[:, 150:270] = False
    _, reason = doubted(rgb, turn(mask), None)
    assert f"{name}, it would be 0%" in reason


def test_another_slides_mask_is_doubted_by_the_share_on_glass() -> None:
    rgb, mask = drawn()
    other = np.roll(mask, (40, 60), (0, 1))
    share = fit_of(rgb, other).on_glass
    assert 0.1 < share < 0.5
    assert doubted(rgb, other, None)[0] is None  # nobody knows how much of a lesion this cohort has on glass
    assert doubted(rgb, other, TRAINED)[0] is Reason.MASK_ON_GLASS
    assert doubted(rgb, other, TRAINED.model_copy(update={"on_glass": share}))[0] is None


def test_lumens_are_no_glass() -> None:
    rgb = np.full((400, 400, 3), TISSUE, np.uint8)  # tissue from edge to edge
    mask = np.zeros((400, 400), bool)
    for number, (x, y) in enumerate(LESIONS):
        mask[y : y + 24, x : x + 24] = True
        rgb[y + 6 : y + 18, x + 6 : x + 18] = GLASS
        rgb[10 + 20 * number :, :8] = GLASS  # and a torn edge
    assert fit_of(rgb, mask).on_glass == 0
    assert doubted(rgb, mask, TRAINED.model_copy(update={"on_glass": 0.0}))[0] is None


def test_glass_is_what_lies_around_the_tissue() -> None:
    inside = np.ones((100, 100), bool)
    inside[:, :30] = False
    inside[50:60, 50:60] = False
    assert open_glass(inside).sum() == 3000


def test_far_more_regions_than_in_training_and_another_scale_are_doubted() -> None:
    fit = MaskFit(share=0.05)
    for count, code in ((48, None), (49, Reason.MASK_REGIONS)):
        assert Reason.of(doubt_about(fit, TRAINED, np.full(count, 30))) is code
    for side, code in ((5, None), (4, Reason.MASK_SCALE), (240, None), (241, Reason.MASK_SCALE)):
        assert Reason.of(doubt_about(fit, TRAINED, np.full(3, side))) is code
    assert doubt_about(fit, None, np.full(49, 1)) == doubt_about(fit, TRAINED) == ""


def test_the_limits_follow_the_training() -> None:
    for trained, limit in ((0.05, 0.25), (0.3, 0.6), (0.8, 0.9), (0.97, 0.97)):
        known = TRAINED.model_copy(update={"share": trained})
        below, above = (doubt_about(MaskFit(share=limit + step), known) for step in (-0.001, 0.001))
        assert (below, Reason.of(above)) == ("", Reason.FULL_MASK)
    for trained, limit in ((0.01, 0.1), (0.2, 0.4), (0.4, 0.5), (0.7, 0.7)):
        known = TRAINED.model_copy(update={"on_glass": trained})
        below, above = (doubt_about(MaskFit(share=0.1, on_glass=limit + step), known) for step in (-0.001, 0.001))
        assert (below, Reason.of(above)) == ("", Reason.MASK_ON_GLASS)


def test_the_reason_names_the_slide_where_it_has_a_name() -> None:
    assert "the mask of img_0001 marks 95%" in doubt_about(MaskFit(share=0.95), slide="img_0001")
    assert "full_mask: the mask marks 95%" in doubt_about(MaskFit(share=0.95))


def test_doubtful_masks_do_not_widen_the_range_unless_they_are_many() -> None:
    plain = [(MaskFit(share=0.1, on_glass=0.01), np.array([20, 30, 40]), "")] * 7
    odd = MaskFit(share=0.95, on_glass=0.7)
    doubtful = (odd, np.array([400]), Reason.FULL_MASK.because(mask="the mask", share=0.95, hint="is it inverted?"))
    expected = MaskRange(share=0.1, on_glass=0.01, regions=3, sides=(30.0, 30.0))
    assert MaskRange.of([*plain, doubtful, doubtful, doubtful]) == expected
    many = MaskRange.of([*plain[:6], doubtful, doubtful, doubtful, doubtful])
    assert many == MaskRange(share=0.95, on_glass=0.7, regions=3, sides=(30.0, 400.0))
    decided = (odd, np.array([400]), Reason.DECISION.because(decision="keep", why="", automatic="review"))
    assert MaskRange.of([*plain, decided]) == many
    assert MaskRange.of([]) is None
    assert MaskRange.of([(odd, np.array([], np.int64), "")]) is None


def test_an_unmeasured_fit_says_nothing() -> None:
    assert doubt_about(MaskFit(), TRAINED, SIDES) == doubt_about(MaskFit()) == ""


@pytest.mark.parametrize(
    ("on_glass", "left", "gain", "better"),
    [
        (0.6, 0.19, -0.5, True),  # far off the tissue: the stain is not asked
        (0.6, 0.21, 0.5, False),
        (0.3, 0.09, 0.01, True),  # two thirds less, and the stain agrees
        (0.3, 0.09, 0.0, False),
        (0.3, 0.11, 0.09, False),  # half less is enough only where the stain agrees clearly
        (0.3, 0.11, 0.11, True),
        (0.3, 0.16, 0.5, False),
        (0.03, 0.0, 0.05, False),  # too little on glass to say much
        (0.03, 0.0, 0.11, True),
        (0.031, 0.0, 0.05, True),
    ],
)
def test_how_much_better_a_turned_mask_must_fit(on_glass: float, left: float, gain: float, better: bool) -> None:
    assert turn_fits_better(on_glass, left, gain) is better


@pytest.mark.parametrize(
    ("on_glass", "contrast", "expected"),
    [
        ((0.0, 0.011), (0.6, 0.59), 0),
        ((0.0, 0.009), (0.6, 0.59), None),  # hardly less on glass
        ((0.0, 0.1), (0.6, 0.6), None),  # the stain does not agree
        ((0.0, 0.21), (0.5, 0.9), 0),  # far less on glass
        ((0.0, 0.19), (0.5, 0.6), None),
        ((0.019, 0.0), (0.9, 0.64), 0),  # the stain alone, where the glass does not contradict
        ((0.021, 0.0), (0.9, 0.64), None),
        ((0.0, 0.0), (0.9, 0.66), None),
    ],
)
def test_which_of_two_masks_fits_better(
    on_glass: tuple[float, float], contrast: tuple[float, float], expected: int | None
) -> None:
    assert better_of(on_glass, contrast) == expected
    swapped = better_of(on_glass[::-1], contrast[::-1])
    assert swapped == (None if expected is None else 1 - expected)


def test_the_contrast_is_the_chance_that_a_pixel_of_the_lesion_is_darker() -> None:
    dark = np.array([[10, 20, 30, 30, 200]], np.uint8)
    lesion = np.array([[False, True, True, False, True]])
    inside = np.array([[True, True, True, True, False]])
    assert contrast_of(dark, lesion, inside) == pytest.approx((1 + 0 + 1 + 0.5) / 4)  # 20 and 30 against 10 and 30
    assert contrast_of(dark, np.zeros_like(lesion), inside) == 0.5
    assert contrast_of(dark, inside, inside) == 0.5


def test_a_mask_of_nearly_all_that_does_not_mark_the_glass_is_not_called_inverted() -> None:
    assert "inverted" not in doubt_about(MaskFit(share=0.6, on_glass=0.6, inverted_on_glass=0.2))
    assert "inverted" not in doubt_about(MaskFit(share=0.4, on_glass=0.6, inverted_on_glass=0.0))
    assert "inverted" in doubt_about(MaskFit(share=0.6, on_glass=0.6, inverted_on_glass=0.1))
