"""Loops whose vectors are ours, not LLVM's: a step of several vectors, its rest under a mask.

    for part in range(2):                       # whole steps; then what is left, in one step under a mask
        m = mask_w4x2(part, first, last)        # two vectors of elements of four bytes
        for i in range(begin_w4x2(part, first, last), end_w4x2(part, first, last), step_w4x2()):
            v0 = load_f32_w4x2(x0k, i, m)
            t0 = tanh(v0)
            store0_f32_w4x2(y0k, i, m, t0)

A fold keeps a total in each lane, from ``each_f32_w4x2(neutral)`` on; lanes beyond the end add ``kept_f32_w4x2(m, value,
neutral)``, and ``total_add_f32_w4x2(a0)`` is that of all lanes, halves with halves. ``ahead_f32_w4x2(x0k + 8192, i)`` asks
for the lines of a step that is read later, which need not be there at all: a core looks ahead by as many instructions as it
holds, which is some ten vectors of a loop with functions, too few where arrays are in memory.

The values are Numba values of the type `Wide`, which LLVM knows as ``<32 x float>`` and takes apart into registers: one
instruction of each vector in turn, so that no vector's chain of dependent steps is waited for. The lines are those of a
scalar loop. Where the host has no AVX-512 a step is one element, and LLVM makes the vectors as in any other loop.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from ...core.aval import DTYPES, short
from ..target import cpu_features
from . import blocks, lines, variants, vec

_NAME = re.compile(
    r"\b(?:(mask|begin|end|step)|(load|ahead|store(\d+)|each|kept|total_[a-z]+)_([a-z]+\d*))_w(\d)x(\d)\b"
)
VECTOR_BYTES = 64


class Wide(types.Type):
    """Several vectors of one dtype as a value of Numba's."""

    def __init__(self, dtype: np.dtype, lanes: int):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(f"wide {short(dtype)} x {lanes}")


@register_model(Wide)
class _WideModel(models.PrimitiveModel):
    def __init__(self, manager, it):  # type: ignore[no-untyped-def]
        super().__init__(manager, it, lines.ir_type(it.dtype, it.lanes))


def lanes(itemsize: int, vectors: int) -> int:
    """Elements of a step on this machine: 1 where LLVM makes the vectors."""
    features = cpu_features()
    has = all(features.get(name, False) for name in ("avx512f", "avx512bw", "avx512dq", "avx512vl"))
    return vectors * VECTOR_BYTES // itemsize if has else 1


def numba_type(dtype: np.dtype, n: int) -> Any:
    """The type of a value of ``n`` lanes; of one, Numba's own."""
    from numba.np.numpy_support import from_dtype

    return Wide(dtype, n) if n > 1 else from_dtype(dtype)


def splat(b: ir.IRBuilder, value: ir.Value, n: int) -> ir.Value:
    """A scalar in each lane; a vector as it is."""
    return value if vec.lanes(value.type) or n == 1 else vec.splat(b, value, n)


def _widest(b: ir.IRBuilder) -> None:
    for text in ('"prefer-vector-width"="512"', '"min-legal-vector-width"="512"'):
        variants.attribute(b.function, text)


def _mask(b: ir.IRBuilder, bits: ir.Value, n: int) -> ir.Value:
    return b.bitcast(b.trunc(bits, ir.IntType(n)) if n < 64 else bits, ir.VectorType(vec.BIT, n))


@cache
def _load(dtype: np.dtype, n: int) -> Callable:
    result, memory = numba_type(dtype, n), lines.memory_type(dtype, n)

    @intrinsic
    def load(typingctx, address, index, mask):  # type: ignore[no-untyped-def]
        def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
            _widest(b)
            at = b.add(args[0], b.mul(args[1], ir.IntType(64)(dtype.itemsize)))
            value = blocks.read(b, memory, at, dtype.itemsize, _mask(b, args[2], n))
            return lines.from_memory(b, value, dtype)

        return result(types.int64, types.int64, types.int64), codegen

    return load


@cache
def _store(dtype: np.dtype, n: int) -> Callable:
    @intrinsic
    def store(typingctx, address, index, mask, value):  # type: ignore[no-untyped-def]
        def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
            at = b.add(args[0], b.mul(args[1], ir.IntType(64)(dtype.itemsize)))
            stored = lines.to_memory(b, splat(b, args[3], n), dtype)
            blocks.write(b, stored, at, dtype.itemsize, _mask(b, args[2], n))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, value), codegen

    return store


@cache
def _each(dtype: np.dtype, n: int) -> Callable:
    result = numba_type(dtype, n)

    @intrinsic
    def each(typingctx, value):  # type: ignore[no-untyped-def]
        return result(value), lambda context, b, signature, args: splat(b, args[0], n)

    return each


@cache
def _kept(dtype: np.dtype, n: int) -> Callable:
    result = numba_type(dtype, n)

    @intrinsic
    def kept(typingctx, mask, value, neutral):  # type: ignore[no-untyped-def]
        def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
            return b.select(_mask(b, args[0], n), splat(b, args[1], n), splat(b, args[2], n))

        return result(types.int64, value, neutral), codegen

    return kept


