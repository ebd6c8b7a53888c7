"""`checkpoint`: the same numbers with less memory; the recomputation stays in the backward pass."""

from __future__ import annotations

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import autodiff, passes
from fastgrad.core.aval import aval_of
from fastgrad.errors import ArgumentError
from fastgrad.ops.barrier import barrier
from fastgrad.schedule import schedule
from fastgrad.trace import trace

R = np.random.default_rng(0)
LAYERS, WIDTH, ROWS = 16, 32, 64
WEIGHTS = [R.standard_normal((WIDTH, WIDTH)) / 6 for _ in range(LAYERS)]
X = R.standard_normal((ROWS, WIDTH))
ACTIVATION = X.nbytes
policies = pytest.mark.parametrize("policy", ["nothing", "products", "everything"])
backends = pytest.mark.parametrize("backend", ["numba", "numpy"])


def equal(got, expected) -> None:
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def layer(w, x):
    h = np.tanh(x @ w)
    return x + np.exp(-h * h) * np.sin(h)


def loss(of_layer):
    def f(weights, x):
        for w in weights:
            x = of_layer(w, x)
        return (x * x).mean()

    return f


def products(graph) -> int:
    return sum(e.prim.name == "matmul" for e in graph.eqns)


# -- the same numbers --------------------------------------------------------------------------------------------------


@policies
@backends
def test_gradients_are_the_same_to_the_bit(policy: str, backend: str):
    expected = fg.grad(loss(layer), backend=backend)(WEIGHTS, X)
    got = fg.grad(loss(fg.checkpoint(layer, policy)), backend=backend)(WEIGHTS, X)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_outside_of_a_trace_it_is_the_function():
    equal(fg.checkpoint(layer)(WEIGHTS[0], X), layer(WEIGHTS[0], X))
    t = fg.Tensor(X[:2], requires_grad=True)
    fg.checkpoint(np.sin)(t).sum().backward()
    equal(t.grad, np.cos(X[:2]))
    assert fg.checkpoint(layer).__name__ == "layer"


def test_nestings_keywords_closures_and_plain_arguments():
    @fg.checkpoint(policy="products")
    def f(p, n, *, how):
        for _ in range(n):
            p = {"a": getattr(np, how)(p["a"]) * scale[0], "n": p["n"]}
        return p, (n, 2.0)

    scale = [1.5]

    def total(x, s):
        scale[0] = s
        p, (n, two) = f({"a": x, "n": 1}, 2, how="sin")
        return p["a"].sum() * two * n

    def plain(x, s):
        return (np.sin(np.sin(x) * s) * s).sum() * 4.0

    for got, expected in zip(*(fg.grad(g, argnums=(0, 1))(X[0], 0.7) for g in (total, plain)), strict=True):
        equal(got, expected)


@policies
def test_with_every_other_transformation(policy: str):
    plain = lambda x: (np.tanh(x @ WEIGHTS[0]) * np.sin(x)).sum()  # noqa: E731
    f = fg.checkpoint(plain, policy)
    x, v = X[0], X[1]
    for how in (
        lambda f: fg.jvp(f, (x,), (v,))[1],
        lambda f: fg.hvp(f, (x,), (v,)),
        lambda f: fg.hessian(f)(x),
        lambda f: fg.jacrev(fg.jacrev(f))(x),
        lambda f: fg.grad(lambda x: fg.jvp(f, (x,), (v,))[1])(x),
        lambda f: fg.vmap(fg.grad(f))(X),
        lambda f: fg.grad(lambda x: fg.vmap(f)(x).sum())(X),
        lambda f: fg.vjp(fg.vmap(f), X)[1](np.ones(ROWS))[0],
        lambda f: fg.grad(lambda x: fg.checkpoint(lambda x: f(x) * f(2.0 * x))(x))(x),
        lambda f: fg.jit(fg.grad(fg.jit(f)))(x),
        lambda f: fg.grad(lambda x: f(x) * fg.grad(f)(x).sum())(x),
    ):
        np.testing.assert_allclose(how(f), how(plain), rtol=1e-10, atol=1e-10)


def test_a_training_step():
    x, labels = X.astype("f4"), R.integers(0, 10, ROWS)
    w = {"w": [a.astype("f4") for a in WEIGHTS[:3]], "out": np.zeros((WIDTH, 10), np.float32)}

    def model(of_layer):
        def f(p, x, y):
            for each in p["w"]:
                x = of_layer(each, x)
            return fg.checkpoint(lambda x: fg.nn.functional.cross_entropy(x @ p["out"], y))(x)

        return f

    steps = [fg.TrainStep(model(f), w, fg.optim.Adam(lr=1e-3)) for f in (layer, fg.checkpoint(layer))]
    first, second = (step.run(x, labels, batch_size=16, epochs=2, shuffle=0) for step in steps)
    np.testing.assert_array_equal(first, second)
    with pytest.raises(
        fg.errors.OutOfBoundsError
    ):  # what checks labels before the first update sees into the call
        steps[0].run(x, labels + 5, batch_size=16)


# -- less memory -------------------------------------------------------------------------------------------------------


