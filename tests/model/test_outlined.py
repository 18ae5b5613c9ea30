"""Answers as GeoJSON: the outlines of the regions that were classified, with their classes."""

import json

import numpy as np

from doctogres.model.classifier import SlideClassifier
from doctogres.model.outlined import outlined_answer
from doctogres.slides.geojson import read_outlines
from doctogres.slides.outlines import filled


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
    text = outlined_answer("s", answer, mask, classifier.card.classes, model="doctogres/1")
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
    text = outlined_answer("s", answer, None, classifier.card.classes, model="m")
    corners = [outline.shape.bounds for outline in read_outlines(text.encode(), "s", annotations="A,B,C(+)")]
    boxes = answer.patches[["x", "y", "width", "height"]].to_numpy()
    assert np.array_equal(np.array(corners), np.column_stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]))
