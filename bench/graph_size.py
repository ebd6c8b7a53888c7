"""What each stage costs an equation, for graphs of 200 to 20,000 equations in seven shapes; nothing is compiled or run.

Near-linear means that microseconds an equation stay what they are: the last table gives the slope of log(time) over
log(equations) between the two largest sizes, 1 when linear. Equations are those of the traced function; its joint graph has
one and a half to four times as many. Times are processor time of this thread, minima over a few rounds. Python's garbage
collector is off while stages are told apart (which of them a full collection falls in is chance); the column "with gc" is
all stages with it on. Its share grows until the graph outweighs all else in the process, then stays.
"""

from __future__ import annotations

import argparse
import gc
import math
from collections.abc import Callable, Sequence
from time import thread_time
from typing import Any

import numpy as np
from common import Report, parser

import fastgrad as fg
from fastgrad import autodiff, memory, passes
from fastgrad.core.aval import aval_of
from fastgrad.executor import tape
from fastgrad.memory import Location
from fastgrad.schedule import schedule
from fastgrad.trace import inline, trace

SIZES = (200, 1_000, 5_000, 20_000)
STAGES = ("trace", "autodiff", "inline", "passes", "schedule", "plan", "emit")
LIMIT = 1.15
"""The steepest slope that still counts as near-linear: a factor of 1.23 for four times the equations."""

Function = Callable[..., Any]


def f32(*shape: int) -> np.ndarray:
    """Zeros: no value matters here."""
    return np.zeros(shape, np.float32)


# -- the shapes: (function of flat arrays, arrays, how many of them to differentiate by) -----------------------------


def chain(n: int) -> tuple[Function, list[np.ndarray], int]:
    """Elementwise ops in a row on one array."""

    def f(x: Any) -> Any:
        y = x
        for i in range(n - 1):
            y = np.tanh(y) if i % 3 == 0 else y * 1.01 if i % 3 == 1 else y + x
        return y.sum()

    return f, [f32(64)], 1


def mlp(n: int) -> tuple[Function, list[np.ndarray], int]:
    """Equal layers: product, bias, relu."""
    layers = n // 3

    def f(*args: Any) -> Any:
        h = args[-1]
        for w, b in zip(args[:layers], args[layers:-1], strict=True):
            h = fg.nn.functional.relu(h @ w + b)
        return h.sum()

    return f, [f32(16, 16)] * layers + [f32(16)] * layers + [f32(8, 16)], 2 * layers


