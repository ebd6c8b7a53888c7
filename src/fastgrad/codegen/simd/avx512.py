"""Instructions of AVX-512 that LLVM's IR has no word for, on vectors of whole registers.

A vector of several registers is taken apart and put together again, which costs nothing: LLVM does so with every other
instruction. Sources: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from llvmlite import ir

from ..target import cpu_features
from . import vec

I32 = ir.IntType(32)
REGISTER_BITS = 512
_CURRENT_ROUNDING, _UPWARD = 4, 2 | 8
_KEEP_SIGN_LEAST_MAGNITUDE = 2
_ORDERED = 7
_THREE_QUARTERS, _NAN_BELOW_ZERO = 0b11, 0b10 << 2


def available(t: ir.Type) -> bool:
    """Whether vectors of type ``t`` fill registers of this machine's AVX-512."""
    filled = vec.lanes(t) > 0 and vec.width(t) * vec.lanes(t) % REGISTER_BITS == 0
    return filled and all(cpu_features().get(name, False) for name in ("avx512f", "avx512dq", "avx512vl"))


def pieces(b: ir.IRBuilder, x: ir.Value) -> list[ir.Value]:
    """The registers of a vector."""
    n = REGISTER_BITS // vec.width(x.type)
    if vec.lanes(x.type) == n:
        return [x]
    undefined = ir.Constant(x.type, ir.Undefined)
    return [
        b.shuffle_vector(x, undefined, ir.Constant(ir.VectorType(I32, n), list(range(k, k + n))))
        for k in range(0, vec.lanes(x.type), n)
    ]


def joined(b: ir.IRBuilder, parts: Sequence[ir.Value]) -> ir.Value:
    """Registers, a power of two of them, as one vector."""
    parts = list(parts)
    while len(parts) > 1:
        n = 2 * vec.lanes(parts[0].type)
        numbers = ir.Constant(ir.VectorType(I32, n), list(range(n)))
        parts = [b.shuffle_vector(*parts[k : k + 2], numbers) for k in range(0, len(parts), 2)]
    return parts[0]


def _each(b: ir.IRBuilder, name: str, arguments: Callable[..., list[ir.Value]], *xs: ir.Value) -> ir.Value:
    """``llvm.x86.avx512.<name>`` on each register of ``xs``."""
    results = []
    for registers in zip(*(pieces(b, x) for x in xs), strict=True):
        args = arguments(*registers)
        full = f"llvm.x86.avx512.{name}"
        function = b.module.globals.get(full)
        if function is None:
            kind = ir.FunctionType(registers[0].type, [a.type for a in args])
            function = ir.Function(b.module, kind, full)
        results.append(b.call(function, args))
    return joined(b, results)


def _letter(t: ir.Type) -> str:
    return "s" if vec.width(t) == 32 else "d"


def _all(t: ir.Type) -> ir.Constant:
    """A mask with every lane of one register on."""
    return ir.Constant(ir.IntType(REGISTER_BITS // vec.width(t)), -1)


def scale(b: ir.IRBuilder, x: ir.Value, n: ir.Value) -> ir.Value:
    """x 2**floor(n), rounded once; for infinite n 0 or infinity (``vscalef``)."""
    return _each(
        b,
        f"mask.scalef.p{_letter(x.type)}.512",
        lambda x, n: [x, n, ir.Constant(x.type, None), _all(x.type), I32(_CURRENT_ROUNDING)],
        x,
        n,
    )


def exponent(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """floor(log2 |x|) as a float, of subnormal numbers too: -inf of 0, inf of inf (``vgetexp``)."""
    return _each(
        b,
        f"mask.getexp.p{_letter(x.type)}.512",
        lambda x: [x, ir.Constant(x.type, None), _all(x.type), I32(_CURRENT_ROUNDING)],
        x,
    )


def mantissa(b: ir.IRBuilder, x: ir.Value, *, around_one: bool = False) -> ir.Value:
    """|x| as a number of [1, 2); or around one, of [3/4, 3/2) and NaN below 0. Of 0 and inf it is 1 (``vgetmant``)."""
    way = _THREE_QUARTERS | _NAN_BELOW_ZERO if around_one else 1 << 2
    return _each(
        b,
        f"mask.getmant.p{_letter(x.type)}.512",
        lambda x: [x, I32(way), ir.Constant(x.type, None), _all(x.type), I32(_CURRENT_ROUNDING)],
        x,
    )


def clamp(b: ir.IRBuilder, x: ir.Value, bound: float) -> ir.Value:
    """x, or ±bound where its magnitude is larger; a NaN becomes a bound (``vrange``)."""
    limit = vec.const(vec.widen(vec.element(x.type), REGISTER_BITS // vec.width(x.type)), bound)
    return _each(
        b,
        f"mask.range.p{_letter(x.type)}.512",
        lambda x: [
            x,
            limit,
            I32(_KEEP_SIGN_LEAST_MAGNITUDE),
            ir.Constant(x.type, None),
            _all(x.type),
            I32(_CURRENT_ROUNDING),
        ],
        x,
    )


def inverse_estimate(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """1 / x to 14 bits, with the special values of the true one (``vrcp14``); infinite below 2**-128."""
    return _each(
        b,
        f"rcp14.p{_letter(x.type)}.512",
        lambda x: [x, ir.Constant(x.type, None), _all(x.type)],
        x,
    )


def numbers(b: ir.IRBuilder, x: ir.Value, among: ir.Value) -> ir.Value:
    """Which lanes of one register are not NaN, of those ``among``: a comparison under a mask (``vcmpps``)."""
    full = f"mask.cmp.p{_letter(x.type)}.512"
    return _call(b, full, among.type, [x, x, I32(_ORDERED), among, I32(_CURRENT_ROUNDING)])


def fma_up(b: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """x * y + z, rounded upward."""
    return _each(b, f"vfmadd.p{_letter(x.type)}.512", lambda *xs: [*xs, I32(_UPWARD)], x, y, z)


def root_estimate(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """1 / sqrt(x) to 14 bits, with the special values of the true one (``vrsqrt14``)."""
    return _each(
        b,
        f"rsqrt14.p{_letter(x.type)}.512",
        lambda x: [x, ir.Constant(x.type, None), _all(x.type)],
        x,
    )


def look_up(b: ir.IRBuilder, table: Sequence[float], index: ir.Value) -> ir.Value:
    """``table[index]`` of one register's floats, or two's, by the low bits of ``index`` (``vpermps``, ``vpermt2ps``)."""
    scalar = vec.F32 if vec.width(index.type) == 32 else vec.F64
    n, rounded = REGISTER_BITS // vec.width(index.type), np.float32 if scalar == vec.F32 else float
    register = vec.widen(scalar, n)
    halves = [
        ir.Constant(register, [ir.Constant(scalar, float(rounded(v))) for v in table[k : k + n]])
        for k in range(0, len(table), n)
    ]
    letter = _letter(register)
    if len(halves) == 1:
        results = [
            _call(b, f"permvar.{letter}f.512", register, [halves[0], piece]) for piece in pieces(b, index)
        ]
    else:
        results = [
            _call(b, f"vpermi2var.p{letter}.512", register, [halves[0], piece, halves[1]])
            for piece in pieces(b, index)
        ]
    return joined(b, results)


def _call(b: ir.IRBuilder, name: str, result: ir.Type, args: list[ir.Value]) -> ir.Value:
    full = f"llvm.x86.avx512.{name}"
    function = b.module.globals.get(full)
    if function is None:
        function = ir.Function(b.module, ir.FunctionType(result, [a.type for a in args]), full)
    return b.call(function, args)
