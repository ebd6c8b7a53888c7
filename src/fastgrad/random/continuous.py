"""Draws of floats: uniform, and what is made of it by the inverse of a distribution function (Devroye 1986, §II.2).

A uniform has as many random bits as the dtype's significand (53, 24), on an even grid in [0, 1). What feeds a quantile
function is finer: all bits of a word, rounded to float, half a step above 0. So tails reach as far as a word of that
size lets them (a normal in float64 up to 9.1, in float32 up to 6.3), are right at every depth, and nothing is infinite.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.graph import Literal, Tracer
from ..errors import ArgumentError, ShapeError, UnsupportedError, user_line
from ..ops.comparison import and_p, clip, eq_p, shr_p
from ..ops.elementwise import add_p, div_p, min_p, mul_p, neg_p, sub_p
from ..ops.operands import aval, number, operand, shape_of
from ..ops.pointwise import cast, convert, select_p
from ..ops.random import random_bits
from ..ops.special import ndtri_p, plain_log_p
from .keys import draw_shape, float_dtype, words

_INT32 = np.dtype(np.int32)


def uniform(key: Any, shape: Any = (), dtype: Any = np.float64, minval: Any = 0.0, maxval: Any = 1.0) -> Any:
    """Floats uniform in ``[minval, maxval)``; bounds are numbers or arrays that broadcast to ``shape``.

    Multiples of 2**-53 (2**-24 in float32), scaled. Between numbers ``maxval`` is never reached; between arrays, rounding
    may reach it. Derivatives pass through the bounds. Raises `ArgumentError` for numbers out of order or not finite,
    `DTypeError` for a dtype that is no float, `ShapeError` where shapes do not fit, both for what is no key.

    >>> float(uniform(fastgrad.random.key(0), dtype=np.float32)) < 1
    True
    """
    k0, k1 = words("uniform", key)
    dtype, shape = float_dtype("uniform", dtype), draw_shape("uniform", shape)
    low, high = number(operand(minval)), number(operand(maxval))
    if low is not None and high is not None:
        low, high = float(dtype.type(low)), float(dtype.type(high))
        if not low < high or not math.isfinite(high - low):
            raise ArgumentError(
                f"uniform: minval must be below maxval, got {minval} and {maxval}", at=user_line()
            )
    u = _grid(k0, k1, shape, dtype)
    if (low, high) == (0.0, 1.0):
        return u
    if low is not None and high is not None:
        out = add_p(mul_p(u, Literal(dtype.type(high - low))), Literal(dtype.type(low)))
        return min_p(out, Literal(np.nextafter(dtype.type(high), dtype.type(low))))
    start, stop = convert(operand(minval), dtype), convert(operand(maxval), dtype)
    out = add_p(mul_p(u, sub_p(stop, start)), start)
    _fits("uniform", shape, out, minval=minval, maxval=maxval)
    return out


def normal(key: Any, shape: Any = (), dtype: Any = np.float64) -> Any:
    """Floats from the standard normal distribution; ``mean + std * normal(...)`` for others, with its derivatives.

    By the quantile function (`ops.special.ndtri`), so each element takes one word. Raises as `uniform`.

    >>> normal(fastgrad.random.key(0), (2, 3)).shape
    (2, 3)
    """
    k0, k1 = words("normal", key)
    dtype, shape = float_dtype("normal", dtype), draw_shape("normal", shape)
    sign, tail = _sign_and_tail(k0, k1, shape, dtype)
    x = ndtri_p(tail)
    return select_p(sign, neg_p(x), x)


def truncated_normal(key: Any, lower: float, upper: float, shape: Any = (), dtype: Any = np.float64) -> Any:
    """Standard normal floats given that they lie in ``[lower, upper]``, Python numbers (either may be infinite).

    Raises `ArgumentError` for bounds out of order or beyond 37 (12 in float32) on one side,
    `UnsupportedError` for traced ones; else as `uniform`.

    >>> bool(abs(truncated_normal(fastgrad.random.key(0), -2, 2, (100,))).max() <= 2)
    True
    """
    k0, k1 = words("truncated_normal", key)
    dtype, shape = float_dtype("truncated_normal", dtype), draw_shape("truncated_normal", shape)
    for bound in (lower, upper):
        if isinstance(bound, Tracer) or np.ndim(bound):
            raise UnsupportedError(
                f"truncated_normal: bounds are Python numbers, got {aval(operand(bound))}", at=user_line()
            )
    lower, upper = float(lower), float(upper)
    if not lower < upper:
        raise ArgumentError(
            f"truncated_normal: lower must be below upper, got {lower} and {upper}", at=user_line()
        )
    if lower > 0:  # in the left tail, where probabilities are known to the last digit
        return neg_p(_truncated(k0, k1, -upper, -lower, shape, dtype))
    return _truncated(k0, k1, lower, upper, shape, dtype)


def _truncated(k0: Any, k1: Any, lower: float, upper: float, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    below, within = _ndtr(lower), _ndtr(upper) - _ndtr(lower)
    if not dtype.type(_ndtr(upper)) > np.finfo(dtype).tiny:
        raise ArgumentError(
            f"truncated_normal: {dtype.name} has no probabilities so far out, got a bound of {abs(upper)}",
            at=user_line(),
        )
    p = add_p(mul_p(_open(k0, k1, shape, dtype), Literal(dtype.type(within))), Literal(dtype.type(below)))
    return clip(ndtri_p(min_p(p, _below_one(dtype))), dtype.type(lower), dtype.type(upper))


def _ndtr(x: float) -> float:
    """The standard normal distribution function, exact in the left tail."""
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def exponential(key: Any, shape: Any = (), dtype: Any = np.float64) -> Any:
    """Floats from the exponential distribution of mean 1, above 0. Raises as `uniform`."""
    k0, k1 = words("exponential", key)
    return _exponential(k0, k1, draw_shape("exponential", shape), float_dtype("exponential", dtype))


def gumbel(key: Any, shape: Any = (), dtype: Any = np.float64) -> Any:
    """Floats from the standard Gumbel distribution, ``-log(e)`` of an exponential e. Raises as `uniform`."""
    k0, k1 = words("gumbel", key)
    return standard_gumbel(k0, k1, draw_shape("gumbel", shape), float_dtype("gumbel", dtype))


def standard_gumbel(k0: Any, k1: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """`gumbel` of the words of a key."""
    return neg_p(plain_log_p(_exponential(k0, k1, shape, dtype)))


def laplace(key: Any, shape: Any = (), dtype: Any = np.float64) -> Any:
    """Floats from the Laplace distribution of mean 0 and scale 1. Raises as `uniform`."""
    k0, k1 = words("laplace", key)
    dtype, shape = float_dtype("laplace", dtype), draw_shape("laplace", shape)
    sign, tail = _sign_and_tail(k0, k1, shape, dtype)
    x = plain_log_p(mul_p(tail, Literal(dtype.type(2))))
    return select_p(sign, neg_p(x), x)


# --- words to floats ------------------------------------------------------------------------------------------------


def _grid(k0: Any, k1: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Multiples of 2**-53 or 2**-24 in [0, 1)."""
    digits = np.finfo(dtype).nmant + 1
    word = random_bits(k0, k1, shape, 8 * dtype.itemsize)
    count = shr_p(word, _like(word, 8 * dtype.itemsize - digits))
    return mul_p(_to_float(count, dtype), Literal(dtype.type(2.0**-digits)))


