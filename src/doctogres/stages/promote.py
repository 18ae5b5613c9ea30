"""promote: a person moves an alias to a version; a rollback is the same."""

from datetime import UTC, datetime
from typing import Final

import mlflow
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_USER

from doctogres.catalogue import DEFAULT_NAME
from doctogres.registry.gate import CHAMPION
from doctogres.registry.promotion import promotion
from doctogres.registry.versions import RegisteredModel
from doctogres.tracking.runs import STAGE_TAG, WORKER_TAG, StageResult, StageRun, run_stage
from doctogres.tracking.store import experiment_id

UNKNOWN_USER: Final = "unknown user"


def promote(*, version: str, alias: str = CHAMPION, reason: str = "", model_name: str = DEFAULT_NAME) -> StageResult:
    """Moves an alias and records the move in the version's tags and a run; a repetition is a run of its own.

    Raises:
        ParameterError: see `registry.promotion.promotion`.
    """
    model = RegisteredModel(model_name)
    if moved := model.notice_moved_champion():
        print(f"promote: {moved}", flush=True)
    planned = promotion(model, _interrupted(model, version, alias) or version, alias, reason)

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
    settings["given"] = version
    return run_stage("promote", body, settings=settings, inputs={"before": planned.before}, rerun=True)


def _interrupted(model: RegisteredModel, given: str, alias: str) -> str:
    """The version that the newest call meant, if it said the same and was interrupted; otherwise empty.

    Its repetition says `former-champion` again, an alias that was taken from the version before `champion` was given to it,
    and that belongs to the version before it once that has happened.
    """
    query = f"tags.`{STAGE_TAG}` = 'promote' and params.`promote.model_name` = '{model.name}'"
    runs = MlflowClient().search_runs([experiment_id()], query, order_by=["attributes.start_time DESC"], max_results=1)
    if not runs or (runs[0].info.status == "FINISHED" and WORKER_TAG not in runs[0].data.tags):
        return ""
    asked = runs[0].data.params
    same = (asked.get("promote.given"), asked.get("promote.alias")) == (given, alias)
    aliases, meant = model.aliases(), asked["promote.version"]
    return meant if same and (given not in aliases or aliases.get(alias) == meant) else ""
