"""Time a program row by row: the same tape, walked by a twin of the walker that reads the core's clock around every row.

Runs as they are and runs that are measured take turns, in a workspace of their own, on a copy of the state: so nothing
that the program keeps is touched, and the difference between the whole and its rows can be told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..codegen import abi
from ..codegen.runtime import measured_worker
from ..core.graph import Graph
from ..errors import ArgumentError
from ..interpreter import reference
from ..machine import Rates
from .cpu import Native, Workspace
from .profile import SERIAL_NS, Event, Profile, Row
from .tape import Tape
from .work import Work, kind_of, lines_of, names_of, work_of, work_of_eqn

EVENTS = 4096
"""Rows of one run that are kept for the timeline."""
BUDGET_S = 0.5
"""How long a profile takes about, where the caller does not say how many runs."""
RUNS = (5, 500)
"""Runs of each kind, at least and at most, then."""
FRESH = 32
"""The copied state begins anew after so many runs: training on one batch for long would leave odd numbers behind."""
_CLOCK_S = 0.02
"""How long two readings of both clocks lie apart at least, to tell how long a tick is."""


def check_runs(runs: Any) -> int | None:
    """``runs`` if it is a positive integer or None."""
    if runs is not None and (isinstance(runs, bool) or not isinstance(runs, int | np.integer) or runs < 1):
        raise ArgumentError(f"profile: runs must be a positive integer, got {runs!r}")
    return None if runs is None else int(runs)


class _Times:
    """What a measured run writes down: `codegen.abi` says what its words mean."""

    def __init__(self, rows: int, events: int = EVENTS):
        self.fits, self.at = events, abi.EVENTS + abi.EVENT * events
        self.words = np.zeros(self.at + abi.ROW_TIME * rows, np.int64)
        self.words[abi.FITS], self.words[abi.TOTALS_AT] = events, self.at

    def clear(self) -> None:
        self.words[abi.CAME] = 0
        self.words[self.at :] = 0

    def totals(self) -> np.ndarray:
        """[row, (ticks, calls)] of the last run."""
        return self.words[self.at :].reshape(-1, abi.ROW_TIME).copy()

    def events(self) -> np.ndarray:
        """[event, (row, before, after)] of the last run."""
        n = min(int(self.words[abi.CAME]), self.fits)
        return self.words[abi.EVENTS : abi.EVENTS + abi.EVENT * n].reshape(-1, abi.EVENT).copy()


class _Clock:
    """How long a tick is, and how many of them reading the clock takes: told by a tape of idle jumps."""

    def __init__(self) -> None:
        n = 64
        rows = [x for i in range(n) for x in (abi.JUMP, i + 1, 0, 0, 0, 0, 0)]
        header = [0] * abi.HEADER
        header[abi.N_ROWS], header[abi.ROWS_AT] = n, abi.HEADER
        for end in (abi.RELOCS_AT, abi.WORDS_AT, abi.BLOCKS_AT):
            header[end] = abi.HEADER + len(rows)
        tape = Tape(np.array(header + rows, np.int64), (None,) * n, (), 0, 0.0)
        self._workspace = Native(tape, [], 0, (), 1).workspace()
        self._times = _Times(n, n)
        _measured(self._workspace, self._times)
        self.read_ticks = min(int((e[:, 2] - e[:, 1]).min()) for e in (self._jump() for _ in range(20)))
        self._start = self._now()

    def _jump(self) -> np.ndarray:
        self._times.clear()
        self._workspace.entry()
        return self._times.events()

    def _now(self) -> tuple[int, int]:
        """Nanoseconds and ticks, read as close to one another as can be; the closest of some tries."""
        found = []
        for _ in range(8):
            before = time.perf_counter_ns()
            tick = int(self._jump()[0, 1])
            found.append((time.perf_counter_ns() - before, before, tick))
        _, before, tick = min(found)
        return before, tick

    def tick_ns(self) -> float:
        """Nanoseconds a tick, since this clock was made."""
        left = _CLOCK_S - (time.perf_counter_ns() - self._start[0]) / 1e9
        if left > 0:
            time.sleep(left)
        ns, tick = self._now()
        if tick == self._start[1]:
            raise ArgumentError(
                "profile: this processor has no clock that a program may read", hint='backend="numpy"'
            )
        return (ns - self._start[0]) / (tick - self._start[1])


def _measured(workspace: Workspace, times: _Times) -> None:
    """From now on the workspace's runs are measured."""
    workspace.words[abi.WORKER] = measured_worker().address
    workspace.words[abi.TIMES] = times.words.ctypes.data


class Subject(NamedTuple):
    """What is profiled: a linked tape, its call's arrays, a function that makes fresh results, and the state, if any."""

    name: str
    native: Native
    arrays: Sequence[np.ndarray]
    results: Callable[[], Sequence[np.ndarray]]
    state: np.ndarray | None
    refresh: Callable[[], None]


