"""One gradient by backprop against forward finite differences, for two-layer tanh networks of 10^2 to 10^5 parameters.

Both sides run compiled. Differences need one evaluation a parameter and one more; where that takes too long, a sample of
the parameters is evaluated and the time extrapolated, which the table says.
"""

from __future__ import annotations

import argparse
from time import perf_counter
from typing import Any

import numpy as np
from common import Report, parser

import fastgrad as fg
from fastgrad.bench.timing import timed

INPUTS, ROWS = 10, 32
EPSILON = 1e-7
"""About the root of float64's precision: truncation and rounding of a forward difference then weigh the same."""


def loss(theta: Any, x: Any, target: Any) -> Any:
    """Mean squared error of ``tanh(x @ w1 + b1) @ w2 + b2``, its parameters in one vector."""
    hidden = (theta.shape[0] - 1) // (INPUTS + 2)
    cut = np.cumsum([INPUTS * hidden, hidden, hidden])
    w1 = theta[: cut[0]].reshape(INPUTS, hidden)
    out = np.tanh(x @ w1 + theta[cut[0] : cut[1]]) @ theta[cut[1] : cut[2]] + theta[cut[2]]
    return np.mean((out - target) ** 2)


def row(hidden: int, options: argparse.Namespace) -> dict[str, Any]:
    """Both gradients of one network, their times and their distance."""
    rng = np.random.default_rng(hidden)
    count = (INPUTS + 2) * hidden + 1
    theta = rng.standard_normal(count) / np.sqrt(hidden)
    x, target = rng.standard_normal((ROWS, INPUTS)), rng.standard_normal(ROWS)
    f, g = fg.jit(loss, threads=options.threads), fg.grad(loss, threads=options.threads)
    base, gradient = float(f(theta, x, target)), g(theta, x, target)
    backprop = timed(lambda: g(theta, x, target), options.seconds)
    chosen = np.unique(np.linspace(0, count - 1, min(count, options.sample)).astype(int))
    differences = np.empty(len(chosen))
    start = perf_counter()
    for k, i in enumerate(chosen):
        kept = theta[i]
        theta[i] = kept + EPSILON
        differences[k] = (float(f(theta, x, target)) - base) / EPSILON
        theta[i] = kept
    seconds = (perf_counter() - start) / len(chosen) * (count + 1)
    return {
        "parameters": count,
        "backprop us": backprop,
        "differences us": seconds * 1e6,
        "ratio": seconds * 1e6 / backprop,
        "evaluated": "all" if len(chosen) == count else f"{len(chosen)}, extrapolated",
        "max |gradient|": float(np.abs(gradient).max()),
        "max distance": float(np.abs(gradient[chosen] - differences).max()),
    }


def main() -> None:
    """Measure and print."""
    it = parser(__doc__, threads=2)
    it.add_argument("--seconds", type=float, default=0.3, help="time spent on each backprop figure")
    it.add_argument("--sample", type=int, default=10_000, help="most parameters to evaluate")
    options = it.parse_args()
    with Report("backprop against forward differences", options, dtype="float64") as report:
        rows = [row(hidden, options) for hidden in (8, 83, 833, 8333)]
        report.table("one gradient", rows)
        ratios = [r["ratio"] for r in rows]
        print(f"  the ratio grows with the parameter count: {'yes' if ratios == sorted(ratios) else 'NO'}")


if __name__ == "__main__":
    main()
