"""Random graphs: interpreter = compiled, before = after each pass, gradient compiled = gradient interpreted.

``FASTGRAD_RANDOM_GRAPHS=300 pytest tests/test_random_graphs.py`` for a campaign; ``FASTGRAD_RANDOM_SEED`` moves its start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import fastgrad.numpy as fnp
from fastgrad import autodiff, passes
from fastgrad.core.aval import Aval, aval_of
from fastgrad.core.graph import Graph, verify
from fastgrad.executor.executable import Executable
from fastgrad.interpreter import evaluate
from fastgrad.nn import functional as F
from fastgrad.ops import index
from fastgrad.trace import trace

COUNT = int(os.environ.get("FASTGRAD_RANDOM_GRAPHS", "4"))
FIRST = int(os.environ.get("FASTGRAD_RANDOM_SEED", "0"))
SIZES = (1, 2, 3, 5, 17)
MAX_ELEMENTS = 4000


class Grower:
    """Grows one random function, an op at a time, on whatever arrays it is given: NumPy's or traced ones.

    The choices depend on the seed and on shapes and dtypes alone, so that two runs make the same ops.
    """

    def __init__(self, seed: int, dtypes: Sequence[str]):
        self.rng, self.dtypes = np.random.default_rng(seed), dtypes
        self.pool: list[Any] = []
        self.unread: dict[int, bool] = {}

    def inputs(self) -> list[np.ndarray]:
        """Two to four arrays over a few common sizes, so that they often broadcast."""
        rank, dtype = self.rng.integers(1, 4), self.rng.choice(self.dtypes)
        full = [int(n) for n in self.rng.choice(SIZES, rank)]
        arrays = []
        for _ in range(self.rng.integers(2, 5)):
            keep = self.rng.integers(0, rank + 1)
            shape = [1 if self.rng.random() < 0.25 else n for n in full[rank - keep :]]
            kind = dtype if self.rng.random() < 0.8 else self.rng.choice(self.dtypes)
            arrays.append(np.asarray(self.rng.uniform(-1, 1, shape), kind))
        return arrays

    def grow(self, arrays: Sequence[Any], ops: int) -> list[Any]:
        """``ops`` random ops; the results that nobody reads are the outputs, plus one that somebody reads."""
        self.pool, self.unread = list(arrays), {}
        while len(self.pool) < len(arrays) + ops:
            name = str(self.rng.choice(NAMES))
            made = OPS[name](self)
            if made is not None and 0 < made.size <= MAX_ELEMENTS:
                self.unread[len(self.pool)] = True
                self.pool.append(made)
        last = [self.pool[i] for i in sorted(self.unread)]
        return [*last[-4:], self.pool[int(self.rng.integers(len(arrays), len(self.pool)))]]

    def pick(self, accept: Callable[[Any], bool] = lambda x: True) -> Any:
        """A random value, a recent one more likely."""
        fits = [i for i, x in enumerate(self.pool) if accept(x)]
        if not fits:
            return None
        i = fits[-1 - min(int(self.rng.geometric(0.3)) - 1, len(fits) - 1)]
        self.unread.pop(i, None)
        return self.pool[i]

    def axis(self, x: Any) -> int:
        return int(self.rng.integers(x.ndim))


def _tame(x: Any) -> Any:
    """Values stay of order 1, so that differences of rounding stay small."""
    return np.tanh(x)


def _unary(g: Grower) -> Any:
    op = UNARY[g.rng.integers(len(UNARY))]
    return op(g.pick())


UNARY: tuple[Callable, ...] = (
    np.negative, np.absolute, np.tanh, np.sin, np.cos, F.relu, F.sigmoid, np.square,
    lambda x: np.exp(_tame(x)), lambda x: np.log(1.5 + _tame(x)), lambda x: np.sqrt(1.5 + _tame(x)),
    lambda x: 0.5 * x, lambda x: x + 1, lambda x: np.log1p(_tame(x) * 0.5), lambda x: np.expm1(_tame(x)),
    lambda x: np.where(x > 0, x, 0.1 * x), lambda x: np.clip(x, -0.7, 0.8), lambda x: x * 1.0,
)  # fmt: skip


def _compatible(x: Any) -> Callable[[Any], bool]:
    def accept(y: Any) -> bool:
        try:
            np.broadcast_shapes(x.shape, y.shape)
        except ValueError:
            return False
        return True

    return accept


def _binary(g: Grower) -> Any:
    x = g.pick()
    y = g.pick(_compatible(x))
    kind = g.rng.integers(7)
    if kind < 3:
        return (x + y, x - y, _tame(x) * y)[kind]
    if kind < 5:
        return (np.maximum, np.minimum)[kind - 3](x, y)
    return x / (1.5 + _tame(y)) if kind == 5 else np.where(x < y, x, y * 0.5)


def _reduce(g: Grower) -> Any:
    x = g.pick(lambda x: x.ndim)
    if x is None:
        return None
    axes = [i for i in range(x.ndim) if g.rng.random() < 0.6] or [g.axis(x)]
    op, keep = (np.mean, np.max, np.min, np.sum)[g.rng.integers(4)], bool(g.rng.integers(2))
    return op(_tame(x) if op is np.sum else x, axis=tuple(axes), keepdims=keep)


def _reshape(g: Grower) -> Any:
    x = g.pick(lambda x: x.ndim)
    if x is None:
        return None
    kind = g.rng.integers(6)
    if kind == 0:
        return x.reshape(-1)
    if kind == 1:
        return np.transpose(x, [int(i) for i in g.rng.permutation(x.ndim)])
    if kind == 2:
        return np.expand_dims(x, g.axis(x))
    if kind == 3:
        return np.flip(x, g.axis(x))
    if kind == 4:
        return np.broadcast_to(x, (2, *x.shape))
    return x.reshape(x.shape[0], -1)


def _slice(g: Grower) -> Any:
    x = g.pick(lambda x: x.ndim)
    if x is None:
        return None
    key: list[Any] = [slice(None)] * x.ndim
    axis = g.axis(x)
    choices = [
        slice(0, None, 2),
        slice(None, None, -1),
        slice(x.shape[axis] // 2, None),
        int(g.rng.integers(x.shape[axis])),
    ]
    key[axis] = choices[g.rng.integers(len(choices))]
    return x[tuple(key)]


def _concatenate(g: Grower) -> Any:
    x = g.pick(lambda x: x.ndim)
    if x is None:
        return None
    if g.rng.random() < 0.3:
        return np.pad(x, [(int(g.rng.integers(2)), int(g.rng.integers(2))) for _ in range(x.ndim)])
    return np.concatenate([x, g.pick(lambda y: y.shape == x.shape)], g.axis(x))


def _matmul(g: Grower) -> Any:
    x = g.pick(lambda x: x.ndim >= 2)
    if x is None:
        return None
    y = g.pick(lambda y: y.ndim in (1, 2) and y.shape[0] == x.shape[-1])
    y = x.mT if y is None or g.rng.random() < 0.3 else y
    return _tame(x @ y)


def _softmax(g: Grower) -> Any:
    x = g.pick(lambda x: x.ndim)
    if x is None:
        return None
    return (F.softmax, F.log_softmax, F.logsumexp)[g.rng.integers(3)](x, g.axis(x))


def _rows(g: Grower) -> Any:
    x = g.pick(lambda x: x.ndim)
    if x is None:
        return None
    axis = g.axis(x)
    rows = g.rng.integers(0, x.shape[axis], int(g.rng.integers(1, 6)))
    taken = np.take(x, rows, axis)
    return taken if g.rng.random() < 0.5 else index.scatter_add(taken, rows, x.shape[axis], axis)


def _cast(g: Grower) -> Any:
    if len(g.dtypes) == 1:
        return None
    x = g.pick()
    return x.astype("f8" if x.dtype == np.float32 else "f4")


def _assign(g: Grower) -> Any:
    """A window or rows of one array written into another of its shape, or added to it."""
    x = g.pick(lambda x: x.ndim)
    if x is None:
        return None
    axis = g.axis(x)
    n = x.shape[axis]
    start, stop = sorted(int(i) for i in g.rng.integers(0, n + 1, 2))
    item = slice(start, stop, int(g.rng.integers(1, 3)))
    if g.rng.random() < 0.5:
        item = g.rng.integers(-n, n, int(g.rng.integers(1, 6)))
    key = (*(slice(None),) * axis, item)
    y = g.pick(lambda y: y.shape == x.shape)
    place = fnp.at(x)[key]
    kind = int(g.rng.integers(3))
    return (place.set, place.add, place.min)[kind](0.5 if y is None else 0.5 * _tame(y)[key])


OPS: dict[str, Callable[[Grower], Any]] = {
    "unary": _unary, "binary": _binary, "reduce": _reduce, "reshape": _reshape, "slice": _slice, "concatenate": _concatenate,
    "matmul": _matmul, "softmax": _softmax, "rows": _rows, "cast": _cast,
    "assign": _assign,
}  # fmt: skip
WEIGHTS = (6, 6, 3, 3, 2, 2, 2, 1, 1, 1, 2)
NAMES = [name for name, weight in zip(OPS, WEIGHTS, strict=True) for _ in range(weight)]


def example(seed: int, dtypes: Sequence[str] = ("f4", "f8")) -> tuple[Graph, list[np.ndarray]]:
    """A random graph of 5 to 40 ops, and arrays for it."""
    grower = Grower(seed, dtypes)
    arrays = grower.inputs()
    ops = int(grower.rng.integers(5, 41))
    graph = trace(lambda *xs: grower.grow(xs, ops), [aval_of(a) for a in arrays], name=f"random{seed}")
    return graph, arrays


def gradient_example(graph: Graph, arrays: Sequence[np.ndarray]) -> tuple[Graph, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    joint = autodiff.vjp(graph, range(len(arrays)))
    more: list[Aval] = [v.aval for v in joint.inputs[len(arrays) :]]
    return joint, [*arrays, *(np.asarray(rng.uniform(-1, 1, a.shape), a.dtype) for a in more)]


def close(got: Sequence[Any], expected: Sequence[Any], graph: Graph) -> None:
    """Within rounding: a float32 anywhere makes it single precision; relative to the largest element of each output."""
    dtypes = {v.aval.dtype.name for eqn in graph.eqns for v in (*eqn.inputs, *eqn.outputs)}
    tolerance = 2e-4 if "float32" in dtypes else 1e-10
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        scale = max(1.0, float(np.max(np.abs(b), initial=0.0)))
        np.testing.assert_allclose(
            a, b, rtol=tolerance, atol=tolerance * scale, err_msg=f"output {i} of\n{graph}"
        )


def same_bits(got: Sequence[Any], expected: Sequence[Any], what: str) -> None:
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=what, strict=True)


seeds = pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
many_seeds = pytest.mark.parametrize("seed", range(FIRST, FIRST + 10 * COUNT))


@seeds
def test_compiled_is_interpreted(seed: int):
    graph, arrays = example(seed)
    close(Executable(graph)(*arrays), evaluate(graph, arrays), graph)


@seeds
def test_gradient_compiled_is_interpreted(seed: int):
    joint, arrays = gradient_example(*example(seed))
    close(Executable(joint)(*arrays), evaluate(joint, arrays), joint)


@many_seeds
def test_each_pass_keeps_the_bits(seed: int):
    """Of the joint graph, so that what autodiff writes is simplified too."""
    graph, arrays = gradient_example(*example(seed))
    expected = evaluate(graph, arrays)
    for rewrite in (passes.inline, *passes.PASSES):
        graph = verify(rewrite(graph))
        same_bits(evaluate(graph, arrays), expected, f"{rewrite.__name__} gave\n{graph}")
    assert len(passes.run(graph).eqns) == len(graph.eqns), "the passes leave nothing to do"


@many_seeds
def test_the_same_seed_grows_the_same_graph(seed: int):
    assert str(example(seed)[0]) == str(example(seed)[0])


@many_seeds
def test_the_tangent_is_a_difference(seed: int):
    """In float64, along one direction, wherever a step left and one right agree (no kink between)."""
    graph, arrays = example(seed, ["f8"])
    step, rng = 1e-6, np.random.default_rng(1)
    directions = [rng.standard_normal(a.shape) for a in arrays]
    tangents = evaluate(autodiff.jvp(graph), [*arrays, *directions])[len(graph.outputs) :]
    points = [[a + s * d for a, d in zip(arrays, directions, strict=True)] for s in (-step, 0.0, step)]
    for tangent, low, middle, high in zip(tangents, *(evaluate(graph, p) for p in points), strict=True):
        left, right = (middle - low) / step, (high - middle) / step
        smooth = np.abs(left - right) < 1e-4 * (1 + np.abs(left))
        expected = ((left + right) / 2)[smooth]
        np.testing.assert_allclose(np.asarray(tangent)[smooth], expected, rtol=1e-4, atol=1e-4)


@many_seeds
def test_backward_agrees_with_forward(seed: int):
    """<ct, J t> = <J^T ct, t>, in float64 and by the interpreter."""
    graph, arrays = example(seed, ["f8"])
    rng = np.random.default_rng(2)
    directions = [rng.standard_normal(a.shape) for a in arrays]
    pushed = evaluate(autodiff.jvp(graph), [*arrays, *directions])[len(graph.outputs) :]
    joint, given = gradient_example(graph, arrays)
    pulled, cts = evaluate(joint, given)[len(graph.outputs) :], given[len(arrays) :]
    left = [np.vdot(ct, t) for ct, t in zip(cts, pushed, strict=True)]
    right = [np.vdot(g, d) for g, d in zip(pulled, directions, strict=True)]
    scale = 1 + sum(map(abs, left)) + sum(map(abs, right))
    assert abs(sum(left) - sum(right)) < 1e-10 * scale
