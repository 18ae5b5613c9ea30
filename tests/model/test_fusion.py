"""How several views become one answer."""

import numpy as np
import pytest
from pydantic import ValidationError

from doctogres.model.fusion import ViewOutputs, slide_probabilities, softmax
from doctogres.settings import AnswerSettings

LOGITS = {
    "window224": np.random.default_rng(0).normal(size=(1, 3, 4)),
    "regions": np.random.default_rng(1).normal(size=(1, 3, 4)),
}
PROBABILITIES = {
    view: softmax(logits)[0].mean(axis=0) for view, logits in LOGITS.items()
}  # of one slide of three patches


def answer(**settings: str) -> np.ndarray:
    views = [ViewOutputs(view, [logits], [np.arange(3)], np.ones(3)) for view, logits in LOGITS.items()]
    return np.asarray(slide_probabilities(views, AnswerSettings.model_validate(settings))[0])


@pytest.mark.parametrize(("given", "share"), [("", 1 / 2), ("window:3", 3 / 4), ("regions:0.5, window224:1.5", 3 / 4)])
def test_views_count_as_their_weights_say(given: str, share: float) -> None:
    window, regions = PROBABILITIES["window224"], PROBABILITIES["regions"]
    np.testing.assert_allclose(answer(view_weights=given), share * window + (1 - share) * regions)
    multiplied = window**share * regions ** (1 - share)
    found = answer(view_weights=given, fusion="log_probabilities")
    np.testing.assert_allclose(found, multiplied / multiplied.sum())


@pytest.mark.parametrize("given", ["windows:2", "window", "window:0", "window:-1", "2,1", "window:two", "window=2"])
def test_a_weight_that_cannot_be_meant_is_refused(given: str) -> None:
    with pytest.raises(ValidationError, match="give a view and a number above 0 for each"):
        AnswerSettings(view_weights=given)


def test_the_card_of_an_older_model_counts_views_the_same() -> None:
    assert AnswerSettings.model_validate({"fusion": "probabilities"}).view_weight("window224") == 1
