"""The scalar primitives of a `Map` as LLVM IR, on scalars or vectors; their twins in Python.

``emit("add", b, [x, y], (f32, f32), f32)`` works alike for ``float`` and ``<16 x float>`` values. A bool is
``i1`` as a value and a byte in memory (`to_memory`, `from_memory`); integers carry no sign in LLVM, so
signedness is read from the NumPy dtype. Operands of one line share a dtype; mixed arithmetic has explicit
``cast`` lines.

Where NumPy leaves a choice or raises: casting a float that does not fit saturates, and NaN becomes 0; an
integer to a negative power is the quotient truncated, 0 unless the base is 1 or -1; of -0.0 and 0.0 the
maximum is 0.0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from ...core.expr import LIBM, LIBM_UNARY, SCALAR_ONLY
from . import libm, math, quantile, threefry, vec

COMPARISONS: dict[str, str] = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
UNARY: frozenset[str] = frozenset(
    {
        "neg",
        "abs",
        "sign",
        "sqrt",
        "floor",
        "ceil",
        "ndtri",
        "plain_log",
        "not",
        "cast",
        *math.UNARY,
        *LIBM_UNARY,
    }
)
_BINARY = {"add", "sub", "mul", "div", "max", "min", "and", "or", "xor", "shl", "shr", *math.BINARY}
THREEFRY = frozenset(threefry.TWINS)
"""Lines of four uint32: two words of a key, two of a counter."""
OPS: frozenset[str] = UNARY | COMPARISONS.keys() | _BINARY | SCALAR_ONLY | THREEFRY | {"select"}
VECTOR_OPS: frozenset[str] = OPS - SCALAR_ONLY
"""Ops that stay in vector registers. The others take vectors too, but in float call libm once a lane."""


def ir_type(dtype: np.dtype, lanes: int = 0) -> ir.Type:
    """The type of a value of this dtype: ``i1``, ``iN``, ``float``, ``double``, or a vector of them."""
    if dtype.kind == "f":
        return vec.widen(vec.F32 if dtype.itemsize == 4 else vec.F64, lanes)
    return vec.widen(vec.BIT if dtype.kind == "b" else ir.IntType(8 * dtype.itemsize), lanes)


def memory_type(dtype: np.dtype, lanes: int = 0) -> ir.Type:
    """The type of an element as it is stored: a bool is a byte."""
    return vec.widen(ir.IntType(8), lanes) if dtype.kind == "b" else ir_type(dtype, lanes)


def to_memory(b: ir.IRBuilder, v: ir.Value, dtype: np.dtype) -> ir.Value:
    """A value as it is stored: bools widen to a byte."""
    return b.zext(v, vec.like(v.type, ir.IntType(8))) if dtype.kind == "b" else v


def from_memory(b: ir.IRBuilder, v: ir.Value, dtype: np.dtype) -> ir.Value:
    """A value from what was loaded: any byte but 0 is True."""
    return b.icmp_unsigned("!=", v, vec.const(v.type, 0)) if dtype.kind == "b" else v


def result(op: str, dtypes: Sequence[np.dtype]) -> np.dtype:
    """The dtype of a line (other than a cast) on operands of ``dtypes``: most often theirs."""
    if op in COMPARISONS:
        return np.dtype(bool)
    return np.dtype(np.uint64) if op == "threefry64" else dtypes[-1]


def emit(
    op: str, b: ir.IRBuilder, args: Sequence[ir.Value], in_dtypes: Sequence[np.dtype], out_dtype: np.dtype
) -> ir.Value:
    """Append the instructions of one line and return its value."""
    dtype = in_dtypes[-1]  # the operands' dtype; a select's condition stands first
    if op == "select":
        return b.select(*args)
    if op == "cast":
        return _cast(b, args[0], in_dtypes[0], out_dtype)
    if op in COMPARISONS:
        return vec.compare(b, COMPARISONS[op], args[0], args[1], signed=dtype.kind == "i")
    rule = _RULES[dtype.kind].get(op)
    if rule is None:
        raise TypeError(f"{op}: no scalar operation on {dtype}")
    return rule(b, *args)


def _cast(b: ir.IRBuilder, x: ir.Value, source: np.dtype, target: np.dtype) -> ir.Value:
    t = vec.like(x.type, ir_type(target))
    if source == target:
        return x
    if target.kind == "b":
        return vec.compare(b, "!=", x, vec.const(x.type, 0))
    if source.kind == target.kind == "f":
        return (b.fpext if target.itemsize > source.itemsize else b.fptrunc)(x, t)
    if source.kind == "f":
        return vec.intrinsic(b, "fptosi.sat" if target.kind == "i" else "fptoui.sat", x, result=t)
    if target.kind == "f":
        return (b.sitofp if source.kind == "i" else b.uitofp)(x, t)
    if vec.width(t) <= vec.width(x.type):
        return x if vec.width(t) == vec.width(x.type) else b.trunc(x, t)
    return (b.sext if source.kind == "i" else b.zext)(x, t)


# Integers. Division has two inputs on which the instruction traps; both get the divisor 1 instead.


def _int_divide(b: ir.IRBuilder, x: ir.Value, y: ir.Value, signed: bool) -> tuple[ir.Value, ir.Value]:
    """Floored quotient, remainder with the divisor's sign; both 0 for y = 0, and INT_MIN // -1 wraps."""
    t = x.type
    zero, one = vec.const(t, 0), vec.const(t, 1)
    by_zero = b.icmp_signed("==", y, zero)
    traps = by_zero
    if signed:
        lowest = b.icmp_signed("==", x, vec.const(t, -(1 << (vec.width(t) - 1))))
        traps = b.or_(traps, b.and_(lowest, b.icmp_signed("==", y, vec.const(t, -1))))
    divisor = b.select(traps, one, y)
    q = (b.sdiv if signed else b.udiv)(x, divisor)
    r = b.sub(x, b.mul(q, divisor))
    if signed:
        opposite = b.icmp_signed("<", b.xor(r, divisor), zero)
        floors = b.and_(b.icmp_signed("!=", r, zero), opposite)
        q, r = b.select(floors, b.sub(q, one), q), b.select(floors, b.add(r, divisor), r)
    return b.select(by_zero, zero, q), b.select(by_zero, zero, r)


