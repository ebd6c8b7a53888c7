"""A matrix times one vector: products with a single row or a single column, as LLVM functions over raw addresses.

A register tile of rows and columns would repeat the one row, or leave all lanes but one idle. Nothing is read twice here,
so nothing is packed: the matrix is read once, the way it lies, as fast as loads come.

    combine(...)    sums[c] = sum_k x[k] * w[k, c], c contiguous: eight vectors of columns in registers, k ascending
    spread(...)     the same for more columns, eight rows of w at a time: sums in the first-level cache, eight streams of w
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
from .tile import AHEAD, LINE, LONG, SPREAD, Tile


def vector(dtype: np.dtype, arrays: Arrays, b_unit: bool) -> Definition:
    """vector(desc, lo, hi, down, dotted): tiles of a product with n = 1 (``down``: the matrix is A) or m = 1 (it is B).

    ``dotted``: k is contiguous in matrix and vector, otherwise the matrix's other axis is. Tiles of one matrix follow each
    other along it, so they are taken together.
    """
    tile, words, size = arrays.tile, arrays.words, dtype.itemsize
    few, step = AHEAD * tile.lanes, SPREAD * tile.lanes
    parts = (combine(dtype, tile), spread(dtype, tile), dots(dtype, tile), finish(dtype, arrays))

    def build(b: ir.IRBuilder) -> None:
        combined, spread_, dotted_, finished = (part(b.module) for part in parts)
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
        # `finish` reads whole vectors from any sum on; the first may stand anywhere in a line.
        room = scratch(b, LINE + (step + tile.width) * size)
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
                many = b.and_(b.not_(dotted), b.icmp_signed(">", here, I64(few)))
                sums = b.add(room, b.select(many, b.and_(w, I64(-size & (LINE - 1))), I64(0)))
                with b.if_else(dotted) as (inside, across):
                    with inside, loop(b, here, AHEAD) as r:
                        w_r, target = b.add(w, b.mul(r, w_step)), b.add(sums, b.mul(r, I64(size)))
                        b.call(dotted_, [x_at, w_r, w_step, k, b.sub(here, r), target])
                    with across, b.if_else(many) as (wide, narrow):
                        with wide:
                            b.call(spread_, [x_at, x_k, w, w_k, k, here, sums])
                        with narrow:
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


def spread(dtype: np.dtype, tile: Tile) -> Definition:
    """spread(x, x_k, w, w_k, depth, columns, sums) for many columns; the sums stand in their lines as columns of w do.

    Vectors of w then never lie in two lines where rows are whole lines apart. What the first vector holds before the
    first column is left alone, likewise the last one after the last.
    """
    lanes, size = tile.lanes, dtype.itemsize
    scalar, vector = lines.ir_type(dtype), lines.ir_type(dtype, lanes)

    def build(b: ir.IRBuilder) -> None:
        x, x_k, w, w_k, depth, columns, sums = b.function.args
        skip = b.udiv(b.and_(w, I64(-size & (lanes * size - 1))), I64(size))
        w, sums = (b.sub(at, b.mul(skip, I64(size))) for at in (w, sums))
        end = b.add(skip, columns)
        last = b.and_(b.sub(end, I64(1)), I64(-lanes))
        with loop(b, end, lanes) as c:
            write(b, ir.Constant(vector, None), b.add(sums, b.mul(c, I64(size))), lanes * size)
        eights = b.and_(depth, I64(-AHEAD))

        def rows(k: ir.Value, count: int) -> None:
            """Rows k to k + count of w, vector by vector: the first and the last under masks."""
            factors = [
                vec.splat(b, read(b, scalar, b.add(x, b.mul(b.add(k, I64(r)), x_k)), size), lanes)
                for r in range(count)
            ]
            base = b.add(w, b.mul(k, w_k))
            starts = [b.add(base, b.mul(w_k, I64(r))) for r in range(count)]

            def step(c: ir.Value, mask: ir.Value | None) -> None:
                along = b.mul(c, I64(size))
                there = b.add(sums, along)
                total = read(b, vector, there, lanes * size)
                for start, factor in zip(starts, factors, strict=True):
                    total = vec.multiply_add(
                        b, factor, read(b, vector, b.add(start, along), size, mask), total, tile.fused
                    )
                write(b, total, there, lanes * size)

            with loop(b, end, greatest(b, last, I64(lanes))) as c:
                after = lane_mask(b, lanes, b.sub(end, c), 0)
                before = lane_mask(b, lanes, b.sub(skip, c), 0)
                step(c, b.and_(after, b.not_(before)))
            with loop(b, last, lanes, start=I64(lanes)) as c:
                step(c, None)

        with loop(b, eights, AHEAD) as k:
            rows(k, AHEAD)
        with loop(b, depth, start=eights) as k:
            rows(k, 1)

    return define(f"spread {dtype.name} {lanes} {tile.fused}", 7, build)


def dots(dtype: np.dtype, tile: Tile) -> Definition:
    """dots(x, w, w_row, depth, rows, sums) for up to ``AHEAD`` rows, the last one repeated; always writes ``AHEAD`` sums.

    Lane l adds up the products of k = l modulo the lanes. Where rows are whole lines apart and long, vectors begin with
    lines all the same: the first one lacks some lanes, and the sums are turned back at the end.
    """
    lanes, size = tile.lanes, dtype.itemsize
    vector, whole = lines.ir_type(dtype, lanes), lanes * size

    def build(b: ir.IRBuilder) -> None:
        x, w, w_row, depth, rows, sums = b.function.args
        turned = scratch(b, AHEAD * 2 * whole)
        last = b.sub(rows, I64(1))
        offsets = [b.mul(w_row, least(b, I64(r), last)) for r in range(AHEAD)]
        split = b.icmp_signed("==", b.and_(w_row, I64(whole - 1)), I64(0))
        split = b.and_(split, b.icmp_signed(">=", depth, I64(LONG * lanes)))
        late = b.select(split, b.and_(w, I64(-size & (whole - 1))), I64(0))
        skip, (x, w) = b.udiv(late, I64(size)), (b.sub(at, late) for at in (x, w))
        end = b.add(depth, skip)

        def step(k: ir.Value, acc: list[ir.Value], mask: ir.Value | None) -> list[ir.Value]:
            along = b.mul(k, I64(size))
            of_x, at = read(b, vector, b.add(x, along), size, mask), b.add(w, along)
            if mask is not None:  # a lane that is not there adds -0.0, which leaves -0.0 and 0.0 as they are
                of_x = b.select(mask, of_x, vec.const(vector, -0.0))
            return [
                vec.multiply_add(b, of_x, read(b, vector, b.add(at, offset), size, mask), a, tile.fused)
                for a, offset in zip(acc, offsets, strict=True)
            ]

        def part(k: ir.Value) -> ir.Value:
            return lane_mask(b, lanes, least(b, b.sub(end, k), I64(lanes)), 0)  # a mask counts in 32 bits

        first = b.and_(part(I64(0)), b.not_(lane_mask(b, lanes, skip, 0)))
        acc = step(I64(0), [ir.Constant(vector, None)] * AHEAD, first)
        before = b.block
        head, body, done = (b.append_basic_block(name) for name in ("k.head", "k.body", "k.done"))
        b.branch(head)
        b.position_at_end(head)
        k, phis = b.phi(I64), [b.phi(vector) for _ in range(AHEAD)]

        def incoming(values: list[ir.Value], block: ir.Block) -> None:
            for phi, value in zip([k, *phis], values, strict=True):
                phi.add_incoming(value, block)

        incoming([I64(lanes), *acc], before)
        following = b.add(k, I64(lanes))
        b.cbranch(b.icmp_signed("<=", following, end), body, done)
        b.position_at_end(body)
        incoming([following, *step(k, phis, None)], body)
        b.branch(head)
        b.position_at_end(done)
        complete = b.block
        with b.if_then(b.icmp_signed("<", k, end)):
            rest, partly = step(k, phis, part(k)), b.block
        acc = _merged(b, phis, complete, rest, partly)
        straight = b.block
        with b.if_then(b.icmp_signed("!=", skip, I64(0))):
            # All are stored before one is loaded: such a load waits until its stores have reached the cache.
            places = [b.add(turned, I64(2 * r * whole)) for r in range(AHEAD)]
            for a, place in zip(acc, places, strict=True):
                write(b, a, place, whole)
                write(b, a, b.add(place, I64(whole)), whole)
            back = [read(b, vector, b.add(place, late), size) for place in places]
            there = b.block
        acc = _merged(b, acc, straight, back, there)
        for r, value in enumerate(_across(b, acc, size)):
            write(b, value, b.add(sums, I64(r * vec.lanes(value.type) * size)), size)

    return define(f"dots {dtype.name} {lanes} {tile.fused}", 6, build)


def _merged(
    b: ir.IRBuilder,
    first: list[ir.Value],
    first_from: ir.Block,
    second: list[ir.Value],
    second_from: ir.Block,
) -> list[ir.Value]:
    """The first values where control comes from one block, the second ones where from the other."""
    phis = []
    for x, y in zip(first, second, strict=True):
        phis.append(b.phi(x.type))
        phis[-1].add_incoming(x, first_from)
        phis[-1].add_incoming(y, second_from)
    return phis


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
