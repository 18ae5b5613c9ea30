"""The Optuna study with toy objectives on SQLite; presets with a search space of one's own."""

import os
import signal
import subprocess
import sys
import threading
from importlib.resources import files
from pathlib import Path

import optuna
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text
from optuna.trial import TrialState
from pydantic import ValidationError

from doctogres.errors import ParameterError
from doctogres.liveness import this_process
from doctogres.presets import PRESETS, check_space, load_preset
from doctogres.settings import AnswerSettings, SearchRange, TrainSettings, TuneSettings
from doctogres.tuning import workers as tuning
from doctogres.tuning.figures import study_figures
from doctogres.tuning.study import run_study
from doctogres.tuning.workers import ERROR, OWNER

SPACE = {
    "dropout": SearchRange(low=0.0, high=0.6),
    "learning_rate": SearchRange(low=1e-5, high=1e-2, log=True),
    "backbone": SearchRange(choices=("test_resnet", "test_vit")),
    "augmentation": SearchRange(choices=(True, False)),
}
DEFAULTS = TrainSettings(backbone="test_resnet").model_dump() | AnswerSettings().model_dump()


@pytest.fixture
def storage(tmp_path):
    return f"sqlite:///{tmp_path}/studies/optuna.db"


@pytest.fixture
def study_of(storage):
    """Runs a study of that storage; by default three trials that are worth their dropout."""

    def run(objective=lambda trial, values: values["dropout"], *, name="toy", space=SPACE, seed=1, report=None, **size):
        return run_study(
            objective, name=name, storage=storage, settings=TuneSettings(space=space, **{"trials": 3, **size}),
            defaults=DEFAULTS, seed=seed, report=report,
        )  # fmt: skip

    return run


# A worker in a process of its own: says which trial it runs, and stays in the trial HANG until it is killed.
WORKER = """
import sys, time
from doctogres.settings import SearchRange, TrainSettings, TuneSettings
from doctogres.tuning.study import run_study

storage, trials, hang = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def objective(trial, values):
    print(trial.number, values["dropout"], flush=True)
    trial.report(values["dropout"], 0)
    time.sleep(600 if trial.number == hang else 0.05)
    return values["dropout"]

settings = TuneSettings(trials=trials, space={"dropout": SearchRange(low=0.0, high=0.6)})
result = run_study(
    objective, name="toy", storage=storage, settings=settings, defaults=TrainSettings().model_dump(), seed=1
)
print("best", result.best_trial.params["dropout"], flush=True)
"""


@pytest.fixture
def worker(storage):
    """Starts a worker process; whatever is left of it is killed after the test."""
    started = []

    def start(*, trials, hang=-1):
        source = str(Path(tuning.__file__).parents[2])
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, storage, str(trials), str(hang)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": source},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None  # a pipe, by `start`
        process.stdout.close()


def lines_until(process, number):
    """The worker's lines up to the one that says it runs trial `number`."""
    lines = []
    for line in process.stdout:
        lines.append(line.split())
        if lines[-1][0] == str(number):
            return lines
    raise AssertionError(f"the worker ended before trial {number}: {lines}")


def finished(result):
    return [trial for trial in result.study.get_trials() if trial.state in tuning.FINISHED]


def states(result):
    return [trial.state for trial in result.study.get_trials()]


def params(result):
    return [trial.params for trial in result.study.get_trials()]


def test_the_first_trial_has_the_recipes_own_values(study_of):
    seen = []

    def objective(trial, values):
        seen.append(values)
        return 0.5

    result = study_of(objective)
    assert seen[0] == {key: DEFAULTS[key] for key in SPACE}
    assert params(result) == seen
    assert len(seen) == 3


def test_the_best_trial_wins(study_of):
    result = study_of(trials=4)
    assert result.best_trial.params == max(params(result), key=lambda values: values["dropout"])
    assert result.study.best_value == result.best_trial.params["dropout"]


