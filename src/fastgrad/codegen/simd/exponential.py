"""exp, exp2, expm1, tanh, sigmoid: an integer power of two times a polynomial on a short interval.

W. J. Cody and W. Waite, "Software Manual for the Elementary Functions", 1980: x = n log(2) + r, exp(x) = 2**n exp(r). The
polynomials are near-minimax fits, made with mpmath at 50 digits and rounded to the dtype; the comments say of what.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from . import vec
from .formats import format_of, nearest, power_of_two, scale, to_integer


@dataclass(frozen=True)
class _Fit:
    range: tuple[float, float]  # exp, below: rounds to 0, above: overflows
    range2: tuple[float, float]  # exp2, likewise
    expm1_floor: float  # below: expm1 rounds to -1
    tanh_limit: float  # above: tanh rounds to 1
    tail: tuple[float, ...]  # (exp(r) - 1 - r) / r^2  for |r| <= log(2)/2
    tail2: tuple[float, ...]  # (2**r - 1) / r  for |r| <= 1/2
    tanh_p: tuple[
        float, ...
    ]  # P/Q = (tanh(x)/x - 1) / x^2  in x^2, for |x| <= 9/16, by rational interpolation
    tanh_q: tuple[float, ...]


_F32 = _Fit(
    range=(-104.0, 89.0),
    range2=(-151.0, 129.0),
    expm1_floor=-18.0,
    tanh_limit=10.0,
    tail=(0.5, 0.16666573286056519, 0.04166654869914055, 0.008363774046301842, 0.0013926926767453551),
    tail2=(
        0.6931471824645996,
        0.24022650718688965,
        0.05550365895032883,
        0.009618083015084267,
        0.0013388069346547127,
        0.00015453876403626055,
    ),
    tanh_p=(-0.3333333134651184, -0.0015578491147607565),
    tanh_q=(1.0, 0.4046693444252014),
)
_F64 = _Fit(
    range=(-746.0, 710.0),
    range2=(-1076.0, 1025.0),
    expm1_floor=-38.0,
    tanh_limit=20.0,
    tail=(
        0.5000000000000001,
        0.16666666666666669,
        0.04166666666662413,
        0.008333333333330062,
        0.0013888888917213717,
        0.00019841269863053618,
        2.4801521295954376e-05,
        2.7557268459997064e-06,
        2.7620088445409746e-07,
        2.510038549551032e-08,
    ),
    tail2=(
        0.6931471805599453,
        0.24022650695910072,
        0.05550410866482367,
        0.009618129107627948,
        0.0013333558145993411,
        0.00015403530394342198,
        1.5252734219274008e-05,
        1.3215486032104153e-06,
        1.0177905984791124e-07,
        7.055179525324102e-09,
        4.477798133335308e-10,
        2.5347448666527557e-11,
    ),
    tanh_p=(-0.3333333333333333, -0.020501465565699636, -0.00019929618499594005),
    tanh_q=(1.0, 0.4615043966970977, 0.0232948853291102, 0.0002066602742421401),
)


def _fit(t: ir.Type) -> _Fit:
    return _F32 if vec.width(t) == 32 else _F64


def reduce_exp(
    b: ir.IRBuilder, x: ir.Value, low: ir.Value | None = None
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """x + low = n log(2) + r: the integer n, r, exp(r) - 1 - r. A NaN goes into r; n is then any number.

    With ``low`` what r loses by its rounding is in the last.
    """
    t, fmt = x.type, format_of(x.type)
    n, moved = nearest(b, x, 1.4426950408889634)
    head = vec.fma(b, n, vec.const(t, -fmt.ln2_high), x)
    ln2_low = vec.const(t, -fmt.ln2_low)
    if low is None:
        r = vec.fma(b, n, ln2_low, head)
    else:
        rest = vec.fma(b, n, ln2_low, low)
        r = vec.add(b, head, rest)
    tail = vec.mul(b, vec.mul(b, r, r), vec.horner(b, r, _fit(t).tail))
    if low is not None:
        tail = vec.add(b, tail, vec.sub(b, rest, vec.sub(b, r, head)))
    return to_integer(b, moved), r, tail


def exp(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """e**x."""
    low, high = _fit(x.type).range
    n, r, tail = reduce_exp(b, vec.at_least(b, vec.at_most(b, x, high), low))
    return scale(b, vec.add(b, vec.add(b, tail, r), vec.const(x.type, 1.0)), n)


def exp2(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """2**x, exact where x is whole."""
    low, high = _fit(x.type).range2
    x = vec.at_least(b, vec.at_most(b, x, high), low)
    n, moved = nearest(b, x)
    return scale(b, exp2_fraction(b, vec.sub(b, x, n)), to_integer(b, moved))


def exp2_fraction(b: ir.IRBuilder, r: ir.Value) -> ir.Value:
    """2**r for |r| <= 1/2."""
    return vec.fma(b, r, vec.horner(b, r, _fit(r.type).tail2), vec.const(r.type, 1.0))


def expm1(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """e**x - 1 as 2 (h r + (h - 1/2) + h tail), h = 2**(n-1): halved, lest it overflow too early."""
    fmt, fit = format_of(x.type), _fit(x.type)
    n, r, tail = reduce_exp(b, vec.at_least(b, vec.at_most(b, x, fit.range[1]), fit.expm1_floor))
    h = power_of_two(b, b.sub(n, vec.const(n.type, 1)))
    y = vec.fma(b, h, tail, vec.fma(b, h, r, vec.sub(b, h, vec.const(x.type, 0.5))))
    tiny = vec.compare(b, "<", vec.intrinsic(b, "fabs", x), vec.const(x.type, 2.0 ** -(fmt.mantissa + 2)))
    return b.select(tiny, x, vec.mul(b, y, vec.const(x.type, 2.0)))  # a subnormal x has no half


def tanh(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """x + x^3 P/Q below 9/16, 1 - 2e / (1 + e) with e = exp(-2 |x|) above: Cephes' split, one division."""
    t, fit = x.type, _fit(x.type)
    one = vec.const(t, 1.0)
    magnitude = vec.at_most(b, vec.intrinsic(b, "fabs", x), fit.tanh_limit)
    n, r, tail = reduce_exp(b, vec.mul(b, magnitude, vec.const(t, -2.0)))
    power = power_of_two(b, n)
    e = vec.fma(b, power, vec.add(b, tail, r), power)
    z = vec.mul(b, magnitude, magnitude)
    cubic = vec.mul(b, vec.mul(b, z, magnitude), vec.horner(b, z, fit.tanh_p))
    small = vec.compare(b, "<", magnitude, vec.const(t, 0.5625))
    base = b.select(small, magnitude, one)
    numerator = b.select(small, cubic, vec.mul(b, e, vec.const(t, -2.0)))
    denominator = b.select(small, vec.horner(b, z, fit.tanh_q), vec.add(b, e, one))
    return vec.intrinsic(b, "copysign", vec.add(b, base, vec.div(b, numerator, denominator)), x)


def sigmoid(
    b: ir.IRBuilder, x: ir.Value, exp: Callable[[ir.IRBuilder, ir.Value], ir.Value] = exp
) -> ir.Value:
    """1 - t right of 0, e - e t left of it, with e = exp(-|x|) and t = e / (1 + e): overflow is impossible."""
    e = exp(b, b.fneg(vec.intrinsic(b, "fabs", x)))
    one = vec.const(x.type, 1.0)
    t = vec.div(b, e, vec.add(b, one, e))
    scale = b.select(vec.compare(b, "<", x, vec.const(x.type, 0.0)), e, one)
    return vec.fma(b, b.fneg(scale), t, scale)
