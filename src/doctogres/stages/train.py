"""train: the patch manifest and a recipe -> curves, the logged model, and the out-of-fold predictions."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from doctogres.datasets import log_table
from doctogres.errors import CohortError, ParameterError, UpstreamError
from doctogres.evaluation.figures import training_curves_figure
from doctogres.interrupted import take_over
from doctogres.patches import PatchSet, load_patches, read_manifest
from doctogres.progress import reporter
from doctogres.serving.classifier import make_classifier
from doctogres.serving.logged import log_classifier
from doctogres.settings import Preset, TrainSettings, replaced
from doctogres.splits import HOLDOUT, check_no_leakage
from doctogres.stages import workspace
from doctogres.tracking import FINGERPRINT_TAG, StageResult, StageRun, file_digest, fingerprint, run_stage
from doctogres.training.loop import Epoch, Samples, Trained, train_network
from doctogres.training.processes import is_leader, process_count, shared
from doctogres.upstream import find_artifact

NO_PARAMS: Final = "none"
FEATURES: Final = "features"  # folder in the workspace
CURVES: Final = (
    "train_loss", "val_loss", "patch_macro_f1", "slide_macro_f1", "learning_rate",
    "trainable_parameters", "open_blocks", "patches_per_s",
)  # fmt: skip


@dataclass(frozen=True)
class TrainingPart:
    """The patches that training may see, with the class order and the folds."""

    patches: PatchSet
    samples: Samples
    classes: list[str]
    folds: list[str]

    def rows(self, fold: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Row numbers to train on, and of the fold left out; the hold-out is in neither."""
        column = self.patches.table["fold"]
        train = np.flatnonzero((column != fold) & (column != HOLDOUT)).astype(np.int64)
        return train, np.flatnonzero(column == fold).astype(np.int64)


def training_part(manifest: pd.DataFrame, data: str = "") -> TrainingPart:
    """The kept patches as samples; refuses a manifest whose groups stand on two sides of the split."""
    patches = load_patches(manifest, cache=workspace(), cohort_root=Path(data) if data else None)
    table = patches.table
    slides = table.drop_duplicates("slide_id")
    check_no_leakage(slides["fold"].tolist(), slides["group"].tolist())
    classes = sorted(table.loc[table["fold"] != HOLDOUT, "label"].unique())
    if len(classes) < 2:
        raise CohortError(f"train: the training part holds {len(classes)} class(es); at least two are needed")
    position = {label: index for index, label in enumerate(classes)}
    samples = Samples(
        pixels=patches.pixels,
        targets=table["label"].map(position).fillna(-1).to_numpy(np.int64),
        slide_ids=table["slide_id"].to_numpy(str),
        areas=table["area"].to_numpy(np.float64),
        pixels_key=manifest.attrs["pixels"],
    )
    folds = sorted(fold for fold in table["fold"].unique() if fold != HOLDOUT)
    return TrainingPart(patches, samples, classes, folds)


def read_params(params: str) -> tuple[dict[str, Any], str]:
    """The tuned settings that `params` names (a run of `tune`, a file, `latest`, or `none`), and where they came from."""
    if params == NO_PARAMS:
        return {}, NO_PARAMS
    upstream = find_artifact(params, stage="tune", name="best_params", file="best_params.yaml")
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
    seed: int
    key: str  # names the checkpoints


