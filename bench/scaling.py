"""Scaling: five models on one thread and on two; a perceptron's step against its layers, its width and its batch.

The sweeps start from 4 layers of 128 and batch 64 and change one of the three. GF/s count the products alone. float32, Adam,
against PyTorch eager and JAX.
"""

from __future__ import annotations

from typing import Any

import training
from bars import BARS
from common import Report, chosen, race_options, race_parser
from race import OURS, Race, standing
from training import FIRST_WITHIN, MODELS, model_of

LAYERS, WIDTHS, BATCHES = (1, 2, 4, 8, 16), (16, 32, 64, 128, 256, 512), (1, 8, 32, 64, 128, 512)
SWEEPS = {
    "layers": [f"mlp {'-'.join(['128'] * (n + 1))} b64" for n in LAYERS],
    "width": [f"mlp {'-'.join([str(n)] * 5)} b64" for n in WIDTHS],
    "batch": [f"mlp 128-128-128-128-128 b{n}" for n in BATCHES],
}
QUICK = ("mlp 128-128 b64",)
LIBRARIES = (OURS, "torch", "jax")


def shape(name: str) -> str:
    """A sweep's network in few words."""
    model = model_of(name)
    return f"{len(model.sizes) - 1} x {model.sizes[0]}, batch {model.rows}"


def step(race: Race, name: str, dtype: str) -> dict[str, float]:
    """Microseconds of a step, by library."""
    return race.run(f"{name} | {dtype}", FIRST_WITHIN[dtype])[0]


def threads(report: Report, options: Any, dtype: str) -> None:
    """One thread against as many as asked for."""
    names = chosen(list(BARS), options)
    counts = sorted({1, options.threads})
    times: dict[int, dict[str, dict[str, float]]] = {}
    for count in counts if names else ():
        with Race(training.__file__, LIBRARIES, count, options) as race:
            times[count] = {name: step(race, name, dtype) for name in names}
            libraries = race.libraries
            race.print_failures()
    rows = []
    for name in names:
        row: dict[str, Any] = {"model": MODELS[name].title}
        for library in libraries:
            found = [times[count][name].get(library) for count in counts]
            row |= {f"{library} us, {count}": us for count, us in zip(counts, found, strict=True)}
            row[f"{library} gain"] = found[0] / found[-1] if found[0] and found[-1] else None
        rows.append(row)
    if rows:
        report.table(f"threads {' -> '.join(map(str, counts))}, {dtype}", rows)


def sweeps(report: Report, options: Any, dtype: str) -> None:
    """Step time against layers, width and batch."""
    found: dict[str, dict[str, Any]] = {}
    with Race(training.__file__, LIBRARIES, options.threads, options) as race:
        for what, all_names in SWEEPS.items():
            names = [n for n in all_names if n in QUICK or not options.quick]
            rows = []
            for name in chosen(names, options):
                times = step(race, name, dtype)
                row: dict[str, Any] = {"network": shape(name)}
                row |= {f"{n} us": times.get(n) for n in race.libraries}
                if OURS in times:
                    row["fastgrad GF/s"] = model_of(name).flops / times[OURS] / 1e3
                    row |= {f"{n}/ours": us / times[OURS] for n, us in times.items() if n != OURS}
                rows.append(row)
                found[f"{what} {shape(name)}"] = row
            if rows:
                report.table(f"step against {what}, {dtype}, threads: {race.threads}", rows)
        standing(report, found)
        race.print_failures()


def main() -> None:
    """Measure and print."""
    options = race_options(race_parser(__doc__))
    with Report("scaling", options, dtype=", ".join(options.dtypes), packages=("torch", "jax")) as report:
        for dtype in options.dtypes:
            if not options.quick and options.threads > 1:
                threads(report, options, dtype)
            sweeps(report, options, dtype)


if __name__ == "__main__":
    main()
