"""One kernel in a profile: its time beside the time that this machine could do it in, and how to write either down.

The limits are those of the roofline model (Williams, Waterman and Patterson 2009): a row can be no faster than its
operations at the peak rate of multiply-adds, nor than its bytes at the bandwidth of the first level of memory that holds
them all, nor than it takes to hand it out. The largest of the three binds; what a row reaches of it says what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..machine import Rates

KINDS = ("product", "map", "fold", "copy", "library", "update")
"""What a row may be: a product of matrices, elementwise lines, a reduction, a copy, a routine; any of them in an update."""
SERIAL_NS = 10.0
"""What it takes to hand out a row that is not shared: a call, and its descriptor's words."""


@dataclass(frozen=True)
class Row:
    """One kernel of a program.

    Attributes:
        number: the row of the tape (the equation, where interpreted).
        kernel: the step as the schedule prints it, ``gemm[batch=1 m=32 n=10 k=32]``.
        ops: its operations; ``lines`` the user's lines (``file.py:12``) that they stem from.
        kind: one of `KINDS`; ``dtype`` what it computes in.
        calls: how often it ran in one run (0: a branch that was not taken).
        ns: nanoseconds of all those calls, median over the runs.
        flops, read, written: operations and bytes of one call.
        threads: how many shared it.
        compute_ns, memory_ns, launch_ns: how long one call takes at least, by each limit; ``level`` the memory it lies in.
    """

    number: int
    kernel: str
    ops: str
    lines: tuple[str, ...]
    kind: str
    dtype: str
    calls: int
    ns: float
    flops: int
    read: int
    written: int
    threads: int
    compute_ns: float
    memory_ns: float
    launch_ns: float
    level: str

    @property
    def peak(self) -> float:
        """GFLOP/s that its instructions reach at best on its threads; 0 where it computes nothing."""
        return self.flops / self.compute_ns if self.compute_ns else 0.0

    def peak_on(self, rates: Rates, threads: int) -> float:
        """The same on another number of threads of a machine with such ``rates``."""
        alone = rates.peak(self.dtype, self.threads)
        return (self.peak or alone) * rates.peak(self.dtype, threads) / alone

    @property
    def gflops(self) -> float:
        """GFLOP/s reached."""
        return self.flops * self.calls / self.ns if self.ns else 0.0

    @property
    def gbs(self) -> float:
        """GB/s reached, read and written together."""
        return (self.read + self.written) * self.calls / self.ns if self.ns else 0.0

    @property
    def of_peak(self) -> float:
        """Share of the peak rate, 0 to 1."""
        return self.compute_ns * self.calls / self.ns if self.ns else 0.0

    @property
    def of_bandwidth(self) -> float:
        """Share of the bandwidth of ``level``, 0 to 1 (more where a part lay nearer than the whole)."""
        return self.memory_ns * self.calls / self.ns if self.ns else 0.0

    @property
    def limit(self) -> str:
        """What binds: "compute", the level of memory, or "launch"."""
        bounds = {"compute": self.compute_ns, self.level: self.memory_ns, "launch": self.launch_ns}
        return max(bounds, key=lambda name: bounds[name])

    @property
    def of_limit(self) -> float:
        """Share of what binds, 0 to 1: a row at 1 can only become faster by doing less."""
        return self.least_ns * self.calls / self.ns if self.ns else 0.0

    @property
    def least_ns(self) -> float:
        """How long one call takes at least, by whatever binds."""
        return max(self.compute_ns, self.memory_ns, self.launch_ns)


class Event(NamedTuple):
    """A row at work in the run that the timeline shows: nanoseconds from the run's begin. ``row`` is its number."""

    row: int
    begin: float
    end: float


def where(row: Row) -> str:
    """The first of a row's lines without its folder, and how many more there are: ``model.py:12 +2``."""
    if not row.lines:
        return ""
    more = f" +{len(row.lines) - 1}" if len(row.lines) > 1 else ""
    return Path(row.lines[0]).name + more


def shortened(text: str, width: int) -> str:
    """``text``, its end cut off where it is longer than ``width``."""
    return text if len(text) <= width else text[: width - 3] + "..."


def show_ns(ns: float) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("s", 1e9), ("ms", 1e6)):
        if abs(ns) >= size:
            return f"{ns / size:.3g} {unit}" if abs(ns) < 100 * size else f"{ns / size:.0f} {unit}"
    return f"{ns / 1e3:.2f} us" if abs(ns) >= 100 else f"{ns:.0f} ns"
