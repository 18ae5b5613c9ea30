"""`python -m benchmarks.recipes DATA --weights FILE`: recipes compared on the training slides of one cohort, out of fold.

Every row is preset `small` with a few other settings, on the same patches and the same folds of whole patients. The hold-out
takes no part, so a row has the score that `train` would log for it. With `--test`, every recipe is also fitted to all training
slides, the hold-out included (as by `final=all`) or, by `--test training`, without it, and classifies the labelled test slides:
nothing may be chosen by them.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.cleaning.cohort import clean_cohort
from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.comparison import compare
from doctogres.evaluation.oof import Assessment, gather
from doctogres.evaluation.scoring import score
from doctogres.files import WORKSPACE_VARIABLE, workspace
from doctogres.model.fusion import slide_probabilities
from doctogres.model.temperature import Calibration
from doctogres.patches.cutting import cut_cohort
from doctogres.patches.manifest import Manifest
from doctogres.presets import load_preset, replaced, with_values
from doctogres.settings import Preset
from doctogres.slides.selection import TEST, slides_of
from doctogres.slides.table import CohortTable
from doctogres.training.assessment import Kept, by_split, classifier_of, kept_networks, own_outputs
from doctogres.training.folds import Member, Parts, split_folds
from doctogres.training.members import Job, train_members
from doctogres.training.part import training_parts
from doctogres.training.probe_features import ProbeFeatures
from doctogres.training.probes import ProbeSources
from doctogres.training.sources import Source, sources_of

Probabilities = npt.NDArray[np.float64]  # (slides, classes)

VIEWS: Final = "window,regions,tiles"
WHOLE: Final = {"stages": 0}  # of the backbone
BOXES: Final = {**WHOLE, "views": "regions", "head": "logistic", "logistic_c": 0.01, "tta": False}
WINDOWS: Final = {"views": "window"}
BOTH_HEADS: Final = {**WHOLE, "head": "blend", "lda_shrinkage": 0.95, "logistic_c": 0.0001}
PLAIN: Final = {"aggregation": "mean", "tta": False}
# The notebook built its optimizer while the backbone was frozen, so only the head ever trained.
NOTEBOOK: Final = {
    **WHOLE, "recipe": "finetune", "views": "regions", "start": "random", "unfreeze_every": 10_000, "epochs": 100, "patience": 25,
    "learning_rate": 1e-4, "batch_size": 8, "augmentation": False, "ema": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A recipe: the settings that differ from the preset's, or the rows whose models' probabilities are averaged."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    mean_of: tuple[str, ...] = ()

    @property
    def is_slow(self) -> bool:
        """Whether networks are trained for it."""
        return self.settings.get("recipe") == "finetune"


ALL, TRAINING = "all", "training"  # slides
REFERENCE: Final = "tight boxes, regression"
BY_AREA: Final = "tight boxes, regression, mean by area"
WIDE: Final = "windows, regression"
PRESET: Final = "preset `small`: windows and tight boxes, both heads, backbone to its last stage"
ROWS: Final = (
    Row(REFERENCE, {**BOXES, "aggregation": "mean"}),
    Row("the notebook's: tight boxes, a head trained with Lion", {**NOTEBOOK, **PLAIN}),
    Row("tiles, fine-tuned with MixUp", {**WHOLE, "recipe": "finetune", "views": "tiles", "mixup": 0.2, **PLAIN}),
    Row(BY_AREA, {**BOXES, "aggregation": "area_mean"}),
    Row(WIDE, {**WHOLE, **WINDOWS, "head": "logistic", "logistic_c": 0.001, "aggregation": "mean"}),
    Row("mean of the two models above", mean_of=(BY_AREA, WIDE)),
    Row("windows, discriminant analysis", {**WINDOWS, **BOTH_HEADS, "head": "lda"}),
    Row("tiles, both heads", {"views": "tiles", **BOTH_HEADS}),
    Row("windows and tight boxes, both heads", BOTH_HEADS),
    Row("windows, both heads, backbone to its last stage", WINDOWS),
    Row("tight boxes, both heads, backbone to its last stage", {"views": "regions"}),
    Row(PRESET),
    Row("the same, each view as important as the other", {"view_weights": ""}),
    Row(
        "the same, features joined",
        {"fusion": "features", "aggregation": "log_mean", "head": "lda", "lda_shrinkage": 0.95},
    ),
    Row("windows, fine-tuned from the probe", {**WINDOWS, "recipe": "finetune", "start": "probe"}),
)


@dataclass(frozen=True)
class Inputs:
    """The cohort, cleaned and cut once, and the features of the frozen backbone that the probes share.

    Attributes:
        preset: preset `small` with the views that it cuts by itself.
        seed: of the split and of the training.
        cohort: the cohort table.
        manifest: the patches of all views.
        parts: the patches of every view.
        features: of the slides outside the hold-out; filled by `known`.
        seconds: CPU time that they took.
    """

    preset: Preset
    seed: int
    cohort: CohortTable
    manifest: Manifest
    parts: Parts
    features: dict[Source, ProbeFeatures] = field(default_factory=dict)
    seconds: dict[Source, float] = field(default_factory=dict)

    @classmethod
    def prepare(cls, root: Path, preset: Preset, seed: int) -> "Inputs":
        """Cleans the cohort as `clean` does, and cuts all views."""
        cohort = CohortTable(clean_cohort(root, preset.clean, seed=seed).table, root, "")
        patch = replaced(preset, "patch", {"patching": f"{preset.patch.patching},{VIEWS}"}).patch
        manifest, _ = cut_cohort(cohort, root, patch, cache=workspace())
        own = with_values(preset, {"views": preset.patch.patching})
        return cls(own, seed, cohort, manifest, training_parts(manifest, patch.views, cache=workspace()))

    def recipe(self, row: Row) -> Preset:
        """The preset with the row's settings."""
        return with_values(self.preset, row.settings)

    def known(self, recipe: Preset) -> ProbeSources:
        """The features of the recipe's sources, each computed once and its time recorded."""
        sources = sources_of(recipe, self.manifest.patch)
        for source in sources:
            if source not in self.seconds:
                started = time.process_time()
                self._probes(recipe, [source]).features[source].turned  # noqa: B018  # computes it
                self.seconds[source] = time.process_time() - started
        return self._probes(recipe, sources)

    def _probes(self, recipe: Preset, sources: Sequence[Source]) -> ProbeSources:
        return ProbeSources.load(recipe, self.parts, sources, self.seed, known=self.features)

    def job(self, recipe: Preset, *, holdout: bool) -> Job:
        """The training of the networks of a fine-tuned recipe."""
        return Job(self.manifest, "", recipe, self.seed, holdout)


