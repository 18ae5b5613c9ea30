"""evaluate with several models: each is evaluated on the same slides, then every two are compared."""

from collections.abc import Callable, Mapping
from typing import Any

import mlflow

from doctogres.errors import ParameterError
from doctogres.evaluation.pairs import ComparedModel, ComparedModels, compare_pairs
from doctogres.evaluation.unseen import check_unseen
from doctogres.progress import place
from doctogres.registry.champion_comparison import read_evaluation
from doctogres.serving.loading import training_record
from doctogres.slides.selection import short_name, split_name
from doctogres.stages.scored_slides import ScoredSlides
from doctogres.tracking.datasets import log_model_input, log_table
from doctogres.tracking.runs import PART_TAG, SLIDES, SLIDES_TAG, StageResult, StageRun, run_stage
from doctogres.tracking.upstream import find_model, fixed_address, model_digest


def several_addresses(names: list[str]) -> dict[str, str]:
    """The fixed address of every model, by the name that it was given by.

    Raises:
        ParameterError: two names mean the same model.
    """
    addresses: dict[str, str] = {}
    for name in names:
        address = fixed_address(find_model(name))
        if twin := next((other for other, known in addresses.items() if known == address), None):
            raise ParameterError(f"model={twin},{name}: both are {address}; give different models")
        addresses[name] = address
    return addresses


def compare_models(
    addresses: Mapping[str, str],
    chosen: ScoredSlides,
    evaluate_one: Callable[[str], StageResult],
    *,
    settings: Mapping[str, Any],
    resamples: int,
    seed: int,
    rerun: bool,
) -> StageResult:
    """Evaluates every model in a run of its own, and compares every two in one run around them.

    Args:
        addresses: of the models, by their names.
        chosen: the slides.
        evaluate_one: runs or reuses the evaluation of the model at an address.
        settings: what the evaluations depend on, for the fingerprint.
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.
        rerun: repeat it even if a finished run exists.

    Raises:
        DoctogresError: a model was trained on some of the slides (before anything is evaluated), or has other classes.
    """
    for name, address in addresses.items():
        check_unseen(
            chosen.slides,
            training_record(address),
            data_digest=chosen.data_digest,
            split=chosen.split,
            model=name,
        )

    def body(run: StageRun) -> None:
        name = short_name(chosen.split)
        mlflow.set_tag(SLIDES_TAG, str(chosen.root))
        log_table(chosen.slides, name=f"slides ({name})", source=chosen.source, context="evaluation", targets="label")
        results = {}
        for number, (name, address) in enumerate(addresses.items(), 1):
            with place(f"model {number} of {len(addresses)}"):
                results[name] = _part(run, evaluate_one(address))
        for address in addresses.values():
            log_model_input(address)
        found = {name: read_evaluation(result.run_id) for name, result in results.items()}
        pairs = compare_pairs({name: one.predictions for name, one in found.items()}, resamples=resamples, seed=seed)
        compared = ComparedModels(
            split=chosen.split,
            slides=len(chosen.slides),
            groups=chosen.slides["group"].nunique(),
            models=tuple(
                ComparedModel(
                    name=name, model=one.scores.model, evaluation=results[name].run_id, metrics=one.scores.metrics
                )
                for name, one in found.items()
            ),
            pairs=pairs,
        )
        _publish(run, compared)

    return run_stage(
        "compare",
        body,
        settings=settings,
        inputs={f"model_{number}": model_digest(address) for number, address in enumerate(addresses.values(), 1)}
        | chosen.inputs,
        data_digest=chosen.data_digest,
        rerun=rerun,
    )


def _part(run: StageRun, result: StageResult) -> StageResult:
    """Marks a new evaluation as a part of this run, so that `latest` is not the model that happened to be the last."""
    if not result.reused:
        mlflow.MlflowClient().set_tag(result.run_id, PART_TAG, run.run_id)
    return result


def _publish(run: StageRun, compared: ComparedModels) -> None:
    from doctogres.report.pairs import pairs_page

    slides = f"{compared.slides} {split_name(compared.split)} slides"
    files = {"metrics": "metrics.json", "report": "report.html"}
    compared.write(run.attach(files["metrics"]))
    run.attach(files["report"]).write_text(pairs_page(compared, slides=slides), encoding="utf-8")
    run.artifacts |= {name: f"runs:/{run.run_id}/{file}" for name, file in files.items()}
    run.name(f"{len(compared.models)} models", short_name(compared.split))
    said = [f"{pair.model} minus {pair.against}: {pair.difference} ({pair.sentence})" for pair in compared.pairs]
    for sentence in said:
        print(f"evaluate: macro-F1, {sentence}", flush=True)
    run.note(f"Macro-F1 on the same {slides}: {'; '.join(said)}. report.html has all scores.")
    scores = {
        f"macro_f1/model_{number}": one.metrics["macro_f1"].value for number, one in enumerate(compared.models, 1)
    }
    run.log_metrics({SLIDES: compared.slides} | scores)
