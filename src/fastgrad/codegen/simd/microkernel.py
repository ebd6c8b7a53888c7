"""The code of a matrix product as LLVM functions over raw addresses; `gemm` says what they compute.

    tiles(desc, lo, hi)        the loops over tiles, row blocks, blocks of k
        copy(...)              pack a panel of B
        product(...)           the microkernel: the k loop on a register tile
        finish(...)            the epilogue and the stores

The loops are IR too, not Python text: Numba took 130 ms for thirty such lines. Each function is called and never
inlined, so its registers are its own, and carries the attribute that lets it use 64-byte vectors on machines where
LLVM would rather not. Arguments are int64; strides are in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...core.expr import Map
from . import lines, vec
from .blocks import I1, I8, I64, Definition, define, greatest, lane_mask, least, loop, read, write
from .pack import pack_columns, pack_rows
from .tile import Tile, Words

PACKS_ABOVE = 3.5
"""B with contiguous rows is packed too where K exceeds so many blocks: rows a power of two apart share cache sets.

Measured on Zen 4, M = 128, N = 512: at K = 784 packing costs 5-10%, at K = 2048 it gains 40%.
"""


def matmul(dtype: np.dtype, tile: Tile, epilogue: Map, kinds: tuple[str, ...], b_unit: bool) -> Any:
    """The intrinsic ``tiles(desc, lo, hi)``: compute those tiles of the product that ``desc`` describes; 0."""
    product, finish = _multiply(dtype, tile), _finish(dtype, tile, epilogue, kinds)
    copy = pack_rows(dtype, tile) if b_unit else pack_columns(dtype, tile)
    words = Words(len(kinds), len(epilogue.outputs))
    key = f"matmul {dtype.name} {tile!r} {kinds} {b_unit} {epilogue}"
    tiles_function = define(key, 3, lambda b: _tiles(b, dtype, tile, words, b_unit, (copy, product, finish)))

    @intrinsic
    def tiles(typingctx, desc, lo, hi):  # type: ignore[no-untyped-def]
        def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
            b.call(tiles_function(b.module), args)
            return I64(0)

        return types.int64(types.int64, types.int64, types.int64), codegen

    return tiles


def _tiles(
    b: ir.IRBuilder,
    dtype: np.dtype,
    tile: Tile,
    words: Words,
    b_unit: bool,
    parts: tuple[Definition, Definition, Definition],
) -> None:
    """The loops around the microkernel:

    for t in [lo, hi): for top in rows of the tile, tile.held at a time: for p in range(0, K, depth):
        copy(B[p: p + depth, j: j + width] -> panel)        unless B is read where it lies: then depth = K
        for i in rows: product(A[i:, p:], panel, sums of i);  after the last p: finish(sums of i)
    """
    copy, product, finish = (part(b.module) for part in parts)
    desc, lo, hi = b.function.args
    size = dtype.itemsize

    def at(w: int, scale: int = 1) -> ir.Value:
        return b.mul(_word(b, desc, w), I64(scale))

    a, b_base, (m, n, k) = at(0), at(1), (at(words.sizes + x) for x in (1, 2, 3))
    a_batch, a_row, a_k, b_batch, b_k, b_j = (at(words.a + x, size) for x in range(6))
    b_j = I64(size) if b_unit else b_j
    row_block = at(words.row_block)
    blocks = b.udiv(b.add(m, b.sub(row_block, I64(1))), row_block)
    panels = b.udiv(b.add(n, I64(tile.width - 1)), I64(tile.width))
    row_bytes = tile.width * size
    sums, panel = _scratch(b, row_bytes * (tile.held + tile.tail)), _scratch(b, row_bytes * tile.depth)

    with loop(b, hi, start=lo) as t:
        band = b.udiv(t, panels)
        j = b.mul(b.sub(t, b.mul(band, panels)), I64(tile.width))
        s = b.udiv(band, blocks)
        first = b.mul(b.sub(band, b.mul(s, blocks)), row_block)
        end = least(b, m, b.add(first, row_block))
        columns = least(b, I64(tile.width), b.sub(n, j))
        a_at = b.add(a, b.mul(s, a_batch))
        b_at = b.add(b.add(b_base, b.mul(s, b_batch)), b.mul(j, b_j))
        packs = I1(1)
        if b_unit:  # packing is an optimisation then, for long columns with enough rows to share a panel
            enough_rows = b.icmp_signed(">=", b.sub(end, first), I64(2 * tile.rows))
            packs = b.and_(b.icmp_signed(">", k, I64(int(PACKS_ABOVE * tile.depth))), enough_rows)
        k_block = b.select(packs, I64(tile.depth), greatest(b, k, I64(1)))
        # When K is not blocked one scratch tile, hot in the cache, serves all rows.
        sums_step = b.select(packs, I64(row_bytes), I64(0))
        with loop(b, end, tile.held, start=first) as top:
            last = least(b, end, b.add(top, I64(tile.held)))
            with loop(b, greatest(b, k, I64(1)), k_block) as p:  # once for k = 0: the sums are zero then
                depth = least(b, b.sub(k, p), k_block)
                b_block = b.add(b_at, b.mul(p, b_k))
                with b.if_then(packs):
                    b.call(copy, [b_block, b_k, b_j, depth, columns, panel])
                b_block, b_step = b.select(packs, panel, b_block), b.select(packs, I64(row_bytes), b_k)
                complete = b.icmp_signed(">=", b.add(p, k_block), k)
                with _row_steps(b, tile, top, last) as (i, rows):
                    a_block = b.add(b.add(a_at, b.mul(i, a_row)), b.mul(p, a_k))
                    held = b.add(sums, b.mul(b.sub(i, top), sums_step))
                    b.call(product, [a_block, a_row, a_k, b_block, b_step, depth, rows, columns, p, held])
                    with b.if_then(complete):
                        b.call(finish, [desc, s, i, j, rows, columns, held])


@contextmanager
def _row_steps(
    b: ir.IRBuilder, tile: Tile, first: ir.Value, last: ir.Value
) -> Iterator[tuple[ir.Value, ir.Value]]:
    """``for i, rows in ...``: register tiles of ``tile.rows`` while they fit, then of at most ``tile.tail``."""
    left = b.sub(last, first)
    whole = b.sdiv(left, I64(tile.rows))
    edge = b.add(first, b.mul(whole, I64(tile.rows)))
    short = b.sdiv(b.add(b.sub(last, edge), I64(tile.tail - 1)), I64(tile.tail))
    with loop(b, b.add(whole, short)) as x:
        fits = b.icmp_signed("<", x, whole)
        i = b.select(
            fits,
            b.add(first, b.mul(x, I64(tile.rows))),
            b.add(edge, b.mul(b.sub(x, whole), I64(tile.tail))),
        )
        yield i, b.select(fits, I64(tile.rows), least(b, I64(tile.tail), b.sub(last, i)))


def _scratch(b: ir.IRBuilder, n: int) -> ir.Value:
    """The address of ``n`` bytes of the stack, on a cache line's bounds."""
    block = b.alloca(ir.ArrayType(I8, n))
    block.align = 64
    return b.ptrtoint(block, I64)


