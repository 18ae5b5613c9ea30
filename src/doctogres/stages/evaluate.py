"""evaluate: a model and a split -> metrics with intervals beside a null model's, figures, the report."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.cohort import find_slides, read_table, usable
from doctogres.datasets import log_table
from doctogres.engine import map_slides
from doctogres.errors import CohortError
from doctogres.evaluation.figures import confusion_figure, png_bytes, reliability_figure, risk_coverage_figure
from doctogres.evaluation.metrics import null_metrics, slide_metrics
from doctogres.evaluation.pictures import class_colours, overlay
from doctogres.evaluation.report import render_report
from doctogres.patches import read_slide
from doctogres.progress import reporter
from doctogres.serving.classifier import SlideAnswer, SlideClassifier
from doctogres.serving.loading import load_classifier
from doctogres.settings import Preset
from doctogres.splits import HOLDOUT
from doctogres.stages.patch import slide_root
from doctogres.tracking import SLIDES_TAG, StageResult, StageRun, file_digest, run_stage
from doctogres.upstream import find_artifact, find_model, fixed_address

TEST: Final = "test"
WORST_SLIDES: Final = 8


@dataclass(frozen=True)
class Scored:
    """Slides of a split with their answers, row for row."""

    slides: pd.DataFrame
    answers: list[SlideAnswer]
    classes: list[str]

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """(slides, classes)."""
        return np.stack([answer.probabilities for answer in self.answers])

    def table(self) -> pd.DataFrame:
        """predictions.csv: slide_id, label, group, predicted, correct, n_patches, and a column per class."""
        table = self.slides[["slide_id", "label", "group"]].reset_index(drop=True)
        table["predicted"] = [answer.label for answer in self.answers]
        table["correct"] = table["predicted"] == table["label"]
        table["n_patches"] = [len(answer.patches) for answer in self.answers]
        return pd.concat([table, pd.DataFrame(self.probabilities, columns=self.classes)], axis=1)


def slides_of(cohort: pd.DataFrame, root: Path, split: str) -> pd.DataFrame:
    """The slides of a split: `holdout` or a fold of the cohort table, or `test`: the test slides with their own labels."""
    if split != TEST:
        slides = usable(cohort)
        slides = slides[slides["fold"] == split]
        if slides.empty:
            raise CohortError(
                f"split={split}: no usable slide has it; choose holdout, test or a fold of the cohort table"
            )
        return slides.reset_index(drop=True)
    labels = root / "test_labels.csv"
    if not labels.is_file():
        raise CohortError(f"split=test: {labels} is not there; the test slides can be scored only with their labels")
    truth = pd.read_csv(labels, dtype=str)
    truth["slide_id"] = [Path(name).stem for name in truth["sample_index"]]
    slides = find_slides(root, labelled=False).drop(columns=["label", "group"])
    merged = slides.merge(
        truth[[c for c in ("slide_id", "label", "group") if c in truth]], on="slide_id", validate="1:1"
    )
    if "group" not in merged:
        merged["group"] = merged["slide_id"]
    return merged.reset_index(drop=True)


def score(classifier: SlideClassifier, slides: pd.DataFrame, root: Path) -> Iterator[SlideAnswer]:
    """The answer for every slide, in order: decoded by threads, classified here."""
    decoded = map_slides(lambda row: read_slide(root, row), slides.itertuples(index=False))
    return (classifier.classify(rgb, mask) for rgb, mask in decoded)


def evaluate(
    *, model: str, cohort: str, split: str, preset: Preset, seed: int, data: str = "", force: bool = False
) -> StageResult:
    """Runs or reuses the stage for a model and a split."""
    address = fixed_address(find_model(model))
    upstream = find_artifact(cohort, stage="clean", name="cohort", file="cohort.parquet")
    table = read_table(upstream.path)
    root = slide_root(table, data)

    def body(run: StageRun) -> None:
        mlflow.set_tag(SLIDES_TAG, str(root))
        classifier = load_classifier(address)
        slides = slides_of(table, root, split)
        report = reporter(f"evaluate ({split})", "slides")
        answers = []
        for answer in score(classifier, slides, root):
            answers.append(answer)
            report(len(answers), len(slides))
        scored = Scored(slides, answers, list(classifier.card.classes))
        training = usable(table)
        training_labels = training.loc[training["fold"] != HOLDOUT, "label"].tolist()
        _publish(run, scored, training_labels, root, address, split, preset, seed)
        log_table(slides, name=f"slides ({split})", source=upstream.uri, context="evaluation", targets="label")

    return run_stage(
        "evaluate",
        body,
        settings={"resamples": preset.evaluate.resamples, "split": split, "seed": seed},
        inputs={"model": address, "cohort": file_digest(upstream.path)},
        data_digest=table.attrs["data_digest"],
        force=force,
    )


def _publish(
    run: StageRun,
    scored: Scored,
    training_labels: list[str],
    root: Path,
    address: str,
    split: str,
    preset: Preset,
    seed: int,
) -> None:
    predictions, classes = scored.table(), scored.classes
    truth, groups = predictions["label"].tolist(), predictions["group"].tolist()
    options: dict[str, Any] = {"groups": groups, "resamples": preset.evaluate.resamples, "seed": seed}
    metrics = slide_metrics(truth, scored.probabilities, classes, **options)
    null = null_metrics(truth, training_labels, classes, **options)
    predictions.to_csv(run.publish("predictions", "predictions.csv"), index=False)
    content = {"model": address, "split": split, "slides": len(predictions)}
    content |= {"metrics": {name: estimate.to_dict() for name, estimate in metrics.items()}}
    content |= {"null": {name: estimate.to_dict() for name, estimate in null.items()}}
    run.publish("metrics", "metrics.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    figures = {
        "confusion": png_bytes(confusion_figure(truth, predictions["predicted"].tolist(), classes)),
        "reliability": png_bytes(reliability_figure(truth, scored.probabilities, classes)),
        "risk_coverage": png_bytes(risk_coverage_figure(truth, scored.probabilities, classes)),
    }
    for name, png in figures.items():
        run.attach(f"{name}.png").write_bytes(png)
    worst = _worst(run, scored, root)
    summary = (
        f"{len(predictions)} slides of the split `{split}`: macro-F1 {metrics['macro_f1']}, "
        f"null model (always the most frequent class) {null['majority/macro_f1']}."
    )
    run.publish("report", "report.html").write_text(
        render_report(
            title=f"doctogres · {split}",
            summary=summary,
            metrics=metrics,
            null=null,
            figures=figures,
            worst=worst,
            predictions=predictions,
            facts={"model": address, "split": split, "slides": str(len(predictions)), "classes": ", ".join(classes)},
        ),
        encoding="utf-8",
    )
    run.name(f"evaluate · {split} · macro-F1 {metrics['macro_f1'].value:.3f}")
    run.note(f"{summary} report.html holds the figures and the slides that were most wrong.")
    flat = {f"null/{name}": estimate for name, estimate in null.items()} | metrics
    run.log_metrics({name: estimate.value for name, estimate in flat.items()})
    run.log_metrics(
        {f"{name}/low": estimate.low for name, estimate in flat.items() if "/" not in name or "null/" in name}
    )
    run.log_metrics(
        {f"{name}/high": estimate.high for name, estimate in flat.items() if "/" not in name or "null/" in name}
    )


def _worst(run: StageRun, scored: Scored, root: Path) -> list[tuple[str, bytes]]:
    """Overlays of the slides whose true class got the lowest probability."""
    table = scored.table()
    of_truth = np.array([row.get(row["label"], 0.0) for row in table.to_dict("records")])
    wrong = [index for index in np.argsort(of_truth) if not table.loc[index, "correct"]][:WORST_SLIDES]
    colours = class_colours(scored.classes)
    pictures = []
    for index in wrong:
        row: Any = next(scored.slides.iloc[[index]].itertuples(index=False))
        rgb, mask = read_slide(root, row)
        patches = scored.answers[index].patches
        boxes = patches[["x", "y", "width", "height"]].to_numpy(np.int64)
        texts = [f"{share:.2f}" for share in patches[scored.classes].max(axis=1)]
        png = png_bytes(overlay(rgb, boxes, texts, [colours[label] for label in patches["label"]], mask))
        run.attach(f"worst/{row.slide_id}.png").write_bytes(png)
        pictures.append(
            (
                f"{row.slide_id}: {row.label}, predicted {scored.answers[index].label} ({of_truth[index]:.2f} for the truth)",
                png,
            )
        )
    return pictures
