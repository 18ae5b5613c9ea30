"""What a network says of slides that it was not trained on, in every way."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from doctogres.model.ensemble import Ensemble, outputs_of
from doctogres.model.fusion import softmax
from doctogres.model.network import normalisation
from doctogres.settings import AGGREGATIONS, AnswerSettings
from doctogres.training.assessment import TURNED, ways
from doctogres.training.checkpoint import load_checkpoint, save_checkpoint
from doctogres.training.folds import LeftOutFold, Member
from doctogres.training.left_out import LeftOutPredictions, predict_left_out
from doctogres.training.samples import Samples
from doctogres.training.sources import Source


@pytest.fixture(scope="module")
def samples() -> Samples:
    """12 slides of 3 patches; the class is the colour."""
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(12) % 2, 3)
    pixels = rng.integers(0, 100, (36, 32, 32, 3), np.uint8)
    pixels[np.arange(36), :, :, targets * 2] += 100
    return Samples(pixels, targets, np.repeat([f"s{one:02d}" for one in range(12)], 3), rng.uniform(200, 900, 36))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = timm.create_model("test_resnet", num_classes=2)
    return network


def by_ways(predictions: LeftOutPredictions, aggregation: str) -> dict[str, Any]:
    rows = np.arange(0)
    fold = LeftOutFold(Source("test_resnet", "none", "weights", "regions"), 0, "fold0", rows, rows, "")
    return ways([Member(fold, predictions)], AnswerSettings(aggregation=aggregation))


def answered(network: nn.Module, samples: Samples) -> LeftOutPredictions:
    rows = np.arange(36)
    return predict_left_out(network, samples, rows[:24], rows[24:], classes=2, seed=1)


def test_every_way_answers_for_every_slide_left_out(samples: Samples, network: nn.Module, tmp_path) -> None:
    found, again = answered(network, samples), answered(network, samples)
    save_checkpoint(found.state(), tmp_path / "stored.pt")
    stored = LeftOutPredictions.from_state(load_checkpoint(tmp_path / "stored.pt", torch.device("cpu")))
    assert found.slides == stored.slides == ["s08", "s09", "s10", "s11"]
    assert min(found.seconds) > 0
    for aggregation in ("mean", "attention"):
        ways = by_ways(found, aggregation)
        assert set(ways) == {*AGGREGATIONS, TURNED}
        assert not np.allclose(ways[TURNED], ways[aggregation], atol=1e-6)
        for way, probabilities in ways.items():
            assert probabilities.shape == (4, 2)
            np.testing.assert_allclose(probabilities.sum(1), 1)
            np.testing.assert_array_equal(probabilities, by_ways(again, aggregation)[way])
            np.testing.assert_array_equal(probabilities, by_ways(stored, aggregation)[way])
    assert stored.head is not None
    assert found.head is not None
    features = torch.rand(5, stored.head.classifier.in_features)
    assert stored.gaussian is not None
    assert found.gaussian is not None
    np.testing.assert_array_equal(stored.log_distances, found.log_distances)
    distances = stored.gaussian.log_distances(features.numpy())
    np.testing.assert_array_equal(distances, found.gaussian.log_distances(features.numpy()))
    assert torch.equal(stored.head.of_slide(features), found.head.of_slide(features))


def test_the_turned_answers_are_the_mean_over_eight_views(samples: Samples, network: nn.Module) -> None:
    found = answered(network, samples)
    assert found.plain.shape == (12, 2)
    np.testing.assert_allclose(by_ways(found, "mean")["mean"], softmax(found.plain).reshape(4, 3, 2).mean(1))
    views = [np.rot90(samples.pixels[24:], turn, (1, 2)) for turn in range(4)]
    views += [view[:, :, ::-1] for view in views]
    mean, std = normalisation(network)
    by_hand = np.mean([outputs_of(Ensemble([network]), view, mean=mean, std=std).logits[0] for view in views], 0)
    np.testing.assert_allclose(found.turned, by_hand, atol=1e-5)
    np.testing.assert_allclose(by_ways(found, "mean")[TURNED], softmax(by_hand).reshape(4, 3, 2).mean(1), atol=1e-6)
