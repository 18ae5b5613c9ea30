"""The stages in one table: what each takes, what it leaves, and what it can be told.

MLproject, docs/parameters.md, the commands and the runs' artifacts are made from it. Imports nothing heavy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

LATEST: Final = "latest"
MODEL: Final = "model"


@dataclass(frozen=True)
class Parameter:
    """A parameter that is not a setting of a preset.

    Attributes:
        name: as in `-P name=value`.
        default: of its type.
        help: one line.
        choices: the allowed values of a text; all where empty.
        least: the lowest allowed number.
        most: the highest.
    """

    name: str
    default: str | int | bool
    help: str
    choices: tuple[str, ...] = ()
    least: int = 0
    most: int = 2**31 - 1


@dataclass(frozen=True)
class Input:
    """An artifact of an earlier stage that a parameter of the same name gives: a run id, an address, a path or `latest`."""

    name: str
    stage: str
    artifact: str
    default: str = LATEST

    @property
    def parameter(self) -> Parameter:
        """The parameter that names it."""
        none = ", or none" if self.default == "none" else ""
        what = f"result of `{self.stage}`: a run id, a runs:/ address, a path, or latest{none}"
        return Parameter(self.name, self.default, what)


@dataclass(frozen=True)
class Stage:
    """A row of the table.

    Attributes:
        name: of the stage and its entry point.
        purpose: one sentence.
        parameters: its own parameters and its inputs, in the order in which a person reads them.
        sections: the preset's sections whose settings can be given as parameters too.
        artifacts: name in the stage's result -> file in its run; empty where it is not one (a logged model, a folder).
    """

    name: str
    purpose: str
    parameters: tuple[Parameter | Input, ...]
    sections: tuple[str, ...] = ()
    artifacts: Mapping[str, str] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The artifacts of earlier stages that it reads."""
        return tuple(given for given in self.parameters if isinstance(given, Input))


DATA: Final = Parameter("data", "data/demo", "cohort: a folder or a zip in the challenge's layout")
SLIDES: Final = Parameter("data", "", "folder or zip of the slides, where it moved since `clean`")
PRESET: Final = Parameter(
    "preset",
    "demo",
    "settings of all stages: demo (drawn slides), small (real slides, no accelerator), challenge (the full job), or the path "
    "of your own YAML file",
)
SEED: Final = Parameter("seed", 7, "seed of splits, weights, order and augmentation")
DECISIONS: Final = Parameter(
    "decisions", "", "CSV (slide_id,decision,reason) that overrides the machine; `clean` leaves one to fill in"
)
DEFAULT_NAME: Final = "doctogres"
MODEL_NAME: Final = Parameter("model_name", DEFAULT_NAME, "name of the registered model")
RERUN: Final = Parameter("rerun", False, "repeat the stage although a finished run with the same fingerprint exists")
STRICT: Final = Parameter("strict", False, "exit non-zero when a single slide could not be used")
COHORT: Final = Input("cohort", "clean", "cohort")
PATCHES: Final = Input("patches", "patch", "patches")

