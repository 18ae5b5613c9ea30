"""Slides at other magnifications: resampled, answered with a warning, or doubted."""

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from doctogres.model.classifier import SlideClassifier
from doctogres.patches.crops import cut_patches
from doctogres.patches.regions import find_patches
from doctogres.settings import PatchSettings
from doctogres.slides.reasons import Reason
from doctogres.slides.scale import Scale
from doctogres.slides.source import DecodedPicture
from tests.cleaning.drawn_slides import draw_tissue

BOX = ["x", "y", "width", "height"]
COARSE, COARSE_MASK = draw_tissue(5, size=(768, 1024))
COARSE = cv2.GaussianBlur(COARSE, (0, 0), 1.5)


def finer(array: npt.NDArray[np.uint8], by: int) -> npt.NDArray[np.uint8]:
    return np.repeat(np.repeat(array, by, axis=0), by, axis=1)


FINE, FINE_MASK = finer(COARSE, 2), finer(COARSE_MASK.view(np.uint8), 2).astype(bool)


def trained_at(classifier: SlideClassifier, mpp: float | None, target: float = 0.0) -> SlideClassifier:
    patch = classifier.card.patch.model_copy(update={"target_mpp": target})
    return replace(classifier, card=classifier.card.model_copy(update={"mpp": mpp, "patch": patch}))


@pytest.mark.parametrize("view", ["window96", "tiles64", "regions", "whole"])
def test_a_finer_slide_gives_the_patches_of_the_target(view: str) -> None:
    settings = PatchSettings(patching=view, patch_size=96, min_area=200, target_mpp=0.5)
    cut = []
    for rgb, mask, mpp in ((COARSE, COARSE_MASK, 0.5), (FINE, FINE_MASK, 0.25)):
        slide = DecodedPicture(rgb, mpp)
        boxes, kept, _ = find_patches(mask, settings, view, Scale.of(slide, mask, 0.5))
        cut.append((boxes, kept, cut_patches(slide, boxes[kept], settings, view)))
    (boxes, kept, pixels), (fine_boxes, fine_kept, fine_pixels) = cut
    assert np.abs(fine_boxes[:, :4] - 2 * boxes[:, :4]).max() <= (12 if view == "window96" else 1)
    assert kept.tolist() == fine_kept.tolist()
    if view != "window96":
        assert np.abs(pixels.astype(int) - fine_pixels).mean() < 3


def test_without_microns_per_pixel_nothing_changes(classifier: SlideClassifier) -> None:
    expected = classifier.classify(COARSE, COARSE_MASK)
    for slide in (DecodedPicture(COARSE), DecodedPicture(COARSE, 0.25)):
        answer = classifier.classify(slide, COARSE_MASK)
        assert answer.patches.equals(expected.patches)
        assert (answer.warnings, answer.reasons) == (expected.warnings, expected.reasons)


def test_a_slide_of_another_magnification_is_resampled(classifier: SlideClassifier) -> None:
    resampling = trained_at(classifier, 0.5, target=0.5)
    expected = resampling.classify(DecodedPicture(COARSE, 0.5), COARSE_MASK)
    answer = resampling.classify(DecodedPicture(FINE, 0.25), FINE_MASK)
    assert np.abs(answer.patches[BOX].to_numpy() - 2 * expected.patches[BOX].to_numpy()).max() <= 1
    np.testing.assert_allclose(answer.probabilities, expected.probabilities, atol=0.02)
    assert not any("magnification" in reason for reason in answer.reasons)
    tissue = [resampling.classify(DecodedPicture(*slide), None) for slide in ((COARSE, 0.5), (FINE, 0.25))]
    assert len(tissue[0].patches) == pytest.approx(len(tissue[1].patches), abs=3)
    assert [set(answer.patches["width"]) for answer in tissue] == [{24}, {48}]


@pytest.mark.parametrize(("mpp", "doubted"), [(0.5, False), (0.26, False), (0.99, False), (0.24, True), (1.1, True)])
@pytest.mark.parametrize("masked", [True, False])
def test_more_than_twofold_without_resampling_is_doubted(
    classifier: SlideClassifier, mpp: float, doubted: bool, masked: bool
) -> None:
    answer = trained_at(classifier, 0.5).classify(DecodedPicture(COARSE, mpp), COARSE_MASK if masked else None)
    found = [reason for reason in answer.reasons if Reason.of(reason) == Reason.MAGNIFICATION]
    assert bool(found) == doubted
    assert answer.abstained >= doubted
    if doubted:
        assert found == [
            f"magnification: it has {mpp:.3g} microns per pixel; the model was trained at 0.5 and does not resample"
        ]


@pytest.mark.parametrize("target", [0.0, 0.5])
@pytest.mark.parametrize("masked", [True, False])
def test_an_unknown_magnification_is_a_warning(classifier: SlideClassifier, target: float, masked: bool) -> None:
    mask = COARSE_MASK if masked else None
    answer = trained_at(classifier, 0.5, target).classify(COARSE, mask)
    assert "the model was trained at 0.5 microns per pixel, but those of this slide are not known" in answer.warnings[0]
    expected = classifier.classify(COARSE, mask)
    assert answer.patches.equals(expected.patches)
    assert answer.reasons == expected.reasons
