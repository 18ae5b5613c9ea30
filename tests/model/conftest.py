"""The untrained classifier as fixtures."""

from tests.model.untrained import classifier, unsure

__all__ = ["classifier", "unsure"]
