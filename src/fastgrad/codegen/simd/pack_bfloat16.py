"""Packing for bfloat16 products: float32 operands to panels of pairs, two neighbours along k in one int32.

A panel is ``width`` columns of B, or as many rows of A. Its pairs lie in one of two orders (k counts pairs here):

    "columns"   [k][width]                   what a register tile reads, and B in AMX's tiles (Intel's "VNNI" order)
    "rows"      [k / 16][width][16]          A in AMX's tiles: a row of a tile is 64 bytes, 32 neighbours along k

Beyond K there are zeros, up to a multiple of ``group`` pairs; what is beyond the extent is never used. The source is read
along whichever axis is its unit axis ("extent", "k"; "any": neither); where that is not the order's inner axis, squares
of 8 x 8 pairs are transposed in registers. Rounding is that of `core.bfloat16`. The descriptor is `pack`'s.

A tile is ``STRIP`` of K in all panels of a matrix where the extent is the unit axis, else ``RUN`` of K in one panel: rows of
the source are read from one end to the other.
"""

from __future__ import annotations

from typing import Any, Literal

from llvmlite import ir

from . import vec
from .bfloat16 import paired, rounded_bits
from .blocks import I32, I64, Definition, define, lane_mask, least, loop, read, tiles_of, word, write
from .tile import PAIRS_A_ROW, RUN, STRIP

Order = Literal["columns", "rows"]
Unit = Literal["extent", "k", "any"]
SIDE = 8
"""Of a square: LLVM takes minutes over the shuffles of 16 x 16."""
SIZE = 4


def bfloat16_panels(order: Order, width: int, group: int, unit: Unit, lanes: int = 16) -> Any:
    """The intrinsic ``tiles(desc, lo, hi)``: pack those slices of the operand that ``desc`` describes; 0."""
    key = f"bfloat16_panels {order} {width} {group} {unit} {lanes}"
    panel = define(f"{key} panel", 6, lambda b: _panel(b, order, width, group, unit, lanes))
    function = define(key, 3, lambda b: _slices(b, order, width, group, unit, panel))

    return tiles_of(function)


