"""Slides through the classifier: one by one or together, with and without a mask, and what it refuses to load."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from doctogres.errors import DoctogresError, UpstreamError, WeightsError
from doctogres.model.answer import SlideAnswer
from doctogres.model.classifier import (
    CARD_FILE,
    WEIGHTS_FILE,
    SlideClassifier,
)
from doctogres.model.cutting import NoLesionError, TooManyRegionsError
from doctogres.model.ensemble import Ensemble
from doctogres.model.fusion import softmax
from doctogres.model.network import create_network
from doctogres.slides.plausibility import MaskRange
from doctogres.slides.reasons import Reason
from tests.model.untrained import classified
from tests.serving.drawn_requests import GLASS, TISSUE, drawn


def viewed(classifier: SlideClassifier, view: str) -> SlideClassifier:
    """The same networks on another view."""
    sources = tuple(source.model_copy(update={"view": view}) for source in classifier.card.sources)
    return replace(classifier, card=classifier.card.model_copy(update={"sources": sources}))


def joined(classifier: SlideClassifier, *views: str, **answer: Any) -> SlideClassifier:
    """Other untrained networks on each of these views, together."""
    card, sources, networks = classifier.card, [], []
    for number, view in enumerate(views):
        torch.manual_seed(number)
        networks.append(Ensemble([create_network("test_resnet", classes=3, size=32).eval()]))
        sources.append(card.sources[0].model_copy(update={"view": view, "members": 1}))
    changed = card.answer.model_copy(update=answer)
    together = card.model_copy(update={"sources": tuple(sources), "answer": changed})
    return replace(classifier, card=together, networks=tuple(networks))


def parted(model: SlideClassifier) -> list[tuple[Any, Ensemble]]:
    """Each source of a model with its networks, as a card of its own."""
    return [
        (model.card.model_copy(update={"sources": (source,)}), network)
        for source, network in zip(model.card.sources, model.networks, strict=True)
    ]


def test_views_with_patches_of_their_own_are_averaged_slide_by_slide(classifier: SlideClassifier) -> None:
    slide = drawn(4, lesions=3)
    model = joined(classifier, "window64", "tiles16", "regions")
    alone = [replace(model, card=card, networks=(network,)).classify(*slide) for card, network in parted(model)]
    together = model.classify(*slide)
    np.testing.assert_allclose(together.raw, np.mean([answer.raw for answer in alone], axis=0), atol=1e-6)
    # The patches are the first view's; the others only take part in the slide's answer.
    assert together.patches.equals(alone[0].patches)
    assert len({len(answer.patches) for answer in alone}) > 1


def test_joined_features_multiply_the_answers_of_their_views(classifier: SlideClassifier) -> None:
    slide = drawn(4, lesions=2)
    model = joined(classifier, "window64", "regions", "regions", fusion="features", aggregation="log_mean")
    window, first, second = (
        replace(model, card=card, networks=(network,)).classify(*slide) for card, network in parted(model)
    )
    boxes = np.log(first.patch_probabilities) + np.log(second.patch_probabilities)
    logits = boxes.mean(axis=0) + np.log(window.patch_probabilities).mean(axis=0)
    np.testing.assert_allclose(model.classify(*slide).raw, softmax(logits), atol=1e-6)


def test_several_views_survive_their_files_and_read_tissue_without_a_mask(
    classifier: SlideClassifier, tmp_path: Path
) -> None:
    model = joined(classifier, "window64", "tiles16", tta=True)
    model.save(tmp_path)
    rgb, mask = drawn(5)
    for graphs, given in itertools.product((False, True), (mask, None)):
        again = SlideClassifier.load(tmp_path, device="cpu", graphs=graphs)
        np.testing.assert_allclose(
            again.classify(rgb, given).probabilities, model.classify(rgb, given).probabilities, atol=1e-5
        )


def test_many_slides_together_are_answered_as_one_by_one(
    classifier: SlideClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    slides = [drawn(seed, lesions=1 + seed % 4) for seed in range(7)]
    monkeypatch.setattr("doctogres.model.classifier.PATCHES_AT_ONCE", 6)  # so that chunks end inside the list
    together = classified(classifier, slides)
    assert len({tuple(answer.probabilities) for answer in together if isinstance(answer, SlideAnswer)}) == len(slides)
    for (rgb, mask), answer in zip(slides, together, strict=True):
        alone = classifier.classify(rgb, mask)
        assert isinstance(answer, SlideAnswer)
        assert answer.label == alone.label
        np.testing.assert_allclose(answer.probabilities, alone.probabilities, atol=1e-5)
        np.testing.assert_allclose(answer.patch_probabilities, alone.patch_probabilities, atol=1e-5)
        assert answer.patches[["x", "y", "area"]].equals(alone.patches[["x", "y", "area"]])


def test_a_slide_that_fails_keeps_its_place(classifier: SlideClassifier) -> None:
    rgb, mask = drawn(1)
    unread = DoctogresError("s2: cannot be read")
    given: list[Any] = [(rgb, mask), unread, (rgb, np.zeros_like(mask)), (rgb, mask[1:]), (rgb, mask)]
    first, second, third, fourth, fifth = classified(classifier, given)
    assert isinstance(first, SlideAnswer)
    assert isinstance(fifth, SlideAnswer)
    assert second is unread
    assert isinstance(third, NoLesionError)
    assert "the mask has 300×199" in str(fourth)
    with pytest.raises(NoLesionError):
        classifier.classify(rgb, np.zeros_like(mask))


def test_specks_are_counted_and_no_others_are_classified(classifier: SlideClassifier) -> None:
    answer = classifier.classify(*drawn(2, lesions=3))
    assert (len(answer.patches), answer.dropped, answer.mask_source, answer.warnings) == (3, 1, "given", ())
    assert not answer.abstained


def test_a_model_that_is_always_sure_is_not_where_the_mask_cannot_be_right(classifier: SlideClassifier) -> None:
    rgb, mask = drawn(2)
    answer = classifier.classify(rgb, ~mask)
    assert (answer.abstained, answer.reasons, answer.warnings) == (True, answer.warnings, answer.reasons)
    assert answer.reasons[0].endswith("is it inverted?")
    assert answer.label in classifier.card.classes
    whole = viewed(classifier, "whole").card
    assert not replace(classifier, card=whole).classify(rgb, ~mask).abstained  # whatever the mask, the picture is cut


def test_a_mask_far_from_those_of_the_training_is_doubted(classifier: SlideClassifier) -> None:
    trained = MaskRange(share=0.02, on_glass=0.01, regions=3, sides=(12.0, 30.0))
    known = replace(classifier, card=classifier.card.model_copy(update={"masks": trained}))
    rgb, mask = drawn(2)
    assert not known.classify(rgb, mask).abstained
    large = [np.repeat(np.repeat(array, 8, axis=0), 8, axis=1) for array in (rgb, mask)]
    (reason,) = known.classify(*large).reasons
    assert Reason.of(reason) is Reason.MASK_SCALE
    assert not classifier.classify(*large).abstained


def test_below_the_threshold_the_answer_is_marked(unsure: SlideClassifier) -> None:
    answer = unsure.classify(*drawn(2))
    assert answer.abstained
    assert answer.label in unsure.card.classes


def test_without_a_mask_the_tissue_is_tiled_and_the_answer_says_so(classifier: SlideClassifier) -> None:
    rgb, _ = drawn(3, lesions=0)
    answer = classifier.classify(rgb, None)
    boxes = answer.patches
    assert answer.mask_source == "tissue"
    assert (boxes[["width", "height"]] == 24).all(axis=None)
    inside = (boxes.x >= 20 - 12) & (boxes.x + 24 <= 280 + 12) & (boxes.y >= 50 - 12) & (boxes.y + 24 <= 150 + 12)
    assert inside.all()  # at most half of a tile lies on the glass
    assert answer.dropped > 0
    assert "no mask was given" in answer.note


@pytest.mark.parametrize("views", [("window224", "regions"), ("regions", "window224")])
def test_tissue_thinner_than_a_window_is_classified_in_every_view(
    classifier: SlideClassifier, views: tuple[str, ...]
) -> None:
    rgb = np.full((700, 1500, 3), GLASS, np.uint8)
    rgb[100:160, 40:1460] = TISSUE  # a needle biopsy
    rgb = (rgb + np.random.default_rng(0).integers(0, 6, rgb.shape)).astype(np.uint8)
    boxes = joined(classifier, *views).cut(rgb, None).boxes
    across = 1500 // 224  # windows beside each other
    assert len(boxes["window224"]) == across
    assert len(boxes["regions"]) > 2 * across


@pytest.mark.parametrize("patching", ["regions", "whole"])
def test_bare_glass_and_drawings_get_no_made_up_class(classifier: SlideClassifier, patching: str) -> None:
    model = viewed(classifier, patching)
    glass = np.full((200, 300, 3), GLASS, np.uint8)
    drawing = glass.copy()
    drawing[50:150, 20:280] = (120, 190, 60)  # an ogre's green
    for picture in (glass, drawing):
        with pytest.raises(NoLesionError, match="no stained tissue"):
            model.classify(picture, None)
    rgb, _ = drawn(3)
    assert len(model.classify(rgb, None).patches) == (1 if patching == "whole" else 40)


def test_a_mask_of_speckle_is_refused_before_its_patches_fill_the_memory(
    classifier: SlideClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doctogres.model.cutting.MAX_REGIONS", 2)
    with pytest.raises(TooManyRegionsError, match="3 regions of at least 30 px, more than the limit of 2"):
        classifier.classify(*drawn(1, lesions=3))


def test_other_settings_than_the_models_own_are_used_and_said(classifier: SlideClassifier) -> None:
    slide = drawn(4)
    own, turned = classifier.classify(*slide), classifier.adjusted(tta=True).classify(*slide)
    assert not np.allclose(own.probabilities, turned.probabilities, atol=1e-9)
    assert "tta=True (the model's own: False)" in turned.note
    larger = classifier.adjusted(min_area=10**6).classify(*slide)
    assert len(larger.patches) == 1
    assert "largest_region" in larger.note
    assert classifier.adjusted(tta=False, min_area=30) is classifier


def test_what_was_saved_answers_the_same(classifier: SlideClassifier, tmp_path: Path) -> None:
    classifier.save(tmp_path)
    slide = drawn(5)
    again = SlideClassifier.load(tmp_path, device="cpu").classify(*slide)
    np.testing.assert_allclose(again.probabilities, classifier.classify(*slide).probabilities, atol=1e-6)
    card = json.loads((tmp_path / CARD_FILE).read_text())
    assert card["classes"] == ["A", "B", "C(+)"]
    assert {"sources", "patch", "answer", "calibration", "weights_sha256", "region_side"} <= card.keys()
    assert {"architecture", "view", "members"} <= card["sources"][0].keys()


def test_changed_weights_are_not_loaded(classifier: SlideClassifier, tmp_path: Path) -> None:
    classifier.save(tmp_path)
    weights = tmp_path / WEIGHTS_FILE
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(WeightsError, match="download the model again"):
        SlideClassifier.load(tmp_path)


def test_another_versions_card_is_named(classifier: SlideClassifier, tmp_path: Path) -> None:
    classifier.save(tmp_path)
    card = json.loads((tmp_path / CARD_FILE).read_text())
    (tmp_path / CARD_FILE).write_text(json.dumps({**card, "colour": 1}))
    with pytest.raises(UpstreamError, match="another version of doctogres"):
        SlideClassifier.load(tmp_path)
