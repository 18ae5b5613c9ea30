"""evaluate: a model and a split -> metrics with intervals beside a null model's, figures, the report."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT

from doctogres import __version__
from doctogres.cohort import DROPPED, file_hashes, find_slides, read_labels, read_table, usable
from doctogres.datasets import log_table
from doctogres.engine import map_slides
from doctogres.errors import CohortError, DoctogresError
from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.figures import confusion_figure, png_bytes, reliability_figure, risk_coverage_figure
from doctogres.evaluation.gallery import ShownSlide, Wall, choose_slides, gallery_html, show_slide
from doctogres.evaluation.metrics import class_indices, null_metrics, patch_metrics, slide_metrics
from doctogres.evaluation.report import PER_CLASS, render_report, result_sentence
from doctogres.patches import read_slide
from doctogres.patching import REGION_FIELDS
from doctogres.progress import reporter
from doctogres.serving.classifier import CutSlide, Seen, SlideAnswer, SlideClassifier, group_digest
from doctogres.serving.loading import load_classifier
from doctogres.settings import Preset
from doctogres.splits import HOLDOUT, LeakageError
from doctogres.stages.patch import slide_root
from doctogres.tracking import SLIDES_TAG, StageResult, StageRun, digest_of, file_digest, run_stage
from doctogres.upstream import find_artifact, find_model, fixed_address, model_digest

TEST: Final = "test"
SPLITS: Final = {HOLDOUT: "hold-out"}  # as a sentence says them
CAPTIONS: Final = {
    "confusion": "A row is a true class: how many of its slides got which answer. Right answers are on the diagonal.",
    "reliability": "Of the slides with about the same confidence, how many were right. Under the dashed line the model is "
    "too sure, above it not sure enough; the bars say how few slides a point stands for.",
    "risk_coverage": "If only the most confident slides were answered: how many of those answers would be wrong.",
}
CONTENT: Final = ("image_md5", "mask_md5", "outcome")  # what a slide's answer comes from
WRONG_SLIDES: Final = 8
UNSURE_SLIDES: Final = 4


@dataclass(frozen=True)
class Scored:
    """Slides of a split with their answers, row for row."""

    slides: pd.DataFrame
    answers: list[SlideAnswer]
    classifier: SlideClassifier

    @property
    def classes(self) -> list[str]:
        """The model's class order."""
        return list(self.classifier.card.classes)

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """(slides, classes)."""
        return np.stack([answer.probabilities for answer in self.answers])

    @property
    def raw(self) -> npt.NDArray[np.float64]:
        """The probabilities before the model's temperature, (slides, classes)."""
        return np.stack([answer.raw for answer in self.answers])

    def table(self) -> pd.DataFrame:
        """predictions.csv: a row per slide, with a column per class."""
        table = self.slides[["slide_id", "label", "group"]].reset_index(drop=True)
        table["predicted"] = [answer.label for answer in self.answers]
        table["correct"] = table["predicted"] == table["label"]
        table["confidence"] = [answer.confidence for answer in self.answers]
        table["abstained"] = [answer.abstained for answer in self.answers]
        table["n_patches"] = [len(answer.patches) for answer in self.answers]
        table[list(CONTENT)] = self.slides[list(CONTENT)].to_numpy()
        return pd.concat([table, pd.DataFrame(self.probabilities, columns=self.classes)], axis=1)

    def patches(self) -> pd.DataFrame:
        """patch_predictions.parquet: slide_id, box, area, label (the slide's), predicted, and a column per class."""
        tables = []
        for (slide_id, label), answer in zip(self.slides[["slide_id", "label"]].to_numpy(), self.answers, strict=True):
            own = answer.patches.rename(columns={"label": "predicted"}).assign(slide_id=slide_id, label=label)
            tables.append(own[["slide_id", *REGION_FIELDS, "label", "predicted", *self.classes]])
        return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class Measured:
    """What came of it, each with its interval."""

    metrics: dict[str, Estimate]  # of slides, and of patches under `patch/`
    null: dict[str, Estimate]
    raw_ece: Estimate


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
    return _test_slides(root)


