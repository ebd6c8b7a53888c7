"""Softmax and its kin, composed of maps and reductions, so that they fuse with what stands around them.

    lse(x)     = m + log(sum(exp(x - m))),  m = max(x) without gradient
    d lse / dx = exp(x - m) / sum(exp(x - m)) = softmax(x)            the exponentials are those of the forward pass

Blanchard, Higham, Higham 2021, *Accurately computing the log-sum-exp and softmax functions*, IMA J. Numer. Anal.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np

from ..core.graph import Literal as Scalar
from ..errors import ArgumentError, DTypeError, ShapeError, user_line
from .comparison import eq_p
from .elementwise import add_p, div_p, exp_p, isfinite, log_p, sub_p
from .index import check_index_p
from .operands import Axes, aval, dtype_of, normalize_axes, operand, shape_of
from .pointwise import cast, promote, select_p, stop_gradient_p, zero_like
from .reduce import mean, reduce_max_p, sum
from .shaping import reduce_sum_p, reshape_p

Reduction = Literal["mean", "sum", "none"]


def _exponentials(op: str, x: Any, axes: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """``m``, ``exp(x - m)`` and its sum, axes kept; rows whose maximum is infinite get ``m = 0``, as in SciPy."""
    kept = tuple(1 if i in axes else n for i, n in enumerate(shape_of(x)))
    if any(shape_of(x)[a] == 0 for a in axes):
        raise ShapeError(f"{op}: an empty axis has no maximum, got {aval(x)}", at=user_line())
    m = stop_gradient_p(reshape_p(reduce_max_p(x, axes=axes), shape=kept))
    m = select_p(isfinite(m), m, zero_like(m))
    e = exp_p(sub_p(x, m))
    return m, e, reshape_p(reduce_sum_p(e, axes=axes), shape=kept)


def logsumexp(x: Any, axis: Axes = None, *, keepdims: bool = False) -> Any:
    """``log(sum(exp(x)))`` over ``axis`` (all axes when None) without overflow; -inf for rows of -inf.

    Integers give float64. Derivative: softmax(x). Raises `ShapeError` over an empty axis.

    >>> float(logsumexp(np.array([1000.0, 1000.0])))
    1000.6931471805599
    """
    (x,) = promote(x, floats=True)
    axes = normalize_axes("logsumexp", axis, len(shape_of(x)))
    m, _, total = _exponentials("logsumexp", x, axes)
    out = add_p(log_p(total), m)
    return (
        out
        if keepdims
        else reshape_p(out, shape=tuple(n for i, n in enumerate(shape_of(x)) if i not in axes))
    )


def softmax(x: Any, axis: Axes = -1) -> Any:
    """``exp(x) / sum(exp(x))`` over ``axis``: positive, adding up to 1, without overflow. The shape stays."""
    (x,) = promote(x, floats=True)
    _, e, total = _exponentials("softmax", x, normalize_axes("softmax", axis, len(shape_of(x))))
    return div_p(e, total)


def log_softmax(x: Any, axis: Axes = -1) -> Any:
    """``x - logsumexp(x)`` over ``axis``: the logarithm of `softmax`, exact where that underflows. The shape stays."""
    (x,) = promote(x, floats=True)
    m, _, total = _exponentials("log_softmax", x, normalize_axes("log_softmax", axis, len(shape_of(x))))
    return sub_p(sub_p(x, m), log_p(total))


@lru_cache(maxsize=256)
def class_numbers(count: int, dtype: np.dtype) -> np.ndarray:
    """``np.arange(count)``, the same array for every caller, so that equal captures are one."""
    numbers = np.arange(count, dtype=dtype)
    numbers.flags.writeable = False
    return numbers


def _labels_as_columns(op: str, labels: Any, count: int) -> tuple[Any, np.ndarray]:
    """Labels checked against ``count`` classes with a new last axis, and the class numbers in the same dtype."""
    dtype = dtype_of(labels)
    if dtype.kind not in "iu":
        raise DTypeError(
            f"{op}: labels must be integers, got {aval(labels)}",
            hint="labels.astype(np.int64)",
            at=user_line(),
        )
    labels = check_index_p(labels, size=count)
    if count - 1 > np.iinfo(dtype).max:
        labels = cast(labels, np.dtype(np.int64))
    return reshape_p(labels, shape=(*shape_of(labels), 1)), class_numbers(count, dtype_of(labels))


def one_hot(labels: Any, num_classes: int, dtype: Any = np.float64) -> Any:
    """1 at each label's number and 0 elsewhere, on a new last axis of length ``num_classes``.

    Raises `OutOfBoundsError` when the step runs on a label outside ``[0, num_classes)``.

    >>> one_hot(np.array([1, 0]), 2)
    array([[0., 1.],
           [1., 0.]])
    """
    columns, numbers = _labels_as_columns("one_hot", operand(labels), num_classes)
    return cast(eq_p(columns, numbers), np.dtype(dtype))


def cross_entropy(logits: Any, labels: Any, *, reduction: Reduction = "mean") -> Any:
    """``logsumexp(logits) - logits[label]`` over the last axis: the negative log-likelihood of integer labels.

    Args: logits ``[..., C]`` of floats; labels ``[...]`` of integers in ``[0, C)``; reduction "mean", "sum" or "none".
    Raises: `ShapeError` where shapes do not fit or the batch is empty; `DTypeError` for labels that are no integers;
    `OutOfBoundsError` when the step runs on a label outside the classes, before anything is updated.
    Derivative: ``softmax(logits) - one_hot(labels)``, by the reduction.

    >>> float(cross_entropy(np.zeros((1, 2)), np.array([0])))
    0.6931471805599453
    """
    (logits,), labels = promote(logits, floats=True), operand(labels)
    if not shape_of(logits) or shape_of(labels) != shape_of(logits)[:-1]:
        raise ShapeError(
            f"cross_entropy: wants logits [..., C] and labels [...], got {aval(logits)} and {aval(labels)}",
            hint=_label_hint(shape_of(logits), shape_of(labels)),
            at=user_line(),
        )
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentError(
            f"cross_entropy: reduction is mean, sum or none, got {reduction!r}", at=user_line()
        )
    if reduction == "mean" and aval(labels).size == 0:
        raise ShapeError(
            f"cross_entropy: empty batch, got {aval(logits)}", hint='reduction="sum"', at=user_line()
        )
    columns, numbers = _labels_as_columns("cross_entropy", labels, shape_of(logits)[-1])
    chosen = select_p(eq_p(columns, numbers), logits, Scalar(dtype_of(logits).type(0)))
    losses = sub_p(logsumexp(logits, -1), reduce_sum_p(chosen, axes=(len(shape_of(logits)) - 1,)))
    return losses if reduction == "none" else mean(losses) if reduction == "mean" else sum(losses)


def _label_hint(logits: tuple[int, ...], labels: tuple[int, ...]) -> str | None:
    if logits and labels == logits:
        return "labels.argmax(-1)"
    return "labels[..., 0]" if logits and labels == (*logits[:-1], 1) else None