def test_suggestions_stay_within_the_space(study_of):
    for values in params(study_of(trials=8)):
        assert values.keys() == SPACE.keys()
        assert 0.0 <= values["dropout"] <= 0.6
        assert 1e-5 <= values["learning_rate"] <= 1e-2
        assert values["backbone"] in ("test_resnet", "test_vit")
        assert values["augmentation"] in (True, False)


def test_every_suggestion_is_a_recipe_that_can_be_trained(study_of):
    space = {"batch_size": SearchRange(low=8, high=64), "unfreeze_every": SearchRange(low=0, high=30), **SPACE}
    for values in params(study_of(trials=4, space=space)):
        TrainSettings.model_validate({**TrainSettings(backbone="test_resnet").model_dump(), **values})


def test_the_same_seed_tries_the_same_values_and_another_seed_does_not(study_of):
    first, second, other = (
        params(study_of(name=name, seed=seed, trials=2)) for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    )
    assert first == second
    assert first != other


def test_a_second_call_runs_only_the_missing_trials(study_of):
    calls = []

    def objective(trial, values):
        calls.append(trial.number)
        return values["dropout"]

    study_of(objective, trials=3)
    result = study_of(objective, trials=5)
    assert calls == [0, 1, 2, 3, 4]
    assert states(result) == [TrialState.COMPLETE] * 5


def test_a_finished_study_runs_nothing_and_has_the_same_best(study_of):
    first = study_of(trials=4)

    def never(trial, values):
        raise AssertionError

    again = study_of(never, trials=4)
    assert again.best_trial.params == first.best_trial.params
    assert len(again.study.get_trials()) == 4


def test_studies_of_other_names_in_the_same_storage_are_apart(study_of):
    study_of(name="one", trials=1)
    assert len(study_of(name="two", trials=2).study.get_trials()) == 2


def test_a_study_that_goes_on_tries_new_values(study_of):
    study_of(trials=3)
    tried = [values["dropout"] for values in params(study_of(trials=5))]
    assert len(set(tried)) == 5


def interrupted_at(number, error):
    def objective(trial, values):
        if trial.number == number:
            raise error
        return values["dropout"]

    return objective


@pytest.mark.parametrize("number", [0, 2])
def test_an_interrupted_trial_is_tried_again_with_its_values(study_of, number):
    with pytest.raises(KeyboardInterrupt):
        study_of(interrupted_at(number, KeyboardInterrupt), trials=4)
    result = study_of(trials=4)
    assert states(result) == [TrialState.COMPLETE] * number + [TrialState.FAIL] + [TrialState.COMPLETE] * (4 - number)
    assert params(result)[number + 1] == params(result)[number]
    untouched = study_of(name="untouched", trials=4)
    assert [trial.params for trial in finished(result)] == params(untouched)


def test_a_trial_that_failed_by_itself_ends_the_study_and_is_not_tried_again(study_of):
    with pytest.raises(RuntimeError, match="out of memory"):
        study_of(interrupted_at(2, RuntimeError("out of memory")), trials=4)
    result = study_of(trials=4)
    assert states(result) == [TrialState.COMPLETE] * 2 + [TrialState.FAIL] + [TrialState.COMPLETE] * 2
    assert "out of memory" in result.study.get_trials()[2].user_attrs[ERROR]
    assert len({values["dropout"] for values in params(result)}) == 5


def test_a_study_that_failed_in_its_first_trial_still_tries_the_recipes_own_values(study_of):
    with pytest.raises(RuntimeError, match="out of memory"):
        study_of(interrupted_at(0, RuntimeError("out of memory")))
    result = study_of()
    assert result.default is not None
    assert result.default.params == {key: DEFAULTS[key] for key in SPACE}
    assert params(result)[:2] == [result.default.params] * 2


def test_a_score_that_is_no_number_is_an_error(study_of):
    with pytest.raises(ValueError, match="nan"):
        study_of(lambda trial, values: float("nan"))


