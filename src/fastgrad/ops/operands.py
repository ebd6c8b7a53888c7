"""What a public op takes: tracers, NumPy arrays, Python numbers, nested lists of numbers; and how it names axes."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..core.aval import Aval, aval_of, check_dtype
from ..core.graph import Literal, Tracer
from ..errors import DTypeError, FastgradError, ShapeError, TraceError, user_line

Axes = int | tuple[int, ...] | None
# Tuples made once: a union written in a function would be built anew at each call.
_OPERANDS = (Tracer, Literal, np.ndarray, np.generic, bool, int, float)
_TYPED = (Tracer, Literal)


def operand(value: Any) -> Any:
    """``value`` if an op can take it as it is, else the NumPy array it stands for (a list, a foreign array)."""
    if isinstance(value, _OPERANDS):
        return value
    if isinstance(value, list | tuple) and _holds_tracer(value):
        raise TraceError(
            f"a {type(value).__name__} of traced values is not an array",
            hint="np.stack([...])",
            at=user_line(),
        )
    if isinstance(value, complex):
        try:
            aval_of(value)
        except DTypeError as error:
            error.at = user_line()
            raise
    if value is None or isinstance(value, str | bytes | dict | set):
        raise DTypeError(f"expected an array or a number, got {type(value).__name__}", at=user_line())
    return np.asarray(value)


def _holds_tracer(value: Any) -> bool:
    return isinstance(value, Tracer) or (isinstance(value, list | tuple) and any(map(_holds_tracer, value)))


def aval(value: Any) -> Aval:
    """The aval of anything that `operand` returns; errors carry the user's line."""
    if isinstance(value, _TYPED):
        return value.aval
    try:
        return aval_of(value)
    except FastgradError as error:
        error.at = error.at or user_line()
        raise


def as_dtype(dtype: Any) -> np.dtype:
    """A dtype argument; `DTypeError` with the user's line when fastgrad does not compute in it."""
    try:
        return check_dtype(dtype)
    except FastgradError as error:
        error.at = error.at or user_line()
        raise


def shape_of(value: Any) -> tuple[int, ...]:
    """Shape of anything that `operand` returns."""
    return value.aval.shape if isinstance(value, _TYPED) else np.shape(value)


def dtype_of(value: Any) -> np.dtype:
    """Dtype of anything that `operand` returns."""
    return aval(value).dtype


def number(value: Any) -> bool | int | float | None:
    """The Python number that ``value`` is, or None: what may choose between formulas while tracing."""
    if isinstance(value, Literal):
        return value.value.item() if value.weak else None
    return value if isinstance(value, bool | int | float) and not isinstance(value, np.generic) else None


def strong(value: Any) -> Any:
    """``value``; of a Python number the array that NumPy makes of it where it joins arrays, int64 or float64."""
    return value if number(value) is None or isinstance(value, Literal) else np.asarray(value)


def normalize_axis(op: str, axis: Any, ndim: int) -> int:
    """``axis`` counted from the front; `ShapeError` when there is no such axis."""
    try:
        index = operator.index(axis)
    except TypeError:
        raise ShapeError(f"{op}: axis must be an integer, got {axis!r}", at=user_line()) from None
    if not -ndim <= index < ndim:
        raise ShapeError(f"{op}: axis {index} is out of bounds for an array of {ndim} axes", at=user_line())
    return index % ndim


def normalize_axes(op: str, axis: Any, ndim: int) -> tuple[int, ...]:
    """``axis`` (None for all, an integer, several integers) as a sorted tuple counted from the front."""
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, Iterable) else (axis,)
    axes = tuple(sorted(normalize_axis(op, a, ndim) for a in given))
    if len(set(axes)) < len(axes):
        raise ShapeError(f"{op}: an axis appears twice in axis={axis}", at=user_line())
    return axes


def normalize_shape(op: str, shape: Any) -> tuple[int, ...]:
    """A shape argument, an integer or several, as a tuple of Python integers."""
    sizes = shape if isinstance(shape, Iterable) and not isinstance(shape, Tracer) else (shape,)
    try:
        return tuple(operator.index(n) for n in sizes)
    except TraceError:
        raise  # a traced size: its own message says more
    except TypeError:
        raise ShapeError(f"{op}: a shape holds integers, got {shape!r}", at=user_line()) from None
