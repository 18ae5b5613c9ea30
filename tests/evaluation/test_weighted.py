import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, roc_auc_score

from doctogres.evaluation import weighted


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 60))
def test_the_auroc_is_sklearns_on_the_repeated_slides(seed: int, slides: int, most_units: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 12, slides) / 12  # many ties
    positive = rng.random(slides) < 0.4
    units = np.unique(rng.integers(0, most_units, slides), return_inverse=True)[1]
    weights = rng.integers(0, 3, (5, units.max() + 1)).astype(float)
    found = weighted.auroc(scores, positive, units)(weights)
    for one, counts in zip(found, weights, strict=True):
        drawn = np.repeat(np.arange(slides), counts[units].astype(int))
        if positive[drawn].all() or not positive[drawn].any():
            assert np.isnan(one)
        else:
            assert one == pytest.approx(roc_auc_score(positive[drawn], scores[drawn]))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_a_units_slides_are_counted_as_often_as_it_is_drawn(seed: int, slides: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, 3, (2, slides))
    units = np.unique(rng.integers(0, 7, slides), return_inverse=True)[1]
    weights = rng.integers(0, 3, (4, units.max() + 1)).astype(float)
    matrices = weighted.confusions(weights, weighted.confusion_cells(truth, predicted, 3, units))
    losses = rng.random((slides, 2))
    sums = weights @ weighted.unit_sums(losses, units)
    for matrix, total, counts in zip(matrices, sums, weights, strict=True):
        drawn = np.repeat(np.arange(slides), counts[units].astype(int))
        if len(drawn):
            np.testing.assert_array_equal(matrix, confusion_matrix(truth[drawn], predicted[drawn], labels=range(3)))
        np.testing.assert_allclose(total, losses[drawn].sum(axis=0), atol=1e-12)
