"""Reductions over each axis of arrays in cache and out: GB/s of what is read, beside the measured read and copy bandwidth.

Against NumPy, PyTorch and JAX, and a copy in the same race that moves as many bytes, half of them read and half written:
out of cache the bar is 80% of what that moves.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import peaks
from common import Report, chosen, race_options, race_parser
from expressions import Expression, contestants, drawn, tolerance
from race import COPY, OURS, Race, geometric_mean, row, serving, standing

SHAPES = {
    "in cache": {"float32": [(256, 256), (32, 64, 32)], "float64": [(256, 128), (32, 32, 32)]},
    "out of cache": {"float32": [(4096, 4096), (256, 256, 256)], "float64": [(4096, 2048), (256, 128, 256)]},
}
AXES = {2: [(0,), (1,), (0, 1)], 3: [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]}
KINDS = ("sum", "amax", "mean")
LIBRARIES = (OURS, COPY, "numpy", "torch", "jax")


def _reduction(kind: str, dtype: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> Expression:
    size = 8 if dtype == "float64" else 4
    for extent in shape:
        size *= extent

    def f(lib: Any, x: Any) -> Any:
        return getattr(lib, kind)(x, axis=axes)

    def torch_names(lib: Any, x: Any) -> Any:  # its amax says dim, its sum either
        return lib.amax(x, axes)

    return Expression(torch_names if kind == "amax" else f, drawn(shape, dtype=dtype), size, tolerance(dtype))


CASES = {
    f"{kind} {dtype} {'x'.join(map(str, shape))} axes {','.join(map(str, axes))}": (
        place, _reduction(kind, dtype, shape, axes),
    )
    for place, by_dtype in SHAPES.items()
    for dtype, shapes in by_dtype.items()
    for shape in shapes
    for axes, kind in product(AXES[len(shape)], KINDS)
}  # fmt: skip
CONTESTANTS = contestants({name: expression for name, (_, expression) in CASES.items()})


def main() -> None:
    """Measure and print."""
    options = race_options(race_parser(__doc__))
    if options.quick:
        options.only = options.only or [" 256x256 axes"]
    with (
        Report("reductions", options, dtype=", ".join(options.dtypes), packages=("torch", "jax")) as report,
        Race(__file__, LIBRARIES, options.threads, options) as race,
    ):
        found: dict[str, dict[str, Any]] = {}
        for place, dtype in product(SHAPES, options.dtypes):
            names = [n for n, (p, _) in CASES.items() if p == place and f" {dtype} " in n]
            names = chosen(names, options)
            if not names:
                continue
            nbytes = int(CASES[names[0]][1].work)
            read = peaks.reads(nbytes, race.threads)
            rows = {n: row(race, n, CASES[n][1].within, CASES[n][1].work, "GB/s", read) for n in names}
            title = f"{place}, {dtype}, threads: {race.threads}: read {read:.0f} GB/s"
            report.table(
                title, [{"reduction": n} | cells for n, cells in rows.items()], "% of the read bandwidth"
            )
            parts = [cells["% of copy"] for cells in rows.values() if cells.get("% of copy")]
            if place == "out of cache" and parts:
                report.verdict(f"{dtype} out of cache, worst, of a copy", min(parts), 80.0, "%", least=True)
                report.verdict(
                    f"{dtype} out of cache, mean, of a copy", geometric_mean(parts), 80.0, "%", least=True
                )
            found |= rows
        standing(report, found)
        race.print_failures()


if __name__ == "__main__" and not serving(CONTESTANTS):
    main()