def test_a_trial_that_takes_every_worker_with_it_is_given_up(study_of):
    deadly = []

    def objective(trial, values):
        if trial.number == 1:
            deadly.append(values["dropout"])
        if values["dropout"] in deadly:
            raise KeyboardInterrupt
        return values["dropout"]

    for _attempt in range(tuning.MAX_RETRIES + 1):
        with pytest.raises(KeyboardInterrupt):
            study_of(objective)
    result = study_of(objective)
    assert states(result).count(TrialState.FAIL) == tuning.MAX_RETRIES + 1
    assert len(finished(result)) == 3


@pytest.mark.slow
def test_a_killed_worker_goes_on_where_it_stopped(study_of, worker, storage):
    dead = worker(trials=4, hang=2)
    lines = lines_until(dead, 2)
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    again = worker(trials=4)
    tried = [line.split() for line in again.communicate()[0].splitlines()]
    assert [line[0] for line in lines] == ["0", "1", "2"]
    assert [line[0] for line in tried] == ["3", "4", "best"]  # nothing finished is tried again
    assert tried[0][1] == lines[2][1]  # the interrupted trial has the same values
    trials = optuna.load_study(study_name="toy", storage=storage).get_trials()
    assert [trial.state for trial in trials].count(TrialState.COMPLETE) == 4
    assert trials[2].state == TrialState.FAIL
    assert trials[3].system_attrs["retry_history"] == [2]


@pytest.mark.slow
def test_a_worker_takes_over_the_trial_of_one_that_is_killed(worker, storage):
    dead = worker(trials=6, hang=1)
    (_, first), (_, values) = lines_until(dead, 1)
    other = worker(trials=6)
    seen = lines_until(other, 2)  # it leaves the running trial alone
    dead.send_signal(signal.SIGKILL)
    seen += [line.split() for line in other.communicate()[0].splitlines()]
    assert other.returncode == 0
    trials = optuna.load_study(study_name="toy", storage=storage).get_trials()
    assert [trial.number for trial in trials if trial.state == TrialState.FAIL] == [1]
    assert [trial.state for trial in trials].count(TrialState.COMPLETE) == 6
    (retry,) = [trial for trial in trials if trial.system_attrs.get("retry_history") == [1]]
    assert [str(retry.number), values] in seen
    assert float(first) == TrainSettings().dropout


@pytest.mark.slow
def test_workers_that_start_together_share_one_study(worker, storage):
    workers = [worker(trials=9) for _ in range(3)]
    outputs = [[line.split() for line in process.communicate()[0].splitlines()] for process in workers]
    assert [process.returncode for process in workers] == [0, 0, 0]
    assert len({output[-1][1] for output in outputs}) == 1  # each ends with the whole study's best
    tried = sorted((int(number), value) for output in outputs for number, value in output[:-1])
    assert [number for number, _ in tried] == list(range(9))  # no trial twice, none too many
    assert len({value for _, value in tried}) == 9  # no value twice, so the default once
    assert float(tried[0][1]) == TrainSettings().dropout


def left_running(storage, owner):
    """A trial as a worker elsewhere leaves it when its machine fails."""
    with tuning.quiet():
        database = optuna.storages.RDBStorage(storage, heartbeat_interval=60)
        trial = optuna.load_study(study_name="toy", storage=database).ask()
        trial.suggest_float("dropout", 0.0, 0.6)
        study_id = database.get_study_id_from_name("toy")
        database.record_heartbeat(database.get_trial_id_from_study_id_trial_number(study_id, trial.number))
    trial.set_user_attr(OWNER, owner)
    return trial.number


@pytest.mark.parametrize("seen", [True, False], ids=["on this machine", "elsewhere"])
def test_a_trial_whose_worker_is_dead_is_tried_again(study_of, storage, monkeypatch, seen):
    monkeypatch.setattr(tuning, "GRACE", 1 if not seen else 3600)  # elsewhere only silence tells
    space = {"dropout": SPACE["dropout"]}
    study_of(trials=2, space=space)
    died = subprocess.Popen([sys.executable, "-c", ""])
    died.wait()
    owner = {**this_process(), "process": died.pid, **({} if seen else {"boot": "elsewhere", "machine": "elsewhere"})}
    number = left_running(storage, owner)
    result = study_of(trials=3, space=space)
    assert states(result) == [TrialState.COMPLETE] * 2 + [TrialState.FAIL, TrialState.COMPLETE]
    assert params(result)[number + 1] == params(result)[number]


