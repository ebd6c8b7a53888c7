"""Products of bfloat16 operands on this machine: which kernel, what is packed for it, its descriptor.

Three families, the best that the processor has, all on panels that a `Pack` step rounds and writes:

    tiles      AMX's tile registers, 32 x 32 sums (Intel since Sapphire Rapids)                  `simd.amx`
    pairs      AVX512_BF16 on AMD: the register tile of float32 with pairs for numbers           `simd.macrokernel`
    rounded    float32 arithmetic on operands that are rounded: no faster, the same numbers

Operands are always packed: rounding touches every element anyway, and the microkernels read one order alone. Measured on
1024 x 1024 x 512 (Xeon with AMX, one core, GFLOP/s without / with packing): float32 196 / 184, tiles 962 / 795, pairs
110 / 105.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..core.loops import Axis, Layout
from ..machine import cuts
from ..schedule import Buffer, Gemm, Pack, Ref, Step
from .simd.gemm import Factors, Kind, gemm_source, pack_bfloat16_source
from .simd.tile import AMX_COLUMNS, AMX_ROWS, COLUMNS, DEPTH, HELD, PAIRS_A_ROW, RUN, STRIP, Tile
from .target import amx, cpu, cpu_features
from .writer import Word, scalar_word

I32 = np.dtype(np.int32)
NEAR_A = cuts().near_bytes
"""Bytes of packed A that a tile keeps in the second-level cache while panels of B pass by."""
TWICE_AS_FAST = "znver"
"""LLVM's names of processors whose ``vdpbf16ps`` has twice float32's rate, as AMD's have since Zen 4. Intel's takes two
cycles: 110 GFLOP/s a core beside 196 of float32."""
OF_FLOAT32 = {"tiles": 16.0, "pairs": 2.0}
"""How many times float32's peak rate the instructions of a family reach on processors that it is chosen for."""
SMALL = 400_000
"""Operations of a product that is not worth cutting."""


class Family(NamedTuple):
    """How one family packs A and B: `Pack`'s form and width of each, and the pairs that K is filled up to."""

    factors: Factors
    a: tuple[str, int]
    b: tuple[str, int]
    group: int = 1


def family(tile: Tile) -> Family:
    """The family for this process; it asks for AMX's registers where the processor has them."""
    if amx():
        return Family("tiles", ("rows", AMX_ROWS), ("columns", AMX_COLUMNS), PAIRS_A_ROW)
    if cpu_features().get("avx512bf16") and cpu()[0].startswith(TWICE_AS_FAST):
        return Family("pairs", ("columns", tile.rows), ("columns", tile.width))
    return Family("rounded", ("rounded", tile.rows), ("rounded", tile.width))


def lower_bfloat16(step: Gemm, tile: Tile) -> list[Step]:
    """The product on packed operands, after the steps that round and pack them."""
    if 0 in step.sizes:
        return [replace(step, precision=None)]  # zeros, or nothing, in any precision
    kind = family(tile)
    a = _pack(step, step.a, *kind.a, kind.group)
    b = _pack(step, as_columns(step.b), *kind.b, kind.group)
    shape = f"{AMX_ROWS}x{AMX_COLUMNS}" if kind.factors == "tiles" else f"{tile.rows}x{tile.width}"
    how = f"{kind.factors} {shape}"
    return [a, b, replace(step, packed_a=a.target, packed_b=b.target, form=kind.factors, kernel=how)]


def _pack(step: Gemm, source: Ref, form: str, width: int, group: int) -> Pack:
    batch, extent, k = source.layout.shape
    dtype, deep = (source.buffer.dtype, k) if form == "rounded" else (I32, pairs_of(k, group))
    size = batch * -(-extent // width) * width * deep
    return Pack(source, Ref(Buffer(size, dtype), Layout.contiguous((size,))), width, step.eqns, form, group)


def pairs_of(k: int, group: int) -> int:
    """Pairs that ``k`` elements take, filled up to a multiple of ``group``."""
    return -(-k // (2 * group)) * group


def as_columns(ref: Ref) -> Ref:
    """B as [batch, n, k]."""
    (batch, k, n), (over, along_k, along_n) = ref.layout.shape, ref.layout.axes
    axes: tuple[Axis, ...] = (over, along_n._replace(joined=False), along_k._replace(joined=False))
    return Ref(ref.buffer, Layout((batch, n, k), axes, ref.layout.offset))


Kernel = tuple[str, tuple[Word, ...], int]
"""Text, descriptor words, number of tiles."""


def product_kernel(step: Gemm, tile: Tile, kinds: tuple[Kind, ...]) -> Kernel:
    """The kernel of a product of pairs."""
    assert step.packed_a is not None and step.packed_b is not None
    batch, m, n, k = step.sizes
    tiled = step.form == "tiles"
    height, group = (AMX_ROWS, PAIRS_A_ROW) if tiled else (tile.rows, 1)
    deep, columns = pairs_of(k, group), COLUMNS if tiled else tile.width
    rows = _row_block(step, height, columns)
    text = gemm_source(
        step.a.buffer.dtype,
        True,
        step.map,
        kinds,
        tile,
        factors="tiles" if tiled else "pairs",
        moves=not tiled,
    )
    words: list[Word] = [step.packed_a, step.packed_b, *step.loads, *step.stores, batch, m, n, deep // group]
    words += [-(-m // height) * height * deep, height * deep, 1, height]
    words += [-(-n // tile.width) * tile.width * deep, tile.width * deep, tile.width, 1]
    for ref in step.loads:
        words += [a.stride for a in ref.layout.axes]
    for ref in step.stores:
        words += [a.stride for a in ref.layout.axes[:2]]
    words += [rows, *map(scalar_word, step.scalars)]
    tiles = batch * -(-m // rows) * -(-n // columns)
    return text, tuple(words), tiles


def _row_block(step: Gemm, height: int, columns: int) -> int:
    """Rows of C per tile: eight tiles at least, to share between threads, and no more of A than stays in the cache."""
    batch, m, n, k = step.sizes
    pieces = -(-8 // max(1, batch * -(-n // columns))) if 2 * m * n * k > SMALL else 1
    share = -(-m // max(pieces, -(-2 * m * min(k, 32 * DEPTH) // NEAR_A), -(-m // HELD)))
    return -(-share // height) * height


def pack_pairs(step: Pack, lanes: int) -> Kernel:
    """The kernel of a step that packs pairs."""
    batch, extent, k = step.source.layout.shape
    _, along, along_k = axes = step.source.layout.axes
    unit = "extent" if along.kind == "unit" else "k" if along_k.kind == "unit" else "any"
    text = pack_bfloat16_source(step.form, step.width, step.group, unit, lanes)
    words: tuple[Word, ...] = (step.source, step.target, batch, extent, k, *(a.stride for a in axes))
    tiles = -(-k // STRIP) if unit == "extent" else -(-extent // step.width) * -(-k // RUN)
    return text, words, batch * tiles
