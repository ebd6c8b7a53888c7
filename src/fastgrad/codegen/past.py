"""Maps whose results go past the cache: which they are, and the order of their pieces. ``x * x`` on a long vector reads

        for group in range(first, last, 4096):          # four pages
            end = smaller(group + 4096, last)
            for line in range(group, group + 1024, 128):
                for p in range(line, end, 1024):        # a piece of each
                    stop = smaller(p + 128, end)
                    y0k = h0 - p * 4
                    for i in range(p, stop):            # into the kernel's frame
                        v0 = load_f32(x0k, i)
                        t0 = mul(v0, v0)
                        store0_f32(y0k, i, t0)
                    stream1(o0 + p * 4, h0, (stop - p) * 4, x0k + (p + 4096) * 4)

A core has no more than some dozen lines under way from its own loads; the rest of what memory can give comes by its
prefetcher, which follows each page of 4 KB by itself and stops at the page's end. So pieces of several pages are taken in
turn, and while a piece is copied out the lines of the same piece of the next group are asked for. No value depends on it:
a map's elements are computed one by one, and a fold beside it takes them in this order, which sizes and dtypes alone say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ..schedule import Loop, Nest
from .lines import loader
from .writer import Writer

STREAM_BYTES, STRETCH_BYTES = 32 << 20, 4 << 10
"""Results of so many bytes, in stretches of so many, are written past the cache: nothing would find them there."""
PAGE_BYTES, PIECE_BYTES = 4096, 512
"""What a prefetcher follows by itself; and how much of it, in the widest operand, is computed into the kernel's frame and
then written past the cache: little, so that a core does both at once."""
FEW, MANY = 4, 2
"""Pages in turn, of one operand that is read or of several."""
MOST_AHEAD = 4
"""Operands asked for beside each result: `simd.intrinsics` has so many ways to copy."""
LONG_ROW = 16
"""Rows of so many pages are asked for ahead whatever follows them."""
AHEAD_BYTES = 8 << 10
"""How far on a fold asks for memory."""
LEAST_ROW, MOST_LINES = 64, 8
"""Elements that a fold adds up into one, at least, and lines before that, at most, where it asks for memory ahead."""


class Pieces(NamedTuple):
    """In elements: a piece, a page; how many pages take turns; and beside each result, which loads are asked for ahead."""

    piece: int
    page: int
    pages: int
    ahead: tuple[tuple[int, ...], ...]


def streams(loop: Loop, n: Nest, k: int) -> bool:
    """Whether store ``k`` goes past the cache: a map's, far larger than a cache, in long stretches."""
    size, axis = loop.stores[k].buffer.dtype.itemsize, n.operands[len(loop.loads) + k][-1]
    map_alone = "R" not in n.kinds and axis.kind == "unit"
    return map_alone and loop.stores[k].nbytes >= STREAM_BYTES and n.sizes[-1] * size >= STRETCH_BYTES


def waits(loop: Loop, n: Nest) -> bool:
    """Whether a loop is a fold that reads far more than a cache holds, and does little else."""
    if loop.stores or not loop.folds or n.sizes[-1] < LEAST_ROW or len(loop.map.lines) > MOST_LINES:
        return False
    if any(axes[-1].kind == "run" for axes in n.operands[len(loop.loads) :]):
        return False
    return sum(ref.nbytes for ref in loop.loads) >= STREAM_BYTES


def pieces(loop: Loop, n: Nest, streamed: tuple[int, ...]) -> Pieces | None:
    """How the results ``streamed`` are cut; None where there are none."""
    if not streamed:
        return None
    moving = [i for i in range(len(loop.loads)) if n.operands[i][-1].kind != "zero"]
    sizes = [ref.buffer.dtype.itemsize for ref in (*(loop.loads[i] for i in moving), *loop.stores)]
    widest = max(sizes)
    ahead: list[list[int]] = [[] for _ in streamed]
    for i in moving:
        size = loop.loads[i].buffer.dtype.itemsize
        beside = [
            ahead[k] for k, store in enumerate(streamed) if loop.stores[store].buffer.dtype.itemsize == size
        ]
        if not beside or not loader(loop.loads[i]).startswith("load_") or not _goes_on(n, i, size):
            continue
        fewest = min(beside, key=len)
        if len(fewest) < MOST_AHEAD:
            fewest.append(i)
    return Pieces(
        PIECE_BYTES // widest,
        PAGE_BYTES // widest,
        FEW if len(moving) < 2 else MANY,
        tuple(map(tuple, ahead)),
    )


def _goes_on(n: Nest, i: int, size: int) -> bool:
    """Whether what lies some pages behind a piece of operand ``i`` is read soon."""
    axes = n.operands[i]
    if axes[-1].kind != "unit":
        return False
    inner = n.sizes[-1]
    if inner * size >= LONG_ROW * PAGE_BYTES:
        return True
    for axis, count in zip(axes[-2::-1], n.sizes[-2::-1], strict=True):
        if axis.stride != inner:
            return False
        inner *= count
    return True


@contextmanager
def in_turn(w: Writer, first: str, last: str, cut: Pieces) -> Iterator[None]:
    """Print the loops over the pieces from ``first`` to ``last``; one is from ``p`` to ``stop``."""
    group = cut.page * cut.pages
    with w.block(f"for group in range({first}, {last}, {group}):"):
        w(f"end = smaller(group + {group}, {last})")
        with (
            w.block(f"for line in range(group, group + {cut.page}, {cut.piece}):"),
            w.block(f"for p in range(line, end, {cut.page}):"),
        ):
            w(f"stop = smaller(p + {cut.piece}, end)")
            yield


def copy_out(w: Writer, cut: Pieces, k: int, number: int, size: int, level: str) -> None:
    """Print the copy past the cache of a piece of store ``k``, the ``number``-th that goes there, of ``size`` bytes each."""
    ahead = cut.ahead[number]
    there = "".join(f", x{i}{level} + (p + {cut.page * cut.pages}) * {size}" for i in ahead)
    w(f"stream{len(ahead) or ''}(o{k} + p * {size}, h{k}, (stop - p) * {size}{there})")