def profile_native(subject: Subject, runs: int | None, rates: Rates) -> Profile:
    """The profile of a compiled program. Raises what a run raises (`OutOfBoundsError`); nothing is changed then either."""
    native, clock = subject.native, _Clock()
    copy = _aligned_copy(subject.state)
    workspace = native.workspace(copy.ctypes.data if copy is not None else 0)
    plain = int(workspace.words[abi.WORKER])
    times = _Times(len(native.tape.sources))

    def run(measured: bool) -> float:
        """One call; its nanoseconds."""
        if measured:
            times.clear()
            _measured(workspace, times)
        else:
            workspace.words[abi.WORKER] = plain
        start = time.perf_counter_ns()
        subject.refresh()
        if workspace.entry(*subject.arrays, *subject.results()) is not None:
            workspace.finish()
        return time.perf_counter_ns() - start

    run(True)
    first = max(run(False), run(True))
    n = runs or int(min(max(BUDGET_S * 1e9 / (2 * max(first, 1.0)), RUNS[0]), RUNS[1]))
    whole, totals, sample = [], [], []
    for i in range(n):
        if i % FRESH == 0 and copy is not None and subject.state is not None:
            np.copyto(copy, subject.state)
            run(False)
        whole.append(run(False))
        run(True)
        totals.append(times.totals())
        sample.append((times.events(), int(times.words[abi.CAME])))
    ticks = np.array(totals)
    ticks[:, :, abi.TICKS] -= np.minimum(clock.read_ticks * ticks[:, :, abi.CALLS], ticks[:, :, abi.TICKS])
    tick_ns = clock.tick_ns()
    ns = np.median(ticks[:, :, abi.TICKS], axis=0) * tick_ns
    calls = np.median(ticks[:, :, abi.CALLS], axis=0).astype(int)
    sums = ticks[:, :, abi.TICKS].sum(axis=1)
    events, came = sample[int(np.argsort(sums)[len(sums) // 2])]
    rows = _rows(native, ns, calls, rates)
    control = sum(float(t) for t, source in zip(ns, native.tape.sources, strict=True) if source is None)
    origin = events[0, 1] if len(events) else 0
    seen = tuple(
        Event(int(row), float(a - origin) * tick_ns, float(b - origin) * tick_ns)
        for row, a, b in events
        if native.tape.sources[row] is not None
    )
    return Profile(
        subject.name, "numba", _threads(native), n, float(np.median(whole)), control, rows, rates, seen,
        max(0, came - EVENTS),
    )  # fmt: skip


def _aligned_copy(state: np.ndarray | None) -> np.ndarray | None:
    from .cpu import aligned

    if state is None:
        return None
    copy = aligned(state.nbytes)
    copy[...] = state
    return copy


def _threads(native: Native) -> int:
    return min(native.threads, native.runtime.pool_threads)


def _rows(native: Native, ns: np.ndarray, calls: np.ndarray, rates: Rates) -> tuple[Row, ...]:
    words, threads = native.tape.words, _threads(native)
    rows = []
    for i, source in enumerate(native.tape.sources):
        if source is None:
            continue
        at = int(words[abi.ROWS_AT]) + abi.ROW * i
        shared = threads if words[at + abi.KIND] == abi.PARALLEL else 1
        step = source.step
        kind = kind_of(step) if words[at + abi.MAY_PAUSE] else "update"
        launch = rates.row_ns if shared > 1 else SERIAL_NS
        rows.append(
            _row(
                i, str(step), names_of(step.eqns), lines_of(step.eqns), kind, int(calls[i]), float(ns[i]),
                work_of(step), shared, launch, rates,
            )
        )  # fmt: skip
    return tuple(rows)


def _row(
    number: int, kernel: str, ops: str, lines: tuple[str, ...], kind: str, calls: int, ns: float, work: Work,
    threads: int, launch: float, rates: Rates,
) -> Row:  # fmt: skip
    flops, read, written, dtype = work
    return Row(
        number, kernel, ops, lines, kind, dtype, calls, ns, flops, read, written, threads,
        flops / rates.peak(dtype, threads), rates.move_ns(read, written, threads), launch,
        rates.level(read + written, threads).name,
    )  # fmt: skip


# -- the interpreter ---------------------------------------------------------------------------------------------------


def profile_interpreted(
    graph: Graph, arrays: Sequence[np.ndarray], call: Callable[..., Any], runs: int | None, rates: Rates
) -> Profile:
    """The profile of an interpreted graph: time per equation, each as the interpreter's reference computes it."""
    steps = [(eqn, reference(eqn)) for eqn in graph.eqns]
    given = [*zip(graph.inputs, arrays, strict=True), *graph.captured]

    def walk(ns: np.ndarray) -> None:
        values: dict[Any, Any] = dict(given)
        with np.errstate(all="ignore"):
            for i, (eqn, op) in enumerate(steps):
                args = [values[a] if a in values else a.value for a in eqn.inputs]  # type: ignore[union-attr]
                start = time.perf_counter_ns()
                result = op(*args)
                ns[i] = time.perf_counter_ns() - start
                values.update(zip(eqn.outputs, result if len(eqn.outputs) != 1 else [result], strict=True))

    def whole() -> float:
        start = time.perf_counter_ns()
        call(*arrays)
        return time.perf_counter_ns() - start

    first = max(whole(), whole())
    n = runs or int(min(max(BUDGET_S * 1e9 / (2 * max(first, 1.0)), RUNS[0]), RUNS[1]))
    times, wholes = np.zeros((n, len(steps))), []
    for i in range(n):
        wholes.append(whole())
        walk(times[i])
    ns = np.median(times, axis=0) if n else times
    rows = tuple(
        _row(
            i, str(eqn.outputs[0].aval) if eqn.outputs else "", eqn.prim.name, lines_of([eqn]), _KIND.get(type(eqn.prim.kernel).__name__, "library"),
            1, float(ns[i]), work_of_eqn(eqn), 1, SERIAL_NS, rates,
        )
        for i, eqn in enumerate(graph.eqns)
    )  # fmt: skip
    ends = np.cumsum(ns)
    events = tuple(
        Event(i, float(end - t), float(end)) for i, (end, t) in enumerate(zip(ends, ns, strict=True))
    )
    return Profile(
        graph.name,
        "numpy",
        1,
        n,
        float(np.median(wholes)),
        0.0,
        rows,
        rates,
        events[:EVENTS],
        max(0, len(events) - EVENTS),
    )


_KIND = {"Pointwise": "map", "Reduce": "fold", "View": "copy"}
