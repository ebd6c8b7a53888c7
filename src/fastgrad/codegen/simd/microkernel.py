"""The inner loop of a matrix product: a register tile of sums, a broadcast of A a row, a load of B a vector.

    product(frame, desc, i, a, a_row, a_k, b, b_k, depth, rows, columns, resume, last, sums,
            ahead, ahead_step, target, target_step, moves)

sums[r, c] (+)= sum_k A[r, k] * B[k, c], k ascending, for ``rows`` rows of C from row ``i`` on. ``rows`` is ``tile.rows`` or
``tile.middle``, or at most ``tile.tail``: the register tile repeats the last row then, and leaves columns from ``columns``
on alone, where the others read B's panel in its whole width. ``resume`` says whether the sums go on from what ``sums`` (rows
of ``tile.width``, aligned) holds, ``last`` whether they are complete: then a tall tile over a whole panel runs a short
epilogue on its registers, and stores no sums. A narrow panel (one vector) has a register tile of its own. A full tile
moves ``moves`` rows of the next panel meanwhile, from ``ahead + r * ahead_step`` to ``target + r * target_step``: one in
each ``STEPS`` steps of k. Strides are in bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from llvmlite import ir

from . import lines, vec
from .bfloat16 import dot
from .blocks import I32, I64, Definition, define, fetch, lane_mask, least, opaque, read, write
from .epilogue import Arrays, on_registers
from .tile import APART, FETCHED, LINE, SOON, STEPS, STRIDED, WIDELY, Tile


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
    target: ir.Value
    target_step: ir.Value
    moves: ir.Value


def multiply(dtype: np.dtype, arrays: Arrays, pairs: bool = False, moves: bool = False) -> Definition:
    """``product``, as above; ``pairs``: A and B hold pairs of bfloat16 along k, ``depth`` of them.

    Without ``moves`` no tile moves any rows.
    """
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
                _register_tile(b, dtype, arrays, it, height, vectors, masked, pairs, moves)
                b.branch(end)
        _register_tile(b, dtype, arrays, it, tile.tail, tile.vectors, False, pairs, moves)
        b.branch(end)
        b.position_at_end(end)

    return define(f"multiply {dtype.name} {tile!r} {arrays!r} {pairs} {moves}", len(Arguments._fields), build)


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
    moves: bool,
) -> None:
    """The k loop over ``height`` x ``vectors`` sums in registers, and what becomes of them."""
    tile = arrays.tile
    sums = _Sums(b, dtype, tile, it, height, vectors, masked, pairs)
    sums.begin()
    if height == tile.rows:
        strided = b.icmp_signed(">=", it.a_k, I64(STRIDED))
        strided = b.and_(strided, b.icmp_signed(">=", b.mul(it.a_k, it.depth), I64(WIDELY)))
        if moves and vectors == tile.vectors:
            sums.run(b.mul(it.moves, I64(STEPS)), STEPS, moves=True)
            apart = b.icmp_signed("==", b.and_(it.a_row, I64(APART - 1)), I64(0))
            whole = b.select(apart, b.and_(it.depth, I64(-STEPS)), I64(0))
            sums.run(whole, STEPS, near=Near(LINE // dtype.itemsize, range(height)))
        sums.run_either(strided, it.depth, Near(SOON, (0, height - 1)))
    else:
        sums.run(it.depth)
    if height > tile.tail and arrays.short_enough:
        direct = b.and_(b.icmp_signed("!=", it.last, I64(0)), runs_epilogue(b, arrays, it.rows, it.columns))
        with b.if_else(direct) as (now, later):
            with now:
                on_registers(b, arrays, it.frame, it.desc, it.i, sums.values, sums.masks)
            with later:
                sums.store()
    else:
        sums.store()


class Near(NamedTuple):
    """Rows of A that a loop fetches ``ahead`` steps of k before it reads them, shared out among its steps."""

    ahead: int
    rows: Sequence[int] = ()


NOTHING = Near(0)


class _Sums:
    """A register tile: its sums, where k, A and B have come to, and the loops that go on from there."""

    def __init__(
        self, b: ir.IRBuilder, dtype: np.dtype, tile: Tile, it: Arguments,
        height: int, vectors: int, masked: bool, pairs: bool,
    ) -> None:  # fmt: skip
        self.b, self.tile, self.it, self.pairs = b, tile, it, pairs
        self.vector, self.size = lines.ir_type(dtype, tile.lanes), dtype.itemsize
        self.scalar = I32 if pairs else lines.ir_type(dtype)
        self.full = height > tile.tail
        bases, self.offsets = (_row_addresses if self.full else _clamped_rows)(b, it, height)
        self.masks = [lane_mask(b, tile.lanes, it.columns, v) if masked else None for v in range(vectors)]
        self.steps = [v * tile.lanes * self.size for v in range(vectors)]
        self.places = [[r * tile.width * self.size + step for step in self.steps] for r in range(height)]
        self.at = [I64(0), it.b, *bases]
        self.values: list[list[ir.Value]] = []

    def begin(self) -> None:
        """Zeros, or what ``it.sums`` holds."""
        b, zero = self.b, ir.Constant(self.vector, None)
        fresh = b.block
        with b.if_then(b.icmp_signed("!=", self.it.resume, I64(0))):
            held = [[read(b, self.vector, self._held(p), 64) for p in row] for row in self.places]
            resumed = b.block
        for row in held:
            phis = [b.phi(self.vector) for _ in row]
            for phi, value in zip(phis, row, strict=True):
                phi.add_incoming(zero, fresh)
                phi.add_incoming(value, resumed)
            self.values.append(phis)

    def run(self, stop: ir.Value, steps: int = 1, moves: bool = False, near: Near = NOTHING) -> None:
        """``for k in range(k, stop, steps)``, which the steps must fit; ``moves``: a row of the next panel each time."""
        b, it = self.b, self.it
        before = b.block
        head, body, done = (b.append_basic_block(name) for name in ("k.head", "k.body", "k.done"))
        b.branch(head)
        b.position_at_end(head)
        carried = [*self.at, *([it.ahead, it.target] if moves else [])]
        phis = [b.phi(I64) for _ in carried]
        sums = [[b.phi(self.vector) for _ in row] for row in self.values]

        def incoming(values: list[ir.Value], new: list[list[ir.Value]], block: ir.Block) -> None:
            for phi, value in zip([*phis, *chain(*sums)], [*values, *chain(*new)], strict=True):
                phi.add_incoming(value, block)

        incoming(carried, self.values, before)
        n = len(self.at)
        self.at, self.values, moved = phis[:n], sums, phis[n:]
        b.cbranch(b.icmp_signed("<", self.at[0], stop), body, done)
        b.position_at_end(body)
        if moves:
            moved = self._move(*moved)
        at, values = self.at, self.values
        ahead = b.mul(it.a_k, I64(near.ahead))
        for s in range(steps):
            for r in near.rows[s::steps]:
                base, offset = self.offsets[r]
                fetch(b, b.add(b.add(at[2 + base], offset), ahead), nearest=True)
            at, values = self._step(at, values)
        incoming([*at, *moved], values, body)
        b.branch(head)
        b.position_at_end(done)

    def run_either(self, condition: ir.Value, stop: ir.Value, near: Near) -> None:
        """`run`, with ``near`` where the condition holds: two loops side by side, so that neither waits for the other."""
        b, at, values, ends = self.b, self.at, self.values, []
        with b.if_else(condition) as (yes, no):
            for block, fetched in ((yes, near), (no, NOTHING)):
                with block:
                    self.at, self.values = at, values
                    self.run(stop, near=fetched)
                    ends.append((self.values, b.block))
        self.values = [[b.phi(self.vector) for _ in row] for row in values]
        for held, block in ends:
            for phi, value in zip(chain(*self.values), chain(*held), strict=True):
                phi.add_incoming(value, block)

    def _step(
        self, at: list[ir.Value], sums: list[list[ir.Value]]
    ) -> tuple[list[ir.Value], list[list[ir.Value]]]:
        """One k: where k, A and B are then, and the sums."""
        b, tile = self.b, self.tile
        k, b_at, *a_at = at
        factors = vec.widen(self.scalar, tile.lanes)
        row_of_b = [
            read(b, factors, b.add(b_at, I64(step)), self.size, mask)
            for step, mask in zip(self.steps, self.masks, strict=True)
        ]
        here = [opaque(b, place) for place in a_at] if self.full else a_at
        new = []
        for (base, offset), row in zip(self.offsets, sums, strict=True):
            x = vec.splat(b, read(b, self.scalar, b.add(here[base], offset), self.size), tile.lanes)
            products = [(b, x, y, held) for y, held in zip(row_of_b, row, strict=True)]
            new.append([dot(*p) if self.pairs else vec.multiply_add(*p, tile.fused) for p in products])
        return [b.add(k, I64(1)), b.add(b_at, self.it.b_k), *(b.add(x, self.it.a_k) for x in here)], new

    def _move(self, source: ir.Value, target: ir.Value) -> list[ir.Value]:
        """One row of the next panel; where the following one lies and goes."""
        b, it, row_bytes = self.b, self.it, self.tile.width * self.size
        soon = b.add(source, b.mul(it.ahead_step, I64(FETCHED)))
        for place in (*range(0, row_bytes, LINE), row_bytes - 1):  # rows need not begin with a line
            fetch(b, b.add(soon, I64(place)))
        for step in self.steps:
            value = read(b, self.vector, b.add(source, I64(step)), self.size)
            write(b, value, b.add(target, I64(step)), self.tile.lanes * self.size)
        return [b.add(source, it.ahead_step), b.add(target, it.target_step)]

    def store(self) -> None:
        """Leave the sums in ``it.sums``."""
        for row, places in zip(self.values, self.places, strict=True):
            for value, place in zip(row, places, strict=True):
                write(self.b, value, self._held(place), 64)

    def _held(self, place: int) -> ir.Value:
        return self.b.add(self.it.sums, I64(place))


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
