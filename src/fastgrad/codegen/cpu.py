"""Step -> kernel text for the CPU. It only prints what the schedule fixed; equal structure gives equal text.

A kernel is ``kernel(desc, lo, hi)``: it does tiles ``lo`` to ``hi`` of the step that the int64 words at ``desc`` describe
and returns 0, or a status that the run reports. `nests` shows one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ..core.aval import short
from ..core.expr import Map
from ..schedule import Computed, Gemm, Loop, Pack, Phases, Ref, Routine
from .bfloat16 import product_kernel
from .lines import constants
from .nests import loop_source
from .packing import moves_panels, pack_kernel, row_block
from .phases import phases_source
from .routines import ROUTINES
from .simd.gemm import Kind, gemm_source
from .simd.tile import Tile, host_tile
from .source import Source as Source
from .target import cpu_features
from .writer import Word, scalar_word


def emit(step: Computed, apart: Sequence[int] = ()) -> Source:
    """The kernel of one step. Stores of a loop numbered ``apart`` are known to overwrite none of its operands."""
    if isinstance(step, Loop):
        return loop_source(step, apart)
    if isinstance(step, Phases):
        return phases_source(step)
    if isinstance(step, Gemm):
        return _gemm(step)
    if isinstance(step, Pack):
        return Source(step, *pack_kernel(step))
    return _routine(step)


def _gemm(step: Gemm) -> Source:
    """A product's text comes from the microkernel generator; its rows are cut so that both threads find work."""
    dtype = step.a.buffer.dtype
    tile: Tile = host_tile(dtype, cpu_features())
    batch, m, n, k = step.sizes
    b_unit = step.packed_b is not None or step.b.layout.axes[2].kind == "unit"
    kinds: tuple[Kind, ...] = tuple("unit" if r.layout.axes[2].kind == "unit" else "zero" for r in step.loads)
    if step.form in ("pairs", "tiles"):
        return Source(step, *product_kernel(step, tile, kinds))
    text = _gemm_text(
        dtype, b_unit, step.map, constants(step.map), kinds, tile, len(step.folds), moves_panels(step)
    )
    rows = row_block(step, tile)
    words: list[Word] = [step.reads[0], step.reads[1], *step.loads, *step.writes]
    words += [batch, m, n, k]
    words += _panels(step.a, step.packed_a, m, k, tile.rows)
    b_batch, b_panel, b_j, b_k = _panels(step.b, step.packed_b, n, k, tile.width, transposed=True)
    words += [b_batch, b_panel, b_k, b_j]
    for ref in step.loads:
        words += [a.stride for a in ref.layout.axes]
    for ref in step.stores:
        words += [a.stride for a in ref.layout.axes[:2]]
    words += [0, n] * len(step.folds)
    words += [rows, *map(scalar_word, step.scalars)]
    tiles = batch * -(-m // rows) * -(-n // tile.width)
    # The first panel of each chunk is packed before anything can be computed.
    return Source(step, text, tuple(words), tiles, 1 if moves_panels(step) else 4)


def _panels(
    plain: Ref, packed: Ref | None, extent: int, k: int, width: int, transposed: bool = False
) -> list[int]:
    """Strides of an operand: of the batch, a panel, along the extent within it, along k. B has k first: ``transposed``."""
    if packed is not None:
        return [-(-extent // width) * width * k, width * k, 1, width]
    batch, *axes = (axis.stride for axis in plain.layout.axes)
    along, along_k = reversed(axes) if transposed else axes
    return [batch, width * along, along, along_k]


@lru_cache(maxsize=1024)
def _gemm_text(
    dtype: np.dtype,
    b_unit: bool,
    lines: Map,
    constants: tuple[str, ...],
    kinds: tuple,
    tile: Tile,
    folds: int,
    moves: bool,
) -> str:
    return gemm_source(dtype, b_unit, lines, kinds, tile, folds, moves=moves)


def _routine(step: Routine) -> Source:
    routine = ROUTINES[step.name]
    refs = (*step.reads, *step.writes)
    dtypes = tuple(r.buffer.dtype for r in refs)
    tiles = routine.tiles(*step.sizes)
    return Source(step, routine.text(*map(short, dtypes)), (*refs, *step.sizes), tiles)
