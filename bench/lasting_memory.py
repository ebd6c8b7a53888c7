"""Memory for good: a million calls, a thousand shapes, a thousand functions compiled and dropped.

The functions come in two kinds. "equal": a new Python function each, all of one structure, so that kernels are shared.
"unequal": no two of one structure, so that each compiles kernels of its own; those compile in processes that retire, and
their code is unloaded once nobody holds it. "growth" is from half of the way to its end.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from common import Report, parser
from steady_memory import resident

import fastgrad as fg
from fastgrad.codegen import compile as compiler
from fastgrad.signatures import LIMIT

OPS: tuple[Callable[[Any], Any], ...] = (np.tanh, np.exp, np.sqrt, np.abs, np.square, np.negative, np.log1p)


def calls() -> Iterator[None]:
    """One gradient again and again."""
    gradient, x = fg.grad(lambda x: np.tanh(x).sum()), np.linspace(0.0, 1.0, 8)
    while True:
        gradient(x)
        yield


def shapes() -> Iterator[None]:
    """One gradient on array after array of another shape."""
    gradient = fg.grad(lambda x: (np.tanh(x) * x).sum())
    n = 0
    while True:
        n += 1
        gradient(np.ones((3, n)))
        yield


def equal_functions() -> Iterator[None]:
    """A new function each time, of one structure."""
    x = np.linspace(0.0, 1.0, 8)
    while True:
        fg.grad(lambda x: np.tanh(x * 2.0).sum())(x)
        yield


def unequal_functions() -> Iterator[None]:
    """A new function each time, of a structure of its own: its number in base 7 says which ops follow each other."""
    x, n = np.linspace(0.1, 1.0, 8), 0
    while True:
        n += 1

        def f(x: Any, digits: str = np.base_repr(n, len(OPS))) -> Any:
            for digit in digits:
                x = OPS[int(digit)](x)
            return x.sum()

        fg.grad(f)(x)
        yield


def main() -> None:
    """Measure and print."""
    it = parser(__doc__)
    it.add_argument("--calls", type=int, default=1_000_000, metavar="N", help="default: %(default)s")
    it.add_argument(
        "--others", type=int, default=1_000, metavar="N", help="shapes, functions; default: %(default)s"
    )
    options = it.parse_args()
    jobs = {
        "calls": (calls, options.calls),
        "shapes": (shapes, options.others),
        "equal functions": (equal_functions, options.others),
        "unequal functions": (unequal_functions, options.others),
    }
    with Report("memory for good", options, dtype="float64") as report:
        rows = []
        for name, (make, count) in jobs.items():
            turn, seen, before = make(), [], dict(compiler.counts)
            # Warm up past every bound: signatures of a function, kernels that stay loaded.
            for _ in range(max(LIMIT, compiler.KEPT) + 50):
                next(turn)
            for mark in (0, count // 4, count // 2, count * 3 // 4, count):
                for _ in range(mark - (seen[-1][0] if seen else 0)):
                    next(turn)
                gc.collect()
                seen.append((mark, resident()))
            row: dict[str, Any] = {"what": name}
            row |= {f"MiB at {i}/4": round(kib / 1024, 1) for i, (_, kib) in enumerate(seen)}
            row["KiB each"] = round((seen[-1][1] - seen[0][1]) / count, 3)
            row["compiled"] = compiler.counts["compiled"] - before.get("compiled", 0)
            rows.append(row)
            report.table(name, [row])
        report.figures["tables"]["all"] = rows


if __name__ == "__main__":
    main()
