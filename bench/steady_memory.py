"""Memory of 10,000 training steps and 10,000 jitted calls: flat after the first ones.

Two passes over each: resident size without tracemalloc, which itself allocates; then the traced memory of Python.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import NETWORKS, Report, batch, loss, parameters, parser

import fastgrad as fg

MARKS = (10, 100, 1_000, 10_000)
"""Figures are read after so many calls; growth counts from the second on."""


def resident() -> float:
    """Resident size in KiB; the peak where the current one cannot be read."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024
    return peak_resident()


def peak_resident() -> float:
    """Largest resident size so far in KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform == "darwin" else float(peak)


def follow(call: Callable[[], Any], read: Callable[[], float]) -> list[float]:
    """What ``read`` says after each mark."""
    done, seen = 0, []
    for mark in MARKS:
        for _ in range(mark - done):
            call()
        done = mark
        gc.collect()
        seen.append(read())
    return seen


def traced(call: Callable[[], Any]) -> tuple[list[float], float]:
    """Python's memory in KiB after each mark, and the highest between the second and the last."""
    tracemalloc.start()
    for _ in range(MARKS[1]):
        call()
    tracemalloc.reset_peak()
    now = follow(call, lambda: tracemalloc.get_traced_memory()[0] / 1024)
    peak = tracemalloc.get_traced_memory()[1] / 1024
    tracemalloc.stop()
    return now, peak


def main() -> None:
    """Measure and print."""
    it = parser(__doc__, threads=2)
    it.add_argument("--network", choices=NETWORKS, default="64-32-10 b32", metavar="NAME")
    options = it.parse_args()
    sizes, count = NETWORKS[options.network]
    x, labels = batch(sizes, count)
    params = parameters(sizes)
    step = fg.TrainStep(loss, params, fg.optim.Adam(1e-8), threads=options.threads)
    value, both = fg.jit(loss, threads=options.threads), fg.value_and_grad(loss, threads=options.threads)
    calls = {
        "training step": lambda: step(x, labels),
        "step.run, one epoch of a batch": lambda: step.run(x, labels, batch_size=count, shuffle=0),
        "jit(loss)": lambda: value(params, x, labels),
        "value_and_grad(loss)": lambda: both(params, x, labels),
    }
    title = f"memory over {MARKS[-1]:,} calls, {options.network}"
    with Report(title, options, dtype="float32") as report:
        rows = []
        for name, call in calls.items():
            call()
            for what, (seen, peak) in {
                "resident": (follow(call, resident), peak_resident()),
                "tracemalloc": traced(call),
            }.items():
                row = {"calls": name, "KiB": what}
                row |= {f"after {mark:,}": round(seen[i], 1) for i, mark in enumerate(MARKS)}
                rows.append(row | {"peak": round(peak, 1), "growth": round(seen[-1] - seen[1], 1)})
        report.table("memory", rows, f"growth: from call {MARKS[1]} to call {MARKS[-1]:,}")
        for what, limit in (("resident", 256.0), ("tracemalloc", 8.0)):
            worst = max(row["growth"] for row in rows if row["KiB"] == what)
            report.verdict(f"largest growth, {what}", worst, limit, " KiB")


if __name__ == "__main__":
    main()
