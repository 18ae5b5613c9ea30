"""What a trained model does with slides that a person would call the same, and with a part of a slide.

A small network is trained here, on slides that are drawn here: lesions whose nuclei are blue, brown or few.
"""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from doctogres.model.aggregation import POOLING, aggregate
from doctogres.model.answer import SlideAnswer
from doctogres.model.card import TrainingRecord
from doctogres.model.classifier import SlideClassifier, make_classifier
from doctogres.model.encoder import architecture_of
from doctogres.model.ensemble import Ensemble
from doctogres.model.temperature import Calibration
from doctogres.patches.crops import cut_patches
from doctogres.patches.regions import find_patches
from doctogres.settings import AnswerSettings, PatchSettings, TrainSettings
from doctogres.training.loop import train_network
from doctogres.training.samples import Samples
from tests.model.untrained import classified

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Slide = tuple[Picture, Mask]

CLASSES = ("blue", "brown", "few")
NUCLEI = {"blue": (60, (70, 60, 170)), "brown": (60, (120, 70, 40)), "few": (6, (95, 65, 105))}
# Without a margin the crop has the size of the region itself, so it turns with the slide to the pixel.
PATCH = PatchSettings(patch_size=32, min_area=100, margin=0.0)
RECIPE = TrainSettings(
    backbone="test_resnet", weights="none", epochs=12, unfreeze_every=0, batch_size=8, learning_rate=3e-3, dropout=0.0,
    augmentation=True, device="cpu",
)  # fmt: skip
TURNS = [(quarters, mirrored) for quarters in range(4) for mirrored in (False, True)]


def draw_slide(label: str, seed: int, lesions: int = 3) -> Slide:
    """A strip of tissue on glass with lesions of different sizes, full of the class's nuclei."""
    random = np.random.default_rng(seed)
    rgb = np.full((240, 320, 3), (190, 190, 188), np.uint8)
    rgb[40:200, 20:300] = (205, 150, 185)
    marked = np.zeros((240, 320), np.uint8)
    number, colour = NUCLEI[label]
    for column in range(lesions):
        centre, radius = (70 + 80 * column, int(random.integers(80, 160))), int(random.integers(16, 30))
        cv2.circle(marked, centre, radius, 1, cv2.FILLED)
        cv2.circle(rgb, centre, radius, (180, 110, 165), cv2.FILLED)
        for _ in range(number):
            distance, angle = radius * np.sqrt(random.random()), 2 * np.pi * random.random()
            nucleus = (int(centre[0] + distance * np.cos(angle)), int(centre[1] + distance * np.sin(angle)))
            cv2.circle(rgb, nucleus, 2, colour, cv2.FILLED)
    noisy = rgb + random.normal(0, 4, rgb.shape)
    return noisy.clip(0, 255).astype(np.uint8), marked > 0


def turned(slide: Slide, quarters: int, mirrored: bool) -> Slide:
    rgb, mask = (np.rot90(part, quarters)[:, :: -1 if mirrored else 1] for part in slide)
    return np.ascontiguousarray(rgb), np.ascontiguousarray(mask)


def without(mask: Mask, x: int, y: int) -> Mask:
    """The mask without the region whose box starts at x, y."""
    _, parts, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    (gone,) = np.flatnonzero((boxes[:, 0] == x) & (boxes[:, 1] == y))
    left: Mask = mask & (parts != gone)
    return left


