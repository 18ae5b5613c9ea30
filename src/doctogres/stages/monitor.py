"""monitor: a period of an answer log and the model that answered -> what has shifted since the training, and alarms."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd

from doctogres.catalogue import ALARMS
from doctogres.errors import ParameterError, UpstreamError
from doctogres.evaluation.drift import Shift, compare, distinct, missing
from doctogres.evaluation.drift import daily as by_day
from doctogres.files import digest_of
from doctogres.names import class_key
from doctogres.progress import counted
from doctogres.serving.answers import read_answers
from doctogres.serving.loading import classifier_evidence
from doctogres.spreadsheets import write_csv
from doctogres.tracking.datasets import log_model_input
from doctogres.tracking.runs import SLIDES, StageResult, StageRun, run_stage
from doctogres.tracking.upstream import find_model, fixed_address, model_digest


def monitor(
    *, answers: str, model: str, since: str = "", until: str = "", alpha: str = "0.05", rerun: bool = False
) -> StageResult:
    """Compares the slides that the model answered in a period with its training slides, or reuses a finished run.

    Raises:
        ParameterError: a date or `alpha` that is none, or no `answers`.
        UpstreamError: no answer log, no answers of this model in the period, or a model without a reference.
    """
    level, first, last = _level(alpha), _day("since", since), _day("until", until)
    if not answers:
        raise ParameterError(
            "answers is empty; give the folder or address that DOCTOGRES_ANSWER_LOG names on the server"
        )
    address = fixed_address(find_model(model))
    reference = _reference(address)
    table = distinct(_of_model(_within(read_answers(answers), first, last), address, answers))

    def body(run: StageRun) -> None:
        log_model_input(address)
        _publish(run, reference, table, compare(reference, table, alpha=level), level)

    settings = {"since": since, "until": until, "alpha": level}
    inputs = {"answers": digest_of(table.to_json(date_format="iso")), "model": model_digest(address)}
    return run_stage("monitor", body, settings=settings, inputs=inputs, rerun=rerun)


def _level(alpha: str) -> float:
    try:
        level = float(alpha)
    except ValueError:
        level = 0.0
    if not 0 < level < 1:
        raise ParameterError(f"alpha={alpha}: give a number between 0 and 1, such as 0.05")
    return level


def _day(name: str, text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise ParameterError(f"{name}={text}: give a date such as 2026-11-30") from error


def _within(table: pd.DataFrame, first: date | None, last: date | None) -> pd.DataFrame:
    """The rows from the first day to the last one, both included, in UTC."""
    if first and last and first > last:
        raise ParameterError(f"since={first} is after until={last}; give the earlier day as `since`")
    if first:
        table = table[table["time"] >= _midnight(first)]
    return table[table["time"] < _midnight(last + timedelta(days=1))] if last else table


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _reference(address: str) -> pd.DataFrame:
    reference = pd.DataFrame(classifier_evidence(address).get("reference", {}))
    if reference.empty:
        raise UpstreamError(
            f"model={address}: it was trained by a version of doctogres that did not keep what its training slides look like, "
            "so nothing can be compared; run `patch`, `train`, `evaluate` and `register` again and serve the new version"
        )
    return reference


def _of_model(table: pd.DataFrame, address: str, answers: str) -> pd.DataFrame:
    """The rows of the model."""
    import mlflow

    own = table[table["model_id"] == mlflow.models.get_model_info(address).model_id]
    if own.empty:
        others = ", ".join(sorted(table["model_version"].dropna().unique())) or "no model"
        raise UpstreamError(
            f"answers={answers}: no answers of {address} in this period, only of {others}; give another period or model="
        )
    return own


def _publish(
    run: StageRun, reference: pd.DataFrame, table: pd.DataFrame, shifts: Sequence[Shift], alpha: float
) -> None:
    from doctogres.report.monitor import monitor_page

    alarms = [shift.sentence for shift in shifts if shift.alarm]
    first, last = (f"{time:%Y-%m-%d}" for time in (table["time"].min(), table["time"].max()))
    period = first if first == last else f"{first} to {last}"
    result = f"{len(alarms)} alarm{'' if len(alarms) == 1 else 's'} in {len(table)} slides of {period}"
    lacking = (
        f"Not compared, because the model has no reference: {', '.join(names)}."
        if (names := missing(reference))
        else ""
    )
    for sentence in alarms:
        print(f"monitor: alarm: {sentence}", flush=True)
    if lacking:
        print(f"monitor: {lacking}", flush=True)
    run.publish("report").write_text(
        monitor_page(result, alarms, lacking, shifts, reference, table, alpha=alpha), encoding="utf-8"
    )
    write_csv(pd.DataFrame(map(_row, shifts)), run.publish("shifts"))
    run.name(result)
    run.note(" ".join([f"{result}.", *(f"{sentence}." for sentence in alarms), lacking]).strip())
    days = list(by_day(table))
    for step, (_, values) in enumerate(counted(days, "recording", "days", len(days))):
        run.log_metrics(_keyed(values), step=step)
    run.log_metrics({ALARMS: len(alarms), SLIDES: len(table)} | {f"shift/{s.quantity.name}": s.effect for s in shifts})


def _keyed(values: Mapping[str, float]) -> dict[str, float]:
    """The names as metrics: a class stands in them as its key."""
    split = {name: name.partition("/") for name in values}
    return {
        f"day/{kind}/{class_key(label)}" if slash else f"day/{kind}": values[name]
        for name, (kind, slash, label) in split.items()
    }


def _row(shift: Shift) -> dict[str, Any]:
    return {
        "quantity": shift.quantity.name, "training": shift.before, "period": shift.after, "slides": shift.slides,
        "shift": shift.effect, "p": shift.p, "p_adjusted": shift.adjusted, "alarm": shift.alarm,
    }  # fmt: skip
