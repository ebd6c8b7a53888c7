"""``precision="bfloat16"`` wherever it may be asked for: which products it touches, that nothing else changes, training."""

from __future__ import annotations

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import autodiff, batching, passes, pytree
from fastgrad.core.aval import aval_of
from fastgrad.core.bfloat16 import rounded
from fastgrad.core.graph import Graph, subgraphs
from fastgrad.data import digits
from fastgrad.errors import ArgumentError
from fastgrad.nn import functional as F
from fastgrad.passes.precision import lowered
from fastgrad.trace import trace
from fastgrad.train.classifier import init_mlp, mlp

BACKENDS = ("numba", "numpy")
backends = pytest.mark.parametrize("backend", BACKENDS)


def drawn(*shapes: tuple[int, ...], dtype: str = "f4") -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


def tanh_layer(x, w):
    return np.tanh(x @ w).sum()


def products(graph: Graph) -> list[str | None]:
    """The precision of every product, those of inner graphs too."""
    found = [e.params.get("precision") for e in graph.eqns if e.prim.name == "matmul"]
    return found + [p for e in graph.eqns for inner in subgraphs(e) for p in products(inner)]


@backends
def test_a_product_takes_rounded_operands(backend: str) -> None:
    x, w = drawn((40, 30), (30, 20))
    got = fg.jit(lambda x, w: x @ w, precision="bfloat16", backend=backend)(x, w)
    np.testing.assert_allclose(got, rounded(x) @ rounded(w), rtol=1e-5, atol=1e-5)
    assert np.abs(got - x @ w).max() > 1e-3


@backends
def test_products_of_the_gradient_too(backend: str) -> None:
    x, w = drawn((40, 30), (30, 20))
    h = np.tanh(rounded(x) @ rounded(w))
    ct = rounded(1 - h * h)
    expected = ct @ rounded(w).T, rounded(x).T @ ct
    got = fg.grad(tanh_layer, argnums=(0, 1), precision="bfloat16", backend=backend)(x, w)
    plain = fg.grad(tanh_layer, argnums=(0, 1), backend=backend)(x, w)
    for a, b, c in zip(got, expected, plain, strict=True):
        # Where tanh's derivative lies near the middle of two bfloat16 it may be rounded the other way.
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-2)
        assert 1e-4 < np.linalg.norm(a - c) / np.linalg.norm(c) < 2e-2


@backends
def test_float64_and_what_is_no_product_are_left_alone(backend: str) -> None:
    x, w = drawn((40, 30), (30, 20), dtype="f8")
    options = {"precision": "bfloat16", "backend": backend}
    np.testing.assert_allclose(fg.jit(lambda x, w: x @ w, **options)(x, w), x @ w, rtol=1e-12)
    [v] = drawn((1000,))
    np.testing.assert_array_equal(fg.jit(lambda v: v * v + v, **options)(v), v * v + v)


@backends
def test_vjp_and_graph_take_it(backend: str) -> None:
    x, w = drawn((40, 30), (30, 20))
    out, pullback = fg.vjp(lambda x, w: x @ w, x, w, precision="bfloat16", backend=backend)
    ct = np.ones_like(out)
    np.testing.assert_allclose(out, rounded(x) @ rounded(w), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pullback(ct)[0], ct @ rounded(w).T, rtol=1e-5, atol=1e-5)
    g = fg.Graph()
    a, b = g.input("a", x.shape), g.input("b", w.shape)
    g.output((a @ b).sum())
    got = g.compile(wrt=["a"], precision="bfloat16", backend=backend)(x, w)
    np.testing.assert_allclose(got[1], np.ones_like(out) @ rounded(w).T, rtol=1e-5, atol=1e-5)
    for call in (lambda: g.compile(precision="b16"), lambda: fg.vjp(tanh_layer, x, w, precision="b16")):
        with pytest.raises(ArgumentError, match="unknown precision 'b16'"):
            call()


def test_each_precision_is_a_function_of_its_own() -> None:
    assert fg.jit(tanh_layer) is not fg.jit(tanh_layer, precision="bfloat16")
    assert fg.jit(tanh_layer, precision="bfloat16") is fg.jit(tanh_layer, precision="bfloat16")


def test_loops_and_branches() -> None:
    x, w = drawn((20, 16), (16, 16))
    w = w / 4

    def f(x, w):
        h = fg.fori_loop(0, 3, lambda i, h: np.tanh(h @ w), x)
        return fg.cond(h.sum() > 0, lambda h: h @ w, lambda h: h @ w.T, h)

    graph = passes.run(trace(lambda *xs: [f(*xs)], [aval_of(x), aval_of(w)]))
    assert products(graph) == [None] * 3
    assert products(lowered(graph, "bfloat16")) == ["bfloat16"] * 3
    assert lowered(graph, None) is graph
    got, interpreted = (fg.jit(f, precision="bfloat16", backend=b)(x, w) for b in BACKENDS)
    np.testing.assert_allclose(got, interpreted, rtol=2e-2, atol=2e-2)
    assert 1e-4 < np.abs(got - fg.jit(f)(x, w)).max() < 5e-2


def test_the_rules_of_a_marked_product_keep_the_mark() -> None:
    graph = lowered(trace(lambda x, w: [x @ w], [aval_of(a) for a in drawn((4, 3), (3, 2))]), "bfloat16")
    assert products(autodiff.vjp(graph, [0, 1])) == ["bfloat16"] * 3
    assert set(products(batching.batch(graph, [True, True], 5, [True])[0])) == {"bfloat16"}


def test_explain_shows_it() -> None:
    x, w = drawn((4, 3), (3, 2))
    text = fg.explain(fg.jit(tanh_layer, precision="bfloat16"), x, w, stage="passes")
    assert "precision=bfloat16" in text
    assert "bfloat16" in fg.explain(tanh_layer, x, w, stage="schedule", precision="bfloat16")
    assert "bfloat16" not in fg.explain(tanh_layer, x, w, stage="schedule")


@backends
def test_training_reaches_the_accuracy_of_float32(backend: str) -> None:
    data = digits()
    x, y = data.x_train.astype(np.float32), data.y_train
    accuracy = {}
    for precision in (None, "bfloat16"):
        step = fg.TrainStep(
            lambda p, x, y: F.cross_entropy(mlp(p, x), y), init_mlp([64, 64, 10], 0, "float32"),
            fg.optim.Adam(2e-3), precision=precision, backend=backend,
        )  # fmt: skip
        step.run(x, y, batch_size=64, epochs=12, shuffle=0)
        logits = mlp(step.params, data.x_test.astype(np.float32))
        accuracy[precision] = float(np.mean(np.argmax(logits, 1) == data.y_test))
        assert all(p.dtype == np.float32 for p in pytree.flatten(step.params)[0])
    assert accuracy[None] > 0.93
    assert accuracy["bfloat16"] >= accuracy[None] - 0.01
