"""`python -m benchmarks.finetuning FOLDER --weights FILE`: a fine-tuned backbone against a regression on its frozen features.

Both see the same patches of the same training slides and answer for the same test slides (`test_data` with
`test_labels.csv`), which choose nothing: the network's epoch is chosen by the fold that it leaves out, the
regression's C by cross-validation over the folds, everything else by `--validate`, which never opens the test slides.
"""

import argparse
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from doctogres.cleaning.cohort import clean_cohort
from doctogres.evaluation import comparison
from doctogres.evaluation.metrics import class_indices, macro_f1
from doctogres.evaluation.weighted import class_f1, confusion_cells, confusions
from doctogres.model.aggregation import aggregate_slides
from doctogres.model.ensemble import Ensemble, outputs_of
from doctogres.model.network import create_network, normalisation, normalise
from doctogres.patches.pixels import PatchSet, cut_cohort, load_patches
from doctogres.presets import load_preset
from doctogres.settings import Preset, TrainSettings
from doctogres.slides.cohort import file_hashes, slide_files
from doctogres.slides.selection import slides_of
from doctogres.slides.splits import HOLDOUT, check_no_leakage
from doctogres.slides.table import CohortTable, usable
from doctogres.training.loop import Epoch, Trained, train_network
from doctogres.training.samples import Samples

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

TEST: Final = "test"
STRENGTHS: Final = (1e-4, 1e-3, 1e-2, 1e-1)  # C of the regression
# Chosen on the folds, see README.md; any setting can be given anew with --set.


@dataclass(frozen=True)
class Part:
    """Patches of some slides with their pixels and class indices, row for row."""

    patches: PatchSet
    key: str  # names the pixels
    targets: Rows

    @property
    def slide_ids(self) -> list[str]:
        return [str(slide) for slide in self.patches.table["slide_id"]]

    @property
    def folds(self) -> npt.NDArray[np.str_]:
        return self.patches.table["fold"].to_numpy(str)

    def slides(self, probabilities: Floats, rows: Rows | None = None) -> Floats:
        """Patch probabilities (of some rows) -> the mean over each slide's, in the order of the first patch."""
        rows = np.arange(len(self.targets)) if rows is None else rows
        return aggregate_slides([self.slide_ids[row] for row in rows], probabilities, None, method="mean")[1]

    def slide_targets(self, rows: Rows | None = None) -> Rows:
        rows = np.arange(len(self.targets)) if rows is None else rows
        return self.targets[rows][~self.patches.table["slide_id"].iloc[rows].duplicated().to_numpy()]


def split_cohort(root: Path, preset: Preset, seed: int) -> pd.DataFrame:
    """The cleaned training slides, every one in a fold: the test slides are elsewhere, so the hold-out is one more fold."""
    folds = preset.clean.folds
    settings = preset.clean.model_copy(update={"holdout": 1 / folds, "folds": folds - 1})
    table = clean_cohort(root, settings, seed=seed).table
    table["fold"] = table["fold"].replace(HOLDOUT, f"fold{folds - 1}")
    left = usable(table)
    check_no_leakage(left["fold"].tolist(), left["group"].tolist())
    return table


def test_slides(cohort: pd.DataFrame, root: Path) -> pd.DataFrame:
    """The test slides as a cohort table that can be cut; their labels serve to score and for nothing else."""
    slides = slides_of(usable(cohort), root, TEST)
    hashes = file_hashes(root, slide_files(root, slides))
    return slides.assign(
        fold=TEST, image_md5=slides["image"].map(hashes), mask_md5=slides["mask"].map(hashes), twin_of=None
    )


def cut(slides: pd.DataFrame, root: Path, preset: Preset, classes: Sequence[str], cache: Path) -> Part:
    """The patches of the slides."""
    manifest, _ = cut_cohort(CohortTable(slides, root, ""), root, preset.patch, cache=cache)
    patches = load_patches(manifest, cache=cache)
    return Part(patches, manifest.pixels, class_indices(patches.table["label"].tolist(), classes))


@torch.inference_mode()
def frozen_features(part: Part, settings: TrainSettings, classes: int) -> npt.NDArray[np.float32]:
    """What the pretrained backbone hands to its classifier, without augmentation: (patches, features)."""
    pixels = part.patches.pixels
    network: Any = create_network(settings.backbone, classes=classes, size=pixels.shape[1], weights=settings.weights)
    network.eval()
    mean, std = normalisation(network)
    blocks = []
    for start in range(0, len(pixels), 64):
        batch = normalise(torch.from_numpy(pixels[start : start + 64].copy()), mean, std)
        blocks.append(network.forward_head(network.forward_features(batch), pre_logits=True).numpy())
    return np.concatenate(blocks)


