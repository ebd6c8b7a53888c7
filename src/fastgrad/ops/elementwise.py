"""Arithmetic and the functions of mathematics, elementwise. Derivatives use what keeps least alive: exp its own output,
tanh and sigmoid theirs, relu the sign of its output.

Formulas: Abramowitz & Stegun, *Handbook of Mathematical Functions*, §3.3, §4.2-4.6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.expr import MapBuilder
from ..core.graph import Literal
from ..core.primitive import Primitive
from ..errors import DTypeError, user_line
from .comparison import and_p, eq_p, equal, greater, less, less_equal, lt_p, ne_p, or_p, where
from .operands import aval, dtype_of, operand
from .pointwise import cast, copied, pointwise, promote, select_p, zero_like

# --- add sub mul div ------------------------------------------------------------------------------------------------


def _bool_as(op: str, on_bool: str) -> Callable[..., int]:
    """``op`` on numbers; on bools NumPy's meaning of it, one of and, or."""
    return lambda k, dtype, *values: k.line(on_bool if dtype.kind == "b" else op, *values, dtype=dtype)


add_p = pointwise("add", np.add, _bool_as("add", "or"), [lambda t, out, x, y: t, lambda t, out, x, y: t])
sub_p = pointwise("sub", np.subtract, None, [lambda t, out, x, y: t, lambda t, out, x, y: -t], accepts="iuf")
mul_p = pointwise(
    "mul", np.multiply, _bool_as("mul", "and"), [lambda t, out, x, y: t * y, lambda t, out, x, y: t * x]
)
div_p = pointwise(
    "div",
    np.divide,
    None,
    [lambda t, out, x, y: t / y, lambda t, out, x, y: -((t / y) * out)],
    accepts="f",
)


def add(x: Any, y: Any) -> Any:
    """``x + y`` elementwise; shapes broadcast, dtypes promote as in NumPy (on bools it is ``or``).

    >>> add(np.array([1, 2]), 0.5)
    array([1.5, 2.5])
    """
    return add_p(*promote(x, y))


def subtract(x: Any, y: Any) -> Any:
    """``x - y`` elementwise. Raises `DTypeError` on bools, as NumPy does."""
    x, y = promote(x, y)
    if dtype_of(x).kind == "b":
        raise DTypeError("subtract: bools do not subtract", hint="x ^ y", at=user_line())
    return sub_p(x, y)


def multiply(x: Any, y: Any) -> Any:
    """``x * y`` elementwise (on bools it is ``and``)."""
    return mul_p(*promote(x, y))


def divide(x: Any, y: Any) -> Any:
    """``x / y`` elementwise; integers give float64; division by zero gives inf or NaN.

    >>> divide(np.array([1, 2]), 2)
    array([0.5, 1. ])
    """
    return div_p(*promote(x, y, floats=True))


# --- floor_divide remainder -----------------------------------------------------------------------------------------

floor_divide_p = pointwise("floor_divide", np.floor_divide, accepts="iuf")
remainder_p = pointwise(
    "remainder",
    np.remainder,
    None,
    [lambda t, out, x, y: t, lambda t, out, x, y: -(t * floor_divide_p(x, y))],
    accepts="iuf",
)


def _no_bools(*values: Any) -> list:
    operands = promote(*values)
    return [cast(x, np.dtype(np.int8)) if dtype_of(x).kind == "b" else x for x in operands]


def floor_divide(x: Any, y: Any) -> Any:
    """``x // y``: the quotient rounded down, in the common dtype. Its derivative is 0; an integer over 0 gives 0."""
    return floor_divide_p(*_no_bools(x, y))


def remainder(x: Any, y: Any) -> Any:
    """``x % y``, with the sign of ``y``: ``x - y * floor(x / y)``. Derivatives 1 and ``-floor(x / y)``."""
    return remainder_p(*_no_bools(x, y))


# --- neg abs sign floor ceil ----------------------------------------------------------------------------------------


def _unless_bool(op: str) -> Callable[..., int]:
    return lambda k, dtype, x: x if dtype.kind == "b" else k.line(op, x, dtype=dtype)


neg_p = pointwise("neg", np.negative, None, [lambda t, out, x: -t], accepts="iuf")
abs_p = pointwise("abs", np.absolute, _unless_bool("abs"), [lambda t, out, x: t * sign_p(x)])
sign_p = pointwise("sign", np.sign, accepts="iuf")
floor_p = pointwise("floor", np.floor, accepts="f")
ceil_p = pointwise("ceil", np.ceil, accepts="f")


def negative(x: Any) -> Any:
    """``-x`` elementwise; unsigned integers wrap around. Raises `DTypeError` on bools."""
    (x,) = promote(x)
    if dtype_of(x).kind == "b":
        raise DTypeError("negative: a bool has no negative", hint="~x", at=user_line())
    return neg_p(x)


