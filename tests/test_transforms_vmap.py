"""`vmap`: axes, nestings, closures, every order with the other transformations; and what the batched graphs hold."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import passes, pytree
from fastgrad.nn import functional as F

R = np.random.default_rng(0)
X, Y = R.standard_normal((4, 3)), R.standard_normal((4, 3))
W = R.standard_normal((3, 5))
backends = pytest.mark.parametrize("backend", ["numba", "numpy"])


def equal(got, expected) -> None:
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


# -- axes --------------------------------------------------------------------------------------------------------------


@backends
def test_every_axis_in_and_out(backend: str):
    batch = R.standard_normal((4, 3, 2))
    for axis in range(-3, 3):
        rows = np.moveaxis(batch, axis, 0)
        expected = np.stack([row @ row.T for row in rows])
        got = fg.vmap(lambda x: x @ x.T, in_axes=axis, out_axes=axis, backend=backend)(batch)
        equal(got, np.moveaxis(expected, 0, axis))


def test_shared_arguments():
    equal(fg.vmap(lambda x, w: x @ w, in_axes=(0, None))(X, W), X @ W)
    equal(fg.vmap(lambda w, x: w.T @ x, in_axes=(None, 1), out_axes=1)(W, X.T), (X @ W).T)
    equal(fg.vmap(lambda x, n: x * n, in_axes=[0, None])(X, 3), X * 3)
    equal(fg.vmap(lambda x, f: getattr(np, f)(x))(X, "sin"), np.sin(X))


def test_axes_of_nestings():
    p = {"w": W, "b": R.standard_normal((5, 4))}
    equal(fg.vmap(lambda p, x: x @ p["w"] + p["b"], in_axes=({"w": None, "b": 1}, 0))(p, X), X @ W + p["b"].T)
    equal(
        fg.vmap(lambda p: p[0] + p[1][0] * p[1][1], in_axes=((0, None),))((X, (Y[0], Y[1]))), X + Y[0] * Y[1]
    )
    equal(fg.vmap(lambda p: p["a"] * p["b"])({"a": X, "b": Y}), X * Y)
    out = fg.vmap(lambda x: {"a": x, "b": (x.sum(), x * 2)}, out_axes={"a": 1, "b": (0, -1)})(X)
    equal(out["a"], X.T)
    equal(out["b"][0], X.sum(1))
    equal(out["b"][1], 2 * X.T)
    equal(fg.vmap(lambda x: (x, x + 1), out_axes=1)(X)[1], X.T + 1)


def test_keywords_are_mapped_over_axis_0():
    equal(fg.vmap(lambda x, *, y: x * y["s"], in_axes=1)(X.T, y={"s": Y}), X * Y)


def test_outputs_that_do_not_depend_on_the_batch():
    equal(fg.vmap(lambda x: Y[0] * 2)(X), np.tile(2 * Y[0], (4, 1)))
    equal(fg.vmap(lambda x: 3.0)(X), np.full(4, 3.0))
    equal(fg.vmap(lambda x, w: (x.sum(), w * 2), in_axes=(0, None), out_axes=(0, None))(X, W)[1], 2 * W)
    equal(fg.vmap(lambda x, w: w * 2, in_axes=(0, None), out_axes=2)(X, W), np.stack([2 * W] * 4, 2))
    equal(fg.vmap(lambda w: w * 2, in_axes=None, axis_size=2)(W), np.stack([2 * W] * 2))
    equal(fg.vmap(lambda: np.ones(2), axis_size=3)(), np.ones((3, 2)))


def test_batches_of_one_and_of_none():
    equal(fg.vmap(lambda x: x @ W)(X[:1]), X[:1] @ W)
    assert fg.vmap(lambda x: x @ W)(X[:0]).shape == (0, 5)
    f = fg.vmap(lambda x: np.tanh(x @ W).sum())
    f(X)
    one = f.compile(X[:1])
    assert "0 kernels compiled" in one.compile_report()


# -- closures and nesting ----------------------------------------------------------------------------------------------


def test_closures_are_shared_and_may_be_batched_themselves():
    equal(fg.vmap(lambda x: fg.vmap(lambda y: x * y)(Y[:, 0]))(X[:, 0]), np.outer(X[:, 0], Y[:, 0]))
    equal(fg.vmap(lambda x: fg.vmap(lambda w: x @ w, in_axes=1)(W))(X), X @ W)
    equal(fg.jit(lambda x, s: fg.vmap(lambda r: r * s)(x))(X, 2.0), 2 * X)
    outer = fg.vmap(lambda x: fg.vmap(lambda y: x @ y + fg.vmap(lambda z: z * x[0])(X[0]).sum())(Y))
    equal(outer(X), X @ Y.T + X[:, :1] * X[0].sum())


@backends
def test_per_example_gradients(backend: str):
    loss = lambda w, x: (np.tanh(x @ w) ** 2).sum()  # noqa: E731
    expected = np.stack([fg.grad(loss)(W, x) for x in X])
    equal(fg.vmap(fg.grad(loss), in_axes=(None, 0), backend=backend)(W, X), expected)
    equal(fg.jit(fg.vmap(fg.jit(fg.grad(loss)), in_axes=(None, 0)), backend=backend)(W, X), expected)
    total = fg.grad(lambda w: fg.vmap(loss, in_axes=(None, 0))(w, X).sum(), backend=backend)(W)
    equal(total, expected.sum(0))


def test_with_every_other_transformation():
    f = lambda x: (np.sin(x) * x[0]).sum()  # noqa: E731
    v = Y
    equal(fg.vmap(fg.hessian(f))(X), np.stack([fg.hessian(f)(x) for x in X]))
    equal(
        fg.vmap(lambda x, v: fg.hvp(f, (x,), (v,)))(X, v),
        np.stack([fg.hvp(f, (x,), (u,)) for x, u in zip(X, v, strict=True)]),
    )
    equal(fg.vmap(lambda x: fg.vjp(f, x)[1](2.0)[0])(X), 2 * np.stack([fg.grad(f)(x) for x in X]))
    equal(fg.jvp(fg.vmap(f), (X,), (v,))[1], np.stack([fg.grad(f)(x) @ u for x, u in zip(X, v, strict=True)]))
    _, pullback = fg.vjp(fg.vmap(f), X)
    equal(pullback(np.ones(4))[0], np.stack([fg.grad(f)(x) for x in X]))
    blocks = fg.hessian(lambda x: fg.vmap(f)(x).sum())(X)
    for i in range(4):
        equal(blocks[i, :, i], fg.hessian(f)(X[i]))
    jacobian = fg.jacrev(fg.vmap(f))(X)
    equal(jacobian[2, 2], fg.grad(f)(X[2]))
    full = fg.vmap(lambda v: fg.hvp(f, (X[0],), (v,)))(np.eye(3))
    equal(full, fg.hessian(f)(X[0]))


def test_through_selection_and_losses():
    table, labels = R.standard_normal((6, 3)), np.array([0, 5, 2, 2])
    equal(fg.vmap(lambda i: fnp.take(table, i, 0))(labels), table[labels])
    logits = R.standard_normal((4, 6))
    equal(fg.vmap(lambda x, i: x[i])(logits, labels), logits[np.arange(4), labels])
    per_example = fg.vmap(fg.grad(lambda x, i: F.cross_entropy(x, i)))(logits, labels)
    equal(per_example, 4 * fg.grad(lambda x: F.cross_entropy(x, labels))(logits))


# -- what it costs -----------------------------------------------------------------------------------------------------


def network(sizes=(64, 128, 64, 10)):
    rng = np.random.default_rng(1)
    return [
        (rng.standard_normal((n, m)).astype("f4") / np.float32(n), np.zeros(m, np.float32))
        for n, m in pairwise(sizes)
    ]


def loss(params, x, label):
    for w, b in params[:-1]:
        x = F.relu(x @ w + b)
    w, b = params[-1]
    return F.cross_entropy(x @ w + b, label)


def batch(n: int):
    rng = np.random.default_rng(2)
    return rng.standard_normal((n, 64)).astype("f4"), rng.integers(0, 10, n)


def test_products_with_shared_weights_are_one_product():
    params, (x, labels) = network(), batch(32)
    graph = passes.run(fg.vmap(fg.grad(loss), in_axes=(None, 0, 0)).lower(params, x, labels))
    shapes = [[a.aval.shape for a in e.inputs] for e in graph.eqns if e.prim.name == "matmul"]
    assert shapes[:3] == [[(32, 64), (64, 128)], [(32, 128), (128, 64)], [(32, 64), (64, 10)]]
    assert len(shapes) == 5  # three forward, two back
    outer = [
        e.outputs[0].aval.shape
        for e in graph.eqns
        if len(e.outputs[0].aval.shape) == 3 and e.prim.name == "mul"
    ]
    assert sorted(outer) == [(32, 64, 10), (32, 64, 128), (32, 128, 64)]  # the gradients themselves
    assert (
        "copy"
        not in fg.vmap(fg.grad(loss), in_axes=(None, 0, 0)).compile(params, x, labels).program.schedule()
    )


def test_a_shared_matrix_times_vectors_is_one_product_both_ways():
    f = lambda w, x: fg.vmap(lambda w, v: np.tanh(w @ v).sum(), in_axes=(None, 0))(w, x).sum()  # noqa: E731
    w = R.standard_normal((5, 3))
    equal(fg.vmap(lambda w, v: w @ v, in_axes=(None, 0))(w, X), X @ w.T)
    equal(fg.grad(f)(w, X), fg.grad(lambda w: np.tanh(X @ w.T).sum())(w))
    graph = passes.run(fg.grad(f, argnums=(0, 1)).lower(w, X))
    shapes = [[len(a.aval.shape) for a in e.inputs] for e in graph.eqns if e.prim.name == "matmul"]
    assert shapes == [[2, 2]] * 3


@pytest.mark.parametrize(
    "through", [lambda f: f, fg.grad, lambda f: lambda p, *b: fg.jvp(f, (p, *b), (p, None, None))[1]]
)
def test_a_vmapped_function_compiles_no_more_kernels_than_a_hand_batched_one(through):
    params, (x, labels) = network(), batch(32)
    mapped = fg.vmap(loss, in_axes=(None, 0, 0))
    both = [fg.jit(through(f)) for f in (loss, lambda p, x, labels: mapped(p, x, labels).mean())]
    by_hand, by_vmap = (f.compile(params, x, labels).source().count("# rows") for f in both)
    assert by_vmap <= by_hand
    for got, expected in zip(*(pytree.flatten(f(params, x, labels))[0] for f in both), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-7)
