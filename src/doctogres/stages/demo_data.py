"""demo_data: the synthetic demo cohort in the challenge's layout, with a contact sheet."""

import json
from pathlib import Path
from typing import Final

import mlflow
import pandas as pd

from doctogres.drawing import contact_sheet
from doctogres.engine import map_slides
from doctogres.errors import CohortError
from doctogres.slides.images import encode_png, read_rgb
from doctogres.synthetic import make_cohort
from doctogres.synthetic.cohort import GENERATOR_VERSION, MARKER
from doctogres.tracking.runs import StageResult, StageRun, run_stage

SHEET_SLIDES: Final = 24


def demo_data(*, target: str, size: int, seed: int, rerun: bool = False) -> StageResult:
    """Creates the cohort at `target`, unless the same cohort is already there."""
    folder = Path(target)
    wanted = {"slides": size, "seed": seed, "generator_version": GENERATOR_VERSION}
    marker = folder / MARKER
    # MLflow may know a run whose cohort has been deleted or replaced since.
    exists = marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == wanted

    def body(run: StageRun) -> None:
        try:
            summary = make_cohort(folder, slides=size, seed=seed)
        except ValueError as error:
            raise CohortError(str(error)) from error
        labels = pd.read_csv(folder / "train_labels.csv")
        kinds = pd.read_csv(folder / "contaminated.csv").set_index("sample_index")["kind"].to_dict()
        shown = labels.head(SHEET_SLIDES)
        tiles = list(map_slides(lambda name: read_rgb(folder / "train_data" / name), shown["sample_index"]))
        captions = [kinds.get(row.sample_index, row.label) for row in shown.itertuples()]
        sheet = contact_sheet(tiles, captions, columns=6, tile=200)
        run.attach("contact_sheet.png").write_bytes(encode_png(sheet))
        run.artifacts["cohort"] = folder.resolve().as_uri()
        run.name(f"{size} slides")
        run.note(
            f"Created {summary.train} training and {summary.test} test slides in {target} with seed {seed}, including "
            f"{summary.cartoons} cartoons and {summary.splats} splats (listed in contaminated.csv)."
        )
        run.log_metrics(
            {
                "slides/train": summary.train,
                "slides/test": summary.test,
                "cartoons": summary.cartoons,
                "splats": summary.splats,
            }
        )
        mlflow.log_artifact(str(folder / "contaminated.csv"))

    settings = {"target": str(folder.resolve()), **wanted}
    return run_stage("demo_data", body, settings=settings, inputs={}, rerun=rerun or not exists)
