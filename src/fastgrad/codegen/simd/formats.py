"""What the vector functions share: the two float formats, and the powers of two in their bits."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
from llvmlite import ir
from llvmlite.binding import llvm_version_info

from ..target import cpu_features
from . import vec

LN2 = Fraction("0.69314718055994530941723212145817656807550013436025525412068001")
LN10 = Fraction("2.30258509299404568401799145468436420760110148862877297603332790")
PI = Fraction("3.14159265358979323846264338327950288419716939937510582097494459")


@dataclass(frozen=True)
class Format:
    """The layout of a float format, and log(2) split for it."""

    mantissa: int  # stored bits of the fraction
    bias: int
    rounder: float  # 1.5 * 2**mantissa: adding it leaves an integer in the low bits
    ln2_high: float  # so few bits that n * ln2_high is exact for every exponent n
    ln2_low: float


_F32 = Format(mantissa=23, bias=127, rounder=1.5 * 2.0**23, ln2_high=0.693359375, ln2_low=-2.12194440e-4)
_F64 = Format(
    mantissa=52,
    bias=1023,
    rounder=1.5 * 2.0**52,
    ln2_high=6.93147180369123816490e-01,
    ln2_low=1.90821492927058770002e-10,
)


def format_of(t: ir.Type) -> Format:
    """The format of a float type, or of the integers that hold its bits."""
    return _F32 if vec.width(t) == 32 else _F64


def bit_pattern(t: ir.Type, number: float) -> int:
    """The bits of ``number`` in the format of ``t``, as an integer."""
    return int(np.float32(number).view(np.int32) if vec.width(t) == 32 else np.float64(number).view(np.int64))


def parts(t: ir.Type, number: Fraction, count: int, *, cut: bool = False) -> tuple[float, ...]:
    """Positive ``number`` as a sum of floats of the format of ``t``, largest first, each the nearest to what is left.

    With ``cut`` each is rounded down, so that none is negative.
    """
    scalar = np.float32 if vec.width(t) == 32 else np.float64
    found = []
    for _ in range(count):
        part = scalar(float(number))
        if cut and Fraction(float(part)) > number:
            part = np.nextafter(part, scalar(0))
        found.append(float(part))
        number -= Fraction(found[-1])
    return tuple(found)


def nearest(b: ir.IRBuilder, x: ir.Value, factor: float = 1.0) -> tuple[ir.Value, ir.Value]:
    """x * factor rounded to a whole number (ties to even) as a float; the same + 1.5 * 2**mantissa, whose low bits it is.

    Exact for products below 2**(mantissa - 1).
    """
    rounder = vec.const(x.type, format_of(x.type).rounder)
    moved = vec.add(b, x, rounder) if factor == 1.0 else vec.fma(b, x, vec.const(x.type, factor), rounder)
    return vec.sub(b, moved, rounder), moved


def to_integer(b: ir.IRBuilder, moved: ir.Value) -> ir.Value:
    """The integer of `nearest`. Not by fptosi: that is poison for NaN, and 64-bit lanes have none before AVX-512."""
    rounder = vec.const(moved.type, format_of(moved.type).rounder)
    return b.sub(vec.to_bits(b, moved), vec.to_bits(b, rounder))


def power_of_two(b: ir.IRBuilder, n: ir.Value) -> ir.Value:
    """2.0**n for integers n that are exponents of normal numbers."""
    fmt = format_of(n.type)
    return vec.from_bits(b, b.shl(b.add(n, vec.const(n.type, fmt.bias)), vec.const(n.type, fmt.mantissa)))


def scale(b: ir.IRBuilder, y: ir.Value, n: ir.Value) -> ir.Value:
    """y 2**n for integers n: a subnormal result is rounded once, overflow gives inf.

    In two factors, or where it is one instruction (AVX-512's ``vscalef``) as ``ldexp``, with the same bits.
    """
    if _scales():
        n = n if vec.width(n.type) == 32 else b.trunc(n, vec.like(n.type, ir.IntType(32)))
        name = f"llvm.ldexp.{vec.suffix(y.type)}.{vec.suffix(n.type)}"
        function = b.module.globals.get(name)
        if function is None:
            function = ir.Function(b.module, ir.FunctionType(y.type, [y.type, n.type]), name)
        return b.call(function, [y, n])
    half = b.ashr(n, vec.const(n.type, 1))
    return vec.mul(b, vec.mul(b, y, power_of_two(b, half)), power_of_two(b, b.sub(n, half)))


@cache
def _scales() -> bool:
    """Whether this LLVM makes one instruction of ``llvm.ldexp`` here; otherwise it is a call a lane."""
    features = cpu_features()
    return features.get("avx512f", False) and features.get("avx512vl", False) and llvm_version_info[0] >= 22


def split(b: ir.IRBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Positive x = 2**k m, m in [sqrt(1/2), sqrt(2)): k as a float, m. Subnormals are scaled into the normal range first."""
    t, fmt = x.type, format_of(x.type)
    subnormal = vec.compare(b, "<", x, vec.const(t, 2.0 ** (1 - fmt.bias)))
    scaled = vec.mul(b, x, vec.const(t, 2.0**fmt.mantissa))
    k, m = split_normal(b, b.select(subnormal, scaled, x))
    return b.select(subnormal, vec.sub(b, k, vec.const(t, fmt.mantissa)), k), m


def split_normal(b: ir.IRBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Positive normal x = 2**k m, m in [sqrt(1/2), sqrt(2)): k as a float, m; as in FreeBSD's logf."""
    fmt = format_of(x.type)
    one, root = (bit_pattern(x.type, v) for v in (1.0, 0.5**0.5))
    bits = vec.to_bits(b, x)
    shifted = b.add(bits, vec.const(bits.type, one - root))
    fraction = b.and_(shifted, vec.const(bits.type, (1 << fmt.mantissa) - 1))
    m = vec.from_bits(b, b.add(fraction, vec.const(bits.type, root)))
    # The biased exponent as the low bits of 2**mantissa: a conversion to float that every SIMD set has.
    biased = b.lshr(shifted, vec.const(bits.type, fmt.mantissa))
    k = vec.from_bits(b, b.or_(biased, vec.const(bits.type, bit_pattern(x.type, 2.0**fmt.mantissa))))
    return vec.sub(b, k, vec.const(x.type, 2.0**fmt.mantissa + fmt.bias)), m
