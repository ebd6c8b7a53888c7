"""Packing: rows of a panel side by side, where the microkernel's k loop reads them in order.

A panel is ``width`` columns of B, or as many rows of A; along k it is a sequence of rows of ``width`` elements. Both
functions copy ``depth`` of those to ``target``, where they lie without a gap. Elements from ``columns`` on are never read:
they become 0 (`pack_rows`) or repeat the last one (`pack_columns`).

`panels` is the kernel of a step that packs a whole operand ahead of its product. Descriptor, int64 words:

    pointers    source, target
    sizes       batch, extent (the columns of B, the rows of A), K
    strides     of the source, in elements: batch, along the extent, along k

A tile is ``SLICE`` of K in all panels of one matrix: rows of the source are read from one end to the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import lines
from .bfloat16 import rounded_value
from .blocks import I32, I64, Definition, define, lane_mask, least, loop, read, word, write
from .tile import SLICE


def panels(dtype: np.dtype, lanes: int, width: int, unit: bool, rounded: bool = False) -> Any:
    """The intrinsic ``tiles(desc, lo, hi)``: pack those slices of the operand that ``desc`` describes; 0.

    ``unit`` promises that the source has unit stride along the extent; ``rounded``: float32 is rounded to bfloat16.
    """
    copy = (pack_rows if unit else pack_columns)(dtype, lanes, width, rounded)
    key = f"panels {dtype.name} {lanes} {width} {unit} {rounded}"
    function = define(key, 3, lambda b: _slices(b, dtype, width, unit, copy))

    @intrinsic
    def tiles(typingctx, desc, lo, hi):  # type: ignore[no-untyped-def]
        def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
            b.call(function(b.module), args)
            return I64(0)

        return types.int64(types.int64, types.int64, types.int64), codegen

    return tiles


def _slices(b: ir.IRBuilder, dtype: np.dtype, width: int, unit: bool, copy: Definition) -> None:
    desc, lo, hi = b.function.args
    copy, size = copy(b.module), dtype.itemsize
    source, target, _, extent, k = (word(b, desc, x) for x in range(5))
    s_batch, s_along, s_k = (b.mul(word(b, desc, 5 + x), I64(size)) for x in range(3))
    s_along = I64(size) if unit else s_along
    count = b.udiv(b.add(extent, I64(width - 1)), I64(width))
    panel_bytes = b.mul(k, I64(width * size))
    slices = b.udiv(b.add(k, I64(SLICE - 1)), I64(SLICE))
    with loop(b, hi, start=lo) as t:
        s = b.udiv(t, slices)
        first = b.mul(b.sub(t, b.mul(s, slices)), I64(SLICE))
        depth = least(b, I64(SLICE), b.sub(k, first))
        here = b.add(b.add(source, b.mul(s, s_batch)), b.mul(first, s_k))
        there = b.add(target, b.mul(b.mul(s, count), panel_bytes))
        there = b.add(there, b.mul(first, I64(width * size)))
        with loop(b, count) as q:
            at = b.mul(q, I64(width))
            columns = least(b, I64(width), b.sub(extent, at))
            b.call(
                copy,
                [
                    b.add(here, b.mul(at, s_along)),
                    s_k,
                    s_along,
                    depth,
                    columns,
                    b.add(there, b.mul(q, panel_bytes)),
                ],
            )


def pack_rows(dtype: np.dtype, lanes: int, width: int, rounded: bool = False) -> Definition:
    """copy(source, stride along k, stride along the extent, depth, columns, target) where the extent is contiguous."""

    def build(b: ir.IRBuilder) -> None:
        source, s_k, _, depth, columns, target = b.function.args
        size, vector = dtype.itemsize, lines.ir_type(dtype, lanes)
        parts = -(-width // lanes)
        loads = [lane_mask(b, lanes, columns, v) for v in range(parts)]
        stores = [
            lane_mask(b, lanes, I64(width), v) if (v + 1) * lanes > width else None for v in range(parts)
        ]
        align = 16 if width % lanes == 0 else size
        with loop(b, depth) as k:
            here, there = b.add(source, b.mul(k, s_k)), b.add(target, b.mul(k, I64(width * size)))
            for v in range(parts):
                step = I64(v * lanes * size)
                value = read(b, vector, b.add(here, step), size, loads[v])
                value = rounded_value(b, value) if rounded else value
                write(b, value, b.add(there, step), align, stores[v])

    return define(f"pack_rows {dtype.name} {lanes} {width} {rounded}", 6, build)


def pack_columns(dtype: np.dtype, lanes: int, width: int, rounded: bool = False) -> Definition:
    """The same for a source of any strides.

    Where k is its unit axis (a transposed row-major matrix, as in dX = dY @ W.T) squares are transposed in registers.
    """

    def build(b: ir.IRBuilder) -> None:
        source, s_k, s_along, depth, columns, target = b.function.args
        size = dtype.itemsize
        n = min(lanes, 8)  # LLVM takes minutes over the shuffles of a 16 x 16 square
        scalar, vector = lines.ir_type(dtype), lines.ir_type(dtype, n)
        last = b.sub(columns, I64(1))
        whole = width % n == 0
        with b.if_else(b.icmp_signed("==", s_k, I64(size))) as (turned, strided):
            with turned, loop(b, depth, n) as k, loop(b, I64(width), n) as j:
                mask = lane_mask(b, n, b.sub(depth, k), 0)
                square = []
                for c in range(n):
                    column = b.mul(s_along, least(b, b.add(j, I64(c)), last))
                    here = b.add(b.add(source, column), b.mul(k, I64(size)))
                    value = read(b, vector, here, size, mask)
                    square.append(rounded_value(b, value) if rounded else value)
                fits = None if whole else lane_mask(b, n, b.sub(I64(width), j), 0)
                for r, value in enumerate(transposed(b, square)):
                    there = b.add(b.mul(b.add(k, I64(r)), I64(width * size)), b.mul(j, I64(size)))
                    with b.if_then(b.icmp_signed("<", b.add(k, I64(r)), depth), likely=True):
                        write(b, value, b.add(target, there), n * size if whole else size, fits)
            with strided, loop(b, depth) as k, loop(b, I64(width)) as j:
                here = b.add(b.add(source, b.mul(k, s_k)), b.mul(s_along, least(b, j, last)))
                there = b.mul(b.add(b.mul(k, I64(width)), j), I64(size))
                value = read(b, scalar, here, size)
                write(b, rounded_value(b, value) if rounded else value, b.add(target, there), size)

    return define(f"pack_columns {dtype.name} {lanes} {width} {rounded}", 6, build)


def transposed(b: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """Transpose a square of vectors: log2(n) rounds, each swapping the off-diagonal halves of blocks twice the size."""
    n, rows = len(rows), list(rows)
    half = 1
    while half < n:
        low = ir.Constant(ir.VectorType(I32, n), [c if not c & half else n + c - half for c in range(n)])
        high = ir.Constant(ir.VectorType(I32, n), [c + half if not c & half else n + c for c in range(n)])
        for r in range(n):
            if not r & half:
                upper, lower = rows[r], rows[r + half]
                rows[r], rows[r + half] = (
                    b.shuffle_vector(upper, lower, low),
                    b.shuffle_vector(upper, lower, high),
                )
        half *= 2
    return rows
