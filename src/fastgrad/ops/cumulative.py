"""Running sums and products along an axis.

cumsum[axis,reverse]   y_i = x_0 + ... + x_i, or x_i + ... + x_(n-1) in reverse     each is the other's transpose
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.aval import Aval
from ..core.loops import Library
from ..core.primitive import Primitive
from ..errors import DTypeError, ShapeError, user_line
from .elementwise import mul_p, multiply
from .movement import concatenate_p, moveaxis, ravel, slice_axis
from .operands import (
    Axes,
    as_dtype,
    aval,
    dtype_of,
    normalize_axes,
    normalize_axis,
    operand,
    shape_of,
    strong,
)
from .pointwise import cast, unshared
from .reduce import sum_dtype
from .shaping import filled, linear_jvp, reshape_p

# --- cumsum[axis,reverse] -------------------------------------------------------------------------------------------


def _cumsum_rule(x: Aval, *, axis: int, reverse: bool) -> Aval:
    if not 0 <= axis < x.ndim:
        raise ShapeError(f"cumsum: axis {axis} is out of bounds for {x}")
    if x.dtype.kind == "b":
        raise DTypeError(f"cumsum: cannot add up {x} in bool")
    return x


def _cumsum_reference(x: Any, *, axis: int, reverse: bool) -> np.ndarray:
    x = np.asarray(x)
    if reverse:
        return np.flip(np.cumsum(np.flip(x, axis), axis, x.dtype), axis)
    return np.cumsum(x, axis, x.dtype)


cumsum_p = Primitive(
    "cumsum",
    abstract=_cumsum_rule,
    reference=_cumsum_reference,
    vjp=lambda ct, out, x, *, axis, reverse: (cumsum_p(ct, axis=axis, reverse=not reverse),),
    jvp=linear_jvp(lambda: cumsum_p),
    batch=lambda args, batched, *, axis, reverse: cumsum_p(args[0], axis=axis + 1, reverse=reverse),
    kernel=Library("cumsum"),
)


def cumsum(x: Any, axis: int | None = None, *, dtype: Any = None) -> Any:
    """Sums of the first 1, 2, ... elements along ``axis`` (of the raveled x when None), added from the front.

    Bools and small integers add up in int64 or uint64, as in `sum`. Raises `ShapeError` for an axis that x has not.

    >>> cumsum(np.array([1.0, 2.0, 4.0]))
    array([1., 3., 7.])
    """
    x = operand(x)
    x = ravel(x) if axis is None else x
    x = cast(x, as_dtype(dtype) if dtype is not None else sum_dtype(dtype_of(x)))
    return cumsum_p(x, axis=normalize_axis("cumsum", axis or 0, len(shape_of(x))), reverse=False)


# --- any associative op ---------------------------------------------------------------------------------------------


def accumulate(op: Callable[[Any, Any], Any], x: Any, axis: int = 0) -> Any:
    """``op`` of the first 1, 2, ... elements along ``axis``; ``op`` is associative (``np.maximum``, ``np.logaddexp``).

    Each of log2(n) steps doubles the number of elements (W. D. Hillis and G. L. Steele, "Data parallel algorithms", 1986).
    """
    x = operand(x)
    axis = normalize_axis("accumulate", axis, len(shape_of(x)))
    n, step = shape_of(x)[axis], 1
    while step < n:
        ahead = op(slice_axis(x, axis, step, n), slice_axis(x, axis, 0, n - step))
        x = concatenate_p(slice_axis(x, axis, 0, step), ahead, axis=axis)
        step *= 2
    return x


def fold(op: Callable[[Any, Any], Any], x: Any, axis: int = 0) -> Any:
    """``op`` of all elements along ``axis``, by a tree of halves. Raises `ShapeError` for an empty axis."""
    x = operand(x)
    axis = normalize_axis("reduce", axis, len(shape_of(x)))
    count = shape_of(x)[axis]
    if not count:
        raise ShapeError(f"reduce: an empty axis has no value, got {aval(x)}", at=user_line())
    while count > 1:
        half = count // 2
        pairs = op(slice_axis(x, axis, 0, half), slice_axis(x, axis, half, 2 * half))
        x = concatenate_p(pairs, slice_axis(x, axis, 2 * half, count), axis=axis) if count % 2 else pairs
        count -= half
    return reshape_p(x, shape=tuple(n for i, n in enumerate(shape_of(x)) if i != axis))


# --- products -------------------------------------------------------------------------------------------------------


def prod(x: Any, axis: Axes = None, *, dtype: Any = None, keepdims: bool = False, initial: Any = None) -> Any:
    """Product over ``axis`` (an integer, several, or None for all) and ``initial``; 1 of nothing. Dtypes as in `sum`.

    A tree of halves, log2(n) steps, so that no derivative divides: it is right where elements are 0.

    >>> prod(np.array([[1.0, 2.0], [3.0, 4.0]]), axis=1)
    array([ 2., 12.])
    """
    x = operand(x)
    shape = shape_of(x)
    axes = normalize_axes("prod", axis, len(shape))
    x = cast(x, as_dtype(dtype) if dtype is not None else sum_dtype(dtype_of(x)))
    kept = tuple(n for i, n in enumerate(shape) if i not in axes)
    x = moveaxis(x, axes, tuple(range(len(axes))))
    count = int(np.prod([shape[a] for a in axes], dtype=np.int64))
    x = reshape_p(x, shape=(count, *kept))
    while count > 1:
        half = count // 2
        pairs = mul_p(slice_axis(x, 0, 0, half), slice_axis(x, 0, half, 2 * half))
        x = concatenate_p(pairs, slice_axis(x, 0, 2 * half, count), axis=0) if count % 2 else pairs
        count -= half
    out = filled(x, kept, 1) if count == 0 else unshared(reshape_p(x, shape=kept))
    out = out if initial is None else multiply(out, cast(strong(operand(initial)), dtype_of(out)))
    return (
        reshape_p(out, shape=tuple(1 if i in axes else n for i, n in enumerate(shape))) if keepdims else out
    )


def cumprod(x: Any, axis: int | None = None, *, dtype: Any = None) -> Any:
    """Products of the first 1, 2, ... elements along ``axis`` (of the raveled x when None).

    By `accumulate`; no derivative divides.

    >>> cumprod(np.array([1.0, 2.0, 4.0]))
    array([1., 2., 8.])
    """
    x = operand(x)
    x = ravel(x) if axis is None else x
    x = cast(x, as_dtype(dtype) if dtype is not None else sum_dtype(dtype_of(x)))
    return accumulate(mul_p, x, normalize_axis("cumprod", axis or 0, len(shape_of(x))))
