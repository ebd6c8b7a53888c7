"""What kernel text calls: typed loads and stores at raw addresses, descriptor words, scalar lines.

Each name is a Numba intrinsic and has a Python twin, so that a kernel's text also runs with the JIT off: `jit_namespace`
and `python_namespace` bind the same names.

Loads and stores carry alias scopes: the memory plan proves that an output overlaps an operand nowhere, or covers it
element for element (in-place), and the lines order that load before that store. LLVM then vectorises with no run-time
alias checks and no second copy of the loop.
"""

from __future__ import annotations

import ctypes
import re
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from ...core.aval import DTYPES, short
from ...core.expr import op_name
from . import avx512, division, extrema, lines, math, streaming, variants, wide

I64 = ir.IntType(64)
_DEAR = math.UNARY.keys() | math.BINARY.keys() | {"max", "min"}
"""Lines that fill the vector units, or whose folds are one chain of dependent steps: loops with one of them use the widest
vectors, where LLVM would take half of them."""
MAX_STORES = 24
"""Alias scopes, hence stores, that one loop may have."""
LOCAL_BYTES = 16 << 10
"""Bytes of a block of rows in a kernel's frame; none that the schedule leaves there is longer."""
PIECE_BYTES, MOST_AHEAD = 512, 4
"""Bytes of a piece of a map's tile, operands that are asked for ahead while it is copied: `codegen.past`."""


def _memory_type(dtype: np.dtype) -> ir.Type:
    if dtype.kind == "f":
        return ir.FloatType() if dtype.itemsize == 4 else ir.DoubleType()
    return ir.IntType(8 * dtype.itemsize)


def _scopes(module: ir.Module, phase: int) -> list[Any]:
    """One scope for all loads, one for each store, in a domain of ours."""
    mine = f"fastgrad.phase{phase}" if phase else "fastgrad"
    domain = module.add_metadata([mine])
    names = [f"{mine}.loads"] + [f"{mine}.store{k}" for k in range(MAX_STORES)]
    return [module.add_metadata([name, domain]) for name in names]


def _tag(builder: ir.IRBuilder, instruction: Any, own: int, phase: int = 0) -> None:
    """Say that ``instruction`` touches scope ``own`` and none of the others of its phase.

    Of other phases it says nothing, so what a phase reads of an earlier one, or writes over, stays in order.
    """
    module = builder.module
    scopes = _scopes(module, phase)
    instruction.set_metadata("alias.scope", module.add_metadata([scopes[own]]))
    others = scopes[1:] if own == 0 else scopes[:own] + scopes[own + 1 :]
    instruction.set_metadata("noalias", module.add_metadata(others))


@cache
def _load(dtype: np.dtype, scope: int = 0, phase: int = 0) -> Callable:
    """A load; ``scope`` 0 for operands, 1 + k for what store ``k`` wrote."""
    result, memory = from_dtype(dtype), _memory_type(dtype)

    @intrinsic
    def load(typingctx, address, index):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            pointer = builder.gep(builder.inttoptr(args[0], memory.as_pointer()), [args[1]])
            value = builder.load(pointer, align=dtype.itemsize)
            _tag(builder, value, scope, phase)
            return lines.from_memory(builder, value, dtype)

        return result(types.int64, types.int64), codegen

    return load


@cache
def _store(dtype: np.dtype, k: int, phase: int = 0) -> Callable:
    value_type, memory = from_dtype(dtype), _memory_type(dtype)

    @intrinsic
    def store(typingctx, address, index, value):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            pointer = builder.gep(builder.inttoptr(args[0], memory.as_pointer()), [args[1]])
            instruction = builder.store(
                lines.to_memory(builder, args[2], dtype), pointer, align=dtype.itemsize
            )
            _tag(builder, instruction, 1 + k, phase)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, value_type), codegen

    return store


def _accumulate(dtype: np.dtype) -> Callable:
    """Sum that LLVM may reorder into vector lanes (``reassoc`` on this one addition, NaN and Inf kept); not a wide one."""

    @intrinsic
    def accumulate(typingctx, total, value):  # type: ignore[no-untyped-def]
        n = _lanes(total, value)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            if dtype.kind == "f" and n == 1:
                return builder.fadd(*args, flags=("reassoc", "nsz"))
            return lines.emit(
                "add", builder, [wide.splat(builder, v, n) for v in args], (dtype, dtype), dtype
            )

        return wide.numba_type(dtype, n)(total, value), codegen

    return accumulate


