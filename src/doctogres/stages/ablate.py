"""ablate: every row of the results ladder, trained and scored on the same hold-out slides."""

from dataclasses import dataclass, field
from typing import Any, Final

import mlflow
import pandas as pd

from doctogres.cohort import DROPPED, KEPT, read_table, write_table
from doctogres.settings import Preset, replaced
from doctogres.splits import HOLDOUT
from doctogres.stages.clean import clean
from doctogres.stages.evaluate import evaluate
from doctogres.stages.patch import patch
from doctogres.stages.train import NO_PARAMS, train
from doctogres.tracking import StageResult, StageRun, run_stage
from doctogres.upstream import find_artifact

BASELINE_CNN: Final = "test_resnet"  # timm's smallest residual network, 0.4 million parameters
FROM_SCRATCH: Final = {"backbone": BASELINE_CNN, "weights": "none", "unfreeze_every": 0}


@dataclass(frozen=True)
class Row:
    """A row of the ladder: what it changes against the preset."""

    name: str
    cleaned: bool = True
    patch: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)


# Each row adds one step of the original team's ladder to the row before it; the last is the preset itself.
LADDER: Final = (
    Row("baseline CNN, whole picture", cleaned=False, patch={"patching": "whole"}, train=FROM_SCRATCH),
    Row("+ data cleaning", patch={"patching": "whole"}, train=FROM_SCRATCH),
    Row("+ patch extraction", patch={"min_area": 1}, train=FROM_SCRATCH),
    Row("+ the preset's backbone and weights", patch={"min_area": 1}, train={"unfreeze_every": 0}),
    Row("+ progressive unfreezing", patch={"min_area": 1}),
    Row("+ patch filtering"),
)


def uncleaned(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the slides that cleaning dropped put back into training, as without cleaning.

    Only slides with a twin come back, into the twin's fold, and none whose twin is in the hold-out: its copy in the
    training part would flatter the row.
    """
    table = table.copy()
    fold_of = table.set_index("slide_id")["fold"].to_dict()
    fold = table["twin_of"].map(fold_of)
    back = (table["outcome"] == DROPPED) & fold.notna() & (fold != HOLDOUT)
    table.loc[back, "fold"] = fold[back]
    table.loc[back, "outcome"] = KEPT
    group_of = table.set_index("slide_id")["group"].to_dict()
    table.loc[back, "group"] = table.loc[back, "twin_of"].map(group_of)
    return table


def ablate(*, data: str, preset: Preset, seed: int, decisions: str = "", force: bool = False) -> StageResult:
    """Runs or reuses the ladder for the cohort at `data`."""
    cleaned = clean(data=data, preset=preset, seed=seed, decisions=decisions)
    source = find_artifact(cleaned.run_id, stage="clean", name="cohort", file="cohort.parquet")
    table = read_table(source.path)

    def body(run: StageRun) -> None:
        rows = []
        for number, row in enumerate(LADDER, 1):
            cohort = cleaned.run_id
            if not row.cleaned:
                path = run.publish("uncleaned", "uncleaned/cohort.parquet")
                write_table(uncleaned(table), path)
                cohort = str(path)
            rows.append(_run_row(number, row, cohort, data, preset, seed))
        ladder = pd.DataFrame(rows)
        ladder.to_csv(run.publish("ladder", "ladder.csv"), index=False)
        run.publish("ladder_md", "ladder.md").write_text(markdown(ladder), encoding="utf-8")
        run.name(f"ablate · {len(ladder)} rows")
        first, last = ladder.iloc[0], ladder.iloc[-1]
        run.note(
            f"Trained {len(ladder)} rows of the ladder on the same folds and scored them on the same hold-out slides. "
            f"{first['row']}: {first['macro_f1']:.3f}; {last['row']}: {last['macro_f1']:.3f}; intervals in ladder.csv."
        )

    settings = preset.model_dump(mode="json", include={"patch", "train", "evaluate"}) | {"seed": seed}
    inputs = {"cohort": cleaned.run_id}
    return run_stage(
        "ablate", body, settings=settings, inputs=inputs, data_digest=table.attrs["data_digest"], force=force
    )


def _run_row(number: int, row: Row, cohort: str, data: str, preset: Preset, seed: int) -> dict[str, Any]:
    recipe = replaced(replaced(preset, "patch", row.patch), "train", {**row.train, "oof_folds": 1})
    with mlflow.start_run(run_name=f"row-{number} · {row.name}", nested=True):
        cut = patch(cohort=cohort, preset=recipe, data=data)
        trained = train(patches=cut.run_id, params=NO_PARAMS, preset=recipe, seed=seed)
        scored = evaluate(
            model=trained.run_id, cohort=cohort, split=HOLDOUT, preset=recipe, seed=seed, data=data
        ).metrics
        names = {"macro_f1": "macro_f1", "low": "macro_f1/low", "high": "macro_f1/high"}
        result = {name: scored[metric] for name, metric in names.items()}
        mlflow.log_metrics(
            {f"macro_f1/{name}" if name != "macro_f1" else name: value for name, value in result.items()}
        )
        mlflow.set_tag("mlflow.note.content", f"Row {number} of the ladder. Trained in {trained.run_id}.")
    return {"row": row.name, **result, "null": scored["null/majority/macro_f1"], "train_run": trained.run_id}


def markdown(ladder: pd.DataFrame) -> str:
    """The ladder as a Markdown table."""
    lines = ["| row | macro-F1 | 95 % interval |", "|---|---|---|"]
    lines += [f"| {row.row} | {row.macro_f1:.3f} | {row.low:.3f} to {row.high:.3f} |" for row in ladder.itertuples()]
    return "\n".join(lines) + "\n"