TABLE: Final = (
    Stage(
        "main",
        "Cleans, cuts, tunes, trains, evaluates, registers and predicts.",
        (DATA, PRESET, SEED, DECISIONS, MODEL_NAME, RERUN, STRICT),
        ("clean", "patch", "train", "tune", "answer", "evaluate", "gate", "predict"),
    ),
    Stage(
        "demo_data",
        "Makes the synthetic demo cohort.",
        (
            Parameter("target", "data/demo", "folder that the cohort is written to"),
            Parameter("size", 100, "slides in all, training and test", least=12, most=100_000),
            SEED,
            RERUN,
        ),
        artifacts={"cohort": ""},
    ),
    Stage(
        "clean",
        "Checks every slide of the cohort and splits the usable ones into hold-out and folds.",
        (DATA, PRESET, SEED, DECISIONS, RERUN, STRICT),
        ("clean",),
        {
            "cohort": "cohort.parquet",
            "audit": "audit.html",
            "decisions": "decisions.csv",
            "twin_groups": "twin_groups.csv",
            "class_shares": "class_shares.csv",
        },
    ),
    Stage(
        "patch",
        "Cuts a patch around every lesion region of the usable slides.",
        (COHORT, SLIDES, PRESET, RERUN),
        ("patch",),
        {"patches": "patches.parquet"},
    ),
    Stage(
        "tune",
        "Searches the recipe of the training, on folds of the training part.",
        (
            PATCHES,
            Parameter(
                "storage",
                "",
                "where the study is kept: sqlite:///FILE (empty: in the workspace), or postgresql://USER@HOST/DATABASE for "
                "many workers",
            ),
            SLIDES,
            PRESET,
            SEED,
            RERUN,
        ),
        ("tune", "train"),
        {"best_params": "best_params.yaml", "trials": "trials.csv"},
    ),
    Stage(
        "train",
        "Trains the patch classifier and logs it as a model that answers for whole slides.",
        (PATCHES, Input("params", "tune", "best_params", default="none"), SLIDES, PRESET, SEED, RERUN),
        ("train", "answer", "evaluate"),
        {
            MODEL: "",
            "oof_predictions": "oof_predictions.parquet",
            "aggregations": "aggregations.csv",
            "evidence": "evidence.json",
            "history": "history.csv",
        },
    ),
    Stage(
        "evaluate",
        "Scores a model on slides that it has not seen, beside a null model.",
        (
            Input(MODEL, "train", MODEL),
            COHORT,
            Parameter(
                "split",
                "holdout",
                "holdout, test (the test slides, with test_labels.csv), or a fold that the model has not seen",
            ),
            SLIDES,
            PRESET,
            SEED,
            RERUN,
        ),
        ("evaluate",),
        {
            "predictions": "predictions.csv",
            "patch_predictions": "patch_predictions.parquet",
            "metrics": "metrics.json",
            "report": "report.html",
        },
    ),
    Stage(
        "register",
        "Registers an evaluated model when it passes the gate, as champion or challenger.",
        (
            Input("evaluation", "evaluate", "metrics"),
            Parameter("split", "holdout", "the split that decides: holdout, test, or a fold that was evaluated"),
            Parameter(
                "promote",
                "auto",
                "auto (the gate decides) or force (champion whatever the gate says, which leaves its mark)",
                choices=("auto", "force"),
            ),
            MODEL_NAME,
            SLIDES,
            PRESET,
            SEED,
            RERUN,
        ),
        ("gate",),
        {"card": "model_card.md", "version": "version.json", MODEL: ""},
    ),
    Stage(
        "predict",
        "Classifies slides that have no labels.",
        (
            DATA,
            Parameter(
                MODEL,
                f"models:/{DEFAULT_NAME}@champion",
                "a models:/ or runs:/ address, a run id of `train`, or latest",
            ),
            Parameter("output", "submission.csv", "where a copy of the submission is written; empty: nowhere"),
            PRESET,
            RERUN,
            STRICT,
        ),
        ("predict",),
        {
            "submission": "submission.csv",
            "predictions": "predictions.parquet",
            "patches": "patch_predictions.parquet",
        },
    ),
    Stage(
        "ablate",
        "Trains every row of the results ladder with several seeds and compares the rows on the same hold-out slides.",
        (DATA, PRESET, SEED, DECISIONS, RERUN),
        ("clean", "patch", "train", "tune", "answer", "evaluate", "ablate"),
        {
            "uncleaned": "uncleaned/cohort.parquet",
            "ladder": "ladder.csv",
            "ladder_md": "ladder.md",
            "ladder_png": "ladder.png",
        },
    ),
)
STAGES: Final[Mapping[str, Stage]] = {stage.name: stage for stage in TABLE}
