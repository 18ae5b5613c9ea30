"""train: the patch manifest and a recipe -> curves, the logged model, and the out-of-fold predictions."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from doctogres.errors import ParameterError, UpstreamError
from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.oof import Assessment, assess, gather
from doctogres.files import file_digest, workspace
from doctogres.model.aggregation import ATTENTION
from doctogres.model.card import Seen, group_digest
from doctogres.model.classifier import SlideClassifier, make_classifier
from doctogres.model.ensemble import Ensemble
from doctogres.patches.manifest import read_manifest
from doctogres.presets import replaced
from doctogres.progress import reporter
from doctogres.report.figures import training_curves_figure
from doctogres.serving.logged import log_classifier
from doctogres.settings import AnswerSettings, PatchSettings, Preset, TrainSettings
from doctogres.tracking.datasets import log_table
from doctogres.tracking.fingerprints import fingerprint
from doctogres.tracking.interrupted import take_over
from doctogres.tracking.runs import FINGERPRINT_TAG, StageResult, StageRun, metric_name, run_stage
from doctogres.tracking.upstream import find_artifact
from doctogres.training.left_out import TURNED, WAYS, LeftOut, answer_left_out
from doctogres.training.loop import Epoch, Trained, train_network
from doctogres.training.part import Rows, TrainingPart, training_part
from doctogres.training.processes import is_leader, process_count, shared

NO_PARAMS: Final = "none"
FEATURES: Final = "features"  # folder in the workspace
CURVES: Final = (
    "train_loss", "val_loss", "patch_macro_f1", "slide_macro_f1", "learning_rate",
    "trainable_parameters", "open_blocks", "patches_per_s",
)  # fmt: skip


def read_params(params: str) -> tuple[dict[str, Any], str]:
    """The tuned settings that `params` names (a run of `tune`, a file, `latest`, or `none`), and where they came from."""
    if params == NO_PARAMS:
        return {}, NO_PARAMS
    upstream = find_artifact(params, stage="tune", name="best_params")
    content = yaml.safe_load(upstream.path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("train"), dict):
        raise UpstreamError(
            f"params={params}: {upstream.path.name} has no `train:` settings; give the one that `tune` leaves"
        )
    return content["train"], upstream.uri


@dataclass(frozen=True)
class Job:
    """All that a process needs to train its share."""

    manifest: pd.DataFrame
    data: str
    settings: TrainSettings
    answer: AnswerSettings
    seed: int
    key: str  # names the checkpoints


@dataclass(frozen=True)
class Member:
    """A trained network, and what it says of the fold that was left out."""

    repeat: int
    fold: str
    train: Rows
    left_out: Rows
    trained: Trained  # its network on the CPU
    answers: LeftOut | None  # the leader's alone

    @property
    def name(self) -> str:
        return self.fold if not self.repeat else f"{self.fold} of draw {self.repeat + 1}"


def train(
    *, patches: str, params: str, preset: Preset, seed: int, data: str = "", rerun: bool = False, strict: bool = False
) -> StageResult:
    """Runs or reuses the stage for a patch manifest and a recipe (the preset's with the tuned values put in)."""
    upstream = find_artifact(patches, stage="patch", name="patches")
    tuned, origin = read_params(params)
    recipe = replaced(preset, "train", tuned)
    manifest = read_manifest(upstream.path)
    settings = recipe.train.model_dump() | recipe.answer.model_dump()
    settings |= {"resamples": recipe.evaluate.resamples, "seed": seed, "processes": process_count()}
    inputs = {"patches": file_digest(upstream.path)}
    job = Job(
        manifest, data, recipe.train, recipe.answer, seed, fingerprint("doctogres.stages.train", settings, inputs)
    )
    if rerun:
        _forget(job)

    def body(run: StageRun) -> None:
        part = training_part(manifest, cache=workspace(), data=data)
        _check_folds(recipe.train, len(part.folds))
        run.name(f"train · {recipe.train.backbone}")
        log_table(part.patches.table, name="patches", source=upstream.uri, context="training", targets="label")
        mlflow.set_tag("doctogres.params_from", origin)
        take_over(FINGERPRINT_TAG, job.key, run.run_id, f"Interrupted; run {run.run_id} goes on with the training.")
        (run.attach("settings.yaml")).write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
        if process_count() > 1:
            shared(job, recipe.train)
        _publish(run, part, train_folds(job, part), recipe, seed)

    result = run_stage(
        "train",
        body,
        settings=settings,
        inputs=inputs,
        data_digest=manifest.attrs["data_digest"],
        rerun=rerun,
        strict=strict,
        system_metrics=True,
    )
    if process_count() > 1:
        shared(None, recipe.train)  # the others may go
    _forget(job)
    return result


def follow(*, preset: Preset, **_: Any) -> None:
    """What a process does that does not lead (see `training.processes`): trains what the leader hands it."""
    while (job := shared(None, preset.train)) is not None:
        train_folds(job, training_part(job.manifest, cache=workspace(), data=job.data))


def _check_folds(settings: TrainSettings, folds: int) -> None:
    if settings.oof_folds > folds:
        raise ParameterError(f"oof_folds={settings.oof_folds}: the cohort has {folds} folds; give at most that")
    if settings.repeats > 1 and settings.oof_folds not in (0, folds):
        raise ParameterError(
            f"repeats={settings.repeats}: needs every fold left out once, so that all draws answer the same slides; "
            f"give oof_folds=0, not {settings.oof_folds}"
        )


def train_folds(job: Job, part: TrainingPart) -> list[Member]:
    """Trains a network for each fold that is left out, going on where a killed process stopped."""
    settings = job.settings
    members: list[Member] = []
    for repeat in range(settings.repeats):
        for fold in part.folds[: settings.oof_folds or None]:
            train_rows, left_out = part.rows(fold, repeat=repeat, seed=job.seed)
            checkpoint = workspace() / "checkpoints" / f"{job.key}-{repeat}-{fold}.pt"
            if is_leader() and checkpoint.is_file():
                print(f"train: {fold} goes on where a killed run stopped ({checkpoint})", flush=True)
            # The first network's curves have plain names; the others' are told apart by what was left out.
            prefix = f"draw {repeat + 1}/{fold}/" if repeat else f"{fold}/" if members else ""
            trained = train_network(
                part.samples,
                train_rows,
                left_out,
                classes=len(part.classes),
                settings=settings,
                seed=job.seed,
                on_epoch=partial(_log_epoch, prefix=prefix) if is_leader() else None,
                checkpoint=checkpoint,
                features=workspace() / FEATURES,
                progress=partial(reporting, f"train ({fold} left out)"),
            )
            answers = None
            if is_leader():
                answers = answer_left_out(
                    trained.network,
                    part.samples,
                    train_rows,
                    left_out,
                    classes=len(part.classes),
                    answer=job.answer,
                    seed=job.seed,
                )
            trained.network.cpu()
            members.append(Member(repeat, fold, train_rows, left_out, trained, answers))
    return members


def _log_epoch(epoch: Epoch, *, prefix: str = "") -> None:
    mlflow.log_metrics({metric_name(prefix + name): float(getattr(epoch, name)) for name in CURVES}, step=epoch.epoch)


def reporting(label: str, what: str, unit: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """Opens a report on a loop of a training, for `train_network`; only the leading process shows it."""
    return reporter(f"{label}: {what}", unit) if is_leader() else nullcontext(lambda done, total: None)


def _forget(job: Job) -> None:
    for path in (workspace() / "checkpoints").glob(f"{job.key}-*.pt"):
        path.unlink()


def oof_table(part: TrainingPart, members: Sequence[Member]) -> pd.DataFrame:
    """Patch probabilities of the folds left out: patch_id, slide_id, repeat, fold, label, area, a column per class."""
    tables = []
    for member in members:
        assert member.answers is not None  # the leader's
        rows = part.patches.table.iloc[member.left_out][["patch_id", "slide_id", "label", "area"]]
        rows = rows.assign(repeat=member.repeat, fold=member.fold)
        probabilities = pd.DataFrame(member.answers.patches, columns=part.classes, index=rows.index)
        tables.append(pd.concat([rows, probabilities], axis=1))
    return pd.concat(tables, ignore_index=True)


def assess_members(part: TrainingPart, members: Sequence[Member], recipe: Preset, seed: int) -> Assessment:
    """The networks' scores out of fold, the calibration, and the ways to a slide's answer compared."""
    answered: dict[int, list[tuple[list[str], Mapping[str, npt.NDArray[np.float64]]]]] = {}
    seconds = np.zeros(2)
    for member in members:
        assert member.answers is not None  # the leader's
        answered.setdefault(member.repeat, []).append((member.answers.slide_ids, member.answers.slides))
        seconds += member.answers.seconds
    aggregation = recipe.answer.aggregation
    assessment = assess(
        gather(part.slides[["slide_id", "label", "group"]], list(answered.values())),
        part.classes,
        chosen=TURNED if recipe.answer.tta else aggregation,
        against={way: "mean" for way in WAYS if way != "mean"} | {TURNED: aggregation},
        target_precision=recipe.answer.target_precision,
        resamples=recipe.evaluate.resamples,
        seed=seed,
    )
    assessment.evidence["folds"] = len(members) // recipe.train.repeats
    assessment.evidence["tta_cost"] = float(seconds[1] / seconds[0])
    return assessment


def _publish(run: StageRun, part: TrainingPart, members: Sequence[Member], recipe: Preset, seed: int) -> None:
    first = members[0].trained
    assessment = assess_members(part, members, recipe, seed)
    oof_table(part, members).to_parquet(run.publish("oof_predictions"), index=False)
    assessment.ways.to_csv(run.publish("aggregations"), index=False)
    run.publish("evidence").write_text(json.dumps(assessment.evidence, indent=1), encoding="utf-8")
    history = pd.concat([one.trained.history.assign(repeat=one.repeat, left_out=one.fold) for one in members])
    history.to_csv(run.publish("history"), index=False)
    training_curves_figure(first.history).savefig(run.attach("curves.png"), dpi=120)
    kept = members if recipe.train.ensemble else members[:1]
    run.artifacts["model"] = log_classifier(
        _classifier(part, kept, assessment, recipe),
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


def _classifier(part: TrainingPart, kept: Sequence[Member], assessment: Assessment, recipe: Preset) -> SlideClassifier:
    slides, attrs = part.slides, part.patches.table.attrs
    heads = [one.answers.head for one in kept if one.answers and recipe.answer.aggregation == ATTENTION]
    return make_classifier(
        Ensemble([member.trained.network for member in kept], heads),
        backbone=recipe.train.backbone,
        classes=part.classes,
        class_shares={str(k): v for k, v in slides["label"].value_counts(normalize=True).items()},
        patch=PatchSettings.model_validate(attrs["patch"]),
        answer=recipe.answer,
        calibration=assessment.calibration,
        region_side=round(part.patches.table[["width", "height"]].max(axis=1).median()),
        # The folds left out chose epochs and threshold: every slide but the hold-out's had a say.
        seen=Seen(
            data_digest=attrs["data_digest"],
            pictures=tuple(sorted({attrs["image_md5"][slide] for slide in slides["slide_id"]})),
            groups=tuple(sorted({group_digest(str(group)) for group in slides["group"]})),
        ),
        evidence=assessment.evidence,
    )


def _note(members: Sequence[Member], kept: Sequence[Member], assessment: Assessment, recipe: Preset) -> str:
    silent = [member.name for member in kept if member.trained.single_class]
    alarm = (
        f" ALARM: with {', '.join(silent)} left out it predicts one class for every slide; look at the class shares and the learning rate."
        if silent
        else ""
    )
    epochs = ", ".join(f"{member.trained.best.epoch} ({member.name})" for member in members)
    macro_f1 = Estimate.from_dict(assessment.evidence["metrics"]["macro_f1"])
    calibration = assessment.calibration
    answered = (
        f"a confidence of {calibration.threshold:.2f} is reached for {calibration.coverage:.0%} of the slides, "
        f"and {calibration.precision:.0%} of those answers are right"
        if calibration.precision is not None and calibration.coverage is not None
        else f"no threshold reaches a precision of {calibration.target_precision:.0%}: every slide is marked as not sure"
    )
    return (
        f"Trained {recipe.train.backbone} with {len(members)} fold(s) left out in turn, and kept "
        f"{'all of them as one model' if len(kept) > 1 else 'the network of the first'}; the best epochs were {epochs}. "
        f"Out of fold, {assessment.evidence['slides']} slides reach a macro-F1 of {macro_f1} (the folds chose the epochs; "
        f"the hold-out was not looked at); temperature {calibration.temperature:.2f}, {answered}.{alarm}"
    )
