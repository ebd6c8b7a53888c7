"""Loops over the same rows become one step that runs them one after the other on each block of rows, while it is in cache.

Softmax of a matrix, before and after:

    m<1>       = loop[128, 1000] fold[max over [1]] x       out<s1> = phases[128] x
    e<s1> t<1> = loop[128, 1000] fold[add over [1]] x m         the three loops on 4 rows, on the next 4, ...
    out<s1>    = loop[128, 1000] e t                            m, e and t are 4 rows in the kernel's frame

Rows are the leading axes that a fold keeps. A loop may follow others into their step where all that it reads of them it
reads at its own row, and all else it reads is there before. Which row an element belongs to is known by layout: what a
part writes is contiguous, so a row of it is one stretch, and a reader with the same row strides stays inside that stretch.
Loops only move forward in the schedule, to where the step stands that they join.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..core.expr import MapBuilder
from .steps import Buffer, Indices, Local, Loop, Phases, Ref, Step

MAX_PARTS, MAX_LINES, MAX_WRITES, MAX_DEPTH = 12, 192, 22, 3
"""A step stops growing here, to bound compile time (and `codegen.simd.intrinsics.MAX_STORES`)."""
BLOCK_BYTES, MAX_BLOCK, MAX_LOCALS = 16 << 10, 256, 12
"""A block has so many rows that the longest takes so many bytes, and at most so many; blocks that nobody else reads lie in
the kernel's frame, unless one row is longer already."""
READ_BYTES = 256 << 10
"""What is read in a block of rows at most, where a row is shorter: few long rows, of which little is written (their mean),
are then still enough blocks to share."""


@dataclass(eq=False)
class _Rows:
    """Loops that will be one step: how many leading axes are rows (None: any), and what is written where."""

    at: int
    parts: list[Loop]
    k: int | None
    movable: bool
    written: dict[Buffer, Ref] = field(default_factory=dict)
    folded: Loop | None = (
        None  # what folds over the rows what the one part stores; ``whole`` does both at once
    )
    whole: Loop | None = None
    scalars: set[Buffer] = field(default_factory=set)

    @property
    def rows(self) -> tuple[int, ...]:
        return self.parts[0].shape[: self.k]

    def has_room(self, other: _Rows) -> bool:
        parts = [*self.parts, *other.parts]
        lines = sum(len(p.map.lines) for p in parts)
        return (
            len(parts) <= MAX_PARTS and lines <= MAX_LINES and sum(len(p.writes) for p in parts) <= MAX_WRITES
        )


def phased(steps: Sequence[Step | None], outputs: Iterable[Buffer]) -> list[Step]:
    """``steps`` with loops over the same rows joined; over a None, where recomputation begins, nothing moves."""
    joiner = _Joiner()
    for step in steps:
        if step is None:
            joiner.first = len(joiner.entries)
        else:
            joiner.add(step)
    readers: dict[Buffer, int] = {}  # the entry that alone uses a buffer, -1 where several do
    for i, entry in enumerate(joiner.entries):
        for step in entry.parts if isinstance(entry, _Rows) else [entry] if entry else []:
            for ref in (*step.reads, *step.writes):
                readers[ref.buffer] = i if readers.get(ref.buffer, i) == i else -1
        if isinstance(entry, _Rows) and entry.folded is not None:
            readers.update((r.buffer, -1) for r in entry.folded.reads)
    readers.update(dict.fromkeys(outputs, -1))
    found: list[Step] = []
    for entry in joiner.entries:
        if isinstance(entry, _Rows):
            mine = {b for b in entry.written if readers[b] == entry.at}
            if len(entry.parts) == 1:
                found.append(entry.whole or entry.parts[0])
            else:
                found += [_finished(entry, mine), *([entry.folded] if entry.folded else [])]
        elif entry is not None:
            found.append(entry)
    return found