def positive(x: Any) -> Any:
    """``+x``: ``x`` itself. Raises `DTypeError` on bools."""
    (x,) = promote(x)
    if dtype_of(x).kind == "b":
        raise DTypeError("positive: bools take no sign", hint="x.astype(np.int8)", at=user_line())
    return copied(x)


def absolute(x: Any) -> Any:
    """``|x|`` elementwise. Kink: the derivative at 0 is 0."""
    return abs_p(*promote(x))


def sign(x: Any) -> Any:
    """-1, 0 or 1 by the sign of each element, NaN for NaN; its derivative is 0."""
    (x,) = promote(x)
    if dtype_of(x).kind == "b":
        raise DTypeError("sign: bools have no sign", hint="x.astype(np.int8)", at=user_line())
    return sign_p(x)


def floor(x: Any) -> Any:
    """The largest whole number not above each element, in its dtype; its derivative is 0."""
    (x,) = promote(x)
    return floor_p(x) if dtype_of(x).kind == "f" else copied(x)


def ceil(x: Any) -> Any:
    """The smallest whole number not below each element, in its dtype; its derivative is 0."""
    (x,) = promote(x)
    return ceil_p(x) if dtype_of(x).kind == "f" else copied(x)


# --- exp log sqrt tanh sigmoid expm1 log1p sin cos ------------------------------------------------------------------


