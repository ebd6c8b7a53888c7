"""exp, log, tanh, sigmoid, expm1, log1p as LLVM IR: scalar or vector, float32 or float64, at most 2 ulp.

The plan is the textbook one (W. J. Cody and W. Waite, "Software Manual for the Elementary Functions",
1980): reduce the argument to a short interval, a polynomial there, put the exponent back. Selects only, no
branch and no table, so that LLVM vectorises a loop that holds one of these; explicit fma where one rounding
matters; special values as in C99, Annex F. float32 stays in float32.

The polynomials are near-minimax Chebyshev fits, made with ``mpmath.chebyfit`` at 50 digits and rounded to
the dtype; tanh's P/Q is rational interpolation at Chebyshev nodes. The comments in `_Format` say of what.
Beside the IR, ``TWINS`` holds what runs with the JIT off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from llvmlite import ir

from . import vec


@dataclass(frozen=True)
class _Format:
    """What the algorithms need to know of one float format."""

    mantissa: int  # stored bits of the fraction
    bias: int
    rounder: float  # 1.5 * 2**mantissa: adding it leaves an integer in the low bits
    ln2_high: float  # so few bits that n * ln2_high is exact for every exponent n
    ln2_low: float
    exp_range: tuple[float, float]  # below: rounds to 0, above: overflows
    expm1_floor: float  # below: expm1 rounds to -1
    tanh_limit: float  # above: tanh rounds to 1
    exp_tail: tuple[float, ...]  # (exp(r) - 1 - r) / r^2  for |r| <= log(2)/2
    log_tail: tuple[float, ...]  # (2 atanh(s)/s - 2) / s^2  in s^2, for |s| <= (sqrt(2)-1)/(sqrt(2)+1)
    tanh_p: tuple[float, ...]  # P/Q = (tanh(x)/x - 1) / x^2  in x^2, for |x| <= 9/16
    tanh_q: tuple[float, ...]


_F32 = _Format(
    mantissa=23,
    bias=127,
    rounder=1.5 * 2.0**23,
    ln2_high=0.693359375,
    ln2_low=-2.12194440e-4,
    exp_range=(-104.0, 89.0),
    expm1_floor=-18.0,
    tanh_limit=10.0,
    exp_tail=(0.5, 0.16666573286056519, 0.04166654869914055, 0.008363774046301842, 0.0013926926767453551),
    log_tail=(0.6666668653488159, 0.3998878002166748, 0.29579949378967285),
    tanh_p=(-0.3333333134651184, -0.0015578491147607565),
    tanh_q=(1.0, 0.4046693444252014),
)
_F64 = _Format(
    mantissa=52,
    bias=1023,
    rounder=1.5 * 2.0**52,
    ln2_high=6.93147180369123816490e-01,
    ln2_low=1.90821492927058770002e-10,
    exp_range=(-746.0, 710.0),
    expm1_floor=-38.0,
    tanh_limit=20.0,
    exp_tail=(
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
    log_tail=(
        0.666666666666667,
        0.39999999999899505,
        0.28571428625975487,
        0.2222221113479508,
        0.18182889125261723,
        0.15331721600556042,
        0.14616449685043406,
    ),
    tanh_p=(-0.3333333333333333, -0.020501465565699636, -0.00019929618499594005),
    tanh_q=(1.0, 0.4615043966970977, 0.0232948853291102, 0.0002066602742421401),
)


def _format(t: ir.Type) -> _Format:
    """The format of a float type, or of the integers that hold its bits."""
    return _F32 if vec.width(t) == 32 else _F64


def _reduce_exp(b: ir.IRBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """x = n log(2) + r: the integer n, r, exp(r) - 1 - r. A NaN goes into r; n is then any number."""
    t, fmt = x.type, _format(x.type)
    n = vec.intrinsic(b, "rint", vec.mul(b, x, vec.const(t, 1.4426950408889634)))
    r = vec.fma(b, n, vec.const(t, -fmt.ln2_high), x)
    r = vec.fma(b, n, vec.const(t, -fmt.ln2_low), r)
    tail = vec.mul(b, vec.mul(b, r, r), vec.horner(b, r, fmt.exp_tail))
    # Through the bits, not by fptosi: that is poison for NaN, and 64-bit lanes have none before AVX-512.
    rounder = vec.const(t, fmt.rounder)
    return b.sub(vec.to_bits(b, vec.add(b, n, rounder)), vec.to_bits(b, rounder)), r, tail


def _power_of_two(b: ir.IRBuilder, n: ir.Value) -> ir.Value:
    """2.0**n for integers n that are exponents of normal numbers."""
    fmt = _format(n.type)
    return vec.from_bits(b, b.shl(b.add(n, vec.const(n.type, fmt.bias)), vec.const(n.type, fmt.mantissa)))


def exp(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """e**x. The exponent goes on in two factors, so that subnormal results round and overflow gives inf."""
    low, high = _format(x.type).exp_range
    n, r, tail = _reduce_exp(b, vec.at_least(b, vec.at_most(b, x, high), low))
    y = vec.add(b, vec.add(b, tail, r), vec.const(x.type, 1.0))
    half = b.ashr(n, vec.const(n.type, 1))
    return vec.mul(b, vec.mul(b, y, _power_of_two(b, half)), _power_of_two(b, b.sub(n, half)))


def expm1(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """e**x - 1 as 2 (h r + (h - 1/2) + h tail), h = 2**(n-1): halved, lest it overflow too early."""
    fmt = _format(x.type)
    n, r, tail = _reduce_exp(b, vec.at_least(b, vec.at_most(b, x, fmt.exp_range[1]), fmt.expm1_floor))
    h = _power_of_two(b, b.sub(n, vec.const(n.type, 1)))
    y = vec.fma(b, h, tail, vec.fma(b, h, r, vec.sub(b, h, vec.const(x.type, 0.5))))
    tiny = vec.compare(b, "<", vec.intrinsic(b, "fabs", x), vec.const(x.type, 2.0 ** -(fmt.mantissa + 2)))
    return b.select(tiny, x, vec.mul(b, y, vec.const(x.type, 2.0)))  # a subnormal x has no half


def tanh(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """x + x^3 P/Q below 9/16, 1 - 2e / (1 + e) with e = exp(-2 |x|) above: Cephes' split, one division."""
    t, fmt = x.type, _format(x.type)
    one = vec.const(t, 1.0)
    magnitude = vec.at_most(b, vec.intrinsic(b, "fabs", x), fmt.tanh_limit)
    n, r, tail = _reduce_exp(b, vec.mul(b, magnitude, vec.const(t, -2.0)))
    power = _power_of_two(b, n)
    e = vec.fma(b, power, vec.add(b, tail, r), power)
    z = vec.mul(b, magnitude, magnitude)
    cubic = vec.mul(b, vec.mul(b, z, magnitude), vec.horner(b, z, fmt.tanh_p))
    small = vec.compare(b, "<", magnitude, vec.const(t, 0.5625))
    base = b.select(small, magnitude, one)
    numerator = b.select(small, cubic, vec.mul(b, e, vec.const(t, -2.0)))
    denominator = b.select(small, vec.horner(b, z, fmt.tanh_q), vec.add(b, e, one))
    return vec.intrinsic(b, "copysign", vec.add(b, base, vec.div(b, numerator, denominator)), x)


