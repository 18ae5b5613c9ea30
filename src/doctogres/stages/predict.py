"""predict: a model and unlabelled slides -> submission.csv, predictions.csv and overlays."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from doctogres.catalogue import LOCAL, SPARK
from doctogres.drawing import class_colours, overlay
from doctogres.errors import CohortError, DoctogresError
from doctogres.evaluation.predictions import PATCHES, PREDICTED, Predictions
from doctogres.files import digest_of, file_digest, workspace
from doctogres.model.answer import SlideAnswer
from doctogres.names import artifact_name
from doctogres.progress import counted
from doctogres.records.share import Share
from doctogres.records.slide import Slide, slides_of
from doctogres.records.store import Shares
from doctogres.remote import send
from doctogres.settings import Preset
from doctogres.slides.cohort import (
    content_digest,
    file_hashes,
    find_slides,
    find_test_groups,
    open_cohort,
    pairing_files,
    slide_files,
)
from doctogres.slides.formats import max_pixels
from doctogres.slides.images import encode_png
from doctogres.slides.reasons import by_reason
from doctogres.slides.resolution import parsed_mpp
from doctogres.spreadsheets import write_csv
from doctogres.stages.shards import chosen, made_elsewhere, make_share
from doctogres.tracking.datasets import log_model_input, log_table
from doctogres.tracking.places import fetch
from doctogres.tracking.runs import PROBLEMS, SLIDES, StageResult, StageRun, run_stage
from doctogres.tracking.sources import code_digest
from doctogres.tracking.store import connect
from doctogres.tracking.upstream import find_model, fixed_address, model_digest

if TYPE_CHECKING:  # a reused run does not load what classifies
    from doctogres.model.card import ClassifierCard


def predict(
    *,
    data: str,
    model: str,
    preset: Preset,
    output: str = "",
    annotations: str = "",
    mpp: str = "",
    geojson: bool = False,
    shard: str = "",
    engine: str = LOCAL,
    spark_master: str = "",
    rerun: bool = False,
    strict: bool = False,
) -> StageResult:
    """Runs or reuses the stage, or makes a share of it.

    `output`, a path or an address, gets a copy of submission.csv, and predictions.csv lies beside it.
    """
    of_unstated, share = parsed_mpp(mpp), Share.parse(shard)
    root = open_cohort(data, workspace=workspace())
    table = find_slides(root, labelled=False, annotations=annotations)
    if share and not Path(model).is_dir():
        connect()  # no other share needs the store
    address = fixed_address(find_model(model))
    slides, outlined = slides_of(table), address if geojson else ""
    joined = None
    if shard or engine == SPARK:
        shares = _shares(root, slides, address, mpp=of_unstated, outlined=outlined)
        where = chosen(engine, spark_master)
        if share:
            return make_share(shares, share, where, rerun=rerun, strict=strict)
        joined = made_elsewhere(shares, shard, where, rerun=rerun)
    groups = find_test_groups(root)
    if joined:
        hashes = file_hashes(root, pairing_files(root)) | joined.hashes
    else:
        hashes = file_hashes(root, [*pairing_files(root), *slide_files(root, table)])
    digest = content_digest(hashes)

    def body(run: StageRun) -> None:
        from doctogres.evaluation.answered import answered
        from doctogres.evaluation.unlabelled import row_of
        from doctogres.serving.loading import classifier_card, load_classifier

        if joined:
            card, given = classifier_card(address), iter(joined.records.values())
        else:
            classifier = load_classifier(address)
            card = classifier.card
            given = answered(classifier, slides, root, mpp=of_unstated, outlined=outlined)
        log_model_input(address)
        rows, probabilities, answers, grouped = [], [], {}, {}
        for slide, one in zip(slides, counted(given, "", "slides", len(slides)), strict=True):
            answer = one if isinstance(one, DoctogresError) else one.answer
            said, shares_of_classes = row_of(slide, answer, card)
            rows.append(said)
            probabilities.append(shares_of_classes)
            if slide.slide_id in groups:
                grouped[slide.slide_id] = answer
            if not isinstance(one, DoctogresError):
                answers[slide.slide_id] = one.answer
                if len(answers) <= preset.predict.overlays:
                    _overlay(run, slide, one.answer, root, card.classes)
                if one.outlines:
                    path = run.attach(f"geojson/{artifact_name(slide.slide_id)}.geojson")
                    path.write_text(one.outlines, encoding="utf-8")
        predictions = Predictions(pd.DataFrame(rows), card.classes, np.stack(probabilities))
        _publish(run, predictions, answers, address, preset.predict.unanswered)
        _publish_groups(run, groups, grouped, card)
        log_table(
            table.drop(columns=["label", "group"]), name="slides (unlabelled)", source=str(data), context="prediction"
        )

    result = run_stage(
        "predict",
        body,
        settings=preset.predict.model_dump()
        | {"max_pixels": max_pixels(), "annotations": annotations, "geojson": geojson, "mpp": mpp},
        inputs={"data": digest, "model": model_digest(address)} | ({"groups": digest_of(groups)} if groups else {}),
        data_digest=digest,
        rerun=rerun,
        strict=strict,
    )
    if output:
        send(fetch(result.artifacts["submission"]), output)
        send(fetch(result.artifacts["table"]), table_beside(output))
        if "groups" in result.artifacts:
            send(fetch(result.artifacts["groups"]), table_beside(output, "group_predictions"))
    return result


def _shares(root: Path, slides: Sequence[Slide], address: str, *, mpp: float | None, outlined: str) -> Shares:
    """What shares answer depends on the model's content, wherever each of them finds it, and not on its address."""
    from doctogres.evaluation.answered import Answering
    from doctogres.model.classifier import CARD_FILE
    from doctogres.serving.loading import checked_folder

    folder = checked_folder(address)
    settings = {"model": file_digest(folder / CARD_FILE), "mpp": mpp, "outlined": outlined, "max_pixels": max_pixels()}
    work = Answering(root, folder, mpp, outlined)
    return Shares(workspace(), "predict", work, slides, settings, code_digest(Answering.__module__))


