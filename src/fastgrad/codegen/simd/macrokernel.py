"""The loops around the microkernel, as LLVM functions over raw addresses; `gemm` says what they compute.

    tiles(desc, lo, hi)        the loops over tiles, row blocks, blocks of k
        copy(...)              pack a panel of B
        product(...)           the microkernel: the k loop on a register tile, and mostly the epilogue
        finish(...)            the epilogue and the stores of what is left

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

from ...core.expr import Map
from .blocks import I1, I64, Definition, define, greatest, least, loop, scratch, tiles_of, word
from .epilogue import Arrays, finish
from .matvec import vector
from .microkernel import multiply, runs_epilogue
from .pack import pack_columns, pack_rows
from .pipeline import Block, Pipeline
from .tile import FAR, LINE, NEAR, STEPS, Tile


def matmul(
    dtype: np.dtype,
    tile: Tile,
    epilogue: Map,
    kinds: tuple[str, ...],
    b_unit: bool,
    folds: int = 0,
    pairs: bool = False,
    moves: bool = False,
) -> Any:
    """The intrinsic ``tiles(desc, lo, hi)``: compute those tiles of the product that ``desc`` describes; 0.

    ``pairs``: both operands are packed pairs of bfloat16, K counts those.
    """
    arrays = Arrays(tile, epilogue, kinds, folds)
    copy = (pack_rows if b_unit else pack_columns)(dtype, tile.lanes, tile.width)
    parts = (copy, multiply(dtype, arrays, pairs, moves), finish(dtype, arrays))
    key = f"{dtype.name} {tile!r} {b_unit} {arrays!r} {pairs} {moves}"
    tiles_function = define(f"matrices {key}", 3, lambda b: _tiles(b, dtype, arrays, b_unit, moves, parts))
    if not folds and not pairs:
        several, one = tiles_function, vector(dtype, arrays, b_unit)
        tiles_function = define(f"matmul {key}", 3, lambda b: _choose(b, dtype, arrays, b_unit, several, one))

    return tiles_of(tiles_function)


def _choose(
    b: ir.IRBuilder, dtype: np.dtype, arrays: Arrays, b_unit: bool, matrices: Definition, one: Definition
) -> None:
    """One column or one row goes to `matvec` where it can be read there as it lies; it may be so at run time alone.

    A row times a B with unit column stride is summed in the order of the register tiles, k ascending.
    """
    desc, lo, hi = b.function.args
    words, tile = arrays.words, arrays.tile

    def equal(x: ir.Value, y: ir.Value | int) -> ir.Value:
        return b.icmp_signed("==", x, I64(y) if isinstance(y, int) else y)

    m, n = (word(b, desc, words.sizes + x) for x in (1, 2))
    _, a_block, a_row, a_k, _, b_panel, b_k, b_j = (word(b, desc, words.a + x) for x in range(8))
    b_j = I64(1) if b_unit else b_j
    dotted = b.and_(equal(a_k, 1), equal(b_k, 1))
    plain_a = equal(a_block, b.mul(a_row, I64(tile.rows)))
    plain_b = equal(b_panel, b.mul(b_j, I64(tile.width)))
    down = b.and_(b.and_(equal(n, 1), plain_a), b.or_(equal(a_row, 1), dotted))
    dotted_b = b.and_(dotted, I1(not b_unit))
    across = b.and_(b.and_(equal(m, 1), plain_b), b.or_(equal(b_j, 1), dotted_b))
    dotted = b.select(down, dotted, dotted_b)
    with b.if_else(b.or_(down, across)) as (single, several):
        with single:
            b.call(one(b.module), [desc, lo, hi, b.zext(down, I64), b.zext(dotted, I64)])
        with several:
            b.call(matrices(b.module), [desc, lo, hi])


def _tiles(
    b: ir.IRBuilder,
    dtype: np.dtype,
    arrays: Arrays,
    b_unit: bool,
    pipelined: bool,
    parts: tuple[Definition, Definition, Definition],
) -> None:
    """The loops around the microkernel:

    for t in [lo, hi): for top in rows of the tile, tile.held at a time: for p in range(0, K, depth):
        copy(B[p: p + depth, j: j + width] -> panel)        what of it has not come yet; in place: depth = K, nothing
        for i in rows: product(A[i:, p:], panel, sums of i);  after the last p: finish(sums of i)
    """
    copy, product, finish = (part(b.module) for part in parts)
    desc, lo, hi = b.function.args
    size, tile, words = dtype.itemsize, arrays.tile, arrays.words

    def at(w: int, scale: int = 1) -> ir.Value:
        return b.mul(word(b, desc, w), I64(scale))

    a, b_base, (m, n, k) = at(0), at(1), (at(words.sizes + x) for x in (1, 2, 3))
    a_batch, a_block, a_row, a_k, b_batch, b_panel, b_k, b_j = (at(words.a + x, size) for x in range(8))
    b_j = I64(size) if b_unit else b_j
    row_block = at(words.row_block)
    plain = b.icmp_signed("==", a_block, b.mul(a_row, I64(tile.rows)))
    packed_ahead = b.icmp_signed("!=", b_panel, b.mul(b_j, I64(tile.width)))
    blocks = b.udiv(b.add(m, b.sub(row_block, I64(1))), row_block)
    columns_of = _Panels(b, n, tile.width)
    panels = columns_of.count
    row_bytes = tile.width * size
    sums, pipeline = scratch(b, row_bytes * (tile.held + tile.tail)), Pipeline(b, dtype, tile)
    frame = arrays.open_frame(b)
    # K in equal parts: while one is read the next, as long, comes.
    parts = greatest(b, b.udiv(b.add(k, I64(tile.depth - 1)), I64(tile.depth)), I64(1))
    cut_of_k = b.udiv(b.add(k, b.sub(parts, I64(1))), parts)
    cut_of_k = greatest(b, b.and_(b.add(cut_of_k, I64(STEPS - 1)), I64(-STEPS)), I64(STEPS))

    in_order = b.icmp_signed("==", b.sub(hi, lo), b.mul(b.mul(word(b, desc, words.sizes), blocks), panels))
    columns_of.place_narrow(b.or_(in_order, packed_ahead))
    # What need not be copied, or cannot be yet, comes near: a transposed B that fills its memory is one run a panel.
    near, run_step = packed_ahead, b_k
    if not b_unit:
        run_step = I64(row_bytes)
        one_run = b.and_(b.icmp_signed("==", b_k, I64(size)), b.icmp_signed("==", b_j, b.mul(k, I64(size))))
        near = b.and_(one_run, b.icmp_signed("<=", k, I64(tile.depth)))
    near = b.and_(near, I1(pipelined))

    def panel_at(matrix: ir.Value, number: ir.Value) -> ir.Value:
        there = b.add(b.add(b_base, b.mul(matrix, b_batch)), b.mul(number, b_panel))
        return b.sub(there, b.mul(columns_of.missing_before(number), b_j))

    with _places(b, lo, hi, panels, blocks) as (place, following):
        s, block, number = place
        j, first = columns_of.first(number), b.mul(block, row_block)
        end = least(b, m, b.add(first, row_block))
        columns = columns_of.width(number)
        a_at = b.add(a, b.mul(s, a_batch))
        b_at = panel_at(s, number)
        arrays.fill_frame(b, frame, desc, s, block, j)
        arrays.clear(b, frame, columns)
        whole = b.icmp_signed("==", columns, I64(tile.width))
        packs = I1(1)
        if b_unit:
            packs = _packs(b, tile, size, b_at, b_k, k, columns, b.sub(end, first))
            packs = b.and_(packs, b.not_(packed_ahead))
        k_block = b.select(packs, cut_of_k, greatest(b, k, I64(1)))
        # When K is not blocked one scratch tile, hot in the cache, serves all rows.
        cut = b.icmp_signed("<", k_block, k)
        sums_step = b.select(cut, I64(row_bytes), I64(0))
        at_once = b.select(cut, I64(tile.held), greatest(b, b.sub(end, first), I64(1)))
        # Only whole panels are moved ahead, and only where rows of B lie side by side.
        moves = b.and_(b.and_(packs, whole), I1(b_unit and pipelined))
        with b.if_then(b.not_(moves)):
            pipeline.forget()
        next_s, next_number, more = following
        next_at = panel_at(next_s, next_number)
        more = b.and_(more, b.icmp_signed("==", columns_of.width(next_number), I64(tile.width)))
        with loop(b, end, at_once, start=first) as top:
            last = least(b, end, b.add(top, at_once))
            again = b.icmp_signed("<", last, end)
            with loop(b, greatest(b, k, I64(1)), k_block) as p:  # once for k = 0: the sums are zero then
                depth = least(b, b.sub(k, p), k_block)
                b_block, moved, panel = b.add(b_at, b.mul(p, b_k)), pipeline.moved, pipeline.current
                with b.if_then(b.and_(packs, b.icmp_signed("<", moved, depth))):
                    narrow = b.icmp_signed("<=", columns, I64(tile.lanes))
                    reach = b.select(narrow, columns, I64(tile.width))
                    here = b.add(b_block, b.mul(moved, b_k))
                    there = b.add(panel, b.mul(moved, I64(row_bytes)))
                    b.call(copy, [here, b_k, b_j, b.sub(depth, moved), columns, there, reach])
                pipeline.forget()
                b_block, b_step = b.select(packs, panel, b_block), b.select(packs, I64(row_bytes), b_k)
                # What is read next: further along k, or for the next rows, or for the next tile.
                q = b.add(p, k_block)
                complete = b.icmp_signed(">=", q, k)
                q = b.select(complete, I64(0), q)
                base = b.select(b.or_(again, b.not_(complete)), b_at, next_at)
                any_left = b.or_(b.not_(complete), b.or_(again, more))
                comes = b.and_(any_left, b.or_(moves, near))
                rest = b.select(comes, least(b, k_block, b.sub(k, q)), I64(0))
                then = Block(b.add(base, b.mul(q, b_k)), run_step, rest)
                with _row_steps(b, tile, top, last, plain) as (i, rows):
                    block = b.udiv(i, I64(tile.rows))
                    row = b.sub(i, b.mul(block, I64(tile.rows)))
                    a_here = b.add(b.add(a_at, b.mul(block, a_block)), b.mul(row, a_row))
                    a_here = b.add(a_here, b.mul(p, a_k))
                    held = b.add(sums, b.mul(b.sub(i, top), sums_step))
                    share = pipeline.share(then, moves, b.icmp_signed("==", rows, I64(tile.rows)), depth)
                    ends = [p, b.zext(complete, I64), held, *share]
                    b.call(
                        product,
                        [frame, desc, i, a_here, a_row, a_k, b_block, b_step, depth, rows, columns, *ends],
                    )
                    left = b.and_(complete, b.not_(runs_epilogue(b, arrays, rows, columns)))
                    with b.if_then(left):
                        b.call(finish, [frame, desc, i, rows, columns, held, I64(row_bytes)])
                with b.if_else(moves) as (filled, not_filled):
                    with filled:
                        pipeline.swap()
                    with not_filled:
                        pipeline.forget()


def _packs(
    b: ir.IRBuilder, tile: Tile, size: int, b_at: ir.Value, b_k: ir.Value, k: ir.Value, columns: ir.Value, height: ir.Value
) -> ir.Value:  # fmt: skip
    """Whether a panel of B with contiguous rows is packed for ``height`` rows of C: an i1.

    It is a must for full tiles of narrow panels, else an optimisation for long columns.
    """
    far = b.icmp_unsigned(">", b.mul(k, b_k), I64(FAR))
    split = b.icmp_unsigned("!=", b.and_(b.or_(b_at, b_k), I64(tile.lanes * size - 1)), I64(0))
    part = b.icmp_signed("<", columns, I64(tile.width))
    part = b.and_(part, b.icmp_signed(">", columns, I64(tile.lanes)))

    def and_rows(needs: ir.Value, rows: int) -> ir.Value:
        return b.and_(needs, b.icmp_signed(">=", height, I64(rows)))

    # Rows that are no whole lines apart spread over all sets of the first-level cache, and stay there.
    near = b.icmp_unsigned("<=", b.mul(k, I64(tile.width * size + LINE)), I64(NEAR))
    near = b.and_(near, b.icmp_unsigned("!=", b.and_(b_k, I64(LINE - 1)), I64(0)))
    enough = b.select(near, I64(32 * tile.rows), I64(4 * tile.rows))
    split = b.and_(split, b.icmp_signed(">=", height, enough))
    wide = b.or_(and_rows(far, 2 * tile.rows), split)
    return b.or_(and_rows(part, tile.middle or tile.rows), wide)


class _Panels:
    """How N columns are cut into panels of ``full`` columns and one of what is left, the narrow one.

    That is the last, or, where threads share the tiles, the last of the first half: of 13 panels, one of them half as wide,
    one thread takes 6.5 then and the other 6, not 7 and 5.5.
    """

    def __init__(self, b: ir.IRBuilder, n: ir.Value, full: int) -> None:
        self.b, self.n, self.full = b, n, full
        self.count = b.udiv(b.add(n, I64(full - 1)), I64(full))
        self.missing = b.sub(b.mul(self.count, I64(full)), n)

    def place_narrow(self, last: ir.Value) -> None:
        """Whether it is the ``last``."""
        b, end = self.b, self.b.sub(self.count, I64(1))
        self.narrow = b.select(b.or_(last, b.icmp_signed("==", self.count, I64(2))), end, b.lshr(end, I64(1)))

    def missing_before(self, number: ir.Value) -> ir.Value:
        """Columns by which a panel begins earlier than if all before it were full."""
        return self.b.select(self.b.icmp_signed(">", number, self.narrow), self.missing, I64(0))

    def first(self, number: ir.Value) -> ir.Value:
        """The panel's first column."""
        return self.b.sub(self.b.mul(number, I64(self.full)), self.missing_before(number))

    def width(self, number: ir.Value) -> ir.Value:
        """How many columns it has."""
        missing = self.b.select(self.b.icmp_signed("==", number, self.narrow), self.missing, I64(0))
        return self.b.sub(I64(self.full), missing)


