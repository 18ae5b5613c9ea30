"""Kept features of a frozen backbone stand for the backbone itself."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from doctogres.errors import DiskFullError
from doctogres.model.network import create_network, layer_groups
from doctogres.training import features
from doctogres.training.features import head_reduction, is_cut_before_head
from doctogres.training.loop import train_network
from doctogres.training.samples import Samples
from doctogres.training.schedule import apply_freezing
from tests.disks import small_disk
from tests.training.coloured_squares import RECIPE, coloured_squares

HEAD_ONLY = RECIPE.model_copy(update={"unfreeze_every": 100, "epochs": 3})


def train(part, settings, folder):
    return train_network(*part, classes=3, settings=settings, seed=0, features=folder)


@pytest.mark.parametrize(
    ("backbone", "kept"),
    [
        ("test_resnet", (96, 1, 1)),
        ("test_convnext", (64, 1, 1)),
        ("test_efficientnet", (256, 1, 1)),
        ("test_vit", (1, 64)),
        ("swin_tiny_patch4_window7_224", (1, 1, 768)),
    ],
)
def test_the_head_answers_the_same_from_kept_features(backbone, kept):
    torch.manual_seed(0)
    network: Any = create_network(backbone, classes=3, size=64).eval()
    patches = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        reduced = head_reduction(network, 64)(network.forward_features(patches))
        assert reduced.shape[1:] == kept
        assert torch.allclose(network.forward_head(reduced), network(patches), atol=1e-5)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_vit"])
def test_training_the_head_on_kept_features_is_training_it_on_patches(backbone, tmp_path):
    part = coloured_squares(size=32)
    settings = HEAD_ONLY.model_copy(update={"backbone": backbone})
    kept, plain = train(part, settings, tmp_path), train(part, settings, None)
    assert list(tmp_path.iterdir())
    for column in ("train_loss", "val_loss", "slide_macro_f1"):
        assert kept.history[column].tolist() == pytest.approx(plain.history[column].tolist(), rel=1e-4)
    assert np.allclose(kept.probabilities, plain.probabilities, atol=1e-5)


def test_every_view_is_computed_once_for_all_epochs_and_trainings(tmp_path, monkeypatch):
    part = coloured_squares()
    settings = HEAD_ONLY.model_copy(update={"augmentation": True, "feature_views": 2, "epochs": 5})
    computed = []
    compute = features.FrozenFeatures._compute

    def counted(self, copy, path):
        computed.append(copy)
        compute(self, copy, path)

    monkeypatch.setattr(features.FrozenFeatures, "_compute", counted)
    train(part, settings, tmp_path)
    train(part, settings.model_copy(update={"learning_rate": 3e-3, "dropout": 0.4}), tmp_path)
    assert sorted(map(str, computed)) == ["augmented1", "augmented2", "turn0"]
    views = [np.load(path) for path in sorted(tmp_path.iterdir())]
    assert len(views) == 3
    assert all(not np.array_equal(view, other) for view, other in combinations(views, 2))


def test_other_weights_or_patches_are_other_features(tmp_path):
    part = coloured_squares()
    train(part, HEAD_ONLY, tmp_path)
    names = set(tmp_path.iterdir())
    train_network(*part, classes=3, settings=HEAD_ONLY, seed=1, features=tmp_path)  # another random start
    assert len(set(tmp_path.iterdir())) == 2 * len(names)
    samples, *rows = part
    other = Samples(255 - samples.pixels, samples.targets, samples.slide_ids, samples.areas)
    train((other, *rows), HEAD_ONLY, tmp_path)
    assert len(set(tmp_path.iterdir())) == 3 * len(names)


def test_the_features_serve_until_the_backbone_opens(tmp_path):
    part = coloured_squares(24, size=32)
    settings = RECIPE.model_copy(update={"epochs": 8, "unfreeze_every": 2, "augmentation": True, "batch_size": 4})
    trained = train(part, settings, tmp_path)
    assert trained.history.open_blocks.tolist()[:4] == [0, 0, 2, 2]
    assert trained.best.slide_macro_f1 == 1.0
    assert trained.best.open_blocks > 0


def test_features_that_do_not_fit_on_the_disk_are_refused_before_they_are_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "BLOCK", 8)
    with small_disk(tmp_path / "disk", kilobytes=4) as disk:
        with pytest.raises(DiskFullError, match=f"^{disk.path}: .* needed, 4.1 kB free"):
            train(coloured_squares(), HEAD_ONLY, disk.path)
        assert not list(disk.path.iterdir())


@pytest.mark.parametrize("settings", [{"feature_views": 0}, {"mixup": 0.4}, {"cutmix": 1.0}, {"unfreeze_every": 0}])
def test_nothing_is_kept_where_it_would_not_serve(settings, tmp_path):
    train(coloured_squares(), HEAD_ONLY.model_copy(update=settings), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_layer_of_the_backbone_in_the_heads_group_is_noticed():
    network = create_network("densenet121", classes=3, size=32)
    apply_freezing(network, layer_groups(network), 0)
    assert not is_cut_before_head(network, 32)
    network = create_network("test_resnet", classes=3, size=32)
    apply_freezing(network, layer_groups(network), 0)
    assert is_cut_before_head(network, 32)


def test_without_openvino_the_features_are_those_of_the_frozen_network(tmp_path, monkeypatch, caplog):
    part = coloured_squares(size=32)
    compiled = train(part, HEAD_ONLY, tmp_path / "compiled")

    def refused():
        raise ImportError("no OpenVINO here")

    monkeypatch.setattr("doctogres.model.compiled._openvino", refused)
    caplog.set_level("WARNING")  # another library may have raised the level
    plain = train(part, HEAD_ONLY, tmp_path / "plain")
    assert "computed with PyTorch instead of OpenVINO" in caplog.text
    first, second = (np.load(next((tmp_path / name).glob("*-turn0.npy"))) for name in ("compiled", "plain"))
    np.testing.assert_allclose(first, second, atol=1e-4)
    assert np.allclose(plain.probabilities, compiled.probabilities, atol=1e-5)