def _word(b: ir.IRBuilder, desc: ir.Value, i: int) -> ir.Value:
    return b.load(b.gep(b.inttoptr(desc, I64.as_pointer()), [I64(i)]))


def _multiply(dtype: np.dtype, tile: Tile) -> Definition:
    """product: sums[r, c] (+)= sum_k A[r, k] * B[k, c], k ascending, for ``rows`` rows and ``columns`` columns.

    ``resume`` says whether the sums go on from what ``sums`` (rows of ``tile.width``, aligned) holds. ``rows`` is
    ``tile.rows`` or at most ``tile.tail``; the register tile repeats the last row then, and ``sums`` takes all rows.
    Of B no column from ``columns`` on is touched. A narrow panel (one vector) has a register tile of its own.
    """

    def build(b: ir.IRBuilder) -> None:
        rows, columns = b.function.args[6:8]
        with b.if_else(b.icmp_signed("==", rows, I64(tile.rows))) as (full, rest):
            with rest:
                _register_tile(b, dtype, tile, tile.tail, tile.vectors)
            with full, b.if_else(b.icmp_signed("<=", columns, I64(tile.lanes))) as (narrow, wide):
                with narrow:
                    _register_tile(b, dtype, tile, tile.rows, 1)
                with wide:
                    _register_tile(b, dtype, tile, tile.rows, tile.vectors)

    return define(f"multiply {dtype.name} {tile!r}", 10, build)


