"""A small untrained classifier."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch

from doctogres.errors import DoctogresError
from doctogres.model.answer import CutSlide, SlideAnswer
from doctogres.model.card import TrainingRecord
from doctogres.model.classifier import SlideClassifier, make_classifier
from doctogres.model.encoder import architecture_of
from doctogres.model.ensemble import Ensemble
from doctogres.model.network import create_network
from doctogres.model.temperature import Calibration
from doctogres.settings import AnswerSettings, PatchSettings


@pytest.fixture(scope="session")
def classifier() -> SlideClassifier:
    """Two untrained networks of three classes at 32 px; tiles of 24 px."""
    torch.manual_seed(0)
    members = [create_network("test_resnet", classes=3, size=32).eval() for _ in range(2)]
    return make_classifier(
        [(architecture_of("test_resnet"), "regions", Ensemble(members))],
        recipe="finetune",
        classes=("A", "B", "C(+)"),
        class_shares={"A": 0.5, "B": 0.3, "C(+)": 0.2},
        patch=PatchSettings(patch_size=32, min_area=30, margin=0.25, patching="regions"),
        answer=AnswerSettings(aggregation="mean", tta=False, target_precision=0.9),
        calibration=Calibration.none(0.9).model_copy(update={"temperature": 0.1}),  # so that slides differ
        region_side=24,
        seen=TrainingRecord(),
        evidence={"slides": 0},
    )


@pytest.fixture(scope="session")
def unsure(classifier: SlideClassifier) -> SlideClassifier:
    """The same one, never sure."""
    calibration = classifier.card.calibration.model_copy(update={"threshold": 1.1})
    return replace(classifier, card=classifier.card.model_copy(update={"calibration": calibration}))


def classified(classifier: SlideClassifier, slides: Iterable[Any]) -> list[SlideAnswer | DoctogresError]:
    """The answers for slides (picture and mask, or an error), in batches that they share; an error stays in its place."""

    def cut(slide: Any) -> CutSlide | DoctogresError:
        try:
            return slide if isinstance(slide, DoctogresError) else classifier.cut(*slide)
        except DoctogresError as error:
            return error

    return list(classifier.answers(map(cut, slides)))
