"""The inner loop of a matrix product: a register tile of sums, a broadcast of A a row, a load of B a vector.

    product(frame, desc, i, a, a_row, a_k, b, b_k, depth, rows, columns, resume, last, sums, ahead, ahead_step)

sums[r, c] (+)= sum_k A[r, k] * B[k, c], k ascending, for ``rows`` rows of C from row ``i`` on. ``rows`` is ``tile.rows`` or
``tile.middle``, or at most ``tile.tail``: the register tile repeats the last row then, and leaves columns from ``columns``
on alone, where the others read B's panel in its whole width. ``resume`` says whether the sums go on from what ``sums`` (rows
of ``tile.width``, aligned) holds, ``last`` whether they are complete: then a tall tile over a whole panel runs a short
epilogue on its registers, and stores no sums. A narrow panel (one vector) has a register tile of its own. A full tile
fetches ``ahead + k * ahead_step`` into the second-level cache as it goes. Strides are in bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir

from . import lines, vec
from .bfloat16 import dot
from .blocks import I32, I64, Definition, define, fetch, lane_mask, least, opaque, read, write
from .epilogue import Arrays, on_registers


class Arguments(NamedTuple):
    """What ``product`` takes, each an int64."""

    frame: ir.Value
    desc: ir.Value
    i: ir.Value
    a: ir.Value
    a_row: ir.Value
    a_k: ir.Value
    b: ir.Value
    b_k: ir.Value
    depth: ir.Value
    rows: ir.Value
    columns: ir.Value
    resume: ir.Value
    last: ir.Value
    sums: ir.Value
    ahead: ir.Value
    ahead_step: ir.Value


def multiply(dtype: np.dtype, arrays: Arrays, pairs: bool = False) -> Definition:
    """``product``, as above; ``pairs``: A and B hold pairs of bfloat16 along k, ``depth`` of them."""
    tile = arrays.tile

    def build(b: ir.IRBuilder) -> None:
        it = Arguments(*b.function.args)
        narrow = b.icmp_signed("<=", it.columns, I64(tile.lanes))
        part = b.icmp_signed("<", it.columns, I64(tile.width))
        shapes = []
        for height in filter(None, (tile.rows, tile.middle)):
            here = b.icmp_signed("==", it.rows, I64(height))
            shapes.append((height, 1, b.and_(narrow, here), True))
            shapes.append((height, tile.vectors, here, False))
        shapes.append((tile.tail, tile.vectors, part, True))
        end = b.append_basic_block("end")
        for height, vectors, here, masked in shapes:
            with b.if_then(here):
                _register_tile(b, dtype, arrays, it, height, vectors, masked, pairs)
                b.branch(end)
        _register_tile(b, dtype, arrays, it, tile.tail, tile.vectors, False, pairs)
        b.branch(end)
        b.position_at_end(end)

    return define(f"multiply {dtype.name} {tile!r} {arrays!r} {pairs}", len(Arguments._fields), build)


def runs_epilogue(b: ir.IRBuilder, arrays: Arrays, rows: ir.Value, columns: ir.Value) -> ir.Value:
    """Whether ``product`` itself runs the epilogue once its sums are complete: an i1."""
    full = b.icmp_signed(">", rows, I64(arrays.tile.tail))
    narrow = b.icmp_signed("<=", columns, I64(arrays.tile.lanes))
    one_tile = b.or_(narrow, b.icmp_signed("==", columns, I64(arrays.tile.width)))
    return b.and_(b.and_(full, one_tile), ir.IntType(1)(int(arrays.short_enough)))


def _register_tile(
    b: ir.IRBuilder,
    dtype: np.dtype,
    arrays: Arrays,
    it: Arguments,
    height: int,
    vectors: int,
    masked: bool,
    pairs: bool,
) -> None:
    """The k loop over ``height`` x ``vectors`` sums in registers, and what becomes of them."""
    tile = arrays.tile
    vector, size = lines.ir_type(dtype, tile.lanes), dtype.itemsize
    scalar = I32 if pairs else lines.ir_type(dtype)
    factors = vec.widen(scalar, tile.lanes)
    full = height > tile.tail
    bases, offsets = _row_addresses(b, it, height) if full else _clamped_rows(b, it, height)
    masks = [lane_mask(b, tile.lanes, it.columns, v) if masked else None for v in range(vectors)]
    places = [[(r * tile.width + v * tile.lanes) * size for v in range(vectors)] for r in range(height)]

    zero = ir.Constant(vector, None)
    fresh, load, head = (b.append_basic_block(name) for name in ("fresh", "load", "k.head"))
    b.cbranch(b.icmp_signed("!=", it.resume, I64(0)), load, fresh)
    b.position_at_end(load)
    held = [[read(b, vector, b.add(it.sums, I64(p)), 64) for p in row] for row in places]
    b.branch(head)
    b.position_at_end(fresh)
    b.branch(head)
    body, done = b.append_basic_block("k.body"), b.append_basic_block("k.done")
    b.position_at_end(head)
    fetches = height == tile.rows and vectors == tile.vectors
    k, b_at = b.phi(I64), b.phi(I64)
    a_at = [b.phi(I64) for _ in bases]
    ahead = [b.phi(I64)] if fetches else []
    acc = [[b.phi(vector) for _ in range(vectors)] for _ in range(height)]
    for block in (fresh, load):
        for phi, value in (
            (k, I64(0)),
            (b_at, it.b),
            *zip([*a_at, *ahead], [*bases, it.ahead], strict=False),
        ):
            phi.add_incoming(value, block)
        for r in range(height):
            for v in range(vectors):
                acc[r][v].add_incoming(zero if block is fresh else held[r][v], block)
    b.cbranch(b.icmp_signed("<", k, it.depth), body, done)

    b.position_at_end(body)
    row_of_b = [
        read(b, factors, b.add(b_at, I64(v * tile.lanes * size)), size, masks[v]) for v in range(vectors)
    ]
    here = [opaque(b, at) for at in a_at] if full else a_at
    for r, (base, offset) in enumerate(offsets):
        x = vec.splat(b, read(b, scalar, b.add(here[base], offset), size), tile.lanes)
        for v in range(vectors):
            product = (b, x, row_of_b[v], acc[r][v])
            acc[r][v].add_incoming(dot(*product) if pairs else vec.multiply_add(*product, tile.fused), body)
    k.add_incoming(b.add(k, I64(1)), body)
    b_at.add_incoming(b.add(b_at, it.b_k), body)
    for at, place in zip(a_at, here, strict=True):
        at.add_incoming(b.add(place, it.a_k), body)
    for at in ahead:
        fetch(b, at)
        at.add_incoming(b.add(at, it.ahead_step), body)
    b.branch(head)

    b.position_at_end(done)
    if full and arrays.short_enough:
        direct = b.and_(b.icmp_signed("!=", it.last, I64(0)), runs_epilogue(b, arrays, it.rows, it.columns))
        with b.if_else(direct) as (now, later):
            with now:
                on_registers(b, arrays, it.frame, it.desc, it.i, acc, masks)
            with later:
                _store(b, it.sums, acc, places)
    else:
        _store(b, it.sums, acc, places)


def _store(b: ir.IRBuilder, sums: ir.Value, acc: list[list[ir.Value]], places: list[list[int]]) -> None:
    for row, offsets in zip(acc, places, strict=True):
        for value, offset in zip(row, offsets, strict=True):
            write(b, value, b.add(sums, I64(offset)), 64)


def _row_addresses(
    b: ir.IRBuilder, it: Arguments, height: int
) -> tuple[list[ir.Value], list[tuple[int, ir.Value]]]:
    """Where rows of A begin: a few bases that move with k, and for each row a base's number and an offset from it.

    Offsets are 0 to 5 times the row's stride, each one register or a scaled one in x86's addresses, so that the k loop
    computes none. Left to itself LLVM chains sums (row 3 = row 2 + stride) in the loop, or keeps a pointer a row and
    spills them; hence multiples, and bases in the loop, that it cannot see through.
    """
    triple, quintuple = (opaque(b, b.mul(I64(n), it.a_row)) for n in (3, 5))
    steps = [I64(0), it.a_row, b.shl(it.a_row, I64(1)), triple, b.shl(it.a_row, I64(2)), quintuple]
    bases = [it.a, *(b.add(it.a, b.mul(I64(r), it.a_row)) for r in range(6, height, 6))]
    return bases, [(r // 6, steps[r % 6]) for r in range(height)]


def _clamped_rows(
    b: ir.IRBuilder, it: Arguments, height: int
) -> tuple[list[ir.Value], list[tuple[int, ir.Value]]]:
    """The same for a short tile, whose last row is repeated."""
    last = b.sub(it.rows, I64(1))
    return [it.a], [(0, b.mul(it.a_row, least(b, I64(r), last))) for r in range(height)]