class _Joiner:
    """Takes steps in order; each becomes an entry, or a part of one that stands already."""

    def __init__(self) -> None:
        self.entries: list[Step | _Rows | None] = []
        self.first = 0  # what may still be joined
        self.writer: dict[Buffer, int] = {}  # the last entry that writes a buffer
        self.touched: set[Buffer] = set()
        self.readers: dict[tuple, int] = {}  # the last entry that reads a buffer by these rows

    def add(self, step: Step) -> None:
        own: _Rows | None = None
        if isinstance(step, Loop) and step.shape and not step.partial and not _is_copy(step):
            if _kept(step) != 0:
                own = self.rows_of(step)
            elif step.stores:
                stored, folded = _split(step)
                own = self.rows_of(stored)
                own.folded, own.whole = folded, step
        self.touched.update(r.buffer for r in (*step.reads, *step.writes))
        if own is not None and own.movable and self.join(own):
            if own.folded is None:
                return
            step, own = own.folded, None
        self.entries.append(own or step)
        if own is not None:
            self.read_by(own)
        self.writer.update((r.buffer, len(self.entries) - 1) for r in step.writes)

    def rows_of(self, loop: Loop) -> _Rows:
        """An entry for ``loop`` alone; it may move where nothing before has to do with what it writes."""
        own = _Rows(
            len(self.entries), [loop], _kept(loop), self.touched.isdisjoint(r.buffer for r in loop.writes)
        )
        _note(own, loop)
        return own

    def join(self, own: _Rows) -> bool:
        """Make ``own`` a part of an entry that it depends on row by row, or that reads the same rows."""
        sources = self.sources(own)
        hosts = [e for i in sources if isinstance(e := self.entries[i], _Rows)]
        if own.k is not None:
            keys = [
                (r.buffer, r.layout.axes[: own.k]) for p in own.parts for r in p.loads if _has_rows(r, own.k)
            ]
            last = max((self.readers.get(key, -1) for key in keys), default=-1)
            if last >= 0 and isinstance(e := self.entries[last], _Rows) and last not in sources:
                hosts.append(e)
        for host in sorted(hosts, key=lambda e: e.at):
            k = host.k if host.k is not None else own.k
            if k is not None and self.enter(host, own, k):
                self.read_by(host)
                return True
        return False

    def sources(self, own: _Rows) -> list[int]:
        found = {
            self.writer.get(r.buffer, -1) for p in own.parts for r in p.reads if r.buffer not in own.written
        }
        return sorted(found - {-1})

    def enter(self, host: _Rows, own: _Rows, k: int, depth: int = 0) -> bool:
        """Move ``own`` to where ``host`` stands, behind whatever it reads that stands between; False where it must not."""
        if not own.movable or host.k not in (None, k) or own.k not in (None, k) or depth > MAX_DEPTH:
            return False
        parts = (*own.parts, *host.parts)
        if host.at < self.first or any(len(p.shape) < k or p.shape[:k] != parts[0].shape[:k] for p in parts):
            return False
        if not self.stands(host, own) or not _all_tied(host, own, k):
            return False
        for i in self.sources(own):
            between = self.entries[i]
            if i < host.at or between is host:
                continue
            if not isinstance(between, _Rows) or not _all_tied(between, own, k):
                return False
            if not self.enter(host, between, k, depth + 1):
                return False
            self.entries[i] = between.folded
        if not host.has_room(own):
            return False
        host.k = k
        host.parts += own.parts
        for part in host.parts:
            _note(host, part)
        self.writer.update(dict.fromkeys(own.written, host.at))
        return True

    def stands(self, host: _Rows, own: _Rows) -> bool:
        """Whether all that ``own`` reads of ``host`` and what stands behind it is written row by row, by parts of a step."""
        for r in (r for p in own.parts for r in p.reads if r.buffer not in own.written):
            i = self.writer.get(r.buffer, -1)
            entry = self.entries[i] if i >= host.at else None
            if i >= host.at and not (isinstance(entry, _Rows) and r.buffer in entry.written):
                return False
        return True

    def read_by(self, entry: _Rows) -> None:
        if entry.k is not None:
            for part in entry.parts:
                for r in part.loads:
                    if _has_rows(r, entry.k):
                        self.readers[r.buffer, r.layout.axes[: entry.k]] = entry.at


def _is_copy(loop: Loop) -> bool:
    """Copies stay where they are: the memory plan does without them where what they copy is dead by then."""
    return not loop.map.lines and not loop.folds


def _kept(loop: Loop) -> int | None:
    """How many leading axes a loop keeps; None where it folds nothing; 0 where those it folds are not the trailing ones."""
    if not loop.shape or loop.partial:
        return 0
    if not loop.folds:
        return None
    k = len(loop.shape) - len(loop.reduced)
    return k if loop.reduced == tuple(range(k, len(loop.shape))) else 0


