"""Measure the machine: peak rates, bandwidths, and what it costs to hand work to other threads. Takes under a second.

Probes are rows of a tape that the measured walker times one by one, so what they reach is what a kernel could, on threads
that are awake. The best of several counts, so that what others do meanwhile matters little; of what threads cost each other
a usual one. Where the threads together reach much less than each alone, somebody else has a core: such figures serve
this process, and are not kept for others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..codegen import abi
from ..codegen.rates import keep, measured, vector_bytes
from ..codegen.simd.probe import CHAINS, STRIDE, probe_source
from ..codegen.target import cpu_features
from ..locks import Lock
from ..machine import Level, Pair, Rates, available_threads, shipped
from .clock import Clock, Times, measure
from .cpu import Native, Workspace, aligned
from .tape import Tape

ROW_RUNS_NS = 100_000.0
"""How long one row of a probe takes about."""
ROWS, BEST_OF = 8, 3
"""Rows of a probe's tape, and how often it runs, on one thread."""
LONG = 6
"""How many times as many rows it has where threads share them: on a busy machine a woken thread comes milliseconds late."""
PATIENCE_NS = 25_000_000
"""How long to go on until some row comes to `GOOD` times what the threads reach alone."""
GOOD = 0.9
LONG_PATIENCE_NS = 1_500_000_000
"""The same where somebody waits for one figure."""
LIMIT_NS = 700_000_000
"""After so long nothing is waited for any more."""
QUIET = 0.75
"""Threads together reach this share of their rates alone on a machine that is ours."""
SHARED_ROWS = 200
"""Rows of the tape that tells what sharing one costs."""
LEAST_NS = 20.0
"""What handing anything to another core takes at least: less is noise."""
ASLEEP_S, WOKEN = 0.002, 15
"""How long threads are left alone before a run has to wake them, and how often that is tried: the second best counts, as
with one other busy process the usual one is several times what waking costs."""
MEMORY_BYTES = (64 << 20, 128 << 20)
"""What is streamed through to reach beyond the caches, at least and at most."""
_ADDS_32, _ADDS_64, _READ, _COPY, _PAST, _IDLE = range(6)
_KERNELS = (
    ("multiply_adds", "f32"),
    ("multiply_adds", "f64"),
    ("stream_read", "f32"),
    ("stream_copy", "f32"),
    ("stream_past", "f32"),
    ("idle", "f32"),
)
_lock = Lock()


def calibrate(again: bool = False) -> Rates:
    """The measured rates of this machine: those that were kept, or measured now (``again``: in any case) and kept.

    >>> rates = calibrate()
    >>> rates.measured, rates.peak("float32", 1) > 0
    (True, True)
    """
    with _lock.current:
        found = None if again else measured()
        if found is None:
            found = _Probes(available_threads()).rates()
            keep(found)
        return found


def multiply_adds(dtype: str, threads: int) -> float:
    """GFLOP/s of multiply-adds in registers on so many threads, measured now; ``dtype`` is "float32" or "float64"."""
    with _lock.current:
        return (
            _Probes(threads)
            .begun(LONG_PATIENCE_NS)
            .flops({"float32": _ADDS_32, "float64": _ADDS_64}[dtype])[threads > 1]
        )


def streaming(what: str, nbytes: int, threads: int) -> float:
    """GB/s of reading, or with ``what`` "copy" of reading and writing, ``nbytes`` shared by so many threads, measured now.

    Half of the bytes of a copy are read, half are written.
    """
    kernel = {"read": _READ, "copy": _COPY}[what]
    with _lock.current:
        probes = _Probes(threads).begun(LONG_PATIENCE_NS)
        size = nbytes // probes.threads
        return probes.stream(
            kernel, 2 * size if kernel == _READ else size, probes.guess.level(nbytes, threads)
        )[threads > 1]


