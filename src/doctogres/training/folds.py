"""The splits of a training run: what every source is trained on, and what is left out."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from doctogres.errors import ParameterError
from doctogres.files import digest_of, workspace
from doctogres.progress import reporter
from doctogres.settings import ENSEMBLE_SETTINGS, TrainSettings
from doctogres.tracking.fingerprints import fingerprint
from doctogres.training.left_out import LeftOutPredictions
from doctogres.training.loop import Trained
from doctogres.training.part import Rows, TrainingPart
from doctogres.training.processes import is_leader, process_count
from doctogres.training.sources import Source

FEATURES: Final = "features"  # folders in the workspace
NETWORKS: Final = "networks"
FINISHED: Final = ".pt"  # in NETWORKS: a network; the state of one in training
STATE: Final = ".checkpoint"
TRAINING: Final = "doctogres.training.members"  # the code that a trained network depends on
Parts = Mapping[str, TrainingPart]  # by view


@dataclass(frozen=True)
class LeftOutFold:
    """The training rows of a source's network, and the fold left out."""

    source: Source
    repeat: int  # 0 for the manifest's folds, otherwise the number of a new random split
    fold: str
    train: Rows
    left_out: Rows
    key: str  # digest of everything the network depends on

    @property
    def name(self) -> str:
        """The name used in messages."""
        return self.fold if not self.repeat else f"{self.fold} of repeat {self.repeat + 1}"

    @property
    def file(self) -> Path:
        """The file of the finished network."""
        return workspace() / NETWORKS / f"{self.key}{FINISHED}"

    @property
    def checkpoint(self) -> Path:
        """The file of the training state until the network is finished."""
        return self.file.with_suffix(STATE)


@dataclass(frozen=True)
class Member:
    """What a source says of a left-out fold, and its trained network (on the CPU) if it was fine-tuned."""

    split: LeftOutFold
    predictions: LeftOutPredictions
    trained: Trained | None = None


def check_folds(settings: TrainSettings, folds: int, *, named: bool = False) -> None:
    """Checks `oof_folds` and `repeats` against the number of folds, and whether these are sites (`named`).

    Raises:
        ParameterError: names the setting and what is allowed.
    """
    if settings.oof_folds > folds:
        raise ParameterError(f"oof_folds={settings.oof_folds}: the cohort has only {folds} folds; give at most {folds}")
    if settings.repeats > 1 and named:
        raise ParameterError(
            f"repeats={settings.repeats}: the folds are those of folds_by, and there is no other way to draw them; give repeats=1"
        )
    if settings.repeats > 1 and settings.oof_folds not in (0, folds):
        raise ParameterError(
            f"repeats={settings.repeats}: needs every fold left out once, so that all repeats predict the same slides; "
            f"give oof_folds=0, not {settings.oof_folds}"
        )


def split_folds(
    settings: TrainSettings, parts: Parts, sources: Sequence[Source], seed: int, *, holdout: bool = False
) -> list[dict[Source, LeftOutFold]]:
    """Every fold that is left out in turn, in every repeat, for every source.

    Args:
        settings: `oof_folds`, `repeats`, and everything a network depends on.
        parts: the patches of every view.
        sources: what the model is made of.
        seed: of the new splits.
        holdout: train on the hold-out, too.
    """
    first = next(iter(parts.values()))
    folds = first.folds[: settings.oof_folds or None]
    return [
        {source: _left_out(settings, parts[source.view], source, repeat, fold, seed, holdout) for source in sources}
        for repeat in range(settings.repeats)
        for fold in folds
    ]


def _left_out(
    settings: TrainSettings, part: TrainingPart, source: Source, repeat: int, fold: str, seed: int, holdout: bool
) -> LeftOutFold:
    train, left_out = part.rows(fold, repeat=repeat, seed=seed, holdout=holdout)
    of_source = source.settings(settings).model_copy(update={"views": ""})
    recipe = of_source.model_dump(exclude=set(ENSEMBLE_SETTINGS)) | {"seed": seed, "processes": process_count()}
    described = part.patches.table[["patch_id", "slide_id", "label", "area"]]
    digests = {
        name: digest_of(described.iloc[rows].to_csv()) for name, rows in (("train", train), ("left out", left_out))
    }
    inputs = {**digests, "pixels": part.samples.pixels_key, "classes": digest_of(part.classes)}
    return LeftOutFold(source, repeat, fold, train, left_out, fingerprint(TRAINING, recipe, inputs))


def reporting(what: str, unit: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """Opens a progress report; only the leading process shows it."""
    return reporter(what, unit) if is_leader() else nullcontext(lambda done, total: None)