def train(
    *, patches: str, params: str, preset: Preset, seed: int, data: str = "", force: bool = False, strict: bool = False
) -> StageResult:
    """Runs or reuses the stage for a patch manifest and a recipe (the preset's with the tuned values put in)."""
    upstream = find_artifact(patches, stage="patch", name="patches", file="patches.parquet")
    tuned, origin = read_params(params)
    recipe = replaced(preset, "train", tuned)
    manifest = read_manifest(upstream.path)
    settings = recipe.train.model_dump() | {"seed": seed, "processes": process_count()}
    inputs = {"patches": file_digest(upstream.path), "weights": _weights_digest(recipe.train.weights)}
    job = Job(manifest, data, recipe.train, seed, fingerprint("train", settings, inputs))
    if force:
        _forget(job)

    def body(run: StageRun) -> None:
        part = training_part(manifest, data)
        if recipe.train.oof_folds > len(part.folds):
            raise ParameterError(
                f"oof_folds={recipe.train.oof_folds}: the cohort has {len(part.folds)} folds; give at most that"
            )
        run.name(f"train · {recipe.train.backbone}")
        log_table(part.patches.table, name="patches", source=upstream.uri, context="training", targets="label")
        mlflow.set_tag("doctogres.params_from", origin)
        take_over(FINGERPRINT_TAG, job.key, run.run_id, f"Interrupted; run {run.run_id} goes on with the training.")
        (run.attach("settings.yaml")).write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
        if process_count() > 1:
            shared(job, recipe.train)
        trained = train_folds(job, part)
        _publish(run, part, trained, recipe)

    result = run_stage(
        "train",
        body,
        settings=settings,
        inputs=inputs,
        data_digest=manifest.attrs["data_digest"],
        force=force,
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
        train_folds(job, training_part(job.manifest, job.data))


def train_folds(job: Job, part: TrainingPart) -> dict[str, Trained]:
    """Trains a network for each fold that is left out, going on where a killed process stopped."""
    trained: dict[str, Trained] = {}
    for fold in part.folds[: job.settings.oof_folds or None]:
        train_rows, validation_rows = part.rows(fold)
        checkpoint = _checkpoint(job, fold)
        if is_leader() and checkpoint.is_file():
            print(f"train: {fold} goes on where a killed run stopped ({checkpoint})", flush=True)
        trained[fold] = train_network(
            part.samples,
            train_rows,
            validation_rows,
            classes=len(part.classes),
            settings=job.settings,
            seed=job.seed,
            on_epoch=_log_epoch if is_leader() and not trained else None,  # the curves of the first fold
            checkpoint=checkpoint,
            features=workspace() / FEATURES,
            progress=partial(reporting, f"train ({fold} left out)"),
        )
    return trained


def _log_epoch(epoch: Epoch) -> None:
    mlflow.log_metrics({name: float(getattr(epoch, name)) for name in CURVES}, step=epoch.epoch)


def reporting(label: str, what: str, unit: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """Opens a report on a loop of a training, for `train_network`; only the leading process shows it."""
    return reporter(f"{label}: {what}", unit) if is_leader() else nullcontext(lambda done, total: None)


def _checkpoint(job: Job, fold: str) -> Path:
    return workspace() / "checkpoints" / f"{job.key}-{fold}.pt"


def _forget(job: Job) -> None:
    for path in (workspace() / "checkpoints").glob(f"{job.key}-*.pt"):
        path.unlink()


def _weights_digest(weights: str) -> str:
    path = Path(weights)
    return file_digest(path) if path.is_file() else weights


def oof_table(part: TrainingPart, trained: Mapping[str, Trained]) -> pd.DataFrame:
    """Patch probabilities of the folds left out: patch_id, slide_id, fold, label, and a column per class."""
    tables = []
    for fold, result in trained.items():
        rows = part.patches.table.iloc[part.rows(fold)[1]][["patch_id", "slide_id", "fold", "label", "area"]]
        probabilities = pd.DataFrame(result.probabilities, columns=part.classes, index=rows.index)
        tables.append(pd.concat([rows, probabilities], axis=1))
    return pd.concat(tables, ignore_index=True)


def _publish(run: StageRun, part: TrainingPart, trained: Mapping[str, Trained], recipe: Preset) -> None:
    fold, first = next(iter(trained.items()))
    oof_table(part, trained).to_parquet(run.publish("oof_predictions", "oof_predictions.parquet"), index=False)
    first.history.to_csv(run.publish("history", "history.csv"), index=False)
    training_curves_figure(first.history).savefig(run.attach("curves.png"), dpi=120)
    slides = part.patches.table[part.patches.table["fold"] != HOLDOUT].drop_duplicates("slide_id")
    classifier = make_classifier(
        first.network.cpu(),
        backbone=recipe.train.backbone,
        classes=part.classes,
        class_shares={str(k): v for k, v in slides["label"].value_counts(normalize=True).items()},
        patch=recipe.patch.model_validate(part.patches.table.attrs["patch"]),
        aggregation=recipe.answer.aggregation,
    )
    run.artifacts["model"] = log_classifier(
        classifier, metadata={"classes": part.classes, "backbone": recipe.train.backbone}
    )
    run.log_metrics(
        {
            "best/epoch": first.best.epoch,
            "best/slide_macro_f1": first.best.slide_macro_f1,
            "best/val_loss": first.best.val_loss,
            "oof/slide_macro_f1_mean": float(np.mean([result.best.slide_macro_f1 for result in trained.values()])),
            "patches_per_s_median": float(first.history["patches_per_s"].median()),
            "single_class": float(first.single_class),
        }
    )
    alarm = (
        " ALARM: it predicts one class for every slide; look at the class shares and the learning rate."
        if first.single_class
        else ""
    )
    run.note(
        f"Trained {recipe.train.backbone} for {len(first.history)} epochs on {len(part.rows(fold)[0])} patches; "
        f"epoch {first.best.epoch} was kept, with a slide-level macro-F1 of {first.best.slide_macro_f1:.3f} on {fold}, "
        f"the fold that chose it (the hold-out was not looked at).{alarm}"
    )