def regression(features: npt.NDArray[np.float32], targets: Rows, strength: float) -> Any:
    """The fitted regression on standardised features, classes weighted as in the network's cross-entropy."""
    logistic = LogisticRegression(C=strength, class_weight="balanced", max_iter=300, tol=1e-3)
    return make_pipeline(StandardScaler(), logistic).fit(features, targets)


def cross_validated(part: Part, features: npt.NDArray[np.float32], strength: float, classes: int) -> dict[str, Floats]:
    """Patch probabilities of every fold by the regression on the others."""
    folds = part.folds
    found = {}
    for fold in sorted(set(folds)):
        train = folds != fold
        found[str(fold)] = regression(features[train], part.targets[train], strength).predict_proba(features[~train])
    check = {len(probabilities[0]) for probabilities in found.values()}
    assert check == {classes}, "a class is missing from the other folds"
    return found


def pooled_macro_f1(part: Part, by_fold: Mapping[str, Floats], classes: int) -> float:
    """Slide-level macro-F1 of the slides of these folds taken together: a fold alone has one slide of the rarest class."""
    truth, predicted = [], []
    for fold, probabilities in by_fold.items():
        rows = np.flatnonzero(part.folds == fold)
        truth.append(part.slide_targets(rows))
        predicted.append(part.slides(probabilities, rows).argmax(1))
    return macro_f1(np.concatenate(truth), np.concatenate(predicted), classes)


def fine_tuned(part: Part, fold: str, settings: TrainSettings, seed: int, classes: int, cache: Path) -> Trained:
    """The network trained without `fold`, which chooses the epoch."""
    table = part.patches.table
    samples = Samples(
        pixels=part.patches.pixels,
        targets=part.targets,
        slide_ids=table["slide_id"].to_numpy(str),
        areas=table["area"].to_numpy(np.float64),
        pixels_key=part.key,
    )

    def on_epoch(epoch: Epoch) -> None:
        print(
            f"seed {seed}, {fold} left out, epoch {epoch.epoch} ({epoch.open_blocks} blocks open): "
            f"loss {epoch.train_loss:.3f}, validation {epoch.val_loss:.3f}, macro-F1 of patches "
            f"{epoch.patch_macro_f1:.3f}, of slides {epoch.slide_macro_f1:.3f}",
            flush=True,
        )

    key = hashlib.sha256(f"{settings.model_dump_json()} {part.key} {fold} {seed}".encode()).hexdigest()[:16]
    return train_network(
        samples,
        np.flatnonzero(part.folds != fold),
        np.flatnonzero(part.folds == fold),
        classes=classes,
        settings=settings,
        seed=seed,
        on_epoch=on_epoch,
        checkpoint=cache / f"{key}.pt",
        features=cache,
    )


def per_class_f1(truth: Rows, several: Sequence[Floats], classes: int) -> Floats:
    """F1 of every class, the mean over networks."""
    alone = np.ones((1, len(truth)))
    cells = [confusion_cells(truth, probabilities.argmax(1), classes) for probabilities in several]
    return np.asarray(np.mean([class_f1(confusions(alone, one))[0] for one in cells], axis=0))


def table(
    truth: Rows, models: Mapping[str, Sequence[Floats]], against: str, groups: Sequence[str], classes: Sequence[str]
) -> list[str]:
    """The comparison as rows of markdown."""
    labels = [classes[one] for one in truth]
    pairs = {name: against for name in models if name != against}
    compared = comparison.compare(labels, models, classes, against=pairs, groups=groups)
    shown = [
        f"{name} ({count})" for name, count in zip(classes, np.bincount(truth, minlength=len(classes)), strict=True)
    ]
    rows = [
        f"| model | macro-F1 | less the regression | {' | '.join(shown)} |",
        "|" + "---|" * (3 + len(classes)),
    ]
    for name, several in models.items():
        scores = " | ".join(f"{score:.2f}" for score in per_class_f1(truth, several, len(classes)))
        rows.append(f"| {name} | {compared.values[name]} | {compared.differences.get(name, '')} | {scores} |")
    return rows


@dataclass(frozen=True)
class Inputs:
    """What both ways start from."""

    root: Path
    cache: Path
    preset: Preset
    cohort: pd.DataFrame
    classes: list[str]
    part: Part
    features: npt.NDArray[np.float32]


def prepare(root: Path, cache: Path, preset: Preset) -> Inputs:
    """Cleans, splits and cuts the training slides and computes their frozen features."""
    cohort = split_cohort(root, preset, seed=0)
    classes = sorted(usable(cohort)["label"].unique())
    part = cut(cohort, root, preset, classes, cache)
    return Inputs(root, cache, preset, cohort, classes, part, frozen_features(part, preset.train, len(classes)))


