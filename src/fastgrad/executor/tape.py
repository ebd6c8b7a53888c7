"""Steps -> Plan: the tape as relocatable int64 words (`codegen.abi` says what each word means)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .. import machine
from ..codegen import abi
from ..codegen.cpu import Source, emit
from ..codegen.rates import reliable
from ..machine import Rates
from ..memory import Location, MemoryPlan, RegionPlan
from ..schedule import Buffer, Computed, Loop, Region
from .estimate import estimate

PARALLEL_NS = 1_000.0
"""A row goes to all threads when that saves so much of its estimate, where sharing one out costs `machine.ROW_NS`."""
REGION_NS = 100_000.0
"""A plan opens a parallel region when its rows save so much together, where to wake a thread that sleeps, and to meet it
again at the end, costs `machine.REGION_NS`. A loop of many steps opens one region for all of them."""
FACTOR = 2.0
"""Both follow what this machine was measured to take, if it was, by this factor at most: results are the same either way."""
TURN_NS = 10
"""What a row that is no kernel takes."""
GUESSED_TRIPS = 100
"""How often a while loop is taken to run, when its time is estimated."""
LONG_NS = 1e6
"""What a run with such a loop is taken to last at least: it may never end, so it has to let other Python threads in and
look for signals, whatever one iteration costs."""
LONGEST_NS = 1e18
"""Estimates end here, as do the words that hold them: loops in loops to a high bound multiply."""
FEWEST_EACH, CHUNK_NS = 4, 20_000.0
"""Chunks of a shared row for each thread (where `Source.chunks` allows), as many as last so long. A thread that is late or
slow leaves the others with one chunk more, which of eight in all is a quarter of their time."""
_SPACES = {"arena": abi.ARENA, "state": abi.STATE, "input": abi.INPUT, "output": abi.OUTPUT}


@dataclass(frozen=True, eq=False)
class Segment:
    """Part of a tape: planned steps, and whether the run may pause inside (not once state is being updated)."""

    plan: MemoryPlan
    may_pause: bool = True


@dataclass(frozen=True, eq=False)
class Repeat:
    """A loop around the whole tape: ``trips``, and by how many bytes the pointers of some locations move each time."""

    trips: int
    moving: Mapping[Location, int]


@dataclass(frozen=True, eq=False)
class Tape:
    """The words of a Plan, and the kernels that it numbers. ``sources`` has one entry a row, None where it is no kernel."""

    words: np.ndarray
    sources: tuple[Source | None, ...]
    texts: tuple[str, ...]
    arena_bytes: int
    cost_ns: float


class Move(NamedTuple):
    """How an address moves with a loop: by so many bytes an iteration, or there and back in turn."""

    loop: int
    by: int
    in_turn: bool = False


class Place(NamedTuple):
    """Where something lies at run time: an offset in a space (for pointers, of number ``number``), moving with loops."""

    space: int
    number: int
    offset: int
    moves: tuple[Move, ...] = ()

    def at(self, offset: int, *moves: Move) -> Place:
        """``offset`` bytes further on, and moving with one more loop."""
        return self._replace(offset=self.offset + offset, moves=self.moves + moves)


Find = Callable[[Location], Place]


def build(segments: Sequence[Segment], threads: int, repeat: Repeat | None = None) -> Tape:
    """One tape of all segments in order, run once or, with ``repeat``, in a loop."""
    tape = _Assembler(threads)
    loop = tape.enter(repeat.trips) if repeat else None

    def find(location: Location) -> Place:
        place = Place(_SPACES[location.space], location.number, location.offset)
        by = repeat.moving.get(location._replace(offset=0), 0) if repeat else 0
        return place.at(0, Move(loop.number, by)) if loop and by else place

    for segment in segments:
        tape.may_pause = segment.may_pause
        tape.steps(segment.plan, find)
    tape.may_pause = True
    if loop:
        tape.leave(loop)
    return tape.finish(max((s.plan.arena_bytes for s in segments), default=0))


@dataclass(eq=False)
class _Loop:
    """A loop whose rows are being written: its LOOP row and counter word, and what moves with it."""

    number: int
    row: int
    counter: int
    trips: int
    moves: list[tuple[int, int, bool]] = field(default_factory=list)


class _Assembler:
    """Rows, relocations, descriptor words and blocks under construction."""

    def __init__(self, threads: int) -> None:
        self.threads, self.rates = threads, reliable()
        self.row_ns, self.region_ns = thresholds(self.rates)
        self.rows: list[list[int]] = []
        self.sources: list[Source | None] = []
        self.relocs: list[tuple[int, int, int, int]] = []
        self.template: list[int] = []
        self.blocks: list[int] = []
        self.texts: dict[str, int] = {}
        self.loops: list[_Loop] = []
        self.may_pause = True
        self.times = 1  # how often the rows being written run
        self.cost = self.saved_ns = 0.0

    # -- rows --------------------------------------------------------------------------------------------------------

    def steps(self, plan: MemoryPlan, find: Find) -> None:
        """The rows of a plan; ``find`` says where its locations are."""
        for step in plan.steps:
            if isinstance(step, Region):
                self.region(step, plan, find)
            else:
                self.kernel(step, plan.locations, find)

    def kernel(self, step: Computed, locations: Mapping[Buffer, Location], find: Find) -> None:
        """One row that runs a kernel."""
        source = emit(step, _apart(step, locations))
        number = self.texts.setdefault(source.text, len(self.texts))
        guess = estimate(step, source.tiles)
        alone = min(guess.ns(self.rates), LONGEST_NS)
        shared = self.threads > 1 and source.tiles > 1
        saved = alone - guess.ns(self.rates, self.threads) if shared else 0.0
        kind = abi.PARALLEL if shared and saved > self.row_ns else abi.SERIAL
        self.row(kind, number, len(self.template), source.tiles, source.chunks, int(alone), source)
        self.cost += alone * self.times
        self.saved_ns += saved * self.times * (kind == abi.PARALLEL)
        for word in source.words:
            if isinstance(word, int):
                self.template.append(word)
            else:
                offset = word.layout.offset * word.buffer.dtype.itemsize
                self.pointer(find(locations[word.buffer]).at(offset))

    def row(
        self, kind: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, cost: int = TURN_NS,
        source: Source | None = None,
    ) -> int:  # fmt: skip
        """Append a row; its number."""
        self.rows.append([kind, a, b, c, d, int(self.may_pause), cost])
        self.sources.append(source)
        return len(self.rows) - 1

    def pointer(self, place: Place) -> int:
        """A descriptor word that holds the address of ``place``; its number."""
        word = len(self.template)
        self.template.append(0)
        self.relocs.append((word, place.space, place.number, place.offset))
        for move in place.moves:
            self.loops[move.loop].moves.append((word, move.by, move.in_turn))
        return word

    def block(self, words: Sequence[int]) -> int:
        """Where a block of words begins."""
        self.blocks += words
        return len(self.blocks) - len(words)

    def enter(self, trips: int) -> _Loop:
        """Open a loop."""
        counter = len(self.template)
        self.template.append(0)
        loop = _Loop(len(self.loops), self.row(abi.LOOP, 0, counter, trips), counter, trips)
        self.loops.append(loop)
        self.times *= _estimated(trips)
        return loop

    def leave(self, loop: _Loop) -> None:
        """Close it: what moved with it is known by now."""
        moves = self.block([len(loop.moves), *(int(x) for move in loop.moves for x in move)])
        last = self.row(abi.NEXT, loop.row + 1, loop.counter, loop.trips, moves)
        self.rows[loop.row][abi.TARGET] = last + 1
        self.times //= _estimated(loop.trips)
        self.cost += TURN_NS * self.times * _estimated(loop.trips)
        if _unknown(loop.trips):
            self.cost = max(self.cost, LONG_NS)

    # -- regions -----------------------------------------------------------------------------------------------------

    def region(self, step: Region, plan: MemoryPlan, find: Find) -> None:
        """The rows of a loop or a branch."""
        inside = plan.regions[step]
        scratch = find(plan.locations[inside.scratch])
        reads, writes = (
            [find(plan.locations[r.buffer]).at(r.layout.offset * r.buffer.dtype.itemsize) for r in refs]
            for refs in (step.reads, step.writes)
        )
        frame = _Frame(inside, scratch, reads, writes)
        if step.kind == "switch":
            self.switch(inside, frame)
            return
        for copy in inside.enter:
            self.kernel(copy, inside.locations, frame.find)
        if step.kind == "scan":
            self.scan(step, inside, frame)
        else:
            self.while_loop(step, inside, frame)
        for copy in inside.leave:
            self.kernel(copy, inside.locations, frame.find)

    def scan(self, step: Region, inside: RegionPlan, frame: _Frame) -> None:
        loop = self.enter(step.trips)
        frame.loop, frame.trips = loop.number, step.trips
        frame.slices(step)
        self.steps(inside.parts[0], frame.find)
        self.leave(loop)
        frame.loop = None

    def while_loop(self, step: Region, inside: RegionPlan, frame: _Frame) -> None:
        loop = self.enter(step.trips)
        cond, body = inside.parts
        self.steps(cond, frame.find)
        word = self.pointer(frame.find(Location("flag")))
        branch = self.row(abi.BRANCH, 0, word, 1)
        self.steps(body, frame.find)
        self.leave(loop)
        self.rows[branch][abi.BLOCK] = self.block([2, len(self.rows), branch + 1])

    def switch(self, inside: RegionPlan, frame: _Frame) -> None:
        branch = self.row(abi.BRANCH, 0, self.pointer(frame.reads[0]), 8)
        starts, ends = [], []
        before, costs = (self.cost, self.saved_ns), []
        for part in inside.parts:
            self.cost, self.saved_ns = before
            starts.append(len(self.rows))
            self.steps(part, frame.find)
            ends.append(self.row(abi.JUMP))
            costs.append((self.cost, self.saved_ns))
        self.cost, self.saved_ns = map(max, zip(*costs, strict=True))
        for end in ends:
            self.rows[end][abi.TARGET] = len(self.rows)
        self.rows[branch][abi.BLOCK] = self.block([len(starts), *starts])

    # -- the end -----------------------------------------------------------------------------------------------------

    def finish(self, arena_bytes: int) -> Tape:
        """The words, once it is known whether rows are shared among threads."""
        repeated = any(loop.trips > 1 for loop in self.loops)
        threads = self.threads
        share = threads > 1 and self.saved_ns > (0 if repeated else self.region_ns)
        for row in self.rows:
            if row[abi.KIND] == abi.PARALLEL and share:
                each = min(row[abi.CHUNKS], max(FEWEST_EACH, int(row[abi.ROW_COST] / (threads * CHUNK_NS))))
                row[abi.CHUNKS] = max(1, min(row[abi.TILES], each * threads, abi.MAX_CHUNKS))
            elif row[abi.KIND] == abi.PARALLEL:
                row[abi.KIND] = abi.SERIAL
        header = [0] * abi.HEADER
        header[abi.N_ROWS], header[abi.ROWS_AT] = len(self.rows), abi.HEADER
        header[abi.N_RELOCS], header[abi.RELOCS_AT] = len(self.relocs), abi.HEADER + abi.ROW * len(self.rows)
        header[abi.N_WORDS] = len(self.template)
        header[abi.WORDS_AT] = header[abi.RELOCS_AT] + abi.RELOC * len(self.relocs)
        header[abi.BLOCKS_AT] = header[abi.WORDS_AT] + len(self.template)
        self.cost = min(self.cost, LONGEST_NS)
        header[abi.N_KERNELS], header[abi.COST] = len(self.texts), int(self.cost)
        header[abi.N_PARALLEL] = sum(row[abi.KIND] == abi.PARALLEL for row in self.rows)
        rows = (x for row in self.rows for x in row)
        relocs = (x for reloc in self.relocs for x in reloc)
        words = np.array([*header, *rows, *relocs, *self.template, *self.blocks], np.int64)
        return Tape(words, tuple(self.sources), tuple(self.texts), arena_bytes, self.cost)


@dataclass(eq=False)
class _Frame:
    """Where the locations inside a region are: its operands, results and scratch, as the steps around it see them."""

    inside: RegionPlan
    scratch: Place
    reads: list[Place]
    writes: list[Place]
    loop: int | None = None
    trips: int = 0

    def slices(self, step: Region) -> None:
        """From now on ``xs`` and ``ys`` are the slices of one iteration: they move with the loop."""
        consts = step.shared[0]
        self.reads = [
            p if i < consts + step.carry else self.slice(p, r.nbytes, step)
            for i, (p, r) in enumerate(zip(self.reads, step.reads, strict=True))
        ]
        self.writes = [
            p if i < step.carry else self.slice(p, r.nbytes, step)
            for i, (p, r) in enumerate(zip(self.writes, step.writes, strict=True))
        ]

    def slice(self, place: Place, nbytes: int, step: Region) -> Place:
        assert self.loop is not None
        by = nbytes // step.trips if step.trips else 0
        return (
            place.at(nbytes - by, Move(self.loop, -by)) if step.reverse else place.at(0, Move(self.loop, by))
        )

    def find(self, location: Location) -> Place:
        space, i = location.space, location.number
        if space == "arena":
            return self.scratch.at(location.offset)
        if space == "operand":
            return self.reads[i]
        if space == "result":
            return self.writes[i]
        if space == "flag":
            return self.scratch.at(self.inside.flag)
        first, second = self.inside.carry[i]
        if space == "last":
            return self.scratch.at(second if self.trips % 2 else first)
        if first == second or self.loop is None:
            return self.scratch.at(first)
        if space == "next":
            return self.scratch.at(second, Move(self.loop, first - second, True))
        return self.scratch.at(first, Move(self.loop, second - first, True))


def _apart(step: Computed, locations: Mapping[Buffer, Location]) -> tuple[int, ...]:
    """The stores of a loop that lie where none of its operands does."""
    if not isinstance(step, Loop):
        return ()
    operands = {locations.get(r.buffer) for r in step.loads}
    return tuple(k for k, r in enumerate(step.stores) if locations[r.buffer] not in operands)


def _unknown(trips: int) -> bool:
    return trips >= 1 << 40


def _estimated(trips: int) -> int:
    return max(1, GUESSED_TRIPS if _unknown(trips) else trips)


def thresholds(rates: Rates) -> tuple[float, float]:
    """What a row, and a plan's rows together, must save to be shared."""
    scales = rates.row_ns / machine.ROW_NS, rates.region_ns / machine.REGION_NS
    row, region = (min(max(x, 1 / FACTOR), FACTOR) for x in scales)
    return PARALLEL_NS * row, REGION_NS * region
