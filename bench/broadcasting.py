"""Broadcasting: rows, columns, outer products, scalars, diamonds; and inner extents from 1 to 64. G elements a second.

Each expression has a few cheap operations, so that what is seen is how operands are walked. In cache (2^16 elements) and out
(2^22), float32 by default, against NumPy, PyTorch and JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from common import Report, chosen, race_options, race_parser
from expressions import Expression, contestants, drawn, tolerance
from race import OURS, Race, row, serving, standing

Shapes = tuple[tuple[int, ...], ...]
PATTERNS: dict[str, tuple[Callable[..., Any], Callable[[int, int], Shapes]]] = {
    "row: x * r + r": (lambda lib, x, r: x * r + r, lambda m, n: ((m, n), (n,))),
    "column: x * c + c": (lambda lib, x, c: x * c + c, lambda m, n: ((m, n), (m, 1))),
    "both: (x - c) * r": (lambda lib, x, c, r: (x - c) * r, lambda m, n: ((m, n), (m, 1), (n,))),
    "outer: c * r": (lambda lib, c, r: c * r, lambda m, n: ((m, 1), (n,))),
    "scalar: x * 2 + 1": (lambda lib, x: x * 2.0 + 1.0, lambda m, n: ((m, n),)),
    "0-d: x * s": (lambda lib, x, s: x * s, lambda m, n: ((m, n), ())),
    "diamond: (x + r) * (x - c)": (
        lambda lib, x, r, c: (x + r) * (x - c), lambda m, n: ((m, n), (n,), (m, 1))),
    "diamond through a sum: x - mean(x, 1)": (
        lambda lib, x: x - lib.mean(x, axis=1)[:, None], lambda m, n: ((m, n),)),
    "middle: x[a, b, c] + y[a, 1, c]": (
        lambda lib, x, y: x + y, lambda m, n: ((m // 16, 16, n), (m // 16, 1, n))),
    "transposed: x + y.T": (lambda lib, x, y: x + y.T, lambda m, n: ((m, n), (n, m))),
}  # fmt: skip
PLACES = {"in cache": (256, 256), "out of cache": (2048, 2048)}
EXTENTS = (1, 2, 3, 4, 5, 7, 8, 10, 13, 16, 17, 24, 32, 33, 48, 64)
INNER = {
    "row: x * r + r": PATTERNS["row: x * r + r"],
    "column: x * c + c": PATTERNS["column: x * c + c"],
    "both: (x - c) * r": PATTERNS["both: (x - c) * r"],
    "strided: x[:, :-1] * 2": (lambda lib, x: x[:, :-1] * 2.0 + 1.0, lambda m, n: ((m, n + 1),)),
}
ELEMENTS = 2**16
LIBRARIES = (OURS, "numpy", "torch", "jax")


def _case(pattern: tuple[Any, Any], m: int, n: int, dtype: str) -> Expression:
    f, shapes = pattern
    return Expression(f, drawn(*shapes(m, n), dtype=dtype), m * n, tolerance(dtype))


CASES = {
    f"{name} {dtype} {place}": _case(pattern, *PLACES[place], dtype)
    for (name, pattern), dtype, place in product(PATTERNS.items(), ("float32", "float64"), PLACES)
} | {
    f"{name} {dtype} inner {n}": _case(pattern, ELEMENTS // n, n, dtype)
    for (name, pattern), dtype, n in product(INNER.items(), ("float32", "float64"), EXTENTS)
}
CONTESTANTS = contestants(CASES)


def main() -> None:
    """Measure and print."""
    options = race_options(race_parser(__doc__))
    if options.quick:
        options.only = options.only or ["float32 inner 5"]
    with (
        Report("broadcasting", options, dtype=", ".join(options.dtypes), packages=("torch", "jax")) as report,
        Race(__file__, LIBRARIES, options.threads, options) as race,
    ):
        found: dict[str, dict[str, Any]] = {}
        for dtype in options.dtypes:
            groups = [*PLACES, *(f"{name} {dtype} inner" for name in INNER)]
            for group in groups:
                names = [
                    n for n in CASES if f" {dtype} " in n and (n.endswith(f" {group}") or n.startswith(group))
                ]
                rows = {
                    n: row(race, n, CASES[n].within, CASES[n].work, "G/s") for n in chosen(names, options)
                }
                if rows:
                    table = [{"pattern": n} | cells for n, cells in rows.items()]
                    report.table(f"{group}, {dtype}, threads: {race.threads}", table)
                found |= rows
        standing(report, found)
        race.print_failures()


if __name__ == "__main__" and not serving(CONTESTANTS):
    main()
