"""Packing a panel of B: its rows, side by side and aligned, where the microkernel's k loop reads them in order."""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from . import lines
from .blocks import I32, I64, Definition, define, lane_mask, least, loop, read, write
from .tile import Tile


def pack_rows(dtype: np.dtype, tile: Tile) -> Definition:
    """copy: ``depth`` rows of a panel of B, columns contiguous, to aligned rows of ``tile.width`` at ``panel``."""

    def build(b: ir.IRBuilder) -> None:
        b_base, b_k, _, depth, columns, panel = b.function.args
        vector = lines.ir_type(dtype, tile.lanes)
        masks = [lane_mask(b, tile.lanes, columns, v) for v in range(tile.vectors)]
        with loop(b, depth) as k:
            source = b.add(b_base, b.mul(k, b_k))
            target = b.add(panel, b.mul(k, I64(tile.width * dtype.itemsize)))
            for v, mask in enumerate(masks):
                step = I64(v * tile.lanes * dtype.itemsize)
                value = read(b, vector, b.add(source, step), dtype.itemsize, mask)
                write(b, value, b.add(target, step), 16)

    return define(f"pack_rows {dtype.name} {tile!r}", 6, build)


def pack_columns(dtype: np.dtype, tile: Tile) -> Definition:
    """copy: copy ``depth`` rows of a panel of B, of any strides, to rows of ``tile.width`` at ``panel``.

    Columns from ``columns`` on repeat the last one, and are never read. Where B's rows are the unit axis (a transposed
    row-major matrix, as in dX = dY @ W.T) squares are transposed in registers.
    """

    def build(b: ir.IRBuilder) -> None:
        b_base, b_k, b_j, depth, columns, panel = b.function.args
        size = dtype.itemsize
        n = min(tile.lanes, 8)  # LLVM takes minutes over the shuffles of a 16 x 16 square
        scalar, vector = lines.ir_type(dtype), lines.ir_type(dtype, n)
        last = b.sub(columns, I64(1))
        with b.if_else(b.icmp_signed("==", b_k, I64(size))) as (transposed, strided):
            with transposed, loop(b, depth, n) as k, loop(b, I64(tile.width), n) as j:
                mask = lane_mask(b, n, b.sub(depth, k), 0)
                square = []
                for c in range(n):
                    column = b.mul(b_j, least(b, b.add(j, I64(c)), last))
                    there = b.add(b.add(b_base, column), b.mul(k, I64(size)))
                    square.append(read(b, vector, there, size, mask))
                for r, value in enumerate(_transpose(b, square)):
                    there = b.add(b.mul(b.add(k, I64(r)), I64(tile.width * size)), b.mul(j, I64(size)))
                    write(b, value, b.add(panel, there), n * size)
            with strided, loop(b, depth) as k, loop(b, I64(tile.width)) as j:
                there = b.add(b.add(b_base, b.mul(k, b_k)), b.mul(b_j, least(b, j, last)))
                here = b.mul(b.add(b.mul(k, I64(tile.width)), j), I64(size))
                write(b, read(b, scalar, there, size), b.add(panel, here), size)

    return define(f"pack_columns {dtype.name} {tile!r}", 6, build)


def _transpose(b: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
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
