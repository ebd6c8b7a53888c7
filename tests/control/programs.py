"""Functions with loops and branches, each beside its twin in plain Python, and what holds of all of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastgrad as fg
from fastgrad import autodiff, batching, passes
from fastgrad.core.aval import aval_of
from fastgrad.core.graph import Graph
from fastgrad.executor.executable import Executable
from fastgrad.trace import trace

BACKENDS = ["numpy", "numba"]
"""Where loops run. Every test here runs on each."""


@dataclass(frozen=True)
class Program:
    """``fn(*arrays)`` with loops, ``twin(*arrays)`` without; both give a tuple."""

    name: str
    fn: Callable[..., tuple]
    twin: Callable[..., tuple]
    shapes: tuple[tuple[int, ...], ...]
    scale: float = 0.5

    def inputs(self, seed: int = 0) -> list[np.ndarray]:
        """Random float64 inputs, the same for the same seed."""
        rng = np.random.default_rng([seed, *self.name.encode()])
        return [self.scale * rng.standard_normal(shape) for shape in self.shapes]

    def graph(self, twin: bool = False) -> Graph:
        """The traced function."""
        return graph_of(self.twin if twin else self.fn, self.inputs())


def graph_of(fn: Callable[..., tuple], arrays: Sequence[np.ndarray]) -> Graph:
    """``fn``, which gives a tuple, traced on arrays of these kinds."""
    return trace(lambda *xs: [*fn(*xs)], [aval_of(a) for a in arrays], name="f")


def run(graph: Graph, arrays: Sequence[Any], backend: str = "numpy") -> list[np.ndarray]:
    """``graph`` on ``arrays``, after all passes."""
    executable = Executable(graph, backend=backend, threads=1)
    return executable(*[np.asarray(a, v.aval.dtype) for a, v in zip(arrays, graph.inputs, strict=True)])


def equal(got: Sequence[Any], expected: Sequence[Any], tolerance: float = 1e-10) -> None:
    """Every array of ``got`` is that of ``expected``."""
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert np.shape(a) == np.shape(b)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# --- the transformations: graph -> graph, and one more batch of inputs ------------------------------------------------


def vjp(graph: Graph) -> Graph:
    """Joint forward and backward by every float input."""
    return autodiff.vjp(graph, [i for i, v in enumerate(graph.inputs) if autodiff.is_float(v)])


def vmap(graph: Graph) -> Graph:
    """All inputs batched by 3."""
    return batching.vmap(graph, [True] * len(graph.inputs), 3)


TRANSFORMATIONS: dict[str, tuple[Callable[[Graph], Graph], ...]] = {
    "value": (),
    "vjp": (vjp,),
    "jvp": (autodiff.jvp,),
    "vmap": (vmap,),
    "vjp of vjp": (vjp, vjp),
    "jvp of vjp": (vjp, autodiff.jvp),
    "vjp of jvp": (autodiff.jvp, vjp),
    "vmap of vjp": (vjp, vmap),
    "vjp of vmap": (vmap, vjp),
    "vmap of vjp of vjp": (vjp, vjp, vmap),
    "passes, then vjp": (passes.run, vjp),
    "vmap of vmap": (vmap, vmap),
}


def transformed(graph: Graph, name: str) -> Graph:
    """``graph`` after the transformations of that name."""
    for transformation in TRANSFORMATIONS[name]:
        graph = transformation(graph)
    return graph


def random_inputs(graph: Graph, seed: int = 1, scale: float = 0.5) -> list[np.ndarray]:
    """Inputs for a transformed graph."""
    rng = np.random.default_rng(seed)
    return [np.asarray(scale * rng.standard_normal(v.aval.shape), v.aval.dtype) for v in graph.inputs]


# --- the programs -----------------------------------------------------------------------------------------------------


def loop(f: Callable, init: Any, xs: Any, length: int, reverse: bool = False) -> tuple[Any, Any]:
    """`fg.scan` of one array of results, as a Python loop."""
    carry, ys = init, [None] * length
    for t in reversed(range(length)) if reverse else range(length):
        carry, ys[t] = f(carry, None if xs is None else xs[t])
    return carry, np.stack(ys)


def _cell(W, c, x):
    new = np.tanh(W @ c + x)
    return new, (new * x).sum() + c[0]


def _rnn(reverse: bool, **options: Any) -> tuple[Callable, Callable]:
    def fn(W, h, xs):
        return fg.scan(lambda c, x: _cell(W, c, x), h, xs, reverse=reverse, **options)

    return fn, lambda W, h, xs: loop(lambda c, x: _cell(W, c, x), h, xs, len(xs), reverse)


def _gru_like(W, U, b, h, xs):
    """Products with slices, a sum over rows, two carries, one of which nobody reads."""

    def step(carry, x):
        h, total = carry
        z = 1 / (1 + np.exp(-(x @ W + h @ U + b)))
        h = h * z + (1 - z) * np.tanh(x @ W)
        return (h, total + h.sum()), h @ U

    return step, (h, 0.0), xs


def gru(W, U, b, h, xs):
    step, init, xs = _gru_like(W, U, b, h, xs)
    (h, total), ys = fg.scan(step, init, xs)
    return h, total, ys


def gru_twin(W, U, b, h, xs):
    step, init, xs = _gru_like(W, U, b, h, xs)
    (h, total), ys = loop(step, init, xs, len(xs))
    return h, total, ys


def nested(a, xs):
    """A scan in a scan, the inner one over a const."""

    def outer(c, x):
        inner, ys = fg.scan(lambda d, y: (np.sin(d * y) + x, d * a[0]), c, a)
        return inner, ys.sum()

    return fg.scan(outer, 0.3, xs)


def nested_twin(a, xs):
    def outer(c, x):
        inner, ys = loop(lambda d, y: (np.sin(d * y) + x, d * a[0]), c, a, len(a))
        return inner, ys.sum()

    return loop(outer, 0.3, xs, len(xs))


def _power_step(x):
    return lambda i, v: np.sin(v * x) + i * v / 7.0


def fori(x, v):
    return (fg.fori_loop(2, 6, _power_step(x), v),)


def fori_twin(x, v):
    for i in range(2, 6):
        v = _power_step(x)(i, v)
    return (v,)


def halving(x, v):
    """A bounded while loop: how often it runs depends on values."""

    def more(state):
        return state[0] < 3

    def step(state):
        n, v = state
        return n + 1, np.tanh(v) * x + v

    return (fg.while_loop(more, step, (0, v), bound=5)[1],)


def halving_twin(x, v):
    for _ in range(3):
        v = np.tanh(v) * x + v
    return (v,)


BRANCHES = (lambda x, w: np.tanh(w @ x), lambda x, w: np.exp(x) * x[0], lambda x, w: x * 2.0)


def chosen(index: int) -> tuple[Callable, Callable]:
    """A switch whose index is known at run time alone."""

    def fn(x, w):
        i = np.floor(0 * w[0, 0] + index).astype(np.int64)
        return (fg.switch(i, BRANCHES, x, w),)

    return fn, lambda x, w: (BRANCHES[min(max(index, 0), 2)](x, w),)


def conditional(x, w):
    """A branch inside a loop, of a predicate that changes from step to step."""

    def step(c, x):
        c = fg.cond(x.sum() > 0, lambda c: np.tanh(w @ c) + x, lambda c: c * x[0] + 0.1, c)
        return c, c

    return fg.scan(step, w[0], x)


def conditional_twin(x, w):
    def step(c, x):
        taken = x.sum() > 0
        return (np.where(taken, np.tanh(w @ c) + x, c * x[0] + 0.1),) * 2

    return loop(step, w[0], x, len(x))


S = ((3, 3), (3,), (5, 3))
PROGRAMS = [
    Program("scan", *_rnn(False), S),
    Program("scan-reverse", *_rnn(True), S),
    *(
        Program(f"scan-every-{k}-{r}", *_rnn(r, checkpoint_every=k), S)
        for k, r in itertools.product((1, 2, 5), (False, True))
    ),
    *(
        Program(f"scan-unroll-{k}-{r}", *_rnn(r, unroll=k), S)
        for k, r in itertools.product((2, True), (False, True))
    ),
    Program("gru", gru, gru_twin, ((2, 3), (3, 3), (3,), (4, 3), (5, 4, 2))),
    Program("nested", nested, nested_twin, ((3,), (4,))),
    Program("fori", fori, fori_twin, ((3,), (3,))),
    Program("while", halving, halving_twin, ((3,), (3,))),
    *(Program(f"switch-{i}", *chosen(i), ((3,), (3, 3))) for i in (-1, 0, 1, 2, 9)),
    Program("conditional", conditional, conditional_twin, ((5, 3), (3, 3))),
]
