"""How products are cut on this machine, and which of their operands are packed ahead: Schedule -> Schedule.

A product reads A by broadcast wherever it lies, and packs panels of B for itself: where it must, or, of a large B with
contiguous rows, in passing (`simd.pipeline`). It is quicker to have a step of its own pack an operand once, for all threads
and all row blocks, when it is large enough to be read against its grain (`Pack`): 8% of the product's time at most, for 10
to 130%. Where a loop's turns share the operand, once for all of them (`hoisting`).

Measured (Xeon, AVX-512, one core, GFLOP/s as read / packed ahead, packing not counted):

    A.T [784, 128] @ [128, 512]      191 / 226         [512, 1024] @ [1024, 1024]        164 / 211
    A.T [1024, 512] @ [512, 1024]     91 / 180         A.T [256, 256] @ [256, 256]       211 / 233
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..core.expr import MapBuilder
from ..core.loops import Layout
from ..machine import cuts
from ..schedule import Buffer, Gemm, Loop, Pack, Ref, Region, Schedule, Step
from .bfloat16 import Kernel, as_columns, lower_bfloat16, pack_pairs
from .hoisting import hoisted
from .simd.gemm import pack_source
from .simd.tile import AHEAD, FAR, SLICE, STEPS, Tile, host_tile
from .target import cpu_features
from .writer import Word

WORTH = 384
"""Rows of C that B must serve, columns that A must serve: packing costs some 31 / n of the product's time."""
MANY = 1 << 20
"""Turns of a loop whose number is not known."""
IN_PASSING = 768
"""The same for a B with contiguous rows, which the product packs itself, in passing (`simd.pipeline`), for fewer rows.

Measured (one core, packing included, GFLOP/s, ahead / in passing): 128 rows 190 / 205, 512 rows 206 / 208, 1024 rows
207 / 197, 2048 rows 204 / 188.
"""
PAGE, PAGES = 4096, 1024
"""Columns that an A must serve whose rows lie a multiple of so many bytes apart, beside a B that is packed too: rows of a
register tile then share one set of the first-level cache.

Measured (packing included, GFLOP/s, as it lies / packed; one core, two): 1024^3 208 / 213, 413 / 408; 768x1024x1024 NT two
cores 392 / 419; 2048^3 203 / 208, 389 / 430. With a B packed in passing it is 207 / 209 and 408 / 393 (512x1024x1024).
"""
SPREAD_A = 200_000
"""Bytes over which a transposed A is spread (K rows of it), beyond which its rows leave the first-level cache."""
SPREAD_B = 1 << 19
"""The same of B, whose rows then share cache sets and many pages."""


def packed(schedule: Schedule, turns: Mapping[Buffer, int] | None = None) -> Schedule:
    """The schedule with packing steps put before the products that want them, inside branches and loops too.

    ``turns``: inputs that stay the same in so many turns of the loop whose body this is.
    """
    turns, steps = turns or {}, []
    for step in schedule.steps:
        if isinstance(step, Gemm):
            steps += _packed(step, turns)
        elif isinstance(step, Region) and step.shared:
            steps += _packed_loop(step, turns)
        elif isinstance(step, Region):
            steps.append(replace(step, parts=tuple(map(packed, step.parts))))
        else:
            steps.append(step)
    return replace(schedule, steps=tuple(steps))


def _packed_loop(loop: Region, turns: Mapping[Buffer, int]) -> list[Step]:
    """A loop's body knows which operands stay; what is packed of those is packed in front."""
    parts, first = [], 0
    for part, count in zip(loop.parts, loop.shared, strict=True):
        operands = loop.reads[first : first + count]
        trips = min(loop.trips, MANY)
        stay = {b: trips * turns.get(r.buffer, 1) for b, r in zip(part.inputs, operands, strict=False)}
        parts.append(packed(part, stay))
        first += count
    return hoisted(replace(loop, parts=tuple(parts)))


