"""What a network says of slides that it was not trained on, in every way."""

import numpy as np
import pytest
import timm
import torch

from doctogres.model.ensemble import Ensemble, outputs_of
from doctogres.model.network import normalisation
from doctogres.settings import AnswerSettings
from doctogres.training.left_out import TURNED, WAYS, answer_left_out
from doctogres.training.samples import Samples


@pytest.fixture(scope="module")
def samples() -> Samples:
    """12 slides of 3 patches; the class is the colour."""
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(12) % 2, 3)
    pixels = rng.integers(0, 100, (36, 32, 32, 3), np.uint8)
    pixels[np.arange(36), :, :, targets * 2] += 100
    return Samples(pixels, targets, np.repeat([f"s{one:02d}" for one in range(12)], 3), rng.uniform(200, 900, 36))


@pytest.mark.parametrize("answer", [AnswerSettings(), AnswerSettings(aggregation="attention", tta=True)])
def test_every_way_answers_for_every_slide_left_out(samples: Samples, answer: AnswerSettings) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=2)
    rows = np.arange(36)
    train, left_out = rows[:24], rows[24:]
    found = [answer_left_out(network, samples, train, left_out, classes=2, answer=answer, seed=1) for _ in range(2)]
    assert found[0].slide_ids == ["s08", "s09", "s10", "s11"]
    assert set(found[0].slides) == {*WAYS, TURNED}
    for way, probabilities in found[0].slides.items():
        assert probabilities.shape == (4, 2)
        np.testing.assert_allclose(probabilities.sum(1), 1)
        np.testing.assert_array_equal(probabilities, found[1].slides[way])
    assert found[0].patches.shape == (12, 2)
    if not answer.tta:
        means = found[0].patches.reshape(4, 3, 2).mean(1)
        np.testing.assert_allclose(found[0].slides["mean"], means)
        views = [np.rot90(samples.pixels[left_out], turn, (1, 2)) for turn in range(4)]
        views += [view[:, :, ::-1] for view in views]
        mean, std = normalisation(network)
        by_hand = np.mean([outputs_of(Ensemble([network]), view, mean=mean, std=std).of_patches() for view in views], 0)
        np.testing.assert_allclose(found[0].slides[TURNED], by_hand.reshape(4, 3, 2).mean(1), atol=1e-6)
    assert not np.allclose(found[0].slides[TURNED], found[0].slides[answer.aggregation], atol=1e-6)
    assert min(found[0].seconds) > 0