def _slices(b: ir.IRBuilder, order: Order, width: int, group: int, unit: Unit, panel: Definition) -> None:
    desc, lo, hi = b.function.args
    copy = panel(b.module)
    source, target, _, extent, k = (word(b, desc, x) for x in range(5))
    s_batch, s_along, s_k = (b.mul(word(b, desc, 5 + x), I64(SIZE)) for x in range(3))
    count = b.udiv(b.add(extent, I64(width - 1)), I64(width))
    whole = b.mul(_padded(b, k, group), I64(width * SIZE))
    step = STRIP if unit == "extent" else RUN
    slices = b.udiv(b.add(k, I64(step - 1)), I64(step))
    alone = count if unit != "extent" else I64(1)  # panels that are tiles of their own

    with loop(b, hi, start=lo) as t:
        matrix = b.udiv(t, b.mul(slices, alone))
        rest = b.sub(t, b.mul(matrix, b.mul(slices, alone)))
        only = b.udiv(rest, slices)
        first = b.mul(b.sub(rest, b.mul(only, slices)), I64(step))
        depth = least(b, I64(step), b.sub(k, first))
        here = b.add(b.add(source, b.mul(matrix, s_batch)), b.mul(first, s_k))
        there = b.add(target, b.mul(b.mul(matrix, count), whole))
        there = b.add(there, b.mul(first, I64(width * SIZE // 2)))
        end = count if unit == "extent" else b.add(only, I64(1))
        with loop(b, end, start=only) as q:
            at = b.mul(q, I64(width))
            columns = least(b, I64(width), b.sub(extent, at))
            from_, to = b.add(here, b.mul(at, s_along)), b.add(there, b.mul(q, whole))
            b.call(copy, [from_, s_k, s_along, depth, columns, to])


def _padded(b: ir.IRBuilder, k: ir.Value, group: int) -> ir.Value:
    """Pairs that ``k`` elements take."""
    return b.mul(b.udiv(b.add(k, I64(2 * group - 1)), I64(2 * group)), I64(group))


def _panel(b: ir.IRBuilder, order: Order, width: int, group: int, unit: Unit, lanes: int) -> None:
    """copy(source, stride along k, stride along the extent, depth, columns, target)"""
    source, s_k, s_along, depth, columns, target = b.function.args
    pairs, last = _padded(b, depth, group), b.sub(columns, I64(1))

    def place(p: ir.Value, j: ir.Value) -> ir.Value:
        """Where pair ``p`` of column (or row) ``j`` goes."""
        if order == "columns":
            index = b.add(b.mul(p, I64(width)), j)
        else:
            block = b.mul(b.lshr(p, I64(4)), I64(width * PAIRS_A_ROW))
            index = b.add(b.add(block, b.mul(j, I64(PAIRS_A_ROW))), b.and_(p, I64(PAIRS_A_ROW - 1)))
        return b.add(target, b.mul(index, I64(SIZE)))

    def along_extent(p: ir.Value, j: ir.Value, n: int) -> ir.Value:
        """Pair ``p`` of ``n`` neighbours along the extent, which is the unit axis."""
        inside, halves = lane_mask(b, n, b.sub(columns, j), 0), []
        k = b.shl(p, I64(1))
        for x in (k, b.add(k, I64(1))):
            here = b.add(b.add(source, b.mul(x, s_k)), b.mul(j, I64(SIZE)))
            mask = b.and_(inside, vec.splat(b, b.icmp_signed("<", x, depth), n))
            halves.append(rounded_bits(b, read(b, ir.VectorType(vec.F32, n), here, SIZE, mask)))
        return paired(b, *halves)

    def along_k(p: ir.Value, j: ir.Value, n: int) -> ir.Value:
        """``n`` pairs from ``p`` on of one column, where k is the unit axis."""
        k = b.shl(p, I64(1))
        here = b.add(b.add(source, b.mul(least(b, j, last), s_along)), b.mul(k, I64(SIZE)))
        mask = lane_mask(b, 2 * n, b.sub(depth, k), 0)
        bits = rounded_bits(b, read(b, ir.VectorType(vec.F32, 2 * n), here, SIZE, mask))
        halves = b.trunc(b.lshr(bits, vec.const(bits.type, 16)), ir.VectorType(ir.IntType(16), 2 * n))
        return b.bitcast(halves, ir.VectorType(I32, n))

    if unit == "any":
        with loop(b, pairs) as p, loop(b, I64(width)) as j:
            write(b, _gathered(b, source, s_k, s_along, depth, p, least(b, j, last)), place(p, j), SIZE)
    elif (unit, order) == ("extent", "columns"):
        n = min(lanes, width)
        with loop(b, pairs) as p, loop(b, I64(width), n) as j:
            fits = None if width % n == 0 else lane_mask(b, n, b.sub(I64(width), j), 0)
            write(b, along_extent(p, j, n), place(p, j), SIZE, fits)
    elif (unit, order) == ("k", "rows"):
        with loop(b, I64(width)) as j, loop(b, pairs, SIDE) as p:
            write(b, along_k(p, j, SIDE), place(p, j), SIDE * SIZE)
    else:
        load = along_k if unit == "k" else along_extent
        with loop(b, pairs, SIDE) as p, loop(b, I64(width), SIDE) as j:
            if unit == "k":
                square = [load(p, b.add(j, I64(c)), SIDE) for c in range(SIDE)]
            else:
                square = [load(b.add(p, I64(r)), j, SIDE) for r in range(SIDE)]
            fits = None if width % SIDE == 0 else lane_mask(b, SIDE, b.sub(I64(width), j), 0)
            for r, value in enumerate(_transposed(b, square)):
                if order == "rows":
                    write(b, value, place(p, b.add(j, I64(r))), SIDE * SIZE)
                    continue
                at = b.add(p, I64(r))
                with b.if_then(b.icmp_signed("<", at, pairs), likely=True):
                    write(b, value, place(at, j), SIZE, fits)


def _gathered(
    b: ir.IRBuilder,
    source: ir.Value,
    s_k: ir.Value,
    s_along: ir.Value,
    depth: ir.Value,
    p: ir.Value,
    j: ir.Value,
) -> ir.Value:
    """One pair, element by element."""
    halves, k = [], b.shl(p, I64(1))
    end = b.sub(depth, I64(1))
    for x in (k, b.add(k, I64(1))):
        here = b.add(b.add(source, b.mul(least(b, x, end), s_k)), b.mul(j, s_along))
        bits = rounded_bits(b, read(b, vec.F32, here, SIZE))
        halves.append(b.select(b.icmp_signed("<", x, depth), bits, I32(0)))
    return paired(b, *halves)


def _transposed(b: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
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
