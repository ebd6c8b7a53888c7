"""Functions by tables that lie in registers, where vectors fill AVX-512's: no division, hardly a special case.

All in float32; in float64, whose registers hold half as many numbers, the exponentials and the inverse root.

A permutation of one or two registers looks up 16 or 32 numbers a lane as fast as a multiply-add (P. T. P. Tang,
"Table-driven implementation of the exponential function in IEEE floating-point arithmetic", ACM TOMS 15, 1989, has the
reductions). What the general forms select for zero, subnormal, infinite and NaN arguments, the instructions that take floats
apart and put them together do by themselves. The tables are in `tables`.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import isqrt
from typing import NamedTuple

import numpy as np
from llvmlite import ir

from . import avx512, error_function, exponential, pairs, tables, vec
from .formats import LN2, LN10, bit_pattern, format_of, parts

_MANTISSA = 23  # of float32
_LOG2_E = 1.4426950408889634
_ROOTS = [Fraction(isqrt(isqrt(isqrt(isqrt(1 << (16 * 96 + j))))), 1 << 96) for j in range(16)]
"""2**(j/16), to 96 bits."""
_EXP = {
    32: (1.0, 0.5000162124633789, 0.16667036712169647),
    64: (
        1.0,
        0.5000000000000001,
        0.16666666664208724,
        0.04166666666359425,
        0.008333473002881155,
        0.001388906347556763,
    ),
}
"""(e**r - 1) / r  for |r| <= log(2)/32."""
_EXP2 = {
    32: (0.6931471824645996, 0.24023428559303284, 0.055503010749816895),
    64: (
        0.6931471805599453,
        0.24022650695910075,
        0.0555041086566393,
        0.009618129106919537,
        0.0013333781576784268,
        0.00015403723980749256,
    ),
}
"""(2**r - 1) / r  for |r| <= 1/32."""


class _Base(NamedTuple):
    """A logarithm: tables of 1/c, and of -log(1/c) in units of 2**-bits, near which the c were chosen; its log(2) in two
    parts, of which the first times any exponent is exact; its series in r, for -1/60 <= r <= 1/32."""

    inverses: Sequence[float]
    parts: Sequence[int]
    bits: int
    two: Fraction
    first: float
    others: tuple[float, ...]


_LOG = _Base(
    tables.LOG_INVERSES,
    tables.LOG_PARTS,
    17,
    LN2,
    1.0,
    (-0.5000012516975403, 0.3333743214607239, -0.24421600997447968),
)
_LOG2 = _Base(
    tables.LOG2_INVERSES,
    tables.LOG2_PARTS,
    16,
    Fraction(1),
    1.4426950216293335,
    (-0.7213480472564697, 0.4810185432434082, -0.35520032048225403),
)
_LOG10 = _Base(
    tables.LOG10_INVERSES,
    tables.LOG10_PARTS,
    18,
    LN2 / LN10,
    0.4342944920063019,
    (-0.21714727580547333, 0.1447441726922989, -0.10587861388921738),
)


# Exponentials: x = n log(2) + r, n in sixteenths, e**x = 2**floor(n) (2**(j/16) e**r), j the sixteenths.


def _sixteenths(b: ir.IRBuilder, x: ir.Value, factor: float = 1.0) -> tuple[ir.Value, ir.Value]:
    """x * factor rounded to sixteenths; their number in the low bits of an integer."""
    t = x.type
    rounder = vec.const(t, format_of(t).rounder / 16)
    moved = vec.add(b, x, rounder) if factor == 1.0 else vec.fma(b, x, vec.const(t, factor), rounder)
    return vec.sub(b, moved, rounder), vec.to_bits(b, moved)


def _roots(b: ir.IRBuilder, j: ir.Value, t: ir.Type) -> tuple[ir.Value, ir.Value]:
    """2**(j/16) in two floats, of the low four bits of ``j``."""
    both = zip(*(parts(t, root, 2) for root in _ROOTS), strict=True)
    high, low = (avx512.look_up(b, table, j) for table in both)
    return high, low


def _powers(b: ir.IRBuilder, j: ir.Value, r: ir.Value, series: tuple[float, ...]) -> ir.Value:
    """2**(j/16) (1 + r q). What the table's root lacks goes in beside r, as q is nearly 1."""
    root, low = _roots(b, j, r.type)
    return vec.fma(b, vec.fma(b, root, r, low), vec.horner(b, r, series), root)


