"""A network's predictions for the slides it was not trained on, with every aggregation and test-time augmentation."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from doctogres.model.aggregation import POOLING
from doctogres.model.attention import GatedAttention
from doctogres.model.classifier import pooled
from doctogres.model.ensemble import Ensemble, outputs_of
from doctogres.model.network import normalisation
from doctogres.settings import ATTENTION
from doctogres.training.attention import train_attention
from doctogres.training.samples import Samples

TURNED: Final = "mean over eight flips and rotations"  # with the model's own aggregation


@dataclass(frozen=True)
class LeftOutPredictions:
    """Predictions for the patches of one fold by a network that was not trained on it.

    Attributes:
        slide_ids: (patches,) slide of each patch.
        areas: (patches,) in pixels.
        plain: (patches, classes) probabilities without test-time augmentation.
        turned: the mean over the eight flips and rotations.
        attended: (slides, classes) probabilities by the attention head without augmentation, in the order of `slides`.
        attended_turned: the mean over the flips and rotations.
        head: the attention head.
        seconds: time taken without and with test-time augmentation.
    """

    slide_ids: npt.NDArray[np.str_]
    areas: npt.NDArray[np.float64]
    plain: npt.NDArray[np.float64]
    turned: npt.NDArray[np.float64]
    attended: npt.NDArray[np.float64]
    attended_turned: npt.NDArray[np.float64]
    head: GatedAttention
    seconds: tuple[float, float]

    @property
    def slides(self) -> list[str]:
        """The slides, in order of their first patch."""
        return list(dict.fromkeys(self.slide_ids.tolist()))

    def patches(self, *, tta: bool) -> npt.NDArray[np.float64]:
        """Patch probabilities, (patches, classes), with this setting."""
        return self.turned if tta else self.plain

    def ways(self, aggregation: str) -> dict[str, npt.NDArray[np.float64]]:
        """(slides, classes) by every aggregation, and by the given one over flips and rotations; not calibrated."""
        rows = [np.flatnonzero(self.slide_ids == slide) for slide in self.slides]
        probabilities: dict[str, npt.NDArray[np.float64]] = {
            way: pooled(self.plain, rows, self.areas, aggregation=way) for way in POOLING
        }
        probabilities[ATTENTION] = self.attended
        probabilities[TURNED] = (
            self.attended_turned
            if aggregation == ATTENTION
            else pooled(self.turned, rows, self.areas, aggregation=aggregation)
        )
        return probabilities

    def state(self) -> dict[str, Any]:
        """Tensors, numbers and strings for `from_state`."""
        arrays = {name: torch.from_numpy(getattr(self, name)) for name in ARRAYS}
        head = {"features": self.head.classifier.in_features, "weights": self.head.state_dict()}
        return {**arrays, "slide_ids": self.slide_ids.tolist(), "seconds": list(self.seconds), "head": head}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Rebuilds the predictions from `state`."""
        arrays = {name: state[name].numpy() for name in ARRAYS}
        head = GatedAttention(state["head"]["features"], arrays["plain"].shape[1])
        head.load_state_dict(state["head"]["weights"])
        plain_s, turned_s = state["seconds"]
        return cls(slide_ids=np.array(state["slide_ids"]), head=head.eval(), seconds=(plain_s, turned_s), **arrays)


ARRAYS: Final = ("areas", "plain", "turned", "attended", "attended_turned")


def predict_left_out(
    network: nn.Module,
    samples: Samples,
    train: npt.NDArray[np.int64],
    left_out: npt.NDArray[np.int64],
    *,
    classes: int,
    seed: int,
) -> LeftOutPredictions:
    """Predicts the left-out patches, with and without test-time augmentation, by the network and an attention head.

    The attention head is trained on the features of the network's training patches.

    Args:
        network: on its device.
        samples: patches.
        train: row numbers the network was trained on.
        left_out: row numbers it was not trained on.
        classes: number of classes.
        seed: seed of the attention head.
    """
    mean, std = normalisation(network)
    training = outputs_of(Ensemble([network]), samples.pixels, rows=train, mean=mean, std=std, features=True)
    ids, slides = np.unique(samples.slide_ids[train], return_inverse=True)
    targets = np.empty(len(ids), np.int64)
    targets[slides] = samples.targets[train]
    head = train_attention(training.features[0][0], slides, targets, classes=classes, seed=seed)
    ensemble = Ensemble([network], [head])

    started = time.perf_counter()
    plain = outputs_of(ensemble, samples.pixels, rows=left_out, mean=mean, std=std, features=True)
    plain_done = time.perf_counter()
    turned = outputs_of(ensemble, samples.pixels, rows=left_out, mean=mean, std=std, tta=True, features=True)
    turned_done = time.perf_counter()

    slide_ids = samples.slide_ids[left_out]
    rows = [np.flatnonzero(slide_ids == slide) for slide in dict.fromkeys(slide_ids.tolist())]
    return LeftOutPredictions(
        slide_ids=slide_ids,
        areas=samples.areas[left_out],
        plain=plain.of_patches(),
        turned=turned.of_patches(),
        attended=plain.attended(ensemble, rows),
        attended_turned=turned.attended(ensemble, rows),
        head=head,
        seconds=(plain_done - started, turned_done - plain_done),
    )
