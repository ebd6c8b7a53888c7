"""Schedule -> MemoryPlan: an address for every buffer, before anything runs.

Liveness runs over forward and backward together, so "caching activations" is nothing but values that live across the
border. A step may write over an operand that dies in it, element for element; what takes one place in turn is one block
of the arena (`placement`), or of memory that is written only later: gradients lend theirs to the forward pass. The
steps run in an order in which values die soon (`schedule.order`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from .core.expr import MapBuilder
from .core.loops import Layout
from .errors import GraphError
from .placement import ALIGN, Block, Room, lend, place, rounded
from .schedule import Buffer, Gemm, Loop, Phases, Ref, Region, Schedule, Step, Unplaced
from .schedule.order import ordered
from .schedule.steps import may_fail


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
    schedule: Schedule,
    inputs: Sequence[Location],
    outputs: Sequence[Location],
    *,
    turns: bool = False,
    borrow: bool = False,
) -> MemoryPlan:
    """Place every buffer. An output whose location is an input's (state that is updated) is written last, or in place.

    With ``turns`` a ``carry`` that cannot be written in place goes to ``next`` instead, which takes turns with it. With
    ``borrow`` the memory of outputs in the state that are no inputs serves other values until they are written, from where
    on the run can no longer fail.
    """
    schedule = _ordered(schedule, inputs, outputs)
    regions = {step: _region(step) for step in schedule.steps if isinstance(step, Region)}
    locations = dict(zip(schedule.inputs, inputs, strict=True))
    steps = list(schedule.steps)
    state = {where: buffer for buffer, where in locations.items() if where.space in _WRITTEN_OVER}
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
    intervals = _liveness(steps, locations, regions)
    lenders = [
        buffer
        for buffer, where in zip(schedule.outputs, outputs, strict=True)
        if where.space == "state" and where not in state
    ]
    peak = _place(steps, intervals, locations, lenders if borrow else ())
    if any(_is_idle(step, locations) for step in steps):
        # Copies of a buffer to its own place: writing over in place costs what is written, no more.
        placed = {b: where for b, where in locations.items() if b not in intervals}
        steps = [step for step in steps if not _is_idle(step, locations)]
        intervals = _liveness(steps, placed, regions)
    naive = sum(rounded(b.nbytes) for b in intervals)
    return MemoryPlan(schedule, tuple(steps), locations, intervals, peak, naive, regions)


_WRITTEN_OVER = ("state", "carry")


def _ordered(schedule: Schedule, inputs: Sequence[Location], outputs: Sequence[Location]) -> Schedule:
    """The schedule in the order in which it is planned; what is written over state keeps its place among that's readers."""
    state = {
        where: b for b, where in zip(schedule.inputs, inputs, strict=True) if where.space in _WRITTEN_OVER
    }
    replaced = {b: state[w] for b, w in zip(schedule.outputs, outputs, strict=True) if w in state}
    placed = {*schedule.inputs, *schedule.outputs} - replaced.keys()
    return replace(schedule, steps=ordered(schedule.steps, placed, replaced))


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
        size = rounded(out.nbytes)
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
    steps: Sequence[Step],
    intervals: Mapping[Buffer, Interval],
    locations: dict[Buffer, Location],
    lenders: Sequence[Buffer],
) -> int:
    """Give each buffer of ``intervals`` an offset in the arena, or in what the ``lenders`` lend; the arena's peak.

    Buffers of which each is written over the one before are one block, alive from the birth of the first to the end of
    the last.
    """
    begins: dict[int, list[Buffer]] = {}
    for buffer, interval in intervals.items():
        begins.setdefault(interval.first, []).append(buffer)
    blocks: list[Block] = []
    number: dict[Buffer, int] = {}
    taken_over: set[Buffer] = set()
    for i, step in enumerate(steps):
        for buffer in begins.get(i, ()):
            heir_of, last = _dies_in(step, i, buffer, intervals, taken_over), intervals[buffer].last
            if heir_of is None:
                number[buffer] = len(blocks)
                blocks.append(Block(i, last, buffer.nbytes))
            else:
                taken_over.add(heir_of)
                number[buffer] = n = number[heir_of]
                blocks[n] = blocks[n]._replace(last=last)
    lent = lend(blocks, _rooms(steps, lenders))
    rest = [n for n in range(len(blocks)) if n not in lent]
    offsets, peak = place([blocks[n] for n in rest])
    places = {n: Location("arena", 0, offset) for n, offset in zip(rest, offsets, strict=True)}
    for n, (room, offset) in lent.items():
        lender = locations[lenders[room]]
        places[n] = lender._replace(offset=lender.offset + offset)
    locations.update((buffer, places[n]) for buffer, n in number.items())
    return peak


def _rooms(steps: Sequence[Step], lenders: Sequence[Buffer]) -> list[Room]:
    """What each lender lends: all that it has until it is written, but not before the last step that may fail.

    A run that fails leaves everything in the state as it was.
    """
    if not lenders:
        return []
    first = {ref.buffer: i for i in reversed(range(len(steps))) for ref in steps[i].writes}
    since = max((i + 1 for i, step in enumerate(steps) if may_fail(step)), default=0)
    return [Room(b.nbytes, since, first[b]) for b in lenders]


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


def _product_in_place(step: Step, target: Buffer, source: Buffer) -> bool:
    """The same of a product: it loads all operands of an element of C, and of nothing else, before it stores there.

    ``source`` must be read as such an operand alone: a row of A or B serves many elements.
    """
    if not isinstance(step, Gemm) or target.size != source.size:
        return False
    reads = [ref for ref in step.reads if ref.buffer is source]
    stores = [(k, ref) for k, ref in enumerate(step.stores) if ref.buffer is target]
    loads = [(i, ref) for i, ref in enumerate(step.loads, 1) if ref.buffer is source]
    if len(stores) != 1 or len(loads) != 1 or len(reads) != 1:
        return False
    [(k, store)], [(i, load)] = stores, loads
    batch, m, n, _ = step.sizes
    over, rows, columns = store.layout.axes
    whole = columns.kind == "unit" and rows.stride == n and (batch == 1 or over.stride == m * n)
    same = store.layout == load.layout and target.dtype.itemsize == source.dtype.itemsize
    return whole and same and target.size == batch * m * n and step.map.depends(k, i)


def _dies_in(
    step: Step, i: int, target: Buffer, intervals: Mapping[Buffer, Interval], gone: set[Buffer]
) -> Buffer | None:
    """An operand that dies in step ``i`` and whose place ``target`` can take."""
    for ref in step.reads:
        interval = intervals.get(ref.buffer)
        if not interval or interval.last != i or ref.buffer in gone:
            continue
        if _in_place(step, target, ref.buffer) or _product_in_place(step, target, ref.buffer):
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
