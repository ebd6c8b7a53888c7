"""Rounding to whole numbers and to decimals; all derivatives are 0. And pieces of the number line: steps, signs, sinc."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..core.graph import Literal
from ..errors import UnsupportedError, user_line
from .comparison import equal, greater, less, logical_or, where
from .elementwise import (
    absolute,
    add,
    ceil,
    divide,
    floor,
    isnan,
    multiply,
    negative,
    reciprocal,
    remainder,
    sin,
    subtract,
)
from .operands import aval, dtype_of, operand
from .pointwise import copied, promote


def trunc(x: Any) -> Any:
    """The whole number next to each element towards 0, in its dtype.

    >>> trunc(np.array([-1.7, 1.7]))
    array([-1.,  1.])
    """
    (x,) = promote(x)
    return copied(x) if dtype_of(x).kind != "f" else where(less(x, 0), ceil(x), floor(x))


def rint(x: Any) -> Any:
    """The nearest whole number, the even one of two, in the dtype of x (float64 for integers).

    >>> rint(np.array([0.5, 1.5, 2.4]))
    array([0., 2., 2.])
    """
    (x,) = promote(x, floats=True)
    low = floor(x)
    rest = subtract(x, low)
    odd = equal(remainder(low, 2), 1)
    up = where(equal(rest, 0.5), odd, greater(rest, 0.5))
    return where(up, add(low, 1), where(greater(absolute(x), 0), low, x))  # infinities, NaN and -0 stay


def round(x: Any, decimals: int = 0) -> Any:
    """``x`` to a number of decimals, halves to even: `rint` of ``x * 10**decimals``, scaled back. Integers stay.

    Raises: `UnsupportedError` for integers and a negative number of decimals.

    >>> round(np.array([0.124, 2.5]), 2)
    array([0.12, 2.5 ])
    """
    x, decimals = operand(x), operator.index(decimals)
    if dtype_of(x).kind != "f":
        if decimals < 0:
            raise UnsupportedError(
                f"round: {aval(x)} to tens and hundreds is not supported",
                hint=".astype(np.float64)",
                at=user_line(),
            )
        return copied(promote(x)[0])
    if not decimals:
        return rint(x)
    scale = 10.0 ** abs(decimals)
    return (
        divide(rint(multiply(x, scale)), scale) if decimals > 0 else multiply(rint(divide(x, scale)), scale)
    )


def copysign(x: Any, y: Any) -> Any:
    """``|x|`` with the sign of ``y`` (that of -0 counts). The derivative by x is 1 or -1, by y 0."""
    x, y = promote(x, y, floats=True)
    below = logical_or(less(y, 0), less(reciprocal(where(equal(y, 0), y, 1)), 0))
    size = absolute(x)
    return where(below, negative(size), size)


def heaviside(x: Any, half: Any) -> Any:
    """0 below 0, 1 above, ``half`` at 0; NaN stays. The derivative by x is 0, by ``half`` 1 where x is 0.

    >>> heaviside(np.array([-1.0, 0.0, 2.0]), 0.5)
    array([0. , 0.5, 1. ])
    """
    x, half = promote(x, half, floats=True)
    one, zero = (Literal(dtype_of(x).type(v)) for v in (1, 0))
    return where(greater(x, 0), one, where(less(x, 0), zero, where(isnan(x), x, half)))


def sinc(x: Any) -> Any:
    """``sin(πx) / (πx)``, 1 at 0. Below |πx| = 0.1 by its series, so that all derivatives are right there.

    >>> sinc(np.array([0.0, 0.5]))
    array([1.        , 0.63661977])
    """
    (x,) = promote(x, floats=True)
    y = multiply(x, np.pi)
    near = less(absolute(y), 0.1)
    far = where(near, 1.0, y)
    s = where(near, multiply(y, y), 0.0)
    series = where(near, 1.0 / 3628800 / 11, 0.0)
    for k in (362880.0, -5040.0, 120.0, -6.0, 1.0):
        series = add(1.0 / k, multiply(s, series if k != 362880.0 else -1.0 / 39916800))
    return where(near, series, divide(sin(far), far))
