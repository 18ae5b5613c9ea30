"""The arithmetic of a promise, on given measurements."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from doctogres.planning.choice import Cohort
from doctogres.planning.estimate import FIXED, Speed, estimate, recipes_of, told
from doctogres.planning.sample import Sample
from doctogres.presets import load_preset

COHORT = Cohort({"a": 50, "b": 50}, 100, 20, False)
SAMPLE = Sample(8, 1.0, (640, 480), {"window224": 2.0, "regions": 6.0}, 0.1, 0.2, np.zeros((10, 8, 8, 3), np.uint8))
SPEED = Speed(
    *(3.0, 0.01, 0.02, 0.06),
    fit={"window224": 0.16, "regions": 0.48},
    gaussian=0.5,
    attention=0.01,
    blocks=4,
    features=10,
    nbytes=1000,
)
OTHERS = 0.5 + 64 * 0.01  # Gaussian and attention head of a network: 80 slides outside the hold-out, less a fold


def seconds(preset: str, overrides: dict[str, Any], recipe: str = "", **changes: Any) -> dict[str, float]:
    """Stage -> what the work on slides and patches takes, without the fixed part."""
    given: dict[str, Any] = {"cohort": COHORT, "sample": SAMPLE, "speeds": [SPEED], "pace": 0.0}
    promised = estimate(load_preset(preset, overrides), **{**given, **changes}).seconds
    return dict(promised[recipe or next(iter(promised))])


def test_slides_are_read_by_four_stages() -> None:
    plain = seconds("small", {"tta": False}, speeds=[replace(SPEED, ready=0.0, frozen=0.0)])
    assert plain["clean"] == pytest.approx(100 * 0.1)
    assert plain["patch"] == pytest.approx(100 * 0.2)
    assert plain["evaluate"] == pytest.approx(20 * 0.2)  # the hold-out
    assert plain["predict"] == pytest.approx(20 * 0.2)
    assert list(plain) == ["clean", "patch", "tune", "train", "evaluate", "register", "predict"]
    assert "predict" not in seconds("small", {}, cohort=replace(COHORT, test=0))


def test_a_probe_needs_eight_copies_of_the_features_once_and_a_fit_for_every_fold() -> None:
    found = seconds("small", {"trials": 4, "patching": "window"})
    features, fit = 3 + 8 * 160 * 0.01, 0.16
    assert found["tune"] == pytest.approx(features + 4 * 5 * fit)
    assert found["train"] == pytest.approx((5 + 1) * fit + 5 * OTHERS)
    assert found["evaluate"] == pytest.approx(3 + 20 * (0.2 + 8 * 2 * 0.01))  # eight turns of two windows
    twice = seconds("small", {"trials": 4, "patching": "window"}, speeds=[SPEED, SPEED])
    assert twice["tune"] == pytest.approx(2 * found["tune"])


def test_views_and_later_trials_add_up() -> None:
    both = seconds("small", {"trials": 4})
    fit = 0.16 + 0.48
    assert both["tune"] == pytest.approx(2 * 3 + 8 * (160 + 480) * 0.01 + 4 * 5 * fit)
    more = seconds("small", {"trials": 8})
    assert more["tune"] - both["tune"] == pytest.approx(0.75 * 4 * 5 * fit)  # the pruner ends some of them


def test_blocks_that_are_frozen_have_no_backward_pass() -> None:
    overrides = {"epochs": 3, "unfreeze_every": 1, "trials": 1, "trial_epochs": 3, "patching": "window", "oof_folds": 1}
    found = seconds("challenge", overrides)
    train, held = 160 * 0.8, 160 * 0.2
    half, whole = 0.02 + (0.06 - 0.02) / 2, 0.06  # two of four blocks are open, then all; first only the head
    network = 0.0005 * train + train * (half + whole) + 2 * held * 0.02
    assert found["tune"] == pytest.approx(3 + 5 * 160 * 0.01 + network)  # five copies: plain and four augmented views
    assert found["train"] == pytest.approx(network + (train + 9 * held) * 0.02 + OTHERS)
    everything = seconds("challenge", overrides | {"unfreeze_every": 0})
    assert everything["train"] > found["train"]
    longer = seconds("challenge", overrides | {"oof_folds": 0})
    assert longer["train"] == pytest.approx(5 * found["train"])


def test_the_recipes_of_a_study_take_turns() -> None:
    assert recipes_of(load_preset("demo")) == ("finetune", "probe")
    assert recipes_of(load_preset("small")) == ("probe",)
    one, two = (seconds("demo", {"trials": trials, "patching": "window"})["tune"] for trials in (1, 2))
    assert two - one == pytest.approx(0.16)  # the second trial is a probe, fitted once


def test_what_follows_the_study_is_promised_for_each_of_its_recipes() -> None:
    given = {"patching": "window", "trials": 2}
    tuned, probe = seconds("demo", given), seconds("demo", given, "probe")
    assert tuned.keys() == probe.keys()
    for stage in ("clean", "patch", "tune", "register"):
        assert tuned[stage] == probe[stage]
    assert probe["train"] == pytest.approx((4 + 1) * 0.16 + 4 * (0.5 + 0.01 * 70 * 0.75))
    assert probe["train"] < tuned["train"]
    assert probe["evaluate"] == pytest.approx(3 + 30 * (0.2 + 2 * 0.01))
    assert tuned["evaluate"] == pytest.approx(4 * 3 + 30 * (0.2 + 4 * 2 * 0.01))  # four networks answer


def test_what_is_no_network_takes_as_long_as_the_machine_is_slow() -> None:
    none = seconds("small", {})
    for stage, taken in seconds("small", {}, pace=2.0).items():
        assert taken >= none[stage] + 2 * FIXED[stage]


def test_slides_that_cannot_be_used_are_only_read_once() -> None:
    half = seconds("small", {}, sample=replace(SAMPLE, usable=0.5))
    fewer = seconds("small", {}, cohort=Cohort({"a": 25, "b": 25}, 50, 20, False))
    assert half["clean"] == 2 * fewer["clean"]
    assert {stage for stage in half if stage != "clean" and half[stage] != fewer[stage]} == set()


def test_the_patches_and_their_bytes() -> None:
    found = estimate(load_preset("small", {"patch_size": 100}), COHORT, SAMPLE, [SPEED], 1.0)
    assert found.patches == {"window224": 200, "regions": 600}
    assert found.nbytes == 800 * 100 * 100 * 3 + 8 * 640 * 10 * 4
    trained = estimate(load_preset("challenge", {"patching": "window"}), COHORT, SAMPLE, [SPEED], 1.0)
    assert trained.nbytes == 800 * 224 * 224 * 3 + 5 * 160 * 10 * 4 + 5 * 1000  # five copies, five networks


def test_the_promise_in_words_and_a_disk_that_is_too_small() -> None:
    found = estimate(load_preset("demo", {"patching": "window"}), COHORT, SAMPLE, [SPEED], 1.0)
    time, amounts = told(found, SAMPLE, free=10**12)
    assert re.match(
        r"about \d\d:\d\d to \d\d:\d\d, by the recipe that the study chooses \(finetune or probe\), on this", time
    )
    assert re.search(r": clean 00:11, patch 00:20, tune \d\d:\d\d, train \d\d:\d\d to \d\d:\d\d, evaluate", time)
    assert amounts.startswith(
        "measured on 8 slides (median 640 x 480 px) and 10 of their patches; about 200 patches of window224"
    )
    assert told(found, SAMPLE, free=1000)[-1] == (
        "warning: only 1 kB are free there; make room, or name another folder with DOCTOGRES_WORKSPACE"
    )
    one = estimate(load_preset("small"), COHORT, SAMPLE, [SPEED], 1.0)
    assert " to " not in told(one, SAMPLE, free=10**12)[0]