def _int_pow(b: ir.IRBuilder, x: ir.Value, n: ir.Value, signed: bool) -> ir.Value:
    """Square and multiply over every bit of the exponent, wrapping; unrolled, so it serves vectors."""
    t = x.type
    zero, one = vec.const(t, 0), vec.const(t, 1)
    power, square = one, x
    for i in range(vec.width(t)):
        bit = b.icmp_signed("!=", b.and_(n, vec.const(t, 1 << i)), zero)
        power = b.select(bit, b.mul(power, square), power)
        square = b.mul(square, square)
    if not signed:
        return power
    truncates = b.icmp_unsigned(
        ">", b.add(x, one), vec.const(t, 2)
    )  # the base is none of -1, 0, 1; 0**n is 0
    return b.select(b.and_(b.icmp_signed("<", n, zero), truncates), zero, power)


def _int_sign(b: ir.IRBuilder, x: ir.Value, signed: bool) -> ir.Value:
    zero = vec.const(x.type, 0)
    positive = b.zext(b.icmp_unsigned("!=", x, zero), x.type)
    return b.select(b.icmp_signed("<", x, zero), vec.const(x.type, -1), positive) if signed else positive


def _shift_left(b: ir.IRBuilder, x: ir.Value, n: ir.Value) -> ir.Value:
    """0 once all bits are out, as in NumPy; LLVM leaves that open. A negative count is a large one."""
    inside = b.icmp_unsigned("<", n, vec.const(x.type, vec.width(x.type)))
    return b.select(inside, b.shl(x, n), vec.const(x.type, 0))


def _shift_right(b: ir.IRBuilder, x: ir.Value, n: ir.Value, signed: bool) -> ir.Value:
    """The sign fills up from the left; once all bits are out, there is nothing else."""
    inside = b.icmp_unsigned("<", n, vec.const(x.type, vec.width(x.type)))
    if not signed:
        return b.select(inside, b.lshr(x, n), vec.const(x.type, 0))
    return b.ashr(x, b.select(inside, n, vec.const(x.type, vec.width(x.type) - 1)))


