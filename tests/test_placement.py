"""Offsets in the arena: blocks alive at once lie apart, in few bytes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

import pytest

from fastgrad import placement
from fastgrad.placement import ALIGN, Arena, Block, Room, lend, most_alive, place, rounded

Plan = Callable[[Sequence[Block]], tuple[list[int], int]]
PLANS: tuple[Plan, ...] = (place, placement.by_birth, placement.by_size)


def lives(seed: int, count: int = 60) -> list[Block]:
    """Blocks of random size, most of them short-lived, in the order of their birth."""
    rng = random.Random(seed)
    blocks = []
    for _ in range(count):
        first = rng.randrange(count)
        length = rng.choice([0, 1, 1, 2, 3, rng.randrange(count)])
        blocks.append(Block(first, first + length, rng.choice([0, 4, 64, 640, rng.randrange(10_000)])))
    return sorted(blocks, key=lambda b: b.first)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("seed", range(20))
def test_blocks_alive_at_once_lie_apart(plan: Plan, seed: int) -> None:
    blocks = lives(seed)
    offsets, peak = plan(blocks)
    assert all(offset % ALIGN == 0 for offset in offsets)
    ends = [offset + rounded(b.nbytes) for offset, b in zip(offsets, blocks, strict=True)]
    assert max(ends) == peak >= most_alive(blocks)
    for i, j in itertools.combinations(range(len(blocks)), 2):
        a, b = blocks[i], blocks[j]
        if a.first <= b.last and b.first <= a.last:
            assert ends[i] <= offsets[j] or ends[j] <= offsets[i]


@pytest.mark.parametrize("seed", range(20))
def test_the_smaller_plan_is_kept(seed: int) -> None:
    blocks = lives(seed)
    peaks = [plan(blocks)[1] for plan in PLANS]
    assert peaks[0] == min(peaks[1:])


def test_most_alive_is_what_a_look_at_every_step_finds() -> None:
    blocks = lives(7)
    steps = range(max(b.last for b in blocks) + 1)
    alive = [sum(rounded(b.nbytes) for b in blocks if b.first <= i <= b.last) for i in steps]
    assert most_alive(blocks) == max(alive)
    assert most_alive([]) == 0 and place([]) == ([], 0)


def test_a_block_that_outlives_others_does_not_split_what_comes_after() -> None:
    """Best fit as steps run puts the small block, which stays, beyond the first large one; the second then fits nowhere."""
    blocks = [Block(0, 1, 1024), Block(1, 3, 64), Block(2, 3, 2048)]
    assert placement.by_birth(blocks)[1] == 1024 + 64 + 2048
    assert place(blocks) == ([0, 2048, 0], 2048 + 64)


@pytest.mark.parametrize("seed", range(20))
def test_lent_rooms_hold_blocks_apart_and_only_until_they_are_due(seed: int) -> None:
    rng = random.Random(seed)
    blocks = lives(seed)
    rooms = [Room(rng.randrange(12_000), rng.choice([0, 0, 9]), rng.randrange(70)) for _ in range(6)]
    found = lend(blocks, rooms)
    for number, (room, offset) in found.items():
        block = blocks[number]
        assert offset % ALIGN == 0 and offset + block.nbytes <= rooms[room].nbytes
        assert rooms[room].since <= block.first and block.last < rooms[room].until
    for (i, (room, start)), (j, (other, at)) in itertools.combinations(found.items(), 2):
        a, b = blocks[i], blocks[j]
        if room == other and a.first <= b.last and b.first <= a.last:
            assert start + a.nbytes <= at or at + b.nbytes <= start
    rest = [b for n, b in enumerate(blocks) if n not in found]
    assert most_alive(rest) <= most_alive(blocks)
    assert lend(blocks, rooms) == found


def test_nothing_is_lent_of_nothing() -> None:
    assert lend([], [Room(64, 0, 3)]) == lend(lives(1), []) == {}
    assert lend([Block(0, 4, 64)], [Room(640, 0, 4), Room(640, 1, 9)]) == {}


def test_many_blocks_are_planned_in_the_order_of_their_birth_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_size(blocks: Sequence[Block]) -> tuple[list[int], int]:
        raise AssertionError("quadratic")

    monkeypatch.setattr(placement, "by_size", by_size)
    blocks = lives(3, placement.MOST + 1)
    assert place(blocks) == placement.by_birth(blocks)


@pytest.mark.parametrize("seed", range(20))
def test_the_arena_never_hands_out_bytes_twice(seed: int):
    """Random lives: each region lies apart from those still held; given back whole, the arena is one free region."""
    rng = random.Random(seed)
    arena = Arena()
    held: list[tuple[int, int]] = []
    for _ in range(400):
        if held and rng.random() < 0.5:
            arena.give(*held.pop(rng.randrange(len(held))))
        else:
            nbytes = rng.choice([0, 1, 63, 64, 65, rng.randrange(10_000)])
            offset = arena.take(nbytes)
            assert offset % ALIGN == 0 and offset + nbytes <= arena.peak
            for start, size in held:
                assert offset + max(nbytes, 1) <= start or start + max(size, 1) <= offset
            held.append((offset, nbytes))
        gaps = [(o, o + n) for o, n in arena.free]
        assert gaps == sorted(gaps) and all(a[1] < b[0] for a, b in itertools.pairwise(gaps))
    for region in held:
        arena.give(*region)
    assert arena.free == [(0, arena.peak)]


def test_the_arena_picks_the_smallest_gap_that_fits():
    arena = Arena()
    regions = [(arena.take(n), n) for n in (640, 64, 128, 64)]
    arena.give(*regions[0])
    arena.give(*regions[2])
    assert arena.take(100) == regions[2][0]
    assert arena.take(100) == regions[0][0]


class NaiveArena:
    """Best fit by looking at every gap: the twin of `placement.Arena`."""

    def __init__(self) -> None:
        self.peak = 0
        self.free: list[tuple[int, int]] = []

    def take(self, nbytes: int) -> int:
        size = max(ALIGN, -(-nbytes // ALIGN) * ALIGN)
        fits = [(n, offset) for offset, n in self.free if n >= size]
        if fits:
            n, offset = min(fits)
            self.free = [gap for gap in self.free if gap != (offset, n)]
            self.free = sorted([*self.free, (offset + size, n - size)] if n > size else self.free)
            return offset
        offset = self.free.pop()[0] if self.free and sum(self.free[-1]) == self.peak else self.peak
        self.peak = offset + size
        return offset

    def give(self, offset: int, nbytes: int) -> None:
        gaps = sorted([*self.free, (offset, max(ALIGN, -(-nbytes // ALIGN) * ALIGN))])
        self.free = gaps[:1]
        for start, size in gaps[1:]:
            last, n = self.free[-1]
            if last + n == start:
                self.free[-1] = (last, n + size)
            else:
                self.free.append((start, size))


@pytest.mark.parametrize("seed", range(20))
def test_the_arena_chooses_as_a_look_at_every_gap_would(seed: int):
    rng = random.Random(seed)
    arena, naive = Arena(), NaiveArena()
    held: list[tuple[int, int]] = []
    for _ in range(400):
        if held and rng.random() < 0.5:
            region = held.pop(rng.randrange(len(held)))
            arena.give(*region)
            naive.give(*region)
        else:
            nbytes = rng.choice([64, 128, 192, rng.randrange(2_000)])
            held.append((arena.take(nbytes), nbytes))
            assert held[-1][0] == naive.take(nbytes)
        assert (arena.peak, arena.free) == (naive.peak, naive.free)
