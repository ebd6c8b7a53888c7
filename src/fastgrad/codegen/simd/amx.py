"""Products of bfloat16 pairs in Intel's tile registers (AMX): 32 x 32 sums in four tiles of 16 x 16.

    tiles(desc, lo, hi)        loops over tiles of C, blocks of k, panels of B, rows
        block(...)             four tiles of sums over a block of k, to memory
        finish(...)            the epilogue and the stores

A step of 32 along k loads two tiles of A (16 rows of 16 pairs) and two of B (16 pairs of 16 columns) and multiplies each by
each: 64 cycles for 65,536 multiply-adds. Both operands lie in panels that `pack_bfloat16` wrote, A in rows, B in columns.

A tile of work is a row block (at most `HELD`) of `COLUMNS`. Where K is longer than `DEPTH` its sums wait in a scratch tile
between blocks of k, so that a block of A, one of B and the sums stay in the second-level cache; each sum is one chain, k
ascending, whatever the row block. Descriptor: `gemm`'s, with K in steps of 32, strides in pairs; of A's and B's
strides only those of the batch and of the panel count.

Subnormal numbers, below 2^-126, count as zero, as operands and as results, and the process's floating-point modes change
nothing of it: ``TDPBF16PS`` rounds to nearest even, flushes denormals and neither consults nor updates MXCSR (Intel,
"Architecture Instruction Set Extensions and Future Features Programming Reference", 319433, TDPBF16PS). Infinities and NaN
propagate as in float32.

A process must ask the kernel for the tile registers (`target.amx`) before it runs this.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from ...core.expr import Map
from .blocks import I8, I64, Definition, define, fetch, greatest, least, loop, tiles_of, word, write
from .epilogue import Arrays, finish
from .tile import AMX_COLUMNS, AMX_ROWS, COLUMNS, DEPTH, HELD, Tile

F32 = np.dtype(np.float32)
STEP_BYTES = 2048
"""Of a panel, either operand's, for 32 along k."""
FETCHED = 2
"""Rows of the first output that a step along k brings near, for `finish` to write: the rate of 1024 x 1024 x 512 goes from
650 to 980 GFLOP/s, of 512 x 1024 x 1024 from 1,015 to 1,190."""
ROW_BYTES = AMX_COLUMNS * 4


def tile_matmul(tile: Tile, epilogue: Map, kinds: tuple[str, ...]) -> Any:
    """The intrinsic ``tiles(desc, lo, hi)``: compute those tiles of the product that ``desc`` describes; 0."""
    arrays = Arrays(tile, epilogue, kinds)
    key = f"tile_matmul {tile!r} {arrays!r}"
    parts = (define("amx block", 7, _block), finish(F32, arrays))
    function = define(key, 3, lambda b: _tiles(b, arrays, *parts))

    return tiles_of(function)


def _tiles(b: ir.IRBuilder, arrays: Arrays, block: Definition, finish: Definition) -> None:
    """The loops:

    for t in [lo, hi): for p in range(0, K, DEPTH): for j in columns of the tile, 32 at a time: for i in its rows, the same:
        block(A[i:, p:], B[p:, j:], sums of i, j);  after the last p: finish(sums of i, j)
    """
    product, finish = block(b.module), finish(b.module)
    desc, lo, hi = b.function.args
    words = arrays.words
    a, b_base = word(b, desc, 0), word(b, desc, 1)
    m, n, k = (word(b, desc, words.sizes + x) for x in (1, 2, 3))
    a_batch, a_panel, _, _, b_batch, b_panel, _, _ = (
        b.mul(word(b, desc, words.a + x), I64(4)) for x in range(8)
    )
    row_block = word(b, desc, words.row_block)
    blocks = b.udiv(b.add(m, b.sub(row_block, I64(1))), row_block)
    groups = b.udiv(b.add(n, I64(COLUMNS - 1)), I64(COLUMNS))
    scratch = b.alloca(ir.ArrayType(I8, HELD * COLUMNS * 4))
    scratch.align = 64
    sums = b.ptrtoint(scratch, I64)
    frame = arrays.open_frame(b)
    # Sums of a panel lie row by row; when K is one block, one 32 x 32 place serves all, hot in the cache.
    waits = b.icmp_signed(">", k, I64(DEPTH))
    of_panel = b.select(waits, I64(HELD * ROW_BYTES), I64(0))
    of_row = b.select(waits, I64(ROW_BYTES), I64(0))

    _configure(b)
    with loop(b, hi, start=lo) as t:
        band = b.udiv(t, groups)
        first_j = b.mul(b.sub(t, b.mul(band, groups)), I64(COLUMNS))
        s = b.udiv(band, blocks)
        first = b.mul(b.sub(band, b.mul(s, blocks)), row_block)
        end, end_j = least(b, m, b.add(first, row_block)), least(b, n, b.add(first_j, I64(COLUMNS)))
        a_at, b_at = b.add(a, b.mul(s, a_batch)), b.add(b_base, b.mul(s, b_batch))
        with loop(b, greatest(b, k, I64(1)), DEPTH) as p:
            steps = least(b, I64(DEPTH), b.sub(k, p))
            complete = b.icmp_signed(">=", b.add(p, I64(DEPTH)), k)
            offset = b.mul(p, I64(STEP_BYTES))
            with loop(b, end_j, AMX_COLUMNS, start=first_j) as j:
                panel = b.add(b.add(b_at, b.mul(b.udiv(j, I64(AMX_COLUMNS)), b_panel)), offset)
                held_j = b.mul(b.udiv(b.sub(j, first_j), I64(AMX_COLUMNS)), of_panel)
                arrays.fill_frame(b, frame, desc, s, I64(0), j)
                with loop(b, end, AMX_ROWS, start=first) as i:
                    rows_at = b.add(b.add(a_at, b.mul(b.udiv(i, I64(AMX_ROWS)), a_panel)), offset)
                    held = b.add(b.add(sums, held_j), b.mul(b.sub(i, first), of_row))
                    here, row_bytes = (x[len(arrays.inputs)] for x in arrays.rows_at(b, frame, i))
                    b.call(product, [rows_at, panel, steps, p, held, here, row_bytes])
                    with b.if_then(complete):
                        rows = least(b, I64(AMX_ROWS), b.sub(end, i))
                        columns = least(b, I64(AMX_COLUMNS), b.sub(end_j, j))
                        b.call(finish, [frame, desc, i, rows, columns, held, I64(ROW_BYTES)])
    _call(b, "tilerelease")


