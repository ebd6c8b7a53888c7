"""Elementwise gradients that memory bounds: GB/s of what must be moved, in percent of what a copy in the same race moves.

What must be moved is each input once and each gradient once. Arrays of 64 MB each lie out of cache. Against PyTorch, eager
and compiled, and JAX; the bar is 80% of the copy bandwidth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common import Report, chosen, race_options, race_parser
from expressions import Expression, contestants, drawn, tolerance
from race import COPY, OURS, Race, geometric_mean, row, serving, standing

GRADIENTS: dict[str, tuple[Callable[..., Any], int, tuple[int, ...]]] = {
    "x^3, dx": (lambda lib, x: x * x * x, 1, (0,)),
    "relu(x)^2, dx": (lambda lib, x: lib.maximum(x, 0.0 * x) ** 2, 1, (0,)),
    "(x - y)^2, dx": (lambda lib, x, y: (x - y) ** 2, 2, (0,)),
    "(x - y)^2, dx dy": (lambda lib, x, y: (x - y) ** 2, 2, (0, 1)),
    "huber(x - y), dx": (lambda lib, x, y: _huber(lib, x - y), 2, (0,)),
    "x * y * z, dx dy dz": (lambda lib, x, y, z: x * y * z, 3, (0, 1, 2)),
    "x / sqrt(1 + y^2), dx dy": (lambda lib, x, y: x / lib.sqrt(1.0 + y * y), 2, (0, 1)),
    "tanh(x) * y, dx dy": (lambda lib, x, y: lib.tanh(x) * y, 2, (0, 1)),
}
BYTES = {"64 MB": 2**26, "256 KB": 2**18}
PEERS = ("torch", "torch-compile", "jax")


def _huber(lib: Any, r: Any) -> Any:
    size = lib.abs(r)
    return lib.where(size < 0.5, r * r, size - 0.25)


def _case(name: str, dtype: str, nbytes: int) -> Expression:
    f, inputs, wrt = GRADIENTS[name]
    n = nbytes // (8 if dtype == "float64" else 4)
    # The gradient of a product by x does not read x, but somebody's gradient does: all inputs count.
    return Expression(
        f, drawn(*[(n,)] * inputs, dtype=dtype), nbytes * (inputs + len(wrt)), tolerance(dtype), wrt
    )


CASES = {
    f"{name} {dtype} {place}": _case(name, dtype, nbytes)
    for name in GRADIENTS
    for dtype in ("float32", "float64")
    for place, nbytes in BYTES.items()
}
CONTESTANTS = contestants(CASES)


def main() -> None:
    """Measure and print."""
    options = race_options(race_parser(__doc__))
    libraries = (OURS, COPY, "torch", "jax") if options.quick else (OURS, COPY, *PEERS)
    if options.quick:
        options.only = options.only or ["x^3, dx float32 256 KB"]
    title, kinds = "elementwise gradients", ", ".join(options.dtypes)
    with (
        Report(title, options, dtype=kinds, packages=("torch", "jax")) as report,
        Race(__file__, libraries, options.threads, options) as race,
    ):
        found: dict[str, dict[str, Any]] = {}
        for dtype in options.dtypes:
            for place in BYTES:
                names = chosen([f"{name} {dtype} {place}" for name in GRADIENTS], options)
                if not names:
                    continue
                rows = {n: row(race, n, CASES[n].within, CASES[n].work, "GB/s") for n in names}
                table = [{"gradient of": n} | cells for n, cells in rows.items()]
                report.table(f"{place}, {dtype}, threads: {race.threads}", table)
                found |= rows
                parts = [cells["% of copy"] for cells in rows.values() if cells.get("% of copy")]
                if place == "64 MB" and parts:
                    report.verdict(f"{dtype} out of cache, worst", min(parts), 80.0, "%", least=True)
                    report.verdict(
                        f"{dtype} out of cache, mean", geometric_mean(parts), 80.0, "%", least=True
                    )
        standing(report, found)
        race.print_failures()


if __name__ == "__main__" and not serving(CONTESTANTS):
    main()
