"""A person moves aliases, with the command or in the UI: where they end up, and what is recorded."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import mlflow
import psycopg
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError

from doctogres.errors import ParameterError
from doctogres.registry.versions import RegisteredModel
from doctogres.stages.promote import promote
from entrypoints.outages import outage
from tests.stages.test_register import REGISTERED, enter, evaluated, served, stage, tags, trained

pytestmark = pytest.mark.slow


@pytest.fixture
def two(store: Path) -> None:
    """Version 2 is the champion, version 1 the former one."""
    stage(evaluated(trained("old"), wrong=8))
    stage(evaluated(trained("new"), wrong=4))


def test_a_rollback_swaps_the_two_and_records_who_when_from_to_and_why(
    two: None, capsys: pytest.CaptureFixture[str]
) -> None:
    gate_reason = tags("1")["gate_reason"]
    result = promote(version="former-champion", reason="the  new one fails on slides of scanner B")
    assert served() == "old"
    assert REGISTERED.aliases() == {"champion": "1", "former-champion": "2"}
    assert result.artifacts == {"model": "models:/doctogres/1"}
    run = mlflow.get_run(result.run_id)
    recorded = tags("1")
    assert recorded["promoted_by"] == run.data.tags["mlflow.user"]
    assert recorded["promoted_at"].endswith("+00:00")
    assert (recorded["promoted_from"], recorded["promoted_to"]) == ("version 2", "version 1")
    assert recorded["promoted_reason"] == "the new one fails on slides of scanner B"
    assert recorded["gate_reason"] == gate_reason
    for text in (run.data.tags["mlflow.note.content"], capsys.readouterr().out):
        assert "champion of doctogres moved from version 2 to version 1" in text
    assert run.data.params["promote.reason"] == "the new one fails on slides of scanner B"
    promote(version="2")
    assert REGISTERED.aliases() == {"champion": "2", "former-champion": "1"}
    assert "already was champion" in mlflow.get_run(promote(version="2").run_id).data.tags["mlflow.note.content"]
    assert tags("2")["promoted_from"] == "version 1"


def test_a_challenger_that_becomes_champion_is_no_challenger_any_more(two: None) -> None:
    stage(evaluated(trained("worse"), wrong=8))
    assert REGISTERED.aliases() == {"champion": "2", "former-champion": "1", "challenger": "3"}
    reason = tags("3")["gate_reason"]
    promote(version="challenger", reason="needed for scanner B")
    assert REGISTERED.aliases() == {"champion": "3", "former-champion": "2"}
    assert tags("3")["gate_reason"] == reason
    promote(version="1", alias="challenger")
    assert REGISTERED.aliases() == {"champion": "3", "former-champion": "2", "challenger": "1"}
    assert tags("1")["promoted_by"] == "gate"
    assert tags("1")["challenger_from"] == "no version"
    with pytest.raises(ParameterError, match="version 3 of doctogres is the champion, and challenger would leave none"):
        promote(version="3", alias="challenger")


def test_a_version_without_a_score_needs_a_reason_which_says_so(two: None) -> None:
    everything = REGISTERED.register_unevaluated(trained("everything"), of="2")
    # The table of versions shows the beginning as it is, without Markdown.
    description = MlflowClient().get_model_version("doctogres", everything).description
    assert str(description).startswith("Not evaluated on its own")
    with pytest.raises(ParameterError, match=r"version 3 of doctogres was not evaluated on its hold-out.*reason="):
        promote(version=everything, reason="  ")
    assert served() == "new"
    promote(version=everything, reason="agreed with the pathologists")
    assert served() == "everything"
    assert tags("3")["promoted_reason"] == "not evaluated on its hold-out; agreed with the pathologists"


@pytest.mark.parametrize("version", ["", "9", "latest"])
def test_what_is_no_version_is_refused(two: None, version: str) -> None:
    with pytest.raises(ParameterError, match="there is no such version; doctogres has the versions 1, 2"):
        promote(version=version)
    with pytest.raises(ParameterError, match="there is no registered model breast"):
        promote(version="1", model_name="breast")


def test_a_move_in_the_ui_stays_and_the_next_registration_notices_it(
    two: None, capsys: pytest.CaptureFixture[str]
) -> None:
    MlflowClient().set_registered_model_alias("doctogres", "champion", "1")
    assert REGISTERED.aliases() == {"champion": "1", "former-champion": "1"}
    poor = evaluated(trained("poor"), wrong=20)
    enter(poor)
    moved = "champion was moved by hand from version 2 to version 1"
    assert moved in capsys.readouterr().out
    assert REGISTERED.aliases() == {"champion": "1", "former-champion": "2"}
    assert tags("1")["promoted_by"] == "by hand, outside doctogres"
    enter(poor)
    assert moved not in capsys.readouterr().out


def test_a_move_in_the_ui_back_to_a_version_promoted_before_is_no_interruption(two: None) -> None:
    for version, before in ("1", "2"), ("2", "1"):
        MlflowClient().set_registered_model_alias("doctogres", "champion", version)
        moved = REGISTERED.notice_moved_champion()
        assert moved == f"champion was moved by hand from version {before} to version {version}"


def test_the_first_reason_of_the_gate_stays_when_it_decides_again(store: Path) -> None:
    first = evaluated(trained("first"), wrong=8)
    stage(first)
    reason = tags("1")["gate_reason"]
    assert "there was no champion" in reason
    stage(evaluated(trained("second"), wrong=4))
    assert enter(first)["alias"] == "challenger"
    assert tags("1")["gate_reason"] == reason
    assert "scores lower" in tags("1")["latest_gate_reason"]


def test_aliases_never_share_a_version_whenever_it_stops(two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback is killed before each of its calls to the registry in turn, and then repeated."""
    calls = ("set_registered_model_alias", "delete_registered_model_alias", "set_registered_model_tag")
    for allowed in range(7):
        REGISTERED.set_alias("2", "champion")
        left = [allowed]
        with monkeypatch.context() as patcher:
            for name in calls:
                patcher.setattr(MlflowClient, name, counted(getattr(MlflowClient, name), left))
            try:
                REGISTERED.set_alias("1", "champion")
            except KeyboardInterrupt:
                assert allowed < 5
        aliases = REGISTERED.aliases()
        assert aliases["champion"] in {"1", "2"}
        assert aliases.get("former-champion") != aliases["champion"]
        REGISTERED.notice_moved_champion()
        REGISTERED.set_alias("1", "champion")
        assert RegisteredModel("doctogres").aliases() == {"champion": "1", "former-champion": "2"}


