"""A multilayer perceptron for classification, and the figures that judge any classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..nn import functional as F

Layer = dict[str, np.ndarray]


def init_mlp(sizes: Sequence[int], seed: int = 0, dtype: Any = np.float32) -> list[Layer]:
    """Fresh parameters of an MLP: one {"w": dtype[m, n], "b": dtype[n]} for each pair (m, n) of neighbours in `sizes`.

    Weights are normal with variance 2/m (He et al., 2015: keeps the scale of activations through relu), drawn in
    float64 and rounded, so that both precisions start at the same point; biases are zero.
    ValueError: fewer than two sizes, or one below 1.

    >>> [layer["w"].shape for layer in init_mlp([64, 32, 10], seed=0)]
    [(64, 32), (32, 10)]
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"init_mlp: sizes must be two or more positive integers, got {list(sizes)}")
    rng = np.random.default_rng(seed)
    return [
        {"w": (rng.standard_normal((m, n)) * np.sqrt(2 / m)).astype(dtype), "b": np.zeros(n, dtype)}
        for m, n in pairwise(sizes)
    ]


def mlp(params: list[Layer], x: Any) -> Any:
    """Logits f[batch, classes] of images f[batch, pixels]: affine layers with relu between them. Traceable."""
    for layer in params[:-1]:
        x = F.relu(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def cross_entropy_loss(params: list[Layer], x: Any, y: Any) -> Any:
    """Mean cross-entropy (a scalar) of `mlp(params, x)` against integer labels y[batch]: the loss for a TrainStep."""
    return F.cross_entropy(mlp(params, x), y)


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Share of int[n] labels that int[n] `predicted` hits, in 0..1. ValueError: n is 0, or shapes that differ.

    >>> accuracy(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]))
    0.75
    """
    if labels.shape != predicted.shape or labels.size == 0:
        raise ValueError(f"accuracy: got labels {labels.shape} and predictions {predicted.shape}")
    return float(np.mean(labels == predicted))


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int64[classes, classes]: entry (i, j) counts the samples of class i that were predicted as class j.

    ValueError: shapes that differ, or a value outside 0..classes-1.

    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 1, 0]), 2).tolist()
    [[1, 0], [1, 1]]
    """
    if labels.shape != predicted.shape:
        raise ValueError(f"confusion_matrix: got labels {labels.shape} and predictions {predicted.shape}")
    both = np.concatenate([labels, predicted])
    if both.size and not 0 <= both.min() <= both.max() < classes:
        raise ValueError(
            f"confusion_matrix: classes must lie in 0..{classes - 1}, got {both.min()}..{both.max()}"
        )
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


class Evaluation(NamedTuple):
    """What a classifier does on held-out data: accuracy in 0..1, and the confusion matrix int64[classes, classes]."""

    accuracy: float
    confusion: np.ndarray


def evaluate(
    predict: Callable[..., Any], params: Any, x: np.ndarray, y: np.ndarray, classes: int
) -> Evaluation:
    """Judge `predict(params, x)`, which gives logits f[n, classes], against the labels int[n] `y`.

    >>> predict = fg.jit(mlp)                                            # doctest: +SKIP
    >>> evaluate(predict, step.params, data.x_test, data.y_test, 10)     # doctest: +SKIP
    """
    predicted = np.argmax(np.asarray(predict(params, x)), axis=1)
    return Evaluation(accuracy(y, predicted), confusion_matrix(y, predicted, classes))