def _sigmoid_reference(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


exp_p = pointwise("exp", np.exp, None, [lambda t, out, x: t * out], accepts="f")
log_p = pointwise("log", np.log, None, [lambda t, out, x: t / x], accepts="f")
sqrt_p = pointwise("sqrt", np.sqrt, None, [lambda t, out, x: t * 0.5 / out], accepts="f")
rsqrt_p = pointwise(
    "rsqrt", lambda x: 1 / np.sqrt(x), None, [lambda t, out, x: t * -0.5 * out / x], accepts="f"
)
tanh_p = pointwise("tanh", np.tanh, None, [lambda t, out, x: t * (1 - out * out)], accepts="f")
sigmoid_p = pointwise(
    "sigmoid", _sigmoid_reference, None, [lambda t, out, x: t * out * (1 - out)], accepts="f"
)
expm1_p = pointwise("expm1", np.expm1, None, [lambda t, out, x: t * (out + 1)], accepts="f")
log1p_p = pointwise("log1p", np.log1p, None, [lambda t, out, x: t / (x + 1)], accepts="f")
sin_p = pointwise("sin", np.sin, None, [lambda t, out, x: t * cos_p(x)], accepts="f")
cos_p = pointwise("cos", np.cos, None, [lambda t, out, x: -(t * sin_p(x))], accepts="f")


def _of_float(prim: Primitive, x: Any) -> Any:
    return prim(*promote(x, floats=True))


def exp(x: Any) -> Any:
    """``e**x`` elementwise; integers give float64. Derivative: exp(x), read off the result."""
    return _of_float(exp_p, x)


def log(x: Any) -> Any:
    """Natural logarithm elementwise; -inf at 0, NaN below. Derivative: 1/x."""
    return _of_float(log_p, x)


def sqrt(x: Any) -> Any:
    """Square root elementwise; NaN below 0. Derivative: 0.5/sqrt(x), inf at 0."""
    return _of_float(sqrt_p, x)


def rsqrt(x: Any) -> Any:
    """``1 / sqrt(x)`` elementwise, inf at 0, NaN below; integers give float64. Derivative: -0.5 x**-1.5.

    >>> rsqrt(np.array([4.0, 0.25]))
    array([0.5, 2. ])
    """
    return _of_float(rsqrt_p, x)


def tanh(x: Any) -> Any:
    """Hyperbolic tangent elementwise. Derivative: 1 - tanh(x)**2, read off the result."""
    return _of_float(tanh_p, x)


def sigmoid(x: Any) -> Any:
    """The logistic function ``1 / (1 + exp(-x))`` elementwise; no overflow at either end. Derivative: s (1 - s)."""
    return _of_float(sigmoid_p, x)


def expm1(x: Any) -> Any:
    """``exp(x) - 1`` elementwise, exact near 0. Derivative: exp(x)."""
    return _of_float(expm1_p, x)


def log1p(x: Any) -> Any:
    """``log(1 + x)`` elementwise, exact near 0. Derivative: 1/(1 + x)."""
    return _of_float(log1p_p, x)


def sin(x: Any) -> Any:
    """Sine of radians, elementwise."""
    return _of_float(sin_p, x)


def cos(x: Any) -> Any:
    """Cosine of radians, elementwise."""
    return _of_float(cos_p, x)


# --- relu -----------------------------------------------------------------------------------------------------------


def _relu_lines(k: MapBuilder, dtype: np.dtype, x: int) -> int:
    return k.line("max", x, k.const(0, dtype), dtype=dtype)


relu_p = pointwise(
    "relu",
    lambda x: np.maximum(x, 0),
    _relu_lines,
    [lambda t, out, x: select_p(greater(out, 0), t, zero_like(t))],
    accepts="iuf",
)


def relu(x: Any) -> Any:
    """``max(x, 0)`` elementwise; NaN stays NaN. Kink: the derivative at 0 is 0.

    >>> relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    return relu_p(*_no_bools(x))


# --- max min --------------------------------------------------------------------------------------------------------


def _winner_share(beats: Callable[[Any, Any], Any], t: Any, mine: Any, other: Any) -> Any:
    """``t`` where ``mine`` wins, half of it at a tie, 0 where it loses."""
    return select_p(beats(mine, other), t, select_p(equal(mine, other), t * 0.5, zero_like(t)))


max_p = pointwise(
    "max",
    np.maximum,
    _bool_as("max", "or"),
    [
        lambda t, out, x, y: _winner_share(greater, t, x, y),
        lambda t, out, x, y: _winner_share(greater, t, y, x),
    ],
)
min_p = pointwise(
    "min",
    np.minimum,
    _bool_as("min", "and"),
    [lambda t, out, x, y: _winner_share(less, t, x, y), lambda t, out, x, y: _winner_share(less, t, y, x)],
)


def maximum(x: Any, y: Any) -> Any:
    """The larger of ``x`` and ``y`` elementwise; NaN where either is NaN. Ties split the cotangent evenly."""
    return max_p(*promote(x, y))


def minimum(x: Any, y: Any) -> Any:
    """The smaller of ``x`` and ``y`` elementwise; NaN where either is NaN. Ties split the cotangent evenly."""
    return min_p(*promote(x, y))


# --- tests of a float -----------------------------------------------------------------------------------------------


def isnan(x: Any) -> Any:
    """Whether each element is NaN (an integer never is)."""
    (x,) = promote(x)
    return ne_p(x, x)


def _magnitude(x: Any) -> tuple[Any, Any]:
    """``|x|`` and infinity in its dtype; for integers, which are finite, ``x`` and itself."""
    (x,) = promote(x)
    return (abs_p(x), Literal(dtype_of(x).type(np.inf))) if dtype_of(x).kind == "f" else (x, None)


def isinf(x: Any) -> Any:
    """Whether each element is an infinity of either sign."""
    size, infinity = _magnitude(x)
    return ne_p(size, size) if infinity is None else eq_p(size, infinity)


def isfinite(x: Any) -> Any:
    """Whether each element is neither NaN nor infinite."""
    size, infinity = _magnitude(x)
    return eq_p(size, size) if infinity is None else lt_p(size, infinity)


# --- compositions ---------------------------------------------------------------------------------------------------


def square(x: Any) -> Any:
    """``x * x`` elementwise."""
    (x,) = _no_bools(x)
    return mul_p(x, x)


def reciprocal(x: Any) -> Any:
    """``1 / x`` elementwise. Raises `DTypeError` on integers, whose reciprocals NumPy truncates to 0."""
    x = operand(x)
    if dtype_of(x).kind != "f":
        raise DTypeError(f"reciprocal: wants floats, got {aval(x)}", hint="1 / x", at=user_line())
    return divide(1, x)


def isclose(x: Any, y: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """Whether ``|x - y| <= atol + rtol * |y|`` elementwise, bool; infinities of one sign are close."""
    x, y = promote(x, y, floats=True)
    size = absolute(y)
    near = and_p(
        less_equal(absolute(sub_p(x, y)), add_p(*promote(mul_p(*promote(size, rtol)), atol))),
        less(size, np.inf),
    )
    close = or_p(near, eq_p(x, y))
    return or_p(close, and_p(ne_p(x, x), ne_p(y, y))) if equal_nan else close


def fmax(x: Any, y: Any) -> Any:
    """The larger of both elementwise; a NaN gives way to a number."""
    x, y = promote(x, y)
    return where(ne_p(x, x), y, where(ne_p(y, y), x, maximum(x, y)))


def fmin(x: Any, y: Any) -> Any:
    """The smaller of both elementwise; a NaN gives way to a number."""
    x, y = promote(x, y)
    return where(ne_p(x, x), y, where(ne_p(y, y), x, minimum(x, y)))


def fabs(x: Any) -> Any:
    """`absolute` in floating point: integers give float64."""
    return absolute(promote(x, floats=True)[0])
