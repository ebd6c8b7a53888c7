"""Schedule -> MemoryPlan: an address for every buffer, before anything runs.

Liveness runs over forward and backward together, so "caching activations" is nothing but values that live across the
border. Offsets in the one arena are chosen best-fit (the smallest gap that is large enough); a step may write over an
operand that dies in it, element for element.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .core.expr import MapBuilder
from .core.loops import Layout
from .errors import GraphError
from .schedule import Buffer, Loop, Phases, Ref, Region, Schedule, Step, Unplaced

ALIGN = 64
"""Bytes: a cache line, and the widest vector."""


class Location(NamedTuple):
    """Where a buffer lies: ``arena`` or ``state`` plus bytes, or the pointer of ``input``/``output`` ``number``.

    Inside a region: ``operand`` and ``result`` ``number`` of the step, ``carry`` and the ``next`` carry, a loop's ``flag``.
    """

    space: str
    number: int = 0
    offset: int = 0

    def __str__(self) -> str:
        return (
            f"{self.space}+{self.offset}"
            if self.space in ("arena", "state")
            else f"{self.space}{self.number}"
        )


class Interval(NamedTuple):
    """The steps from which to which a buffer is alive."""

    first: int
    last: int


@dataclass(frozen=True, eq=False)
class RegionPlan:
    """A region's parts, each planned, in one block of ``scratch`` that the steps around it plan for.

    The block begins with the memory of the parts (one runs at a time). At ``carry`` lies each carried value, and the place
    where an iteration leaves its next: the two take turns, or are one where each iteration may write in place. The steps
    ``enter`` and ``leave`` copy carried values in and out.
    """

    parts: tuple[MemoryPlan, ...]
    scratch: Buffer
    carry: tuple[tuple[int, int], ...] = ()
    flag: int = 0
    enter: tuple[Loop, ...] = ()
    leave: tuple[Loop, ...] = ()
    locations: dict[Buffer, Location] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class MemoryPlan:
    """The steps to run (some with a copy added at the end) and the place of every buffer.

    ``arena_bytes`` is the peak; ``naive_bytes`` what the same values take when each has memory of its own. ``regions``
    holds the plan of each step that is one.
    """

    schedule: Schedule
    steps: tuple[Step, ...]
    locations: dict[Buffer, Location]
    intervals: dict[Buffer, Interval]
    arena_bytes: int
    naive_bytes: int
    regions: dict[Region, RegionPlan] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [
            f"memory plan {self.schedule.name}",
            f"  arena {self.arena_bytes} bytes; every value apart: {self.naive_bytes} bytes"
            f" ({100 * self.arena_bytes / self.naive_bytes if self.naive_bytes else 100:.0f}%)",
        ]
        for buffer, interval in sorted(self.intervals.items(), key=lambda item: item[1]):
            where = self.locations[buffer]
            rows.append(f"  steps {interval.first:3d}-{interval.last:<3d} {buffer.nbytes:10d} bytes  {where}")
        for step, region in self.regions.items():
            rows.append(f"  inside {step}: {region.scratch.nbytes} bytes")
            rows += [f"    {line}" for part in region.parts for line in str(part).split("\n")]
        return "\n".join(rows)


def plan(
    schedule: Schedule, inputs: Sequence[Location], outputs: Sequence[Location], *, turns: bool = False
) -> MemoryPlan:
    """Place every buffer. An output whose location is an input's (state that is updated) is written last, or in place.

    With ``turns`` a ``carry`` that cannot be written in place goes to ``next`` instead, which takes turns with it.
    """
    locations = dict(zip(schedule.inputs, inputs, strict=True))
    steps = list(schedule.steps)
    state = {where: buffer for buffer, where in locations.items() if where.space in ("state", "carry")}
    users = _users(steps) if state else {}
    for buffer, where in zip(schedule.outputs, outputs, strict=True):
        old = state.get(where)
        if old is None or _overwrites_safely(schedule.steps, users, buffer, old):
            locations[buffer] = where
        elif turns:
            locations[buffer] = where._replace(space="next")
        else:
            target = Buffer(buffer.size, buffer.dtype)
            locations[target] = where
            steps.append(_copy(buffer, target))
    regions = {step: _region(step) for step in steps if isinstance(step, Region)}
    intervals = _liveness(steps, locations, regions)
    peak = _place(steps, intervals, locations)
    if any(_is_idle(step, locations) for step in steps):
        # Copies of a buffer to its own place: writing over in place costs what is written, no more.
        placed = {b: where for b, where in locations.items() if b not in intervals}
        steps = [step for step in steps if not _is_idle(step, locations)]
        intervals = _liveness(steps, placed, regions)
    naive = sum(_round(b.nbytes) for b in intervals)
    return MemoryPlan(schedule, tuple(steps), locations, intervals, peak, naive, regions)


def _region(step: Region) -> RegionPlan:
    return {"scan": _scan, "while": _while, "switch": _switch}[step.kind](step)


def _numbered(space: str, first: int, count: int) -> list[Location]:
    return [Location(space, i) for i in range(first, first + count)]


def _scan(step: Region) -> RegionPlan:
    consts, carried = step.shared[0], _numbered("carry", 0, step.carry)
    xs = _numbered("operand", consts + step.carry, len(step.reads) - consts - step.carry)
    ys = _numbered("result", step.carry, len(step.writes) - step.carry)
    body = plan(step.parts[0], [*_numbered("operand", 0, consts), *carried, *xs], [*carried, *ys], turns=True)
    turns = [body.locations[b].space == "next" for b in body.schedule.outputs[: step.carry]]
    return _carrying(step, (body,), consts, turns)


def _while(step: Region) -> RegionPlan:
    n_cond, n_body = step.shared
    carried = _numbered("carry", 0, step.carry)
    cond = plan(step.parts[0], [*_numbered("operand", 0, n_cond), *carried], [Location("flag")])
    body = plan(step.parts[1], [*_numbered("operand", n_cond, n_body), *carried], carried)
    return _carrying(step, (cond, body), n_cond + n_body, [False] * step.carry)


def _switch(step: Region) -> RegionPlan:
    inputs = _numbered("operand", 1, len(step.reads) - 1)
    outputs = _numbered("result", 0, len(step.writes))
    parts = tuple(plan(part, inputs, outputs) for part in step.parts)
    return RegionPlan(parts, _block(max(p.arena_bytes for p in parts)))


def _block(nbytes: int) -> Buffer:
    return Buffer(nbytes, np.dtype(np.uint8))


def _carrying(step: Region, parts: tuple[MemoryPlan, ...], first: int, turns: Sequence[bool]) -> RegionPlan:
    """The block of a loop: the parts' memory, the carried values and where their next ones go, the flag."""
    end = max(p.arena_bytes for p in parts)
    carry, enter, leave = [], [], []
    locations: dict[Buffer, Location] = {}
    for i, other in enumerate(turns):
        out = step.writes[i].buffer
        size = _round(out.nbytes)
        carry.append((end, end + size if other else end))
        end += 2 * size if other else size
        source, held, last, target = (Buffer(out.size, out.dtype) for _ in range(4))
        locations |= {
            source: Location("operand", first + i), held: Location("carry", i),
            last: Location("last", i), target: Location("result", i),
        }  # fmt: skip
        enter.append(_copy(source, held))
        leave.append(_copy(last, target))
    return RegionPlan(parts, _block(end + ALIGN), tuple(carry), end, tuple(enter), tuple(leave), locations)


