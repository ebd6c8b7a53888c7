"""What the benchmarks share: the machine's line, fair rounds, contestants in processes of their own, tables.

A contestant is anything with ``round(seconds) -> microseconds a call``. `Local` calls a function here; `Remote` asks a
process of its own, which sleeps on a pipe between its rounds, so that no two libraries' threads ever fight.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from itertools import pairwise, repeat
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

# Before NumPy loads its BLAS: either variable pins it to another processor's kernels and falsifies every comparison.
for _name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(_name, None)

import numpy as np  # noqa: E402

NETWORKS = {
    "64-32-10 b32": ((64, 32, 10), 32),
    "64-128-64-10 b64": ((64, 128, 64, 10), 64),
    "784-512-512-10 b128": ((784, 512, 512, 10), 128),
}
"""Layer sizes and batch size of the three multilayer perceptrons that the figures are about."""
QUIET = 0.5
"""A load average at the start above this means that somebody else is using the cores."""
PAUSE = 0.03
"""Seconds between two rounds: idle threads stop spinning, so that one contestant's do not slow the next."""


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# -- command line and report -------------------------------------------------------------------------------------------


def parser(
    doc: str | None, *, threads: int | None = None, rounds: int | None = None
) -> argparse.ArgumentParser:
    """The arguments that every script takes; ``threads`` and ``rounds`` are defaults, None where without meaning."""
    it = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    it.add_argument("--json", action="store_true", help="also print all figures as JSON, as the last line")
    if threads is not None:
        it.add_argument(
            "--threads", type=int, default=min(threads, cores()), help="threads of each contestant"
        )
    if rounds is not None:
        it.add_argument("--rounds", type=int, default=rounds, help="rounds of each contestant")
        it.add_argument("--seconds", type=float, default=0.15, help="length of a round")
    return it


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
        self.figures["versions"] = {name: _version(name) for name in packages}
        self.figures["machine"] = machine()

    def __enter__(self) -> Report:
        figures = self.figures
        versions = ", ".join(f"{k} {v}" for k, v in figures["versions"].items() if v)
        print(f"{figures['title']}\n{figures['machine']}\nPython {platform.python_version()}, {versions}")
        threads = figures["threads"]
        print(figures["dtype"] + (f", threads: {threads}" if threads else ""))
        load = figures["load_start"] = _load()
        print(
            f"load average at start {load:.2f}"
            + (" - NOT QUIET, figures are only indicative" * (load > QUIET))
        )
        print(flush=True)
        self._start = perf_counter(), _busy(), _own()
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        if kind is not None:
            return
        wall = perf_counter() - self._start[0]
        print(f"\n{wall:.0f} s; load average at end {_load():.2f} (this run included)", end="")
        self.figures |= {"load_end": _load(), "wall_s": wall}
        if self._start[1] is not None:
            others = max(0.0, (_busy() - self._start[1]) - (_own() - self._start[2])) / wall
            self.figures["others_cores"] = others
            print(f"; other processes used {others:.2f} cores" + " - NOT QUIET" * (others > 0.1), end="")
        print()
        if self.options.json:
            print(json.dumps(self.figures))

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

    def verdict(self, what: str, value: float, limit: float, unit: str = "") -> None:
        """One line: a figure beside the figure it should not exceed."""
        answer = "met" if value <= limit else "MISSED"
        self.figures.setdefault("verdicts", []).append({"what": what, "value": value, "limit": limit})
        print(f"  {what}: {value:.3g}{unit}, wanted at most {limit:g}{unit}: {answer}", flush=True)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> str:
    """Processor, cores and the widest vector instructions, in one line."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    said = {key.strip(): value.strip() for key, value in fields.items()}
    name = said.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in said:
        name += f" (family {said['cpu family']}, model {said.get('model')})"
    flags = said.get("flags", "").split()
    vectors = [f for f in ("avx2", "avx512f", "avx512_bf16") if f in flags]
    return ", ".join([name, f"{cores()} cores", *vectors, platform.platform(terse=True)])


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        module = sys.modules.get(package)
        return getattr(module, "__version__", None)


def _load() -> float:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _busy() -> float | None:
    """Processor seconds that the machine has spent on anything at all; None where that cannot be read."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system = map(int, stat.read_text().split(maxsplit=4)[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    return sum(os.times()[:4])


