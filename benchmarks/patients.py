"""`python -m benchmarks.patients DATA --weights FILE`: what one answer for all slides of a patient gains over each slide's own.

Preset `small` on the training slides, out of fold, and fitted to all of them on the labelled test slides. Scored are the slides of
patients with several slides, each by its own label: all of them, and those of patients whose slides have one label, which `evaluate`
scores as patients.
"""

import argparse
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.recipes import PRESET, ROWS, Inputs, markdown, of_test_slides, out_of_fold
from doctogres.evaluation.calibration import fit_temperature
from doctogres.evaluation.comparison import compare
from doctogres.evaluation.group_answers import ALONE, METHODS, choose_rule, common_labels, pooled
from doctogres.evaluation.metrics import class_indices
from doctogres.files import WORKSPACE_VARIABLE
from doctogres.model.temperature import apply_temperature
from doctogres.presets import load_preset
from doctogres.slides.selection import TEST, slides_of

Floats = npt.NDArray[np.float64]
ONE_LABEL: Final = "patients with one label"
ALL: Final = "all patients with several slides"


def gains(slides: pd.DataFrame, probabilities: Floats, classes: list[str], **options: Any) -> pd.DataFrame:
    """A row per way of answering: macro-F1 of the slides of patients with several slides, and the difference from ALONE.

    Args:
        slides: label and group.
        probabilities: (slides, classes), calibrated.
        classes: the class order.
        options: of `compare`.
    """
    units = np.unique(slides["group"].astype(str), return_inverse=True)[1]
    several = (np.bincount(units) > 1)[units]
    truth = class_indices(slides["label"].tolist(), classes)
    one_label = (common_labels(truth, units) >= 0)[units]
    ways: Mapping[str, Floats] = {ALONE: probabilities} | {
        way: pooled(probabilities, units, way)[units] for way in METHODS
    }
    columns: dict[str, Any] = {}
    for name, rows in ((ALL, several), (ONE_LABEL, several & one_label)):
        found = compare(
            slides.loc[rows, "label"].tolist(),
            {way: [shares[rows]] for way, shares in ways.items()},
            classes,
            against=dict.fromkeys(METHODS, ALONE),
            groups=slides.loc[rows, "group"].astype(str).tolist(),
            **options,
        )
        counted = f"{name} ({len(set(units[rows]))}, {int(rows.sum())} slides)"
        columns |= {f"{counted}: macro-F1": found.values, "difference" + " " * len(columns): found.differences}
    return pd.DataFrame(columns, index=pd.Index(list(ways), name="answer"))


def main() -> None:
    """Prints the tables, and what `group_answer=auto` chooses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="cohort in the challenge's layout with groups and test_labels.csv")
    parser.add_argument("--weights", required=True, help="safetensors file of the backbone, imagenet or none")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--cache", type=Path, help="folder that keeps features, which then cost nothing again")
    options = parser.parse_args()
    preset = load_preset("small", {"weights": options.weights})
    (row,) = (one for one in ROWS if one.name == PRESET)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ[WORKSPACE_VARIABLE] = str(options.cache or temporary)
        inputs = Inputs.prepare(options.data.resolve(), preset, options.seed)
        classes = next(iter(inputs.parts.values())).classes
        settings = {"resamples": preset.evaluate.resamples, "seed": options.seed}
        slides, raw, _ = out_of_fold(inputs, row)
        truth = class_indices(slides["label"].tolist(), classes)
        temperature = fit_temperature(truth, raw)
        shares = apply_temperature(raw, temperature)
        chosen = choose_rule(truth, shares, slides["group"].tolist(), setting="auto", target_precision=0.9)
        print(f"auto, out of fold: {chosen.evidence}\n", flush=True)
        print(f"Out of fold:\n\n{markdown(gains(slides, shares, classes, **settings))}\n", flush=True)
        tested = slides_of(inputs.cohort.usable, inputs.cohort.root, TEST)
        answered = apply_temperature(of_test_slides(inputs, row, tested), temperature)
        print(f"Test slides:\n\n{markdown(gains(tested, answered, classes, **settings))}")


if __name__ == "__main__":
    main()
