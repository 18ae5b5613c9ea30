"""train: patch manifest and settings -> training curves, logged model and out-of-fold predictions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import mlflow
import numpy as np
import pandas as pd
import yaml

from doctogres.catalogue import SECOND
from doctogres.errors import UpstreamError
from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.predictions import OUT_OF_FOLD
from doctogres.files import file_digest, workspace
from doctogres.model.weights import check_weights
from doctogres.names import class_key, interval, metric_name
from doctogres.patches.manifest import Manifest
from doctogres.presets import replaced
from doctogres.settings import Preset
from doctogres.spreadsheets import write_csv
from doctogres.tracking.datasets import log_table
from doctogres.tracking.interrupted import take_over
from doctogres.tracking.runs import FINGERPRINT_TAG, SLIDES, StageResult, StageRun, run_stage
from doctogres.tracking.upstream import find_artifact
from doctogres.training.processes import process_count

if TYPE_CHECKING:  # a reused stage does not import torch
    from doctogres.training.assessment import Kept
    from doctogres.training.folds import LeftOutFold, Member, Parts
    from doctogres.training.loop import Epoch
    from doctogres.training.members import Job
    from doctogres.training.sources import Source

NO_PARAMS: Final = "none"
TUNED_SECTIONS: Final = ("train", "answer")
STUDY_FIELDS: Final = ("trials", "slide_macro_f1", "nested")  # of best_params.yaml, for reports


@dataclass(frozen=True)
class Tuned:
    """The settings that `tune` chose, and how.

    Attributes:
        settings: preset section -> settings; empty without a study.
        origin: where they come from.
        study: number of trials, the winner's score and its nested estimate, for reports; empty without a study.
    """

    settings: dict[str, dict[str, Any]]
    origin: str
    study: dict[str, Any] = field(default_factory=dict)

    def applied_to(self, preset: Preset) -> Preset:
        """The preset with these settings."""
        for section in TUNED_SECTIONS:
            preset = replaced(preset, section, self.settings.get(section, {}))
        return preset


def read_params(params: str) -> Tuned:
    """The tuned settings given by `params` (a run of `tune`, a file, `latest`, or `none`)."""
    if params == NO_PARAMS:
        return Tuned({}, NO_PARAMS)
    upstream = find_artifact(params, stage="tune", name="best_params")
    content = yaml.safe_load(upstream.path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("train"), dict):
        raise UpstreamError(
            f"params={params}: {upstream.path.name} has no `train:` settings; give the file written by `tune`"
        )
    sections = {section: content.get(section) or {} for section in TUNED_SECTIONS}
    return Tuned(sections, upstream.uri, {name: content[name] for name in STUDY_FIELDS if name in content})


def train(
    *, patches: str, params: str, preset: Preset, seed: int, data: str = "", rerun: bool = False, strict: bool = False
) -> StageResult:
    """Runs or reuses the stage for a patch manifest and the preset with the tuned settings applied."""
    upstream = find_artifact(patches, stage="patch", name="patches")
    tuned = read_params(params)
    recipe = tuned.applied_to(preset)
    manifest = Manifest.read(upstream.path)
    settings = recipe.train.model_dump() | recipe.answer.model_dump()
    settings |= {"resamples": recipe.evaluate.resamples, "seed": seed, "processes": process_count()}
    inputs = {"patches": file_digest(upstream.path)}

    def body(run: StageRun) -> None:
        for backbone, weights in recipe.train.encoders:
            check_weights(backbone, weights)
        from doctogres.training.folds import check_folds
        from doctogres.training.members import Job
        from doctogres.training.part import training_parts
        from doctogres.training.sources import chosen_views, sources_of

        sources = sources_of(recipe, manifest.patch)
        _log_normalisation(sources)
        views = chosen_views(recipe.train, manifest.patch)
        parts = training_parts(manifest, views, cache=workspace(), data=data)
        first = parts[views[0]]
        check_folds(recipe.train, len(first.folds), named=bool(manifest.fold_names))
        how = f"{recipe.train.recipe} {', '.join(map(str, sources))}"
        run.name("", how)
        log_table(first.patches.table, name="patches", source=upstream.uri, context="training", targets="label")
        mlflow.set_tag("doctogres.params_from", tuned.origin)
        take_over(
            FINGERPRINT_TAG, run.fingerprint, run.run_id, f"Interrupted; run {run.run_id} continues the training."
        )
        run.attach("settings.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
        job = Job(manifest, data, recipe, seed)
        result = _probe(job, sources, parts) if recipe.train.recipe == "probe" else _finetune(job, parts, rerun=rerun)
        _publish(run, job, parts, result, tuned, how)

    result = run_stage(
        "train",
        body,
        settings=settings,
        inputs=inputs,
        data_digest=manifest.data_digest,
        rerun=rerun,
        strict=strict,
        system_metrics=True,
    )
    if process_count() > 1:
        from doctogres.training.members import dismiss

        dismiss(recipe.train)
    return result


def _log_normalisation(sources: "Sequence[Source]") -> None:
    """Logs how the input is normalised, and says so on the terminal if the weights do not state it themselves."""
    stated = {source.backbone: source.architecture for source in sources}
    mlflow.log_param("train.input", "; ".join(map(str, stated.values())))
    for backbone, architecture in stated.items():
        if architecture.assumed:
            print(
                f"train: the weights of {backbone} have no configuration with a mean and deviation; patches are normalised with "
                f"{architecture}; if the weights need others, give normalisation=",
                flush=True,
            )


@dataclass(frozen=True)
class Result:
    """What a recipe leaves: out-of-fold predictions, the networks that are kept, and a table of its fits.

    Attributes:
        members: the predictions of every left-out fold and source.
        kept: sources with the networks of the model.
        final: the same of the model that was trained on the hold-out, too; empty without one.
        history: a row per epoch of every network, or per fit of the probe.
    """

    members: "Sequence[Member]"
    kept: "Kept"
    final: "Kept"
    history: pd.DataFrame


def _probe(job: "Job", sources: "Sequence[Source]", parts: "Parts") -> Result:
    from doctogres.training.folds import split_folds
    from doctogres.training.members import load_probes
    from doctogres.training.probes import fits

    recipe, seed = job.recipe, job.seed
    probes = load_probes(job, parts)
    members = probes.members(split_folds(recipe.train, parts, sources, seed))
    final: Kept = []
    if recipe.train.final == "all":
        final = load_probes(replace(job, holdout=True), parts).kept(holdout=True)
    return Result(members, probes.kept(), final, fits(members, parts))


def _finetune(job: "Job", parts: "Parts", *, rerun: bool) -> Result:
    from doctogres.training.assessment import kept_networks
    from doctogres.training.members import train_members

    members = train_members(job, parts, on_epoch=partial(_log_epoch, str(next(iter(parts)))), rerun=rerun)
    final: Kept = []
    if job.settings.final == "all":
        everything = replace(job, holdout=True)
        trained = train_members(everything, parts, on_epoch=lambda fold, epoch: None, rerun=rerun)
        final = kept_networks(trained, job.recipe)
    history = pd.concat([
        member.trained.history.assign(
            source=str(member.split.source), repeat=member.split.repeat, left_out=member.split.fold
        )
        for member in members
        if member.trained
    ])  # fmt: skip
    return Result(members, kept_networks(members, job.recipe), final, history)


def _log_epoch(view: str, split: "LeftOutFold", epoch: "Epoch") -> None:
    """Logs an epoch, in a family of curves per network: `fold0/val_loss`."""
    prefix = f"repeat {split.repeat + 1}/{split.fold}/" if split.repeat else f"{split.fold}/"
    if split.source.view != view:
        prefix = f"{split.source.view}/{prefix}"
    mlflow.log_metrics({metric_name(prefix + name): value for name, value in epoch.curves.items()}, step=epoch.epoch)


def _publish(run: StageRun, job: "Job", parts: "Parts", result: Result, tuned: Tuned, how: str) -> None:
    from doctogres.report.training import training_note
    from doctogres.serving.logged import log_classifier
    from doctogres.training.assessment import assess_members, classifier_of, oof_predictions
    from doctogres.training.left_out_sites import left_out_sites
    from doctogres.training.reference import reference_of

    recipe, members = job.recipe, result.members
    assessment = assess_members(parts, members, recipe, job.seed)
    assessment.evidence["study"] = tuned.study
    reference = reference_of(job.manifest, parts, members, assessment, recipe.answer)
    assessment.evidence["reference"] = reference.to_dict("list")
    sites = left_out_sites(job.manifest, parts, members, assessment, recipe, job.seed)
    assessment.evidence["left_out"] = [site.model_dump() for site in sites]
    oof_predictions(parts, members, recipe.answer).write(OUT_OF_FOLD, run.publish("oof_predictions"))
    write_csv(assessment.aggregations, run.publish("aggregations"))
    run.publish("evidence").write_text(json.dumps(assessment.evidence, indent=1), encoding="utf-8")
    write_csv(result.history, run.publish("history"))
    classifier = classifier_of(job.manifest, parts, result.kept, assessment, recipe)
    metadata = {"classes": list(classifier.card.classes), "backbone": recipe.train.backbone}
    print("train: storing the model", flush=True)
    run.artifacts["model"] = log_classifier(classifier, metadata=metadata)
    if result.final:
        everything = classifier_of(job.manifest, parts, result.final, assessment, recipe, holdout=True)
        run.artifacts[SECOND] = log_classifier(everything, metadata=metadata, holdout=True)
    oof = {name: Estimate.from_dict(fields) for name, fields in assessment.evidence["metrics"].items()}
    calibration = assessment.calibration.model_dump(exclude={"target_precision", "slides"})
    of_model = {
        **{f"oof/{name}": estimate.value for name, estimate in oof.items() if "/" not in name},
        **interval("oof/macro_f1", oof["macro_f1"].low, oof["macro_f1"].high),
    }
    run.log_metrics(of_model, model_id=run.artifacts["model"].removeprefix("models:/"))
    run.log_metrics({
        **{f"oof/calibration_{name}": value for name, value in calibration.items() if value is not None},
        "tta_cost": assessment.evidence["tta_cost"],
        SLIDES: assessment.evidence["slides"],
        **{f"oof/left_out/{class_key(one.value)}": one.metrics["macro_f1"].value for one in sites if one.metrics},
        **_training_metrics(run, result),
    })  # fmt: skip
    mlflow.log_param("train.members", sum(len(ensemble.members) for _, ensemble in result.kept))
    run.name(f"{oof['macro_f1'].value:.3f}", how)
    sources = [source for source, _ in result.kept]
    run.note(training_note(members, sources, assessment, recipe, second=bool(result.final)))


def _training_metrics(run: StageRun, result: Result) -> dict[str, float]:
    """Draws the curves of the fine-tuned networks, and returns metrics of all of them; none for a probe."""
    from doctogres.report.figures import training_curves_figure

    trained = [member.trained for member in result.members if member.trained]
    if not trained:
        return {}
    training_curves_figure([network.history for network in trained]).savefig(run.attach("curves.png"), dpi=120)
    return {
        "oof/slide_macro_f1_mean": float(np.mean([network.best.slide_macro_f1 for network in trained])),
        "patches_per_s_median": float(trained[0].history["patches_per_s"].median()),
        "single_class": float(any(network.single_class for network in trained)),
    }