def _test_slides(root: Path) -> pd.DataFrame:
    """The labelled test slides, with what `clean` finds out of the training slides' files."""
    path = root / "test_labels.csv"
    if not path.is_file():
        raise CohortError(f"split=test: {path} is not there; the test slides can be scored only with their labels")
    labels = read_labels(path)
    slides = find_slides(root, labelled=False).drop(columns=["label", "group"])
    unknown = sorted(labels.keys() - set(slides["slide_id"]))
    twice = sorted(slide for slide, lines in labels.items() if len(lines) > 1)
    for problem, names in (("have no files", unknown), ("have several lines", twice)):
        if names:
            raise CohortError(f"split=test: slides of {path.name} {problem}: {_some(names)}; mend the table")
    unlabelled = len(slides) - len(labels)
    slides = slides[slides["slide_id"].isin(labels.keys())].reset_index(drop=True)
    if unlabelled:
        print(f"evaluate: {unlabelled} test slides have no line in {path.name} and are not scored", flush=True)
    if (lost := slides[slides["outcome"] == DROPPED]).size:
        reasons = [f"{row.slide_id} ({row.reason})" for row in lost.itertuples()]
        raise CohortError(
            f"split=test: labelled slides cannot be scored: {_some(reasons)}; mend or leave out their lines"
        )
    slides["label"] = [labels[slide][0][0] for slide in slides["slide_id"]]
    slides["group"] = [labels[slide][0][1] or slide for slide in slides["slide_id"]]
    for column in ("image", "mask"):
        slides[f"{column}_md5"] = slides[column].map(file_hashes(root, slides[column]))
    return slides


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def check_unseen(slides: pd.DataFrame, seen: Seen, *, data_digest: str, split: str) -> None:
    """Refuses to score a model on what it was trained on.

    A slide was seen if its picture was, file for file, or, in the cohort that the model comes from, if a slide of its
    group was (of a test slide: of its patient, as the labels name it). Group names of other cohorts say nothing.

    Raises:
        LeakageError: names slides and groups.
    """
    reasons = slides["image_md5"].isin(seen.pictures).map({True: "this picture", False: ""})
    if data_digest == seen.data_digest:
        known = slides["group"].map(lambda group: group_digest(str(group)) in seen.groups)
        if split == TEST:  # without a patient the group is the slide's own name, which a training slide may have too
            known &= slides["group"] != slides["slide_id"]
        reasons = reasons.mask(known & (reasons == ""), "its group " + slides["group"].astype(str))
    found = [f"{slide} ({reason})" for slide, reason in zip(slides["slide_id"], reasons, strict=True) if reason]
    if found:
        raise LeakageError(
            f"split={split}: the model has seen {len(found)} of the {len(slides)} slides in training: {', '.join(found[:5])}"
            f"{', ...' if len(found) > 5 else ''}; score it on the hold-out of the cohort table that it was trained on, or on other slides"
        )


def score(classifier: SlideClassifier, slides: pd.DataFrame, root: Path) -> Iterator[SlideAnswer]:
    """The answer for every slide, in order: decoded and cut by threads, classified here."""

    def cut(row: Any) -> CutSlide:
        try:
            return classifier.cut(*read_slide(root, row))
        except DoctogresError as error:
            raise type(error)(f"{row.slide_id}: {error}") from error

    for answer in classifier.answers(map_slides(cut, slides.itertuples(index=False))):
        assert isinstance(answer, SlideAnswer)  # only errors that are put in come out
        yield answer


def evaluate(
    *, model: str, cohort: str, split: str, preset: Preset, seed: int, data: str = "", force: bool = False
) -> StageResult:
    """Runs or reuses the stage for a model and a split."""
    address = fixed_address(find_model(model))
    upstream = find_artifact(cohort, stage="clean", name="cohort", file="cohort.parquet")
    table = read_table(upstream.path)
    digest = table.attrs["data_digest"]
    root = slide_root(table, data)
    slides = slides_of(table, root, split)
    resamples = preset.evaluate.resamples

    def body(run: StageRun) -> None:
        mlflow.set_tag(SLIDES_TAG, str(root))
        classifier = load_classifier(address)
        check_unseen(slides, classifier.card.seen, data_digest=digest, split=split)
        report = reporter(f"evaluate ({split})", "slides")
        answers = []
        for answer in score(classifier, slides, root):
            answers.append(answer)
            report(len(answers), len(slides))
        scored = Scored(slides, answers, classifier)
        training = usable(table)
        training_labels = training.loc[training["fold"] != HOLDOUT, "label"].tolist()
        measured = measure(scored, training_labels, resamples=resamples, seed=seed)
        facts = {
            "model": address,
            "split": split,
            "data digest": digest,
            "seed": str(seed),
            "resamples": str(resamples),
        }
        _publish(run, scored, measured, root, facts)
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
        data_digest=digest,
        force=force,
    )