def _fine_tuned(inputs: Inputs, recipe: Preset, *, holdout: bool = False) -> list[Member]:
    def on_epoch(fold: Any, epoch: Any) -> None:
        print(f"{fold.source}, {fold.name} left out, epoch {epoch.epoch}: {epoch.slide_macro_f1:.3f}", flush=True)

    return train_members(inputs.job(recipe, holdout=holdout), inputs.parts, on_epoch=on_epoch, rerun=False)


def left_out(members: Sequence[Member], recipe: Preset) -> list[tuple[list[str], Probabilities]]:
    """The slides of every left-out fold, and their probabilities as the recipe combines them."""
    return [
        (split[0].predictions.slides, slide_probabilities(own_outputs(split, recipe.answer), recipe.answer))
        for split in by_split(members)
    ]


def out_of_fold(inputs: Inputs, row: Row) -> tuple[pd.DataFrame, Probabilities, float]:
    """What the row's recipe says of slides that it was not fitted to.

    Returns:
        The slides (slide_id, label, group), their probabilities, and the CPU seconds.
    """
    recipe = inputs.recipe(row)
    started, shared = time.process_time(), 0.0
    if recipe.train.recipe == "probe":
        probes = inputs.known(recipe)
        started, shared = time.process_time(), sum(inputs.seconds[source] for source in probes.features)
        splits = split_folds(recipe.train, inputs.parts, list(probes.features), inputs.seed)
        members = probes.members(splits, attention=False, distances=False)
    else:
        members = _fine_tuned(inputs, recipe)
    answered = [(slides, {row.name: probabilities}) for slides, probabilities in left_out(members, recipe)]
    seconds = time.process_time() - started + shared
    slides = next(iter(inputs.parts.values())).slides[["slide_id", "label", "group"]]
    gathered = gather(slides, [answered])
    return gathered.slides, gathered.repeats[row.name][0], seconds


def of_test_slides(inputs: Inputs, row: Row, slides: pd.DataFrame, *, holdout: bool = True) -> Probabilities:
    """What the recipe, fitted to all training slides, with the hold-out as by `final=all` or without it, says of these slides."""
    recipe = inputs.recipe(row)
    kept: Kept
    if recipe.train.recipe == "probe":
        sources = sources_of(recipe, inputs.manifest.patch)
        kept = ProbeSources.load(recipe, inputs.parts, sources, inputs.seed, holdout=holdout).kept(holdout=holdout)
    else:
        kept = kept_networks(_fine_tuned(inputs, recipe, holdout=holdout), recipe)
    uncalibrated = Assessment(Calibration.none(recipe.answer.target_precision), {}, pd.DataFrame())
    classifier = classifier_of(inputs.manifest, inputs.parts, kept, uncalibrated, recipe, holdout=holdout)
    for network in classifier.networks:
        network.compile_members(size=inputs.manifest.patch.patch_size)  # as those of a model that is loaded
    return np.stack([answer.probabilities for answer in score(classifier, slides, inputs.cohort.root)])


