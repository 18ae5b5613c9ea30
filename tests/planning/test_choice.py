"""The preset for a table of cohorts and machines."""

import pytest

from doctogres.errors import WeightsError
from doctogres.planning.choice import MANY_GROUPS, Cohort, Machine, choose

GPU = ("NVIDIA H200", 141 * 10**9)
CPU = ("", 0)
NO_WEIGHTS = "weights=imagenet: not in the cache; give weights=FILE.safetensors"


def cohort(slides: int, *, groups: int = 0, drawn: bool = False, test: int = 0) -> Cohort:
    return Cohort({"a": slides // 2, "b": slides - slides // 2} if slides else {}, groups or slides, test, drawn)


def machine(device: tuple[str, int] = CPU, missing: tuple[str, ...] = (), cores: int = 2) -> Machine:
    return Machine(cores, 16 * 10**9, *device, dict.fromkeys(missing, NO_WEIGHTS))


@pytest.mark.parametrize(
    ("found", "on", "preset", "why"),
    [
        (cohort(80, drawn=True), machine(), "demo", "made these synthetic slides"),
        (cohort(5000, drawn=True), machine(GPU), "demo", "made these synthetic slides"),
        (cohort(80, drawn=True), machine(missing=("small", "challenge")), "demo", "without pretrained weights"),
        (cohort(60), machine(), "small", f"fewer than {MANY_GROUPS} patients"),
        (cohort(60), machine(GPU), "small", f"fewer than {MANY_GROUPS} patients"),
        (cohort(5000, groups=30), machine(GPU), "small", f"fewer than {MANY_GROUPS} patients"),
        (cohort(5000), machine(cores=64), "small", "without an accelerator"),
        (cohort(5000), machine(GPU), "challenge", "NVIDIA H200"),
        (cohort(MANY_GROUPS), machine(GPU), "challenge", "400 patients are enough"),
        (cohort(5000), machine(("the Apple GPU", 0)), "challenge", "the Apple GPU"),
        (cohort(5000), machine(("GeForce", 2 * 10**9)), "small", "GeForce has only 2 GB of memory"),
        (cohort(5000), machine(GPU, ("challenge",)), "small", NO_WEIGHTS),
        (cohort(0, test=20), machine(), "small", "nothing is trained"),
    ],
)
def test_the_preset_and_the_reason(found: Cohort, on: Machine, preset: str, why: str) -> None:
    choice = choose(found, on)
    assert choice.preset == preset
    assert why in choice.because


@pytest.mark.parametrize("on", [machine(missing=("small",)), machine(GPU, ("small", "challenge"))])
def test_real_slides_are_never_trained_from_random_weights_unasked(on: Machine) -> None:
    with pytest.raises(WeightsError, match="600 slides are too few to train a network from random ones") as refused:
        choose(cohort(600), on)
    assert str(refused.value).startswith("preset=auto: small suits this cohort")
    assert "give weights=FILE.safetensors" in str(refused.value)


def test_a_cohort_in_words() -> None:
    assert (
        str(Cohort({"a": 3, "b": 9}, 7, 4, False))
        == "12 slides of 2 classes (3 to 9 each) and 7 patients; 4 test slides"
    )
    assert str(Cohort({"a": 3, "b": 3}, 6, 0, False)) == "6 slides of 2 classes (3 each) and 6 patients; 0 test slides"
    assert str(cohort(0, test=4)) == "4 slides to predict"
