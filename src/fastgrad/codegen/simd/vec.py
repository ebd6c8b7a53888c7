"""LLVM IR over "a scalar or a vector of them": one builder serves loops and microkernel epilogues.

Every function takes the values as they come, ``float`` or ``<16 x float>`` alike, and reads the lanes off
their type. A scalar use inside a plain loop holds nothing but selects, bit casts and intrinsics that LLVM's
loop vectoriser knows how to widen; a vector use is already wide.

Float arithmetic carries the flag ``afn``, which means nothing on ``fadd``, ``fsub``, ``fmul`` and ``fdiv``.
It is there because Numba's ``fastmath=`` adds its flags to every instruction that has none: a kernel
compiled with ``reassoc``, so that its sum vectorises, must not have the error-free steps inside ``exp`` or
``log`` reassociated.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

F32, F64 = ir.FloatType(), ir.DoubleType()
BIT = ir.IntType(1)
_EXACT = ("afn",)


def element(t: ir.Type) -> ir.Type:
    """The scalar type of a scalar or vector type."""
    return t.element if isinstance(t, ir.VectorType) else t


def lanes(t: ir.Type) -> int:
    """How many lanes a vector type has; 0 for a scalar type."""
    return t.count if isinstance(t, ir.VectorType) else 0


def widen(scalar: ir.Type, n: int) -> ir.Type:
    """``<n x scalar>``, or ``scalar`` itself for n = 0."""
    return ir.VectorType(scalar, n) if n else scalar


def like(t: ir.Type, scalar: ir.Type) -> ir.Type:
    """The type with the lanes of ``t`` and another element."""
    return widen(scalar, lanes(t))


def is_float(t: ir.Type) -> bool:
    """Whether the elements are floats."""
    return isinstance(element(t), (ir.FloatType, ir.DoubleType))


def width(t: ir.Type) -> int:
    """Bits of one element."""
    scalar = element(t)
    return scalar.width if isinstance(scalar, ir.IntType) else 32 if isinstance(scalar, ir.FloatType) else 64


def const(t: ir.Type, number: Any) -> ir.Constant:
    """A constant of type ``t``, the same in every lane."""
    scalar = element(t)
    lane = ir.Constant(scalar, float(number) if is_float(t) else int(number))
    return ir.Constant(t, [lane] * lanes(t)) if lanes(t) else lane


def splat(b: ir.IRBuilder, scalar: ir.Value, n: int) -> ir.Value:
    """``scalar`` in each of n lanes (n = 0: the scalar itself)."""
    if not n:
        return scalar
    index = ir.IntType(32)
    undefined = ir.Constant(ir.VectorType(scalar.type, n), ir.Undefined)
    first = b.insert_element(undefined, scalar, ir.Constant(index, 0))
    return b.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(index, n), [0] * n))


def suffix(t: ir.Type) -> str:
    """How an overloaded intrinsic's name ends for this type: ``f32``, ``v8f64``, ``v16i32``."""
    return f"{f'v{lanes(t)}' if lanes(t) else ''}{'f' if is_float(t) else 'i'}{width(t)}"


def intrinsic(b: ir.IRBuilder, name: str, *args: ir.Value, result: ir.Type | None = None) -> ir.Value:
    """Call ``llvm.<name>``, declared once per module; ``result`` if it is not the first argument's type."""
    overloads = [args[0].type] if result is None else [result, args[0].type]
    full_name = ".".join(["llvm", name, *map(suffix, overloads)])
    function = b.module.globals.get(full_name)
    if function is None:
        function = ir.Function(b.module, ir.FunctionType(overloads[0], [a.type for a in args]), full_name)
    return b.call(function, args)


def fma(b: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """x * y + z, rounded once (``builder.fma`` refuses vectors)."""
    return intrinsic(b, "fma", x, y, z)


def add(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """Float sum that no ``fastmath=`` may reorder."""
    return b.fadd(x, y, flags=_EXACT)


def sub(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """Float difference that no ``fastmath=`` may reorder."""
    return b.fsub(x, y, flags=_EXACT)


def mul(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """Float product that no ``fastmath=`` may reorder."""
    return b.fmul(x, y, flags=_EXACT)


def div(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """Float quotient that no ``fastmath=`` may turn into a reciprocal."""
    return b.fdiv(x, y, flags=_EXACT)


def multiply_add(b: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value, fused: bool) -> ir.Value:
    """x * y + z, rounded once where the machine has such an instruction."""
    return fma(b, x, y, z) if fused else add(b, mul(b, x, y), z)


def horner(b: ir.IRBuilder, x: ir.Value, coefficients: tuple[float, ...]) -> ir.Value:
    """c[0] + c[1] x + c[2] x^2 + ... by Horner's rule, one fma a coefficient."""
    *lower, leading = coefficients
    p = const(x.type, leading)
    for c in reversed(lower):
        p = fma(b, p, x, const(x.type, c))
    return p


def to_bits(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """The bits of floats as integers of their width."""
    return b.bitcast(x, like(x.type, ir.IntType(width(x.type))))


def from_bits(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Integers of 32 or 64 bits read as floats of that width."""
    return b.bitcast(x, like(x.type, F32 if width(x.type) == 32 else F64))


def compare(b: ir.IRBuilder, op: str, x: ir.Value, y: ir.Value, signed: bool = True) -> ir.Value:
    """``x op y`` as i1 lanes. On floats ``!=`` is true when an operand is NaN; the others are false then."""
    if is_float(x.type):
        return (b.fcmp_unordered if op == "!=" else b.fcmp_ordered)(op, x, y)
    return (b.icmp_signed if signed else b.icmp_unsigned)(op, x, y)


def at_most(b: ir.IRBuilder, x: ir.Value, bound: float) -> ir.Value:
    """min(x, bound) that keeps NaN, as one machine minimum."""
    c = const(x.type, bound)
    return b.select(b.fcmp_ordered(">", x, c), c, x)


def at_least(b: ir.IRBuilder, x: ir.Value, bound: float) -> ir.Value:
    """max(x, bound) that keeps NaN, as one machine maximum."""
    c = const(x.type, bound)
    return b.select(b.fcmp_ordered("<", x, c), c, x)