def _less_log2(b: ir.IRBuilder, n: ir.Value, x: ir.Value) -> ir.Value:
    """x - n log(2)."""
    t, fmt = x.type, format_of(x.type)
    return vec.fma(b, n, vec.const(t, -fmt.ln2_low), vec.fma(b, n, vec.const(t, -fmt.ln2_high), x))


def exp(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """e**x. Infinite x make n infinite, and NaN makes it NaN; r is held finite, and the rest is the scaling's."""
    n, j = _sixteenths(b, x, _LOG2_E)
    r = avx512.clamp(b, _less_log2(b, n, x), 0.03)
    return avx512.scale(b, _powers(b, j, r, _EXP[vec.width(x.type)]), n)


def exp2(b: ir.IRBuilder, x: ir.Value, rest: ir.Value | None = None) -> ir.Value:
    """2**x, exact where x is whole; or 2**(x + rest)."""
    n, j = _sixteenths(b, x)
    r = vec.sub(b, x, n)
    r = avx512.clamp(b, r if rest is None else vec.add(b, r, rest), 0.04)
    return avx512.scale(b, _powers(b, j, r, _EXP2[vec.width(x.type)]), n)


def sigmoid(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """1 / (1 + e**-x)."""
    return exponential.sigmoid(b, x, exp)


# Logarithms: x = 2**k m, m of [3/4, 3/2); log(x) = k log(2) - log(1/c) + log(1 + r), r = m/c - 1, and c = 1 around 1.


def reduced(b: ir.IRBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """k, m and the number of m's interval in the tables. k is -inf for 0, inf for inf, and m NaN below 0."""
    m = avx512.mantissa(b, x, around_one=True)
    k = vec.sub(b, avx512.exponent(b, x), avx512.exponent(b, m))
    bits = vec.to_bits(b, m)
    return k, m, b.lshr(bits, vec.const(bits.type, _MANTISSA - 5))


def _logarithm(b: ir.IRBuilder, base: _Base, k: ir.Value, index: ir.Value, r: ir.Value) -> ir.Value:
    t, unit = r.type, 2**base.bits
    part = avx512.look_up(b, [n / unit for n in base.parts], index)
    square = vec.mul(b, r, r)
    series = vec.horner(b, r, base.others)
    if base.first == 1.0:
        tail = vec.fma(b, square, series, r)
    else:
        tail = vec.fma(b, r, vec.const(t, base.first), vec.mul(b, square, series))
    if base.two == 1:
        return vec.add(b, vec.add(b, k, part), tail)
    high = Fraction(int(base.two * unit), unit)
    whole = vec.fma(b, k, vec.const(t, float(high)), part)  # exact
    return vec.add(b, whole, vec.fma(b, k, vec.const(t, float(base.two - high)), tail))


def _log(b: ir.IRBuilder, x: ir.Value, base: _Base) -> ir.Value:
    k, m, index = reduced(b, x)
    r = vec.fma(b, m, avx512.look_up(b, base.inverses, index), vec.const(x.type, -1.0))
    return _logarithm(b, base, k, index, r)


def log(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Natural logarithm."""
    return _log(b, x, _LOG)


def log2(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Logarithm to base 2, exact at powers of two."""
    return _log(b, x, _LOG2)


def log10(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Logarithm to base 10."""
    return _log(b, x, _LOG10)


def log1p(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """log(1 + x): k and c are those of 1 + x rounded, r = 2**-k x/c + (2**-k/c - 1) of x itself."""
    one = vec.const(x.type, 1.0)
    k, _, index = reduced(b, vec.add(b, x, one))
    inverse, down = avx512.look_up(b, _LOG.inverses, index), b.fneg(k)
    rest = vec.fma(b, avx512.scale(b, one, down), inverse, b.fneg(one))  # exact where k = 0
    r = vec.fma(b, avx512.scale(b, x, down), inverse, rest)
    y = _logarithm(b, _LOG, k, index, avx512.clamp(b, r, 0.04))
    return vec.intrinsic(b, "copysign", y, x)


# Polynomials of r = t - c on each of 32 intervals of t >= 0, eight to a power of two of t + bias. The first begins at 0.


def intervals(
    b: ir.IRBuilder, t: ir.Value, rows: Sequence[Sequence[float]], bias: float
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """r, the first coefficient, and the polynomial of the others; ``rows`` hold c, then the coefficients."""
    bits = vec.to_bits(b, vec.add(b, t, vec.const(t.type, bias)))
    index = b.lshr(bits, vec.const(bits.type, _MANTISSA - 3))
    start = bit_pattern(vec.element(t.type), bias) >> (_MANTISSA - 3)
    centre, first, *others = (placed(column, start) for column in zip(*rows, strict=True))
    r = vec.sub(b, t, avx512.look_up(b, centre, index))
    y = avx512.look_up(b, others[-1], index)
    for column in reversed(others[:-1]):
        y = vec.fma(b, y, r, avx512.look_up(b, column, index))
    return r, avx512.look_up(b, first, index), y


def placed(numbers: Sequence[float], start: int) -> list[float]:
    """A table of 32 whose entry ``(start + k) % 32`` is ``numbers[k]``."""
    table = [0.0] * 32
    for k, number in enumerate(numbers):
        table[(start + k) % 32] = number
    return table


def tanh(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """The hyperbolic tangent."""
    magnitude = vec.at_most(b, vec.intrinsic(b, "fabs", x), 9.3)
    r, first, others = intervals(b, magnitude, tables.TANH, 21 / 32)
    return vec.intrinsic(b, "copysign", vec.fma(b, others, r, first), x)


def erf(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """The error function 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x; its slope at 0, no float, in two parts."""
    magnitude = vec.at_most(b, vec.intrinsic(b, "fabs", x), 4.1)
    r, first, others = intervals(b, magnitude, tables.ERF, 11 / 32)
    return vec.intrinsic(b, "copysign", vec.fma(b, others, r, vec.add(b, first, r)), x)


def _times_exp(
    b: ir.IRBuilder, t: ir.Value, rows: Sequence[Sequence[float]], exponent: pairs.Pair
) -> ir.Value:
    """The function in the table times e**exponent, all in two floats each until the end: the result is rounded once."""
    r, first, others = intervals(b, t, rows, 1.0)
    value = vec.fma(b, others, r, first)
    value_low = vec.fma(b, others, r, vec.sub(b, first, value))
    n, j = _sixteenths(b, exponent[0], _LOG2_E)
    r = vec.add(b, _less_log2(b, n, exponent[0]), exponent[1])
    less = vec.mul(b, r, vec.horner(b, r, _EXP[32]))  # e**r - 1
    root, root_low = _roots(b, j, t.type)
    high = vec.mul(b, value, root)
    low = vec.fma(b, value, root, b.fneg(high))
    low = vec.fma(b, value, root_low, vec.fma(b, value_low, root, low))
    return avx512.scale(b, vec.add(b, high, vec.fma(b, high, less, low)), n)


def _tail(b: ir.IRBuilder, t: ir.Value, rows: Sequence[Sequence[float]]) -> ir.Value:
    """exp(-t^2/2) times the function in the table."""
    half = vec.const(t.type, -0.5)
    high, low = pairs.square(b, t)
    return _times_exp(b, t, rows, (vec.mul(b, high, half), vec.mul(b, low, half)))


def ndtr(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """The normal distribution function: T(-x) left of 0, 1 - T(x) right of it."""
    return error_function.ndtr(b, x, lambda b, t: _tail(b, t, tables.NDTR))


def gelu(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """x ndtr(x): -|x| T(|x|) left of 0, x - x T(x) right of it."""
    magnitude = vec.at_most(b, vec.intrinsic(b, "fabs", x), error_function.TAIL_LIMIT32)
    return error_function.less(b, x, _tail(b, magnitude, tables.GELU))


def gelu_tanh(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """x sigmoid(w): -|x| e / (1 + e) left of 0, x more right of it, e = exp(-|w|)."""
    magnitude = vec.at_most(b, vec.intrinsic(b, "fabs", x), error_function.GELU_LIMIT32)
    high, low = error_function.tanh_argument(b, magnitude)
    lost = _times_exp(b, magnitude, tables.GELU_TANH, (b.fneg(high), b.fneg(low)))
    return error_function.less(b, x, lost)


# Roots.

_CUBE_ROOT = (0.33333322405815125, -0.11111092567443848, 0.061857856810092926, -0.041287343949079514)
"""((1 + r)**(1/3) - 1) / r  for |r| <= 1/17."""
_EIGHTHS = tuple(float(np.float32(16 / (17 + 2 * k))) for k in range(8))
_CUBE_ROOTS = tuple(float(np.float32((2.0**j / c) ** (1 / 3))) for j in range(3) for c in _EIGHTHS)


def cbrt(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """2**q (2**j c)**(1/3) (1 + r)**(1/3) of |x| = 2**(3q + j) m, m = c (1 + r) of [1, 2), j of 0, 1, 2."""
    t = x.type
    third, rounder, eighths = (vec.const(t, v) for v in (1 / 3, 1.5 * 2.0**_MANTISSA, 2.0 ** (_MANTISSA - 3)))
    k, m = avx512.exponent(b, x), avx512.mantissa(b, x)
    moved = vec.fma(
        b, vec.sub(b, k, vec.const(t, 1.0)), third, rounder
    )  # k/3 - 1/3 rounded is k/3 rounded down
    q = vec.sub(b, moved, rounder)
    j = vec.to_bits(
        b, vec.fma(b, q, vec.const(t, -3.0), vec.add(b, k, eighths))
    )  # in eighths: its low bits are 8 j
    top = b.lshr(vec.to_bits(b, m), vec.const(j.type, _MANTISSA - 3))
    index = b.add(top, j)
    start = bit_pattern(vec.element(t), 1.0) >> (_MANTISSA - 3)
    inverse = avx512.look_up(b, _EIGHTHS * 2, index)
    root = avx512.look_up(b, placed(_CUBE_ROOTS, start), index)
    r = vec.fma(b, m, inverse, vec.const(t, -1.0))
    y = vec.fma(b, vec.mul(b, root, r), vec.horner(b, r, _CUBE_ROOT), root)
    return vec.intrinsic(b, "copysign", avx512.scale(b, y, q), x)


def rsqrt(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """The machine's estimate a, made better; where it is 0, inf or NaN it stays."""
    estimate = y = avx512.root_estimate(b, x)
    left = first = _left(b, x, y)
    if vec.width(x.type) == 64:  # 14 bits to 39
        correction = vec.fma(b, left, vec.const(x.type, 0.375), vec.const(x.type, 0.5))
        y = vec.fma(b, vec.mul(b, y, left), correction, y)
        left = _left(b, x, y)
    y = vec.fma(b, vec.mul(b, y, left), vec.const(x.type, 0.5), y)
    return b.select(vec.compare(b, "!=", first, first), estimate, y)


def _left(b: ir.IRBuilder, x: ir.Value, root: ir.Value) -> ir.Value:
    """1 - x root^2."""
    return vec.fma(b, b.fneg(vec.mul(b, x, root)), root, vec.const(x.type, 1.0))


_BOTH = {"exp": exp, "exp2": exp2, "sigmoid": sigmoid, "rsqrt": rsqrt}
UNARY = {
    32: {
        **_BOTH,
        "tanh": tanh,
        "log": log,
        "log2": log2,
        "log10": log10,
        "log1p": log1p,
        "erf": erf,
        "ndtr": ndtr,
        "gelu": gelu,
        "gelu_tanh": gelu_tanh,
        "cbrt": cbrt,
    },
    64: _BOTH,
}
"""The functions by bits of the float and name."""