Place = tuple[ir.Value, ir.Value, ir.Value]


@contextmanager
def _places(
    b: ir.IRBuilder, lo: ir.Value, hi: ir.Value, panels: ir.Value, blocks: ir.Value
) -> Iterator[tuple[Place, Place]]:
    """``for matrix, row block, panel in ...`` tiles ``lo`` to ``hi``: divided for the first alone, as tiles may be tiny.

    Beside those the matrix and panel of the tile after, and whether there is one.
    """
    counters = [b.alloca(I64) for _ in range(3)]
    panels, blocks = (greatest(b, x, I64(1)) for x in (panels, blocks))
    band = b.udiv(lo, panels)
    s = b.udiv(band, blocks)
    for at, value in zip(
        counters, (s, b.sub(band, b.mul(s, blocks)), b.sub(lo, b.mul(band, panels))), strict=True
    ):
        b.store(value, at)
    with loop(b, hi, start=lo) as t:
        s, block, panel = (b.load(at) for at in counters)
        next_panel = b.add(panel, I64(1))
        wrapped = b.icmp_signed("==", next_panel, panels)
        next_block = b.add(block, b.zext(wrapped, I64))
        next_matrix = b.icmp_signed("==", next_block, blocks)
        next_panel = b.select(wrapped, I64(0), next_panel)
        next_s = b.add(s, b.zext(next_matrix, I64))
        yield (s, block, panel), (next_s, next_panel, b.icmp_signed("<", b.add(t, I64(1)), hi))
        for at, value in zip(
            counters, (next_s, b.select(next_matrix, I64(0), next_block), next_panel), strict=True
        ):
            b.store(value, at)