def _line(op: str, registers: int = 0) -> Callable:
    """The scalar op ``op`` as a function of typed scalars; comparisons give bool, the rest their operands' dtype.

    Of a wide division so many ``registers`` go by multiply-adds.
    """

    def rule(typingctx, *args):  # type: ignore[no-untyped-def]
        dtypes, n = tuple(_dtype_of(a) for a in args), _lanes(*args)
        out = lines.result(op, dtypes)

        def codegen(context, builder, signature, values):  # type: ignore[no-untyped-def]
            if op in _DEAR:
                variants.attribute(builder.function, '"prefer-vector-width"="512"')
            values = [wide.splat(builder, v, n) for v in values]
            if registers and avx512.available(values[0].type):
                return division.BY_MULTIPLY_ADDS[op](builder, *values, registers)
            return lines.emit(op, builder, values, dtypes, out)

        return wide.numba_type(out, n)(*args), codegen

    if op == "select":
        return intrinsic(lambda typingctx, c, x, y: rule(typingctx, c, x, y))
    if op in lines.THREEFRY:
        return intrinsic(lambda typingctx, k0, k1, c0, c1: rule(typingctx, k0, k1, c0, c1))
    if op in lines.UNARY:
        return intrinsic(lambda typingctx, x: rule(typingctx, x))
    return intrinsic(lambda typingctx, x, y: rule(typingctx, x, y))


def _cast(dtype: np.dtype) -> Callable:
    @intrinsic
    def cast(typingctx, x):  # type: ignore[no-untyped-def]
        source = _dtype_of(x)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return lines.emit("cast", builder, list(args), (source,), dtype)

        return wide.numba_type(dtype, _lanes(x))(x), codegen

    return cast


def _const(dtype: np.dtype) -> Callable:
    """``const_f32(bits)``: the scalar whose bit pattern, as an unsigned integer, is ``bits``."""

    @intrinsic
    def const(typingctx, bits):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            memory = builder.trunc(args[0], ir.IntType(8 * dtype.itemsize)) if dtype.itemsize < 8 else args[0]
            if dtype.kind == "f":
                memory = builder.bitcast(memory, _memory_type(dtype))
            return lines.from_memory(builder, memory, dtype)

        return from_dtype(dtype)(types.int64), codegen

    return const


def _lanes(*numba_types: Any) -> int:
    """Lanes of a line on values of these types, one of which may be wide."""
    return max(t.lanes if isinstance(t, wide.Wide) else 1 for t in numba_types)


def _dtype_of(numba_type: Any) -> np.dtype:
    if isinstance(numba_type, wide.Wide):
        return numba_type.dtype
    return np.dtype(bool) if isinstance(numba_type, types.Boolean) else np.dtype(str(numba_type))


@intrinsic
def word(typingctx, address, index):  # type: ignore[no-untyped-def]
    """The int64 at ``address + 8 * index``: a descriptor word, which no kernel ever writes."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = builder.gep(builder.inttoptr(args[0], I64.as_pointer()), [args[1]])
        value = builder.load(pointer, align=8)
        _tag(builder, value, 0)
        return value

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def quotient(typingctx, x, y):  # type: ignore[no-untyped-def]
    """``x // y`` of non-negative integers: one unsigned division, no sign fix-up."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.udiv(*args)

    return types.int64(types.int64, types.int64), codegen


def _index(dtype: np.dtype) -> Callable:
    """``index_u32(address, index)``: the number of the element there in an array that begins at address 0."""
    shift = dtype.itemsize.bit_length() - 1

    @intrinsic
    def element(typingctx, address, index):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            number = builder.add(builder.ashr(args[0], ir.Constant(I64, shift)), args[1])
            return number if dtype.itemsize == 8 else builder.trunc(number, ir.IntType(8 * dtype.itemsize))

        return from_dtype(dtype)(types.int64, types.int64), codegen

    return element


@intrinsic
def smaller(typingctx, x, y):  # type: ignore[no-untyped-def]
    """``min(x, y)`` of two int64."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.select(builder.icmp_signed("<", *args), *args)

    return types.int64(types.int64, types.int64), codegen


def _frame(builder: ir.IRBuilder, nbytes: int) -> ir.Value:
    with builder.goto_entry_block():
        room = builder.alloca(ir.ArrayType(ir.IntType(8), nbytes))
    room.align = 64
    return builder.ptrtoint(room, I64)


@intrinsic
def local(typingctx, number):  # type: ignore[no-untyped-def]
    """The address of ``LOCAL_BYTES`` in the kernel's frame; each call in a text has its own."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _frame(builder, LOCAL_BYTES)

    return types.int64(types.int64), codegen


@intrinsic
def piece(typingctx, number):  # type: ignore[no-untyped-def]
    """As `local`, of ``PIECE_BYTES``: a piece of a map's tile in the widest dtype."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _frame(builder, PIECE_BYTES)

    return types.int64(types.int64), codegen


_STREAMS = tuple(f"stream{ahead or ''}" for ahead in range(MOST_AHEAD + 1))


def _stream(ahead: int) -> Callable:
    """Copy past the cache, whose lines would be read from memory only to be overwritten; `streamed` ends it."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        variants.attribute(builder.function, '"prefer-vector-width"="512"')
        builder.call(streaming.copy(builder.module, ahead), args)
        return context.get_dummy_value()

    rule = types.void(*[types.int64] * (3 + ahead)), codegen
    names = ", ".join(["typingctx", "target", "source", "nbytes", *(f"there{i}" for i in range(ahead))])
    scope: dict[str, Any] = {"rule": rule}  # Numba wants an intrinsic's arguments by name
    exec(f"def stream({names}): return rule", scope)
    return intrinsic(scope["stream"])