def counted(call, left):
    """The call, which is interrupted when none is left."""

    def wrapped(*arguments, **options):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return call(*arguments, **options)

    return wrapped


@contextmanager
def database_gone(*, commits: int) -> Iterator[None]:
    """From some commit on, the database neither takes it nor answers anything else, until the block ends."""
    left = commits

    def refuse() -> None:
        raise OperationalError("COMMIT", {}, psycopg.OperationalError("server closed the connection unexpectedly"))

    def commit(_: Connection) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            refuse()

    def execute(*_: Any) -> None:
        if left < 0:
            refuse()

    for name, listener in (("commit", commit), ("before_cursor_execute", execute)):
        event.listen(Engine, name, listener)
    try:
        yield
    finally:
        for name, listener in (("commit", commit), ("before_cursor_execute", execute)):
            event.remove(Engine, name, listener)


def test_a_database_that_goes_away_at_any_moment_costs_no_rollback(
    two: None, capsys: pytest.CaptureFixture[str]
) -> None:
    user = mlflow.get_run(promote(version="2").run_id).data.tags["mlflow.user"]
    said: list[str] = []
    for commits in count():
        REGISTERED.set_alias("2", "champion")
        MlflowClient().set_model_version_tag("doctogres", "1", "promoted_by", "somebody before")
        with suppress(MlflowException):
            with saying(said), database_gone(commits=commits):
                promote(version="former-champion", reason="scanner B")
            break  # it has ended before
        aliases = REGISTERED.aliases()
        assert aliases["champion"] in {"1", "2"}
        assert aliases.get("former-champion") != aliases["champion"]
        promote(version="former-champion", reason="scanner B")
        assert REGISTERED.aliases() == {"champion": "1", "former-champion": "2"}
        assert (tags("1")["promoted_by"], tags("1")["promoted_reason"]) == (user, "scanner B")
    assert len(said) == commits > 10
    assert {line.partition(" (")[0] for line in said} == {"the database failed or cannot be reached"}
    assert "an interrupted command has moved champion from version 2 to version 1; the move" in capsys.readouterr().out


@contextmanager
def saying(said: list[str]) -> Iterator[None]:
    """Notes what a command says of the error that ends the block; no run stays open, as none does when a process ends."""
    try:
        yield
    except MlflowException as error:
        said.append(outage(error))
        raise
    finally:
        while mlflow.active_run():
            mlflow.end_run()
