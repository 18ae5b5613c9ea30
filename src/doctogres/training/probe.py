"""A linear head fitted to the features of a frozen backbone.

With a few hundred slides this beats fine-tuning on many cohorts, and the fit takes a second. The head is an ordinary linear
layer of the network, so that a probe is evaluated and served like any other network.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import nn

from doctogres.errors import ParameterError
from doctogres.settings import TrainSettings
from doctogres.slides.splits import draw_folds
from doctogres.training.samples import class_weights

INNER_FOLDS: Final = 5  # on which the temperature is fitted
ROUGH: Final = 1e-3  # tolerance of the regressions that only tell the temperature
EPSILON: Final = 1e-8
ABSENT: Final = -50.0  # bias of a class without training patches: its probability is zero in single precision
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LinearHead:
    """Weights (classes, features) and biases (classes,) that turn features into logits."""

    weight: Array
    bias: Array

    def logits(self, features: Array) -> Array:
        """(patches, features) -> (patches, classes)."""
        return np.asarray(features @ self.weight.T + self.bias)

    def split(self, widths: list[int]) -> "list[LinearHead]":
        """One head per source of joined features, whose logits add up to this head's; the first has the bias.

        Args:
            widths: number of features of each source.
        """
        parts = np.split(self.weight, np.cumsum(widths)[:-1], axis=1)
        biases = [self.bias, *[np.zeros_like(self.bias)] * (len(parts) - 1)]
        return [LinearHead(weight, bias) for weight, bias in zip(parts, biases, strict=True)]

    @classmethod
    def mean(cls, heads: "Sequence[LinearHead]") -> "LinearHead":
        """The head whose logits are the mean of theirs."""
        return cls(np.mean([head.weight for head in heads], axis=0), np.mean([head.bias for head in heads], axis=0))

    def put_into(self, network: nn.Module, backbone: str) -> None:
        """Makes this the head of a timm classifier.

        Raises:
            ParameterError: the classifier is not a linear layer for these features.
        """
        classifier: Any = network.get_classifier()  # type: ignore[operator]
        if not isinstance(classifier, nn.Linear) or classifier.weight.shape != self.weight.shape:
            raise ParameterError(
                f"backbone={backbone}: its classifier is not one linear layer on the pooled features, so no fitted head can be put "
                "there; choose another backbone, or give recipe=finetune with start=random"
            )
        with torch.no_grad():
            classifier.weight.copy_(torch.from_numpy(self.weight))
            classifier.bias.copy_(torch.from_numpy(self.bias))


@dataclass(frozen=True)
class HeadRows:
    """What a head is fitted to: patches or slides.

    Attributes:
        features: (rows, features).
        targets: (rows,) class of each row.
        groups: (rows,) patients; rows of one group lie in one inner fold.
        weights: (rows,) how much each row counts, with a mean of 1.
    """

    features: npt.NDArray[Any]
    targets: npt.NDArray[np.int64]
    groups: npt.NDArray[np.str_]
    weights: Array

    @classmethod
    def equal(
        cls, features: npt.NDArray[Any], targets: npt.NDArray[np.int64], groups: Sequence[str] | npt.NDArray[np.str_]
    ) -> "HeadRows":
        """Rows that count the same."""
        return cls(features, targets, np.asarray(groups), np.ones(len(targets)))

    def __getitem__(self, chosen: npt.NDArray[np.bool_]) -> "HeadRows":
        return HeadRows(self.features[chosen], self.targets[chosen], self.groups[chosen], self.weights[chosen])

    @property
    def balanced(self) -> Array:
        """(rows,) weights with which every class counts the same."""
        of_classes = class_weights(self.targets, int(self.targets.max()) + 1, self.weights)
        return np.asarray(self.weights * of_classes.astype(np.float64)[self.targets])


Fit = Callable[[HeadRows], LinearHead]


def fit_head(rows: HeadRows, classes: int, settings: TrainSettings) -> LinearHead:
    """Fits the head that the settings name, and its temperature; every class counts the same, whatever its share.

    Discriminant analysis of many features is overconfident, and regression with a strong penalty is underconfident. The logits
    are therefore divided by the temperature that has the lowest log loss on inner folds of whole groups, so that the
    probabilities of several heads can be averaged.

    One thread fits it: on matrices of this size more threads gain little, and on a busy machine they wait for each other.

    Args:
        rows: patches or slides. Discriminant analysis does not take their weights into account.
        classes: number of classes.
        settings: `head`, `logistic_c` and `lda_shrinkage`.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        return LinearHead.mean([_fitted(rows, classes, single) for single in single_heads(settings)])


