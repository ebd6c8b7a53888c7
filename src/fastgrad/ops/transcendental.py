"""More functions of mathematics, elementwise: tangent and the inverse circular functions, the hyperbolic ones, other bases.

Formulas: Abramowitz & Stegun, *Handbook of Mathematical Functions*, §4.1-4.6. Kernels of the first two
groups call C's library (`core.expr.LIBM`), the others are `codegen.simd.math`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.expr import MapBuilder
from .elementwise import multiply, sigmoid_p, sqrt_p
from .operands import dtype_of
from .pointwise import pointwise, promote

_LN2, _LN10 = math.log(2.0), math.log(10.0)

# --- tan arcsin arccos arctan arctan2 -------------------------------------------------------------------------------

tan_p = pointwise("tan", np.tan, None, [lambda t, out, x: t * (1 + out * out)], accepts="f")
arcsin_p = pointwise(
    "arcsin", np.arcsin, None, [lambda t, out, x: t / sqrt_p((1 - x) * (1 + x))], accepts="f"
)
arccos_p = pointwise(
    "arccos", np.arccos, None, [lambda t, out, x: -(t / sqrt_p((1 - x) * (1 + x)))], accepts="f"
)
arctan_p = pointwise("arctan", np.arctan, None, [lambda t, out, x: t / (1 + x * x)], accepts="f")
arctan2_p = pointwise(
    "arctan2",
    np.arctan2,
    None,
    [lambda t, out, y, x: t * x / (x * x + y * y), lambda t, out, y, x: -(t * y / (x * x + y * y))],
    accepts="f",
)


def tan(x: Any) -> Any:
    """Tangent of radians, elementwise. Derivative: 1 + tan(x)**2, read off the result."""
    return tan_p(*promote(x, floats=True))


def arcsin(x: Any) -> Any:
    """The angle in [-π/2, π/2] whose sine is ``x``; NaN outside [-1, 1]. Derivative: 1/sqrt(1 - x**2), inf at ±1."""
    return arcsin_p(*promote(x, floats=True))


def arccos(x: Any) -> Any:
    """The angle in [0, π] whose cosine is ``x``; NaN outside [-1, 1]. Derivative: -1/sqrt(1 - x**2), -inf at ±1."""
    return arccos_p(*promote(x, floats=True))


def arctan(x: Any) -> Any:
    """The angle in (-π/2, π/2) whose tangent is ``x``. Derivative: 1/(1 + x**2)."""
    return arctan_p(*promote(x, floats=True))


def arctan2(y: Any, x: Any) -> Any:
    """The angle in [-π, π] of the point ``(x, y)``; shapes broadcast.

    Derivatives: ``x / (x**2 + y**2)`` by y and ``-y / (x**2 + y**2)`` by x; NaN at the origin.

    >>> arctan2(np.array([0.0, 1.0]), -1.0)
    array([3.14159265, 2.35619449])
    """
    return arctan2_p(*promote(y, x, floats=True))


# --- sinh cosh arcsinh arccosh arctanh ------------------------------------------------------------------------------

sinh_p = pointwise("sinh", np.sinh, None, [lambda t, out, x: t * cosh_p(x)], accepts="f")
cosh_p = pointwise("cosh", np.cosh, None, [lambda t, out, x: t * sinh_p(x)], accepts="f")
arcsinh_p = pointwise("arcsinh", np.arcsinh, None, [lambda t, out, x: t / sqrt_p(1 + x * x)], accepts="f")
arccosh_p = pointwise(
    "arccosh", np.arccosh, None, [lambda t, out, x: t / (sqrt_p(x - 1) * sqrt_p(x + 1))], accepts="f"
)
arctanh_p = pointwise("arctanh", np.arctanh, None, [lambda t, out, x: t / ((1 - x) * (1 + x))], accepts="f")


def sinh(x: Any) -> Any:
    """Hyperbolic sine elementwise. Derivative: cosh(x)."""
    return sinh_p(*promote(x, floats=True))


def cosh(x: Any) -> Any:
    """Hyperbolic cosine elementwise. Derivative: sinh(x)."""
    return cosh_p(*promote(x, floats=True))


def arcsinh(x: Any) -> Any:
    """The inverse of `sinh`. Derivative: 1/sqrt(1 + x**2)."""
    return arcsinh_p(*promote(x, floats=True))


def arccosh(x: Any) -> Any:
    """The inverse of `cosh` that is at least 0; NaN below 1. Derivative: 1/sqrt(x**2 - 1), inf at 1."""
    return arccosh_p(*promote(x, floats=True))


def arctanh(x: Any) -> Any:
    """The inverse of `tanh`; infinite at ±1, NaN beyond. Derivative: 1/(1 - x**2)."""
    return arctanh_p(*promote(x, floats=True))


# --- log2 log10 exp2 cbrt -------------------------------------------------------------------------------------------

log2_p = pointwise("log2", np.log2, None, [lambda t, out, x: t / (x * _LN2)], accepts="f")
log10_p = pointwise("log10", np.log10, None, [lambda t, out, x: t / (x * _LN10)], accepts="f")
exp2_p = pointwise("exp2", np.exp2, None, [lambda t, out, x: t * (out * _LN2)], accepts="f")
cbrt_p = pointwise("cbrt", np.cbrt, None, [lambda t, out, x: t / (3 * (out * out))], accepts="f")


def log2(x: Any) -> Any:
    """Logarithm to base 2 elementwise, exact at powers of two; -inf at 0, NaN below. Derivative: 1/(x log 2)."""
    return log2_p(*promote(x, floats=True))


def log10(x: Any) -> Any:
    """Logarithm to base 10 elementwise; -inf at 0, NaN below. Derivative: 1/(x log 10)."""
    return log10_p(*promote(x, floats=True))


def exp2(x: Any) -> Any:
    """``2**x`` elementwise. Derivative: log(2) 2**x, read off the result."""
    return exp2_p(*promote(x, floats=True))


def cbrt(x: Any) -> Any:
    """Cube root elementwise, of negative numbers too. Derivative: 1/(3 cbrt(x)**2), inf at 0."""
    return cbrt_p(*promote(x, floats=True))


# --- hypot logaddexp ------------------------------------------------------------------------------------------------

hypot_p = pointwise(
    "hypot",
    np.hypot,
    None,
    [lambda t, out, x, y: t * (x / out), lambda t, out, x, y: t * (y / out)],
    accepts="f",
)


def _logaddexp_reference(x: Any, y: Any) -> Any:
    x, y = np.asarray(x), np.asarray(y)
    apart = np.maximum(x, y) + np.log1p(np.exp(-np.abs(x - y)))
    return np.where(
        x == y, x + x.dtype.type(_LN2), apart
    )  # -inf and -inf, inf and inf: their difference is NaN


def _logaddexp_lines(k: MapBuilder, dtype: np.dtype, x: int, y: int) -> int:
    apart = k.line("neg", k.line("abs", k.line("sub", x, y, dtype=dtype), dtype=dtype), dtype=dtype)
    small = k.line("log1p", k.line("exp", apart, dtype=dtype), dtype=dtype)
    apart = k.line("add", k.line("max", x, y, dtype=dtype), small, dtype=dtype)
    equal = k.line("eq", x, y, dtype=np.dtype(bool))
    return k.line("select", equal, k.line("add", x, k.const(_LN2, dtype), dtype=dtype), apart, dtype=dtype)


logaddexp_p = pointwise(
    "logaddexp",
    _logaddexp_reference,
    _logaddexp_lines,
    [lambda t, out, x, y: t * sigmoid_p(x - y), lambda t, out, x, y: t * sigmoid_p(y - x)],
    accepts="f",
)


def hypot(x: Any, y: Any) -> Any:
    """``sqrt(x**2 + y**2)`` elementwise without overflow in between. Derivatives ``x / hypot``, ``y / hypot``: NaN at 0."""
    return hypot_p(*promote(x, y, floats=True))


def logaddexp(x: Any, y: Any) -> Any:
    """``log(exp(x) + exp(y))`` elementwise without overflow. Derivatives ``sigmoid(x - y)`` and ``sigmoid(y - x)``.

    >>> logaddexp(0.0, np.array([0.0, 1000.0]))
    array([6.93147181e-01, 1.00000000e+03])
    """
    return logaddexp_p(*promote(x, y, floats=True))


# --- degrees --------------------------------------------------------------------------------------------------------


def _scaled(x: Any, factor: float) -> Any:
    (x,) = promote(x, floats=True)
    return multiply(x, dtype_of(x).type(factor))


def deg2rad(x: Any) -> Any:
    """Degrees as radians: ``x * π / 180``."""
    return _scaled(x, math.pi / 180)


def rad2deg(x: Any) -> Any:
    """Radians as degrees: ``x * 180 / π``."""
    return _scaled(x, 180 / math.pi)