def copying(nbytes: int, threads: int, past: bool = False) -> Callable[[], object]:
    """A call that copies half of ``nbytes`` onto the other half, shared by so many threads; ``past`` the cache or not."""
    with _lock.current:
        probes = _Probes(threads)
        x, y, n = probes.halves(nbytes // probes.threads)
        kernel = _PAST if past else _COPY
        row = probes._workspace(
            kernel, 1, probes.threads, probes.threads, (x.ctypes.data, y.ctypes.data, n, 1)
        )

    def call(held: object = (x, y)) -> object:
        return row.entry()

    return call


class _Probes:
    """The measurements, on one thread and on ``threads``."""

    def __init__(self, threads: int):
        self.guess, self.end, self.patience_ns = shipped(vector_bytes(), threads), 0, PATIENCE_NS
        features = cpu_features()
        fused = bool(features.get("fma") or features.get("neon"))
        self.texts = tuple(probe_source(name, dtype, vector_bytes(), fused) for name, dtype in _KERNELS)
        self.clock, self.tick_ns = Clock(), 1.0
        self.times = Times(1 + SHARED_ROWS, 1 + SHARED_ROWS)
        self.seeds = [np.array([1.0, 0.5], dtype) for dtype in (np.float32, np.float64)]
        self.threads = min(threads, self._workspace(_IDLE, 1, 1, 1).native.runtime.pool_threads)
        self.out = aligned(64 * self.threads)

    def begun(self, patience_ns: int = PATIENCE_NS) -> _Probes:
        """Itself, the clock running."""
        self.end, self.patience_ns = time.perf_counter_ns() + max(LIMIT_NS, patience_ns), patience_ns
        self.tick_ns = self.clock.tick_ns()
        return self

    def rates(self) -> Rates:
        """All of it."""
        self.begun()
        single, double = self.flops(_ADDS_32), self.flops(_ADDS_64)
        levels = tuple(self.level(level, size) for level, size in self.sizes())
        row, region = self.handing_out()
        private = [single, double, *(level.read for level in levels[:2])]
        steady = all(_together(pair, self.threads) for pair in private)
        return Rates(self.threads, single, double, levels, row, region, True, steady)

    # -- running -----------------------------------------------------------------------------------------------------

    def _workspace(
        self, kernel: int, rows: int, tiles: int, threads: int, words: Sequence[int] = (0, 0, 0, 0)
    ) -> Workspace:
        """A tape of so many equal rows, shared where there are ``threads``, each of so many tiles."""
        kind = abi.PARALLEL if threads > 1 else abi.SERIAL
        row = [0] * abi.ROW
        row[abi.KIND], row[abi.KERNEL], row[abi.TILES], row[abi.CHUNKS] = kind, kernel, tiles, tiles
        flat = row * rows
        header = [0] * abi.HEADER
        header[abi.N_ROWS], header[abi.ROWS_AT] = rows, abi.HEADER
        header[abi.RELOCS_AT] = header[abi.WORDS_AT] = abi.HEADER + len(flat)
        header[abi.N_WORDS], header[abi.N_KERNELS] = len(words), len(self.texts)
        header[abi.BLOCKS_AT] = header[abi.WORDS_AT] + len(words)
        header[abi.N_PARALLEL] = rows * (kind == abi.PARALLEL)
        plan = np.array([*header, *flat, *words], np.int64)
        tape = Tape(plan, (None,) * rows, self.texts, 0, 0.0)
        return Native(tape, [], 0, (), threads).workspace()

    def _row_times(self, workspace: Workspace) -> np.ndarray:
        """Nanoseconds of each row in one run."""
        measure(workspace, self.times)
        self.times.clear()
        workspace.entry()
        events = self.times.events()
        return np.maximum(events[:, 2] - events[:, 1] - self.clock.read_ticks, 1) * self.tick_ns

    def _pair(self, kernel: int, words: Sequence[int], work: float, rows: int = ROWS) -> Pair:
        """``work`` a nanosecond, of one thread on one tile, and of all threads on a tile each: the best rows."""
        one = self._workspace(kernel, rows, 1, 1, words)
        alone = min(float(self._row_times(one).min()) for _ in range(BEST_OF))
        if self.threads < 2:
            return work / alone, work / alone
        many = self._workspace(kernel, LONG * rows, self.threads, self.threads, words)
        end = min(self.end, time.perf_counter_ns() + self.patience_ns)
        together = float(self._row_times(many).min())
        while together * GOOD > alone and time.perf_counter_ns() < end:
            together = min(together, float(self._row_times(many).min()))
        return work / alone, max(work / alone, self.threads * work / together)

    # -- what is measured --------------------------------------------------------------------------------------------

    def flops(self, kernel: int) -> Pair:
        """GFLOP/s of multiply-adds in registers."""
        seeds = self.seeds[kernel]
        a_round = 2.0 * CHAINS * (vector_bytes() // seeds.itemsize)
        rounds = int(ROW_RUNS_NS * self.guess.peak(seeds.dtype.name, 1) / a_round)
        words = (seeds.ctypes.data, self.out.ctypes.data, rounds, 1)
        return self._pair(kernel, words, a_round * rounds)

    def sizes(self) -> list[tuple[Level, int]]:
        """The levels, and how many bytes each thread's stream takes in it: well inside, and well beyond the one before."""
        inner, found = 0, []
        for level in self.guess.levels[:-1]:
            size = level.nbytes // 2 if inner == 0 else min(level.nbytes // 2, 4 * inner + (1 << 20))
            found.append((level, size))
            inner = level.nbytes
        least, most = MEMORY_BYTES
        beyond = min(max(least, 4 * inner), most, _physical_bytes() // 16)
        return [*found, (self.guess.levels[-1], beyond // self.threads)]

    def level(self, level: Level, size: int) -> Level:
        """GB/s of reading, and of reading and writing."""
        return level._replace(read=self.stream(_READ, size, level), copy=self.stream(_COPY, size, level))

    def stream(self, kernel: int, size: int, level: Level) -> Pair:
        """GB/s of one kind in a working set of ``size`` bytes a thread, half of which is read and half, if any, written."""
        x, y, n = self.halves(size)
        moved, guess, target = (n, level.read[0], self.out) if kernel == _READ else (2 * n, level.copy[0], y)
        times = max(1, int(ROW_RUNS_NS * guess / moved))
        words = (x.ctypes.data, target.ctypes.data, n, times)
        return self._pair(kernel, words, float(moved * times), ROWS if moved < 16 << 20 else 1)

    def halves(self, size: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Two arrays that together have ``size`` bytes a thread, and how many of each are a thread's."""
        n = max(STRIDE, size // 2 // STRIDE * STRIDE)
        x, y = aligned(n * self.threads), aligned(n * self.threads)
        x[:], y[:] = 0, 0
        return x, y, n

    def handing_out(self) -> Pair:
        """Nanoseconds to share a row out among threads that are awake, and to wake them and meet them at the end."""
        if self.threads < 2:
            return self.guess.row_ns, self.guess.region_ns
        shared = self._workspace(_IDLE, 1 + SHARED_ROWS, 4 * self.threads, self.threads)
        # Where a thread is held up the walker does its share: such rows cost less, not more.
        row = max(float(np.median(self._row_times(shared)[1:])) for _ in range(2 * BEST_OF))
        few, one = self._workspace(_IDLE, 1, self.threads, self.threads), self._workspace(_IDLE, 1, 1, 1)
        woken = []
        for _ in range(WOKEN):
            time.sleep(ASLEEP_S)
            woken.append(_whole(few))
        alone = min(_whole(one) for _ in range(WOKEN))
        return max(row, LEAST_NS), max(sorted(woken)[1] - alone, LEAST_NS)


def _whole(workspace: Workspace) -> float:
    start = time.perf_counter_ns()
    workspace.entry()
    return time.perf_counter_ns() - start


def _together(pair: Pair, threads: int) -> bool:
    """Whether threads that share nothing reached nearly what each does alone: two threads of one core count as one."""
    one, many = pair
    try:
        paired = Path("/sys/devices/system/cpu/smt/active").read_text(encoding="ascii").strip() == "1"
    except OSError:
        paired = False
    return many >= QUIET * one * max(1, threads // (2 if paired else 1))


def _physical_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 4 << 30
