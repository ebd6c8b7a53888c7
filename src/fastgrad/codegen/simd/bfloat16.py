"""bfloat16 in vector registers: rounding to it, pairs of it, dot products of pairs.

Rounding is integer arithmetic, the same bits on every machine (AVX512_BF16's conversion flushes tiny numbers to 0).
"""

from __future__ import annotations

from llvmlite import ir

from ...core.bfloat16 import HALF, QUIET, UPPER
from . import vec
from .blocks import I32


class _BFloat(ir.Type):
    """LLVM's ``bfloat``, which llvmlite does not know."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


def dot(b: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """``z`` + the dot products of pairs, lane by lane, by ``vdpbf16ps`` (AVX512_BF16): <16 x i32> and <16 x float>.

    As `amx` it takes subnormal numbers for zero, whatever MXCSR says.
    """
    pairs = ir.VectorType(_BFloat(), 2 * z.type.count)
    name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * z.type.count}"
    kind = ir.FunctionType(z.type, [z.type, pairs, pairs])
    function = b.module.globals.get(name) or ir.Function(b.module, kind, name)
    return b.call(function, [z, b.bitcast(x, pairs), b.bitcast(y, pairs)])


def rounded_bits(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """The bits of float32 values rounded to bfloat16, in the upper halves; the lower ones hold anything."""
    t = vec.like(x.type, I32)
    bits = b.bitcast(x, t)
    odd = b.and_(b.lshr(bits, vec.const(t, 16)), vec.const(t, 1))
    near = b.add(bits, b.add(odd, vec.const(t, HALF)))
    return b.select(b.fcmp_unordered("uno", x, x), b.or_(bits, vec.const(t, QUIET)), near)


def paired(b: ir.IRBuilder, low: ir.Value, high: ir.Value) -> ir.Value:
    """Pairs out of `rounded_bits`, the first of each in the lower half."""
    t = low.type
    return b.or_(b.lshr(low, vec.const(t, 16)), b.and_(high, vec.const(t, UPPER)))


def rounded_value(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """float32 values rounded to bfloat16, as float32."""
    bits = rounded_bits(b, x)
    return b.bitcast(b.and_(bits, vec.const(bits.type, UPPER)), x.type)
