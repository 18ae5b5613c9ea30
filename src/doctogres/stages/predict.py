"""predict: a model and slides with no labels -> submission.csv, the predictions and overlays."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from doctogres.cleaning.reading import read_slide
from doctogres.drawing import class_colours, overlay
from doctogres.errors import CohortError
from doctogres.evaluation.predictions import PATCHES, PREDICTED, Predictions
from doctogres.files import replacing, workspace
from doctogres.model.answer import SlideAnswer
from doctogres.names import artifact_name
from doctogres.progress import reporter
from doctogres.settings import Preset
from doctogres.slides.cohort import (
    content_digest,
    file_hashes,
    find_slides,
    open_cohort,
    pairing_files,
    slide_files,
)
from doctogres.slides.formats import max_pixels
from doctogres.slides.images import encode_png
from doctogres.slides.reasons import by_reason
from doctogres.tracking.datasets import log_table
from doctogres.tracking.runs import PROBLEMS, StageResult, StageRun, run_stage
from doctogres.tracking.upstream import find_model, fixed_address, model_digest


def predict(
    *, data: str, model: str, preset: Preset, output: str = "", rerun: bool = False, strict: bool = False
) -> StageResult:
    """Runs or reuses the stage; `output` gets a copy of submission.csv."""
    root = open_cohort(data, workspace=workspace())
    slides = find_slides(root, labelled=False)
    address = fixed_address(find_model(model))
    digest = content_digest(file_hashes(root, [*pairing_files(root), *slide_files(root, slides)]))

    def body(run: StageRun) -> None:
        from doctogres.evaluation.unlabelled import answers, row_of
        from doctogres.serving.loading import load_classifier

        classifier = load_classifier(address)
        report = reporter("predict", "slides")
        rows, probabilities, answered = [], [], {}
        for row, answer in answers(classifier, slides, root):
            said, shares = row_of(row, answer, classifier)
            rows.append(said)
            probabilities.append(shares)
            if isinstance(answer, SlideAnswer):
                answered[row.slide_id] = answer
                if len(answered) <= preset.predict.overlays:
                    _overlay(run, row, answer, root, classifier.card.classes)
            report(len(rows), len(slides))
        predictions = Predictions(pd.DataFrame(rows), classifier.card.classes, np.stack(probabilities))
        _publish(run, predictions, answered, address)
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
        with replacing(Path(output)) as partial:
            shutil.copyfile(found, partial)
    return result


def _publish(run: StageRun, predictions: Predictions, answered: Mapping[str, SlideAnswer], address: str) -> None:
    from doctogres.evaluation.scoring import patch_predictions
    from doctogres.evaluation.unlabelled import GUESSED

    table = predictions.rows
    guessed = table[table["outcome"] == GUESSED]
    reasons = by_reason(zip(guessed["slide_id"], guessed["reason"], strict=True))
    if len(guessed) == len(table):
        raise CohortError(f"predict: none of the {len(table)} slides could be used: {'; '.join(reasons)}")
    table[["sample_index", "label"]].to_csv(run.publish("submission"), index=False)
    predictions.write(PREDICTED, run.publish("predictions"))
    patches = patch_predictions(answered, answered.values(), predictions.classes)
    patches.write(PATCHES, run.publish("patches"))
    counts = table["label"].value_counts()
    run.name(f"predict · {len(table)} slides")
    named = ", ".join(f"{label} {count}" for label, count in counts.items())
    lost = (
        f" {len(guessed)} could not be used and carry the most frequent training class: " + "; ".join(reasons)
        if len(guessed)
        else " Every slide got an answer of its own."
    )
    run.note(f"Classified {len(table)} slides with {address}: {named}.{lost}")
    for line in reasons:
        print(f"predict: could not be used, the submission holds the most frequent class: {line}", flush=True)
    run.log_metrics({"slides": len(table), PROBLEMS: len(guessed), "patches": float(table["n_patches"].sum())})


def _overlay(run: StageRun, row: Any, answer: SlideAnswer, root: Path, classes: Sequence[str]) -> None:
    rgb, mask = read_slide(root, row)
    colours = class_colours(classes)
    boxes = answer.patches[["x", "y", "width", "height"]].to_numpy(np.int64)
    texts = [f"{share:.2f}" for share in answer.patch_probabilities.max(axis=1)]
    picture = overlay(rgb, boxes, texts, [colours[label] for label in answer.patches["label"]], mask)
    run.attach(f"overlays/{artifact_name(row.slide_id)}.png").write_bytes(encode_png(picture))
