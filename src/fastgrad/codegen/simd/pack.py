"""Packing: rows of a panel side by side, where the microkernel's k loop reads them in order.

A panel is ``width`` columns of B, or as many rows of A; along k it is a sequence of rows of ``width`` elements. Both
functions copy ``depth`` of those to ``target``, where they lie without a gap. Elements from ``columns`` on are never read:
they become 0 (`pack_rows`) or, up to ``reach``, repeat the last one (`pack_columns`; what lies beyond stays as it is).

`panels` is the kernel of a step that packs a whole operand ahead of its product. Descriptor, int64 words:

    pointers    source, target
    sizes       batch, extent (the columns of B, the rows of A), K
    strides     of the source, in elements: batch, along the extent, along k

A tile is ``SLICE`` of K in all panels of one matrix: rows of the source are read from one end to the other. Where the
source's unit axis is k a tile is all of K in a share of the panels instead, if there are enough of them: so are those rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from . import lines, vec
from .bfloat16 import rounded_value
from .blocks import I32, I64, Definition, define, lane_mask, least, loop, read, tiles_of, word, write
from .tile import SLICE


def panels(dtype: np.dtype, lanes: int, width: int, unit: bool, rounded: bool = False) -> Any:
    """The intrinsic ``tiles(desc, lo, hi)``: pack those slices of the operand that ``desc`` describes; 0.

    ``unit`` promises that the source has unit stride along the extent; ``rounded``: float32 is rounded to bfloat16.
    """
    copy = (pack_rows if unit else pack_columns)(dtype, lanes, width, rounded)
    key = f"panels {dtype.name} {lanes} {width} {unit} {rounded}"
    function = define(key, 3, lambda b: _slices(b, dtype, width, unit, copy))

    return tiles_of(function)


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
        number = b.sub(t, b.mul(s, slices))
        first = b.mul(number, I64(SLICE))
        depth = least(b, I64(SLICE), b.sub(k, first))
        begin, end = I64(0), count
        if not unit:
            along = b.and_(b.icmp_signed("==", s_k, I64(size)), b.icmp_signed(">=", count, slices))
            first, depth = b.select(along, I64(0), first), b.select(along, k, depth)
            begin = b.select(along, b.udiv(b.mul(count, number), slices), begin)
            end = b.select(along, b.udiv(b.mul(count, b.add(number, I64(1))), slices), end)
        here = b.add(b.add(source, b.mul(s, s_batch)), b.mul(first, s_k))
        there = b.add(target, b.mul(b.mul(s, count), panel_bytes))
        there = b.add(there, b.mul(first, I64(width * size)))
        with loop(b, end, start=begin) as q:
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
                    I64(width),
                ],
            )


def pack_rows(dtype: np.dtype, lanes: int, width: int, rounded: bool = False) -> Definition:
    """copy(source, stride along k, stride along the extent, depth, columns, target, reach), the extent contiguous.

    ``rounded``: numbers become the nearest bfloat16.
    """

    def build(b: ir.IRBuilder) -> None:
        source, s_k, _, depth, columns, target, _ = b.function.args
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

    return define(f"pack_rows {dtype.name} {lanes} {width} {rounded}", 7, build)


def pack_columns(dtype: np.dtype, lanes: int, width: int, rounded: bool = False) -> Definition:
    """The same for a source of any strides.

    Where k is its unit axis (a transposed row-major matrix, as in dX = dY @ W.T) 16 bytes of each column are loaded at
    a time: half a vector of columns, or less, is transposed within blocks of 16 bytes, by two rounds of unpacking.
    """
    size = dtype.itemsize
    part = 16 // size  # of k
    n = min(lanes, 2 * part)  # columns

    def build(b: ir.IRBuilder) -> None:
        source, s_k, s_along, depth, columns, target, reach = b.function.args
        last = b.sub(columns, I64(1))
        whole = width % n == 0
        blocks = b.select(b.icmp_signed("==", s_k, I64(size)), b.and_(depth, I64(-part)), I64(0))
        with loop(b, blocks, SLICE) as first, loop(b, reach, n) as j:
            here = [b.add(source, b.mul(s_along, least(b, b.add(j, I64(c)), last))) for c in range(n)]
            fits = None if whole else lane_mask(b, n, b.sub(I64(width), j), 0)
            there = b.add(target, b.mul(j, I64(size)))
            with loop(b, least(b, blocks, b.add(first, I64(SLICE))), part, start=first) as k:
                along, row = b.mul(k, I64(size)), b.mul(k, I64(width * size))
                for r, value in enumerate(_transposed(b, dtype, [b.add(h, along) for h in here])):
                    at = b.add(there, b.add(row, I64(r * width * size)))
                    value = rounded_value(b, value) if rounded else value
                    write(b, value, at, n * size if whole else size, fits)
        with loop(b, depth, start=blocks) as k, loop(b, reach) as j:
            here = b.add(b.add(source, b.mul(k, s_k)), b.mul(s_along, least(b, j, last)))
            there = b.mul(b.add(b.mul(k, I64(width)), j), I64(size))
            value = read(b, lines.ir_type(dtype), here, size)
            write(b, rounded_value(b, value) if rounded else value, b.add(target, there), size)

    return define(f"pack_columns {dtype.name} {lanes} {width} {rounded}", 7, build)


def _transposed(b: ir.IRBuilder, dtype: np.dtype, columns: list[ir.Value]) -> list[ir.Value]:
    """16 bytes from each address, transposed: perfect shuffles, of which machines have the halves as one instruction."""
    part, n = 16 // dtype.itemsize, len(columns)
    narrow = [read(b, lines.ir_type(dtype, part), at, dtype.itemsize) for at in columns]
    rows = []
    for r in range(part):  # columns r, part + r, ... one behind the other
        row = narrow[r::part]
        while len(row) > 1:
            row = [
                _shuffled(b, x, y, range(2 * vec.lanes(x.type)))
                for x, y in zip(row[::2], row[1::2], strict=True)
            ]
        rows += row
    blocks = range(0, n, part)
    for _ in range(part.bit_length() - 1):
        pairs = zip(rows[: part // 2], rows[part // 2 :], strict=True)
        rows = [
            _shuffled(b, x, y, [at + c + i + s for at in blocks for i in range(part // 2) for s in (0, n)])
            for x, y in pairs
            for c in (0, part // 2)
        ]
    return rows


def _shuffled(b: ir.IRBuilder, x: ir.Value, y: ir.Value, lanes: Sequence[int]) -> ir.Value:
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))
