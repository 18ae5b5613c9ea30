"""The stages in one table: the inputs, artifacts and parameters of each.

MLproject, docs/parameters.md, the commands and the runs' artifacts are made from it. Imports nothing heavy.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

LATEST: Final = "latest"
RUN_ID: Final = re.compile(r"[0-9a-f]{32}")
MODEL: Final = "model"
ALARMS: Final = "alarms"  # a metric; a command whose result has any ends with ALARMED
ALARMED: Final = 3
SECOND: Final = "final_model"  # trained on the hold-out, too: only with final=all


@dataclass(frozen=True)
class Parameter:
    """A parameter that is not a preset setting.

    Attributes:
        name: as in `-P name=value`.
        default: its type is the parameter's type.
        help: one line.
        choices: the allowed values of a text parameter; empty means any.
        least: the lowest allowed number.
        most: the highest allowed number.
    """

    name: str
    default: str | int | bool
    help: str
    choices: tuple[str, ...] = ()
    least: int = 0
    most: int = 2**31 - 1


@dataclass(frozen=True)
class Input:
    """An artifact of an earlier stage, given by the parameter of that name: a run id, a URI, a path or `latest`."""

    name: str
    stage: str
    artifact: str
    default: str = LATEST
    help: str = ""

    @property
    def parameter(self) -> Parameter:
        """The parameter that gives this input."""
        none = ", or none" if self.default == "none" else ""
        what = f"result of `{self.stage}`: a run id, a runs:/ URI, a path, or latest{none}{self.help}"
        return Parameter(self.name, self.default, what)


@dataclass(frozen=True)
class Stage:
    """A row of the table.

    Attributes:
        name: of the stage and its entry point.
        purpose: one sentence.
        parameters: its parameters and inputs, in the order shown to users.
        sections: the preset sections whose settings are parameters too.
        artifacts: name in the stage's result -> file in its run; empty if it is not a file (a logged model, a folder).
        kept: what an interruption of the stage leaves to continue from, besides the finished stages before it.
    """

    name: str
    purpose: str
    parameters: tuple[Parameter | Input, ...]
    sections: tuple[str, ...] = ()
    artifacts: Mapping[str, str] = field(default_factory=dict)
    kept: str = ""

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The artifacts of earlier stages that it reads."""
        return tuple(given for given in self.parameters if isinstance(given, Input))


DATA: Final = Parameter(
    "data",
    "data/demo",
    "cohort: a folder or a zip, in the challenge's layout or another one of docs/your-data.md, a cohort.csv of `init`, or the "
    "address of one, such as s3://BUCKET/FOLDER",
)
SLIDES: Final = Parameter("data", "", "folder, zip or address of the slides, if it has moved since `clean`")
PRESET: Final = Parameter(
    "preset",
    "demo",
    "settings of all stages: demo (synthetic slides), small (real slides without an accelerator), challenge (full training), "
    "auto (the one of these that suits cohort and machine), or the path or address of your own YAML file",
)
SEED: Final = Parameter("seed", 7, "seed for splits, weights, sample order and augmentation")
DECISIONS: Final = Parameter(
    "decisions",
    "",
    "CSV (path or address; slide_id,decision,reason) that overrides automatic cleaning; `clean` writes one to fill in",
)
IGNORE_COLUMNS: Final = Parameter(
    "ignore_columns",
    "",
    "label columns (comma-separated) that look like patient columns but are not: docs/your-data.md",
)
SUBGROUPS: Final = Parameter(
    "subgroups",
    "auto",
    "label columns (comma-separated) by which scores are split, such as site,scanner,age; auto: those that are recognised; or none",
)
MPP: Final = Parameter(
    "mpp", "", "microns per pixel of slides whose files and table say none; empty if they are not known"
)
ANNOTATIONS: Final = Parameter(
    "annotations",
    "",
    "outlines (GeoJSON) that are lesions: classes or names of annotations, comma-separated; empty for all, if they have one class",
)
GEOJSON: Final = Parameter(
    "geojson",
    False,
    "write the outlines of every slide's patches with their classes, for QuPath, into the run's folder geojson",
)
DEFAULT_NAME: Final = "doctogres"
CHAMPION_ADDRESS: Final = f"models:/{DEFAULT_NAME}@champion"
MODEL_FORMS: Final = "a models:/ or runs:/ URI, a run id of `train`, a model's folder, or latest"
MODEL_NAME: Final = Parameter("model_name", DEFAULT_NAME, "name of the registered model")
RERUN: Final = Parameter("rerun", False, "repeat the stage even if a finished run with the same fingerprint exists")
STRICT: Final = Parameter("strict", False, "exit with an error if any slide could not be used")
JOIN: Final = "join"
LOCAL: Final = "local"
SPARK: Final = "spark"
SHARD: Final = Parameter(
    "shard",
    "",
    "i/n: only this share of the slides, kept in the workspace, without a run; join: put all shares together (docs/scale.md)",
)
ENGINE: Final = Parameter(
    "engine",
    LOCAL,
    "what works on the slides: local (threads of this machine) or spark (docs/scale.md)",
    (LOCAL, SPARK),
)
SPARK_MASTER: Final = Parameter(
    "spark_master", "local[*]", "for engine=spark: local[*], or the cluster's spark://HOST:7077"
)
COHORT: Final = Input("cohort", "clean", "cohort")
PATCHES: Final = Input("patches", "patch", "patches")
NETWORKS: Final = "finished networks and the finished epochs of the next one"

