"""promote: a person moves an alias to a version; a rollback is the same."""

from datetime import UTC, datetime
from typing import Final

import mlflow
from mlflow.utils.mlflow_tags import MLFLOW_USER

from doctogres.catalogue import DEFAULT_NAME
from doctogres.registry.gate import CHAMPION
from doctogres.registry.promotion import promotion
from doctogres.registry.versions import RegisteredModel
from doctogres.tracking.runs import StageResult, StageRun, run_stage

UNKNOWN_USER: Final = "unknown user"


def promote(*, version: str, alias: str = CHAMPION, reason: str = "", model_name: str = DEFAULT_NAME) -> StageResult:
    """Moves an alias and records the move in the version's tags and a run; a repetition is a run of its own.

    Raises:
        ParameterError: see `registry.promotion.promotion`.
    """
    model = RegisteredModel(model_name)
    if moved := model.notice_moved_champion():
        print(f"promote: {moved}", flush=True)
    planned = promotion(model, version, alias, reason)

    def body(run: StageRun) -> None:
        active = mlflow.active_run()
        user = active.data.tags.get(MLFLOW_USER, UNKNOWN_USER) if active else UNKNOWN_USER
        planned.carry_out(user=user, time=datetime.now(UTC).isoformat(timespec="seconds"))
        run.artifacts["model"] = model.address(planned.version)
        run.name(f"v{planned.version} {alias}")
        why = f" Reason: {planned.reason}." if planned.reason else ""
        run.note(f"{user}: {planned.sentence}.{why}")
        print(f"promote: {planned.sentence}", flush=True)

    settings = {"version": planned.version, "alias": alias, "reason": planned.reason, "model_name": model_name}
    return run_stage("promote", body, settings=settings, inputs={"before": planned.before}, rerun=True)
