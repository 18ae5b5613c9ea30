"""Answers as GeoJSON: the outlines of the regions that were classified, with their classes."""

import json
from dataclasses import replace

import numpy as np

from doctogres.model.classifier import SlideClassifier
from doctogres.model.outlined import outlined_answer
from doctogres.slides.geojson import read_outlines
from doctogres.slides.outlines import filled
from doctogres.slides.source import DecodedPicture


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Noise with a ring, an L, two squares that touch at a corner, and a speck that is too small."""
    rgb = np.random.default_rng(0).integers(0, 256, (160, 200, 3)).astype(np.uint8)
    mask = np.zeros((160, 200), np.bool_)
    mask[10:50, 10:50] = True
    mask[20:40, 20:40] = False
    mask[60:100, 10:20] = mask[90:100, 10:60] = True
    mask[60:70, 40:55] = True  # inside the box of the L, and a region of its own
    mask[110:125, 100:115] = mask[125:140, 115:130] = True
    mask[5:7, 190:192] = True
    return rgb, mask


def test_the_outlines_are_those_of_the_classified_regions(classifier: SlideClassifier) -> None:
    rgb, mask = drawn()
    answer = classifier.classify(rgb, mask)
    text = outlined_answer("s", answer, (rgb, mask), classifier.card.classes, model="doctogres/1")
    outlines = read_outlines(text.encode(), "s", annotations=",".join(classifier.card.classes))
    assert [outline.shape.area for outline in outlines] == answer.patches["area"].tolist()
    assert [outline.classification for outline in outlines] == answer.patches["label"].tolist()
    mask[5:7, 190:192] = False
    assert np.array_equal(filled(outlines, (200, 160), ""), mask)
    content = json.loads(text)
    assert content["doctogres"]["label"] == answer.label
    shares = [found["properties"]["measurements"] for found in content["features"]]
    assert [
        [of_patch[name] for name in classifier.card.classes] for of_patch in shares
    ] == answer.patch_probabilities.tolist()


def test_without_a_mask_the_outlines_are_the_tiles(classifier: SlideClassifier) -> None:
    rgb, _ = drawn()
    rgb[:] = 190
    rgb[40:120, 40:160] = (180, 120, 170)
    answer = classifier.classify(rgb, None)
    text = outlined_answer("s", answer, (rgb, None), classifier.card.classes, model="m")
    corners = [outline.shape.bounds for outline in read_outlines(text.encode(), "s", annotations="A,B,C(+)")]
    boxes = answer.patches[["x", "y", "width", "height"]].to_numpy()
    assert np.array_equal(np.array(corners), np.column_stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]))


def test_the_regions_of_a_smaller_mask_are_outlined_in_the_slides_pixels(classifier: SlideClassifier) -> None:
    rgb, mask = drawn()
    answer = classifier.classify(rgb, mask)
    patches = answer.patches.assign(**{name: answer.patches[name] * 4 for name in ("x", "y", "width", "height")})
    larger = replace(answer, patches=patches.assign(area=answer.patches["area"] * 16))
    slide = Reducible(np.zeros((640, 800, 3), np.uint8))
    text = outlined_answer("s", larger, (slide, mask), classifier.card.classes, model="m")
    outlines = read_outlines(text.encode(), "s", annotations="A,B,C(+)")
    assert [outline.shape.area for outline in outlines] == larger.patches["area"].tolist()
    mask[5:7, 190:192] = False
    assert np.array_equal(filled(outlines, (800, 640), ""), mask.repeat(4, axis=0).repeat(4, axis=1))


class Reducible(DecodedPicture):
    """A slide whose mask may be smaller."""

    mask_reduction = 32
