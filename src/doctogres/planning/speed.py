"""How fast this machine is with a preset's networks: measured on ten patches, by the code that the stages use."""

import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from doctogres.model.network import layer_groups
from doctogres.planning.choice import Cohort
from doctogres.planning.estimate import Speed, recipes_of
from doctogres.planning.sample import PATCHES, Sample
from doctogres.settings import Preset, TrainSettings
from doctogres.slides.turns import TURNS
from doctogres.training.attention import SLIDES_PER_STEP, train_attention
from doctogres.training.gaussian import fit_gaussian
from doctogres.training.probe import HeadRows, fit_head
from doctogres.training.probe_features import TIMED, ProbeFeatures
from doctogres.training.samples import Samples
from doctogres.training.sources import Source
from doctogres.training.trainer import Trainer, make_accelerator

COPIES: Final = 5  # in which they pass the frozen backbone; the first one compiles it
FITTED: Final = 1000  # patches that a head is fitted to; beyond them its time grows with their number
REFERENCE: Final = 0.0095  # seconds that `_plain_work` takes on the machine where FIXED of `estimate` was measured
Rows = npt.NDArray[np.int64]


def measure_speed(preset: Preset, sample: Sample, cohort: Cohort) -> list[Speed]:
    """The speed of every backbone of the preset; weights do not matter for it, so none are fetched.

    Args:
        preset: whose recipes are measured.
        sample: slides of the cohort, and a few patches.
        cohort: how many slides there are to train on.
    """
    recipe = preset.train.model_copy(update={"weights": "none"})
    return [
        _of_backbone(preset, recipe.model_copy(update={"backbone": name}), sample, cohort)
        for name, _ in recipe.encoders
    ]


def _of_backbone(preset: Preset, recipe: TrainSettings, sample: Sample, cohort: Cohort) -> Speed:
    recipes, classes = recipes_of(preset), len(cohort.classes)
    # An accelerator takes a whole batch in the time of ten patches.
    on_cpu = make_accelerator(recipe).device.type == "cpu"
    samples = _samples(sample.pixels, PATCHES if on_cpu else recipe.batch_size, classes)
    rows = np.arange(len(samples.targets))
    with tempfile.TemporaryDirectory() as folder:
        source = Source(recipe.backbone, "none", recipe.normalisation, "", recipe.stages)
        given = {"classes": classes, "seed": 0}
        cache = Path(folder) / "features"  # as in a workspace, which has a record of what is in use
        features = ProbeFeatures(source, samples, [rows], settings=recipe, folder=cache, progress=_silent, **given)
        first, *others = (_timed(partial(features.turn, number)) for number in range(COPIES))
        width = features.turn(0).shape[1]
        _, turned = features.seconds
    trained = {
        view: round(cohort.slides * sample.usable * (1 - preset.clean.holdout) * mean)
        for view, mean in sample.patches.items()
    }
    return Speed(
        ready=max(0.0, first - median(others)),
        frozen=median(others) / len(rows),
        forward=turned / len(TURNS) / min(len(rows), TIMED),
        step=_step(recipe, samples, rows, classes) if "finetune" in recipes else 0.0,
        fit={view: _fit(recipe, count, width, classes) for view, count in trained.items()}
        if "probe" in recipes
        else {},
        gaussian=_timed(partial(fit_gaussian, np.random.default_rng(0).random((PATCHES, width)))),
        attention=_attention(width, round(max(sample.patches.values())), classes),
        blocks=len(layer_groups(features.network)) - 1,
        features=width,
        nbytes=sum(value.nbytes for value in features.network.state_dict().values()),
    )


def _samples(pixels: npt.NDArray[np.uint8], count: int, classes: int) -> Samples:
    """So many patches, the given ones over and over."""
    numbers = np.arange(count)
    return Samples(pixels[numbers % len(pixels)], numbers % classes, numbers.astype(str), np.ones(count))


def _step(recipe: TrainSettings, samples: Samples, rows: Rows, classes: int) -> float:
    """Seconds for a patch in a step that trains everything."""
    settings = recipe.model_copy(update={"unfreeze_every": 0, "batch_size": len(rows)})
    trainer = Trainer(samples, rows, rows, classes, settings, 0, None, _silent)
    noise = torch.Generator().manual_seed(0)
    _, *taken = _repeated(lambda: trainer.train_step(rows, 0, noise).cpu())
    return median(taken) / len(rows)


def _fit(recipe: TrainSettings, count: int, width: int, classes: int) -> float:
    """Seconds to fit a head to so many patches."""
    fitted, chance = min(max(count, classes), FITTED), np.random.default_rng(0)
    targets = np.arange(fitted) % classes
    features = chance.normal(size=(fitted, width)) + chance.normal(size=(classes, width))[targets] / 4
    rows = HeadRows.equal(features, targets, (np.arange(fitted) // 4).astype(str))
    return _timed(lambda: fit_head(rows, classes, recipe)) * count / fitted


def _attention(width: int, patches: int, classes: int) -> float:
    """Seconds for a slide of those that an attention head is trained on."""
    slides = np.arange(SLIDES_PER_STEP)
    features = torch.rand(len(slides) * max(1, patches), width)
    of_slides = np.repeat(slides, max(1, patches))
    return _timed(lambda: train_attention(features, of_slides, slides % classes, classes=classes, seed=0)) / len(slides)


def pace() -> float:
    """How many times as long as on the reference machine everything takes that is no network and no picture."""
    return min(_timed(_plain_work) for _ in range(5)) / REFERENCE


def _plain_work() -> None:
    sorted(map(hash, map(str, range(30_000))))


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _repeated(work: Callable[[], Any]) -> list[float]:
    """Seconds of the work, done twice or, if that takes less than a second, more often: other programs come and go."""
    taken: list[float] = []
    while len(taken) < 2 or (sum(taken) < 1 and len(taken) < 20):
        taken.append(_timed(work))
    return taken


def _silent(what: str, unit: str) -> Any:
    return nullcontext(lambda done, total: None)
