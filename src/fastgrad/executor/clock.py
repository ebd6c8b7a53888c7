"""The clock that measured runs go by: what they write down, and how long its ticks are."""

from __future__ import annotations

import time

import numpy as np

from ..codegen import abi
from ..codegen.runtime import measured_worker
from ..errors import ArgumentError
from .cpu import Native, Workspace
from .tape import Tape

EVENTS = 4096
"""Rows of one run that are kept one by one."""
_CLOCK_S = 0.02
"""How long two readings of both clocks lie apart at least, to tell how long a tick is."""


class Times:
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


class Clock:
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
        self._times = Times(n, n)
        measure(self._workspace, self._times)
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


def measure(workspace: Workspace, times: Times) -> None:
    """From now on the workspace's runs are measured."""
    workspace.words[abi.WORKER] = measured_worker().address
    workspace.words[abi.TIMES] = times.words.ctypes.data