def _split(loop: Loop) -> tuple[Loop, Loop]:
    """What a loop stores, and what it folds over its leading axes, apart: the second reads what the first has stored."""
    m, n = len(loop.stores), len(loop.loads)

    def part(values: Sequence[int], **changed: Any) -> Loop:
        lines, kept = loop.map.restricted(values)
        loads = tuple(loop.loads[i] for i in kept if i < n)
        return replace(
            loop,
            map=lines,
            loads=loads,
            scalars=tuple(loop.scalars[i - n] for i in kept if i >= n),
            **changed,
        )

    stored, values = loop.map.outputs[:m], loop.map.outputs[m:]
    first = part(stored, reduced=(), folds=(), parts=1)
    if not set(values) <= set(stored):
        return first, part(values, stores=())
    targets = [loop.stores[stored.index(v)] for v in values]
    lines = MapBuilder()
    numbers = [lines.input(r.buffer.dtype) for r in targets]
    again = replace(loop, map=lines.build(numbers, numbers), loads=tuple(targets), scalars=(), stores=())
    return first, again


def _has_rows(ref: Ref, k: int) -> bool:
    return not isinstance(ref.buffer, Indices) and any(a.kind != "zero" for a in ref.layout.axes[:k])


def _note(entry: _Rows, part: Loop) -> None:
    """Record what a part writes, and which of that is one element a row by construction."""
    entry.written.update((r.buffer, r) for r in part.writes)
    if entry.k is None:
        return
    entry.scalars.update(f.ref.buffer for f in part.folds if _is_whole(f.ref))
    if is_single(part, entry.k, entry.scalars):
        entry.scalars.update(r.buffer for r in part.stores if _is_whole(r))


def is_single(part: Loop, k: int, scalars: Iterable[Buffer]) -> bool:
    """Whether a row of ``part`` is one element by construction: each further axis walks a value of one element a row."""
    ones = [r.layout.axes for r in part.loads if r.buffer in scalars]
    inner = range(k, len(part.shape))
    return not part.folds and all(any(axes[i].kind != "zero" for axes in ones) for i in inner)


def _is_whole(ref: Ref) -> bool:
    layout = ref.layout
    return layout.is_contiguous and layout.offset == 0 and math.prod(layout.shape) == ref.buffer.size


def _tied(written: Ref, read: Ref, k: int) -> bool:
    """Whether each row of ``read`` lies in the same row of ``written``."""
    layout, source = read.layout, written.layout
    if (
        not _is_whole(written)
        or len(source.axes) < k
        or any(
            a.stride != b.stride or a.kind == "zero"
            for a, b in zip(layout.axes[:k], source.axes[:k], strict=True)
        )
    ):
        return False
    reach = [(n - 1) * a.stride for n, a in zip(layout.shape[k:], layout.axes[k:], strict=True)]
    first = layout.offset + sum(min(0, d) for d in reach)
    last = layout.offset + sum(max(0, d) for d in reach)
    return first >= 0 and last < max(1, math.prod(source.shape[k:]))


def _all_tied(host: _Rows, own: _Rows, k: int) -> bool:
    """Whether all that ``own`` reads of ``host`` it reads at its own row."""
    reads = (r for p in own.parts for r in p.loads if r.buffer in host.written)
    return all(_tied(host.written[r.buffer], r, k) for r in reads)


def _finished(entry: _Rows, mine: set[Buffer]) -> Phases:
    """The step of ``entry``; ``mine`` are the buffers that nobody else uses."""
    assert entry.k is not None
    rows = max(1, math.prod(entry.rows))
    longest = max((b.nbytes // rows for b in entry.written), default=1)
    read = max((r.nbytes // rows for p in entry.parts for r in p.loads if _has_rows(r, entry.k)), default=1)
    block = max(1, min(MAX_BLOCK, BLOCK_BYTES // max(1, longest), READ_BYTES // max(1, read)))
    small = [b for b in entry.written if b in mine and b.nbytes // rows * block <= BLOCK_BYTES]
    small.sort(key=lambda b: b not in entry.scalars)
    local: dict[Buffer, Buffer] = {b: Local(b.size // rows * block, b.dtype) for b in small[:MAX_LOCALS]}

    def move(ref: Ref) -> Ref:
        return ref._replace(buffer=local.get(ref.buffer, ref.buffer))

    parts = tuple(
        replace(
            part,
            loads=tuple(map(move, part.loads)),
            stores=tuple(map(move, part.stores)),
            folds=tuple(f._replace(ref=move(f.ref)) for f in part.folds),
        )
        for part in entry.parts
    )
    single = tuple(is_single(part, entry.k, entry.scalars) for part in entry.parts)
    return Phases(entry.rows, block, parts, single)
