"""How a model answers for a patient is chosen on slides that no network was trained on."""

from typing import Any

import numpy as np
import pytest

from doctogres.evaluation.group_answers import ALONE, choose_rule, common_labels
from doctogres.model.temperature import ABSTAIN_ALWAYS


def patients(*, mixed: bool, patients: int = 120, slides: int = 3) -> dict[str, Any]:
    """Slides whose own answers are noisy; those of a patient have one label, or each its own."""
    random = np.random.default_rng(4)
    truth = np.repeat(random.integers(0, 3, patients), slides)
    if mixed:
        truth = random.integers(0, 3, patients * slides)
    logits = 1.2 * np.eye(3)[truth] + random.normal(0, 1, (len(truth), 3))
    odds = np.exp(logits)
    groups = [f"p{number}" for number in np.repeat(np.arange(patients), slides)]
    return {"truth": truth, "probabilities": odds / odds.sum(1, keepdims=True), "groups": groups}


def test_the_slides_of_a_patient_help_each_other_or_not() -> None:
    together = choose_rule(**patients(mixed=False), setting="auto", target_precision=0.9)
    assert together.rule is not None
    losses = together.evidence["log_loss"]
    assert losses.keys() == {ALONE, "mean", "log_probabilities"}
    assert together.rule.method == together.evidence["method"] == min(losses, key=losses.get)
    assert losses[together.rule.method] < losses[ALONE] - 0.05
    assert together.rule.calibration.slides == 120  # one for each patient
    assert (together.evidence["slides"], together.evidence["groups"]) == (360, 120)
    apart = choose_rule(**patients(mixed=True), setting="auto", target_precision=0.9)
    assert apart.rule is None
    assert apart.evidence["reason"].startswith(
        "out of fold, the log loss of the answer for a group is not lower beyond chance"
    )


def test_labels_that_nothing_tells_give_no_rule() -> None:
    chosen = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        groups = [f"p{number}" for number in np.repeat(np.arange(40), 2)]
        truth, odds = random.integers(0, 3, 80), np.exp(random.normal(0, 0.5, (80, 3)))
        found = choose_rule(truth, odds / odds.sum(1, keepdims=True), groups, setting="auto", target_precision=0.9)
        chosen += found.rule is not None
    assert chosen <= 6


def test_what_is_asked_for_is_done_and_a_reason_given() -> None:
    data = patients(mixed=False)
    for method in ("mean", "log_probabilities"):
        chosen = choose_rule(**data, setting=method, target_precision=0.9)
        assert chosen.rule is not None
        assert (chosen.rule.method, chosen.evidence["reason"]) == (method, f"group_answer={method}")
    assert choose_rule(**data, setting="none", target_precision=0.9).rule is None
    alone = data | {"groups": [str(number) for number in range(360)]}
    found = choose_rule(**alone, setting="auto", target_precision=0.9)
    assert (found.rule, found.evidence["reason"]) == (None, "no group has several slides")


def test_a_patient_whose_slides_differ_has_no_label_to_calibrate_on() -> None:
    truth, units = np.array([0, 0, 1, 2, 2]), np.array([0, 0, 1, 1, 2])
    assert common_labels(truth, units).tolist() == [0, -1, 2]
    rows = np.full((4, 2), 0.5)
    found = choose_rule(np.array([0, 1, 0, 1]), rows, ["p", "p", "q", "q"], setting="mean", target_precision=0.9)
    assert found.rule is not None
    assert found.rule.calibration.threshold == ABSTAIN_ALWAYS  # nobody knows when such an answer is right


def test_the_repeats_of_a_patient_are_not_put_together() -> None:
    data = patients(mixed=False, patients=40)
    twice: dict[str, Any] = {
        "truth": np.tile(data["truth"], 2),
        "probabilities": np.concatenate([data["probabilities"], data["probabilities"][:, ::-1]]),
        "groups": data["groups"] * 2,
        "repeats": 2,
    }
    found = choose_rule(**twice, setting="mean", target_precision=0.9)
    assert found.rule is not None
    assert found.rule.calibration.slides == 80
    assert (found.evidence["groups"], found.evidence["slides"]) == (40, 120)


def test_repeats_do_not_make_a_difference_surer() -> None:
    data = patients(mixed=False, patients=40)
    once = choose_rule(**data, setting="auto", target_precision=0.9)
    many = {"truth": np.tile(data["truth"], 9), "probabilities": np.tile(data["probabilities"], (9, 1))}
    often = choose_rule(**many, groups=data["groups"] * 9, repeats=9, setting="auto", target_precision=0.9)
    errors = [float(found.evidence["reason"].rpartition(" ")[2]) for found in (once, often)]
    assert errors[0] == pytest.approx(errors[1], rel=0.2)  # not a third
