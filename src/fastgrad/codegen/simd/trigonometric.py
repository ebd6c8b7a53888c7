"""sin, cos: x - n pi, and one odd polynomial on [-pi/2, pi/2].

Up to a bound, n pi is subtracted in three parts with fused multiply-adds (W. J. Cody and W. Waite, "Software Manual for the
Elementary Functions", 1980): the first difference is exact, the others lose what pi has beyond three parts. Beyond it, a
function that few arguments call multiplies by as many bits of 1/pi as matter, in integers (M. Payne and R. Hanek, "Radian
reduction for trigonometric functions", SIGNUM 18, 1983), and continues in float64 for both formats.

The cosine is the sine a quarter turn on: n is then an odd multiple of 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from llvmlite import ir

from . import variants, vec
from .formats import PI, nearest, parts


@dataclass(frozen=True)
class _Fit:
    bound: float  # above: Payne and Hanek
    tail: tuple[float, ...]  # (sin(r) - r) / r^3  in r^2, for |r| <= pi/2 and a little more


_F32 = _Fit(
    bound=2.0**17,
    tail=(
        -0.1666666716337204,
        0.008333347737789154,
        -0.00019842600158881396,
        2.759964900178602e-06,
        -2.50166891646586e-08,
    ),
)
_F64 = _Fit(
    bound=2.0**40,
    tail=(
        -0.16666666666666666,
        0.008333333333333243,
        -0.00019841269841236854,
        2.755731921784864e-06,
        -2.50521077319976e-08,
        1.6059002298599933e-10,
        -7.645601738514053e-13,
        2.7792311215849653e-15,
        -5.3417463383037786e-18,
    ),
)


def _fit(t: ir.Type) -> _Fit:
    return _F32 if vec.width(t) == 32 else _F64


def sin(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """The sine of radians; NaN for infinities."""
    return variants.call(b, "sin", lambda b, x: _reduced(b, x, quarter=False), x)


def cos(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """The cosine of radians; NaN for infinities."""
    return variants.call(b, "cos", lambda b, x: _reduced(b, x, quarter=True), x)


def _reduced(b: ir.IRBuilder, x: ir.Value, quarter: bool) -> ir.Value:
    """sin(x), or cos(x) with ``quarter``."""
    t, fit = x.type, _fit(x.type)
    if quarter:
        turns = vec.fma(b, x, vec.const(t, float(1 / PI)), vec.const(t, -0.5))
        n, moved = nearest(b, turns)
        n = vec.add(b, n, vec.const(t, 0.5))
    else:
        n, moved = nearest(b, x, float(1 / PI))
    r = x
    for part in parts(t, PI, 3, cut=True):  # a negative part would make 0.0 of -0.0
        r = vec.fma(b, n, vec.const(t, -part), r)
    odd = vec.to_bits(b, moved)
    if quarter:  # cos(r + (k + 1/2) pi) = (-1)**(k + 1) sin(r)
        odd = b.xor(odd, vec.const(odd.type, 1))
    y = _signed(b, _sine(b, r), odd)
    far = vec.compare(b, ">=", vec.intrinsic(b, "fabs", x), vec.const(t, fit.bound))
    return variants.rare(b, far, y, x, lambda b, x: _far(b, x, quarter))


def _sine(b: ir.IRBuilder, r: ir.Value) -> ir.Value:
    """sin(r) for |r| <= pi/2, of the sign of r."""
    z = vec.mul(b, r, r)
    y = vec.fma(b, vec.mul(b, r, z), vec.horner(b, z, _fit(r.type).tail), r)
    return vec.intrinsic(b, "copysign", y, r)


def _signed(b: ir.IRBuilder, y: ir.Value, odd: ir.Value) -> ir.Value:
    """y, its sign changed where the integer is odd."""
    sign = b.shl(odd, vec.const(odd.type, vec.width(y.type) - 1))
    return vec.from_bits(b, b.xor(vec.to_bits(b, y), sign))


# --- Payne and Hanek ------------------------------------------------------------------------------------------------

_BITS, _WINDOW = 1184, 192
"""Bits of 1/pi in the table; bits of a product x / pi that are kept: 1 before the point."""
_LONG, _WIDE = ir.IntType(_WINDOW), ir.IntType(256)
I64 = ir.IntType(64)


def _far(b: ir.IRBuilder, x: ir.Value, quarter: bool) -> ir.Value:
    """sin or cos of one float of any size, by a function of its own."""
    t, name = x.type, "cos" if quarter else "sin"

    def build(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
        magnitude = vec.intrinsic(b, "fabs", x)
        wide = magnitude if t == vec.F64 else b.fpext(magnitude, vec.F64)
        r, odd = _payne_hanek(b, wide, quarter)
        y = _sine(b, r if t == vec.F64 else b.fptrunc(r, t))
        y = _signed(b, y, odd if vec.width(t) == 64 else b.trunc(odd, ir.IntType(32)))
        if not quarter:
            y = b.select(vec.compare(b, "<", x, vec.const(t, 0.0)), b.fneg(y), y)
        finite = vec.compare(b, "<", magnitude, vec.const(t, np.inf))
        return b.select(finite, y, vec.const(t, np.nan))

    return b.call(variants.define(b.module, f"fastgrad.{name}.far.{vec.suffix(t)}", t, [t], build), [x])


def _payne_hanek(b: ir.IRBuilder, x: ir.Value, quarter: bool) -> tuple[ir.Value, ir.Value]:
    """For a double x >= 2**17: r = x (+ pi/2) - n pi in [-pi/2, pi/2] as a double, and an integer as odd as n."""
    bits = vec.to_bits(b, x)
    fraction = b.or_(b.and_(bits, I64((1 << 52) - 1)), I64(1 << 52))
    # x = m 2**e; x / pi modulo 2 is m times bits -e to _WINDOW - 1 - e behind the point of 1/pi.
    e = b.sub(b.lshr(bits, I64(52)), I64(1075))
    offset = b.sub(I64(_BITS - _WINDOW + 1), e)
    pointer = b.gep(_reciprocal_pi(b.module), [I64(0), b.lshr(offset, I64(3))], inbounds=True)
    window = b.load(b.bitcast(pointer, _WIDE.as_pointer()), align=1)
    window = b.trunc(b.lshr(window, b.zext(b.and_(offset, I64(7)), _WIDE)), _LONG)
    product = b.mul(window, b.zext(fraction, _LONG))
    half = _LONG(1 << (_WINDOW - 2))
    if quarter:
        product = b.add(product, half)
    odd = b.trunc(b.lshr(b.add(product, half), _LONG(_WINDOW - 1)), I64)
    part = b.shl(product, _LONG(1))  # signed, the point before the first bit
    high = b.trunc(b.lshr(part, _LONG(128)), I64)
    following = b.trunc(b.lshr(part, _LONG(64)), I64)
    # As many bits as two doubles hold: the first 53, and the 63 after.
    first = b.sitofp(b.and_(high, I64(-2048)), vec.F64)
    rest = b.or_(b.shl(b.and_(high, I64(2047)), I64(52)), b.lshr(following, I64(12)))
    second = vec.mul(b, b.sitofp(rest, vec.F64), vec.const(vec.F64, 2.0**-52))
    f = vec.add(b, first, second)
    f_low = vec.sub(b, second, vec.sub(b, f, first))
    pi, pi_low = (vec.const(vec.F64, part) for part in parts(vec.F64, PI, 2))
    r = vec.mul(b, f, pi)
    low = vec.fma(b, f, pi_low, vec.fma(b, f_low, pi, vec.fma(b, f, pi, b.fneg(r))))
    return vec.mul(b, vec.add(b, r, low), vec.const(vec.F64, 2.0**-64)), odd


def _reciprocal_pi(module: ir.Module) -> ir.GlobalVariable:
    """The bytes of floor(2**_BITS / pi), little end first, and zeros behind them."""
    name = "fastgrad.reciprocal_pi"
    found = module.globals.get(name)
    if found is None:
        data = bytearray(_reciprocal_pi_bits().to_bytes(_BITS // 8 + 40, "little"))
        kind = ir.ArrayType(ir.IntType(8), len(data))
        found = ir.GlobalVariable(module, kind, name)
        found.linkage, found.global_constant = "internal", True
        found.initializer = ir.Constant(kind, data)
    return found


@cache
def _reciprocal_pi_bits() -> int:
    """floor(2**_BITS / pi), pi by Machin's formula: pi/4 = 4 arctan(1/5) - arctan(1/239)."""
    one = 1 << 2 * _BITS
    pi = 4 * (4 * _arctan(5, one) - _arctan(239, one))
    return (one << _BITS) // pi


def _arctan(n: int, one: int) -> int:
    """arctan(1/n) in units of 1/one, by Gregory's series."""
    term, total, k = one // n, 0, 1
    while term:
        total += term // k if k % 4 == 1 else -(term // k)
        term //= n * n
        k += 2
    return total