TABLE: Final = (
    Stage(
        "main",
        "Runs all stages: clean, patch, tune, train, evaluate, register and predict.",
        (DATA, PRESET, SEED, DECISIONS, IGNORE_COLUMNS, SUBGROUPS, ANNOTATIONS, MODEL_NAME, RERUN, STRICT),
        ("clean", "patch", "train", "tune", "answer", "evaluate", "gate", "predict"),
        kept=f"finished stages, finished trials of `tune`, and of `train` {NETWORKS}",
    ),
    Stage(
        "demo_data",
        "Creates the synthetic demo cohort.",
        (
            Parameter("target", "data/demo", "folder to write the cohort to"),
            Parameter("size", 100, "total number of slides, training and test", least=12, most=100_000),
            Parameter("seed", SEED.default, "seed of the synthetic slides"),
            RERUN,
        ),
        artifacts={"cohort": ""},
    ),
    Stage(
        "init",
        "Looks at a folder of slides in any layout, says what it understood and what to fix, and writes cohort.csv.",
        (
            Parameter(
                DATA.name,
                DATA.default,
                "folder of slides in any layout, or the address of one; not a zip and not a table",
            ),
            Parameter(
                "output", "cohort.csv", "path or address of the table, which every stage takes as data; empty for none"
            ),
            STRICT,
        ),
        artifacts={"cohort": "cohort.csv"},
    ),
    Stage(
        "clean",
        "Checks every slide of the cohort and splits the usable ones into a hold-out and folds.",
        (
            DATA,
            SHARD,
            ENGINE,
            SPARK_MASTER,
            PRESET,
            SEED,
            DECISIONS,
            IGNORE_COLUMNS,
            SUBGROUPS,
            ANNOTATIONS,
            RERUN,
            STRICT,
        ),
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
        (COHORT, SLIDES, SHARD, ENGINE, SPARK_MASTER, PRESET, RERUN),
        ("patch",),
        {"patches": "patches.parquet"},
    ),
    Stage(
        "tune",
        "Searches for better training settings, scored on left-out folds.",
        (
            PATCHES,
            Parameter(
                "storage",
                "",
                "database of the study: sqlite:///FILE, postgresql://USER@HOST/DATABASE for many workers (no password in it: "
                "docs/security.md), or empty for a file in the workspace",
            ),
            SLIDES,
            PRESET,
            SEED,
            RERUN,
        ),
        ("tune", "train"),
        {"best_params": "best_params.yaml", "trials": "trials.csv"},
        kept="finished trials",
    ),
    Stage(
        "train",
        "Trains the patch classifier and logs it as a model that classifies whole slides.",
        (PATCHES, Input("params", "tune", "best_params", default="none"), SLIDES, PRESET, SEED, RERUN),
        ("train", "answer", "evaluate"),
        {
            MODEL: "",
            "oof_predictions": "oof_predictions.parquet",
            "aggregations": "aggregations.csv",
            "evidence": "evidence.json",
            "history": "history.csv",
        },
        kept=NETWORKS,
    ),
    Stage(
        "evaluate",
        "Scores a model on slides it was not trained on, and compares it with null models.",
        (
            Input(MODEL, "train", MODEL, help="; also a models:/ URI; several, comma-separated, are compared in pairs"),
            COHORT,
            Parameter(
                "split",
                "holdout",
                "holdout, test (the test slides; needs test_labels.csv), a fold the model was not trained on, or the folder, "
                "zip or address of an outside cohort with labels",
            ),
            IGNORE_COLUMNS,
            SUBGROUPS,
            ANNOTATIONS,
            MPP,
            GEOJSON,
            Parameter(
                "answers",
                "",
                "answer log of a served model (folder or address): its answers to these slides are scored, too, and compared",
            ),
            SLIDES,
            ENGINE,
            SPARK_MASTER,
            PRESET,
            SEED,
            RERUN,
        ),
        ("evaluate",),
        {
            "predictions": "predictions.csv",
            "patch_predictions": "patch_predictions.parquet",
            "groups": "group_predictions.csv",
            "answers": "given_answers.csv",
            "metrics": "metrics.json",
            "report": "report.html",
        },
    ),
    Stage(
        "register",
        "Registers an evaluated model as champion or challenger if it passes the gate.",
        (
            Input("evaluation", "evaluate", "metrics"),
            Parameter("split", "holdout", "split the decision is based on: holdout, test, or an evaluated fold"),
            Parameter(
                "promote",
                "auto",
                "auto (the gate decides), force (champion even if the gate refuses; the version is tagged accordingly), or ask "
                "(it becomes a version, but aliases move only when a person runs `promote`)",
                choices=("auto", "force", "ask"),
            ),
            Parameter("dry_run", False, "say what would be decided, and change nothing"),
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
        "promote",
        "Moves an alias of the registered model to a version, for example to roll back, and records who, when and why.",
        (
            Parameter("version", "", "number of the version, or the alias it has now, such as former-champion"),
            Parameter("alias", "champion", "alias to move", choices=("champion", "challenger")),
            Parameter("reason", "", "why; required for a version without an evaluation on its hold-out"),
            MODEL_NAME,
        ),
        artifacts={MODEL: ""},
    ),
    Stage(
        "predict",
        "Classifies slides without labels.",
        (
            DATA,
            Parameter(MODEL, CHAMPION_ADDRESS, MODEL_FORMS),
            Parameter(
                "output",
                "submission.csv",
                "path or address for a copy of the submission, with predictions.csv beside it; empty for none",
            ),
            ANNOTATIONS,
            GEOJSON,
            MPP,
            SHARD,
            ENGINE,
            SPARK_MASTER,
            PRESET,
            RERUN,
            STRICT,
        ),
        ("predict",),
        {
            "submission": "submission.csv",
            "table": "predictions.csv",
            "predictions": "predictions.parquet",
            "patches": "patch_predictions.parquet",
            "groups": "group_predictions.csv",
        },
    ),
    Stage(
        "export",
        "Writes a model's networks for QuPath's WSInfer extension (TorchScript) or as ONNX.",
        (
            Parameter(MODEL, CHAMPION_ADDRESS, MODEL_FORMS),
            Parameter(
                "format", "wsinfer", "wsinfer (TorchScript and config.json) or onnx", choices=("wsinfer", "onnx")
            ),
            Parameter(
                "mpp", "", "microns per pixel of the slides that the model was trained on; empty if the model knows"
            ),
            Parameter(
                "output", "export", "folder or address for copies, in a folder named by the format; empty for none"
            ),
            RERUN,
        ),
        artifacts={"network": "", "config": ""},
    ),
    Stage(
        "monitor",
        "Compares the slides that a served model was sent with its training slides; exit status 3 if there is an alarm.",
        (
            Parameter("answers", "", "answer log: the folder or address that DOCTOGRES_ANSWER_LOG names on the server"),
            Parameter(MODEL, CHAMPION_ADDRESS, f"the model that answered: {MODEL_FORMS}"),
            Parameter("since", "", "first day of the period (UTC), as 2026-11-01; empty for all"),
            Parameter("until", "", "last day of the period (UTC); empty for all"),
            Parameter("alpha", "0.05", "chance of an alarm in a period without a shift"),
            RERUN,
        ),
        artifacts={"report": "report.html", "shifts": "shifts.csv"},
    ),
    Stage(
        "ablate",
        "Trains every row of the ablation ladder with several seeds and compares the rows on the same hold-out slides.",
        (DATA, PRESET, SEED, DECISIONS, IGNORE_COLUMNS, ANNOTATIONS, RERUN),
        ("clean", "patch", "train", "tune", "answer", "evaluate", "ablate"),
        {
            "uncleaned": "uncleaned/cohort.parquet",
            "ladder": "ladder.csv",
            "ladder_md": "ladder.md",
            "ladder_png": "ladder.png",
        },
        kept=f"finished rows, and of the interrupted row {NETWORKS}",
    ),
)
STAGES: Final[Mapping[str, Stage]] = {stage.name: stage for stage in TABLE}
