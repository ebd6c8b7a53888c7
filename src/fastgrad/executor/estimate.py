"""How long a step takes, from what the machine does at best: measured where it has been, shipped figures where not.

A roofline (Williams, Waterman and Patterson 2009): the longer of its operations, at the share of the peak rate that such
a kernel reaches, and its bytes, at the bandwidth of the level that holds them. The estimate chooses between ways of the same
bits: on one thread or shared among all.

Measured against 97 kernels beyond 3 us of the bench's five models and of nine elementwise programs of 2,000 to 30 million
elements (Xeon, AVX-512, one thread): 0.6 to 1.25 times the time for 71 of them, 0.3 to 1.75 for all but one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..codegen.routines import ROUTINES
from ..codegen.simd.tile import host_tile
from ..codegen.target import cpu_features
from ..core.expr import LIBM
from ..machine import Rates
from ..schedule import Computed, Gemm, Loop, Pack, Phases, Routine
from .work import Work, work_of

PRODUCT, TILES, LINES = 0.85, 0.25, 0.25
"""Shares of the peak rate that a product reaches, one in AMX's tiles (which wait for memory), and elementwise lines: their
chains are shorter, their operations rarely multiply-adds."""
PACK = 0.8
"""Share of the bandwidth that a packing step reaches: it reads against the grain."""
TILE_NS = 4.0
"""What it takes to begin a tile."""
CALL_NS = 10.0
"""What a value takes that C's library computes, one at a time."""


class Estimate(NamedTuple):
    """How long a step of so many ``tiles`` takes: ``operations`` at the peak rate, or its bytes, and what no vector does."""

    work: Work
    tiles: int
    operations: float
    bandwidth: float
    alone_ns: float

    def ns(self, rates: Rates, threads: int = 1) -> float:
        """Nanoseconds on ``threads``; not what it costs to share it out."""
        work, n = self.work, max(1, min(threads, self.tiles))
        compute = self.operations / (work.pace * rates.peak(work.dtype, n))
        moving = rates.move_ns(work.read, work.written, n) / self.bandwidth
        return max(compute, moving) + (self.alone_ns + TILE_NS * self.tiles) / n


def estimate(step: Computed, tiles: int) -> Estimate:
    """The estimate for one step.

    >>> estimate(step, tiles).ns(rates, threads=2)                                  # doctest: +SKIP
    4810.5
    """
    work = work_of(step)
    bandwidth = PACK if isinstance(step, Pack) else 1.0
    return Estimate(work, tiles, _operations(step, work), bandwidth, _alone(step))


def _operations(step: Computed, work: Work) -> float:
    """As many as would take the step's time at the peak rate. A product computes whole panels of columns."""
    if not isinstance(step, Gemm):
        return work.flops / LINES
    batch, m, n, k = step.sizes
    width = host_tile(step.a.buffer.dtype, cpu_features()).width
    product = 2 * batch * m * n * k
    filled = 1.0 if n == 1 or not n else -(-n // width) * width / n
    share = TILES if step.form == "tiles" else PRODUCT
    return product * filled / share + (work.flops - product) / LINES


def _alone(step: Computed) -> float:
    """Nanoseconds of what no vector does: routines, and functions of C's library."""
    if isinstance(step, Routine):
        return ROUTINES[step.name].cost(*step.sizes)
    parts = step.parts if isinstance(step, Phases) else (step,)
    return sum(_calls(part) for part in parts if isinstance(part, Loop | Gemm)) * CALL_NS


def _calls(step: Loop | Gemm) -> int:
    called = sum(line.op in LIBM for line in step.map.lines)
    return called * math.prod(step.shape if isinstance(step, Loop) else step.sizes[:3])
