"""Two panels of B that take turns: products read one while the next fills, a few rows during each register tile.

Packing a panel of rows that lie a page apart takes longer than its arithmetic hides when it is done at one go: the core
waits for 16 lines at a time. Spread over the register tiles of the panel before, it costs next to nothing.

Measured (Xeon, AVX-512, one thread, GFLOP/s; packed at one go / in turns): 512^3 206 / 224, 1024^3 170 / 212, 2048^3 150 /
199, [128, 784] @ [784, 400] out of cache 183 / 208.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir

from .blocks import I64, greatest, least, scratch
from .tile import STEPS, Tile


class Block(NamedTuple):
    """Rows of a panel of B: where they begin, how far apart they lie, how many there are."""

    at: ir.Value
    step: ir.Value
    depth: ir.Value


class Pipeline:
    """The panels' memory, and how far the next one is; emitted once, before the loops."""

    def __init__(self, b: ir.IRBuilder, dtype: np.dtype, tile: Tile) -> None:
        self.b, self.tile = b, tile
        self.row_bytes = tile.width * dtype.itemsize
        self.panel_bytes = self.row_bytes * tile.depth
        self.panels, self.nowhere = scratch(b, 2 * self.panel_bytes), scratch(b, self.row_bytes)
        self._moved, self._current = b.alloca(I64), b.alloca(I64)
        b.store(I64(0), self._moved)
        b.store(self.panels, self._current)

    @property
    def current(self) -> ir.Value:
        """The panel whose turn it is."""
        return self.b.load(self._current)

    @property
    def moved(self) -> ir.Value:
        """How many rows of the next block have come."""
        return self.b.load(self._moved)

    def forget(self) -> None:
        """Whatever has come is not what is wanted."""
        self.b.store(I64(0), self._moved)

    def swap(self) -> None:
        """The panel that filled is the one to read now."""
        self.b.store(self._other(), self._current)

    def share(self, following: Block, packs: ir.Value, full: ir.Value, depth: ir.Value) -> list[ir.Value]:
        """What a register tile of ``depth`` steps is to move: the last five arguments of ``product``.

        That is a share of the rows of ``following`` that have not come yet; only a ``full`` tile moves any. Without
        ``packs`` they are brought near, and go nowhere.
        """
        b, moved = self.b, self.moved
        left = b.sub(following.depth, moved)
        rows = greatest(b, I64(0), least(b, left, b.udiv(depth, I64(STEPS))))
        rows = b.select(full, rows, I64(0))
        b.store(b.add(moved, rows), self._moved)
        there = b.add(self._other(), b.mul(moved, I64(self.row_bytes)))
        target = b.select(packs, there, self.nowhere)
        step = b.select(packs, I64(self.row_bytes), I64(0))
        return [b.add(following.at, b.mul(moved, following.step)), following.step, target, step, rows]

    def _other(self) -> ir.Value:
        whole = self.b.add(self.b.mul(self.panels, I64(2)), I64(self.panel_bytes))
        return self.b.sub(whole, self.current)
