"""register: an evaluated model -> a model version with its card, tags, and `champion` or `challenger`."""

import hashlib
import json
from typing import Any

import mlflow
import pandas as pd

from doctogres.registry import SCORE_TAG, SPLIT_TAG, champion_tags, gate, model_card, register_version
from doctogres.tracking import DATA_TAG, REGISTERED_MODEL, StageResult, StageRun, file_digest, run_stage
from doctogres.upstream import find_artifact


def register(*, evaluation: str, force: bool = False) -> StageResult:
    """Runs or reuses the stage for an evaluation."""
    upstream = find_artifact(evaluation, stage="evaluate", name="metrics", file="metrics.json")
    metrics = json.loads(upstream.path.read_text(encoding="utf-8"))
    predictions = find_artifact(evaluation, stage="evaluate", name="predictions", file="predictions.csv")
    split = split_digest(pd.read_csv(predictions.path, dtype=str))
    source = mlflow.get_run(upstream.run_id) if upstream.run_id else None
    data_digest = source.data.tags.get(DATA_TAG, "") if source else ""

    def body(run: StageRun) -> None:
        own = metrics["metrics"]["macro_f1"]
        verdict = gate(metrics, champion_tags(), split=split)
        facts = {"Model": metrics["model"], "Evaluation": upstream.uri, "Data digest": data_digest or "unknown"}
        card = model_card(metrics, facts, verdict)
        tags = {
            SCORE_TAG: f"{own['value']:.6f}",
            SPLIT_TAG: split,
            "gate": verdict.alias or "not passed",
            "data_digest": data_digest,
        }
        version = register_version(metrics["model"], tags=tags, card=card, verdict=verdict)
        run.publish("card", "model_card.md").write_text(card, encoding="utf-8")
        content: dict[str, Any] = {
            "name": REGISTERED_MODEL,
            "version": version,
            "alias": verdict.alias,
            "reason": verdict.reason,
        }
        run.publish("version", "version.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        run.artifacts["model"] = f"models:/{REGISTERED_MODEL}/{version}"
        run.name(f"register · version {version} · {verdict.alias or 'gate not passed'}")
        run.note(
            f"Registered {metrics['model']} as version {version}, {verdict.alias or 'without an alias'}. Why: {verdict.reason}."
        )
        run.log_metrics({"version": float(version), "macro_f1": own["value"]})

    return run_stage(
        "register",
        body,
        settings={},
        inputs={"evaluation": file_digest(upstream.path)},
        data_digest=data_digest,
        force=force,
    )


def split_digest(predictions: pd.DataFrame) -> str:
    """Names the scored slides and their labels, so that scores on the same slides are compared and others are not."""
    rows = predictions[["slide_id", "label"]].sort_values("slide_id").to_csv(index=False)
    return hashlib.sha256(rows.encode()).hexdigest()[:16]
