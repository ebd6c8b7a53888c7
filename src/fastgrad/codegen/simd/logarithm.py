"""log, log1p, log2, log10: the exponent, and log(1 + f) by the series of atanh.

As in fdlibm (Sun Microsystems, 1993): log(1 + f) = f - (f^2/2 - s (f^2/2 + R(s^2))), s = f / (2 + f). R is a near-minimax
fit, made with mpmath at 50 digits.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from llvmlite import ir

from . import vec
from .formats import LN2, LN10, format_of, parts, split, split_normal

# (2 atanh(s)/s - 2) / s^2  in s^2, for |s| <= (sqrt(2)-1)/(sqrt(2)+1)
_TAIL32 = (0.6666668653488159, 0.3998878002166748, 0.29579949378967285)
_TAIL64 = (
    0.666666666666667,
    0.39999999999899505,
    0.28571428625975487,
    0.2222221113479508,
    0.18182889125261723,
    0.15331721600556042,
    0.14616449685043406,
)


def _parts(b: ir.IRBuilder, f: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """f^2/2, s and f^2/2 + R."""
    t = f.type
    s = vec.div(b, f, vec.add(b, f, vec.const(t, 2.0)))
    z = vec.mul(b, s, s)
    half_square = vec.mul(b, vec.mul(b, f, f), vec.const(t, 0.5))
    tail = vec.horner(b, z, _TAIL32 if vec.width(t) == 32 else _TAIL64)
    return half_square, s, vec.fma(b, z, tail, half_square)


def _log_of(b: ir.IRBuilder, k: ir.Value, f: ir.Value, extra: ir.Value | None = None) -> ir.Value:
    """k log(2) + log(1 + f) + extra."""
    t, fmt = f.type, format_of(f.type)
    half_square, s, inner = _parts(b, f)
    low = vec.mul(b, k, vec.const(t, fmt.ln2_low))
    if extra is not None:
        low = vec.add(b, low, extra)
    rest = vec.sub(b, f, vec.sub(b, half_square, vec.fma(b, s, inner, low)))
    return vec.fma(b, k, vec.const(t, fmt.ln2_high), rest)


def _specials(b: ir.IRBuilder, argument: ir.Value, y: ir.Value) -> ir.Value:
    """y, but -inf where the argument is 0, inf where it is inf, NaN where it is negative or NaN."""
    t = y.type
    zero, infinity = vec.const(t, 0.0), vec.const(t, np.inf)
    pole = b.select(vec.compare(b, "==", argument, zero), vec.const(t, -np.inf), vec.const(t, np.nan))
    y = b.select(vec.compare(b, "<", argument, infinity), y, argument)
    return b.select(vec.compare(b, ">", argument, zero), y, pole)


def log(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Natural logarithm."""
    k, m = split(b, x)
    return _specials(b, x, _log_of(b, k, vec.sub(b, m, vec.const(x.type, 1.0))))


def log1p(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """log(u) + (x - (u - 1)) / u, u = 1 + x rounded, as fdlibm's s_log1p.c; where k = 0, f is x itself."""
    t = x.type
    one, zero = vec.const(t, 1.0), vec.const(t, 0.0)
    u = vec.add(b, x, one)
    k, m = split_normal(b, u)
    unscaled = vec.compare(b, "==", k, zero)
    f = b.select(unscaled, x, vec.sub(b, m, one))
    lost = vec.div(b, vec.sub(b, x, vec.sub(b, u, one)), u)
    y = _specials(b, u, _log_of(b, k, f, b.select(unscaled, zero, lost)))
    return vec.intrinsic(b, "copysign", y, x)


def log2(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Logarithm to base 2, exact at powers of two."""
    k, m = split(b, x)
    return _specials(b, x, _based(b, m, 1 / LN2, k, None))


def log10(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Logarithm to base 10."""
    k, m = split(b, x)
    c, low = parts(x.type, LN2 / LN10, 2)
    high = vec.mul(b, k, vec.const(x.type, c))
    rest = vec.fma(b, k, vec.const(x.type, c), b.fneg(high))
    return _specials(b, x, _based(b, m, 1 / LN10, high, vec.fma(b, k, vec.const(x.type, low), rest)))


def _based(b: ir.IRBuilder, m: ir.Value, factor: Fraction, whole: ir.Value, low: ir.Value | None) -> ir.Value:
    """whole + low + factor log(m), the logarithm and its product with the factor in two floats each."""
    t = m.type
    f = vec.sub(b, m, vec.const(t, 1.0))
    half_square, s, inner = _parts(b, f)
    high = vec.sub(b, f, half_square)
    rest = vec.fma(b, s, inner, vec.sub(b, vec.sub(b, f, high), half_square))
    c, c_low = (vec.const(t, part) for part in parts(t, factor, 2))
    product = vec.mul(b, high, c)
    rest = vec.fma(b, rest, c, vec.fma(b, high, c_low, vec.fma(b, high, c, b.fneg(product))))
    if low is not None:
        rest = vec.add(b, rest, low)
    total = vec.add(b, whole, product)  # whole is 0 or the larger one
    return vec.add(b, total, vec.add(b, vec.add(b, vec.sub(b, whole, total), product), rest))
