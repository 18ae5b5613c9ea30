"""How the workers of a study share its trials: locks, heartbeats, and retries of a dead worker's trials.

A worker takes a trial while holding a lock on the storage, so that what it reads there (who runs what, who died, what is
still to do) stays true until it has recorded itself as the trial's owner. The lock ends with the process in any case.
"""

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from doctogres.addresses import masked
from doctogres.errors import ParameterError
from doctogres.liveness import is_gone, this_process
from doctogres.settings import TuneSettings, is_used
from doctogres.tuning.search import pruner_of, sampler_of, suggest_all

FINISHED: Final = (TrialState.COMPLETE, TrialState.PRUNED)
HEARTBEAT: Final = 10  # seconds between heartbeats of a running trial
GRACE: Final = 60  # seconds without a heartbeat after which a worker on another machine counts as dead
POLL: Final = 1.0  # seconds between checks by a worker that waits for the others
MAX_RETRIES: Final = 3  # a trial whose worker died this many times is not repeated again
LOCK: Final = 0x646F63746F67  # id of the advisory lock in PostgreSQL

# User attributes of a trial.
DEFAULT: Final = "doctogres.default"  # uses the preset's own values
OWNER: Final = "doctogres.owner"  # the process that runs it
ERROR: Final = "doctogres.error"  # failed with an error: repeating the same values would fail again


def open_study(name: str, storage: str, settings: TuneSettings) -> tuple[optuna.Study, RDBStorage]:
    try:
        with locked(storage), quiet():  # two workers must not create the tables at the same time
            sqlite = sqlalchemy.make_url(storage).get_backend_name() == "sqlite"
            options = {"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True}
            database = RDBStorage(storage, engine_kwargs=options, heartbeat_interval=HEARTBEAT, grace_period=GRACE)
            study = optuna.create_study(
                storage=database, study_name=name, direction="maximize", load_if_exists=True, pruner=pruner_of(settings)
            )
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, ImportError, OSError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ParameterError(masked(f"storage={storage}: the database cannot be used: {reason}")) from error
    return study, database


@contextmanager
def locked(storage: str) -> Iterator[None]:
    """Holds an exclusive lock on the storage; creates the folder of a SQLite file."""
    try:
        url = sqlalchemy.make_url(storage)
    except sqlalchemy.exc.ArgumentError as error:
        raise ParameterError(
            f"storage={masked(storage)}: not a database URL; give sqlite:///FILE or postgresql://..."
        ) from error
    backend = url.get_backend_name()
    if backend == "sqlite" and url.database not in (None, "", ":memory:"):
        path = Path(f"{url.database}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path):
            yield
    elif backend == "postgresql":
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            yield
    else:
        raise ParameterError(f"storage={masked(storage)}: give sqlite:///FILE or postgresql://USER@HOST/DATABASE")


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses Optuna's warnings that heartbeats are experimental and need `Study.optimize`; we send our own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Heartbeat of storage")
        yield


def take_trial(
    study: optuna.Study, database: RDBStorage, defaults: Mapping[str, Any], settings: TuneSettings, seed: int
) -> optuna.Trial | None:
    """Takes a trial, with all its values, for this process; None while others run all remaining trials."""
    _fail_dead(study)
    _queue_retries(study)
    trials = study.get_trials(deepcopy=False)
    live = [trial for trial in trials if trial.state != TrialState.FAIL]
    if sum(trial.state != TrialState.WAITING for trial in live) >= settings.trials:
        return None
    if not any(DEFAULT in trial.user_attrs for trial in live):
        _queue_own_settings(study, defaults, settings)
    sampled = sum(not RetryHeartbeatStaleTrialCallback.retry_history(trial) for trial in trials)
    study.sampler = sampler_of(seed, sampled)
    trial = study.ask()
    suggest_all(trial, settings.space, defaults)
    database.record_heartbeat(
        trial._trial_id
    )  # before the owner: a trial with an owner must have a heartbeat that can expire
    trial.set_user_attr(OWNER, this_process())
    return trial


def _queue_own_settings(study: optuna.Study, defaults: Mapping[str, Any], settings: TuneSettings) -> None:
    """Queues the preset's own settings and, if the study searches recipes, the same settings with each other recipe.

    Of the other recipes' settings those that lie outside the space are drawn.
    """
    searched = settings.space.get("recipe")
    others = [recipe for recipe in (searched.choices or () if searched else ()) if recipe != defaults["recipe"]]
    for recipe in (defaults["recipe"], *others):
        values = {**defaults, "recipe": recipe}
        own = {
            name: values[name]
            for name, within in settings.space.items()
            if is_used(name, values) and within.holds(values[name])
        }
        study.enqueue_trial(own, user_attrs={DEFAULT: True} if recipe == defaults["recipe"] else {})


def _fail_dead(study: optuna.Study) -> None:
    """Fails the trials whose process is gone: immediately if it ran on this machine, else after the grace period."""
    optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get(OWNER)
        if owner is None or is_gone(owner):  # no owner: it died in `take_trial`, which only one process runs at a time
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def _queue_retries(study: optuna.Study) -> None:
    """Queues a retry of every interrupted trial that has none: a worker may die between failing and queueing it."""
    trials = study.get_trials()
    retried = {number for trial in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(trial)}
    for trial in trials:
        if trial.state == TrialState.FAIL and trial.number not in retried and ERROR not in trial.user_attrs:
            trial.user_attrs = {DEFAULT: True} if DEFAULT in trial.user_attrs else {}
            RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES)(study, trial)


def interrupted_trials(trial: optuna.Trial) -> list[FrozenTrial]:
    """The interrupted trials with the same values that this trial repeats."""
    with quiet():
        numbers = RetryHeartbeatStaleTrialCallback.retry_history(trial.study.get_trials(deepcopy=False)[trial.number])
    return [trial.study.get_trials(deepcopy=False)[number] for number in numbers]


def run_claimed(
    study: optuna.Study,
    database: RDBStorage,
    trial: optuna.Trial,
    objective: Callable[[optuna.Trial, dict[str, Any]], float],
) -> None:
    # A worker without heartbeats for too long loses its trial to another, whose result then counts.
    with _heartbeat(database, trial), suppress(UpdateFinishedTrialError):
        try:
            score = objective(trial, trial.params)
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, Exception):
                trial.set_user_attr(ERROR, repr(error))
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            raise
        else:
            study.tell(trial, score, state=TrialState.COMPLETE, skip_if_finished=True)


@contextmanager
def _heartbeat(database: RDBStorage, trial: optuna.Trial) -> Iterator[None]:
    """Sends heartbeats while the block runs, so that no other worker considers the trial dead."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT):
            with suppress(StorageInternalError):  # the next one may succeed
                database.record_heartbeat(trial._trial_id)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
