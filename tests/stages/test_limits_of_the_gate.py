"""register with limits, as a question, and as a dry run."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from doctogres.presets import load_preset
from doctogres.stages import candidate
from doctogres.stages.candidate import candidate_of
from doctogres.stages.promote import promote
from doctogres.stages.register import decision, foretell
from doctogres.tracking.store import experiment_id
from tests.stages.test_register import (
    PRESET,
    REGISTERED,
    Scoring,
    enter,
    evaluated,
    forget,
    stage,
    tags,
    trained,
    versions,
)

pytestmark = pytest.mark.slow


def limited(**limits: float) -> Any:
    return load_preset("demo", {"resamples": 200, **limits})


def test_a_model_beyond_a_limit_becomes_challenger_even_without_a_champion(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = evaluated(trained("first"), wrong=6)  # recall 0.85 in both classes
    decided = enter(scored, preset=limited(min_recall=0.9))
    assert decided["alias"] == "challenger"
    assert decided["reason"].startswith("recall below min_recall=0.9: ")
    assert enter(scored, preset=limited(max_model_mb=0.00001))["alias"] == "challenger"
    times = {"model": 30.0, "champion": 20.0}
    monkeypatch.setattr(candidate, "_latency", lambda *_: times)
    result = stage(scored, preset=limited(max_latency_ms=29))
    assert "1.50 times the champion's), more than max_latency_ms=29" in decision(result)["reason"]
    assert mlflow.get_run(result.run_id).data.metrics["latency_ratio"] == 1.5
    assert enter(scored, preset=limited(max_latency_ms=30, min_recall=0.8, max_model_mb=1))["alias"] == "champion"


def test_what_is_asked_moves_nothing_until_a_person_promotes(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage(evaluated(trained("first"), wrong=8))
    better = evaluated(trained("second"), wrong=4)
    result = stage(better, promote="ask")
    assert (decision(result)["alias"], decision(result)["moved"]) == ("champion", False)
    assert REGISTERED.aliases() == {"champion": "1"}
    assert tags("2")["proposed_alias"] == "champion"
    assert "promoted_by" not in tags("2")
    command = "mlflow run . -e promote --env-manager local -P model_name=doctogres -P version=2 -P alias=champion"
    assert command in capsys.readouterr().out
    assert mlflow.get_run(result.run_id).info.run_name == "v2 champion register proposed"
    assert stage(better, promote="ask").reused
    assert command in capsys.readouterr().out
    promote(version="2", reason="looked at it")
    assert REGISTERED.aliases() == {"champion": "2", "former-champion": "1"}
    assert "proposed_alias" not in tags("2")
    assert "scores at least as high" in tags("2")["gate_reason"]
    capsys.readouterr()
    assert enter(better, promote="ask")["alias"] == "champion"
    assert command not in capsys.readouterr().out


def test_a_dry_run_says_what_would_happen_and_changes_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluated(trained("first"), wrong=8)
    second = evaluated(trained("second"), wrong=4, source="runs:/of_clean/cohort.parquet")
    poor = evaluated(trained("poor"), wrong=20)

    def told(evaluation: Any, **options: Any) -> str:
        before = state()
        said = foretell(candidate_of(evaluation=evaluation.run_id, preset=PRESET, seed=0, dry_run=True, **options))
        assert state() == before
        assert said.endswith("; nothing was changed")
        return said

    assert "would be a new version of doctogres and champion: " in told(first)
    stage(first)
    assert "would be version 1 of doctogres and champion: it is already the champion" in told(first)
    assert "would be a new version of doctogres and champion: macro-F1 +" in told(second)
    assert "would be a new version of doctogres and proposed as champion: " in told(second, promote="ask")
    assert "would not be registered: " in told(poor)
    assert "champion: promote=force (gate decision: not registered" in told(poor, promote="force")
    forget(first, "image_md5")
    scoring = Scoring(monkeypatch, AssertionError("must not be called"))
    assert told(second).startswith("the champion would first be evaluated on these slides")
    assert scoring.calls == []


def state() -> list[object]:
    """Everything in the store that a command could change."""
    runs = MlflowClient().search_runs([experiment_id()])
    found = [(run.info.run_id, run.data.tags, run.data.metrics) for run in runs]
    return [found, REGISTERED.aliases(), [(one.version, one.tags, one.description) for one in versions()]]
