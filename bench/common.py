"""What the smaller benchmarks share: command line, report and networks. How time is measured is in `fastgrad.bench`."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

# Before NumPy loads its BLAS: either variable pins it to another processor's kernels and falsifies every comparison.
for _name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(_name, None)

from fastgrad.bench.models import MODELS, classified, layers  # noqa: E402
from fastgrad.bench.quiet import QUIET_LOAD, QUIET_OTHERS, Watch, cores, load, machine, own_cpu, version  # noqa: E402
from fastgrad.train import cross_entropy_loss  # noqa: E402

NETWORKS = {
    f"{'-'.join(map(str, m.sizes))} b{m.rows}": (m.sizes, m.rows)
    for m in (MODELS[name] for name in ("mlp-64-32-10", "mlp-64-128-64-10", "mlp-784-512-512-10"))
}
"""Layer sizes and batch size of the three multilayer perceptrons that the figures are about."""
parameters, batch, loss = layers, classified, cross_entropy_loss


# -- command line and report -------------------------------------------------------------------------------------------


def parser(
    doc: str | None, *, threads: int | None = None, rounds: int | None = None, seconds: float = 0.15
) -> argparse.ArgumentParser:
    """The arguments that every script takes; ``threads`` and ``rounds`` are defaults, None where without meaning."""
    it = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    it.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write all figures as JSON into a file, or without a name print them as the last line",
    )
    if threads is not None:
        it.add_argument(
            "--threads", type=int, default=min(threads, cores()), help="threads of each contestant"
        )
    if rounds is not None:
        it.add_argument("--rounds", type=int, default=rounds, help="rounds of each contestant")
        it.add_argument("--seconds", type=float, default=seconds, help="length of a round")
    return it


def race_parser(
    doc: str | None, *, rounds: int = 3, seconds: float = 0.02, dtypes: Sequence[str] = ("float32",)
) -> argparse.ArgumentParser:
    """`parser` for scripts whose libraries race over many cases."""
    it = parser(doc, threads=2, rounds=rounds, seconds=seconds)
    it.add_argument("--quick", action="store_true", help="a few small cases, short rounds: seconds in all")
    it.add_argument("--best", action="store_true", help="fastest rounds, not medians: for a busy machine")
    it.add_argument("--dtypes", nargs="+", default=list(dtypes), metavar="DTYPE")
    it.add_argument("--only", nargs="+", metavar="WORD", help="only cases whose name holds one of these")
    it.add_argument("--without", nargs="+", metavar="LIBRARY", help="leave out peers: torch, jax, ...")
    return it


def race_options(it: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line; ``--quick`` makes rounds short."""
    options = it.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 0.002
    return options


def chosen(names: Sequence[str], options: argparse.Namespace) -> list[str]:
    """The cases that ``--only`` asks for."""
    words = options.only
    return [name for name in names if words is None or any(word in name for word in words)]


class Report:
    """Prints what was measured and where; collects the same for ``--json``. Use as a context manager."""

    def __init__(self, title: str, options: argparse.Namespace, *, dtype: str, packages: Sequence[str] = ()):
        self.options = options
        self.figures: dict[str, Any] = {
            "title": title,
            "dtype": dtype,
            "threads": getattr(options, "threads", None),
        }
        packages = ("fastgrad", "numpy", "numba", "llvmlite", *packages)
        self.figures["versions"] = {name: version(name) for name in packages}
        self.figures["machine"] = machine()

    def __enter__(self) -> Report:
        figures = self.figures
        versions = ", ".join(f"{k} {v}" for k, v in figures["versions"].items() if v)
        print(f"{figures['title']}\n{figures['machine']}\nPython {platform.python_version()}, {versions}")
        threads = figures["threads"]
        print(figures["dtype"] + (f", threads: {threads}" if threads else ""))
        average = figures["load_start"] = load()
        print(
            f"load average at start {average:.2f}"
            + (" - NOT QUIET, figures are only indicative" * (average > QUIET_LOAD))
        )
        print(flush=True)
        self._start, self._watch = perf_counter(), Watch(own_cpu)
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        if kind is not None:
            return
        wall = perf_counter() - self._start
        print(f"\n{wall:.0f} s; load average at end {load():.2f} (this run included)", end="")
        self.figures |= {"load_end": load(), "wall_s": wall}
        others = self._watch.others()
        if others is not None:
            self.figures["others_cores"] = others
            noisy = " - NOT QUIET" * (others > QUIET_OTHERS)
            print(f"; other processes used {others:.2f} cores{noisy}", end="")
        print()
        if self.options.json == "-":
            print(json.dumps(self.figures))
        elif self.options.json:
            Path(self.options.json).write_text(json.dumps(self.figures, indent=1), encoding="utf-8")

    def table(self, name: str, rows: Sequence[dict[str, Any]], note: str = "") -> None:
        """Print ``rows`` (equal keys) under ``name`` and keep them."""
        self.figures.setdefault("tables", {})[name] = list(rows)
        heads = list(rows[0])
        cells = [[_cell(row[h]) for h in heads] for row in rows]
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        numeric = [all(isinstance(row[h], int | float | None) for row in rows) for h in heads]
        print(name)
        for line in [heads, *cells]:
            parts = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, numeric, strict=True)]
            print("  " + "  ".join(parts).rstrip())
        print(f"  {note}\n" if note else "", flush=True)

    def verdict(self, what: str, value: float, limit: float, unit: str = "", *, least: bool = False) -> None:
        """One line: a figure beside the figure it should not exceed, or (``least``) not stay below."""
        answer = "met" if (value >= limit if least else value <= limit) else "MISSED"
        bound = "least" if least else "most"
        found = {"what": what, "value": value, "limit": limit, "bound": bound}
        self.figures.setdefault("verdicts", []).append(found)
        print(f"  {what}: {value:.3g}{unit}, wanted at {bound} {limit:g}{unit}: {answer}", flush=True)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"
