"""What a profile is: one record a kernel, with its time beside the time that this machine could do it in.

The limits are those of the roofline model (Williams, Waterman and Patterson 2009): a row can be no faster than its
operations at the peak rate of multiply-adds, nor than its bytes at the bandwidth of the first level of memory that holds
them all, nor than it takes to hand it out. The largest of the three binds; what a row reaches of it says what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import ArgumentError
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


@dataclass(frozen=True)
class Profile:
    """Where the time of a program goes. Prints as a table; `save` writes a timeline.

    Attributes:
        rows: one `Row` a kernel, in the order of the program.
        step_ns: the whole call from Python, measured by itself (median). It is the sum of ``kernels_ns`` (the rows),
            ``control_ns`` (loops and branches), ``unsteady_ns`` (what all rows of a run took beyond the sum of their
            medians: somebody else had the core), and ``overhead_ns``, what is left: the entry, arguments, results,
            the parallel region. It may come out slightly negative.
        rates: what the machine can do at best. ``runs``: how many were measured. ``threads``: how many could share a row.
        events: the rows of one typical run as they followed one another; ``unseen`` more came than were kept.

    >>> profile = fg.jit(lambda x: np.tanh(x).sum()).compile(np.ones(1000)).profile(np.ones(1000))
    >>> [row.ops for row in profile.rows]
    ['tanh reduce_sum', 'tanh reduce_sum']
    >>> profile.save("tanh.html")                                                   # doctest: +SKIP
    """

    name: str
    backend: str
    threads: int
    runs: int
    step_ns: float
    control_ns: float
    unsteady_ns: float
    rows: tuple[Row, ...]
    rates: Rates
    events: tuple[Event, ...] = ()
    unseen: int = 0

    @property
    def kernels_ns(self) -> float:
        """Nanoseconds in kernels: the sum of the rows."""
        return sum(row.ns for row in self.rows)

    @property
    def overhead_ns(self) -> float:
        """Nanoseconds of a call that no row accounts for."""
        return self.step_ns - self.kernels_ns - self.control_ns - self.unsteady_ns

    @property
    def flops(self) -> int:
        """Operations of one run."""
        return sum(row.flops * row.calls for row in self.rows)

    @property
    def least_ns(self) -> float:
        """How long the rows would take if each ran at its limit."""
        return sum(row.least_ns * row.calls for row in self.rows)

    def __str__(self) -> str:
        """The table, slowest rows marked by their share; then where the rest of the time went."""
        whole = self.step_ns or 1.0
        table = [_HEAD, *(_cells(row, whole) for row in self.rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(_HEAD))]
        text = [
            f"profile {self.name}: {show_ns(self.step_ns)} a call, median of {self.runs} runs, "
            f"{self.backend}, threads: {self.threads}"
        ]
        for line in table:
            cells = (
                c.ljust(w) if i in _LEFT else c.rjust(w)
                for i, (c, w) in enumerate(zip(line, widths, strict=True))
            )
            text.append("  ".join(cells).rstrip())
        rest = [
            ("kernels", self.kernels_ns),
            *([("loops and branches", self.control_ns)] if self.control_ns else []),
            *([("unsteady", self.unsteady_ns)] if self.unsteady_ns else []),
            ("overhead", self.overhead_ns),
        ]
        text += [f"{name:18} {show_ns(ns):>10} {100 * ns / whole:6.1f}%" for name, ns in rest]
        peak = self.rates.peak("float32" if self._is_float32() else "float64", self.threads)
        text.append(
            f"{self.flops / whole:.1f} GFLOP/s over the whole call ({100 * self.flops / whole / peak:.0f}% of "
            f"{peak:.0f}); each kernel at its limit would take {show_ns(self.least_ns)} in all"
        )
        return "\n".join([*text, str(self.rates)])

    def _is_float32(self) -> bool:
        heaviest = max(self.rows, key=lambda r: r.flops * r.calls, default=None)
        return heaviest is None or heaviest.dtype == "float32"

    def to_svg(self) -> str:
        """The timeline as one self-contained SVG image."""
        from .timeline import svg

        return svg(self)

    def to_html(self) -> str:
        """The timeline and the table as one self-contained page."""
        from .page import page

        return page(self)

    def save(self, path: str | Path) -> Path:
        """Write the timeline to ``path``, which ends in ``.html`` or ``.svg``, or the table (``.txt``); returns the path.

        Raises: `ArgumentError` for another ending; `OSError` as the disk does.
        """
        path = Path(path)
        texts = {".html": self.to_html, ".svg": self.to_svg, ".txt": self.__str__}
        if path.suffix.lower() not in texts:
            raise ArgumentError(
                f"Profile.save: no format for {path.name!r}",
                hint='a name that ends in ".html", ".svg" or ".txt"',
            )
        path.write_text(texts[path.suffix.lower()](), encoding="utf-8")
        return path


_HEAD = (
    "row", "kind", "ops", "line", "calls", "time", "share", "GFLOP/s", "% peak", "GB/s", "% bw", "limit", "% of it",
)  # fmt: skip
_LEFT = (1, 2, 3, 11)
OPS_SHOWN = 34


def _cells(row: Row, whole: float) -> tuple[str, ...]:
    def percent(x: float) -> str:
        return f"{100 * x:.0f}" if row.ns else "-"

    return (
        str(row.number), row.kind, shortened(row.ops, OPS_SHOWN), where(row), str(row.calls), show_ns(row.ns),
        f"{100 * row.ns / whole:.1f}%", f"{row.gflops:.1f}", percent(row.of_peak), f"{row.gbs:.1f}",
        percent(row.of_bandwidth), row.limit, percent(row.of_limit),
    )  # fmt: skip


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