def _open(k0: Any, k1: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Floats in (0, 1), close together near 0."""
    halved = _half(random_bits(k0, k1, shape, 8 * dtype.itemsize), dtype)
    return min_p(mul_p(halved, Literal(dtype.type(2))), _below_one(dtype))


def _sign_and_tail(k0: Any, k1: Any, shape: tuple[int, ...], dtype: np.dtype) -> tuple[Any, Any]:
    """A fair bool, and a float in (0, 1/2]: the probability of the tail beyond what is to be drawn."""
    word = random_bits(k0, k1, shape, 8 * dtype.itemsize)
    return eq_p(and_p(word, _like(word, 1)), _like(word, 1)), _half(word, dtype)


def _half(word: Any, dtype: np.dtype) -> Any:
    """All bits of a word but the last as a float in (0, 1/2]."""
    width = 8 * dtype.itemsize
    count = _to_float(shr_p(word, _like(word, 1)), dtype)
    return mul_p(add_p(count, Literal(dtype.type(0.5))), Literal(dtype.type(2.0**-width)))


def _to_float(count: Any, dtype: np.dtype) -> Any:
    """Words below half their range as floats: by int32, as there is no vector conversion of uint32 before AVX-512."""
    return cast(cast(count, _INT32) if dtype.itemsize == 4 else count, dtype)


def _exponential(k0: Any, k1: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """``-log(1 - u)``, to the last digits where u is small: times u over 1 - w, w being 1 - u rounded (Kahan)."""
    u, one = _open(k0, k1, shape, dtype), Literal(dtype.type(1))
    w = sub_p(one, u)
    rounded = sub_p(one, w)
    tiny = eq_p(rounded, Literal(dtype.type(0)))
    return select_p(tiny, u, neg_p(mul_p(plain_log_p(w), div_p(u, select_p(tiny, one, rounded)))))


def _below_one(dtype: np.dtype) -> Literal:
    return Literal(np.nextafter(dtype.type(1), dtype.type(0)))


def _like(word: Any, value: int) -> Literal:
    return Literal(aval(word).dtype.type(value))


def _fits(op: str, shape: tuple[int, ...], out: Any, **arguments: Any) -> None:
    if shape_of(out) != shape:
        got = ", ".join(f"{name} {aval(operand(v))}" for name, v in arguments.items())
        raise ShapeError(
            f"{op}: shape {list(shape)} does not hold {got}", hint=f"shape={shape_of(out)}", at=user_line()
        )
