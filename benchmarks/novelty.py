"""`python -m benchmarks.novelty COHORT OTHER [--preset NAME]`: which slides a model of one cohort marks as unlike its own.

The model is trained as by `train`. Its own slides are the hold-out and the labelled test slides; foreign ones are the other
cohort's and drawn photographs; changed ones are copies of its own. Nothing is chosen by any of them.
"""

import argparse
import io
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image

from doctogres.cleaning.cohort import clean_cohort
from doctogres.cleaning.reading import read_slide
from doctogres.errors import DoctogresError
from doctogres.evaluation.conformal import mean_metrics, novelty_limit
from doctogres.files import WORKSPACE_VARIABLE, workspace
from doctogres.model.answer import CutSlide, SlideAnswer
from doctogres.model.classifier import SlideClassifier
from doctogres.model.conformal import NoveltyLimit
from doctogres.model.ensemble import Ensemble
from doctogres.patches.cutting import cut_cohort
from doctogres.presets import load_preset
from doctogres.settings import Preset
from doctogres.slides.selection import TEST, slides_of
from doctogres.slides.splits import HOLDOUT
from doctogres.slides.table import CohortTable
from doctogres.training.assessment import Kept, assess_members, classifier_of, kept_networks, left_out_distances
from doctogres.training.folds import split_folds
from doctogres.training.members import Job, train_members
from doctogres.training.part import training_parts
from doctogres.training.probes import ProbeSources
from doctogres.training.reference import reference_of
from doctogres.training.sources import sources_of

Slide = tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]  # picture and mask
LEVELS: Final = (0.95, 0.99)
PHOTOS: Final = 20  # of each kind
ROUNDS: Final = 40  # of the time per answer


@dataclass(frozen=True)
class Measured:
    """A model as `train` makes it, the limits of novelty at several levels, and what its training slides look like."""

    classifier: SlideClassifier
    limits: tuple[NoveltyLimit, ...]
    reference: pd.DataFrame


def cohort_of(root: Path, preset: Preset, seed: int) -> CohortTable:
    """The cleaned cohort."""
    return CohortTable(clean_cohort(root, preset.clean, seed=seed).table, root, "")


def trained(cohort: CohortTable, preset: Preset, seed: int) -> Measured:
    """The model of this cohort's training slides."""
    manifest, _ = cut_cohort(cohort, Path(cohort.root), preset.patch, cache=workspace())
    parts = training_parts(manifest, preset.patch.views, cache=workspace())
    sources = sources_of(preset, manifest.patch)
    kept: Kept
    if preset.train.recipe == "probe":
        probes = ProbeSources.load(preset, parts, sources, seed)
        members, kept = probes.members(split_folds(preset.train, parts, sources, seed)), probes.kept()
    else:
        job = Job(manifest, "", preset, seed)
        members = train_members(job, parts, on_epoch=lambda fold, epoch: None, rerun=False)
        kept = kept_networks(members, preset)
    assessment = assess_members(parts, members, preset, seed)
    classifier = classifier_of(manifest, parts, kept, assessment, preset)
    distances, groups = left_out_distances(next(iter(parts.values())), members)
    limits = tuple(novelty_limit(distances, groups, level=level) for level in LEVELS)
    return Measured(classifier, limits, reference_of(manifest, parts, members, assessment, preset.answer))


def read_all(root: Path, table: pd.DataFrame) -> list[Slide]:
    """Pictures and masks."""
    slides = (read_slide(root, row) for row in table.itertuples(index=False))
    return [(slide.picture.working, slide.mask) for slide in slides]


