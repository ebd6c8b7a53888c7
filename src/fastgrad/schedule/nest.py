"""The loop nest of a step: which axes merge, which are folded, and how the kept ones are cut into tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from ..core.loops import Axis, Layout, merge
from ..machine import cuts
from .steps import Loop

MAP_BLOCK, COLUMN_BLOCK = cuts()[:2]
"""Elements of the inner axis that one tile covers: `machine.Cuts` says why these sizes stand in a table."""
WIDE_BLOCK, COLUMN_TILES = 4096, 16
"""Wide blocks of columns read memory in longer stretches, so they are taken where that leaves tiles enough to share. No sum
depends on it."""
PART_BYTES, PART_ROWS, MOST_PARTS = 4 << 20, 64, 32
"""Rows that are folded into columns are cut into stretches where so many bytes are read, each of so many rows at least: a
tile then reads whole rows, one after the other, where blocks of columns skip from page to page."""


@dataclass(frozen=True)
class Nest:
    """A loop's axes after merging, outermost first: sizes, ``K`` (kept) or ``R`` (folded), and an axis record an operand.

    Operands are the loads, the stores, the folds' targets. Tiles count the kept axes, the inner one in blocks.
    """

    sizes: tuple[int, ...]
    kinds: str
    operands: tuple[tuple[Axis, ...], ...]
    block: int
    tiles: int
    share: int = 0  # rows a part


def nest(loop: Loop) -> Nest:
    """The loop nest of a step: which axes merge depends on construction alone, never on sizes."""
    targets = tuple(f.ref.layout for f in loop.folds)
    if loop.parts > 1:
        targets = tuple(Layout(x.shape[1:], x.axes[1:], x.offset) for x in targets)
    operands = tuple(r.layout for r in loop.loads + loop.stores)
    return _nest(loop.shape, operands, targets, loop.reduced, loop.partial, loop.parts)


def parts(loop: Loop) -> int:
    """Into how many parts a fold over rows is best cut: a function of sizes alone, which orders its sums."""
    n = nest(loop)
    if n.kinds != "RK" or sum(r.nbytes for r in loop.loads) < PART_BYTES:
        return 1
    share = -(-n.sizes[0] // max(1, min(MOST_PARTS, n.sizes[0] // PART_ROWS)))
    return -(-n.sizes[0] // share)


@lru_cache(maxsize=4096)  # equal layers have equal nests
def _nest(
    shape: tuple[int, ...],
    operands: tuple[Layout, ...],
    targets: tuple[Layout, ...],
    reduced: tuple[int, ...],
    partial: bool,
    parts: int,
) -> Nest:
    layouts = [*operands, *(_over(x, shape, reduced, partial) for x in targets)]
    if not shape:
        shape, layouts = (1,), [Layout((1,), (Axis(1, "unit", False),), x.offset) for x in layouts]
    folded = [i in reduced and not partial for i in range(len(shape))]
    cuts = [i for i in range(1, len(shape)) if folded[i] != folded[i - 1]]
    sizes, axes = merge(shape, layouts, cuts)
    ends = [
        i
        for i in range(len(shape))
        if i + 1 == len(shape) or i + 1 in cuts or not all(x.axes[i].joined for x in layouts)
    ]
    kinds = "".join("R" if folded[i] else "K" for i in ends)
    rows = math.prod(n for n, k in zip(sizes[:-1], kinds, strict=False) if k == "K")
    if kinds[-1] != "K":
        return Nest(sizes, kinds, tuple(axes), 1, rows)
    block = _column_block(rows * parts, sizes[-1]) if "R" in kinds else MAP_BLOCK
    tiles = rows * parts * -(-sizes[-1] // block)
    share = -(-sizes[0] // parts) if parts > 1 else 0
    return Nest(sizes, kinds, tuple(axes), block, tiles, share)


def _column_block(rows: int, columns: int) -> int:
    """Columns a tile, in steps of the narrowest: as many as leave so many tiles, within bounds."""
    share = rows * columns // COLUMN_TILES // COLUMN_BLOCK * COLUMN_BLOCK
    return max(COLUMN_BLOCK, min(WIDE_BLOCK, share))


def _over(kept: Layout, shape: tuple[int, ...], reduced: tuple[int, ...], partial: bool) -> Layout:
    """The layout of a fold's target, seen from the whole iteration space: folded axes have stride 0."""
    if partial:
        return Layout(shape, tuple(Axis(0, "zero", True) for _ in shape), kept.offset)
    mine = iter(kept.axes)
    axes = [Axis(0, "zero", True) if i in reduced else next(mine) for i in range(len(shape))]
    kept_positions = [i for i in range(len(shape)) if i not in reduced]
    for i in kept_positions:
        axes[i] = axes[i]._replace(joined=axes[i].joined and i + 1 in kept_positions)
    return Layout(shape, tuple(axes), kept.offset)
