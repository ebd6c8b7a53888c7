"""Steps -> Plan: the tape as relocatable int64 words (`codegen.abi` says what each word means)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..codegen import abi
from ..codegen.cpu import Source, emit
from ..memory import Location, MemoryPlan

PARALLEL_NS = 8_000.0
"""A row goes to all threads when its estimate exceeds this: a parallel row costs about 0.3 microseconds to share out."""
REGION_NS = 150_000.0
"""A plan opens a parallel region when its parallel rows together exceed this: to wake a thread that sleeps, and to meet it
again at the end, takes up to 50 microseconds. A loop of many steps opens one region for all of them."""
_SPACES = {"arena": abi.ARENA, "state": abi.STATE, "input": abi.INPUT, "output": abi.OUTPUT}


@dataclass(frozen=True, eq=False)
class Segment:
    """Part of a tape: planned steps, and whether the run may pause inside (not once state is being updated)."""

    plan: MemoryPlan
    may_pause: bool = True


@dataclass(frozen=True, eq=False)
class Tape:
    """The words of a Plan, and the kernels that it numbers. ``sources`` has one entry a row."""

    words: np.ndarray
    sources: tuple[Source, ...]
    texts: tuple[str, ...]
    arena_bytes: int
    cost_ns: float


def build(segments: Sequence[Segment], threads: int, repeat: Mapping[Location, int] | None = None) -> Tape:
    """One tape of all segments in order. With ``repeat`` it loops: the pointers of these locations move by so many bytes."""
    sources = [(emit(step), segment) for segment in segments for step in segment.plan.steps]
    parallel_ns = sum(s.cost_ns for s, _ in sources if _worth_sharing(s))
    share = threads > 1 and (parallel_ns > REGION_NS or (repeat is not None and parallel_ns > 0))
    texts: dict[str, int] = {}
    rows: list[list[int]] = []
    relocs: list[list[int]] = []
    template: list[int] = []
    for source, segment in sources:
        kernel = texts.setdefault(source.text, len(texts))
        kind = abi.PARALLEL if share and _worth_sharing(source) else abi.SERIAL
        grain = (
            max(1, -(-source.tiles // (4 * threads)), -(-source.tiles // abi.MAX_CHUNKS))
            if kind
            else source.tiles
        )
        rows.append(
            [
                kind,
                kernel,
                len(template),
                source.tiles,
                max(grain, 1),
                int(segment.may_pause),
                int(source.cost_ns),
            ]
        )
        for word in source.words:
            if isinstance(word, int):
                template.append(word)
                continue
            where = segment.plan.locations[word.buffer]
            offset = where.offset + word.layout.offset * word.buffer.dtype.itemsize
            step = repeat.get(where._replace(offset=0), 0) if repeat else 0
            relocs.append([len(template), _SPACES[where.space], where.number, offset, step])
            template.append(0)
    if repeat is not None:
        rows.append([abi.REPEAT, 0, 0, 0, 1, 1, 0])
    cost = sum(s.cost_ns for s, _ in sources)
    header = [0] * abi.HEADER
    header[abi.N_ROWS], header[abi.ROWS_AT] = len(rows), abi.HEADER
    header[abi.N_RELOCS], header[abi.RELOCS_AT] = len(relocs), abi.HEADER + abi.ROW * len(rows)
    header[abi.N_WORDS], header[abi.WORDS_AT] = len(template), header[abi.RELOCS_AT] + abi.RELOC * len(relocs)
    header[abi.N_KERNELS], header[abi.COST] = len(texts), int(cost)
    header[abi.N_PARALLEL] = sum(row[0] == abi.PARALLEL for row in rows)
    flat = [*header, *(x for row in rows for x in row), *(x for r in relocs for x in r), *template]
    arena = max((s.plan.arena_bytes for s in segments), default=0)
    return Tape(np.array(flat, np.int64), tuple(s for s, _ in sources), tuple(texts), arena, cost)


def _worth_sharing(source: Source) -> bool:
    return source.tiles > 1 and source.cost_ns > PARALLEL_NS