def ellipses(shape: tuple[int, int], random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """A mask of a few ellipses."""
    (height, width), mask = shape, np.zeros(shape, np.uint8)
    for _ in range(6):
        centre = int(random.integers(width)), int(random.integers(height))
        axes = int(random.integers(width // 14, width // 5)), int(random.integers(height // 14, height // 5))
        cv2.ellipse(mask, centre, axes, float(random.integers(180)), 0, 360, 1, -1)
    return mask > 0


def gradient(shape: tuple[int, int], random: np.random.Generator) -> npt.NDArray[Any]:
    """From one colour to another."""
    (height, width), (first, last) = shape, random.integers(0, 256, (2, 3))
    share = random.random()
    place = share * np.linspace(0, 1, width)[None] + (1 - share) * np.linspace(0, 1, height)[:, None]
    return np.asarray(first + place[..., None] * (last - first))


def noise(shape: tuple[int, int], random: np.random.Generator) -> npt.NDArray[Any]:
    """Of any colour, fine or coarse."""
    picture = random.normal(random.integers(40, 216, 3), random.uniform(10, 80), (*shape, 3))
    if random.random() < 0.5:
        return picture
    coarse = cv2.GaussianBlur(picture, (0, 0), random.uniform(1, 8))
    return np.asarray(8 * (coarse - coarse.mean()) + 128)


def text(shape: tuple[int, int], random: np.random.Generator) -> npt.NDArray[Any]:
    """A page of letters."""
    page = np.full((*shape, 3), int(random.integers(200, 256)), np.uint8)
    for y in range(20, shape[0], int(random.integers(18, 40))):
        line, ink = "".join(map(chr, random.integers(33, 126, 60))), tuple(map(int, random.integers(0, 90, 3)))
        cv2.putText(page, line, (5, y), cv2.FONT_HERSHEY_SIMPLEX, random.uniform(0.4, 0.9), ink, 1)
    return page


def landscape(shape: tuple[int, int], random: np.random.Generator) -> npt.NDArray[Any]:
    """Sky and three ranges of hills."""
    (height, width), x = shape, np.arange(shape[1])
    picture = np.zeros((*shape, 3)) + random.integers((90, 150, 200), (150, 200, 256))
    for layer in range(3):
        waves = 0.07 * np.sin(x / width * random.uniform(3, 14)) + 0.03 * np.sin(x / width * random.uniform(20, 60))
        below = np.arange(height)[:, None] > height * (0.4 + 0.2 * layer + waves)
        picture = np.where(below[..., None], random.integers((20, 60, 10), (120, 160, 90)), picture)
    return np.asarray(picture + cv2.GaussianBlur(random.normal(0, 40, picture.shape), (0, 0), 2))


def photographs(shape: tuple[int, int]) -> Iterator[tuple[str, list[Slide]]]:
    """Drawn pictures of no tissue, kind by kind."""
    for kind, draw in {"gradients": gradient, "noise": noise, "text": text, "landscapes": landscape}.items():
        random = np.random.default_rng(3)
        pictures = [np.clip(draw(shape, random), 0, 255).astype(np.uint8) for _ in range(PHOTOS)]
        yield f"drawn: {kind}", [(picture, ellipses(shape, random)) for picture in pictures]


def stained(rgb: npt.NDArray[np.uint8], turn: int) -> npt.NDArray[np.uint8]:
    """The hue turned by this angle in degrees."""
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV).astype(np.int64)
    hsv[..., 0] = (hsv[..., 0] + turn // 2) % 180
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB))


def blurred(rgb: npt.NDArray[np.uint8], sigma: int) -> npt.NDArray[np.uint8]:
    """Out of focus, by a Gaussian of this many pixels."""
    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma))


