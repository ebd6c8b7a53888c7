"""pow, cbrt, rsqrt.

pow(x, y) = 2**(y log2|x|), the logarithm and its product with y in two floats each (`pairs`), so that the exponent is
known to some 2**-34 (float32) and 2**-65 (float64) of itself.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from . import pairs, vec
from .exponential import exp2_fraction
from .formats import LN2, format_of, nearest, scale, split, to_integer

# (2/log(2)) (atanh(s)/s - 1 - s^2/3) / s^4  in s^2, for |s| <= (sqrt(2)-1)/(sqrt(2)+1)
_LOG2_TAIL32 = (0.577080249786377, 0.41184478998184204, 0.33792760968208313)
_LOG2_TAIL64 = (
    0.577078016355585,
    0.4121985831114025,
    0.32059889790132573,
    0.26230819986001574,
    0.22195219868700758,
    0.19240377271598066,
    0.16840672079705904,
    0.17315684005946982,
)
# m**(-1/3) for m in [sqrt(1/2), sqrt(2)], to 2**-17
_CUBE_ROOT = (
    1.9983761615615376,
    -2.4819539218361393,
    2.784412390615791,
    -1.8905797746857145,
    0.6971344329125073,
    -0.10738562679234334,
)


def _log2(b: ir.IRBuilder, x: ir.Value) -> pairs.Pair:
    """log2(x) of positive finite x."""
    t, zero = x.type, vec.const(x.type, 0.0)
    k, m = split(b, x)
    f = vec.sub(b, m, vec.const(t, 1.0))
    two = vec.const(t, 2.0)
    below = vec.add(b, f, two)
    inverse = pairs.reciprocal(b, (below, vec.sub(b, f, vec.sub(b, below, two))))
    s = pairs.product(b, (f, zero), inverse)
    z = pairs.product(b, s, s)
    tail = vec.horner(b, z[0], _LOG2_TAIL32 if vec.width(t) == 32 else _LOG2_TAIL64)
    higher = pairs.total(b, pairs.constant(t, 2 / (3 * LN2)), (vec.mul(b, z[0], tail), zero))
    series = pairs.total(b, pairs.constant(t, 2 / LN2), pairs.product(b, z, higher))
    return pairs.total(b, (k, zero), pairs.product(b, s, series))


def pow(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """x**y with the special values of C99, §F.9.4.4."""
    t, fmt = x.type, format_of(x.type)
    zero, infinity = (vec.const(t, v) for v in (0.0, np.inf))
    magnitude = vec.intrinsic(b, "fabs", x)
    high, low = _log2(b, magnitude)
    pole = b.select(vec.compare(b, "==", magnitude, zero), vec.const(t, -np.inf), infinity)
    regular = b.and_(vec.compare(b, ">", magnitude, zero), vec.compare(b, "<", magnitude, infinity))
    high = b.select(regular, high, pole)
    limit = float(fmt.bias + fmt.mantissa + 4)
    exponent = vec.mul(b, y, high)
    rest = vec.fma(b, y, low, vec.fma(b, y, high, b.fneg(exponent)))
    near = vec.compare(b, "<", vec.intrinsic(b, "fabs", exponent), vec.const(t, limit))
    rest = b.select(near, rest, zero)
    exponent = vec.at_least(b, vec.at_most(b, exponent, limit), -limit)
    n, moved = nearest(b, exponent)
    result = scale(b, exp2_fraction(b, vec.add(b, vec.sub(b, exponent, n), rest)), to_integer(b, moved))
    return with_specials(b, x, y, magnitude, result)


def with_specials(
    b: ir.IRBuilder, x: ir.Value, y: ir.Value, magnitude: ir.Value, result: ir.Value
) -> ir.Value:
    """The sign of odd whole exponents; NaN for other powers of negative numbers; 1 for x**0, 1**y and (-1)**inf."""
    t = x.type
    zero, one, nan = (vec.const(t, v) for v in (0.0, 1.0, np.nan))
    half = vec.mul(b, y, vec.const(t, 0.5))
    whole = vec.compare(b, "==", vec.intrinsic(b, "rint", y), y)
    even = vec.compare(b, "==", vec.intrinsic(b, "rint", half), half)
    result = b.select(vec.compare(b, "==", magnitude, one), one, result)
    negative = b.and_(b.xor(even, vec.const(even.type, 1)), whole)
    sign = b.select(negative, x, one)
    result = vec.intrinsic(b, "copysign", result, sign)
    below = b.and_(vec.compare(b, "<", x, zero), vec.compare(b, ">", x, vec.const(t, -np.inf)))
    result = b.select(b.and_(below, b.xor(whole, vec.const(whole.type, 1))), nan, result)
    result = b.select(b.fcmp_unordered("uno", x, y), nan, result)
    certain = b.or_(vec.compare(b, "==", x, one), vec.compare(b, "==", y, zero))
    return b.select(certain, one, result)


def cbrt(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """The cube root: a = m**(-1/3) by a polynomial and Newton steps, then m a^2 with its remainder, no division.

    |x| = 8**q m 2**j with j in -1, 0, 1; the polynomial is that of m alone, times 2**(-j/3).
    """
    t = x.type
    magnitude = vec.intrinsic(b, "fabs", x)
    k, m = split(b, magnitude)
    q, moved = nearest(b, k, 1.0 / 3.0)
    j = vec.fma(b, q, vec.const(t, -3.0), k)
    zero, one = vec.const(t, 0.0), vec.const(t, 1.0)
    below, above = vec.compare(b, "<", j, zero), vec.compare(b, ">", j, zero)
    m = vec.mul(b, m, _three_ways(b, below, above, (0.5, 1.0, 2.0), t))
    factor = _three_ways(b, below, above, (2 ** (1 / 3), 1.0, 2 ** (-1 / 3)), t)
    half = _three_ways(b, below, above, (2.0, 1.0, 0.5), t)
    a = vec.mul(b, vec.horner(b, vec.mul(b, m, half), _CUBE_ROOT), factor)
    third = vec.const(t, 1.0 / 3.0)
    for _ in range(0 if vec.width(t) == 32 else 2):
        left = vec.fma(b, vec.mul(b, b.fneg(m), a), vec.mul(b, a, a), one)
        a = vec.fma(b, vec.mul(b, a, third), left, a)
    square = vec.mul(b, a, a)
    y = vec.mul(b, m, square)
    y2 = vec.mul(b, y, y)
    low = vec.fma(b, y, y, b.fneg(y2))
    left = vec.fma(b, b.fneg(y), low, vec.fma(b, b.fneg(y), y2, m))
    y = vec.fma(b, left, vec.mul(b, square, third), y)
    y = vec.intrinsic(b, "copysign", scale(b, y, to_integer(b, moved)), x)
    regular = b.and_(
        vec.compare(b, ">", magnitude, zero), vec.compare(b, "<", magnitude, vec.const(t, np.inf))
    )
    return b.select(regular, y, x)


def _three_ways(
    b: ir.IRBuilder, below: ir.Value, above: ir.Value, values: tuple[float, float, float], t: ir.Type
) -> ir.Value:
    low, middle, high = (vec.const(t, v) for v in values)
    return b.select(below, low, b.select(above, high, middle))


def rsqrt(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """1 / sqrt(x), rounded twice."""
    return vec.div(b, vec.const(x.type, 1.0), vec.intrinsic(b, "sqrt", x))