def _block(b: ir.IRBuilder) -> None:
    """block(a, b, steps, resume, sums, ahead, ahead_row): 32 x 32 sums over ``steps`` of 32 along k.

    ``resume``: on from what lies there. ``ahead``, and ``ahead_row`` bytes on each: where rows of C will be written.
    """
    a, other, steps, resume, sums, ahead, ahead_row = b.function.args
    places = [(r * 16 * ROW_BYTES + c * 64) for r in range(2) for c in range(2)]
    with b.if_else(b.icmp_signed("!=", resume, I64(0))) as (more, fresh):
        with more:
            for number, place in enumerate(places):
                _load(b, number, b.add(sums, I64(place)), ROW_BYTES)
        with fresh:
            for number in range(4):
                _call(b, "tilezero", I8(number))
    with loop(b, steps) as k:
        offset = b.mul(k, I64(STEP_BYTES))
        a_at, b_at = b.add(a, offset), b.add(other, offset)
        _load(b, 4, a_at, 64)
        _load(b, 6, b_at, AMX_COLUMNS * 4)
        _load(b, 5, b.add(a_at, I64(16 * 64)), 64)
        _load(b, 7, b.add(b_at, I64(64)), AMX_COLUMNS * 4)
        for number, (row, column) in enumerate(((4, 6), (4, 7), (5, 6), (5, 7))):
            _call(b, "tdpbf16ps", I8(number), I8(row), I8(column))
        for r in range(FETCHED):
            row = b.and_(b.add(b.mul(k, I64(FETCHED)), I64(r)), I64(AMX_ROWS - 1))
            line = b.add(ahead, b.mul(row, ahead_row))
            for c in range(2):
                fetch(b, b.add(line, I64(64 * c)))
    for number, place in enumerate(places):
        pointer = b.inttoptr(b.add(sums, I64(place)), I8.as_pointer())
        _call(b, "tilestored64", I8(number), pointer, I64(ROW_BYTES))


def _load(b: ir.IRBuilder, number: int, address: ir.Value, stride: int) -> None:
    _call(b, "tileloadd64", I8(number), b.inttoptr(address, I8.as_pointer()), I64(stride))


def _configure(b: ir.IRBuilder) -> None:
    """All eight tiles have 16 rows of 64 bytes (palette 1; Intel's manual, LDTILECFG, has the layout)."""
    place = b.alloca(ir.ArrayType(I8, 64))
    place.align = 64
    layout = np.zeros(64, np.uint8)
    layout[0] = 1
    layout[16:32] = np.full(8, 64, np.uint16).view(np.uint8)
    layout[48:56] = 16
    address = b.ptrtoint(place, I64)
    for x, number in enumerate(layout.view(np.int64).tolist()):
        write(b, I64(number), b.add(address, I64(8 * x)), 8)
    _call(b, "ldtilecfg", b.bitcast(place, I8.as_pointer()))


def _call(b: ir.IRBuilder, name: str, *args: ir.Value) -> None:
    full = f"llvm.x86.{name}"
    kind = ir.FunctionType(ir.VoidType(), [x.type for x in args])
    b.call(b.module.globals.get(full) or ir.Function(b.module, kind, full), args)
