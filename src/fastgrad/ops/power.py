"""``x ** y``: one primitive for floats, products for small whole exponents and for integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ArgumentError, UnsupportedError, user_line
from .comparison import equal, where
from .elementwise import div_p, log_p, mul_p, sqrt_p
from .operands import aval, dtype_of, number, operand, shape_of
from .pointwise import cast, copied, literal, pointwise, promote
from .shaping import filled

# --- pow ------------------------------------------------------------------------------------------------------------


def _pow_dx(t: Any, out: Any, x: Any, y: Any) -> Any:
    # x**0 is constant, also at x = 0 where y * x**(y-1) would be 0 * inf.
    if not shape_of(y) and isinstance(y, np.floating):
        return t * y * pow_p(x, y - 1) if y != 0 else t * 0
    return t * y * pow_p(x, where(equal(y, 0), 1, y - 1))


def _pow_dy(t: Any, out: Any, x: Any, y: Any) -> Any:
    # At x = 0 the limit for y > 0 is 0, where log(0) * 0 would be NaN.
    return t * out * log_p(where(equal(x, 0), 1, x))


pow_p = pointwise("pow", np.power, None, [_pow_dx, _pow_dy], accepts="f")


def power(x: Any, y: Any) -> Any:
    """``x ** y`` elementwise. Python-number exponents -1, 0, 0.5, 1, 2, 3 become 1/x, 1, sqrt, x, x*x, x*x*x.

    Derivatives: ``y * x**(y-1)`` (0 where y is 0) and ``log(x) * x**y`` (0 where x is 0).
    Raises `ArgumentError` for an integer to a negative power, `UnsupportedError` for integers to an array of integers.

    >>> power(np.array([1.0, 3.0]), 2)
    array([1., 9.])
    """
    x, y = operand(x), operand(y)
    n = number(y)
    if n is not None and dtype_of(x).kind != "f" and isinstance(n, float):
        x = promote(x, y)[0]
    if dtype_of(x).kind != "f" and dtype_of(y).kind != "f":
        return _integer_power(x, n)
    if n is not None and not isinstance(n, bool) and n in _SMALL_POWERS:
        return _SMALL_POWERS[n](promote(x, y)[0])
    return pow_p(*promote(x, y))


_SMALL_POWERS: dict[float, Callable[[Any], Any]] = {
    -1: lambda x: div_p(literal(1, dtype_of(x)), x),
    0: lambda x: filled(x, shape_of(x), 1),
    0.5: lambda x: sqrt_p(x),
    1: copied,
    2: lambda x: mul_p(x, x),
    3: lambda x: mul_p(mul_p(x, x), x),
}


def _integer_power(x: Any, n: Any) -> Any:
    """``x ** n`` for integers and a Python integer n, by squaring (Knuth, TAOCP 2, §4.6.3)."""
    if n is None or isinstance(n, bool):
        raise UnsupportedError(
            f"power: integers to an array of integers are not supported, got {aval(x)}",
            hint="np.power(x.astype(np.float64), y)",
            at=user_line(),
        )
    if n < 0:
        raise ArgumentError(
            "power: integers to negative powers are no integers", hint=f"x ** {float(n)}", at=user_line()
        )
    x = cast(x, np.dtype(np.int8)) if dtype_of(x).kind == "b" else x
    result, square_ = None, x
    while n:
        if n & 1:
            result = square_ if result is None else mul_p(result, square_)
        n >>= 1
        square_ = mul_p(square_, square_) if n else square_
    if result is None:
        return filled(x, shape_of(x), 1)
    return copied(result) if result is x else result
