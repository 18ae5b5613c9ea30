"""What `main` promises of its time when it has chosen the preset itself: said and logged before any stage begins."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import mlflow

from doctogres.files import workspace
from doctogres.planning.auto import CHOSEN
from doctogres.planning.cohort import Found, find_cohort, state_of
from doctogres.presets import AUTO
from doctogres.progress import duration
from doctogres.settings import Preset
from doctogres.slides.cohort import open_cohort
from doctogres.slides.labels import column_names
from doctogres.tracking.fingerprints import fingerprint
from doctogres.tracking.runs import SECONDS
from doctogres.tracking.store import experiment_id

if TYPE_CHECKING:  # a reused pipeline loads no Optuna
    from doctogres.planning.estimate import Promised

PIPELINE_TAG: Final = "doctogres.pipeline"  # digest of all that the pipeline depends on
PIPELINE: Final = "doctogres.stages.main"  # the code that it is


def promised_seconds(data: str, preset: Preset, seed: int, of_slides: Mapping[str, str], *, rerun: bool) -> "Promised":
    """Recipe -> stage -> the seconds that it will take; empty if that is not known, or if an earlier pipeline is reused.

    Args:
        data: the cohort.
        preset: that was chosen for it.
        seed: of the pipeline.
        of_slides: how its table is read: ignore_columns, subgroups and annotations.
        rerun: nothing is reused.
    """
    ignored = column_names(of_slides["ignore_columns"])
    root = open_cohort(data, workspace=workspace())
    found = find_cohort(
        root, ignore_columns=ignored, subgroups=of_slides["subgroups"], annotations=of_slides["annotations"]
    )
    key = _key(found, preset, {**of_slides, "seed": str(seed)})
    promised: Promised = {}
    if not rerun and (before := _earlier(key)):
        lines = [before]
    else:
        print("main: measuring a few slides and patches, to say how long it takes", flush=True)
        from doctogres.planning.promise import promise  # loads torch, as the stages do

        promised, lines = promise(found, preset)
    mlflow.set_tag(PIPELINE_TAG, key)
    for line in lines:
        print(f"main: {line}", flush=True)
    mlflow.log_text("\n".join([f"preset={AUTO}: {preset.given[CHOSEN]}", *lines, ""]), "preset.txt")
    return promised


def _key(found: Found, preset: Preset, others: Mapping[str, str]) -> str:
    sections = preset.model_dump(mode="json").items()
    settings = {f"{section}.{name}": value for section, values in sections for name, value in values.items()}
    return fingerprint(PIPELINE, {**settings, **others}, {"slides": state_of(found)})


def _earlier(key: str) -> str:
    """What to say of a finished pipeline with the same key; empty if there is none."""
    query = f"attributes.status = 'FINISHED' and tags.`{PIPELINE_TAG}` = '{key}'"
    runs = mlflow.MlflowClient().search_runs([experiment_id()], query, max_results=1)
    if not runs:
        return ""
    took = duration(runs[0].data.metrics[SECONDS])
    return f"run {runs[0].info.run_id} did the same in {took}; what has not changed since is reused"