def measure(scored: Scored, training_labels: list[str], *, resamples: int, seed: int) -> Measured:
    """Everything that has an interval; slides of one group are resampled together.

    Args:
        scored: the slides with their answers.
        training_labels: of the slides that were not held out, for the null models.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
    """
    truth, groups, classes = scored.slides["label"].tolist(), scored.slides["group"].astype(str), scored.classes
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    grouped = options | {"groups": groups.tolist()}
    threshold = scored.classifier.card.calibration.threshold
    metrics = slide_metrics(truth, scored.probabilities, classes, threshold=threshold, **grouped)
    patches = scored.patches()
    group_of = dict(zip(scored.slides["slide_id"], groups, strict=True))
    of_patches = patch_metrics(
        patches["label"].tolist(),
        patches[classes].to_numpy(),
        classes,
        slides=patches["slide_id"].map(group_of).tolist(),
        **options,
    )
    return Measured(
        metrics=metrics | of_patches,
        null=null_metrics(truth, training_labels, classes, **grouped),
        raw_ece=slide_metrics(truth, scored.raw, classes, **grouped)["ece"],
    )


def _publish(run: StageRun, scored: Scored, measured: Measured, root: Path, facts: dict[str, str]) -> None:
    predictions = scored.table()
    predictions.to_csv(run.publish("predictions", "predictions.csv"), index=False)
    scored.patches().to_parquet(run.publish("patch_predictions", "patch_predictions.parquet"), index=False)
    content = _content(scored, measured, facts)
    run.publish("metrics", "metrics.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    figures = _figures(scored)
    for name, png in figures.items():
        run.attach(f"{name}.png").write_bytes(png)
    named = f"{len(predictions)} {SPLITS.get(facts['split'], facts['split'])} slides"
    card = scored.classifier.card
    page = render_report(
        title=f"doctogres · {facts['split']}",
        slides=named,
        metrics=measured.metrics,
        null=measured.null,
        raw_ece=measured.raw_ece,
        calibration=card.calibration,
        evidence=scored.classifier.evidence,
        figures={CAPTIONS[name]: png for name, png in figures.items()},
        gallery=partial(gallery_html, walls(scored, root), scored.classes),
        predictions=predictions,
        facts=facts | _model_facts(scored),
    )
    run.publish("report", "report.html").write_text(page, encoding="utf-8")
    run.name(f"evaluate · {facts['split']} · macro-F1 {measured.metrics['macro_f1'].value:.3f}")
    summary = result_sentence(named, measured.metrics, measured.null)
    run.note(f"{summary} report.html holds the figures and the slides to look at.")
    run.log_metrics(_flat(measured))


def _content(scored: Scored, measured: Measured, facts: dict[str, str]) -> dict[str, Any]:
    """metrics.json."""
    return {
        "model": facts["model"],
        "split": facts["split"],
        "slides": len(scored.slides),
        "threshold": scored.classifier.card.calibration.threshold,
        "temperature": scored.classifier.card.calibration.temperature,
        "metrics": {name: estimate.to_dict() for name, estimate in measured.metrics.items()},
        "ece_raw": measured.raw_ece.to_dict(),
        "null": {name: estimate.to_dict() for name, estimate in measured.null.items()},
    }


def _flat(measured: Measured) -> dict[str, float]:
    """Every value under its name, and the ends of the interval of those that are not of one class."""
    named = (
        measured.metrics | {f"null/{name}": one for name, one in measured.null.items()} | {"ece_raw": measured.raw_ece}
    )
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


def walls(scored: Scored, root: Path) -> list[Wall]:
    """The slides to look at: the most wrong ones, and the least sure of the others."""
    probabilities, truth = scored.probabilities, class_indices(scored.slides["label"].tolist(), scored.classes)
    wrong, unsure = choose_slides(
        probabilities[np.arange(len(truth)), truth],
        probabilities.max(axis=1),
        probabilities.argmax(axis=1) == truth,
        wrong=WRONG_SLIDES,
        unsure=UNSURE_SLIDES,
    )
    return [
        Wall("The most wrong", "The true class got the lowest probability.", _shown(scored, wrong, root)),
        Wall(
            "The least sure",
            "The highest probability is the lowest among the other slides.",
            _shown(scored, unsure, root),
        ),
    ]


def _shown(scored: Scored, rows: list[int], root: Path) -> list[ShownSlide]:
    def show(index: int) -> ShownSlide:
        row: Any = next(scored.slides.iloc[[index]].itertuples(index=False))
        rgb, mask = read_slide(root, row)
        answer = scored.answers[index]
        return show_slide(scored.classifier, rgb, mask, answer, slide_id=row.slide_id, truth=row.label)

    return [show(index) for index in rows]
