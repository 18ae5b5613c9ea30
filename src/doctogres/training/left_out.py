"""What a network says of the slides that it was not trained on, in every way of making a slide's answer."""

import time
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np
import numpy.typing as npt
from torch import nn

from doctogres.model.aggregation import ATTENTION, METHODS
from doctogres.model.attention import GatedAttention, train_attention
from doctogres.model.classifier import slide_probabilities
from doctogres.model.ensemble import Ensemble, outputs_of
from doctogres.model.network import normalisation
from doctogres.settings import AnswerSettings
from doctogres.training.samples import Samples

WAYS: Final = (*METHODS, ATTENTION)
assert set(WAYS) == set(get_args(AnswerSettings.model_fields["aggregation"].annotation))
TURNED: Final = "mean over eight flips and turns"  # of the aggregation that the model is set to


@dataclass(frozen=True)
class LeftOut:
    """Answers for the slides of one fold, made by the network that never saw them."""

    slide_ids: list[str]
    slides: dict[str, npt.NDArray[np.float64]]  # way -> (slides, classes), not calibrated
    patches: npt.NDArray[np.float64]  # (patches, classes), as the model is set
    head: GatedAttention
    seconds: tuple[float, float]  # of the patches as they are, and of their eight turns


def answer_left_out(
    network: nn.Module,
    samples: Samples,
    train: npt.NDArray[np.int64],
    left_out: npt.NDArray[np.int64],
    *,
    classes: int,
    answer: AnswerSettings,
    seed: int,
) -> LeftOut:
    """Answers for the left-out slides by every aggregation, with and without test-time augmentation.

    The attention head is trained on the features of the network's own training patches.

    Args:
        network: on its device.
        samples: patches.
        train: row numbers the network was trained on.
        left_out: row numbers it never saw.
        classes: number of classes.
        answer: how the model is set.
        seed: of the attention head.
    """
    mean, std = normalisation(network)
    own = outputs_of(Ensemble([network]), samples.pixels, rows=train, mean=mean, std=std, features=True)
    ids, slides = np.unique(samples.slide_ids[train], return_inverse=True)
    targets = np.empty(len(ids), np.int64)
    targets[slides] = samples.targets[train]
    head = train_attention(own.features[0][0], slides, targets, classes=classes, seed=seed)
    ensemble = Ensemble([network], [head])

    started = time.perf_counter()
    plain = outputs_of(ensemble, samples.pixels, rows=left_out, mean=mean, std=std, features=True)
    plain_done = time.perf_counter()
    turned = outputs_of(
        ensemble, samples.pixels, rows=left_out, mean=mean, std=std, tta=True, features=answer.aggregation == ATTENTION
    )
    turned_done = time.perf_counter()

    names = list(dict.fromkeys(samples.slide_ids[left_out].tolist()))
    rows = [np.flatnonzero(samples.slide_ids[left_out] == name) for name in names]
    areas = samples.areas[left_out]
    found = {way: slide_probabilities(ensemble, plain, rows, areas, aggregation=way) for way in WAYS}
    found[TURNED] = slide_probabilities(ensemble, turned, rows, areas, aggregation=answer.aggregation)
    return LeftOut(
        slide_ids=names,
        slides=found,
        patches=(turned if answer.tta else plain).of_patches(),
        head=head,
        seconds=(plain_done - started, turned_done - plain_done),
    )