@contextmanager
def _row_steps(
    b: ir.IRBuilder, tile: Tile, first: ir.Value, last: ir.Value, plain: ir.Value
) -> Iterator[tuple[ir.Value, ir.Value]]:
    """``for i, rows in ...``: of ``tile.rows`` while they fit, one of ``tile.middle``, then at most ``tile.tail``.

    Where A is ``plain``, so that a register tile may begin anywhere, 16 rows are 8 and 8, not 14 and 2.
    """
    before = b.block
    head, body, done = (b.append_basic_block(name) for name in ("rows.head", "rows.body", "rows.done"))
    b.branch(head)
    b.position_at_end(head)
    i = b.phi(I64)
    i.add_incoming(first, before)
    left = b.sub(last, i)
    b.cbranch(b.icmp_signed(">", left, I64(0)), body, done)
    b.position_at_end(body)
    rows = least(b, I64(tile.tail), left)
    for height in (tile.middle, tile.rows):
        if height:
            rows = b.select(b.icmp_signed(">=", left, I64(height)), I64(height), rows)
    if tile.middle:
        twice = b.and_(
            b.icmp_signed(">", left, I64(tile.rows)), b.icmp_signed("<=", left, I64(2 * tile.middle))
        )
        rows = b.select(b.and_(plain, twice), I64(tile.middle), rows)
    yield i, rows
    i.add_incoming(b.add(i, rows), b.block)
    b.branch(head)
    b.position_at_end(done)