def _register_tile(b: ir.IRBuilder, dtype: np.dtype, tile: Tile, height: int, vectors: int) -> None:
    """The k loop over ``height`` x ``vectors`` sums in registers: a broadcast of A a row, a load of B a vector."""
    a, a_row, a_k, b_base, b_k, depth, rows, columns, resume, sums = b.function.args
    scalar, vector, size = lines.ir_type(dtype), lines.ir_type(dtype, tile.lanes), dtype.itemsize
    if height == tile.rows:
        offsets = [b.mul(I64(r), a_row) for r in range(height)]
    else:
        last = b.sub(rows, I64(1))
        offsets = [b.mul(a_row, least(b, I64(r), last)) for r in range(height)]
    masks = [lane_mask(b, tile.lanes, columns, v) for v in range(vectors)]
    places = [[(r * tile.width + v * tile.lanes) * size for v in range(vectors)] for r in range(height)]

    zero = ir.Constant(vector, None)
    fresh, load, head = (b.append_basic_block(name) for name in ("fresh", "load", "k.head"))
    b.cbranch(b.icmp_signed("!=", resume, I64(0)), load, fresh)
    b.position_at_end(load)
    held = [[read(b, vector, b.add(sums, I64(p)), 64) for p in row] for row in places]
    b.branch(head)
    b.position_at_end(fresh)
    b.branch(head)
    body, done = b.append_basic_block("k.body"), b.append_basic_block("k.done")
    b.position_at_end(head)
    k, a_at, b_at = b.phi(I64), b.phi(I64), b.phi(I64)
    acc = [[b.phi(vector) for _ in range(vectors)] for _ in range(height)]
    for block in (fresh, load):
        for phi, value in ((k, I64(0)), (a_at, a), (b_at, b_base)):
            phi.add_incoming(value, block)
        for r in range(height):
            for v in range(vectors):
                acc[r][v].add_incoming(zero if block is fresh else held[r][v], block)
    b.cbranch(b.icmp_signed("<", k, depth), body, done)

    b.position_at_end(body)
    row_of_b = [
        read(b, vector, b.add(b_at, I64(v * tile.lanes * size)), size, masks[v]) for v in range(vectors)
    ]
    for r in range(height):
        x = vec.splat(b, read(b, scalar, b.add(a_at, offsets[r]), size), tile.lanes)
        for v in range(vectors):
            acc[r][v].add_incoming(_multiply_add(b, x, row_of_b[v], acc[r][v], tile.fused), body)
    k.add_incoming(b.add(k, I64(1)), body)
    a_at.add_incoming(b.add(a_at, a_k), body)
    b_at.add_incoming(b.add(b_at, b_k), body)
    b.branch(head)

    b.position_at_end(done)
    for r in range(height):
        for v in range(vectors):
            write(b, acc[r][v], b.add(sums, I64(places[r][v])), 64)


def _multiply_add(b: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value, fused: bool) -> ir.Value:
    return vec.fma(b, x, y, z) if fused else vec.add(b, vec.mul(b, x, y), z)


