"""The Optuna study with toy objectives on SQLite."""

import optuna
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from optuna.trial import TrialState
from pydantic import ValidationError

from doctogres.settings import SearchRange, TrainSettings, TuneSettings
from doctogres.tuning import run_study, study_figures

SPACE = {
    "dropout": SearchRange(low=0.0, high=0.6),
    "learning_rate": SearchRange(low=1e-5, high=1e-2, log=True),
    "backbone": SearchRange(choices=("test_resnet", "test_vit")),
    "augmentation": SearchRange(choices=(True, False)),
}
DEFAULTS = TrainSettings(backbone="test_resnet").model_dump()


@pytest.fixture
def storage(tmp_path):
    return f"sqlite:///{tmp_path}/studies/optuna.db"


@pytest.fixture
def study_of(storage):
    """Runs a study of that storage; by default three trials that are worth their dropout."""

    def run(objective=lambda trial, values: values["dropout"], *, name="toy", space=SPACE, seed=1, **size):
        return run_study(
            objective, name=name, storage=storage, settings=TuneSettings(space=space, **{"trials": 3, **size}),
            defaults=DEFAULTS, seed=seed,
        )  # fmt: skip

    return run


def states(result):
    return [trial.state for trial in result.study.get_trials()]


def params(result):
    return [trial.params for trial in result.study.get_trials()]


def test_the_first_trial_has_the_recipes_own_values(study_of):
    seen = []
    result = study_of(lambda trial, values: seen.append(values) or 0.5)
    assert seen[0] == {key: DEFAULTS[key] for key in SPACE}
    assert params(result) == seen
    assert len(seen) == 3


def test_the_best_trial_wins(study_of):
    result = study_of(trials=4)
    assert result.best == max(params(result), key=lambda values: values["dropout"])
    assert result.study.best_value == result.best["dropout"]


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
        TrainSettings.model_validate({**DEFAULTS, **values})


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
    assert again.best == first.best
    assert len(again.study.get_trials()) == 4


def test_studies_of_other_names_in_the_same_storage_are_apart(study_of):
    study_of(name="one", trials=1)
    assert len(study_of(name="two", trials=2).study.get_trials()) == 2


def test_a_study_that_goes_on_tries_new_values(study_of):
    study_of(trials=3)
    tried = [values["dropout"] for values in params(study_of(trials=5))]
    assert len(set(tried)) == 5


def interrupted_at(number):
    def objective(trial, values):
        if trial.number == number:
            raise KeyboardInterrupt if number % 2 else RuntimeError("out of memory")
        return values["dropout"]

    return objective


@pytest.mark.parametrize(("number", "error"), [(1, KeyboardInterrupt), (2, RuntimeError)])
def test_an_interrupted_study_goes_on_where_it_stopped(study_of, number, error):
    with pytest.raises(error):
        study_of(interrupted_at(number), trials=4)
    result = study_of(trials=4)
    assert states(result).count(TrialState.COMPLETE) == 4
    assert states(result).count(TrialState.FAIL) == 1
    assert states(result)[number] == TrialState.FAIL


def test_a_study_interrupted_in_its_first_trial_still_tries_the_recipes_own_values(study_of):
    with pytest.raises(RuntimeError, match="out of memory"):
        study_of(interrupted_at(0))
    result = study_of()
    finished = [trial.params for trial in result.study.get_trials(states=(TrialState.COMPLETE,))]
    assert {key: DEFAULTS[key] for key in SPACE} in finished


def test_a_trial_that_a_dead_process_left_running_does_not_stay_running(study_of, storage):
    study_of(trials=2)
    left = optuna.load_study(study_name="toy", storage=storage).ask()
    result = study_of(trials=3)
    assert TrialState.RUNNING not in states(result)
    assert states(result)[left.number] == TrialState.FAIL
    assert states(result).count(TrialState.COMPLETE) == 3


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
    assert result.study.get_trials()[5].last_step == 2  # a third of the trial's epochs is not judged


def test_an_empty_space_tries_the_recipe_only(study_of):
    result = study_of(lambda trial, values: 0.5, trials=1, space={})
    assert result.best == {}


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
    assert [type(value) for value in SearchRange(choices=(1, 0.5, True, "x")).choices] == [int, float, bool, str]


@pytest.mark.parametrize("values", [{"trials": 0}, {"trial_epochs": 0}, {"pruner": "median"}], ids=str)
def test_a_study_that_cannot_work_is_refused(values):
    with pytest.raises(ValidationError):
        TuneSettings(**values)


def test_a_space_over_unknown_settings_is_refused_by_name():
    with pytest.raises(ValidationError, match="not training settings: momentum"):
        TuneSettings(space={"momentum": {"low": 0, "high": 1}, "dropout": {"low": 0, "high": 0.5}})


def test_a_study_is_drawn(study_of):
    figures = study_figures(study_of(trials=3).study)
    assert figures.keys() == {"history", "importance", "slice"}
    assert all(isinstance(figure, Figure) for figure in figures.values())
    plt.close("all")


@pytest.mark.parametrize("trials", [1, 3])
def test_a_study_without_differences_is_drawn_without_importance(study_of, trials):
    figures = study_figures(study_of(lambda trial, values: 0.5, trials=trials).study)
    assert figures.keys() == {"history"}
    plt.close("all")