@intrinsic
def streamed(typingctx):  # type: ignore[no-untyped-def]
    """What was copied past the cache comes before whatever follows."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


_ACCESS = re.compile(r"\b(load|store(\d+))_([a-z]+\d*)_phase(\d+)\b")
_DIVISION = re.compile(r"\b(div|sqrt)_fma(\d)\b")


def accesses(text: str, jit: bool) -> dict[str, Any]:
    """The loads and stores of a text's later phases, ``store0_f32_phase2``, of wide loops, and divisions in part by
    multiply-adds, ``div_fma1``: too many to bind them all."""
    found = wide.names(text, jit_namespace() if jit else python_namespace(), jit)
    by_name = {short(dtype): dtype for dtype in DTYPES}
    for match in _ACCESS.finditer(text):
        kind, k, d, phase = match.groups()
        if not jit:
            found[match[0]] = python_namespace()[f"{kind}_{d}"]
        elif k is None:
            found[match[0]] = _load(by_name[d], 0, int(phase))
        else:
            found[match[0]] = _store(by_name[d], int(k), int(phase))
    for match in _DIVISION.finditer(text):
        op, registers = match.groups()
        found[match[0]] = _line(op, int(registers)) if jit else python_namespace()[op]
    return found


@cache
def jit_namespace() -> dict[str, Any]:
    """The names of kernel text, bound to intrinsics."""
    names: dict[str, Any] = {"word": word, "quotient": quotient, "smaller": smaller, "local": local}
    names |= {"piece": piece, "streamed": streamed}
    names |= {name: _stream(ahead) for ahead, name in enumerate(_STREAMS)}
    for dtype in DTYPES:
        d = short(dtype)
        names |= {f"load_{d}": _load(dtype), f"accumulate_{d}": _accumulate(dtype)}
        names |= {f"cast_{d}": _cast(dtype), f"const_{d}": _const(dtype)}
        names |= {f"store{k}_{d}": _store(dtype, k) for k in range(MAX_STORES)}
        names |= {f"reload{k}_{d}": _load(dtype, 1 + k) for k in range(MAX_STORES)}
    names |= {f"index_{short(dtype)}": _index(dtype) for dtype in DTYPES if dtype.kind in "iu"}
    names |= extrema.jit_namespace()
    names |= {op_name(op): _line(op) for op in lines.OPS if op != "cast"}
    return names


@cache
def python_namespace() -> dict[str, Any]:
    """The same names, bound to plain Python over `ctypes`: obvious, slow, the kernels' twin."""

    def at(address: int, index: int, dtype: np.dtype) -> np.ndarray:
        raw: Any = (ctypes.c_char * dtype.itemsize).from_address(int(address) + int(index) * dtype.itemsize)
        return np.frombuffer(raw, dtype)

    def load(dtype: np.dtype) -> Callable:
        return lambda address, index: at(address, index, dtype)[0]

    def store(dtype: np.dtype) -> Callable:
        def put(address: int, index: int, value: Any) -> None:
            at(address, index, dtype)[0] = value

        return put

    rows: defaultdict[int, Any] = defaultdict(
        lambda: ctypes.create_string_buffer(max(LOCAL_BYTES, PIECE_BYTES))
    )
    names: dict[str, Any] = {
        "local": lambda number: ctypes.addressof(rows[number]),
        "piece": lambda number: ctypes.addressof(rows[number]),
        **dict.fromkeys(
            _STREAMS, lambda target, source, nbytes, *ahead: ctypes.memmove(target, source, nbytes)
        ),
        "streamed": lambda: None,
        "word": lambda address, index: int(at(address, index, np.dtype(np.int64))[0]),
        "quotient": lambda x, y: x // y,
        "smaller": min,
    }
    for dtype in DTYPES:
        d = short(dtype)
        names |= {f"load_{d}": load(dtype), f"accumulate_{d}": lines.TWINS["add"]}
        names |= {f"cast_{d}": lambda x, dtype=dtype: lines.TWINS["cast"](x, dtype)}
        names |= {f"const_{d}": lambda bits, dtype=dtype: np.array([bits], np.int64).view(dtype)[0]}
        names |= {f"store{k}_{d}": store(dtype) for k in range(MAX_STORES)}
        names |= {f"reload{k}_{d}": load(dtype) for k in range(MAX_STORES)}
        names[f"index_{d}"] = lambda address, index, dtype=dtype: dtype.type(
            address // dtype.itemsize + index
        )
    names |= extrema.python_namespace()
    names |= {op_name(op): lines.TWINS[op] for op in lines.OPS if op != "cast"}
    return names