def _packed(step: Gemm, turns: Mapping[Buffer, int]) -> list[Step]:
    _, m, n, k = step.sizes
    dtype = step.a.buffer.dtype
    tile: Tile = host_tile(dtype, cpu_features())
    if step.precision is not None:
        return lower_bfloat16(step, tile)
    packs: list[Step] = []
    product = replace(step, kernel=f"registers {tile.rows}x{tile.width}")
    _, b_k, b_j = step.b.layout.axes
    passing = b_j.kind == "unit"
    spread = abs(k * b_k.stride if passing else n * b_j.stride) * dtype.itemsize
    again = turns.get(step.b.buffer, 1)
    enough = m * again >= (IN_PASSING if passing else WORTH) and m >= tile.tail and n >= 2 * tile.width
    if enough and (spread > SPREAD_B or (again > 1 and not passing)):
        pack = _pack(step, as_columns(step.b), tile.width)
        packs.append(pack)
        product = replace(product, packed_b=pack.target)
    _, a_row, a_k = step.a.layout.axes
    columns = n * turns.get(step.a.buffer, 1)
    if a_k.kind == "unit":
        apart = a_row.stride * dtype.itemsize
        wanted = columns >= PAGES and product.packed_b is not None and apart != 0 and apart % PAGE == 0
    else:
        wanted = columns >= WORTH and k * a_k.stride * dtype.itemsize > SPREAD_A
    if wanted and m >= 2 * tile.rows:
        pack = _pack(step, step.a, tile.rows)
        packs.insert(0, pack)
        product = replace(product, packed_a=pack.target)
    return [*packs, *_folded(product, tile)]


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
    return text, words, tiles


SMALL_B, FEW_ROWS = cuts().near_bytes, 8
"""Bytes of B that each core may well read whole, for so many register tiles of rows: a share of rows for each is then better
than a share of columns. With more rows that holds for `SMALLER_B` bytes, with a larger B it does not."""
SMALLER_B = 3 * cuts().near_bytes // 5
NEAR_A = 3 * cuts().near_bytes // 2
"""Bytes of A that a tile keeps in the second-level cache while panels of B pass by, where cutting it costs nothing."""


def moves_panels(step: Gemm) -> bool:
    """Whether the next panel of B comes near while one is read: a large B, as it lies or packed ahead, for enough rows.

    One that lies transposed has to fill its memory, and its panels no more than a block of k: a panel is one run then.
    """
    _, m, n, k = step.sizes
    tile, size = host_tile(step.b.buffer.dtype, cpu_features()), step.b.buffer.dtype.itemsize
    _, b_k, b_j = step.b.layout.axes
    if b_j.kind == "unit":
        far = k * abs(b_k.stride) * size > FAR
    else:
        far = b_k.kind == "unit" and b_j.stride == k <= tile.depth and n * k * size > FAR
    return m >= 2 * tile.rows and (far or step.packed_b is not None)


def row_block(step: Gemm, tile: Tile) -> int:
    """Rows of C per tile: all of them, unless that leaves too few tiles to share between threads, B is small, or A large.

    Loops cut a matrix by rows. Where products do too, a core that takes the first rows of each step finds them in its cache.
    A packed A is cut between register tiles only.
    """
    batch, m, n, k = step.sizes
    size = step.a.buffer.dtype.itemsize
    if 2 * m * n * k <= 200_000:
        return max(1, -(-m // tile.rows)) * tile.rows
    panels = max(1, batch * -(-n // tile.width))
    pieces = min(-(-8 // panels), max(2, m // (2 * tile.rows)))
    small = SMALL_B if m <= FEW_ROWS * tile.rows else SMALLER_B
    if batch == 1 and k * n * size <= small and 2 * tile.rows <= m:
        pieces = max(pieces, 2)
    if step.packed_b is not None:
        pieces = max(pieces, -(-m * k * size // NEAR_A), 2)
    elif moves_panels(step):
        pieces = max(pieces, min(-(-m * k * size // NEAR_A), m // (STEPS * tile.rows)))
    share = -(-m // pieces)
    if n == 1 and step.packed_a is None:  # what `matvec` sums side by side
        unit = AHEAD if step.a.layout.axes[2].kind == "unit" else AHEAD * tile.lanes
        return -(-share // unit) * unit
    unit = tile.tail if pieces > 1 and step.packed_a is None else tile.rows
    return -(-share // unit) * unit


def _folded(step: Gemm, tile: Tile) -> list[Step]:
    """A product whose sums over rows come a row block at a time, and the loop that adds those up."""
    _, m, n, _ = step.sizes
    blocks = -(-m // row_block(step, tile))  # none: the loop leaves zeros
    if not step.folds or blocks == 1:
        return [step]
    parts = [Ref(Buffer(blocks * n, f.ref.buffer.dtype), Layout.contiguous((blocks, n))) for f in step.folds]
    first = replace(step, folds=tuple(f._replace(ref=p) for f, p in zip(step.folds, parts, strict=True)))
    identity = MapBuilder()
    values = [identity.input(p.buffer.dtype) for p in parts]
    second = Loop(
        (blocks, n), identity.build(values, values), tuple(parts), (), (), (0,), step.folds, eqns=step.eqns
    )
    return [first, second]
