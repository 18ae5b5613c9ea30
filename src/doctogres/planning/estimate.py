"""How long each stage of `main` will take, from what a few slides and patches take: arithmetic and words only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from doctogres.disk import size_text
from doctogres.planning.choice import Cohort
from doctogres.planning.sample import Sample
from doctogres.presets import replaced
from doctogres.progress import durations
from doctogres.settings import Preset, TrainSettings, listed
from doctogres.slides.turns import TURNS
from doctogres.training.schedule import open_blocks
from doctogres.tuning.search import STARTUP_TRIALS, trial_recipe

# Seconds on the reference machine (see `speed.pace`), measured there on cohorts of 40 and 100 slides: benchmarks/README.md.
FIXED: Final = {"clean": 1.0, "patch": 0.7, "tune": 2.0, "train": 5.5, "evaluate": 3.0, "register": 0.7, "predict": 1.5}
EPOCH: Final = 0.06  # records, checkpoint, metrics of an epoch
OVERLAY: Final = 0.15  # for a slide whose picture is drawn
HEAD: Final = 0.0005  # for a patch in an epoch that trains only the head
PRUNED: Final = 0.75  # share of a trial that is not pruned, on average, once the pruner has seen a few


Promised = Mapping[str, Mapping[str, float]]  # recipe -> stage -> seconds


@dataclass(frozen=True)
class Speed:
    """What a backbone costs on this machine, as busy as it was when that was measured.

    Attributes:
        ready: seconds until a frozen backbone is compiled.
        frozen: seconds for a patch in a frozen or a served network.
        forward: seconds for a patch in a network that is being trained.
        step: seconds for a patch, forward and backward, with everything open; 0 if nothing is fine-tuned.
        fit: view -> seconds to fit a head to all patches outside the hold-out; empty if there is no probe.
        gaussian: seconds for the Gaussian of the features.
        attention: seconds for a slide of those that an attention head is trained on.
        blocks: of the backbone.
        features: numbers before the classifier.
        nbytes: of a network's weights.
    """

    ready: float
    frozen: float
    forward: float
    step: float
    fit: Mapping[str, float]
    gaussian: float
    attention: float
    blocks: int
    features: int
    nbytes: int


@dataclass(frozen=True)
class Estimate:
    """What is promised of a pipeline.

    Attributes:
        seconds: recipe -> stage -> seconds; several recipes where the study chooses among them.
        patches: view -> number of patches that are expected.
        nbytes: that pixels, features and networks take in the workspace.
    """

    seconds: Promised
    patches: Mapping[str, int]
    nbytes: int


@dataclass(frozen=True)
class _Amounts:
    """What the stages work on: the preset, the slides of every part, and the speed of every backbone."""

    preset: Preset
    cohort: Cohort
    sample: Sample
    speeds: Sequence[Speed]
    pace: float

    @property
    def usable(self) -> float:
        """Slides that can be used."""
        return self.cohort.slides * self.sample.usable

    @property
    def trained(self) -> float:
        """Those outside the hold-out."""
        return self.usable * (1 - self.preset.clean.holdout)

    @property
    def views(self) -> list[str]:
        """The views that the model sees."""
        patch = self.preset.patch
        return [patch.view(name) for name in listed(self.preset.train.views)] or list(patch.views)

    @property
    def sources(self) -> list[tuple[Speed, float]]:
        """Every backbone on every view, with the number of patches outside the hold-out."""
        return [(speed, self.sample.patches[view] * self.trained) for speed in self.speeds for view in self.views]

    def left_out(self, settings: TrainSettings) -> int:
        """Networks of a source, or fits: one for every fold that is left out."""
        return (settings.oof_folds or self.preset.clean.folds) * settings.repeats

    def fits(self, folds: int) -> float:
        """Seconds to fit a head for each of these folds, on all sources."""
        return folds * sum(speed.fit[view] for speed in self.speeds for view in self.views)

    def features(self, copies: int) -> float:
        """Seconds for the features of the frozen backbones, in so many copies."""
        return sum(speed.ready + copies * patches * speed.frozen for speed, patches in self.sources)

    def networks(self, settings: TrainSettings, folds: int) -> float:
        """Seconds to train a network of every source for each of these folds; without early stopping."""
        return folds * sum(self._network(settings, speed, patches) for speed, patches in self.sources)

    def _network(self, settings: TrainSettings, speed: Speed, patches: float) -> float:
        held = patches / self.preset.clean.folds
        rows, seconds = patches - held, 0.0
        for epoch in range(settings.epochs):
            opened = open_blocks(epoch, blocks=speed.blocks, unfreeze_every=settings.unfreeze_every)
            if opened or not keeps_features(settings):
                step = speed.forward + (speed.step - speed.forward) * min(1.0, (opened or 0.5) / max(1, speed.blocks))
                seconds += rows * step + held * speed.forward
            else:
                seconds += HEAD * rows
        return seconds + EPOCH * self.pace * settings.epochs


def recipes_of(preset: Preset) -> tuple[str, ...]:
    """The recipes that a study may try; the preset's own comes first."""
    searched = preset.tune.space.get("recipe")
    return tuple(dict.fromkeys([preset.train.recipe, *map(str, searched.choices or () if searched else ())]))


def keeps_features(settings: TrainSettings) -> bool:
    """Whether an epoch in which only the head trains works on cached features."""
    return bool(settings.feature_views) and not (settings.mixup or settings.cutmix)