@cache
def _ahead(dtype: np.dtype, n: int) -> Callable:
    @intrinsic
    def ahead(typingctx, address, index):  # type: ignore[no-untyped-def]
        def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
            i64 = ir.IntType(64)
            # In a register of its own: the move keeps the prefetch and the load apart by eight bytes of code. Where both
            # begin in the same eight, the prefetcher that follows single loads takes them for one: 21 or 18 GB/s.
            at = blocks.opaque(b, b.add(args[0], b.mul(args[1], i64(dtype.itemsize))))
            for line in range(0, n * dtype.itemsize, VECTOR_BYTES):
                blocks.fetch(b, b.add(at, i64(line)), nearest=True)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return ahead


_ANY = {"most": ">", "least": "<"}
"""Totals of what is no NaN."""


@cache
def _total(combine: str, dtype: np.dtype, n: int) -> Callable:
    """Halves are combined with halves, in the same order always."""

    @intrinsic
    def total(typingctx, lanes):  # type: ignore[no-untyped-def]
        def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
            x, count = args[0], n
            while count > 1:
                count //= 2
                undefined = ir.Constant(x.type, ir.Undefined)
                number = ir.VectorType(ir.IntType(32), count)
                low, high = (
                    b.shuffle_vector(x, undefined, ir.Constant(number, list(range(k, k + count))))
                    for k in (0, count)
                )
                if combine in _ANY:
                    x = b.select(b.fcmp_ordered(_ANY[combine], high, low), high, low)
                else:
                    x = lines.emit(combine, b, [low, high], (dtype, dtype), dtype)
            return b.extract_element(x, ir.IntType(32)(0))

        return numba_type(dtype, 1)(lanes), codegen

    return total


@cache
def _counter(kind: str, n: int) -> Callable:
    """Where a part begins and ends, and the mask of its steps as bits of an int64."""
    i64 = ir.IntType(64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        part, first, last = args
        whole = b.sub(last, b.and_(b.sub(last, first), i64(n - 1)))
        rest = b.icmp_signed("!=", part, i64(0))
        if kind == "begin":
            return b.select(rest, whole, first)
        if kind == "end":
            return b.select(rest, last, whole)
        some = b.sub(b.shl(i64(1), b.sub(last, whole)), i64(1))
        return b.select(rest, some, i64(-1))

    @intrinsic
    def counter(typingctx, part, first, last):  # type: ignore[no-untyped-def]
        return types.int64(types.int64, types.int64, types.int64), codegen

    return counter


@cache
def _step(n: int) -> Callable:
    @intrinsic
    def step(typingctx):  # type: ignore[no-untyped-def]
        return types.int64(), lambda context, b, signature, args: ir.IntType(64)(n)

    return step


def names(text: str, scalar: dict[str, Any], jit: bool) -> dict[str, Any]:
    """What a text calls of this file, and what stands for it: on ``scalar`` names where a step is one element."""
    by_name = {short(dtype): dtype for dtype in DTYPES}
    found: dict[str, Any] = {}
    for match in _NAME.finditer(text):
        counter, access, k, dtype, itemsize, vectors = match.groups()
        n = lanes(int(itemsize), int(vectors)) if jit else 1
        if counter and not jit:
            found[match[0]] = _TWINS[counter]
        elif counter:
            found[match[0]] = _step(n) if counter == "step" else _counter(counter, n)
        elif n == 1:
            plain = _one_element(access, k is not None, scalar.get(f"{access}_{dtype}"))
            found[match[0]] = _inlined(plain) if jit else plain
        else:
            found[match[0]] = _access(access, k is not None, by_name[dtype], n)
    return found


def _access(name: str, stores: bool, dtype: np.dtype, n: int) -> Callable:
    if name.startswith("total_"):
        return _total(name.removeprefix("total_"), dtype, n)
    makers = {"load": _load, "ahead": _ahead, "each": _each, "kept": _kept}
    return _store(dtype, n) if stores else makers[name](dtype, n)


@cache
def _one_element(name: str, stores: bool, access: Callable | None) -> Callable:
    """The same in steps of one element, on the scalar ``access``; nothing is under a mask."""
    if name == "each" or name.startswith("total_"):
        return lambda value: value
    if name == "kept":
        return lambda mask, value, neutral: value
    if name == "ahead":
        return lambda address, index: None
    assert access is not None
    if stores:
        return lambda address, index, mask, value: access(address, index, value)
    return lambda address, index, mask: access(address, index)


@cache
def _inlined(function: Callable) -> Callable:
    """As a function that Numba inlines."""
    from numba import njit

    return njit(function, inline="always")


_TWINS: dict[str, Callable] = {
    "mask": lambda part, first, last: 0,
    "begin": lambda part, first, last: last if part else first,
    "end": lambda part, first, last: last,
    "step": lambda: 1,
}