def table_beside(output: str, name: str = "predictions") -> str:
    """Where the copy of predictions.csv goes: beside `submission.csv` under its own name, else `NAME_predictions.csv`."""
    stem = Path(output).stem
    beside = f"{name}.csv" if stem == "submission" else f"{stem}_{name}.csv"
    return output.removesuffix(Path(output).name) + beside


def _publish(
    run: StageRun, predictions: Predictions, answered: Mapping[str, SlideAnswer], address: str, unanswered: str
) -> None:
    from doctogres.evaluation.scoring import patch_predictions
    from doctogres.evaluation.unlabelled import GUESSED, readable, submitted

    table = predictions.rows
    write_csv(readable(predictions, address), run.publish("table"))
    guessed = table[table["outcome"] == GUESSED]
    reasons = by_reason(zip(guessed["slide_id"], guessed["reason"], strict=True))
    _refuse(run, len(table), len(guessed), reasons, unanswered)
    submission = submitted(predictions, unanswered)
    write_csv(submission, run.publish("submission"))
    predictions.write(PREDICTED, run.publish("predictions"))
    patches = patch_predictions(answered, answered.values(), predictions.classes)
    patches.write(PATCHES, run.publish("patches"))
    run.name(f"{len(table)} slides")
    own = table.loc[table["outcome"] != GUESSED, "label"].value_counts()
    counts = ", ".join(f"{label} {count}" for label, count in own.items())
    said = summary(len(table), len(guessed), int((~table["abstained"]).sum()), unanswered)
    run.note(f"{said} Model: {address}. Answers: {counts}." + "".join(f" {line}." for line in reasons))
    for line in reasons:
        print(f"predict: without an answer: {line}", flush=True)
    print(f"predict: {said}", flush=True)
    run.log_metrics({SLIDES: len(table), PROBLEMS: len(guessed), "patches": float(table["n_patches"].sum())})


def _publish_groups(
    run: StageRun,
    groups: Mapping[str, str],
    answers: Mapping[str, SlideAnswer | DoctogresError],
    card: "ClassifierCard",
) -> None:
    """The answers for the groups that test_labels.csv names, if the model gives any."""
    from doctogres.evaluation.scored_groups import group_answers, group_table

    if not answers:
        return
    found = group_answers([groups[slide] for slide in answers], list(answers), answers.values(), card)
    if not found:
        print("predict: the model gives no answer for groups; its evidence.json says why (group_answer)", flush=True)
        return
    group_table(found, card.classes).write_csv(run.publish("groups"))
    sure = sum(not answer.reasons for answer in found.values())
    print(f"predict: {len(found)} groups answered ({sure} of them sure): group_predictions.csv", flush=True)


def _refuse(run: StageRun, slides: int, guessed: int, reasons: Sequence[str], unanswered: str) -> None:
    """Fails a run that has no answer at all, or not for every slide with `unanswered=error`; its predictions.csv is kept."""
    if guessed == slides or (guessed and unanswered == "error"):
        run.store_files()
        what = (
            f"none of the {slides} slides could be used"
            if guessed == slides
            else f"{guessed} of {slides} slides could not be used and unanswered=error"
        )
        raise CohortError(f"predict: {what}: {'; '.join(reasons)}; predictions.csv of run {run.run_id} lists them all")


def summary(slides: int, guessed: int, sure: int, unanswered: str) -> str:
    """How many slides were answered, in a sentence: `17 of 20 slides answered (12 of them sure), 3 guessed.`."""
    left = {
        "majority": f"{guessed} guessed (submission.csv holds the most frequent class of the training slides)",
        "empty": f"{guessed} left empty in submission.csv",
    }
    lost = f", {left[unanswered]}" if guessed else ""
    return f"{slides - guessed} of {slides} slides answered ({sure} of them sure){lost}."


def _overlay(run: StageRun, slide: Slide, answer: SlideAnswer, root: Path, classes: Sequence[str]) -> None:
    from doctogres.evaluation.answered import pixels_of

    pixels, mask, _ = pixels_of(root, slide)
    colours = class_colours(classes)
    boxes = answer.patches[["x", "y", "width", "height"]].to_numpy(np.int64)
    texts = [f"{share:.2f}" for share in answer.patch_probabilities.max(axis=1)]
    shades = [colours[label] for label in answer.patches["label"]]
    picture = overlay(pixels.working, boxes, texts, shades, mask, pixels.size)
    run.attach(f"overlays/{artifact_name(slide.slide_id)}.png").write_bytes(encode_png(picture))