def sigmoid(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """1 - t right of 0, e - e t left of it, with e = exp(-|x|) and t = e / (1 + e): overflow is impossible."""
    e = exp(b, b.fneg(vec.intrinsic(b, "fabs", x)))
    one = vec.const(x.type, 1.0)
    t = vec.div(b, e, vec.add(b, one, e))
    scale = b.select(vec.compare(b, "<", x, vec.const(x.type, 0.0)), e, one)
    return vec.fma(b, b.fneg(scale), t, scale)


def _split_log(b: ir.IRBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Positive normal x = 2**k m, m in [sqrt(1/2), sqrt(2)): k as a float, m; as in FreeBSD's logf."""
    fmt = _format(x.type)
    one, root = (_bit_pattern(x.type, v) for v in (1.0, 0.5**0.5))
    bits = vec.to_bits(b, x)
    shifted = b.add(bits, vec.const(bits.type, one - root))
    fraction = b.and_(shifted, vec.const(bits.type, (1 << fmt.mantissa) - 1))
    m = vec.from_bits(b, b.add(fraction, vec.const(bits.type, root)))
    # The biased exponent as the low bits of 2**mantissa: a conversion to float that every SIMD set has.
    biased = b.lshr(shifted, vec.const(bits.type, fmt.mantissa))
    k = vec.from_bits(b, b.or_(biased, vec.const(bits.type, _bit_pattern(x.type, 2.0**fmt.mantissa))))
    return vec.sub(b, k, vec.const(x.type, 2.0**fmt.mantissa + fmt.bias)), m


def _bit_pattern(t: ir.Type, number: float) -> int:
    return int(np.float32(number).view(np.int32) if vec.width(t) == 32 else np.float64(number).view(np.int64))


def _log_of(b: ir.IRBuilder, k: ir.Value, f: ir.Value, extra: ir.Value | None = None) -> ir.Value:
    """k log(2) + log(1 + f) + extra; as fdlibm, log(1+f) = f - (f^2/2 - s (f^2/2 + R)), s = f/(2+f)."""
    t, fmt = f.type, _format(f.type)
    s = vec.div(b, f, vec.add(b, f, vec.const(t, 2.0)))
    z = vec.mul(b, s, s)
    half_square = vec.mul(b, vec.mul(b, f, f), vec.const(t, 0.5))
    inner = vec.fma(b, z, vec.horner(b, z, fmt.log_tail), half_square)
    low = vec.mul(b, k, vec.const(t, fmt.ln2_low))
    if extra is not None:
        low = vec.add(b, low, extra)
    rest = vec.sub(b, f, vec.sub(b, half_square, vec.fma(b, s, inner, low)))
    return vec.fma(b, k, vec.const(t, fmt.ln2_high), rest)


def _log_specials(b: ir.IRBuilder, argument: ir.Value, y: ir.Value) -> ir.Value:
    """y, but -inf where the argument is 0, inf where it is inf, NaN where it is negative or NaN."""
    t = y.type
    zero, infinity = vec.const(t, 0.0), vec.const(t, np.inf)
    pole = b.select(vec.compare(b, "==", argument, zero), vec.const(t, -np.inf), vec.const(t, np.nan))
    y = b.select(vec.compare(b, "<", argument, infinity), y, argument)
    return b.select(vec.compare(b, ">", argument, zero), y, pole)


def log(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Natural logarithm; subnormal arguments are scaled into the normal range first."""
    t, fmt = x.type, _format(x.type)
    subnormal = vec.compare(b, "<", x, vec.const(t, 2.0 ** (1 - fmt.bias)))
    scaled = vec.mul(b, x, vec.const(t, 2.0**fmt.mantissa))
    k, m = _split_log(b, b.select(subnormal, scaled, x))
    k = b.select(subnormal, vec.sub(b, k, vec.const(t, fmt.mantissa)), k)
    return _log_specials(b, x, _log_of(b, k, vec.sub(b, m, vec.const(t, 1.0))))


def log1p(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """log(u) + (x - (u - 1)) / u, u = 1 + x rounded, as fdlibm's s_log1p.c; where k = 0, f is x itself."""
    t = x.type
    one, zero = vec.const(t, 1.0), vec.const(t, 0.0)
    u = vec.add(b, x, one)
    k, m = _split_log(b, u)
    unscaled = vec.compare(b, "==", k, zero)
    f = b.select(unscaled, x, vec.sub(b, m, one))
    lost = vec.div(b, vec.sub(b, x, vec.sub(b, u, one)), u)
    y = _log_specials(b, u, _log_of(b, k, f, b.select(unscaled, zero, lost)))
    return vec.intrinsic(b, "copysign", y, x)


def _sigmoid_py(x: np.floating) -> np.floating:
    e = np.exp(-np.abs(x))
    one = x.dtype.type(1)
    return (e if x < 0 else one) / (one + e)


_quiet = np.errstate(all="ignore")
TWINS: dict[str, Callable[[np.floating], np.floating]] = {
    "exp": _quiet(np.exp),
    "expm1": _quiet(np.expm1),
    "log": _quiet(np.log),
    "log1p": _quiet(np.log1p),
    "sigmoid": _quiet(_sigmoid_py),
    "tanh": _quiet(np.tanh),
}
