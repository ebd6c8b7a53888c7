"""pow in float32 by tables in registers: 2**(y log2|x|), the logarithm in two floats.

|x| = 2**k m, m of [3/4, 3/2). 1/c comes from a table of numbers with so few bits that r = m/c - 1 is exact, and log2(c) in
two floats, of which the first, a multiple of 2**-16, plus any k is exact. log2(1 + r) = r (L + H r + P(r)); L + H r and its
product with r are in two floats each, and P has what L and H lack of 1/log(2) and -1/(2 log(2)), and the higher terms. So
the logarithm is known to 2**-34 of itself, also next to 1, where c = 1. Infinite logarithms pass, and the clamp of
`lookup.exp2` takes the NaN away that is then in the second float.
"""

from __future__ import annotations

from math import log2

from llvmlite import ir

from . import avx512, lookup, power, vec

_INVERSES = (
    64, 61, 59, 58, 56, 55, 53, 52, 51, 49, 48, 47, 46, 45, 44, 43,
    84, 82, 82, 80, 78, 76, 76, 74, 72, 72, 70, 68, 68, 66, 66, 64,
)  # fmt: skip
"""64/c: of sixteen intervals of [1, 3/2), then of [3/4, 1), where they are multiples of 2."""
_HEADS = tuple(round(-log2(n / 64) * 2**16) / 2**16 for n in _INVERSES)
_REST = tuple(-log2(n / 64) - head for n, head in zip(_INVERSES, _HEADS, strict=True))
_L, _H = 1.4426950216293335, -0.7213475108146667
_SERIES = (
    1.9262826000954192e-08,
    -9.269155221147685e-09,
    0.48089829087257385,
    -0.3606760799884796,
    0.28877687454223633,
    -0.23771022260189056,
)
"""P, to 2**-36 for -0.027 <= r <= 1/32."""


def _log2(b: ir.IRBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """log2(x) of x >= 0 in two floats; at 0 and infinity the first is infinite and the second NaN."""
    t = x.type
    k, m, index = lookup.reduced(b, x)
    r = vec.fma(b, m, avx512.look_up(b, [n / 64 for n in _INVERSES], index), vec.const(t, -1.0))
    whole = vec.add(b, k, avx512.look_up(b, _HEADS, index))
    first, second = vec.const(t, _L), vec.const(t, _H)
    slope = vec.fma(b, r, second, first)
    lost = vec.fma(b, r, second, vec.sub(b, first, slope))
    lost = vec.add(b, lost, vec.horner(b, r, _SERIES))
    high = vec.mul(b, r, slope)
    low = vec.fma(b, r, lost, vec.fma(b, r, slope, b.fneg(high)))
    low = vec.add(b, low, avx512.look_up(b, _REST, index))
    part = vec.add(b, high, low)
    low = vec.add(b, vec.sub(b, high, part), low)
    total = vec.add(b, whole, part)  # whole is 0 or the larger one
    return total, vec.add(b, vec.add(b, vec.sub(b, whole, total), part), low)


def pow(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """x**y with the special values of C99, §F.9.4.4."""
    magnitude = vec.intrinsic(b, "fabs", x)
    high, low = _log2(b, magnitude)
    exponent = vec.mul(b, y, high)
    rest = vec.fma(b, y, low, vec.fma(b, y, high, b.fneg(exponent)))
    return power.with_specials(b, x, y, magnitude, lookup.exp2(b, exponent, rest))
