"""A matrix times one vector: products with a single row or a single column, as LLVM functions over raw addresses.

A register tile of rows and columns would repeat the one row, or leave all lanes but one idle. Nothing is read twice here,
so nothing is packed: the matrix is read once, the way it lies, as fast as loads come.

    combine(...)    sums[c] = sum_k x[k] * w[k, c], c contiguous: eight vectors of columns, k ascending
    dots(...)       sums[r] = sum_k x[k] * w[r, k], k contiguous: eight rows, the lanes' sums added at the end
    vector(...)     the loops around them, for the tiles that `macrokernel` hands over, and the epilogue

`combine` gives the bits of the register tiles. `dots` adds in another order, the same for any split of the tiles. Arguments
are int64; strides are in bytes.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from . import lines, vec
from .blocks import (
    I32,
    I64,
    Definition,
    define,
    greatest,
    lane_mask,
    least,
    loop,
    opaque,
    read,
    scratch,
    word,
    write,
)
from .epilogue import Arrays, finish
from .tile import AHEAD, Tile


def vector(dtype: np.dtype, arrays: Arrays, b_unit: bool) -> Definition:
    """vector(desc, lo, hi, down, dotted): tiles of a product with n = 1 (``down``: the matrix is A) or m = 1 (it is B).

    ``dotted``: k is contiguous in matrix and vector, otherwise the matrix's other axis is. Tiles of one matrix follow each
    other along it, so they are taken together.
    """
    tile, words, size = arrays.tile, arrays.words, dtype.itemsize
    step = AHEAD * tile.lanes
    parts = (combine(dtype, tile), dots(dtype, tile), finish(dtype, arrays))

    def build(b: ir.IRBuilder) -> None:
        combined, dotted_, finished = (part(b.module) for part in parts)
        desc, lo, hi, down, dotted = b.function.args
        down, dotted = (b.icmp_signed("!=", flag, I64(0)) for flag in (down, dotted))
        m, n, k = (word(b, desc, words.sizes + x) for x in (1, 2, 3))
        a_batch, _, a_row, a_k, b_batch, _, b_k, b_j = (
            b.mul(word(b, desc, words.a + x), I64(size)) for x in range(8)
        )
        a = (word(b, desc, 0), a_batch, a_row, a_k)
        b_ = (word(b, desc, 1), b_batch, I64(size) if b_unit else b_j, b_k)
        matrix, w_batch, w_step, w_k = (b.select(down, x, y) for x, y in zip(a, b_, strict=True))
        x, x_batch, _, x_k = (b.select(down, y, x) for x, y in zip(a, b_, strict=True))
        extent = b.select(down, m, n)
        span = b.select(down, word(b, desc, words.row_block), I64(tile.width))
        count = greatest(b, b.udiv(b.add(extent, b.sub(span, I64(1))), span), I64(1))
        sums = scratch(b, (step + tile.width) * size)  # `finish` reads whole vectors from any of them on
        frame = arrays.open_frame(b)
        batches = b.udiv(b.add(hi, b.sub(count, I64(1))), count)
        with loop(b, batches, start=b.udiv(lo, count)) as s:
            before = b.mul(s, count)
            first = b.mul(greatest(b, b.sub(lo, before), I64(0)), span)
            end = opaque(b, least(b, extent, b.mul(least(b, b.sub(hi, before), count), span)))
            x_at = b.add(x, b.mul(s, x_batch))
            w_at = b.add(matrix, b.mul(s, w_batch))
            with loop(b, end, step, start=first) as c:
                here = opaque(b, least(b, I64(step), b.sub(end, c)))
                w = b.add(w_at, b.mul(c, w_step))
                with b.if_else(dotted) as (inside, across):
                    with inside, loop(b, here, AHEAD) as r:
                        w_r, target = b.add(w, b.mul(r, w_step)), b.add(sums, b.mul(r, I64(size)))
                        b.call(dotted_, [x_at, w_r, w_step, k, b.sub(here, r), target])
                    with across:
                        b.call(combined, [x_at, x_k, w, w_k, k, here, sums])
                with loop(b, here, b.select(down, I64(step), I64(tile.width))) as j:
                    wide = least(b, I64(tile.width), b.sub(here, j))
                    (i, rows, column, columns) = (
                        b.select(down, x, y)
                        for x, y in ((c, I64(0)), (here, I64(1)), (I64(0), b.add(c, j)), (I64(1), wide))
                    )
                    arrays.fill_frame(b, frame, desc, s, I64(0), column)
                    b.call(
                        finished,
                        [frame, desc, i, rows, columns, b.add(sums, b.mul(j, I64(size))), I64(size)],
                    )

    return define(f"vector {dtype.name} {arrays!r} {b_unit}", 5, build)


def combine(dtype: np.dtype, tile: Tile) -> Definition:
    """combine(x, x_k, w, w_k, depth, columns, sums) for at most ``AHEAD`` vectors of columns; the sums are whole vectors."""
    lanes, size = tile.lanes, dtype.itemsize

    def build(b: ir.IRBuilder) -> None:
        columns = b.function.args[5]
        full = b.icmp_signed("==", columns, I64(AHEAD * lanes))
        with b.if_else(full) as (whole, part):
            for masked, block in ((False, whole), (True, part)):
                with block:
                    _combine(b, dtype, tile, masked)

    def _combine(b: ir.IRBuilder, dtype: np.dtype, tile: Tile, masked: bool) -> None:
        x, x_k, w, w_k, depth, columns, sums = b.function.args
        scalar, vector = lines.ir_type(dtype), lines.ir_type(dtype, lanes)
        masks = [lane_mask(b, lanes, columns, v) if masked else None for v in range(AHEAD)]
        before = b.block
        head, body, done = (b.append_basic_block(name) for name in ("k.head", "k.body", "k.done"))
        b.branch(head)
        b.position_at_end(head)
        k, x_at, w_at = (b.phi(I64) for _ in range(3))
        acc = [b.phi(vector) for _ in range(AHEAD)]
        for phi, value in zip((k, x_at, w_at), (I64(0), x, w), strict=True):
            phi.add_incoming(value, before)
        for a in acc:
            a.add_incoming(ir.Constant(vector, None), before)
        b.cbranch(b.icmp_signed("<", k, depth), body, done)
        b.position_at_end(body)
        wide = vec.splat(b, read(b, scalar, x_at, size), lanes)
        for v, a in enumerate(acc):
            row = read(b, vector, b.add(w_at, I64(v * lanes * size)), size, masks[v])
            a.add_incoming(vec.multiply_add(b, wide, row, a, tile.fused), body)
        for phi, by in ((k, I64(1)), (x_at, x_k), (w_at, w_k)):
            phi.add_incoming(b.add(phi, by), body)
        b.branch(head)
        b.position_at_end(done)
        for v, a in enumerate(acc):
            write(b, a, b.add(sums, I64(v * lanes * size)), 64)

    return define(f"combine {dtype.name} {lanes} {tile.fused}", 7, build)


def dots(dtype: np.dtype, tile: Tile) -> Definition:
    """dots(x, w, w_row, depth, rows, sums) for up to ``AHEAD`` rows, the last one repeated; always writes ``AHEAD`` sums."""
    lanes, size = tile.lanes, dtype.itemsize
    vector = lines.ir_type(dtype, lanes)

    def build(b: ir.IRBuilder) -> None:
        x, w, w_row, depth, rows, sums = b.function.args
        last = b.sub(rows, I64(1))
        offsets = [b.mul(w_row, least(b, I64(r), last)) for r in range(AHEAD)]
        before = b.block
        head, body, done = (b.append_basic_block(name) for name in ("k.head", "k.body", "k.done"))
        b.branch(head)
        b.position_at_end(head)
        k = b.phi(I64)
        acc = [b.phi(vector) for _ in range(AHEAD)]
        k.add_incoming(I64(0), before)
        for a in acc:
            a.add_incoming(ir.Constant(vector, None), before)
        b.cbranch(b.icmp_signed("<", k, depth), body, done)
        b.position_at_end(body)
        mask = lane_mask(b, lanes, least(b, b.sub(depth, k), I64(lanes)), 0)  # a mask counts in 32 bits
        along = b.mul(k, I64(size))
        of_x, at = read(b, vector, b.add(x, along), size, mask), b.add(w, along)
        for a, offset in zip(acc, offsets, strict=True):
            of_w = read(b, vector, b.add(at, offset), size, mask)
            a.add_incoming(vec.multiply_add(b, of_x, of_w, a, tile.fused), body)
        k.add_incoming(b.add(k, I64(lanes)), body)
        b.branch(head)
        b.position_at_end(done)
        for r, value in enumerate(_across(b, acc, size)):
            write(b, value, b.add(sums, I64(r * vec.lanes(value.type) * size)), size)

    return define(f"dots {dtype.name} {lanes} {tile.fused}", 6, build)


def _across(b: ir.IRBuilder, rows: list[ir.Value], size: int) -> list[ir.Value]:
    """The sum of the lanes of each vector, side by side in vectors of 16 bytes: neighbours are added, then such parts."""
    lanes, part = vec.lanes(rows[0].type), 16 // size

    def added(x: ir.Value, y: ir.Value, low: list[int], high: list[int]) -> ir.Value:
        masks = [ir.Constant(ir.VectorType(I32, len(m)), m) for m in (low, high)]
        return vec.add(b, *(b.shuffle_vector(x, y, mask) for mask in masks))

    even = [
        at + c for at in range(0, lanes, part) for first in (0, lanes) for c in range(first, first + part, 2)
    ]
    out = []
    for first in range(0, len(rows), part):
        group = rows[first : first + part]
        while len(group) > 1:
            group = [
                added(x, y, even, [c + 1 for c in even]) for x, y in zip(group[::2], group[1::2], strict=True)
            ]
        (value,) = group
        for half in (lanes // 2, lanes // 4, lanes // 8):
            if half >= part:
                value = added(value, value, list(range(half)), list(range(half, 2 * half)))
        out.append(value)
    return out
