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
from ..core.graph import Graph, Literal
from ..errors import ArgumentError
from ..interpreter import reference
from ..machine import Rates
from .clock import EVENTS, Clock, Times, measure
from .cpu import Native, aligned
from .profile import Profile
from .row import SERIAL_NS, Event, Row
from .work import Work, kind_of, lines_of, names_of, work_of, work_of_eqn

BUDGET_S = 0.5
"""How long a profile takes about, where the caller does not say how many runs."""
RUNS = (5, 500)
"""Runs of each kind, at least and at most, then."""
FRESH = 32
"""The copied state begins anew after so many runs: training on one batch for long would leave odd numbers behind."""


def check_runs(runs: Any) -> int | None:
    """``runs`` if it is a positive integer or None."""
    if runs is not None and (isinstance(runs, bool) or not isinstance(runs, int | np.integer) or runs < 1):
        raise ArgumentError(f"profile: runs must be a positive integer, got {runs!r}")
    return None if runs is None else int(runs)


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
    native, clock = subject.native, Clock()
    copy = _aligned_copy(subject.state)
    workspace = native.workspace(copy.ctypes.data if copy is not None else 0)
    plain = int(workspace.words[abi.WORKER])
    times = Times(len(native.tape.sources))

    def run(measured: bool) -> float:
        """One call; its nanoseconds."""
        if measured:
            times.clear()
            measure(workspace, times)
        else:
            workspace.words[abi.WORKER] = plain
        start = time.perf_counter_ns()
        subject.refresh()
        results = subject.results()  # held until the end: a run that pauses goes on in `finish`
        if workspace.entry(*subject.arrays, *results) is not None:
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
    usual, call = float(ns.sum()), float(np.median(whole))
    events, came = sample[int(np.argmin(np.abs(sums * tick_ns - usual)))]  # the most usual run
    rows = _rows(native, ns, calls, rates)
    control = sum(float(t) for t, source in zip(ns, native.tape.sources, strict=True) if source is None)
    origin = events[0, 1] if len(events) else 0
    seen = tuple(
        Event(int(row), float(a - origin) * tick_ns, float(b - origin) * tick_ns)
        for row, a, b in events
        if native.tape.sources[row] is not None
    )
    return Profile(
        subject.name, "numba", _threads(native), n, call, control,
        _unsteady(float(np.median(sums)) * tick_ns, usual, call), rows, rates, seen,
        max(0, came - EVENTS),
    )  # fmt: skip


def _unsteady(run: float, usual: float, call: float) -> float:
    """What all rows of a ``run`` took beyond what each takes usually, as far as the ``call`` shows it."""
    return max(0.0, min(run, call) - usual)


def _aligned_copy(state: np.ndarray | None) -> np.ndarray | None:
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
                i, str(step), names_of(step), lines_of(step.eqns), kind, int(calls[i]), float(ns[i]),
                work_of(step), shared, launch, rates,
            )
        )  # fmt: skip
    return tuple(rows)


def _row(
    number: int, kernel: str, ops: str, lines: tuple[str, ...], kind: str, calls: int, ns: float, work: Work,
    threads: int, launch: float, rates: Rates,
) -> Row:  # fmt: skip
    flops, read, written, dtype, pace = work
    return Row(
        number, kernel, ops, lines, kind, dtype, calls, ns, flops, read, written, threads,
        flops / (pace * rates.peak(dtype, threads)), rates.move_ns(read, written, threads), launch,
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
                args = [a.value if isinstance(a, Literal) else values[a] for a in eqn.inputs]
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
    ns = np.median(times, axis=0)
    rows = []
    for i, eqn in enumerate(graph.eqns):
        kind = _KIND.get(
            type(eqn.prim.kernel).__name__, "product" if eqn.prim.name == "matmul" else "library"
        )
        result = " ".join(str(v.aval) for v in eqn.outputs)
        rows.append(
            _row(
                i, result, eqn.prim.name, lines_of([eqn]), kind, 1, float(ns[i]), work_of_eqn(eqn), 1, SERIAL_NS, rates,
            )
        )  # fmt: skip
    call_ns = float(np.median(wholes))
    unsteady = _unsteady(float(np.median(times.sum(axis=1))), float(ns.sum()), call_ns)
    ends = np.cumsum(ns)
    events = [Event(i, float(end - t), float(end)) for i, (end, t) in enumerate(zip(ends, ns, strict=True))]
    return Profile(
        graph.name, "numpy", 1, n, call_ns, 0.0, unsteady, tuple(rows), rates, tuple(events[:EVENTS]),
        max(0, len(events) - EVENTS),
    )  # fmt: skip


_KIND = {"Pointwise": "map", "Reduce": "fold", "View": "copy"}
