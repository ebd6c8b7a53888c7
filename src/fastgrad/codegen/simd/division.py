"""Quotients and square roots from multiply-adds, to the bit those of the divider.

A division of 16 floats takes the divider ten cycles, a root thirteen, and there is one; the two ports that multiply and add
make a correctly rounded quotient in some eight, beside it. With an estimate y of 1/b

    e = 1 - b y,  y' = y (1 + e + e^2),  q = a y',  r = a - b q (exact),  a / b = q + r y'  rounded once

(P. W. Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", IBM J. Res. Dev. 34,
1990; M. Cornea, J. Harrison, P. T. P. Tang, "Scientific Computing on Itanium-based Systems", 2002, chapter 8). q + r y'
can round to the wrong side only where a / b lies next to the middle between two floats: where, A and B being the
integers of the significands, A 2**24 or A 2**25 is within 8 of a multiple of B. All 87 million such pairs have been
tried with Intel's ``vrcp14`` (other makers' estimates differ, so theirs go to the divider); none is wrong. For one of
them, 1 / (2 - 2**-23), whose y' is a tie, 1 + e + e^2 is rounded upward. float64 takes one more step; its y' is then
the float nearest to 1/b, from which the quotient follows (Markstein's theorem).

With an estimate y of 1/sqrt(x):  g = x y,  h = y/2,  r = 1/2 - g h,  g' = g + g r,  h' = h + h r,  d = x - g'^2 (exact),
sqrt(x) = g' + d h'; all float32 have been tried. float64's roots are the divider's.

The remainders are exact, and nothing is subnormal, where a and 1/b are not too small; zero divisors, infinities, NaN and
quotients that overflow leave a NaN. One branch asks all lanes for both, and goes to the divider. A zero a, which is not
rare, is let through. Where a is too small it is taken for zero until then: a remainder that is subnormal costs a core some
hundred cycles, whoever asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from ..target import cpu
from . import avx512, vec

_UPPER_EXPONENT = {32: 0x60000000, 64: 0x6000000000000000}
"""One of these bits is on in floats from 2**-63 (2**-511) on, and in the integer below that of a zero."""
_TRIED = (
    "skylake",
    "cascadelake",
    "cooperlake",
    "cannonlake",
    "icelake",
    "tigerlake",
    "rocketlake",
    "alderlake",
    "sapphirerapids",
    "emeraldrapids",
    "graniterapids",
    "diamondrapids",
)
"""LLVM's names of Intel's processors with AVX-512, whose estimates (all alike) have been tried."""
_LARGEST_INVERSE = 2.0**75
"""Above the inverse root of every float32 but 0."""

Divider = Callable[[ir.IRBuilder, Sequence[ir.Value]], ir.Value]


def divide(b: ir.IRBuilder, x: ir.Value, y: ir.Value, count: int) -> ir.Value:
    """x / y; the first ``count`` registers by multiply-adds, the others by the divider."""
    return _shared_out(b, (x, y), count, _quotient, lambda b, args: vec.div(b, *args))


def sqrt(b: ir.IRBuilder, x: ir.Value, count: int) -> ir.Value:
    """The square root of float32; the first ``count`` registers by multiply-adds."""
    return _shared_out(b, (x,), count, _root, lambda b, args: vec.intrinsic(b, "sqrt", *args))


def _shared_out(
    b: ir.IRBuilder,
    xs: Sequence[ir.Value],
    count: int,
    compute: Callable[..., tuple[ir.Value, ir.Value]],
    divider: Divider,
) -> ir.Value:
    count = count if cpu()[0].startswith(_TRIED) else 0
    registers = list(zip(*(avx512.pieces(b, x) for x in xs), strict=True))
    results: list[ir.Value] = []
    certain = vec.const(vec.like(registers[0][0].type, vec.BIT), 1)
    for args in registers[:count]:
        result, certain = compute(b, *args, certain)
        results.append(result)
    if results:
        results = _unless(b, certain, results, [(divider, args) for args in registers[:count]])
    return avx512.joined(b, [*results, *(divider(b, args) for args in registers[count:])])


def _unless(
    b: ir.IRBuilder,
    certain: ir.Value,
    results: Sequence[ir.Value],
    others: Sequence[tuple[Divider, Sequence[ir.Value]]],
) -> list[ir.Value]:
    """``results`` where all lanes are ``certain``, else what the divider says."""
    every, before = ir.IntType(vec.lanes(certain.type)), b.block
    with b.if_then(b.icmp_unsigned("!=", b.bitcast(certain, every), every(-1)), likely=False):
        exact, after = [divider(b, args) for divider, args in others], b.block
    chosen = []
    for result, other in zip(results, exact, strict=True):
        phi = b.phi(result.type)
        phi.add_incoming(result, before)
        phi.add_incoming(other, after)
        chosen.append(phi)
    return chosen


def _large(b: ir.IRBuilder, x: ir.Value, *, or_zero: bool) -> ir.Value:
    """Where x is not too small; ``or_zero`` leaves out the very bound."""
    bits = vec.to_bits(b, x)
    if or_zero:
        bits = b.sub(bits, vec.const(bits.type, 1))
    upper = b.and_(bits, vec.const(bits.type, _UPPER_EXPONENT[vec.width(x.type)]))
    return b.icmp_unsigned("!=", upper, vec.const(bits.type, 0))


def _less_product(b: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """x - y z, rounded once."""
    return vec.fma(b, b.fneg(y), z, x)


def _inverse(b: ir.IRBuilder, y: ir.Value) -> ir.Value:
    """1 / y, the nearest float or nearly so."""
    one, it = vec.const(y.type, 1.0), avx512.inverse_estimate(b, y)
    e = _less_product(b, one, y, it)
    it = vec.fma(b, it, avx512.fma_up(b, e, e, e), it)
    if vec.width(y.type) == 32:
        return it
    return vec.fma(b, it, _less_product(b, one, y, it), it)


def _quotient(b: ir.IRBuilder, x: ir.Value, y: ir.Value, certain: ir.Value) -> tuple[ir.Value, ir.Value]:
    """x / y, and in which of the lanes that were ``certain`` it is too."""
    inverse = _inverse(b, y)
    fine = _large(b, x, or_zero=True)
    q = b.select(fine, vec.mul(b, x, inverse), vec.const(x.type, 0.0))
    signed = q
    r = b.select(fine, _less_product(b, x, y, q), vec.const(x.type, 0.0))
    q = vec.fma(b, r, inverse, q)
    certain = b.and_(certain, b.and_(_large(b, inverse, or_zero=False), fine))
    return vec.intrinsic(b, "copysign", q, signed), avx512.numbers(b, q, certain)


def _root(b: ir.IRBuilder, x: ir.Value, certain: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The square root of x, and in which of the lanes that were ``certain`` it is too."""
    half, y = vec.const(x.type, 0.5), vec.at_most(b, avx512.root_estimate(b, x), _LARGEST_INVERSE)
    fine = _large(b, x, or_zero=True)
    g, h = b.select(fine, vec.mul(b, x, y), vec.const(x.type, 0.0)), vec.mul(b, y, half)
    r = _less_product(b, half, g, h)
    g, h = vec.fma(b, g, r, g), vec.fma(b, h, r, h)
    g = vec.fma(b, _less_product(b, x, g, g), h, g)
    return g, avx512.numbers(b, g, b.and_(certain, fine))


BY_MULTIPLY_ADDS: dict[str, Callable[..., ir.Value]] = {"div": divide, "sqrt": sqrt}
"""Lines of which some registers go by multiply-adds."""
