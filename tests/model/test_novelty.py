"""A classifier says when a slide's patches are unlike those that it was trained on."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from doctogres.evaluation.conformal import novelty_limit
from doctogres.model.answer import SlideAnswer
from doctogres.model.attention import GatedAttention
from doctogres.model.classifier import CARD_FILE, SlideClassifier, make_classifier
from doctogres.model.conformal import LabelSets
from doctogres.model.encoder import architecture_of
from doctogres.model.ensemble import Ensemble, outputs_of
from doctogres.model.fusion import slide_distances
from doctogres.model.network import create_network
from doctogres.model.scheduling import Job, Scheduler
from doctogres.settings import AnswerSettings
from doctogres.slides.reasons import Reason
from doctogres.training.gaussian import fit_gaussian
from tests.model.untrained import classified
from tests.serving.drawn_requests import drawn

OWN = [drawn(seed, lesions=1 + seed % 4, speck=False) for seed in range(40)]
FOREIGN = [(255 - rgb, mask) for rgb, mask in OWN[:10]]


def familiar(
    classifier: SlideClassifier, views: Sequence[str] = ("regions",), *, members: int = 1, **answer: Any
) -> SlideClassifier:
    """Untrained networks, two backbones on each view, that know the first half of the drawn slides."""
    card, sources = classifier.card, []
    settings = AnswerSettings.model_validate(answer)
    for number, view in enumerate([*views, *views]):
        torch.manual_seed(number)
        networks = [create_network("test_resnet", classes=3, size=32).eval() for _ in range(members)]
        heads = [GatedAttention(96, 3) for _ in networks] if settings.aggregation == "attention" else []
        sources.append((architecture_of("test_resnet"), view, Ensemble(networks, heads).eval()))
    fields = {
        name: getattr(card, name) for name in ("recipe", "classes", "patch", "calibration", "region_side", "seen")
    }
    shares = dict(zip(card.classes, card.class_shares, strict=True))

    def made(networks: Sequence[Any], **more: Any) -> SlideClassifier:
        return make_classifier(networks, answer=settings, class_shares=shares, evidence={}, **fields, **more)

    plain = made(sources)
    known = [plain.cut(*slide) for slide in OWN[:20]]
    for architecture, view, network in sources:
        pixels = np.concatenate([slide.pixels[view] for slide in known])
        found = outputs_of(network, pixels, mean=architecture.mean, std=architecture.std, features=True).features[0]
        network.gaussians.extend([fit_gaussian(features.numpy()) for features in found])
    measured = made(sources, novelty=novelty_limit(np.ones(20), [*map(str, range(20))], level=0.9))
    left_out = [measured.cut(*slide) for slide in OWN[20:]]
    distances = slide_distances(
        [measured._view_outputs(left_out, view, Job(Scheduler())) for view in measured.card.views]
    )
    return made(sources, novelty=novelty_limit(distances, [*map(str, range(20))], level=0.9))


def answers(model: SlideClassifier, slides: Sequence[Any]) -> list[SlideAnswer]:
    found = classified(model, slides)
    assert all(isinstance(answer, SlideAnswer) for answer in found)
    return [answer for answer in found if isinstance(answer, SlideAnswer)]


KINDS: list[tuple[list[str], dict[str, Any]]] = [
    (["regions"], {}),
    (["window64", "regions"], {"tta": True}),
    (["regions", "tiles16"], {"aggregation": "attention"}),
]


@pytest.mark.parametrize(("views", "settings"), KINDS)
def test_other_slides_are_not_answered_with_certainty(
    classifier: SlideClassifier, views: list[str], settings: dict[str, Any]
) -> None:
    model = familiar(classifier, views, **settings)
    assert sum(answer.abstained for answer in answers(model, OWN[20:])) <= 2
    for answer in answers(model, FOREIGN):
        assert answer.novelty is not None
        assert answer.novelty > 1
        (reason,) = answer.reasons
        assert Reason.of(reason) == Reason.NOVEL
        assert f"novelty {answer.novelty:.2f}, where 1 is the limit" in reason


@pytest.mark.slow
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize(("views", "settings"), KINDS)
def test_from_files_and_with_openvino_the_novelty_is_the_same(
    classifier: SlideClassifier, tmp_path: Path, views: list[str], settings: dict[str, Any], graphs: bool
) -> None:
    model = familiar(classifier, views, members=2, **settings)
    model.save(tmp_path)
    served = SlideClassifier.load(tmp_path, device="cpu", graphs=graphs)
    slides = [*OWN[:3], *FOREIGN[:3]]
    for mine, theirs in zip(answers(model, slides), answers(served, slides), strict=True):
        assert mine.novelty == pytest.approx(theirs.novelty, rel=1e-3)
        np.testing.assert_allclose(mine.patches["novelty"], theirs.patches["novelty"], rtol=1e-3)
        np.testing.assert_allclose(mine.probabilities, theirs.probabilities, atol=1e-5)


def test_the_slides_novelty_is_the_mean_of_its_patches_and_shows_which_are_strange(classifier: SlideClassifier) -> None:
    model = familiar(classifier)
    rgb, mask = drawn(7, lesions=4, speck=False)
    strange = rgb.copy()
    strange[:, :90] = 255 - strange[:, :90]  # the first lesion
    before, after = model.classify(rgb, mask).patches, model.classify(strange, mask)
    changed = after.patches["novelty"] / before["novelty"]
    assert changed[before["x"] < 80].min() > 1.5
    assert changed[before["x"] > 100].to_numpy() == pytest.approx(1, rel=1e-4)
    assert after.novelty == pytest.approx(after.patches["novelty"].mean())


def test_novelty_is_measured_on_patches_as_they_are(classifier: SlideClassifier) -> None:
    model = familiar(classifier)
    plain, turned = (model.adjusted(tta=tta).classify(*OWN[3]) for tta in (False, True))
    assert not np.allclose(plain.probabilities, turned.probabilities, atol=1e-6)
    assert plain.novelty == pytest.approx(turned.novelty, rel=1e-5)


def test_the_labels_of_an_answer_hold_only_for_slides_of_the_training_slides_kind(classifier: SlideClassifier) -> None:
    model = familiar(classifier)
    unlabelled = model.classify(*OWN[3])
    assert (unlabelled.labels, unlabelled.labels_valid) == ((), False)
    sets = LabelSets(target=0.9, threshold=0.2, slides=80, groups=80)
    model = replace(model, card=model.card.model_copy(update={"labels": sets}))
    rgb, mask = OWN[3]
    answer = model.classify(rgb, mask)
    shares = sorted(zip(answer.probabilities.tolist(), model.card.classes, strict=True), reverse=True)
    assert list(answer.labels) == [name for share, name in shares if share >= 0.2]
    assert answer.label == answer.labels[0]
    assert answer.labels_valid
    for other in (
        model.classify(255 - rgb, mask),
        model.classify(rgb, None),
        model.classify(rgb, ~mask),
        model.adjusted(tta=True).classify(rgb, mask),
    ):
        assert other.label in other.labels
        assert not other.labels_valid
    narrow = replace(model, card=model.card.model_copy(update={"labels": sets.model_copy(update={"threshold": 1.0})}))
    assert narrow.classify(rgb, mask).labels == (answer.label,)


def test_an_older_model_answers_as_before_and_cannot_tell(classifier: SlideClassifier, tmp_path: Path) -> None:
    classifier.save(tmp_path)
    card = json.loads((tmp_path / CARD_FILE).read_text())
    del card["novelty"], card["labels"], card["answer"]["novelty_quantile"], card["answer"]["labels_coverage"]
    (tmp_path / CARD_FILE).write_text(json.dumps(card))
    older = SlideClassifier.load(tmp_path, device="cpu")
    for rgb, mask in (OWN[0], FOREIGN[0]):
        answer = older.classify(rgb, mask)
        assert (answer.novelty, answer.labels, answer.labels_valid, answer.abstained) == (None, (), False, False)
        assert answer.patches["novelty"].tolist() == [None] * len(answer.patches)
        np.testing.assert_allclose(answer.probabilities, classifier.classify(rgb, mask).probabilities, atol=1e-5)


def test_a_distance_that_is_no_number_is_not_familiar(classifier: SlideClassifier) -> None:
    model = familiar(classifier)
    assert not model.classify(*OWN[0]).abstained
    for gaussian in model.networks[0].gaussians:
        gaussian.mean.fill_(torch.nan)  # type: ignore[operator]
    assert model.classify(*OWN[0]).abstained