def _place(
    steps: Sequence[Step], intervals: dict[Buffer, Interval], locations: dict[Buffer, Location]
) -> int:
    """Give each buffer of ``intervals`` an offset in the arena, in the order in which they are born; the peak."""
    arena = _Arena()
    begins: dict[int, list[Buffer]] = {}
    ends: dict[int, list[Buffer]] = {}
    for buffer, interval in intervals.items():
        begins.setdefault(interval.first, []).append(buffer)
        ends.setdefault(interval.last, []).append(buffer)
    taken_over: set[Buffer] = set()
    for i, step in enumerate(steps):
        for buffer in begins.get(i, ()):
            heir = _dies_in(step, i, buffer, intervals, taken_over)
            if heir is not None:
                locations[buffer] = locations[heir]
                taken_over.add(heir)
            else:
                locations[buffer] = Location("arena", 0, arena.take(buffer.nbytes))
        for buffer in ends.get(i, ()):
            if buffer not in taken_over:
                arena.give(locations[buffer].offset, buffer.nbytes)
    return arena.peak


def _round(nbytes: int) -> int:
    return max(ALIGN, -(-nbytes // ALIGN) * ALIGN)


def _copy(source: Buffer, target: Buffer) -> Loop:
    k = MapBuilder()
    value = k.input(source.dtype)
    flat = Layout.contiguous((source.size,))
    return Loop((source.size,), k.build([value], [value]), (Ref(source, flat),), (), (Ref(target, flat),))


def _is_idle(step: Step, locations: dict[Buffer, Location]) -> bool:
    """Whether ``step`` copies a buffer to the place where it lies."""
    if not isinstance(step, Loop) or len(step.stores) != 1 or len(step.loads) != 1 or step.folds:
        return False
    (load,), (store,) = step.loads, step.stores
    return (
        not step.map.lines
        and load.buffer is not store.buffer
        and locations.get(load.buffer) == locations[store.buffer]
        and load.layout == store.layout
    )


def _liveness(
    steps: Sequence[Step], placed: dict[Buffer, Location], regions: dict[Region, RegionPlan]
) -> dict[Buffer, Interval]:
    """First write to last use of each buffer that is not placed elsewhere; a region's scratch lives while it runs."""
    alive: dict[Buffer, Interval] = {}
    for i, step in enumerate(steps):
        for ref in (*step.writes, *step.reads):
            if ref.buffer not in placed and not isinstance(ref.buffer, Unplaced):
                alive[ref.buffer] = Interval(alive[ref.buffer].first if ref.buffer in alive else i, i)
        if isinstance(step, Region):
            alive[regions[step].scratch] = Interval(i, i)
    return alive


def _in_place(step: Step, target: Buffer, source: Buffer) -> bool:
    """Whether ``step`` may write ``target`` over ``source``: element for element, after all that reads the element.

    In one loop the stored value must be computed from that load, which orders the two; earlier phases of a row are over.
    """
    if target.nbytes != source.nbytes or target.dtype.itemsize != source.dtype.itemsize:
        return False
    parts = step.parts if isinstance(step, Phases) else (step,) if isinstance(step, Loop) else ()
    stores = [
        (p, k, r) for p, part in enumerate(parts) for k, r in enumerate(part.stores) if r.buffer is target
    ]
    loads = [
        (p, i, r) for p, part in enumerate(parts) for i, r in enumerate(part.loads) if r.buffer is source
    ]
    folds = any(f.ref.buffer is target for part in parts for f in part.folds)
    if len(stores) != 1 or not loads or folds:
        return False
    [(p, k, store)], layout = stores, stores[0][2].layout
    whole = layout.is_contiguous and layout.offset == 0 and store.buffer.size == source.size
    same = [i for q, i, _ in loads if q == p]
    if not whole or len(same) > 1 or any(q > p or r.layout != layout for q, _, r in loads):
        return False
    return all(parts[p].map.depends(k, i) for i in same)


def _dies_in(
    step: Step, i: int, target: Buffer, intervals: dict[Buffer, Interval], gone: set[Buffer]
) -> Buffer | None:
    """An operand that dies in step ``i`` and whose place ``target`` can take."""
    for ref in step.reads:
        interval = intervals.get(ref.buffer)
        if interval and interval.last == i and ref.buffer not in gone and _in_place(step, target, ref.buffer):
            return ref.buffer
    return None


class _Users(NamedTuple):
    """The steps that write a buffer and those that read it, in order."""

    writers: list[int]
    readers: list[int]


def _users(steps: Sequence[Step]) -> dict[Buffer, _Users]:
    users: dict[Buffer, _Users] = {}
    for i, step in enumerate(steps):
        for buffer in {r.buffer for r in step.writes}:
            users.setdefault(buffer, _Users([], [])).writers.append(i)
        for buffer in {r.buffer for r in step.reads}:
            users.setdefault(buffer, _Users([], [])).readers.append(i)
    return users


def _overwrites_safely(steps: Sequence[Step], users: dict[Buffer, _Users], new: Buffer, old: Buffer) -> bool:
    """Whether writing ``new`` over the state ``old`` harms no reader: all read before, or in place in the same step."""
    writers = users[new].writers if new in users else []
    if not writers:
        raise GraphError("an output is written by no step")
    readers = users[old].readers if old in users else []
    later = [i for i in readers if i >= writers[0]]
    return not later or (later == writers and len(writers) == 1 and _in_place(steps[writers[0]], new, old))


class _Arena:
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
        size = _round(nbytes)
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
        size = _round(nbytes)
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
