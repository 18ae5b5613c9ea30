"""train: patch manifest and settings -> training curves, logged model and out-of-fold predictions."""

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import mlflow
import numpy as np
import pandas as pd
import yaml

from doctogres.errors import UpstreamError
from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.predictions import OUT_OF_FOLD
from doctogres.files import file_digest, workspace
from doctogres.model.weights import check_weights
from doctogres.names import metric_name
from doctogres.patches.manifest import Manifest
from doctogres.presets import replaced
from doctogres.settings import Preset, TrainSettings
from doctogres.tracking.datasets import log_table
from doctogres.tracking.interrupted import take_over
from doctogres.tracking.runs import FINGERPRINT_TAG, StageResult, StageRun, run_stage
from doctogres.tracking.upstream import find_artifact
from doctogres.training.processes import process_count

if TYPE_CHECKING:  # a reused stage does not import torch
    from doctogres.evaluation.oof import Assessment
    from doctogres.training.loop import Epoch
    from doctogres.training.members import LeftOutFold, Member
    from doctogres.training.part import TrainingPart

NO_PARAMS: Final = "none"


def read_params(params: str) -> tuple[dict[str, Any], str]:
    """The tuned settings given by `params` (a run of `tune`, a file, `latest`, or `none`), and their origin."""
    if params == NO_PARAMS:
        return {}, NO_PARAMS
    upstream = find_artifact(params, stage="tune", name="best_params")
    content = yaml.safe_load(upstream.path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("train"), dict):
        raise UpstreamError(
            f"params={params}: {upstream.path.name} has no `train:` settings; give the file written by `tune`"
        )
    return content["train"], upstream.uri