@pytest.fixture(scope="module")
def model() -> SlideClassifier:
    """Trained on 24 slides, validated on six."""
    pixels, targets, slides, areas = [], [], [], []
    for number in range(30):
        rgb, mask = draw_slide(CLASSES[number % 3], number)
        regions, kept, _ = find_patches(mask, PATCH)
        pixels.append(cut_patches(rgb, regions[kept], PATCH))
        targets += [number % 3] * len(pixels[-1])
        slides += [f"slide {number}"] * len(pixels[-1])
        areas += regions[kept][:, 4].tolist()
    samples = Samples(np.concatenate(pixels), np.array(targets), np.array(slides), np.array(areas, float))
    validated = np.isin(slides, [f"slide {number}" for number in range(24, 30)])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a network is slower on more
    trained = train_network(
        samples, np.flatnonzero(~validated), np.flatnonzero(validated), classes=3, settings=RECIPE, seed=0
    )
    torch.set_num_threads(threads)
    return make_classifier(
        [(architecture_of(RECIPE.backbone), "regions", Ensemble([trained.network]).eval())],
        recipe="finetune", classes=CLASSES, class_shares=dict.fromkeys(CLASSES, 1 / 3), patch=PATCH,
        answer=AnswerSettings(aggregation="mean", tta=False), calibration=Calibration.none(0.9), region_side=40,
        seen=TrainingRecord(), evidence={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def unseen() -> list[tuple[str, Slide]]:
    return [
        (label, draw_slide(label, 100 + 3 * number + place))
        for number in range(2)
        for place, label in enumerate(CLASSES)
    ]


def answering(model: SlideClassifier, aggregation: str) -> SlideClassifier:
    answer = model.card.answer.model_copy(update={"aggregation": aggregation})
    return replace(model, card=model.card.model_copy(update={"answer": answer}))


def test_it_has_learned_what_tells_the_classes_apart(model: SlideClassifier, unseen: list[tuple[str, Slide]]) -> None:
    answers = [model.classify(*slide) for _, slide in unseen]
    assert [answer.label for answer in answers] == [label for label, _ in unseen]
    assert min(answer.confidence for answer in answers) > 0.6


@pytest.mark.parametrize(("quarters", "mirrored"), TURNS[1:])
def test_a_slide_that_lies_another_way_gets_the_same_answer(
    model: SlideClassifier, unseen: list[tuple[str, Slide]], quarters: int, mirrored: bool
) -> None:
    """Nearly so as the network learned it, exactly so where it looks at all eight turns."""
    for label, slide in unseen[:3]:
        straight, lying = model.classify(*slide), model.classify(*turned(slide, quarters, mirrored))
        assert straight.label == lying.label == label
        np.testing.assert_allclose(lying.probabilities, straight.probabilities, atol=0.15)
        all_turns = model.adjusted(tta=True)
        straight, lying = all_turns.classify(*slide), all_turns.classify(*turned(slide, quarters, mirrored))
        np.testing.assert_allclose(lying.probabilities, straight.probabilities, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda rgb: rgb * 1.05,
        lambda rgb: rgb * 0.95,
        lambda rgb: rgb + 6.0,
        lambda rgb: cv2.GaussianBlur(rgb, (0, 0), 0.5).astype(float),
    ],
    ids=["brighter", "darker", "paler", "softer"],
)
def test_another_light_or_lens_changes_no_label(
    model: SlideClassifier, unseen: list[tuple[str, Slide]], change: Callable[[Picture], NDArray[np.float64]]
) -> None:
    for label, (rgb, mask) in unseen:
        answer = model.classify(change(rgb).clip(0, 255).astype(np.uint8), mask)
        assert answer.label == label
        np.testing.assert_allclose(answer.probabilities, model.classify(rgb, mask).probabilities, atol=0.15)


@pytest.mark.parametrize("aggregation", POOLING)
def test_a_region_less_leaves_the_others_and_what_they_add_up_to(model: SlideClassifier, aggregation: str) -> None:
    rgb, mask = draw_slide("blue", 200)
    other, _ = draw_slide("brown", 200)
    rgb = np.concatenate([rgb[:, :200], other[:, 200:]], axis=1)  # the same regions, the last one of another class
    asked = answering(model, aggregation)
    whole = asked.classify(rgb, mask)
    assert len(whole.patches) == 3
    for gone in range(3):
        left = asked.classify(rgb, without(mask, whole.patches["x"][gone], whole.patches["y"][gone]))
        stay = np.arange(3) != gone
        np.testing.assert_array_equal(left.patches[["x", "y", "area"]], whole.patches.loc[stay, ["x", "y", "area"]])
        np.testing.assert_allclose(left.patch_probabilities, whole.patch_probabilities[stay], atol=1e-6)
        areas = whole.patches["area"].to_numpy()[stay]
        expected = aggregate(whole.patch_probabilities[stay], weights=areas, method=aggregation)
        np.testing.assert_allclose(left.probabilities, expected, atol=1e-6)


def test_what_surrounds_the_lesions_does_not_speak(model: SlideClassifier, unseen: list[tuple[str, Slide]]) -> None:
    """Pen marks or dirt far from the marked regions are not what the answer is about."""
    for _, (rgb, mask) in unseen:
        scribbled = rgb.copy()
        cv2.line(scribbled, (0, 8), (319, 8), (20, 40, 180), 6)
        np.testing.assert_array_equal(
            model.classify(scribbled, mask).probabilities, model.classify(rgb, mask).probabilities
        )


def test_the_order_of_the_slides_changes_nothing(
    model: SlideClassifier, unseen: list[tuple[str, Slide]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doctogres.model.classifier.PATCHES_AT_ONCE", 7)  # so that slides change their neighbours
    slides = [slide for _, slide in unseen]
    order = [4, 0, 5, 2, 1, 3]
    straight = classified(model, slides)
    mixed = classified(model, [slides[place] for place in order])
    for place, answer in zip(order, mixed, strict=True):
        expected = straight[place]
        assert isinstance(answer, SlideAnswer)
        assert isinstance(expected, SlideAnswer)
        assert answer.label == expected.label
        np.testing.assert_allclose(answer.probabilities, expected.probabilities, rtol=0, atol=1e-6)