def crushed(rgb: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """As a JPEG of this quality."""
    encoded = io.BytesIO()
    Image.fromarray(rgb).save(encoded, "JPEG", quality=quality)
    return np.asarray(Image.open(encoded))


def magnified(slide: Slide, factor: float) -> Slide:
    """At another magnification."""
    rgb = cv2.resize(slide[0], None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    mask = cv2.resize(slide[1].astype(np.uint8), rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return np.asarray(rgb, np.uint8), mask > 0


def changed(own: Sequence[Slide]) -> Iterator[tuple[str, list[Slide]]]:
    """Copies of the model's own slides that a scanner or a laboratory could have spoilt."""
    for degrees in (20, 60):
        yield f"hue turned by {degrees}°", [(stained(rgb, degrees), mask) for rgb, mask in own]
    for sigma in (1, 3):
        yield f"blurred, {sigma} px", [(blurred(rgb, sigma), mask) for rgb, mask in own]
    for quality in (30, 5):
        yield f"JPEG of quality {quality}", [(crushed(rgb, quality), mask) for rgb, mask in own]
    for factor in (2, 0.5):
        yield f"magnified {factor} times", [magnified(slide, factor) for slide in own]


def answers(classifier: SlideClassifier, slides: Sequence[Slide]) -> list[SlideAnswer | DoctogresError]:
    """The answer for each slide, or why it cannot be used."""

    def cut(slide: Slide) -> CutSlide | DoctogresError:
        try:
            return classifier.cut(*slide)
        except DoctogresError as error:
            return error

    return list(classifier.answers(map(cut, slides)))


def row_of(measured: Measured, name: str, slides: Sequence[Slide], table: pd.DataFrame) -> str:
    """A row: slides, sure without novelty, and for every level the share marked and the right and sure answers lost.

    Args:
        measured: the model.
        name: of the slides.
        slides: pictures and masks.
        table: the same slides with `group` and, if the model knows their classes, `label`.
    """
    given = answers(measured.classifier, slides)
    usable = np.array([isinstance(one, SlideAnswer) for one in given])
    found, table = [one for one in given if isinstance(one, SlideAnswer)], table[usable]
    novelty = np.array([one.novelty for one in found])
    sure = np.array([all(reason.startswith("novel:") for reason in one.reasons) for one in found])
    right = (
        sure & (np.array([one.label for one in found]) == table["label"].to_numpy())
        if "label" in table
        else ~sure & sure
    )
    cells = [name, str(len(found)), f"{sure.mean():.0%}"]
    for limit in measured.limits:
        marked = novelty * measured.limits[0].limit > limit.limit
        share = mean_metrics({"": marked}, groups=table["group"].astype(str).tolist())[""]
        cells += [f"{share.value:.1%} ({share.low:.1%}-{share.high:.1%})"]
        cells += [f"{(right & marked).sum()} of {right.sum()}" if right.any() else ""]
    return f"| {' | '.join(cells)} |"


def labels_of(classifier: SlideClassifier, slides: Sequence[Slide], table: pd.DataFrame) -> str:
    """How often the labels of an answer hold the truth, and how many they are."""
    found = [one.labels if isinstance(one, SlideAnswer) else () for one in answers(classifier, slides)]
    held = np.array([truth in labels for truth, labels in zip(table["label"], found, strict=True)])
    groups = table["group"].astype(str).tolist()
    means = mean_metrics({"held": held, "size": np.array(list(map(len, found)))}, groups=groups)
    return f"its own, unseen: the labels hold the truth for {means['held']} of the slides; mean number {means['size']}"


def without_novelty(classifier: SlideClassifier) -> SlideClassifier:
    """The same networks, which then return no features."""
    networks = tuple(Ensemble([*one.members]).eval() for one in classifier.networks)
    return replace(classifier, card=classifier.card.model_copy(update={"novelty": None}), networks=networks)


def seconds_of(classifier: SlideClassifier, slides: Sequence[CutSlide]) -> float:
    """CPU time of the answers for these slides, one by one."""
    started = time.process_time()
    for slide in slides:
        list(classifier.answers([slide]))
    return time.process_time() - started


def time_ratio(classifier: SlideClassifier, slides: Sequence[Slide]) -> str:
    """CPU time per answer with novelty, and as a share of the time without: interleaved, both with OpenVINO."""
    both = [classifier, without_novelty(classifier)]
    with tempfile.TemporaryDirectory() as folder:
        for number, model in enumerate(both):
            model.save(Path(folder) / str(number))
        with_it, without = (SlideClassifier.load(Path(folder) / str(number), device="cpu") for number in range(2))
    cut = [classifier.cut(*slide) for slide in slides]
    spent = np.array([[seconds_of(model, cut) for model in (with_it, without)] for _ in range(ROUNDS)])
    ratios = spent[:, 0] / spent[:, 1]
    per_slide = np.median(spent, axis=0) / len(cut) * 1000
    middle, (low, high) = np.median(ratios), np.quantile(ratios, [0.25, 0.75])
    return (
        f"{per_slide[0]:.1f} ms of CPU time per answer with novelty, {per_slide[1]:.1f} ms without; ratio {middle:.3f} "
        f"(middle half {low:.3f}-{high:.3f})"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path, help="cohort in the challenge's layout, with test_labels.csv")
    parser.add_argument("other", type=Path, help="another cohort, whose slides are foreign")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings of the preset")
    parser.add_argument(
        "--most", type=int, default=80, help="slides of the other cohort, and own slides that are changed"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--cache", type=Path, help="folder that keeps features and networks")
    options = parser.parse_args()
    preset = load_preset(options.preset, dict(text.split("=", 1) for text in options.set))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as temporary:
        os.environ[WORKSPACE_VARIABLE] = str(options.cache or temporary)
        root, cohort = options.cohort.resolve(), cohort_of(options.cohort.resolve(), preset, options.seed)
        measured = trained(cohort, preset, options.seed)
        print(*measured.limits, sep="\n")
        print("| slides | number | sure otherwise |" + "".join(f" marked at {x:.0%} | right lost |" for x in LEVELS))
        print("|---" * (3 + 2 * len(LEVELS)) + "|")
        table = pd.concat([slides_of(cohort.usable, root, split) for split in (HOLDOUT, TEST)])
        own = read_all(root, table)
        print(row_of(measured, "its own, unseen", own, table), flush=True)
        elsewhere = options.other.resolve()
        usable = cohort_of(elsewhere, preset, options.seed).usable
        foreign = usable.sample(min(options.most, len(usable)), random_state=options.seed).drop(columns="label")
        print(row_of(measured, "the other cohort's", read_all(elsewhere, foreign), foreign), flush=True)
        for name, pictures in photographs(own[0][0].shape[:2]):
            print(row_of(measured, name, pictures, pd.DataFrame({"group": range(len(pictures))})), flush=True)
        for name, copies in changed(own[: options.most]):
            print(row_of(measured, name, copies, table.head(options.most)), flush=True)
        print(labels_of(measured.classifier, own, table))
        print(time_ratio(measured.classifier, own[:20]))


if __name__ == "__main__":
    main()