def train(
    *, patches: str, params: str, preset: Preset, seed: int, data: str = "", rerun: bool = False, strict: bool = False
) -> StageResult:
    """Runs or reuses the stage for a patch manifest and the preset with the tuned settings applied."""
    upstream = find_artifact(patches, stage="patch", name="patches")
    tuned, origin = read_params(params)
    recipe = replaced(preset, "train", tuned)
    manifest = Manifest.read(upstream.path)
    settings = recipe.train.model_dump() | recipe.answer.model_dump()
    settings |= {"resamples": recipe.evaluate.resamples, "seed": seed, "processes": process_count()}
    inputs = {"patches": file_digest(upstream.path)}

    def body(run: StageRun) -> None:
        check_weights(recipe.train.backbone, recipe.train.weights)
        _log_normalisation(recipe.train)
        from doctogres.training.members import Job, check_folds, train_members
        from doctogres.training.part import training_part

        part = training_part(manifest, cache=workspace(), data=data)
        check_folds(recipe.train, len(part.folds))
        run.name(f"train · {recipe.train.backbone}")
        log_table(part.patches.table, name="patches", source=upstream.uri, context="training", targets="label")
        mlflow.set_tag("doctogres.params_from", origin)
        take_over(
            FINGERPRINT_TAG, run.fingerprint, run.run_id, f"Interrupted; run {run.run_id} continues the training."
        )
        run.attach("settings.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
        job = Job(manifest, data, recipe.train, seed)
        members = train_members(job, part, on_epoch=partial(_log_epoch, part.folds[0]), rerun=rerun)
        _publish(run, manifest, part, members, recipe, seed)

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


def _log_normalisation(settings: TrainSettings) -> None:
    """Logs how the input is normalised, and says so on the terminal if the weights do not state it themselves."""
    from doctogres.model.encoder import architecture_of

    architecture = architecture_of(settings.backbone, settings.weights, settings.normalisation)
    mlflow.log_param("train.input", str(architecture))
    if architecture.assumed:
        print(
            f"train: the weights have no configuration with a mean and deviation; patches are normalised with {architecture}; "
            "if the weights need others, give normalisation=",
            flush=True,
        )


def _log_epoch(first: str, split: "LeftOutFold", epoch: "Epoch") -> None:
    """Logs an epoch; curves of the first network have plain names, those of the others a prefix."""
    prefix = (
        f"repeat {split.repeat + 1}/{split.fold}/" if split.repeat else f"{split.fold}/" if split.fold != first else ""
    )
    mlflow.log_metrics({metric_name(prefix + name): value for name, value in epoch.curves.items()}, step=epoch.epoch)


def _publish(
    run: StageRun, manifest: Manifest, part: "TrainingPart", members: "Sequence[Member]", recipe: Preset, seed: int
) -> None:
    from doctogres.report.figures import training_curves_figure
    from doctogres.serving.logged import log_classifier
    from doctogres.training.assessment import assess_members, classifier_of, oof_predictions

    first = members[0].trained
    assessment = assess_members(part, members, recipe, seed)
    predictions = oof_predictions(part, members, tta=recipe.answer.tta)
    predictions.write(OUT_OF_FOLD, run.publish("oof_predictions"))
    assessment.aggregations.to_csv(run.publish("aggregations"), index=False)
    run.publish("evidence").write_text(json.dumps(assessment.evidence, indent=1), encoding="utf-8")
    history = pd.concat(
        [member.trained.history.assign(repeat=member.split.repeat, left_out=member.split.fold) for member in members]
    )
    history.to_csv(run.publish("history"), index=False)
    training_curves_figure(first.history).savefig(run.attach("curves.png"), dpi=120)
    kept = members if recipe.train.ensemble else members[:1]
    run.artifacts["model"] = log_classifier(
        classifier_of(manifest, part, kept, assessment, recipe),
        metadata={"classes": part.classes, "backbone": recipe.train.backbone},
    )
    best = [member.trained.best for member in members]
    oof = {name: Estimate.from_dict(fields) for name, fields in assessment.evidence["metrics"].items()}
    calibration = assessment.calibration.model_dump()
    run.log_metrics({
        "best/epoch": best[0].epoch,
        "best/slide_macro_f1": best[0].slide_macro_f1,
        "best/val_loss": best[0].val_loss,
        "oof/slide_macro_f1_mean": float(np.mean([epoch.slide_macro_f1 for epoch in best])),
        **{f"oof/{name}": estimate.value for name, estimate in oof.items() if "/" not in name},
        "oof/macro_f1/low": oof["macro_f1"].low,
        "oof/macro_f1/high": oof["macro_f1"].high,
        **{f"calibration/{name}": value for name, value in calibration.items() if value is not None},
        "tta_cost": assessment.evidence["tta_cost"],
        "members": len(kept),
        "patches_per_s_median": float(first.history["patches_per_s"].median()),
        "single_class": float(any(member.trained.single_class for member in kept)),
    })  # fmt: skip
    run.note(_note(members, kept, assessment, recipe))


def _note(members: "Sequence[Member]", kept: "Sequence[Member]", assessment: "Assessment", recipe: Preset) -> str:
    one_class = [member.split.name for member in kept if member.trained.single_class]
    warning = (
        f" Warning: the network for {', '.join(one_class)} predicts the same class for every slide; "
        "check the class balance and the learning rate."
        if one_class
        else ""
    )
    epochs = ", ".join(f"{member.trained.best.epoch} ({member.split.name})" for member in members)
    macro_f1 = Estimate.from_dict(assessment.evidence["metrics"]["macro_f1"])
    calibration = assessment.calibration
    abstention = (
        f"{calibration.coverage:.0%} of the slides reach the confidence threshold of {calibration.threshold:.2f}, "
        f"and {calibration.precision:.0%} of those predictions are correct"
        if calibration.precision is not None and calibration.coverage is not None
        else f"no threshold reaches a precision of {calibration.target_precision:.0%}, so the model abstains on every slide"
    )
    return (
        f"Trained {recipe.train.backbone} with {len(members)} fold(s) left out in turn, and kept "
        f"{'all networks as one model' if len(kept) > 1 else 'the first network'}; the best epochs were {epochs}. "
        f"Out-of-fold macro-F1 on {assessment.evidence['slides']} slides: {macro_f1} (these folds also chose the epochs; "
        f"the hold-out was not used). Temperature {calibration.temperature:.2f}; {abstention}.{warning}"
    )