def _finish(dtype: np.dtype, tile: Tile, epilogue: Map, kinds: tuple[str, ...]) -> Definition:
    """finish: run ``epilogue`` over ``rows`` x ``columns`` sums of C[s, i:, j:] and store its outputs.

    Everything but the sums is found through the descriptor: the loop over rows reads an operand by its row stride
    and, where its kind is ``unit``, a vector at a time; values of kind ``zero`` and literals are broadcast.
    """

    def build(b: ir.IRBuilder) -> None:
        desc, s, i, j, rows, columns, sums = b.function.args
        n, n_out = len(kinds), len(epilogue.outputs)
        dtypes = [*epilogue.inputs[1 : n + 1], *(epilogue.dtype(o) for o in epilogue.outputs)]
        words = Words(n, n_out)
        pointers, row_bytes = [], []
        for x, d in enumerate(dtypes):
            first = words.strides(x)
            offset = b.add(b.mul(s, _word(b, desc, first)), b.mul(i, _word(b, desc, first + 1)))
            offset = b.add(offset, b.mul(j, _word(b, desc, first + 2)) if x < n else j)
            pointers.append(b.add(_word(b, desc, 2 + x), b.mul(offset, I64(d.itemsize))))
            row_bytes.append(b.mul(_word(b, desc, first + 1), I64(d.itemsize)))
        literals = []
        for x, d in enumerate(epilogue.inputs[n + 1 :]):
            address = b.add(desc, I64(8 * (words.row_block + 1 + x)))
            literals.append(_wide(b, read(b, lines.memory_type(d), address, 8), d, tile.lanes))
        masks = [lane_mask(b, tile.lanes, columns, v) for v in range(tile.vectors)]
        vector = lines.ir_type(dtype, tile.lanes)
        with loop(b, rows) as r:
            here = [b.add(p, b.mul(r, step)) for p, step in zip(pointers, row_bytes, strict=True)]
            row = b.add(sums, b.mul(r, I64(tile.width * dtype.itemsize)))
            spread = {
                x: _wide(b, read(b, lines.memory_type(d), here[x], d.itemsize), d, tile.lanes)
                for x, (d, kind) in enumerate(zip(dtypes, kinds, strict=False))
                if kind == "zero"
            }
            for v in range(tile.vectors):
                column = v * tile.lanes
                values = [read(b, vector, b.add(row, I64(column * dtype.itemsize)), 64)]
                for x, d in enumerate(dtypes[:n]):
                    if x in spread:
                        values.append(spread[x])
                        continue
                    memory = lines.memory_type(d, tile.lanes)
                    there = b.add(here[x], I64(column * d.itemsize))
                    values.append(lines.from_memory(b, read(b, memory, there, d.itemsize, masks[v]), d))
                outputs = _evaluate(b, epilogue, [*values, *literals], tile.lanes)
                for value, place, d in zip(outputs, here[n:], dtypes[n:], strict=True):
                    there = b.add(place, I64(column * d.itemsize))
                    write(b, lines.to_memory(b, value, d), there, d.itemsize, masks[v])

    return define(f"finish {dtype.name} {tile!r} {kinds} {epilogue}", 7, build)


def _evaluate(b: ir.IRBuilder, epilogue: Map, values: list[ir.Value], n: int) -> list[ir.Value]:
    """The Map's lines as vector IR; gives its outputs."""
    values = list(values)
    for line in epilogue.lines:
        if line.op == "const":
            values.append(vec.const(lines.ir_type(line.dtype, n), line.args[0]))
            continue
        in_dtypes = tuple(epilogue.dtype(a) for a in line.args)
        values.append(lines.emit(line.op, b, [values[a] for a in line.args], in_dtypes, line.dtype))
    return [values[o] for o in epilogue.outputs]


def _wide(b: ir.IRBuilder, scalar: ir.Value, dtype: np.dtype, n: int) -> ir.Value:
    """A value from memory in every lane."""
    return lines.from_memory(b, vec.splat(b, scalar, n), dtype)