def choose_strength(inputs: Inputs) -> float:
    """The regression's C with the best cross-validated macro-F1."""
    scores = {}
    for strength in STRENGTHS:
        by_fold = cross_validated(inputs.part, inputs.features, strength, len(inputs.classes))
        scores[strength] = pooled_macro_f1(inputs.part, by_fold, len(inputs.classes))
        print(f"C={strength:g}: cross-validated macro-F1 {scores[strength]:.3f}", flush=True)
    return max(scores, key=lambda strength: scores[strength])


def validate(inputs: Inputs, folds: int) -> None:
    """Prints both ways' scores on the first folds, left out in turn; the network's epoch is chosen by the fold itself."""
    part, classes = inputs.part, len(inputs.classes)
    strength = choose_strength(inputs)
    left_out = sorted(set(part.folds))[:folds]
    frozen = cross_validated(part, inputs.features, strength, classes)
    networks = {
        fold: fine_tuned(part, fold, inputs.preset.train, 0, classes, inputs.cache).probabilities for fold in left_out
    }
    for name, by_fold in (("regression", {fold: frozen[fold] for fold in left_out}), ("fine-tuned", networks)):
        print(f"{name}, {', '.join(left_out)} left out in turn: {pooled_macro_f1(part, by_fold, classes):.3f}")


def compare(inputs: Inputs, seeds: int) -> list[str]:
    """The comparison on the test slides; seed s leaves out fold s."""
    part, train, classes = inputs.part, inputs.preset.train, len(inputs.classes)
    strength = choose_strength(inputs)
    folds = sorted(set(part.folds))
    left_out = [folds[seed % len(folds)] for seed in range(seeds)]
    networks = [
        fine_tuned(part, fold, train, seed, classes, inputs.cache).network for seed, fold in enumerate(left_out)
    ]
    test = cut(test_slides(inputs.cohort, inputs.root), inputs.root, inputs.preset, inputs.classes, inputs.cache)
    test_features = frozen_features(test, train, classes)

    def answers(network: Any) -> Floats:
        mean, std = normalisation(network)
        return test.slides(outputs_of(Ensemble([network]), test.patches.pixels, mean=mean, std=std).of_patches())

    tuned = [answers(network) for network in networks]
    fewer = []
    for fold in left_out:
        rows = part.folds != fold
        fitted = regression(inputs.features[rows], part.targets[rows], strength)
        fewer.append(test.slides(fitted.predict_proba(test_features)))
    whole = regression(inputs.features, part.targets, strength).predict_proba(test_features)
    against = f"frozen features, regression (C={strength:g}) on all {len(folds)} folds"
    models: dict[str, Sequence[Floats]] = {against: [test.slides(whole)]}
    if seeds:
        models[f"the same on {len(folds) - 1} folds, mean of {seeds}"] = fewer
        models |= {f"fine-tuned, seed {seed}, {fold} left out": [tuned[seed]] for seed, fold in enumerate(left_out)}
        models[f"fine-tuned, mean of {seeds}"] = tuned
        models[f"fine-tuned, ensemble of the {seeds} (mean of their probabilities)"] = [np.mean(tuned, axis=0)]
    groups = test.patches.table.drop_duplicates("slide_id")["group"].astype(str).tolist()
    return table(test.slide_targets(), models, against, groups, inputs.classes)


def main() -> None:
    """Prints the comparison on the test slides, or with --validate both ways' scores on the folds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="cohort with train_data, test_data and test_labels.csv")
    parser.add_argument("--weights", required=True, help="imagenet, or a safetensors file of the backbone")
    parser.add_argument("--seeds", type=int, default=3, help="networks to train; 0 leaves the regression alone")
    parser.add_argument(
        "--validate", type=int, default=0, metavar="FOLDS", help="the folds only, never the test slides"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the recipe")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cache", type=Path, help="kept features and checkpoints; a folder of its own")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    given = dict(text.split("=", 1) for text in options.set)
    preset = load_preset("small", {"weights": options.weights, "device": "cpu", **given})
    with tempfile.TemporaryDirectory() as temporary:
        inputs = prepare(options.folder.resolve(), options.cache or Path(temporary), preset)
        slides = inputs.part.patches.table["slide_id"].nunique()
        print(f"{len(inputs.part.targets)} patches of {slides} training slides", flush=True)
        if options.validate:
            validate(inputs, options.validate)
        else:
            print("\n" + "\n".join(compare(inputs, options.seeds)))


if __name__ == "__main__":
    main()