# -- measuring ---------------------------------------------------------------------------------------------------------


def timed(call: Callable[[], Any], seconds: float) -> float:
    """Microseconds a call: the mean over about ``seconds``, after a tenth of that unmeasured."""
    count, start = 0, perf_counter()
    while (spent := perf_counter() - start) < seconds / 10:
        call()
        count += 1
    trips = max(1, round(seconds * count / spent))
    start = perf_counter()
    for _ in repeat(None, trips):
        call()
    return (perf_counter() - start) / trips * 1e6


class Local:
    """A contestant in this process."""

    def __init__(self, call: Callable[[], Any]):
        self._call = call

    def round(self, seconds: float) -> float:
        """One round: microseconds a call."""
        return timed(self._call, seconds)


class Remote:
    """A contestant in a process of its own: ``python SCRIPT --contestant ...``, which must call `serve`.

    ``threads`` bounds it from outside as well: it may run on so many cores only. Attributes: ``said``, what the
    contestant told after its first call; ``skipped``, the reason why it does not take part, or None.
    """

    def __init__(self, script: str, *arguments: str, threads: int, env: dict[str, str] | None = None):
        fixed = {"OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, script, "--contestant", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | fixed | (env or {}),
            preexec_fn=_pin(threads),
        )
        self.said = self._answer()
        self.skipped: str | None = self.said.get("skipped")

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"skipped": f"died with status {self._process.wait()}"}

    def round(self, seconds: float) -> float:
        """One round: microseconds a call."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self._answer()["us"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _pin(threads: int) -> Callable[[], None] | None:
    if not hasattr(os, "sched_setaffinity") or threads >= cores():
        return None
    chosen = sorted(os.sched_getaffinity(0))[:threads]
    return lambda: os.sched_setaffinity(0, chosen)


def serve(make: Callable[[], Callable[[], Any]]) -> None:
    """The contestant's side of `Remote`: ``make()`` sets up, ``make()()`` is one call, which returns a number.

    Tells seconds to set up and call once (imports apart, if they stand outside ``make``) and what the call returned.
    """
    pipe, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints must not reach the pipe

    def tell(**what: Any) -> None:
        print(json.dumps(what), file=pipe, flush=True)

    start = perf_counter()
    call = make()
    value = float(call())
    tell(first_s=perf_counter() - start, value=value)
    gc.collect()
    for line in sys.stdin:
        tell(us=timed(call, float(line)))


def skip(reason: str) -> None:
    """The contestant's side of `Remote`: it does not take part."""
    print(json.dumps({"skipped": reason}), flush=True)


def compete(contestants: dict[str, Any], rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """``rounds`` of each contestant, alternating, each round beginning with another: median, min and max."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            time.sleep(PAUSE)
            times[name].append(contestants[name].round(seconds))
    return {name: {"median": median(t), "min": min(t), "max": max(t)} for name, t in times.items()}


# -- the networks ------------------------------------------------------------------------------------------------------


def parameters(sizes: Sequence[int], dtype: Any = np.float32, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Weights ``w [in, out]`` by He et al. 2015 and zero biases ``b [out]``, one dict a layer."""
    rng = np.random.default_rng(seed)
    weights = [(rng.standard_normal(pair) * np.sqrt(2 / pair[0])).astype(dtype) for pair in pairwise(sizes)]
    return [{"w": w, "b": np.zeros(w.shape[1], dtype)} for w in weights]


def batch(
    sizes: Sequence[int], rows: int, dtype: Any = np.float32, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Random ``x[rows, in]`` and integer labels."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, sizes[0])).astype(dtype), rng.integers(0, sizes[-1], rows)


def loss(params: Sequence[dict[str, Any]], x: Any, labels: Any) -> Any:
    """Cross-entropy of a multilayer perceptron with ReLU, in fastgrad's words."""
    from fastgrad.nn import functional as F

    for layer in params[:-1]:
        x = F.relu(x @ layer["w"] + layer["b"])
    return F.cross_entropy(x @ params[-1]["w"] + params[-1]["b"], labels)
