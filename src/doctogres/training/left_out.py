"""What a network or a probe says of the slides it was not trained on, with and without flips and rotations."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from doctogres.model.attention import GatedAttention
from doctogres.model.ensemble import Ensemble, outputs_of
from doctogres.model.network import normalisation
from doctogres.model.novelty import FeatureGaussian
from doctogres.progress import reporter
from doctogres.slides.turns import TURNS
from doctogres.training.attention import train_attention
from doctogres.training.gaussian import fit_gaussian
from doctogres.training.samples import Samples


@dataclass(frozen=True)
class LeftOutPredictions:
    """Predictions for the patches of one fold by a source that was not trained on it.

    Attributes:
        slide_ids: (patches,) slide of each patch.
        areas: (patches,) in pixels.
        plain: (patches, classes) logits without test-time augmentation.
        turned: the mean over the eight flips and rotations.
        start: the logits of the probe that a fine-tuned network started from; empty without one.
        attended: (slides, classes) probabilities by the attention head without augmentation, in the order of `slides`;
            empty without a head.
        attended_turned: the mean over the flips and rotations.
        head: the attention head.
        log_distances: (patches,) from the training patches; empty if they were not measured.
        gaussian: of the training patches, by which they were.
        seconds: time taken without and with test-time augmentation.
    """

    slide_ids: npt.NDArray[np.str_]
    areas: npt.NDArray[np.float64]
    plain: npt.NDArray[np.float64]
    turned: npt.NDArray[np.float64]
    start: npt.NDArray[np.float64]
    attended: npt.NDArray[np.float64]
    attended_turned: npt.NDArray[np.float64]
    head: GatedAttention | None
    log_distances: npt.NDArray[np.float64]
    gaussian: FeatureGaussian | None
    seconds: tuple[float, float]

    @property
    def slides(self) -> list[str]:
        """The slides, in order of their first patch."""
        return slides_in_order(self.slide_ids)

    def state(self) -> dict[str, Any]:
        """Tensors, numbers and strings for `from_state`."""
        arrays = {name: torch.from_numpy(getattr(self, name)) for name in ARRAYS}
        head = {"features": self.head.classifier.in_features, "weights": self.head.state_dict()} if self.head else None
        gaussian = self.gaussian.state_dict() if self.gaussian else None
        others = {
            "slide_ids": self.slide_ids.tolist(),
            "seconds": list(self.seconds),
            "head": head,
            "gaussian": gaussian,
        }
        return arrays | others

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Rebuilds the predictions from `state`."""
        arrays = {name: state[name].numpy() for name in ARRAYS}
        head = None
        if state["head"]:
            head = GatedAttention(state["head"]["features"], arrays["plain"].shape[1]).eval()
            head.load_state_dict(state["head"]["weights"])
        gaussian = None
        if state["gaussian"]:
            gaussian = FeatureGaussian(len(state["gaussian"]["mean"]))
            gaussian.load_state_dict(state["gaussian"])
        plain_s, turned_s = state["seconds"]
        slide_ids = np.array(state["slide_ids"])
        return cls(slide_ids=slide_ids, head=head, gaussian=gaussian, seconds=(plain_s, turned_s), **arrays)


ARRAYS: Final = ("areas", "plain", "turned", "start", "attended", "attended_turned", "log_distances")
NOTHING: Final = np.empty((0, 0))


def slides_in_order(slide_ids: npt.NDArray[np.str_]) -> list[str]:
    """The slides, in order of their first patch."""
    return list(dict.fromkeys(slide_ids.tolist()))


def rows_by_slide(slide_ids: npt.NDArray[np.str_], slides: list[str]) -> list[npt.NDArray[np.int64]]:
    """The row numbers of each of these slides."""
    return [np.flatnonzero(slide_ids == slide) for slide in slides]


def fit_attention(
    features: torch.Tensor, samples: Samples, rows: npt.NDArray[np.int64], *, classes: int, seed: int
) -> GatedAttention:
    """An attention head for the slides of these rows.

    Args:
        features: (rows, features) on the CPU.
        samples: patches.
        rows: row numbers it is trained on.
        classes: number of classes.
        seed: of the training.
    """
    ids, slides = np.unique(samples.slide_ids[rows], return_inverse=True)
    targets = np.empty(len(ids), np.int64)
    targets[slides] = samples.targets[rows]
    return train_attention(features, slides, targets, classes=classes, seed=seed)


def predict_left_out(
    network: nn.Module,
    samples: Samples,
    train: npt.NDArray[np.int64],
    left_out: npt.NDArray[np.int64],
    *,
    classes: int,
    seed: int,
    start: npt.NDArray[np.float64] = NOTHING,
) -> LeftOutPredictions:
    """Predicts the left-out patches, with and without test-time augmentation, by the network and an attention head.

    The attention head is trained on the features of the network's training patches, from which distances are measured, too.

    Args:
        network: on its device.
        samples: patches.
        train: row numbers the network was trained on.
        left_out: row numbers it was not trained on.
        classes: number of classes.
        seed: seed of the attention head.
        start: see `LeftOutPredictions`.
    """
    mean, std = normalisation(network)
    options: dict[str, Any] = {"mean": mean, "std": std, "features": True}
    with _reported("features of the training patches", len(train)) as count:
        training = outputs_of(Ensemble([network]), samples.pixels, rows=train, before_pass=count, **options)
    head = fit_attention(training.features[0][0], samples, train, classes=classes, seed=seed)
    gaussian = fit_gaussian(training.features[0][0].numpy())
    ensemble = Ensemble([network], [head], [gaussian])

    with _reported("predictions", (1 + len(TURNS)) * len(left_out)) as count:
        options["before_pass"] = count
        started = time.perf_counter()
        plain = outputs_of(ensemble, samples.pixels, rows=left_out, **options)
        plain_done = time.perf_counter()
        turned = outputs_of(ensemble, samples.pixels, rows=left_out, tta=True, **options)
        turned_done = time.perf_counter()

    slide_ids = samples.slide_ids[left_out]
    rows = rows_by_slide(slide_ids, slides_in_order(slide_ids))
    return LeftOutPredictions(
        slide_ids=slide_ids,
        areas=samples.areas[left_out],
        plain=plain.logits[0],
        turned=turned.logits[0],
        start=start,
        attended=plain.attended(ensemble, rows),
        attended_turned=turned.attended(ensemble, rows),
        head=head,
        log_distances=plain.log_distances(ensemble)[0],
        gaussian=gaussian,
        seconds=(plain_done - started, turned_done - plain_done),
    )


@contextmanager
def _reported(what: str, patches: int) -> Iterator[Callable[[int], None]]:
    """A function to call before every pass with its number of patches; shows how many of all have been done."""
    done = 0
    with reporter(what, "patches") as report:

        def count(more: int) -> None:
            nonlocal done
            report(done, patches)
            done += more

        yield count
        report(patches, patches)
