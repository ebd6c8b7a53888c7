"""Functions of sampled curves: piecewise linear interpolation, quadrature, differences, polynomials, convolution."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError, UnsupportedError, user_line
from .arrangement import slice_along
from .comparison import greater, greater_equal, less, where
from .elementwise import add, divide, multiply, subtract
from .index import take
from .linalg import matmul
from .movement import concatenate_p, flip, pad_p
from .operands import aval, dtype_of, normalize_axis, number, operand, shape_of, strong
from .pointwise import cast, promote
from .reduce import sum
from .shaping import filled, reshape_p


def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None) -> Any:
    """Piecewise linear interpolation at ``x`` of the points ``(xp, fp)``, xp increasing; ``left`` and ``right`` outside.

    The interval of each x is found by counting: ``x.size * xp.size`` comparisons. Differentiable by x, xp and fp; at a knot
    the slope is that of the interval to its right. Raises `ShapeError` unless xp and fp are vectors of one size.

    >>> interp(0.5, np.array([0.0, 1.0]), np.array([2.0, 4.0]))
    array(3.)
    """
    x, xp, fp = promote(x, xp, fp, floats=True)
    n = shape_of(xp)[0] if shape_of(xp) else 0
    if len(shape_of(xp)) != 1 or shape_of(fp) != shape_of(xp) or not n:
        raise ShapeError(
            f"interp: xp and fp must be vectors of one size, got {aval(xp)} and {aval(fp)}", at=user_line()
        )
    first, last = take(fp, 0), take(fp, -1)
    if n == 1:
        inside = first
    else:
        column = reshape_p(x, shape=(*shape_of(x), 1))
        i = sum(cast(greater_equal(column, slice_along(xp, 0, 1, -1)), np.dtype(np.int64)), -1)
        x0, f0 = take(xp, i, 0), take(fp, i, 0)
        slope = divide(subtract(take(fp, i + 1, 0), f0), subtract(take(xp, i + 1, 0), x0))
        inside = add(f0, multiply(slope, subtract(x, x0)))
    inside = where(less(x, take(xp, 0)), first if left is None else left, inside)
    return where(greater(x, take(xp, -1)), last if right is None else right, inside)


def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """Integral of samples ``y`` along ``axis`` by the trapezoidal rule, at places ``x`` or at steps ``dx``.

    >>> float(trapezoid(np.array([1.0, 2.0, 3.0])))
    4.0
    """
    (y,) = promote(y)
    axis = normalize_axis("trapezoid", axis, len(shape_of(y)))
    if x is None:
        step = operand(dx)
    else:
        x = operand(x)
        at = axis if len(shape_of(x)) > 1 else 0  # a vector of places lies along the axis
        step = subtract(slice_along(x, at, 1, None), slice_along(x, at, None, -1))
        if len(shape_of(x)) == 1:
            step = reshape_p(step, shape=(*shape_of(step), *(1,) * (len(shape_of(y)) - 1 - axis)))
    pairs = add(slice_along(y, axis, 1, None), slice_along(y, axis, None, -1))
    return sum(multiply(step, divide(pairs, 2.0)), axis)


def gradient(f: Any, *spacing: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """Central differences inside, one-sided ones at both ends, along each of ``axis`` (all when None).

    ``spacing``: one number for all axes, or one for each. A list of arrays for several axes, as in NumPy.
    Raises: `ShapeError` for an axis of fewer than two samples, `UnsupportedError` for coordinates and second-order edges.

    >>> gradient(np.array([1.0, 2.0, 4.0]))
    array([1. , 1.5, 2. ])
    """
    (f,) = promote(f, floats=True)
    ndim = len(shape_of(f))
    axes = range(ndim) if axis is None else axis if isinstance(axis, tuple | list) else (axis,)
    axes = [normalize_axis("gradient", a, ndim) for a in axes]
    if edge_order != 1 or any(shape_of(operand(h)) for h in spacing):
        raise UnsupportedError(
            "gradient: only even spacing and edge_order=1 are supported", hint="np.diff", at=user_line()
        )
    steps = list(spacing) * len(axes) if len(spacing) == 1 else list(spacing) or [1.0] * len(axes)
    if len(steps) != len(axes):
        raise ArgumentError(f"gradient: {len(steps)} spacings for {len(axes)} axes", at=user_line())
    results = [_gradient_along(f, h, a) for h, a in zip(steps, axes, strict=True)]
    return results[0] if len(results) == 1 else tuple(results)


def _gradient_along(f: Any, h: Any, axis: int) -> Any:
    if shape_of(f)[axis] < 2:
        raise ShapeError(
            f"gradient: wants at least 2 samples along axis {axis}, got {aval(f)}", at=user_line()
        )
    first = divide(subtract(slice_along(f, axis, 1, 2), slice_along(f, axis, 0, 1)), h)
    last = divide(subtract(slice_along(f, axis, -1, None), slice_along(f, axis, -2, -1)), h)
    inner = subtract(slice_along(f, axis, 2, None), slice_along(f, axis, None, -2))
    double = multiply(2.0, h) if number(h) is None else 2.0 * h
    parts = (first, divide(inner, double), last)
    return concatenate_p(*(cast(part, dtype_of(f)) for part in parts), axis=axis)


def polyval(p: Any, x: Any) -> Any:
    """The polynomial with coefficients ``p``, the highest power first, at ``x``, by Horner's rule.

    >>> float(polyval(np.array([1.0, 2.0, 3.0]), 2.0))
    11.0
    """
    p = operand(p)
    if len(shape_of(p)) != 1:
        raise ShapeError(f"polyval: wants a vector of coefficients, got {aval(p)}", at=user_line())
    if not shape_of(p)[0]:
        return filled(strong(x), shape_of(x), 0)
    p, x = promote(p, strong(x))
    y = filled(x, shape_of(x), 0)
    for i in range(shape_of(p)[0]):
        y = add(multiply(y, x), take(p, i))
    return y


def correlate(a: Any, v: Any, mode: str = "valid") -> Any:
    """``sum_j a[i + j] v[j]`` of two vectors: `convolve` with ``v`` reversed; same modes and errors.

    >>> correlate(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0]))
    array([2., 3.])
    """
    a, v = operand(a), operand(v)
    if len(shape_of(a)) == len(shape_of(v)) == 1 and shape_of(a) < shape_of(v):
        return flip(convolve(flip(a), v, mode))  # the windows of the longer, read from its end
    return convolve(a, flip(v) if shape_of(v) else v, mode)


def convolve(a: Any, v: Any, mode: str = "full") -> Any:
    """``sum_j a[i - j] v[j]`` of two vectors; ``mode`` "full", "same" (as long as the longer) or "valid".

    The windows of the longer meet the shorter in one matrix product. Raises `ShapeError` for operands that are no vectors.

    >>> convolve(np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    array([1., 3., 2.])
    """
    a, v = promote(a, v)
    if any(len(shape_of(x)) != 1 or not shape_of(x)[0] for x in (a, v)):
        raise ShapeError(f"convolve: wants two vectors, got {aval(a)} and {aval(v)}", at=user_line())
    if shape_of(a)[0] < shape_of(v)[0]:
        a, v = v, a
    n, k = shape_of(a)[0], shape_of(v)[0]
    if mode not in ("full", "same", "valid"):
        raise ArgumentError(f"convolve: mode must be 'full', 'same' or 'valid', got {mode!r}", at=user_line())
    lo, hi = {"full": (k - 1, k - 1), "same": (k // 2, (k - 1) // 2), "valid": (0, 0)}[mode]
    padded = pad_p(a, lo=(lo,), hi=(hi,), interior=(0,))
    windows = np.arange(n + lo + hi - k + 1)[:, None] + np.arange(k)
    return matmul(take(padded, windows, 0), flip(v))
