"""`python -m benchmarks.monitor COHORT OTHER [--preset NAME]`: how often `monitor` raises an alarm, and of which quantities.

A model is trained on one cohort as by `train`. Periods of 200 slides are drawn, with replacement, from the answers to the
slides of another cohort of the same kind, which it has never seen, as they are or changed. Nothing is chosen by any of them.
"""

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmarks.novelty import Slide, answers, cohort_of, magnified, read_all, stained, trained
from doctogres.evaluation.drift import compare
from doctogres.files import WORKSPACE_VARIABLE
from doctogres.model.answer import SlideAnswer
from doctogres.model.classifier import SlideClassifier
from doctogres.presets import load_preset
from doctogres.slides.figures import figures
from doctogres.slides.tissue import ReducedPicture

SLIDES: Final = 200  # of a period
CLEAN: Final = 200  # periods
SHIFTED: Final = 50  # periods of every shift
ALPHAS: Final = (0.01, 0.05)


def logged(classifier: SlideClassifier, slides: Sequence[Slide]) -> pd.DataFrame:
    """A row per slide, as the answer log has it; without a label if the slide was refused."""
    rows = []
    for (rgb, mask), answer in zip(slides, answers(classifier, slides), strict=True):
        row = {"label": None, "mask_source": None, **figures(rgb, mask, ReducedPicture.of(rgb))}
        if isinstance(answer, SlideAnswer):
            said = {name: getattr(answer, name) for name in ("label", "confidence", "novelty", "mask_source")}
            sides = answer.patches[["width", "height"]].max(axis=1)
            row |= said | {"n_patches": len(sides), "patch_side": sides.median()}
        rows.append(row)
    return pd.DataFrame(rows)


def mixed(truth: pd.Series) -> npt.NDArray[np.float64]:
    """Chances with which the rarest class makes up half of the slides."""
    rare = (truth == truth.value_counts().index[-1]).to_numpy()
    return np.asarray(np.where(rare, 0.5 / rare.sum(), 0.5 / (~rare).sum()))


def row_of(name: str, reference: pd.DataFrame, pool: pd.DataFrame, periods: int, chances: object = None) -> str:
    """A row: periods and, for each alpha, those with an alarm and how often each quantity was one."""
    cells = []
    for alpha in ALPHAS:
        raised, quantities = 0, Counter[str]()
        for seed in range(periods):
            period = pool.sample(SLIDES, replace=True, weights=chances, random_state=seed)  # type: ignore[arg-type]
            found = [shift.quantity.name for shift in compare(reference, period, alpha=alpha) if shift.alarm]
            raised += bool(found)
            quantities.update(found)
        which = ", ".join(f"{quantity} {count}" for quantity, count in quantities.most_common(4))
        cells.append(f" {raised} | {which} |")
    return f"| {name} | {len(pool)} | {periods} |" + "".join(cells)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path, help="the model's cohort")
    parser.add_argument("other", type=Path, help="another cohort of the same kind, whose slides are sent to the model")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings of the preset")
    parser.add_argument("--most", type=int, default=60, help="slides that are changed")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    preset = load_preset(options.preset, dict(text.split("=", 1) for text in options.set))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as temporary:
        os.environ[WORKSPACE_VARIABLE] = temporary
        measured = trained(cohort_of(options.cohort.resolve(), preset, options.seed), preset, options.seed)
        classifier, reference = measured.classifier, measured.reference
        usable = cohort_of(options.other.resolve(), preset, options.seed).usable
        own = read_all(options.other.resolve(), usable)
        few = own[: options.most]
        print(f"{len(reference)} training slides\n")
        print("| slides | different ones | periods |" + "".join(f" alarms, alpha {x} | quantities |" for x in ALPHAS))
        print("|---" * (3 + 2 * len(ALPHAS)) + "|")
        pool = logged(classifier, own)
        print(row_of("as they are", reference, pool, CLEAN), flush=True)
        print(row_of("half of the rarest class", reference, pool, SHIFTED, mixed(usable["label"])), flush=True)
        for name, changed in {
            "hue turned by 10°": [(stained(rgb, 10), mask) for rgb, mask in few],
            "hue turned by 20°": [(stained(rgb, 20), mask) for rgb, mask in few],
            "masks inverted": [(rgb, ~mask) for rgb, mask in few],
            "magnified twice": [magnified(slide, 2.0) for slide in few],
        }.items():
            print(row_of(name, reference, logged(classifier, changed), SHIFTED), flush=True)


if __name__ == "__main__":
    main()
