"""evaluate: a model and a split -> metrics with intervals and null models, figures, a report."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import mlflow
import pandas as pd
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT

from doctogres.catalogue import LOCAL, SPARK
from doctogres.evaluation.given_answers import ANSWERED, GivenAnswers, changes, join_answers, logged_slides, score_given
from doctogres.evaluation.metrics import PER_CLASS, class_indices
from doctogres.evaluation.predictions import PATCHES
from doctogres.evaluation.scores import Scores
from doctogres.evaluation.unseen import check_unseen
from doctogres.files import digest_of
from doctogres.model.answer import SlideAnswer
from doctogres.names import artifact_name, class_key, interval
from doctogres.progress import counted
from doctogres.records.slide import done_in, slides_of
from doctogres.serving.answers import read_answers
from doctogres.serving.loading import checked_folder, load_classifier, training_record
from doctogres.settings import Preset, listed
from doctogres.slides.labels import column_names
from doctogres.slides.selection import short_name, split_key, split_name
from doctogres.slides.splits import HOLDOUT
from doctogres.slides.subgroups import AUTO, SUBGROUP, subgroup_columns
from doctogres.spreadsheets import write_csv
from doctogres.stages.scored_slides import scored_slides
from doctogres.stages.shards import chosen as chosen_engine
from doctogres.tracking.datasets import log_model_input, log_table
from doctogres.tracking.runs import SLIDES, SLIDES_TAG, StageResult, StageRun, run_stage
from doctogres.tracking.upstream import find_model, fixed_address, model_digest

if TYPE_CHECKING:  # a reused run does not load torch
    from doctogres.evaluation.scoring import Scored

OF_CLASS: Final = re.compile(rf"^(?P<kind>((patch|group)/)?({'|'.join(PER_CLASS)})/)(?P<label>.*)", re.DOTALL)

ON_OTHER_SPLITS: Final = ("macro_f1", "accuracy")  # on the model's page, with a prefix


def evaluate(
    *,
    model: str,
    cohort: str,
    split: str,
    preset: Preset,
    seed: int,
    ignore_columns: str = "",
    subgroups: str = AUTO,
    annotations: str = "",
    mpp: str = "",
    geojson: bool = False,
    answers: str = "",
    data: str = "",
    engine: str = LOCAL,
    spark_master: str = "",
    rerun: bool = False,
) -> StageResult:
    """Evaluates a model on a split, or reuses a finished run; several, separated by commas, are also compared."""
    names = [model] if Path(model).exists() else listed(model)
    of_slides = {
        "data": data,
        "ignore_columns": ignore_columns,
        "subgroups": subgroups,
        "annotations": annotations,
        "mpp": mpp,
    }
    if len(names) > 1:
        others = {"answers": answers, "geojson": geojson}
        where = {"engine": engine, "spark_master": spark_master, "rerun": rerun}
        return _several(names, split, cohort, preset, seed, of_slides, others, where)
    address = fixed_address(find_model(model))
    chosen = scored_slides(split, cohort, **of_slides)
    columns = subgroup_columns(chosen.slides, subgroups)
    log = read_answers(answers) if answers else None
    given = None if log is None else join_answers(chosen.with_digests(), log)
    logged = 0 if log is None else logged_slides(log)
    check_unseen(
        chosen.slides, training_record(address), data_digest=chosen.data_digest, split=split
    )  # before a run is opened
    slides, root, resamples = chosen.slides, chosen.root, preset.evaluate.resamples

    def body(run: StageRun) -> None:
        from doctogres.evaluation.answered import Answering
        from doctogres.evaluation.scored_groups import scored_groups
        from doctogres.evaluation.scoring import Scored, answer_of, measure, score

        mlflow.set_tag(SLIDES_TAG, str(root))
        name = short_name(chosen.split)
        log_table(slides, name=f"slides ({name})", source=chosen.source, context="evaluation", targets="label")
        classifier = load_classifier(address)
        class_indices(slides["label"].tolist(), classifier.card.classes)  # an unknown label is found before the work
        model_id = log_model_input(address)
        rows = slides_of(slides)
        if engine == SPARK:
            work = Answering(root, checked_folder(address))
            made = chosen_engine(engine, spark_master, hashed=False)(work, rows)
            records = (one.record for one in done_in(made, work.record))
            answered: Iterator[SlideAnswer] = map(answer_of, rows, records)
        else:
            answered = score(classifier, slides, root)
        said = list(counted(answered, name, "slides", len(slides)))
        scored = Scored(slides, said, classifier)
        options = {"resamples": resamples, "seed": seed}
        groups = scored_groups(slides, said, classifier.card, **options)
        scores = measure(
            scored,
            chosen.training_labels,
            model=address,
            split=chosen.split,
            groups=groups,
            subgroups=columns,
            **options,
        )
        if given is not None:
            scores = scores.model_copy(update={"answers": _review(run, given, scored, logged=logged, **options)})
        if groups:
            groups.table.write_csv(run.publish("groups"))
        facts = {
            "model": address,
            "split": chosen.split,
            "data digest": chosen.data_digest,
            "seed": str(seed),
            "resamples": str(resamples),
        }
        _publish(run, scored, scores, root, facts)
        if geojson:
            _attach_outlines(run, scored, root, address)
        _log_scores(run, scores, model_id)

    return run_stage(
        "evaluate",
        body,
        settings=preset.evaluate.model_dump()
        | {
            "split": chosen.split,
            "seed": seed,
            "geojson": geojson,
            "subgroups": ",".join(name.removeprefix(SUBGROUP) for name in columns),
            "ignore_columns": ",".join(column_names(ignore_columns)),
            "annotations": annotations,
            "mpp": mpp,
        },
        inputs={"model": model_digest(address)}
        | chosen.inputs
        | ({} if given is None else {"answers": digest_of([given.to_csv(index=False), logged])}),
        data_digest=chosen.data_digest,
        rerun=rerun,
    )


def _review(run: StageRun, given: pd.DataFrame, scored: "Scored", **options: Any) -> GivenAnswers:
    """Scores the answers of an answer log, and says which of them differ from the model's."""
    review, table = score_given(given, scored.of_slides(), **options)
    write_csv(table, run.publish("answers"))
    print(" ".join(filter(None, [f"evaluate: {review.sentence}", changes(table)])), flush=True)
    return review


