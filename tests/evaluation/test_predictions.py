"""Predictions in their files: any class name, the class order, every digit."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from doctogres.errors import UpstreamError
from doctogres.evaluation.predictions import EVALUATED, OUT_OF_FOLD, PATCHES, PREDICTED, PROBABILITY, Predictions
from doctogres.slides.table import CohortTable

# Names of our own columns, with our own mark in front, empty to pandas, with quotes and line breaks.
CLASSES = ("slide_id", "label", "area", "p_area", "NA", 'x, "y"\nz', "HER2(+)")


@pytest.fixture
def evaluated() -> Predictions:
    texts = {"slide_id": ["0001", "s 2", "s,3"], "label": ["NA", "area", "label"], "group": ["1.0", "nan", ""]}
    texts |= {"predicted": ["slide_id", "area", "NA"], "image_md5": ["0e1", "ff", "12"], "mask_md5": ["0", "1", "2"]}
    rows = pd.DataFrame(texts | {"outcome": "kept"}, dtype="str")
    rows = rows.assign(
        correct=[False, True, False], confidence=[1 / 3, 0.1 + 0.2, 1e-300], abstained=True, reason="", n_patches=4
    )
    return Predictions(rows, CLASSES, np.random.default_rng(0).dirichlet(np.ones(len(CLASSES)), 3))


def assert_same(found: Predictions, wanted: Predictions) -> None:
    pd.testing.assert_frame_equal(found.rows, wanted.rows, check_exact=True)
    assert found.classes == wanted.classes
    np.testing.assert_array_equal(found.probabilities, wanted.probabilities)


def test_no_column_of_ours_looks_like_a_probability() -> None:
    ours = {*EVALUATED, *PREDICTED.columns, *PATCHES.columns, *OUT_OF_FOLD.columns}
    assert not [name for name in ours if name.startswith(PROBABILITY)]


def test_a_csv_gives_back_every_name_and_digit(evaluated: Predictions, tmp_path: Path) -> None:
    evaluated.write_csv(tmp_path / "predictions.csv")
    assert_same(Predictions.read_csv(tmp_path / "predictions.csv"), evaluated)


def test_a_parquet_file_gives_back_every_name_and_digit(evaluated: Predictions, tmp_path: Path) -> None:
    rows = pd.DataFrame({name: ["a", "b", "c"] for name in PATCHES.columns}, dtype="str")
    patches = Predictions(rows, CLASSES, evaluated.probabilities)
    patches.write(PATCHES, tmp_path / "patches.parquet")
    assert_same(Predictions.read(PATCHES, tmp_path / "patches.parquet"), patches)
    with pytest.raises(UpstreamError, match="not a table of predictions but a table of patch predictions"):
        Predictions.read(PREDICTED, tmp_path / "patches.parquet")
    with pytest.raises(UpstreamError, match="not a cohort table"):
        CohortTable.read(tmp_path / "patches.parquet")


def test_a_table_has_the_probabilities_beside_the_rows_whatever_their_index(evaluated: Predictions) -> None:
    moved = Predictions(evaluated.rows.set_axis([7, 3, 5]), CLASSES, evaluated.probabilities)
    np.testing.assert_array_equal(moved.table["p_label"], evaluated.probabilities[:, 1])
    assert list(moved.table["label"]) == ["NA", "area", "label"]


def test_slides_are_found_by_name_and_an_unknown_class_has_nothing(evaluated: Predictions) -> None:
    found = evaluated.of_slides(["s,3", "0001"], ["label", "never seen", "slide_id"])
    np.testing.assert_array_equal(found[:, [0, 2]], evaluated.probabilities[[2, 0]][:, [1, 0]])
    assert not found[:, 1].any()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "No columns"),
        ("slide_id,label\n", "missing .*group.*p_<class>"),
        (",".join((*EVALUATED, "HER2(+)")), "missing p_<class>"),
        (",".join((*EVALUATED[1:], "p_a")), "missing slide_id"),
        (",".join((*EVALUATED, "p_a")) + "\n" + "x," * len(EVALUATED) + "much", "could not convert"),
    ],
)
def test_another_csv_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "predictions.csv").write_text(content)
    with pytest.raises(
        UpstreamError, match=rf"predictions\.csv: not the predictions of an evaluation.*{words}.*`evaluate`"
    ):
        Predictions.read_csv(tmp_path / "predictions.csv")