def test_the_peak_falls_to_the_inputs_of_the_layers():
    peaks = {}
    for policy in (None, "nothing", "products", "everything"):
        f = layer if policy is None else fg.checkpoint(layer, policy)
        peaks[policy] = fg.grad(loss(f)).compile(WEIGHTS, X).memory_plan().arena_bytes / ACTIVATION
    assert peaks["nothing"] <= LAYERS + 6  # one input a layer, and the work of one layer
    assert peaks["products"] <= 2 * LAYERS + 6
    assert peaks[None] == peaks["everything"] >= 3 * LAYERS


def test_a_pullback_keeps_only_what_the_policy_says():
    def kept(policy):
        _, pullback = fg.vjp(loss(fg.checkpoint(layer, policy)), WEIGHTS, X)
        forward, backward = pullback._halves.forward, pullback._halves.backward
        shapes = [a.aval.shape for a in forward.outputs[1:]]
        return shapes.count((ROWS, WIDTH)), products(forward), products(backward)

    # Inputs of the layers (x among them) and the output of the last, whose square is the loss.
    assert kept("nothing") == (LAYERS + 1, LAYERS, LAYERS + 2 * LAYERS)
    assert kept("products") == (2 * LAYERS + 1, LAYERS, 2 * LAYERS)
    assert kept("everything")[1:] == (LAYERS, 2 * LAYERS)


def test_recomputation_is_not_merged_with_the_forward_pass():
    def counts(policy):
        graph = fg.grad(loss(fg.checkpoint(layer, policy))).compile(WEIGHTS, X).graph
        return products(graph), sum(e.prim.name == "tanh" for e in graph.eqns)

    # The first layer has no product for the cotangent of x, which nobody asks for.
    assert counts("nothing") == (4 * LAYERS - 1, 2 * LAYERS)
    assert counts("products") == (3 * LAYERS - 1, 2 * LAYERS)
    assert counts("everything") == (3 * LAYERS - 1, LAYERS)


def test_it_compiles_no_more_than_a_kernel_or_two():
    kernels = [
        fg.grad(loss(f)).compile(WEIGHTS, X).source().count("# rows") for f in (layer, fg.checkpoint(layer))
    ]
    assert kernels[1] <= kernels[0] + 3


# -- the barrier -------------------------------------------------------------------------------------------------------


def test_a_barrier_is_no_step_and_orders_what_comes_after():
    def f(x, y):
        first, other = np.exp(x).sum(), np.tanh(y).sum()
        [late] = barrier([x], [other])
        return [first, np.exp(late).sum(), other]

    graph = passes.run(trace(f, [aval_of(X), aval_of(X)]))
    assert sum(e.prim.name == "exp" for e in graph.eqns) == 2
    names = [[e.prim.name for e in step.eqns] for step in schedule(graph).steps]
    assert not any("barrier" in n for n in names)
    tanh = max(i for i, n in enumerate(names) if "tanh" in n)
    assert max(i for i, n in enumerate(names) if "exp" in n) > tanh
    assert not any("exp" in n and "tanh" in n for n in names)


def test_a_barrier_lets_pass_only_what_is_read():
    def f(x, y):
        a, b = barrier([x, y], [x.sum()])
        return [a * 2.0] if b is not None else []

    [eqn] = [e for e in passes.run(trace(f, [aval_of(X), aval_of(X)])).eqns if e.prim.name == "barrier"]
    assert len(eqn.outputs) == eqn.params["count"] == 1
    assert len(eqn.inputs) == 2


@backends
def test_a_barrier_passes_values_numbers_and_views(backend: str):
    def f(x, y):
        a, b, c, n = barrier([x.T, np.ones_like(x), -x, 3.0], [y])
        return a, b, c + n, np.tanh(c)

    x = X[:2]
    for got, expected in zip(
        fg.jit(f, backend=backend)(x, x), (x.T, np.ones_like(x), 3 - x, np.tanh(-x)), strict=True
    ):
        equal(got, expected)
    assert barrier([1, X], [X])[1] is X


@backends
def test_rules_of_a_barrier(backend: str):
    def f(x, y):
        a, b = barrier([x * 2.0, y], [np.exp(x), y])
        return (a * b).sum()

    equal(fg.grad(f, backend=backend)(X[0], X[1]), 2 * X[1])
    equal(fg.jvp(f, (X[0], X[1]), (X[2], None), backend=backend)[1], (2 * X[1] * X[2]).sum())
    equal(fg.vmap(f, in_axes=(0, None), backend=backend)(X, X[1]), (2 * X * X[1]).sum(1))
    joint = autodiff.vjp(trace(lambda x, y: [f(x, y)], [aval_of(X[0])] * 2), [0, 1])
    assert [e.prim.name for e in joint.eqns].count("barrier") == 1


# -- errors ------------------------------------------------------------------------------------------------------------


def test_errors():
    with pytest.raises(ArgumentError, match="checkpoint: unknown policy 'dots'") as info:
        fg.checkpoint(layer, policy="dots")
    assert "'nothing', 'products', 'everything'" in str(info.value)
    with pytest.raises(ArgumentError, match="checkpoint: expected a function, got int"):
        fg.checkpoint(3)
