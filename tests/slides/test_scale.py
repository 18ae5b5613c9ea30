"""Sizes of masks and slides."""

import numpy as np
import pytest

from doctogres.slides.scale import Scale, factor


@pytest.mark.parametrize(
    ("slide", "mask", "expected"),
    [
        ((1000, 800), (1000, 800), 1),
        ((1000, 800), (500, 400), 2),
        ((1003, 805), (62, 50), 16),  # rounded down
        ((1003, 805), (63, 51), 16),  # rounded up
        ((805, 1003), (50, 62), 16),
        ((1000, 800), (400, 320), 2.5),
        ((100_000, 80_000), (3125, 2500), 32),
        ((1000, 800), (500, 410), None),
        ((1000, 800), (2000, 1600), None),
        ((1000, 800), (10, 8), None),  # reduced 100 times
        ((1000, 800), (800, 1000), None),
    ],
)
def test_the_factor_of_a_mask(slide: tuple[int, int], mask: tuple[int, int], expected: float | None) -> None:
    assert factor(slide, mask, 64) == expected


def test_boxes_of_a_reduced_mask_lie_in_the_slide() -> None:
    scale = Scale((1003, 805), 16)
    found = scale.boxes(np.array([[2, 3, 4, 5, 18], [60, 48, 3, 3, 9]]))
    assert found.tolist() == [[32, 48, 64, 80, 18 * 256], [960, 768, 43, 37, 9 * 256]]
    squares = scale.squares(np.array([[2, 3, 14, 14, 18], [49, 37, 14, 14, 9]]), 224, inside=True)
    assert squares.tolist() == [[32, 48, 224, 224, 18 * 256], [779, 581, 224, 224, 9 * 256]]


def test_the_models_pixels_count_for_areas() -> None:
    region = np.array([[0, 0, 4, 4, 16]])
    assert Scale((400, 400), 8, unit=2).at_model(region)[0, 4] == 16 * 16
    assert Scale((400, 400), 1, unit=2).at_model(region)[0, 4] == 4
