"""predict: a model and slides with no labels -> submission.csv, the predictions and overlays."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import mlflow
import numpy as np
import pandas as pd

from doctogres.drawing import class_colours, overlay
from doctogres.engine import map_slides
from doctogres.errors import CohortError, DoctogresError
from doctogres.files import workspace
from doctogres.model.classifier import CutSlide, SlideAnswer, SlideClassifier
from doctogres.progress import reporter
from doctogres.report.figures import png_bytes
from doctogres.serving.loading import load_classifier
from doctogres.settings import Preset
from doctogres.slides.cohort import content_digest, file_hashes, find_slides, open_cohort, slide_files
from doctogres.slides.formats import max_pixels
from doctogres.slides.images import read_rgb
from doctogres.slides.masks import read_mask
from doctogres.slides.table import KEPT
from doctogres.tracking.datasets import log_table
from doctogres.tracking.runs import PROBLEMS, StageResult, StageRun, run_stage
from doctogres.tracking.upstream import find_model, fixed_address, model_digest

ANSWERED: Final = "answered"
GUESSED: Final = "guessed"  # no answer is possible: the training part's most frequent class stands in the submission


def predict(
    *, data: str, model: str, preset: Preset, output: str = "", rerun: bool = False, strict: bool = False
) -> StageResult:
    """Runs or reuses the stage; `output` gets a copy of submission.csv."""
    root = open_cohort(data, workspace=workspace())
    slides = find_slides(root, labelled=False)
    address = fixed_address(find_model(model))
    digest = content_digest(file_hashes(root, slide_files(root, slides)))

    def body(run: StageRun) -> None:
        classifier = load_classifier(address)
        report = reporter("predict", "slides")
        rows, patches = [], []
        for row, answer in _answers(classifier, slides, root):
            rows.append(_row(row, answer, classifier))
            if isinstance(answer, SlideAnswer):
                patches.append(answer.patches.assign(slide_id=row.slide_id))
                if len(patches) <= preset.predict.overlays:
                    _overlay(run, row, answer, root, list(classifier.card.classes))
            report(len(rows), len(slides))
        _publish(run, pd.DataFrame(rows), patches, address)
        log_table(
            slides.drop(columns=["label", "group"]), name="slides (unlabelled)", source=str(data), context="prediction"
        )

    result = run_stage(
        "predict",
        body,
        settings=preset.predict.model_dump() | {"max_pixels": max_pixels()},
        inputs={"data": digest, "model": model_digest(address)},
        data_digest=digest,
        rerun=rerun,
        strict=strict,
    )
    if output:
        found = mlflow.artifacts.download_artifacts(artifact_uri=result.artifacts["submission"])
        partial = Path(output).with_name(Path(output).name + ".partial")
        shutil.copyfile(found, partial)
        partial.replace(output)
    return result


def _answers(
    classifier: SlideClassifier, slides: pd.DataFrame, root: Path
) -> Iterator[tuple[Any, SlideAnswer | DoctogresError]]:
    """Yields every slide's row with its answer, or with the error that says why there is none."""

    def cut(row: Any) -> CutSlide | DoctogresError:
        if row.outcome != KEPT:
            return CohortError(row.reason)
        try:
            rgb = read_rgb(root / row.image, name=row.image)
            return classifier.cut(rgb, read_mask(root / row.mask, name=row.mask))
        except DoctogresError as error:
            return error

    rows = slides.itertuples(index=False)
    return zip(rows, classifier.answers(map_slides(cut, slides.itertuples(index=False))), strict=True)


def _row(row: Any, answer: SlideAnswer | DoctogresError, classifier: SlideClassifier) -> dict[str, Any]:
    classes, shares = classifier.card.classes, classifier.card.class_shares
    base = {"slide_id": row.slide_id, "sample_index": Path(row.image).name if row.image else f"{row.slide_id}.png"}
    if isinstance(answer, SlideAnswer):
        known = {"label": answer.label, "outcome": ANSWERED, "reason": answer.note, "n_patches": len(answer.patches)}
        known |= {"confidence": answer.confidence, "abstained": answer.abstained}
        return base | known | dict(zip(classes, answer.probabilities.tolist(), strict=True))
    reason = str(answer) if str(answer).startswith(answer.code) or ": " in str(answer) else f"{answer.code}: {answer}"
    guess = {"label": classes[int(np.argmax(shares))], "outcome": GUESSED, "reason": reason, "n_patches": 0}
    guess |= {"confidence": 0.0, "abstained": True}
    return base | guess | dict(zip(classes, shares, strict=True))


def _publish(run: StageRun, table: pd.DataFrame, patches: list[pd.DataFrame], address: str) -> None:
    guessed = table[table["outcome"] == GUESSED]
    if len(guessed) == len(table):
        raise CohortError(
            f"predict: none of the {len(table)} slides could be used; the first: {guessed.iloc[0]['reason']}"
        )
    table[["sample_index", "label"]].to_csv(run.publish("submission"), index=False)
    table.to_parquet(run.publish("predictions"), index=False)
    pd.concat(patches, ignore_index=True).to_parquet(run.publish("patches"), index=False)
    counts = table["label"].value_counts()
    run.name(f"predict · {len(table)} slides")
    named = ", ".join(f"{label} {count}" for label, count in counts.items())
    lost = (
        f" {len(guessed)} could not be used and carry the most frequent training class: "
        + "; ".join(f"{row.slide_id} ({row.reason})" for row in guessed.head(5).itertuples())
        if len(guessed)
        else " Every slide got an answer of its own."
    )
    run.note(f"Classified {len(table)} slides with {address}: {named}.{lost}")
    for row in guessed.itertuples():
        print(
            f"predict: {row.slide_id} could not be used ({row.reason}); the submission holds the most frequent class",
            flush=True,
        )
    run.log_metrics({"slides": len(table), PROBLEMS: len(guessed), "patches": float(table["n_patches"].sum())})


def _overlay(run: StageRun, row: Any, answer: SlideAnswer, root: Path, classes: list[str]) -> None:
    rgb, mask = read_rgb(root / row.image), read_mask(root / row.mask)
    colours = class_colours(classes)
    boxes = answer.patches[["x", "y", "width", "height"]].to_numpy(np.int64)
    texts = [f"{share:.2f}" for share in answer.patches[classes].max(axis=1)]
    picture = overlay(rgb, boxes, texts, [colours[label] for label in answer.patches["label"]], mask)
    run.attach(f"overlays/{row.slide_id}.png").write_bytes(png_bytes(picture))
