"""The figures and the HTML report of an evaluation."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from doctogres import __version__
from doctogres.evaluation.predictions import Predictions
from doctogres.evaluation.scores import Scores
from doctogres.evaluation.scoring import Scored
from doctogres.report.examples import sections
from doctogres.report.figures import confusion_figure, png_bytes, reliability_figure, risk_coverage_figure
from doctogres.report.gallery import gallery_html
from doctogres.report.report import render_report

CAPTIONS: Final = {
    "confusion": "Each row is a true class, each column a predicted class. Correct predictions are on the diagonal.",
    "reliability": "The share of correct predictions among slides of similar confidence. Below the dashed line the model is "
    "over-confident, above it under-confident. The bars show the number of slides behind each point.",
    "risk_coverage": "The error rate if the model answered only for the slides it is most confident about.",
}


def evaluation_figures(scored: Scored) -> dict[str, bytes]:
    """The PNG of each figure, by the names of `CAPTIONS`."""
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


def evaluation_page(
    scored: Scored,
    scores: Scores,
    predictions: Predictions,
    figures: Mapping[str, bytes],
    *,
    slides: str,
    root: Path,
    facts: Mapping[str, str],
    commit: str,
) -> str:
    """The report as a single HTML document.

    Args:
        scored: the slides with their answers.
        scores: the metrics.
        predictions: the content of predictions.csv.
        figures: from `evaluation_figures`.
        slides: their number and split, as in "48 hold-out slides".
        root: folder of the slide files.
        facts: model, split, data and settings.
        commit: of the code, empty if unknown.
    """
    classifier = scored.classifier
    return render_report(
        title=f"doctogres · {scores.split}",
        slides=slides,
        classes=scores.classes,
        metrics=scores.metrics,
        null=scores.null,
        raw_ece=scores.ece_raw,
        calibration=classifier.card.calibration,
        evidence=classifier.evidence,
        figures={CAPTIONS[name]: png for name, png in figures.items()},
        gallery=partial(gallery_html, sections(scored, root), scored.classes),
        predictions=predictions.table,
        groups=scores.groups,
        subgroups=scores.subgroups,
        given=scores.answers.sentence if scores.answers else "",
        facts={**facts, **_model_facts(scored, commit)},
    )


def _model_facts(scored: Scored, commit: str) -> dict[str, str]:
    card = scored.classifier.card
    return {
        "slides": f"{len(scored.slides)} in {scored.slides['group'].nunique()} groups",
        "classes": ", ".join(card.classes),
        "recipe": card.recipe,
        "networks": card.networks,
        "patches": f"{', '.join(card.views)}, {card.patch.patch_size} px, at least {card.patch.min_area} px of lesion",
        "aggregation": card.answer.aggregation,
        "test-time augmentation": "eight flips and rotations" if card.answer.tta else "none",
        "doctogres": f"{__version__}, commit {commit or 'unknown: not run from a git checkout'}",
    }
