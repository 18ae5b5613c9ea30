"""evaluate: a model and a split -> metrics with intervals beside a null model's, figures, the report."""

from functools import partial
from pathlib import Path
from typing import Final

import mlflow
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT

from doctogres import __version__
from doctogres.evaluation.metrics import PER_CLASS
from doctogres.evaluation.predictions import PATCHES
from doctogres.evaluation.scores import Scores
from doctogres.evaluation.scoring import Scored, measure, score
from doctogres.evaluation.unseen import check_unseen
from doctogres.files import digest_of, file_digest
from doctogres.progress import reporter
from doctogres.report.examples import walls
from doctogres.report.figures import confusion_figure, png_bytes, reliability_figure, risk_coverage_figure
from doctogres.report.gallery import gallery_html
from doctogres.report.report import render_report, result_sentence
from doctogres.serving.loading import load_classifier
from doctogres.settings import Preset
from doctogres.slides.cohort import slide_root
from doctogres.slides.selection import CONTENT, SPLIT_NAMES, slides_of
from doctogres.slides.splits import HOLDOUT
from doctogres.slides.table import CohortTable
from doctogres.tracking.datasets import log_table
from doctogres.tracking.runs import SLIDES_TAG, StageResult, StageRun, run_stage
from doctogres.tracking.upstream import find_artifact, find_model, fixed_address, model_digest

CAPTIONS: Final = {
    "confusion": "A row is a true class: how many of its slides got which answer. Right answers are on the diagonal.",
    "reliability": "Of the slides with about the same confidence, how many were right. Under the dashed line the model is "
    "too sure, above it not sure enough; the bars say how few slides a point stands for.",
    "risk_coverage": "If only the most confident slides were answered: how many of those answers would be wrong.",
}


def evaluate(
    *, model: str, cohort: str, split: str, preset: Preset, seed: int, data: str = "", rerun: bool = False
) -> StageResult:
    """Runs or reuses the stage for a model and a split."""
    address = fixed_address(find_model(model))
    upstream = find_artifact(cohort, stage="clean", name="cohort")
    table = CohortTable.read(upstream.path)
    root = slide_root(table.root, data)
    slides = slides_of(table.usable, root, split)
    resamples = preset.evaluate.resamples

    def body(run: StageRun) -> None:
        mlflow.set_tag(SLIDES_TAG, str(root))
        classifier = load_classifier(address)
        check_unseen(slides, classifier.card.seen, data_digest=table.data_digest, split=split)
        report = reporter(f"evaluate ({split})", "slides")
        answers = []
        for answer in score(classifier, slides, root):
            answers.append(answer)
            report(len(answers), len(slides))
        scored = Scored(slides, answers, classifier)
        training = table.usable
        training_labels = training.loc[training["fold"] != HOLDOUT, "label"].tolist()
        scores = measure(scored, training_labels, model=address, split=split, resamples=resamples, seed=seed)
        facts = {
            "model": address,
            "split": split,
            "data digest": table.data_digest,
            "seed": str(seed),
            "resamples": str(resamples),
        }
        _publish(run, scored, scores, root, facts)
        log_table(slides, name=f"slides ({split})", source=upstream.uri, context="evaluation", targets="label")

    return run_stage(
        "evaluate",
        body,
        settings={"resamples": resamples, "split": split, "seed": seed},
        inputs={
            "model": model_digest(address),
            "cohort": file_digest(upstream.path),
            "slides": digest_of(slides[["slide_id", "label", "group", *CONTENT]].to_csv(index=False)),
        },
        data_digest=table.data_digest,
        rerun=rerun,
    )


def _publish(run: StageRun, scored: Scored, scores: Scores, root: Path, facts: dict[str, str]) -> None:
    predictions = scored.of_slides()
    predictions.write_csv(run.publish("predictions"))
    scored.of_patches().write(PATCHES, run.publish("patch_predictions"))
    scores.write(run.publish("metrics"))
    figures = _figures(scored)
    for name, png in figures.items():
        run.attach(f"{name}.png").write_bytes(png)
    named = f"{scores.slides} {SPLIT_NAMES.get(scores.split, scores.split)} slides"
    card = scored.classifier.card
    page = render_report(
        title=f"doctogres · {scores.split}",
        slides=named,
        classes=scores.classes,
        metrics=scores.metrics,
        null=scores.null,
        raw_ece=scores.ece_raw,
        calibration=card.calibration,
        evidence=scored.classifier.evidence,
        figures={CAPTIONS[name]: png for name, png in figures.items()},
        gallery=partial(gallery_html, walls(scored, root), scored.classes),
        predictions=predictions.table,
        facts=facts | _model_facts(scored),
    )
    run.publish("report").write_text(page, encoding="utf-8")
    run.name(f"evaluate · {scores.split} · macro-F1 {scores.metrics['macro_f1'].value:.3f}")
    summary = result_sentence(named, scores.metrics, scores.null)
    run.note(f"{summary} report.html holds the figures and the slides to look at.")
    run.log_metrics(_flat(scores))


def _flat(scores: Scores) -> dict[str, float]:
    """Every value under its name, and the ends of the interval of those that are not of one class."""
    named = scores.metrics | {f"null/{name}": one for name, one in scores.null.items()} | {"ece_raw": scores.ece_raw}
    whole = {name: one for name, one in named.items() if name.removeprefix("patch/").partition("/")[0] not in PER_CLASS}
    ends = {f"{name}/{end}": getattr(one, end) for name, one in whole.items() for end in ("low", "high")}
    return {name: one.value for name, one in named.items()} | ends


def _figures(scored: Scored) -> dict[str, bytes]:
    truth, classes, calibration = scored.slides["label"].tolist(), scored.classes, scored.classifier.card.calibration
    predicted = [answer.label for answer in scored.answers]
    raw = scored.raw if calibration.temperature != 1 else None
    return {
        "confusion": png_bytes(confusion_figure(truth, predicted, classes)),
        "reliability": png_bytes(reliability_figure(truth, scored.probabilities, classes, raw=raw)),
        "risk_coverage": png_bytes(
            risk_coverage_figure(truth, scored.probabilities, classes, threshold=calibration.threshold)
        ),
    }


def _model_facts(scored: Scored) -> dict[str, str]:
    card = scored.classifier.card
    run = mlflow.active_run()
    commit = run.data.tags.get(MLFLOW_GIT_COMMIT) if run else None
    return {
        "slides": f"{len(scored.slides)} in {scored.slides['group'].nunique()} groups",
        "classes": ", ".join(card.classes),
        "networks": f"{card.members} × {card.backbone}",
        "patches": f"{card.patch.patching}, {card.patch.patch_size} px, at least {card.patch.min_area} px of lesion",
        "aggregation": card.answer.aggregation,
        "test-time augmentation": "eight flips and turns" if card.answer.tta else "none",
        "doctogres": f"{__version__}, commit {commit or 'unknown: not run from a git checkout'}",
    }
