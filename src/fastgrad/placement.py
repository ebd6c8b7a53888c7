"""Blocks that live for some steps -> offsets in one arena, such that blocks alive at once lie apart.

Two plans are made, and the smaller is kept:

    by birth   best fit as the steps run: the smallest gap that is large enough. Near linear.
    by size    the largest block first, wherever it fits among those placed already that are alive at some step with it,
               in the smallest such gap (Pisarchyk and Lee 2020, "Efficient memory management for deep neural net
               inference", greedy by size). Quadratic: for plans of up to `MOST` blocks, and only where the first plan is
               larger than what is alive at once, which no plan can go below.

Memory of something that is only written later can be lent until then (`lend`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

ALIGN = 64
"""Bytes: a cache line, and the widest vector."""
MOST = 768
"""Blocks that are placed by size too: what 100 of them take is half a millisecond, 768 take twenty."""


TRIES = 256
"""Blocks at most that `lend` looks at, and rooms at most for each: a hundred take some two milliseconds."""


class Block(NamedTuple):
    """So many bytes, needed from step ``first`` to step ``last``, both included."""

    first: int
    last: int
    nbytes: int


class Room(NamedTuple):
    """``nbytes`` of memory that is free from step ``since`` to before step ``until``."""

    nbytes: int
    since: int
    until: int


def rounded(nbytes: int) -> int:
    """What ``nbytes`` take in an arena: whole cache lines, one at least."""
    return max(ALIGN, -(-nbytes // ALIGN) * ALIGN)


def most_alive(blocks: Sequence[Block]) -> int:
    """The bytes of blocks alive at once, at most: a bound from below for every arena.

    >>> most_alive([Block(0, 1, 64), Block(1, 2, 128), Block(2, 3, 64)])
    192
    """
    changes: dict[int, int] = {}
    for first, last, nbytes in blocks:
        size = rounded(nbytes)
        changes[first] = changes.get(first, 0) + size
        changes[last + 1] = changes.get(last + 1, 0) - size
    alive = most = 0
    for step in sorted(changes):
        alive += changes[step]
        most = max(most, alive)
    return most


def place(blocks: Sequence[Block]) -> tuple[list[int], int]:
    """An offset for each block, a multiple of `ALIGN`, and the bytes that the arena needs.

    >>> place([Block(0, 1, 64), Block(1, 2, 128), Block(2, 3, 64)])
    ([0, 64, 0], 192)
    """
    offsets, peak = by_birth(blocks)
    if len(blocks) <= MOST and peak > most_alive(blocks):
        other, smaller = by_size(blocks)
        if smaller < peak:
            return other, smaller
    return offsets, peak


def by_birth(blocks: Sequence[Block]) -> tuple[list[int], int]:
    """Best fit in the order of ``first``; see `place`."""
    arena = Arena()
    offsets = [0] * len(blocks)
    begins: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for number, block in enumerate(blocks):
        begins.setdefault(block.first, []).append(number)
        ends.setdefault(block.last, []).append(number)
    for step in sorted({*begins, *ends}):
        for number in begins.get(step, ()):
            offsets[number] = arena.take(blocks[number].nbytes)
        for number in ends.get(step, ()):
            arena.give(offsets[number], blocks[number].nbytes)
    return offsets, arena.peak


def by_size(blocks: Sequence[Block]) -> tuple[list[int], int]:
    """Best fit, large blocks first and of equal ones those that live long; see `place`."""
    offsets, peak = [0] * len(blocks), 0
    placed: list[_Placed] = []
    for number in sorted(range(len(blocks)), key=lambda n: _urgency(blocks[n])):
        offset = _gap(blocks[number], placed)
        offsets[number] = offset
        peak = max(peak, offset + rounded(blocks[number].nbytes))
        _put(blocks[number], offset, placed)
    return offsets, peak


_Placed = tuple[int, int, int, int]
"""Offset, end, first and last step; kept in order."""


def _gap(block: Block, placed: Iterable[_Placed]) -> int:
    """Where the narrowest gap that takes ``block`` begins, between those placed that are alive with it, or their end."""
    size = rounded(block.nbytes)
    best, narrowest, reached = -1, 0, 0
    for start, end, first, last in placed:
        if first > block.last or last < block.first:
            continue
        gap = start - reached
        if gap >= size and (best < 0 or gap < narrowest):
            best, narrowest = reached, gap
        if end > reached:
            reached = end
    return best if best >= 0 else reached


def _put(block: Block, offset: int, placed: list[_Placed]) -> None:
    insort(placed, (offset, offset + rounded(block.nbytes), block.first, block.last))


def _urgency(block: Block) -> tuple[int, int, int]:
    return -rounded(block.nbytes), block.first - block.last, block.first


def lend(blocks: Sequence[Block], rooms: Sequence[Room]) -> dict[int, tuple[int, int]]:
    """Which blocks move to which room, at which offset, so that fewer bytes of the others are alive at once.

    Where most bytes are alive the largest block that fits a room moves there, until none does: to the room that is lent
    for the shortest time.

    >>> lend([Block(0, 1, 64), Block(1, 2, 128), Block(2, 3, 64)], [Room(200, 0, 3), Room(200, 0, 2)])
    {1: (0, 0), 0: (1, 0)}
    """
    if not blocks or not rooms:
        return {}
    first, last, nbytes = np.array(blocks, np.int64).T
    alive = np.zeros(int(last.max()) + 1, np.int64)
    for block in blocks:
        alive[block.first : block.last + 1] += rounded(block.nbytes)
    order = sorted(range(len(rooms)), key=lambda n: (rooms[n].until, rooms[n].nbytes))
    large, since, until = np.array([rooms[n] for n in order], np.int64).T
    open_to = (first >= since.min()) & (last < until[-1]) & (nbytes <= large.max())
    held: list[list[_Placed]] = [[] for _ in rooms]
    found: dict[int, tuple[int, int]] = {}
    for _ in range(TRIES):
        worst = int(alive.argmax())
        there = np.flatnonzero(open_to & (first <= worst) & (worst <= last))
        if not there.size:
            break
        number = int(there[nbytes[there].argmax()])
        open_to[number] = False
        block = blocks[number]
        fit = (since <= block.first) & (until > block.last) & (large >= block.nbytes)
        for i in np.flatnonzero(fit)[:TRIES]:
            n = order[int(i)]
            if (offset := _gap(block, held[n])) + block.nbytes <= rooms[n].nbytes:
                _put(block, offset, held[n])
                found[number] = n, offset
                alive[block.first : block.last + 1] -= rounded(block.nbytes)
                break
    return found


class Arena:
    """Best-fit free list over one growing region: the smallest gap that is large enough, the first of equals.

    Gaps are found by size in a sorted list, neighbours by address in two dicts, so that no operation walks the gaps.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._gaps: list[tuple[int, int]] = []  # (size, offset), sorted; never adjacent to one another
        self._size_at: dict[int, int] = {}  # where a gap begins -> its size
        self._start_of: dict[int, int] = {}  # where a gap ends -> where it begins

    @property
    def free(self) -> list[tuple[int, int]]:
        """(offset, size) of each gap, in order."""
        return sorted(self._size_at.items())

    def take(self, nbytes: int) -> int:
        size = rounded(nbytes)
        i = bisect_left(self._gaps, (size, 0))
        if i < len(self._gaps):
            n, offset = self._gaps[i]
            self._remove(offset)
            if n > size:
                self._add(offset + size, n - size)
            return offset
        offset = self._start_of.get(self.peak, self.peak)
        if offset < self.peak:  # the last gap touches the end: grow it
            self._remove(offset)
        self.peak = offset + size
        return offset

    def give(self, offset: int, nbytes: int) -> None:
        size = rounded(nbytes)
        if offset + size in self._size_at:
            size += self._remove(offset + size)
        if offset in self._start_of:
            offset = self._start_of[offset]
            size += self._remove(offset)
        self._add(offset, size)

    def _add(self, offset: int, size: int) -> None:
        insort(self._gaps, (size, offset))
        self._size_at[offset], self._start_of[offset + size] = size, offset

    def _remove(self, offset: int) -> int:
        size = self._size_at.pop(offset)
        del self._start_of[offset + size]
        del self._gaps[bisect_left(self._gaps, (size, offset))]
        return size
