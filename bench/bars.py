"""The project's bars: training steps of five models against the best of PyTorch, torch.compile and JAX in the same run.

float32 on two threads and on one, float64 on two. The step of 1024x3, batch 512, is also set against the measured peak (it
has 8.62 GFLOP, the optimizer's not counted but timed) and against itself with ``precision="bfloat16"``.

A few minutes; `fastgrad bench --full` has all contestants, cold starts and memory.
"""

from __future__ import annotations

from typing import Any

import peaks
import training
from common import Report, chosen, race_options, race_parser
from race import OURS, TITLES, Race, geometric_mean
from training import BFLOAT16, FIRST_WITHIN, MODELS

BARS = {
    "mlp-64-32-10": 6.0,
    "mlp-64-128-64-10": 4.0,
    "mlp-784-512-512-10": 1.4,
    "mlp-1024x3": 1.05,
    "vae": 1.5,
}
"""Times as fast as the best peer, float32 on two threads."""
MEANS = {("float32", 2): 2.2, ("float32", 1): 2.0, ("float64", 2): 1.5}
LARGE, LARGE_GFLOP, LARGE_PERCENT = "mlp-1024x3", 8.62, 85.0
LARGE_BFLOAT16, BFLOAT16_WITHIN = 1.6, 3e-2
"""Times as fast as float32 with ``precision="bfloat16"``; how far the first losses may lie apart."""
PEERS = ("torch", "torch-compile", "jax")


def steps(report: Report, race: Race, dtype: str, options: Any) -> None:
    """A table of one dtype and number of threads, and its verdicts."""
    names = chosen([f"{name} {dtype} threads {race.threads}" for name in BARS], options)
    rows, ratios = [], []
    for name in (place.split()[0] for place in names):
        times, setup = race.run(f"{name} | {dtype}", FIRST_WITHIN[dtype])
        row: dict[str, Any] = {"model": MODELS[name].title}
        row |= {f"{TITLES[n]} us": times.get(n) for n in race.libraries}
        peers = {n: us for n, us in times.items() if n != OURS}
        best = min(peers, key=peers.__getitem__, default=None)
        ratio = peers[best] / times[OURS] if best and OURS in times else None
        asked = BARS[name] if (dtype, race.threads) == ("float32", 2) else None
        row |= {"best peer": TITLES[best] if best else "-", "best/ours": ratio, "asked": asked}
        if ratio is not None:
            ratios.append(ratio)
        rows.append(row | {f"set-up {n} s": s for n, s in setup.items()})
        if name == LARGE and dtype == "float32" and OURS in times:
            peak = peaks.flops(race.threads, dtype)
            percent = 100 * LARGE_GFLOP / times[OURS] * 1e6 / peak
            what = f"{LARGE}, threads: {race.threads}, of {peak:.0f} GF/s"
            report.verdict(what, percent, LARGE_PERCENT, "%", least=True)
    if not rows:
        return
    heads = list(dict.fromkeys(head for row in rows for head in row))
    rows = [{head: row.get(head) for head in heads} for row in rows]
    report.table(f"{dtype}, threads: {race.threads}, Adam", rows)
    for row in rows:
        if row["asked"] is not None and row["best/ours"] is not None:
            report.verdict(row["model"], row["best/ours"], row["asked"], "x", least=True)
    if ratios:
        asked = MEANS.get((dtype, race.threads), 1.0)
        what = f"geometric mean of {len(ratios)}, {dtype}, threads: {race.threads}"
        report.verdict(what, geometric_mean(ratios), asked, "x", least=True)
        print()


def bfloat16(report: Report, race: Race) -> None:
    """The large step in float32 and with products in bfloat16, by turns."""
    times, _ = race.run(f"{LARGE} | float32", BFLOAT16_WITHIN)
    if len(times) == 2:
        what = f"{LARGE}, threads: {race.threads}, bfloat16 {times[BFLOAT16]:.0f} us, float32 {times[OURS]:.0f} us"
        report.verdict(what, times[OURS] / times[BFLOAT16], LARGE_BFLOAT16, "x", least=True)


def main() -> None:
    """Measure and print."""
    it = race_parser(__doc__, rounds=5, seconds=0.15, dtypes=("float32", "float64"))
    options = race_options(it)
    libraries = (OURS, "torch", "jax") if options.quick else (OURS, *PEERS)
    if options.quick:
        options.only, options.dtypes = options.only or ["mlp-64-32-10 float32"], ["float32"]
    with Report("bars", options, dtype=", ".join(options.dtypes), packages=("torch", "jax")) as report:
        for dtype, threads in MEANS:
            if dtype in options.dtypes and threads <= options.threads:
                with Race(training.__file__, libraries, threads, options) as race:
                    steps(report, race, dtype, options)
                    race.print_failures()
            if dtype == "float32" and threads <= options.threads and chosen([f"{LARGE} bfloat16"], options):
                with Race(training.__file__, (OURS, BFLOAT16), threads, options) as race:
                    bfloat16(report, race)
                    race.print_failures()


if __name__ == "__main__":
    main()