def test_a_trial_that_died_before_it_had_an_owner_does_not_stay_running(study_of, storage):
    study_of(trials=2)
    optuna.load_study(study_name="toy", storage=storage).ask()
    result = study_of(trials=3)
    assert states(result) == [TrialState.COMPLETE] * 2 + [TrialState.FAIL, TrialState.COMPLETE]


def test_a_retry_that_a_dying_worker_did_not_queue_is_not_lost(study_of, storage):
    study_of(trials=2)
    study = optuna.load_study(study_name="toy", storage=storage)
    study.tell(left_running(storage, this_process()), state=TrialState.FAIL)
    result = study_of(trials=3)
    assert params(result)[3]["dropout"] == params(result)[2]["dropout"]


def in_a_thread(study_of, release):
    """A second worker, which stays in its first trial until it is released; with its result and its trial's number."""
    inside, results = threading.Event(), []

    def objective(trial, values):
        results.append(trial.number)
        if len(results) == 1:
            inside.set()
            release.wait()
        return values["dropout"]

    thread = threading.Thread(target=lambda: results.append(study_of(objective, trials=3)), daemon=True)
    thread.start()
    inside.wait()
    return thread, results


def test_a_worker_waits_for_the_trials_of_the_others(study_of):
    release, reports = threading.Event(), []

    def report(done, wanted):
        reports.append(done)
        if reports.count(2) == 2:  # it has found nothing to do and looks again
            release.set()

    thread, results = in_a_thread(study_of, release)
    result = study_of(trials=3, report=report)
    thread.join()
    assert states(result) == [TrialState.COMPLETE] * 3
    assert results[0] == 0
    assert results[-1].best_trial.params == result.best_trial.params
    assert results[-1].default.number == result.default.number == 0


def test_a_worker_that_was_silent_for_too_long_loses_its_trial_but_not_the_result(study_of, monkeypatch):
    monkeypatch.setattr(tuning, "GRACE", 1)
    monkeypatch.setattr(tuning, "HEARTBEAT", 3600)
    release = threading.Event()
    thread, results = in_a_thread(study_of, release)
    result = study_of(trials=3)
    assert states(result)[0] == TrialState.FAIL
    assert result.default.system_attrs["retry_history"] == [0]
    release.set()
    thread.join()
    assert results[-1].best_trial.params == result.best_trial.params
    assert len(results[-1].study.get_trials()) == 4


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("optuna.db", ["storage=optuna.db", "sqlite:///FILE"]),
        ("mysql://me:secret@host/db", ["mysql", "postgresql://"]),
        ("sqlite://", ["sqlite:///FILE"]),
        ("sqlite:////dev/null/optuna.db", ["/dev/null"]),
        ("postgresql://me:secret@127.0.0.1:1/db", ["postgresql://me:***@127.0.0.1:1/db", "cannot be used", "refused"]),
        ("postgresql+nothing://host/db", ["postgresql+nothing", "cannot be used"]),
    ],
)
def test_a_storage_that_cannot_work_is_one_line_without_the_password(url, words):
    with pytest.raises(ParameterError) as error:
        run_study(lambda trial, values: 0.5, name="toy", storage=url, settings=TuneSettings(), defaults={}, seed=1)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "secret" not in message
    assert "\n" not in message


def test_pruned_trials_count(study_of):
    def objective(trial, values):
        trial.report(0.1, 0)
        if trial.number % 2:
            raise optuna.TrialPruned
        return values["dropout"]

    result = study_of(objective, trials=4)
    assert states(result) == [TrialState.COMPLETE, TrialState.PRUNED] * 2
    assert len(study_of(objective, trials=4).study.get_trials()) == 4


