"""Names of classes and slides as parts of keys and artifacts: allowed everywhere, and never one for two."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric, _validate_param, _validate_tag, path_not_unique

from doctogres.names import artifact_name, class_key, metric_name

HOSTILE = (
    "ER+//PR+", "ER-/", "/", "//", "dysplasia", "dysplasia/low", "dysplasia/high", ".", "..", "../..", "...", "",
    "50%", "%2e%2e", "a#1", "a?x", "a;b", "ü ö", "导管癌", "小叶癌", "سرطان", "рак", "HER2(+)", "HER2(-)", "<2", ">2",
    "Luminal A", "a\nb", "x" * 300, "癌" * 300, "癌" * 301, "C:", "a\\b", "é", unicodedata.normalize("NFD", "é"),
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_mlflow_takes_every_class_in_keys_of_metrics_parameters_and_tags(name: str) -> None:
    for key in (f"f1/{class_key(name)}", f"patch/precision/{class_key(name)}", class_key(name)):
        _validate_metric(key, 0.5, 0, 0)
        _validate_param(key, "value")
        _validate_tag(key, "value")
        assert metric_name(key) == key
    assert "/" not in class_key(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_an_artifacts_name_means_nothing_in_an_address_or_a_path(name: str) -> None:
    made = artifact_name(name)
    assert not set(made) & set("#?%;:/\\ \n")
    assert 0 < len(f"{made}.png".encode()) < 255
    assert not path_not_unique(made)


def test_two_names_never_become_one() -> None:
    for make in (class_key, artifact_name):
        assert len({make(name) for name in HOSTILE}) == len(HOSTILE)


@given(st.text(), st.text())
def test_two_names_never_become_one_whatever_they_are(one: str, other: str) -> None:
    for make in (class_key, artifact_name):
        assert (make(one) == make(other)) == (one == other)
        assert make(make(one)) == make(one)


@pytest.mark.parametrize("name", ["img_0001", "case-7.2", "导管癌_1", "ü"])
def test_a_name_that_is_safe_stays_as_it_is(name: str) -> None:
    assert artifact_name(name) == class_key(name) == name
    assert class_key("Luminal A") == "Luminal A"


@pytest.mark.parametrize("name", ["con", "NUL", "aux.1", "COM1"])
def test_a_name_that_windows_reserves_for_a_device_is_changed_in_files_only(name: str) -> None:
    assert artifact_name(name).startswith("_")
    assert class_key(name) == name


def test_what_replaced_letters_leave_can_still_be_read() -> None:
    assert artifact_name("case0002#1").startswith("case0002_1-")
    assert class_key("HER2(+)").startswith("HER2_pos_-")
    assert metric_name("f1/<2").startswith("f1/_2-")