def _int_abs(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    zero = vec.const(x.type, 0)
    return b.select(b.icmp_signed("<", x, zero), b.sub(zero, x), x)


def _same(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return x


def _invert(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.xor(x, vec.const(x.type, -1))


def _int_rules(signed: bool) -> dict[str, Callable[..., ir.Value]]:
    extremum = "s" if signed else "u"
    return {
        "add": lambda b, x, y: b.add(x, y),
        "sub": lambda b, x, y: b.sub(x, y),
        "mul": lambda b, x, y: b.mul(x, y),
        "neg": lambda b, x: b.sub(vec.const(x.type, 0), x),
        "abs": _int_abs if signed else _same,
        "sign": lambda b, x: _int_sign(b, x, signed),
        "floor_divide": lambda b, x, y: _int_divide(b, x, y, signed)[0],
        "remainder": lambda b, x, y: _int_divide(b, x, y, signed)[1],
        "pow": lambda b, x, y: _int_pow(b, x, y, signed),
        "max": lambda b, x, y: vec.intrinsic(b, extremum + "max", x, y),
        "min": lambda b, x, y: vec.intrinsic(b, extremum + "min", x, y),
        "floor": _same,
        "ceil": _same,
        "and": lambda b, x, y: b.and_(x, y),
        "or": lambda b, x, y: b.or_(x, y),
        "xor": lambda b, x, y: b.xor(x, y),
        "not": _invert,
        "shl": _shift_left,
        "shr": lambda b, x, y: _shift_right(b, x, y, signed),
        **({} if signed else {"threefry32": threefry.mixed, "threefry64": threefry.both}),
    }


# Floats.


def _float_sign(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    t = x.type
    zero, one, minus_one = vec.const(t, 0.0), vec.const(t, 1.0), vec.const(t, -1.0)
    nan_or_zero = vec.add(b, x, zero)  # -0.0 + 0.0 is 0.0
    others = b.select(vec.compare(b, "<", x, zero), minus_one, nan_or_zero)
    return b.select(vec.compare(b, ">", x, zero), one, others)


def _float_divide(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Floored quotient and remainder as NumPy's ``npy_divmod``: from the exact fmod, not from x / y."""
    t = x.type
    zero, one = vec.const(t, 0.0), vec.const(t, 1.0)
    mod = b.frem(x, y)
    quotient = vec.div(b, vec.sub(b, x, mod), y)
    opposite = b.xor(vec.compare(b, "<", y, zero), vec.compare(b, "<", mod, zero))
    floors = b.and_(vec.compare(b, "!=", mod, zero), opposite)
    r = b.select(floors, vec.add(b, mod, y), mod)
    r = b.select(vec.compare(b, "==", mod, zero), vec.intrinsic(b, "copysign", zero, y), r)
    quotient = b.select(floors, vec.sub(b, quotient, one), quotient)
    q = vec.intrinsic(b, "floor", quotient)
    q = b.select(vec.compare(b, ">", vec.sub(b, quotient, q), vec.const(t, 0.5)), vec.add(b, q, one), q)
    ratio = vec.div(b, x, y)
    q = b.select(vec.compare(b, "==", quotient, zero), vec.intrinsic(b, "copysign", zero, ratio), q)
    by_zero = vec.compare(b, "==", y, zero)
    return b.select(by_zero, ratio, q), b.select(by_zero, mod, r)


def _intrinsic(name: str) -> Callable[..., ir.Value]:
    return lambda b, *args: vec.intrinsic(b, name, *args)


_RULES: dict[str, dict[str, Callable[..., ir.Value]]] = {
    "b": {
        "add": lambda b, x, y: b.or_(x, y),
        "mul": lambda b, x, y: b.and_(x, y),
        "max": lambda b, x, y: b.or_(x, y),
        "min": lambda b, x, y: b.and_(x, y),
        "and": lambda b, x, y: b.and_(x, y),
        "or": lambda b, x, y: b.or_(x, y),
        "xor": lambda b, x, y: b.xor(x, y),
        "not": _invert,
        "abs": _same,
        "floor": _same,
        "ceil": _same,
    },
    "i": _int_rules(signed=True),
    "u": _int_rules(signed=False),
    "f": {
        "add": lambda b, x, y: b.fadd(x, y),
        "sub": lambda b, x, y: b.fsub(x, y),
        "mul": lambda b, x, y: b.fmul(x, y),
        "div": lambda b, x, y: b.fdiv(x, y),
        "neg": lambda b, x: b.fneg(x),
        "sign": _float_sign,
        "floor_divide": lambda b, x, y: _float_divide(b, x, y)[0],
        "remainder": lambda b, x, y: _float_divide(b, x, y)[1],
        "max": _intrinsic("maximum"),
        "min": _intrinsic("minimum"),
        "abs": _intrinsic("fabs"),
        **{name: _intrinsic(name) for name in ("sqrt", "floor", "ceil")},
        "ndtri": quantile.ndtri,
        "plain_log": quantile.log,
        **libm.RULES,
        **math.UNARY,
        **math.BINARY,
    },
}


# The same lines on NumPy scalars, for kernels that run with the JIT off.


def _pow_py(x: Any, n: Any) -> Any:
    if x.dtype.kind == "i" and n < 0:
        return x.dtype.type({1: 1, -1: -1 if n & 1 else 1}.get(int(x), 0))
    return math.TWINS["pow"](x, n)


def _cast_py(x: Any, dtype: np.dtype) -> Any:
    dtype = np.dtype(dtype)
    if x.dtype.kind != "f" or dtype.kind not in "iu":
        return x.astype(dtype)
    limits = np.iinfo(dtype)
    if not np.isfinite(x):
        return dtype.type(0 if np.isnan(x) else limits.max if x > 0 else limits.min)
    return dtype.type(min(max(int(x), limits.min), limits.max))


def _select_py(condition: Any, x: Any, y: Any) -> Any:
    return x if condition else y


_NUMPY: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "floor_divide": np.floor_divide,
    "remainder": np.remainder,
    "max": np.maximum,
    "min": np.minimum,
    "sqrt": np.sqrt,
    "floor": np.floor,
    "ceil": np.ceil,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.bitwise_not,
    "shl": np.left_shift,
    "shr": np.right_shift,
    "select": _select_py,
    "cast": _cast_py,
    **{name: getattr(np, name) for name in LIBM},
}
_quiet = np.errstate(all="ignore")
TWINS: dict[str, Callable[..., Any]] = {name: _quiet(twin) for name, twin in _NUMPY.items()} | math.TWINS
TWINS["pow"] = _quiet(_pow_py)
TWINS |= {name: _quiet(twin) for name, twin in (quantile.TWINS | threefry.TWINS).items()}