def test_a_trial_below_the_median_of_the_others_is_pruned(study_of):
    def objective(trial, values):
        score = 0.1 if trial.number == 5 else 0.5
        for epoch in range(6):
            trial.report(score, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return score

    result = study_of(objective, trials=6, trial_epochs=6)
    assert states(result) == [TrialState.COMPLETE] * 5 + [TrialState.PRUNED]
    assert result.study.get_trials()[5].last_step == 3  # half of the trial's epochs are not judged


def test_an_empty_space_tries_the_recipe_only(study_of):
    result = study_of(lambda trial, values: 0.5, trials=1, space={})
    assert result.best_trial.params == {}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"low": 1},
        {"high": 1},
        {"low": 2, "high": 1},
        {"low": 1, "high": 1},
        {"low": 0, "high": 1, "choices": [1, 2]},
        {"low": 0, "high": 1, "step": 0.1},
        {"low": 0, "high": 1, "log": True},
        {"choices": []},
    ],
    ids=str,
)
def test_a_range_that_cannot_work_is_refused(values):
    with pytest.raises(ValidationError):
        SearchRange(**values)


def test_choices_keep_their_types():
    assert [type(value) for value in SearchRange(choices=(1, 0.5, True, "x")).choices or ()] == [int, float, bool, str]


@pytest.mark.parametrize("values", [{"trials": 0}, {"trial_epochs": 0}, {"pruner": "median"}], ids=str)
def test_a_study_that_cannot_work_is_refused(values):
    with pytest.raises(ValidationError):
        TuneSettings(**values)


def test_a_space_over_unknown_settings_is_refused_by_name():
    with pytest.raises(ValidationError, match="not training settings: momentum"):
        TuneSettings(space={"momentum": {"low": 0, "high": 1}, "dropout": {"low": 0, "high": 0.5}})


@pytest.mark.slow
def test_a_study_is_drawn(study_of):
    figures = study_figures(study_of(trials=3).study)
    assert figures.keys() == {"history", "timeline", "importance", "slice"}
    assert all(isinstance(figure, Figure) for figure in figures.values())
    texts = {name: {text.get_text() for text in figure.findobj(Text)} for name, figure in figures.items()}
    assert not any("Objective" in text for found in texts.values() for text in found)
    assert "slide-level macro-F1" in texts["history"] & texts["slice"]
    assert any("only 3 trials" in text for text in texts["importance"])
    (axes,) = figures["history"].axes
    assert all(place == round(place) for place in axes.get_xticks())
    plt.close("all")


@pytest.mark.parametrize("trials", [1, 3])
def test_a_study_without_differences_is_drawn_without_importance(study_of, trials):
    figures = study_figures(study_of(lambda trial, values: 0.5, trials=trials).study)
    assert figures.keys() == {"history", "timeline"}
    plt.close("all")


def test_drawing_a_study_leaves_the_style_of_other_figures_alone(study_of):
    def objective(trial, values):
        trial.report(values["dropout"], 0)
        return values["dropout"]

    before = plt.rcParams.copy()
    figures = study_figures(study_of(objective).study)
    assert "intermediate_values" in figures
    assert plt.rcParams == before
    plt.close("all")


def test_of_equal_trials_the_default_is_the_best(study_of):
    with pytest.raises(KeyboardInterrupt):
        study_of(interrupted_at(0, KeyboardInterrupt))
    result = study_of(lambda trial, values: 0.5)
    assert result.best_trial.number == result.default.number == 1


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"dropout": {"low": 0.1, "high": 1.5}}, ["dropout=1.5", "less than 1"]),
        ({"batch_size": {"low": 8.5, "high": 16}}, ["batch_size=8.5", "integer"]),
        ({"batch_size": {"choices": [8, 0]}}, ["batch_size=0"]),
        ({"augmentation": {"low": 0, "high": 1}}, ["augmentation", "choices"]),
        ({"epochs": {"low": 1, "high": 9}}, ["epochs", "trial_epochs"]),
        ({"device": {"choices": ["cpu"]}}, ["device"]),
    ],
    ids=str,
)
def test_a_space_that_the_training_would_refuse_is_refused_before_it_begins(space, words):
    with pytest.raises(ValidationError) as error:
        TuneSettings(space=space)
    assert all(word in str(error.value) for word in words), error.value


