"""The features of a probe: kept by sets of rows, so that a fit to more slides computes only those of the others."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np

from doctogres.training.probe_features import ProbeFeatures
from doctogres.training.sources import Source
from tests.training.coloured_squares import RECIPE, coloured_squares


def probe_features(rows: list[np.ndarray], folder: Path) -> ProbeFeatures:
    samples, *_ = coloured_squares(size=32)
    return ProbeFeatures(
        Source("test_resnet", "none", "weights", ""), samples, rows,
        classes=3, settings=RECIPE, seed=0, folder=folder, progress=lambda label, unit: nullcontext(lambda done, total: None),
    )  # fmt: skip


def kept_in(folder: Path) -> dict[Path, int]:
    """The files of features, with what changes if one is written anew."""
    return {path: path.stat().st_ino for path in folder.glob("*.npy")}


def test_sets_of_rows_have_the_features_of_all_and_a_known_set_is_not_computed_again(tmp_path: Path) -> None:
    rows = np.arange(len(coloured_squares(size=32)[0].pixels))
    some, others = rows[rows % 3 > 0], rows[rows % 3 == 0]
    whole = probe_features([rows], tmp_path / "whole")
    known = probe_features([some], tmp_path / "sets")
    np.testing.assert_allclose(known.turned, whole.turned[some], atol=1e-5)
    files = kept_in(tmp_path / "sets")
    both = probe_features([some, others], tmp_path / "sets")
    np.testing.assert_array_equal(both.rows, rows)
    np.testing.assert_allclose(both.plain, whole.plain, atol=1e-5)
    np.testing.assert_allclose(both.turned, whole.turned, atol=1e-5)
    after = kept_in(tmp_path / "sets")
    assert files.items() < after.items()
    assert len(after) == 2 * len(files) == 16