def _several(
    names: list[str],
    split: str,
    cohort: str,
    preset: Preset,
    seed: int,
    of_slides: Mapping[str, str],
    others: Mapping[str, Any],
    where: Mapping[str, Any],
) -> StageResult:
    """Evaluates several models on the same slides, and compares them."""
    from doctogres.stages.compare import compare_models, several_addresses

    addresses = several_addresses(names)
    chosen = scored_slides(split, cohort, **of_slides)

    def one(address: str) -> StageResult:
        given = {**of_slides, **others, **where}
        return evaluate(model=address, cohort=cohort, split=split, preset=preset, seed=seed, **given)

    settings = preset.evaluate.model_dump() | {"split": chosen.split, "seed": seed, **of_slides, **others}
    options = {"resamples": preset.evaluate.resamples, "seed": seed}
    return compare_models(addresses, chosen, one, settings=settings, rerun=where["rerun"], **options)


def _publish(run: StageRun, scored: "Scored", scores: Scores, root: Path, facts: dict[str, str]) -> None:
    from doctogres.report.evaluation import evaluation_figures, evaluation_page
    from doctogres.report.report import result_sentence

    predictions, figures = scored.of_slides(), evaluation_figures(scored)
    predictions.write_csv(run.publish("predictions"))
    scored.of_patches().write(PATCHES, run.publish("patch_predictions"))
    scores.write(run.publish("metrics"))
    for name, png in figures.items():
        run.attach(f"{name}.png").write_bytes(png)
    slides = f"{scores.slides} {split_name(scores.split)} slides"
    active = mlflow.active_run()
    commit = active.data.tags.get(MLFLOW_GIT_COMMIT, "") if active else ""
    page = evaluation_page(scored, scores, predictions, figures, slides=slides, root=root, facts=facts, commit=commit)
    run.publish("report").write_text(page, encoding="utf-8")
    run.name(f"{scores.metrics['macro_f1'].value:.3f}", short_name(scores.split))
    summary = result_sentence(slides, scores.metrics, scores.null)
    run.note(f"{summary} report.html contains the figures and example slides.")


def _attach_outlines(run: StageRun, scored: "Scored", root: Path, model: str) -> None:
    from doctogres.cleaning.reading import read_slide
    from doctogres.model.outlined import outlined_answer

    answers = counted(scored.answers, "outlines", "slides", len(scored.answers))
    for row, answer in zip(scored.slides.itertuples(index=False), answers, strict=True):
        slide_id = str(row.slide_id)
        text = outlined_answer(slide_id, answer, read_slide(root, row)[:2], scored.classes, model=model)
        run.attach(f"geojson/{artifact_name(slide_id)}.geojson").write_text(text, encoding="utf-8")


def _log_scores(run: StageRun, scores: Scores, model_id: str | None) -> None:
    """Logs the metrics to the run and to its model, whose metrics without a prefix are those on the hold-out."""
    metrics = {**_flat(scores), SLIDES: scores.slides}
    held = scores.split == HOLDOUT
    run.log_metrics(metrics, model_id=model_id if held else None)
    if model_id and not held:
        split = split_key(scores.split)
        named = {f"{split}/{name}": metrics[name] for name in ON_OTHER_SPLITS}
        named |= interval(f"{split}/macro_f1", scores.metrics["macro_f1"].low, scores.metrics["macro_f1"].high)
        run.log_metrics(named, model_id=model_id)


def _flat(scores: Scores) -> dict[str, float]:
    """All values by name, and the ends of the intervals except those of single classes."""
    estimates = scores.metrics | {f"null/{name}": null for name, null in scores.null.items()}
    estimates["ece_raw"] = scores.ece_raw
    ends = {
        end: value
        for name, estimate in estimates.items()
        if not OF_CLASS.fullmatch(name)
        for end, value in interval(name, estimate.low, estimate.high).items()
    }
    others = {
        f"subgroup/{one.column}/{class_key(one.value)}": one.metrics["macro_f1"].value
        for one in scores.subgroups
        if one.metrics
    }
    if scores.answers and scores.answers.as_given and scores.answers.difference:
        others |= {
            "answers/macro_f1": scores.answers.as_given.value,
            "answers/difference": scores.answers.difference.value,
            "answers/found": scores.answers.found.get(ANSWERED, 0) / scores.answers.slides,
        }
    return {OF_CLASS.sub(_keyed, name): estimate.value for name, estimate in estimates.items()} | ends | others


def _keyed(found: re.Match[str]) -> str:
    return found["kind"] + class_key(found["label"])
