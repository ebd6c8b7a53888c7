"""Which operands of products are packed ahead, for this machine: Schedule -> Schedule.

A product reads A by broadcast wherever it lies, and packs panels of B for itself where it must. It is quicker to have a
step of its own pack an operand once, for all threads and all row blocks, when it is large enough to be read against its
grain (`Pack`): 8% of the product's time at most, for 10 to 130%.

Measured (Xeon, AVX-512, one core, GFLOP/s as read / packed ahead, packing not counted):

    A.T [784, 128] @ [128, 512]      191 / 226         [512, 1024] @ [1024, 1024]        164 / 211
    A.T [1024, 512] @ [512, 1024]     91 / 180         A.T [256, 256] @ [256, 256]       211 / 233
"""

from __future__ import annotations

from dataclasses import replace

from ..core.loops import Layout
from ..schedule import Buffer, Gemm, Pack, Ref, Region, Schedule, Step
from .bfloat16 import Kernel, as_columns, lower_bfloat16, pack_pairs
from .simd.gemm import pack_source
from .simd.tile import SLICE, Tile, host_tile
from .target import cpu_features
from .writer import Word

WORTH = 384
"""Rows of C that B must serve, columns that A must serve: packing costs some 31 / n of the product's time."""
SPREAD_A = 200_000
"""Bytes over which a transposed A is spread (K rows of it), beyond which its rows leave the first-level cache."""
SPREAD_B = 1 << 19
"""The same of B, whose rows then share cache sets and many pages."""


def packed(schedule: Schedule) -> Schedule:
    """The schedule with packing steps put before the products that want them, inside loops and branches too."""
    steps: list[Step] = []
    for step in schedule.steps:
        if isinstance(step, Gemm):
            steps += _packed(step)
        elif isinstance(step, Region):
            steps.append(replace(step, parts=tuple(map(packed, step.parts))))
        else:
            steps.append(step)
    return replace(schedule, steps=tuple(steps))


def _packed(step: Gemm) -> list[Step]:
    _, m, n, k = step.sizes
    dtype = step.a.buffer.dtype
    tile: Tile = host_tile(dtype, cpu_features())
    if step.precision is not None:
        return lower_bfloat16(step, tile)
    steps: list[Step] = []
    product = replace(step, kernel=f"registers {tile.rows}x{tile.width}")
    _, _, a_k = step.a.layout.axes
    if (
        n >= WORTH
        and m >= 2 * tile.rows
        and a_k.kind != "unit"
        and k * a_k.stride * dtype.itemsize > SPREAD_A
    ):
        pack = _pack(step, step.a, tile.rows)
        steps.append(pack)
        product = replace(product, packed_a=pack.target)
    _, b_k, b_j = step.b.layout.axes
    spread = k * b_k.stride if b_j.kind == "unit" else n * b_j.stride
    if m >= WORTH and n >= 2 * tile.width and abs(spread) * dtype.itemsize > SPREAD_B:
        pack = _pack(step, as_columns(step.b), tile.width)
        steps.append(pack)
        product = replace(product, packed_b=pack.target)
    return [*steps, product]


def _pack(step: Gemm, source: Ref, width: int) -> Pack:
    batch, extent, k = source.layout.shape
    size = batch * -(-extent // width) * width * k
    target = Ref(Buffer(size, source.buffer.dtype), Layout.contiguous((size,)))
    return Pack(source, target, width, step.eqns)


def pack_kernel(step: Pack) -> Kernel:
    """The kernel of a step that packs an operand."""
    dtype = step.source.buffer.dtype
    lanes = host_tile(dtype, cpu_features()).lanes
    if step.form in ("columns", "rows"):
        return pack_pairs(step, lanes)
    batch, extent, k = step.source.layout.shape
    axes = step.source.layout.axes
    text = pack_source(dtype, lanes, step.width, axes[1].kind == "unit", step.form == "rounded")
    words: tuple[Word, ...] = (step.source, step.target, batch, extent, k, *(axis.stride for axis in axes))
    tiles = batch * -(-k // SLICE)
    return text, words, tiles, 20.0 * tiles + 0.1 * batch * extent * k * dtype.itemsize