def _fitted(rows: HeadRows, classes: int, settings: TrainSettings) -> LinearHead:
    values = np.asarray(rows.features, np.float64)
    present, places = np.unique(rows.targets, return_inverse=True)
    if len(present) == 1:
        return _placed(LinearHead(np.zeros((1, values.shape[1])), np.zeros(1)), present, classes)
    centre, axes = _axes(values)
    rotated = HeadRows((values - centre) @ axes, places, rows.groups, rows.weights)
    fit: Fit = partial(_logistic, c=settings.logistic_c)
    rough: Fit = partial(_logistic, c=settings.logistic_c, tolerance=ROUGH)
    if settings.head == "lda":
        fit = rough = partial(_discriminant, shrinkage=settings.lda_shrinkage, width=values.shape[1])
    head = fit(rotated)
    hot = _temperature(rotated, rough)
    weight = head.weight @ axes.T / hot
    return _placed(LinearHead(weight, head.bias / hot - weight @ centre), present, classes)


def single_heads(settings: TrainSettings) -> list[TrainSettings]:
    """The settings of each of the heads that a blend is the mean of; otherwise the settings themselves."""
    kinds = ("logistic", "lda") if settings.head == "blend" else (settings.head,)
    return [settings.model_copy(update={"head": kind}) for kind in kinds]


def _axes(values: Array) -> tuple[Array, Array]:
    """The mean of the features, and the axes (features, rank) on which the standardised features of the rows lie.

    Standardised features are rotated onto their principal axes, of which there are fewer than rows. The rotation does not
    change what a head can be, and a fit takes hundredths of a second instead of seconds.
    """
    centre, spread = values.mean(axis=0), values.std(axis=0)
    spread[spread < EPSILON * max(1.0, spread.max())] = 1.0  # a constant feature
    return centre, _principal_axes((values - centre) / spread) / spread[:, None]


def _placed(head: LinearHead, present: npt.NDArray[np.int64], classes: int) -> LinearHead:
    """The head with a row for every class; those without training rows get no probability."""
    weight, bias = np.zeros((classes, head.weight.shape[1])), np.full(classes, ABSENT)
    weight[present], bias[present] = head.weight, head.bias
    return LinearHead(weight, bias)


def _temperature(rows: HeadRows, fit: Fit) -> float:
    """The temperature with the lowest class-balanced log loss on rows that the head was not fitted to."""
    targets = rows.targets
    folds = np.asarray(draw_folds([str(target) for target in targets], rows.groups.tolist(), folds=INNER_FOLDS, seed=0))
    logits, kept = np.zeros((len(targets), int(targets.max()) + 1)), np.zeros(len(targets), bool)
    for fold in np.unique(folds):
        train = folds != fold
        if np.unique(targets[train]).size == logits.shape[1]:  # a fit without a class says nothing of its rows
            logits[~train], kept[~train] = fit(rows[train]).logits(rows.features[~train]), True
    if not kept.any():
        return 1.0
    weights = rows[kept].balanced

    def loss(log_temperature: float) -> float:
        scaled = logits[kept] / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        lost = np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(scaled)), targets[kept]]
        return float((weights * lost).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(1e-3), np.log(1e3)), method="bounded").x))


def _principal_axes(values: Array) -> Array:
    """An orthonormal basis of the span of the rows, (features, rank)."""
    small = len(values) < values.shape[1]
    moments = values @ values.T if small else values.T @ values
    eigenvalues, vectors = np.linalg.eigh(moments)
    kept = eigenvalues > eigenvalues[-1] * 1e-10
    axes = values.T @ vectors[:, kept] / np.sqrt(eigenvalues[kept]) if small else vectors[:, kept]
    return np.asarray(axes)


def _logistic(rows: HeadRows, *, c: float, tolerance: float = 1e-4) -> LinearHead:
    regression = LogisticRegression(C=c, max_iter=1000, tol=tolerance)
    fitted = regression.fit(rows.features, rows.targets, sample_weight=rows.balanced)
    return _both_ways(fitted.coef_, fitted.intercept_)


def _discriminant(rows: HeadRows, *, shrinkage: float, width: int) -> LinearHead:
    """Linear discriminant analysis with equal priors; the covariance is shrunk towards its mean variance over `width` axes.

    scikit-learn's shrinkage refers to the axes that it is given, so its share is converted.
    """
    count = int(rows.targets.max()) + 1
    share = shrinkage * rows.features.shape[1] / width  # of the mean variance over the given axes
    scale = share + 1 - shrinkage
    priors = np.full(count, 1 / count)
    fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=share / scale, priors=priors)
    with warnings.catch_warnings():
        # A class with one row in an inner fold adds nothing to the covariance.
        warnings.filterwarnings("ignore", message="Only one sample available")
        fitted.fit(rows.features, rows.targets)
    # Its covariance is the wanted one divided by `scale`; the prior is not affected by it.
    prior = np.log(1 / count) if count > 2 else 0.0
    return _both_ways(fitted.coef_ / scale, (fitted.intercept_ - prior) / scale + prior)


def _both_ways(weight: Array, bias: Array) -> LinearHead:
    """A row per class; scikit-learn has one for two classes, whose logit is the second minus the first."""
    if len(weight) > 1:
        return LinearHead(weight, bias)
    return LinearHead(np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2)
