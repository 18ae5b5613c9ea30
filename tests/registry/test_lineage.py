"""The commands on a model's card."""

import shlex

from doctogres.registry.lineage import commands

DEFAULTS = {"ignore_columns": "", "annotations": "", "mpp": "", "geojson": "False", "subgroups": ""}


def given(command: str) -> list[str]:
    """The parameters of a command, in order."""
    words = shlex.split(command)
    return [words[number + 1] for number, word in enumerate(words) if word == "-P"]


def test_a_command_has_the_parameters_that_are_no_settings_where_they_are_not_at_their_defaults() -> None:
    recipe = {
        "clean": {"seed": "7", "subgroups": "site", "ignore_columns": "case,block", "annotations": "Tumor, Stroma"},
        "evaluate": {"split": "/data/north", "seed": "7", **DEFAULTS, "mpp": "0.5", "resamples": "300"},
    }
    clean, evaluate = commands(recipe, {"clean": {"data": "my slides"}})
    assert given(clean) == [
        "data=my slides",
        "preset=demo",
        "seed=7",
        "ignore_columns=case,block",
        "subgroups=site",
        "annotations=Tumor, Stroma",
    ]
    assert given(evaluate) == ["preset=demo", "split=/data/north", "mpp=0.5", "seed=7", "resamples=300"]


def test_parameters_at_their_defaults_are_left_out_but_for_the_seed_and_the_split() -> None:
    recipe = {
        "clean": {"seed": "7", "ignore_columns": "", "subgroups": "auto", "annotations": "", "max_pixels": "9"},
        "evaluate": {"split": "holdout", "seed": "7", **DEFAULTS},
    }
    assert [given(command) for command in commands(recipe, {})] == [
        ["preset=demo", "seed=7"],
        ["preset=demo", "split=holdout", "seed=7"],
    ]
