import base64
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from doctogres.drawing import heat_colours
from doctogres.model.answer import SlideAnswer
from doctogres.model.card import TrainingRecord
from doctogres.model.classifier import SlideClassifier, make_classifier
from doctogres.model.encoder import architecture_of
from doctogres.model.ensemble import Ensemble
from doctogres.model.network import create_network
from doctogres.model.temperature import Calibration
from doctogres.report.examples import PATCHES, GallerySection, choose_slides, show_slide
from doctogres.report.gallery import gallery_html, heated, jpeg_address
from doctogres.settings import AnswerSettings, PatchSettings
from doctogres.slides.images import read_rgb
from tests.report.test_report import HOSTILE, Reader

CLASSES = ["one", "two", HOSTILE]


def classifier(backbone: str = "test_resnet", classes: list[str] = CLASSES) -> SlideClassifier:
    torch.manual_seed(0)
    return make_classifier(
        [(architecture_of(backbone), "regions", Ensemble([create_network(backbone, classes=len(classes), size=64)]))],
        recipe="finetune",
        classes=classes,
        class_shares={},
        region_side=40,
        patch=PatchSettings(patch_size=64),
        answer=AnswerSettings(),
        calibration=Calibration.none(0.9),
        seen=TrainingRecord(),
        evidence={},
    )