def wide_tree(n: int) -> tuple[Function, list[np.ndarray], int]:
    """Many parameters, each squared and summed; the losses added up pair by pair."""

    def f(*params: Any) -> Any:
        terms = [(p * p).sum() for p in params]
        while len(terms) > 1:
            paired = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
            terms = paired + terms[len(terms) & ~1 :]
        return terms[0]

    return f, [f32(32)] * (n // 3), n // 3


def wide_chain(n: int) -> tuple[Function, list[np.ndarray], int]:
    """The same, added up one after the other."""

    def f(*params: Any) -> Any:
        total = 0.0
        for p in params:
            total = total + (p * p).sum()
        return total

    return f, [f32(32)] * (n // 3), n // 3


def fan_out(n: int) -> tuple[Function, list[np.ndarray], int]:
    """One value that every third equation reads: its cotangents pile up."""

    def f(x: Any) -> Any:
        h = np.exp(x)
        total = h
        for i in range(n // 3):
            total = total + np.tanh(h * (1 + i / n))
        return total.sum()

    return f, [f32(64)], 1


def rnn(n: int) -> tuple[Function, list[np.ndarray], int]:
    """Time steps that share their weights."""
    steps = n // 7

    def f(w: Any, u: Any, b: Any, xs: Any) -> Any:
        h = xs[0] @ w
        for t in range(steps):
            h = np.tanh(xs[t] @ w + h @ u + b)
        return h.sum()

    return f, [f32(16, 16), f32(16, 16), f32(16), f32(steps, 8, 16)], 3


def moves(n: int) -> tuple[Function, list[np.ndarray], int]:
    """Reshapes, transposes, slices and concatenations between elementwise ops."""

    def f(x: Any) -> Any:
        for i in range(n // 6):
            a, b = x[:4], x[4:]
            x = np.concatenate([b, np.tanh(a)]) if i % 2 else np.concatenate([a * 1.5, b])
            x = x.reshape(4, 16).T.reshape(8, 8)
        return x.sum()

    return f, [f32(8, 8)], 1


SHAPES = {f.__name__: f for f in (chain, mlp, wide_tree, wide_chain, fan_out, rnn, moves)}


# -- measuring -------------------------------------------------------------------------------------------------------


def stages(f: Function, arrays: Sequence[np.ndarray], wrt: int) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds a stage for value and gradient of ``f``, and counts of what came out."""
    seconds: dict[str, float] = {}
    clock = thread_time()

    def lap(name: str) -> None:
        nonlocal clock
        now = thread_time()
        seconds[name], clock = now - clock, thread_time()

    avals = [aval_of(a) for a in arrays]
    clock = thread_time()
    graph = trace(lambda *xs: [f(*xs)], avals, name=f.__name__)
    lap("trace")
    joint = autodiff.vjp(graph, range(wrt))
    lap("autodiff")
    seeded = trace(lambda *xs: inline(joint, [*xs, np.float32(1)]), avals, name="value_and_grad")
    lap("inline")
    small = passes.run(seeded)
    lap("passes")
    steps = schedule(small)
    lap("schedule")
    inputs = [Location("input", i) for i in range(len(steps.inputs))]
    plan = memory.plan(steps, inputs, [Location("output", i) for i in range(len(steps.outputs))])
    lap("plan")
    built = tape.build([tape.Segment(plan)], threads=1)
    lap("emit")
    counts = {"equations": len(graph.eqns), "joint": len(small.eqns), "steps": len(plan.steps)}
    return seconds, counts | {"kernels": len(built.texts)}


def measure(name: str, sizes: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """A row a size: microseconds an equation of each stage and of all."""
    rows = []
    for n in sizes:
        f, arrays, wrt = SHAPES[name](n)
        runs, collected = [], []
        for _ in range(max(2, min(rounds, rounds * 2_000 // n))):
            gc.collect()
            collected.append(sum(stages(f, arrays, wrt)[0].values()))
            gc.collect()
            gc.disable()
            runs.append(stages(f, arrays, wrt))
            gc.enable()
        counts = runs[0][1]
        best = {s: min(seconds[s] for seconds, _ in runs) for s in STAGES}
        best |= {"all": sum(best.values()), "with gc": min(collected)}
        rows.append({"shape": name, **counts, **{s: t / counts["equations"] * 1e6 for s, t in best.items()}})
    return rows


def slopes(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Growth of each stage's whole time between the last two sizes."""
    a, b = rows[-2:]
    ratio = math.log(b["equations"] / a["equations"])
    return {s: 1 + math.log(b[s] / a[s]) / ratio for s in (*STAGES, "all", "with gc")}


def warm() -> None:
    """Imports and caches that the first graph of a process fills."""
    for make in SHAPES.values():
        stages(*make(60))


def main() -> None:
    """Measure and print."""
    it = parser(__doc__)
    it.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), help="shapes of graphs")
    it.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="equations, ascending")
    it.add_argument("--rounds", type=int, default=5, help="rounds at the small sizes")
    options: argparse.Namespace = it.parse_args()
    with Report("stages against graph size", options, dtype="float32") as report:
        warm()
        grown = []
        for name in options.shapes:
            rows = measure(name, options.sizes, options.rounds)
            report.table(f"{name}: microseconds an equation", rows)
            if len(rows) > 1:
                grown.append({"shape": name, **slopes(rows)})
        if grown:
            report.table("growth between the two largest sizes (1 is linear)", grown)
            report.verdict("steepest stage", max(row[s] for row in grown for s in STAGES), LIMIT)
            report.verdict("steepest whole, with gc", max(row["with gc"] for row in grown), LIMIT)


if __name__ == "__main__":
    main()