def estimate(preset: Preset, cohort: Cohort, sample: Sample, speeds: Sequence[Speed], pace: float) -> Estimate:
    """What a whole pipeline takes.

    Args:
        preset: its settings.
        cohort: its slides.
        sample: a few of them.
        speeds: of the preset's backbones.
        pace: how many times slower than the reference machine this one is, see `speed.pace`.

    Returns:
        The stages in order; `predict` only if there are test slides.
    """
    of = _Amounts(preset, cohort, sample, speeds, pace)
    patches = {view: round(mean * of.usable) for view, mean in sample.patches.items()}
    tune = _tune(of)
    recipes = {
        recipe: replace(of, preset=replaced(preset, "train", {"recipe": recipe})) for recipe in recipes_of(preset)
    }
    return Estimate({recipe: _stages(of, tune) for recipe, of in recipes.items()}, patches, _nbytes(of, patches))


def told(expected: Estimate, sample: Sample, free: int) -> list[str]:
    """What is expected, in lines: the time, the patches, and whether the disk holds them.

    Args:
        expected: of the pipeline.
        sample: that it was measured on.
        free: bytes on the workspace's disk.
    """
    recipes = list(expected.seconds.values())
    stages = ", ".join(f"{stage} {durations([of[stage] for of in recipes])}" for stage in recipes[0])
    total = durations([sum(of.values()) for of in recipes])
    by_recipe = f", by the recipe that the study chooses ({' or '.join(expected.seconds)})" if len(recipes) > 1 else ""
    patches = " and ".join(f"{count} patches of {view}" for view, count in expected.patches.items())
    width, height = sample.size
    lines = [
        f"about {total}{by_recipe}, on this machine as busy as it is now: {stages}",
        f"measured on {sample.slides} slides (median {width} x {height} px) and {len(sample.pixels)} of their patches; about "
        f"{patches}, which take {size_text(expected.nbytes)} in the workspace",
    ]
    if expected.nbytes > free:
        lines.append(
            f"warning: only {size_text(free)} are free there; make room, or name another folder with DOCTOGRES_WORKSPACE"
        )
    return lines


def _stages(of: _Amounts, tune: float) -> dict[str, float]:
    """Stage -> seconds, with the recipe of the preset."""
    cohort, sample = of.cohort, of.sample
    seconds = {
        "clean": cohort.slides * sample.clean,
        "patch": of.usable * sample.cut,
        "tune": tune,
        "train": _train(of),
        "evaluate": _answers(of, of.usable - of.trained),
        "register": 0.0,
    }
    if cohort.test:
        seconds["predict"] = _answers(of, cohort.test) + of.pace * OVERLAY * min(
            cohort.test, of.preset.predict.overlays
        )
    return {stage: of.pace * FIXED[stage] + taken for stage, taken in seconds.items()}


def _copies(preset: Preset) -> int:
    """How many copies of the features are cached: for a probe the flips and rotations, for a head augmented ones."""
    train = preset.train
    starts = keeps_features(train) and train.unfreeze_every > 0
    of_recipe = {"probe": len(TURNS), "finetune": starts * (1 + train.feature_views * train.augmentation)}
    return max(of_recipe[recipe] for recipe in recipes_of(preset))


def _tune(of: _Amounts) -> float:
    """Features once, then every trial; recipes are tried in turn."""
    tune, short = of.preset.tune, trial_recipe(of.preset, {}).train
    folds, recipes = tune.trial_folds or of.preset.clean.folds, recipes_of(of.preset)
    of_recipe: dict[str, Callable[[int], float]] = {"probe": of.fits, "finetune": partial(of.networks, short)}
    cost = {recipe: of_recipe[recipe](folds) for recipe in recipes}
    full, later = min(tune.trials, STARTUP_TRIALS), max(0, tune.trials - STARTUP_TRIALS)
    first = [recipes[number % len(recipes)] for number in range(full)]
    mean = sum(cost.values()) / len(recipes)
    return of.features(_copies(of.preset)) + sum(cost[recipe] for recipe in first) + PRUNED * later * mean


def _train(of: _Amounts) -> float:
    """Features are those of `tune`."""
    train = of.preset.train
    folds = of.left_out(train)
    slides = of.trained * (1 - 1 / of.preset.clean.folds)
    others = folds * sum(speed.gaussian + speed.attention * slides for speed, _ in of.sources)
    if train.recipe == "probe":
        return of.fits(folds + 1) + others
    held = 1 / of.preset.clean.folds
    left_out = folds * sum(
        (1 - held + held * (1 + len(TURNS))) * patches * speed.forward for speed, patches in of.sources
    )
    return of.networks(train, folds) + left_out + others


def _answers(of: _Amounts, slides: float) -> float:
    """Seconds for the answers to so many slides."""
    train = of.preset.train
    members = of.left_out(train) if train.recipe == "finetune" and train.ensemble else 1
    turns = len(TURNS) if of.preset.answer.tta else 1
    each = sum(members * turns * of.sample.patches[view] * speed.frozen for speed in of.speeds for view in of.views)
    return sum(members * speed.ready for speed, _ in of.sources) + slides * (of.sample.cut + each)


def _nbytes(of: _Amounts, patches: Mapping[str, int]) -> int:
    """Bytes of pixels, features in single precision, and networks."""
    preset = of.preset
    pixels = sum(patches.values()) * preset.patch.patch_size**2 * 3
    features = sum(4 * speed.features * _copies(preset) * count for speed, count in of.sources)
    networks = of.left_out(preset.train) * sum(speed.nbytes for speed, _ in of.sources)
    return round(pixels + features + networks * (preset.train.recipe == "finetune"))