def slide(regions: int, *, size: tuple[int, int] = (200, 900), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise, which no JPEG makes small, with so many lesions side by side."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, bool)
    for one in range(regions):
        mask[60:100, 20 + 45 * one : 50 + 45 * one] = True
    return rng.integers(0, 256, (*size, 3)).astype(np.uint8), mask


def answered(probabilities: list[list[float]], classes: list[str] = CLASSES, **changes: object) -> SlideAnswer:
    """An answer with these rows for the regions of `slide`."""
    rows = np.array(probabilities)
    boxes = pd.DataFrame({"x": 20 + 45 * np.arange(len(rows)), "y": 60, "width": 30, "height": 40, "area": 1200})
    boxes["label"] = [classes[index] for index in rows.argmax(1)]
    mean = rows.mean(0)
    given = {"label": classes[int(mean.argmax())], "probabilities": mean, "confidence": float(mean.max())}
    rest = {
        "raw": mean,
        "reasons": (),
        "patches": boxes,
        "patch_probabilities": rows,
        "dropped": 0,
        "mask_source": "given",
        "warnings": (),
    }
    return SlideAnswer(**{**rest, **given, **changes})


def test_the_most_wrong_come_first_and_no_slide_twice() -> None:
    of_truth = np.array([0.1, 0.6, 0.02, 0.5, 0.3, 0.02])
    confidence = np.array([0.8, 0.6, 0.9, 0.5, 0.4, 0.35])
    correct = np.array([False, True, False, True, False, False])
    assert choose_slides(of_truth, confidence, correct, wrong=3, unsure=2) == ([2, 5, 0], [4, 3])
    assert choose_slides(of_truth, confidence, correct, wrong=9, unsure=9) == ([2, 5, 0, 4], [3, 1])
    assert choose_slides(of_truth[:0], confidence[:0], correct[:0], wrong=2, unsure=2) == ([], [])


def test_the_surest_patches_are_shown_with_their_own_pixels() -> None:
    rows = [
        [0.5, 0.3, 0.2],
        [0.05, 0.9, 0.05],
        [0.4, 0.3, 0.3],
        [0.2, 0.2, 0.6],
        [0.1, 0.1, 0.8],
        [0.35, 0.33, 0.32],
        [0.7, 0.2, 0.1],
    ]
    rgb, mask = slide(len(rows))
    rgb[60:100, 65:95] = (255, 0, 0)  # the second region
    shown = show_slide(classifier(), rgb, mask, answered(rows), slide_id="s", truth="one")
    assert [patch.row for patch in shown.patches] == [1, 4, 6, 3, 0]
    assert [patch.label for patch in shown.patches] == ["two", HOSTILE, "one", HOSTILE, "one"]
    assert shown.patches[0].probability == pytest.approx(0.9)
    assert shown.patches[0].pixels[32, 32].tolist() == [255, 0, 0]
    assert len(shown.patches) == PATCHES
    assert all(patch.heat is not None and patch.heat.shape == (2, 2) for patch in shown.patches)
    assert (shown.picture != rgb).any()  # the outline
    assert shown.size == (900, 200)


def page(count: int = 1, budget: int = 5_000_000, **changes: Any) -> str:
    rgb, mask = slide(2)
    answer = answered([[0.1, 0.1, 0.8], [0.9, 0.05, 0.05]], **changes)
    shown = [
        show_slide(classifier(), rgb, mask, answer, slide_id=f"img_{one}{HOSTILE}", truth="two") for one in range(count)
    ]
    sections = [GallerySection("worst", "because", shown), GallerySection("none", "because", [])]
    return str(gallery_html(sections, CLASSES, budget))


def test_a_slide_is_told_in_words_and_hostile_names_do_nothing() -> None:
    html = page(reasons=("low_confidence: x",), warnings=(f"largest_region: {HOSTILE}",))
    read = Reader(html)
    assert "script" not in read.tags
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert f"img_0{HOSTILE}" in read.visible
    assert "two (truth)" in read.visible
    assert "not sure" in read.visible
    assert "(wrong)" in read.visible
    assert f"largest_region: {HOSTILE}" in read.visible
    assert not re.search(r"(src|href)=\"(?!data:image/jpeg;base64,)", html)


def test_boxes_lie_where_the_regions_do_and_are_filled_by_probability() -> None:
    html = page()
    assert 'viewBox="0 0 900 200"' in html
    found = re.findall(
        r'<rect x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)" fill="([^"]+)" fill-opacity="([^"]+)"', html
    )
    assert [box[:4] for box in found] == [("20", "60", "30", "40"), ("65", "60", "30", "40")]
    colours = [box[4] for box in found]
    assert colours[0] != colours[1]
    assert all(f"border-color:{colour}" in html.split("</ul>")[0] for colour in colours)  # the legend has them
    opacity = [float(box[5]) for box in found]
    assert opacity[1] / opacity[0] == pytest.approx(0.9 / 0.8, rel=0.02)


def test_a_network_without_heat_maps_says_so_and_shows_its_patches_plain() -> None:
    rgb, mask = slide(1)
    shown = show_slide(classifier("test_vit"), rgb, mask, answered([[0.8, 0.1, 0.1]]), slide_id="s", truth="one")
    html = gallery_html([GallerySection("worst", "", [shown])], CLASSES, 10**7)
    assert "not available for this network" in html
    assert "heat map of patch" not in html
    assert html.count("<img") == 1


def test_the_colours_of_heat_tell_more_from_less() -> None:
    ramp = heat_colours(np.linspace(0, 1, 50)[None])[0].astype(int)
    brightness = ramp @ [0.299, 0.587, 0.114]
    assert (np.diff(brightness) > 0).all()
    pixels = np.full((10, 20, 3), 120, np.uint8)
    pixels[:, :10] = (250, 0, 250)
    warm = heated(pixels, np.array([[0.0, 1.0]], np.float32))
    assert warm.shape == pixels.shape
    np.testing.assert_allclose(warm[5, 19], 0.5 * ramp[-1] + 60, atol=2)


def test_a_picture_shrinks_to_its_side_and_keeps_its_shape() -> None:
    address = jpeg_address(np.zeros((100, 400, 3), np.uint8), 200, 80)
    content = base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))
    assert read_rgb(content, name="picture").shape == (50, 200, 3)


def test_without_slides_there_is_no_gallery() -> None:
    assert gallery_html([GallerySection("worst", "", []), GallerySection("unsure", "", [])], CLASSES, 10**6) == ""


@pytest.mark.parametrize("budget", [400_000, pytest.param(4_500_000, marks=pytest.mark.slow)])
def test_forty_large_noisy_slides_stay_within_the_budget(budget: int) -> None:
    rgb, mask = slide(6, size=(1024, 1400))
    answer = answered([[0.1, 0.1, 0.8]] * 6)
    one = show_slide(classifier(), rgb, mask, answer, slide_id="img", truth="two")
    html = gallery_html(
        [GallerySection("worst", "because.", [one] * 30), GallerySection("unsure", "because.", [one] * 10)],
        CLASSES,
        budget,
    )
    assert len(html.encode()) <= budget
    shown = html.count("<article")
    said = [int(number) for number in re.findall(r"only the first (\d+) of \d+ are shown", html)]
    assert 1 <= shown < 40
    assert shown == (said[0] + (said[1] if len(said) > 1 else 10))
