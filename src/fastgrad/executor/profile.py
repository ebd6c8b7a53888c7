"""What a profile is: a record of rows, printed as a table, saved as a timeline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import ArgumentError
from ..machine import Rates
from .page import page
from .row import Event, Row, shortened, show_ns, where
from .timeline import svg


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
        text.append(
            f"{self.flops / whole:.1f} GFLOP/s over the whole call ({100 * self.flops / whole / self.peak:.0f}% of "
            f"{self.peak:.0f}); each kernel at its limit would take {show_ns(self.least_ns)} in all"
        )
        return "\n".join([*text, str(self.rates)])

    @property
    def peak(self) -> float:
        """GFLOP/s that all threads reach at best by the instructions of the kernel that computes most."""
        heaviest = max(self.rows, key=lambda r: r.flops * r.calls, default=None)
        if heaviest is None:
            return self.rates.peak("float32", self.threads)
        return heaviest.peak_on(self.rates, self.threads)

    def to_svg(self) -> str:
        """The timeline as one self-contained SVG image."""
        return svg(self)

    def to_html(self) -> str:
        """The timeline and the table as one self-contained page."""
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
