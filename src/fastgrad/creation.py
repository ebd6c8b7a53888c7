"""New arrays, by NumPy's names: traced ones while a function is traced, so that they can be filled with traced values."""

from __future__ import annotations

from typing import Any

import numpy as np

from .core.graph import Literal, Tracer, current
from .ops.assign import assign
from .ops.comparison import where
from .ops.elementwise import add, divide, multiply, subtract
from .ops.movement import moveaxis
from .ops.operands import as_dtype, aval, dtype_of, normalize_shape, operand, shape_of
from .ops.pointwise import cast, promote
from .ops.shaping import broadcast_to, broadcast_to_p, filled


def zeros(shape: Any, dtype: Any = np.float64) -> Any:
    """Zeros to fill: a traced array while a function is traced, so that it takes traced values; else a NumPy array.

    >>> zeros(2)
    array([0., 0.])
    """
    return full(shape, 0, dtype)


def ones(shape: Any, dtype: Any = np.float64) -> Any:
    """Ones; traced and to be filled as `zeros` are."""
    return full(shape, 1, dtype)


def empty(shape: Any, dtype: Any = np.float64) -> Any:
    """`zeros`: an array to fill."""
    return full(shape, 0, dtype)


def full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
    """``fill_value``, a number or an array or a traced value, broadcast to ``shape``; traced as `zeros` are."""
    sizes = normalize_shape("full", shape)
    value = operand(fill_value)
    target = aval(value).dtype if dtype is None else as_dtype(dtype)
    builder = current()
    if isinstance(value, Tracer):
        return _own(broadcast_to(cast(value, target), sizes))
    constant = np.full(sizes, value, target)
    if builder is None:
        return constant
    if np.ndim(value):
        return builder.tracer(builder, builder.atom(constant))  # type: ignore[arg-type]
    literal = Literal(constant.dtype.type(value))
    return _own(builder.emit(broadcast_to_p, (literal,), {"shape": sizes})[0])


def _own(x: Any) -> Any:
    """A new array. One without axes is an array all the same, where the results of ops are numbers: ``+=`` changes it."""
    kind = getattr(type(x), "view_type", None)
    return x if kind is None or x.shape else kind(x, x, ())


def arange(*args: Any, dtype: Any = None) -> np.ndarray:
    """``np.arange``: the bounds are Python numbers, as shapes are static."""
    return np.arange(*args, dtype=dtype)


def linspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None,
    axis: int = 0,
) -> Any:  # fmt: skip
    """``num`` evenly spaced numbers from ``start`` to ``stop`` along a new axis; both may be traced arrays."""
    if not isinstance(start, Tracer) and not isinstance(stop, Tracer):
        return np.linspace(start, stop, num, endpoint=endpoint, retstep=retstep, dtype=dtype, axis=axis)  # type: ignore[call-overload]
    start, stop = promote(start, stop, floats=True)
    steps = max(num - 1 if endpoint else num, 1)
    step = divide(subtract(stop, start), steps)
    places = np.arange(num, dtype=dtype_of(start)).reshape(num, *(1,) * len(shape_of(step)))
    values = add(start, multiply(places, step))
    if endpoint and num > 1:  # the last is ``stop`` itself, not what rounding makes of it
        values = where(places == steps, stop, values)
    values = moveaxis(values if dtype is None else cast(values, as_dtype(dtype)), 0, axis)
    return (values, step) if retstep else values


def eye(n: int, m: int | None = None, dtype: Any = np.float64) -> np.ndarray:
    """``np.eye``: ones on the diagonal."""
    return np.eye(n, m, dtype=as_dtype(dtype))


def full_like(x: Any, fill_value: Any, dtype: Any = None, *, shape: Any = None) -> Any:
    """``fill_value`` in the shape and dtype of ``x``, or in those given instead."""
    x = operand(x)
    sizes = shape_of(x) if shape is None else normalize_shape("full_like", shape)
    target = dtype_of(x) if dtype is None else as_dtype(dtype)
    if isinstance(fill_value, Tracer):
        return _own(broadcast_to(cast(fill_value, target), sizes))
    if not isinstance(x, Tracer):
        return full(sizes, fill_value, target)
    value = np.asarray(fill_value)
    if value.ndim:
        return _own(assign(filled(x, sizes, 0, target), ..., value))
    return _own(filled(x, sizes, value.astype(target), target))


def zeros_like(x: Any, dtype: Any = None, *, shape: Any = None) -> Any:
    """Zeros in the shape and dtype of ``x``, to fill: traced where ``x`` is, else as `zeros`."""
    return full_like(x, 0, dtype, shape=shape)


def empty_like(x: Any, dtype: Any = None, *, shape: Any = None) -> Any:
    """`zeros_like`: an array to fill."""
    return full_like(x, 0, dtype, shape=shape)


def ones_like(x: Any, dtype: Any = None, *, shape: Any = None) -> Any:
    """Ones in the shape and dtype of ``x``."""
    return full_like(x, 1, dtype, shape=shape)
