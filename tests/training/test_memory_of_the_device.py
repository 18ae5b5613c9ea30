"""A device whose memory is too small for a batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from doctogres.errors import DoctogresError
from doctogres.model.ensemble import Ensemble, outputs_of
from doctogres.model.network import create_network
from doctogres.model.passes import Passes
from doctogres.training.loop import train_network
from tests.training.coloured_squares import RECIPE, coloured_squares

MEAN = STD = (0.5, 0.5, 0.5)


@contextmanager
def memory_for(patches: int) -> Iterator[list[int]]:
    """The device holds so many patches at once; yields the sizes of the batches that were too large."""
    refused: list[int] = []

    def check(module: Any, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], torch.Tensor) and inputs[0].ndim == 4 and len(inputs[0]) > patches:
            refused.append(len(inputs[0]))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    hook = register_module_forward_pre_hook(check)
    try:
        yield refused
    finally:
        hook.remove()


def test_a_batch_is_halved_until_it_fits_and_the_size_is_remembered() -> None:
    passes, sizes = Passes(), []

    def run(part: torch.Tensor) -> torch.Tensor:
        sizes.append(len(part))
        if len(part) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return part * 2

    batch = torch.arange(10)
    assert torch.cat(passes(run, batch)).tolist() == (2 * batch).tolist()
    assert sizes == [10, 5, 2, 2, 2, 2, 2]
    sizes.clear()
    passes(run, batch)
    assert sizes == [2] * 5


def test_not_even_one_patch_is_an_error_with_the_remedy() -> None:
    def run(part: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(DoctogresError, match="not enough for a single patch; choose a smaller backbone .* device=cpu"):
        Passes()(run, torch.zeros(4))


def test_the_answers_are_the_same() -> None:
    torch.manual_seed(0)
    ensemble = Ensemble([create_network("test_convnext", classes=3, size=32) for _ in range(2)]).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3)).astype(np.uint8)
    wanted = outputs_of(ensemble, pixels, mean=MEAN, std=STD, tta=True)
    with memory_for(4) as refused:
        found = outputs_of(ensemble, pixels, mean=MEAN, std=STD, tta=True)
    assert refused == [9]
    assert np.allclose(found.logits, wanted.logits, atol=1e-5)


def test_the_training_is_the_same() -> None:
    part = coloured_squares(18, size=32)
    settings = RECIPE.model_copy(update={"backbone": "test_convnext", "epochs": 3})
    wanted = train_network(*part, classes=3, settings=settings, seed=0)
    with memory_for(3) as refused:
        found = train_network(*part, classes=3, settings=settings, seed=0)
    assert refused[:2] == [8, 4]  # the steps of 8 patches, once
    for column in ("train_loss", "val_loss"):
        assert found.history[column].tolist() == pytest.approx(
            wanted.history[column].tolist(), rel=0.02
        )  # Lion takes signs
    assert np.allclose(found.probabilities, wanted.probabilities, atol=0.02)


def test_a_training_for_which_it_is_too_small_says_what_to_give() -> None:
    with (
        memory_for(1),
        pytest.raises(DoctogresError, match=r"train on 2 patches at once; give a smaller batch_size \(now 8"),
    ):
        train_network(*coloured_squares(18, size=32), classes=3, settings=RECIPE, seed=0)