def _compared(
    inputs: Inputs, slides: pd.DataFrame, found: Mapping[str, Probabilities], reference: str
) -> dict[str, dict[str, Estimate]]:
    """Macro-F1 of every row, and its paired difference from the reference; whole patients are resampled."""
    others = [name for name in found if name != reference]
    comparison = compare(
        slides["label"].tolist(),
        {name: [probabilities] for name, probabilities in found.items()},
        next(iter(inputs.parts.values())).classes,
        against=dict.fromkeys(others, reference),
        groups=slides["group"].astype(str).tolist(),
        resamples=inputs.preset.evaluate.resamples,
        seed=inputs.seed,
    )
    return {"macro-F1": comparison.values, "difference from the reference": comparison.differences}


def recipe_table(inputs: Inputs, rows: Sequence[Row], *, test: str = "", reference: str = REFERENCE) -> pd.DataFrame:
    """A row per recipe.

    Args:
        inputs: the cohort.
        rows: those of `mean_of` come after the rows that they average.
        test: also score them on the test slides, fitted to `all` training slides or to those outside the hold-out.
        reference: the name of the row that the others are compared with.

    Returns:
        Index: the rows' names. Columns: `macro-F1` and `difference from the reference`, estimates, then the same of the test slides, and
        `CPU minutes`.
    """
    found: dict[str, Probabilities] = {}
    tested: dict[str, Probabilities] = {}
    seconds: dict[str, float] = {}
    test_slides = slides_of(inputs.cohort.usable, inputs.cohort.root, TEST) if test else pd.DataFrame()
    for row in rows:
        print(f"{row.name} ...", flush=True)
        if row.mean_of:
            for results in (found, tested) if test else (found,):
                results[row.name] = np.mean([results[name] for name in row.mean_of], axis=0)
            seconds[row.name] = sum(seconds[name] for name in row.mean_of)
            continue
        slides, found[row.name], seconds[row.name] = out_of_fold(inputs, row)
        if test:
            tested[row.name] = of_test_slides(inputs, row, test_slides, holdout=test == ALL)
    columns: dict[str, Any] = _compared(inputs, slides, found, reference)
    if test:
        scored = _compared(inputs, test_slides, tested, reference)
        columns |= {f"{name}, test slides": estimates for name, estimates in scored.items()}
    columns["CPU minutes"] = {name: spent / 60 for name, spent in seconds.items()}
    return pd.DataFrame(columns, index=pd.Index(list(found), name="recipe"))


def chosen_rows(only: Sequence[str], *, probes: bool) -> list[Row]:
    """The rows whose name contains one of these texts, the reference always, and what a chosen mean needs.

    Args:
        only: texts; empty for all rows.
        probes: leave out the rows for which networks are trained.
    """
    chosen = {REFERENCE, *(row.name for row in ROWS if not only or any(text in row.name for text in only))}
    chosen |= {name for row in ROWS if row.name in chosen for name in row.mean_of}
    return [row for row in ROWS if row.name in chosen and not (probes and row.is_slow)]


def markdown(table: pd.DataFrame) -> str:
    """The table as markdown."""
    lines = [[str(table.index.name), *map(str, table.columns)], ["---"] * (1 + table.shape[1])]
    for name, values in table.iterrows():
        shown = [
            "" if value != value else f"{value:.1f}" if isinstance(value, float) else str(value) for value in values
        ]
        lines.append([str(name), *shown])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="cohort in the challenge's layout, with test_labels.csv for --test")
    parser.add_argument("--weights", required=True, help="safetensors file of the backbone, imagenet or none")
    parser.add_argument("--normalisation", default="weights", help="as the setting of the same name")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings of the preset")
    parser.add_argument("--only", nargs="*", default=[], metavar="TEXT", help="rows whose names contain one of these")
    parser.add_argument("--probes", action="store_true", help="leave out the rows for which networks are trained")
    parser.add_argument(
        "--test", nargs="?", const=ALL, default="", choices=[ALL, TRAINING],
        help="also score the test slides, fitted to all training slides or without the hold-out; nothing may be chosen by them",
    )  # fmt: skip
    parser.add_argument(
        "--reference", default=REFERENCE, choices=[row.name for row in ROWS], metavar="ROW",
        help="the name of the row that the others are compared with",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--cache", type=Path, help="folder that keeps features and networks, which then cost nothing again"
    )
    options = parser.parse_args()
    given = dict(text.split("=", 1) for text in options.set)
    preset = load_preset("small", {"weights": options.weights, "normalisation": options.normalisation, **given})
    with tempfile.TemporaryDirectory() as temporary:
        os.environ[WORKSPACE_VARIABLE] = str(options.cache or temporary)
        inputs = Inputs.prepare(options.data.resolve(), preset, options.seed)
        slides = next(iter(inputs.parts.values())).slides
        print(f"{len(slides)} slides of {slides['group'].nunique()} groups outside the hold-out", flush=True)
        rows = chosen_rows([*options.only, options.reference] if options.only else [], probes=options.probes)
        print(markdown(recipe_table(inputs, rows, test=options.test, reference=options.reference)))


if __name__ == "__main__":
    main()
