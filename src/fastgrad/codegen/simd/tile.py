"""Sizes of a matrix product's kernel: the register tile that fits a machine, and where the descriptor's words lie."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SLICE = 64
"""Rows along K that one tile of a packing step copies; a multiple of the squares that it transposes."""

LINE = 64
"""Bytes of a cache line."""

AHEAD = 8
"""Vectors of columns, or rows, that a product with one vector sums side by side: multiply-adds have a latency of four."""
SPREAD = 64
"""Vectors of columns whose sums such a product keeps in the first-level cache, where there are more than ``AHEAD``."""

LONG = 8
"""Vectors along k from which on it pays to begin with a cache line (`matvec.dots`)."""


STRIP, RUN = 32, 2048
"""The same for pairs of bfloat16, both multiples of an AMX tile's 32: where rows lie across K, so many of them at a time (a
processor follows some 32 streams; 64 at a time read 12 GB/s, 32 17); where they lie along K, so much of each."""
PAIRS_A_ROW = 16
"""Pairs of bfloat16 in a row of an AMX tile."""
AMX_ROWS = AMX_COLUMNS = 32
"""Of the block of C that four AMX tiles hold."""
DEPTH, COLUMNS, HELD = 32, 128, 256
"""AMX: steps of 32 along k in a block; columns of C in a tile of work, rows at most. Blocks of A, of B and the sums then
take 512, 256 and 128 KB of the second-level cache (2 MB on every processor with AMX so far)."""


FAR = 3 << 18
"""B with contiguous rows is packed too where it spans more bytes than this: its rows share cache sets and many pages then.

Measured (Xeon, 128 rows, GFLOP/s packed / read in place): 256 KB 218 / 219, 1 MB 212 / 189, 2 MB 187 / 97. Rows that begin
in the middle of a cache line cost two lines a vector: they are packed for four register tiles of rows or more (`NEAR`: 32).
"""

NEAR = 36 << 10
"""A panel of so many bytes, each row with a line more than it fills, stays in the first-level cache: it is packed for more
rows only. Measured (GFLOP/s, packed / as it lies): 127x129x131 169 / 183; where rows are whole lines apart they share sets,
128^3 208 / 200."""

STEPS, FETCHED = 8, 4
"""Steps of k in which one row of the next panel is moved, and how many such rows before its line is fetched.

Rows of a matrix lie a page apart, where no hardware prefetcher follows: a line takes some 400 cycles to come, and a core
waits for 16 at a time. Measured (Xeon, 1024^3, one thread, GFLOP/s): a row in each step 168, in 4 steps 202, in 8 212, in 10
(the loop's code is too long) 176.
"""

STRIDED, WIDELY, SOON = 128, 1 << 17, 8
"""Bytes from one step of k to the next in a transposed A, and from the first to the last, from which on its lines are
fetched; so many steps before they are read.

A line serves one step alone, and no prefetcher follows it from page to page. Measured (Xeon, one thread, GFLOP/s,
without, with): A.T [8192, 128] @ [128, 32] 95, 170; [2048, 256] @ [256, 10] 52, 75; [64, 4096] @ [4096, 64] 152, 169.
With 4 or 16 steps the first is 150 or 142.
"""
APART = 2048
"""Bytes between rows of A, or a multiple, that make them share few sets of the first-level cache: their lines are fetched a
line ahead. Measured: 512^3 219 / 224; rows of 2000 or 4000 bytes lose 1%.
"""


class Tile(NamedTuple):
    """What fits a machine: a register tile of ``rows`` x (``vectors`` * ``lanes``) sums, ``depth`` rows to a panel.

    Left-over rows go to a register tile of ``middle`` rows where so many are left (0: there is none), then to tiles of
    ``tail`` at most. ``fused`` says whether the machine has a fused multiply-add (without one ``llvm.fma`` would be a
    library call a lane).
    """

    lanes: int
    vectors: int
    rows: int
    middle: int
    tail: int
    depth: int
    fused: bool

    @property
    def width(self) -> int:
        """Columns of a panel (NR in the literature)."""
        return self.lanes * self.vectors

    @property
    def held(self) -> int:
        """Rows of partial sums that the scratch tile of a packing kernel holds; a multiple of ``rows``."""
        return self.rows * max(1, 160 // self.rows)


def host_tile(dtype: np.dtype, features: dict[str, bool]) -> Tile:
    """The register tile for ``dtype`` on a machine with these LLVM CPU ``features``.

    Sums, two vectors of B and one broadcast of A must fit the vector registers (32 with AVX-512, 16 before); the
    sums in flight must hide the multiply-add's latency. A packed panel fills 32 KB.
    """
    if features.get("avx512f"):
        vector_bytes, rows, middle, tail = 64, 14, 8, 4
    elif features.get("avx2") and features.get("fma"):
        vector_bytes, rows, middle, tail = 32, 6, 0, 3
    else:
        vector_bytes, rows, middle, tail = 16, 4, 0, 2
    depth = 131072 // (2 * vector_bytes)
    fused = bool(features.get("fma") or features.get("neon"))
    return Tile(vector_bytes // dtype.itemsize, 2, rows, middle, tail, depth, fused)


class Words(NamedTuple):
    """Word numbers in the descriptor of a product with so many epilogue operands and outputs (see `gemm`)."""

    operands: int
    outputs: int

    @property
    def sizes(self) -> int:
        """batch, M, N, K."""
        return 2 + self.operands + self.outputs

    @property
    def a(self) -> int:
        """Strides of A (b, block, i, k), then of B (b, panel, k, j).

        Row i of A is row ``i % tile.rows`` of block ``i // tile.rows``, column j of B is column ``j % tile.width`` of panel
        ``j // tile.width``: packed and plain operands differ in strides alone.
        """
        return self.sizes + 4

    def strides(self, array: int) -> int:
        """Strides of epilogue operand ``array`` (b, i, j); counted on from the operands, of an output (b, i)."""
        outputs_before = max(0, array - self.operands)
        return self.a + 8 + 3 * (array - outputs_before) + 2 * outputs_before

    @property
    def row_block(self) -> int:
        """Rows in a row block; the literals follow."""
        return self.strides(self.operands + self.outputs)
