"""A pyramid is answered as the same plain picture."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from doctogres.model.classifier import SlideClassifier
from doctogres.report.examples import show_slide
from doctogres.serving.contract import requested_slides
from doctogres.slides import levels
from doctogres.slides.images import encode_png
from doctogres.slides.masks import read_with_mask
from doctogres.slides.opening import open_slide
from doctogres.slides.pyramid import Pyramid
from tests.cleaning.drawn_slides import draw_tissue
from tests.slides.pyramids import write_pyramid, write_svs

BOX = ["x", "y", "width", "height"]
RGB, MASK = draw_tissue(5, size=(768, 1024))


@pytest.fixture(params=["lzw", "jpeg", "svs"])
def pyramid(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(levels, "DECODED_PIXELS", 1000)
    if request.param == "svs":
        return write_svs(tmp_path / "a.svs", RGB, quality=97)
    options: dict[str, Any] = {} if request.param == "lzw" else {"compressionargs": {"level": 97}}
    return write_pyramid(tmp_path / f"a-{request.param}.tif", RGB, compression=request.param, **options)


@pytest.mark.parametrize("masked", [True, False])
def test_the_answer_is_that_of_the_plain_picture(classifier: SlideClassifier, pyramid: Path, masked: bool) -> None:
    mask = MASK if masked else None
    expected = classifier.classify(RGB, mask)
    slide = open_slide(pyramid)
    assert isinstance(slide, Pyramid)
    answer = classifier.classify(slide, mask)
    tolerance = 1e-6 if "lzw" in pyramid.name else 0.05
    assert answer.patches[BOX].equals(expected.patches[BOX])
    np.testing.assert_allclose(answer.patches["area"], expected.patches["area"], rtol=tolerance)
    np.testing.assert_allclose(answer.probabilities, expected.probabilities, atol=tolerance)
    assert answer.label == expected.label
    assert answer.warnings == expected.warnings


def test_a_request_may_hold_a_scanner_file_and_a_smaller_mask(classifier: SlideClassifier, pyramid: Path) -> None:
    mask = cv2.resize(MASK.view(np.uint8), None, fx=0.25, fy=0.25, interpolation=cv2.INTER_NEAREST).astype(bool)
    row = {"image": pyramid.read_bytes(), "mask": encode_png(mask), "slide_id": "a"}
    (asked,) = requested_slides(pd.DataFrame([row]))
    slide, read, _ = asked.read()
    assert slide.size == (1024, 768)
    assert read is not None
    assert read.shape == (192, 256)
    answer, expected = classifier.classify(slide, read), classifier.classify(RGB, MASK)
    assert len(answer.patches) == len(expected.patches)
    near = answer.patches[BOX].to_numpy() - expected.patches[BOX].to_numpy()
    assert np.abs(near).max() <= 8


def test_the_gallery_shows_the_patches_of_the_full_size(classifier: SlideClassifier, pyramid: Path) -> None:
    slide, answer = open_slide(pyramid), classifier.classify(RGB, MASK)
    shown = show_slide(classifier, slide, MASK, answer, slide_id="a", truth="A")
    expected = show_slide(classifier, RGB, MASK, answer, slide_id="a", truth="A")
    assert shown.size == expected.size
    assert np.abs(shown.picture.astype(int) - expected.picture).mean() < 2
    for own, of_picture in zip(shown.patches, expected.patches, strict=True):
        assert np.abs(own.pixels.astype(int) - of_picture.pixels).mean() < 3


def test_outlines_on_a_pyramid_mark_the_same_pixels(pyramid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    square = [[100, 100], [300, 100], [300, 260], [100, 260], [100, 100]]
    outlines = b'{"type": "Polygon", "coordinates": [%s]}' % str(square).encode()
    mask = read_with_mask(pyramid, outlines, mask_name="m").mask
    expected = np.zeros_like(MASK)
    expected[100:260, 100:300] = True
    assert np.array_equal(mask, expected)
    monkeypatch.setattr("doctogres.slides.masks.OUTLINED_SIDE", 300)
    assert np.array_equal(read_with_mask(pyramid, outlines, mask_name="m").mask, expected[2::4, 2::4])