def test_a_choice_that_yaml_reads_as_text_is_the_number_that_is_meant():
    assert TuneSettings(space={"learning_rate": {"choices": ["1e-4", 1]}}).space["learning_rate"].choices == (1e-4, 1.0)


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_own_recipe_lies_in_its_search_space(name):
    check_space(load_preset(name))


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [("learning_rate", 0.5, "0.0003 to 0.003"), ("layer_decay", 0.85, "one of 0.7, 0.8, 0.9, 1.0")],
)
def test_a_default_outside_the_space_is_refused_with_setting_value_and_range(setting, value, words):
    with pytest.raises(ParameterError) as error:
        check_space(load_preset("demo", {setting: value}))
    assert str(error.value).startswith(f"{setting}={value}: outside")
    assert words in str(error.value)


def test_the_other_recipes_settings_are_drawn_where_the_presets_own_lie_outside_the_space(study_of):
    assert DEFAULTS["recipe"] == "finetune"
    space = {"recipe": SearchRange(choices=("finetune", "probe")), "head": SearchRange(choices=("lda",))}
    assert not space["head"].holds(DEFAULTS["head"])
    result = study_of(lambda trial, values: 0.5, space=space)
    first, second, *_ = finished(result)
    assert first.params == {"recipe": "finetune"}
    assert second.params == {"recipe": "probe", "head": "lda"}


@pytest.fixture
def own_preset(tmp_path):
    """Writes the demo preset with a text replaced to a file, and returns its path."""
    text = files("doctogres").joinpath("presets", "demo.yaml").read_text(encoding="utf-8")

    def write(old="", new=""):
        assert old in text
        path = tmp_path / "mine.yaml"
        path.write_text(text.replace(old, new) if old else new or text, encoding="utf-8")
        return str(path)

    return write


def test_a_preset_of_ones_own_is_a_file_and_takes_overrides(own_preset):
    path = own_preset("dropout: {low: 0.0, high: 0.5}", "batch_size: {choices: [16, 32]}")
    preset = load_preset(path, {"trials": 3})
    assert preset.tune.space["batch_size"].choices == (16, 32)
    assert "dropout" not in preset.tune.space
    assert preset.tune.trials == 3
    assert load_preset(own_preset()) == load_preset("demo")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("dropout: 0.1", "dropout: 0.6", ["dropout=0.6", "0 to 0.5"]),
        ("dropout: 0.1", "droput: 0.1", ["mine.yaml", "train.droput=0.1"]),
        ("dropout: {low: 0.0,", "dropout: {low: 0.7,", ["tune.space.dropout", "low < high"]),
        ("dropout: {low: 0.0, high: 0.5}", "tta: {choices: [true, false]}", ["tta:", "recipe=finetune", "probes only"]),
        (
            "dropout: {low: 0.0, high: 0.5}",
            "aggregation: {choices: [mean, attention]}",
            ["aggregation=attention:", "recipe=finetune"],
        ),
        ("trials: 5", "trials: many", ["tune.trials=many", "integer"]),
        ("clean:", "cleaning:", ["cleaning: Extra inputs are not permitted"]),
        ("", "- 1", ["mine.yaml", "dictionary"]),
        ("", "a: [", ["mine.yaml", "line 1"]),
    ],
)
def test_a_preset_file_that_cannot_work_is_one_line(own_preset, old, new, words):
    with pytest.raises(ParameterError) as error:
        load_preset(own_preset(old, new))
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def test_a_preset_file_that_is_not_there_is_named():
    with pytest.raises(ParameterError, match="nowhere.yaml: the file cannot be read: .*No such file"):
        load_preset("nowhere.yaml")
