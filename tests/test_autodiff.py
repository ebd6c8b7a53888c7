"""The chain rule by name: accumulation, long chains, pullbacks, gradients of gradients, closures, nestings."""

from __future__ import annotations

import gc
import sys
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import autodiff, passes
from fastgrad.core.aval import aval_of
from fastgrad.core.graph import Graph
from fastgrad.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from fastgrad.executor.executable import Executable
from fastgrad.interpreter import evaluate
from fastgrad.trace import trace

backends = pytest.mark.parametrize("backend", ["numba", "numpy"])
X = np.array([0.5, -1.0, 2.0])


def graph_of(fn: Callable, *arrays: np.ndarray) -> Graph:
    return trace(lambda *xs: [fn(*xs)], [aval_of(a) for a in arrays], name="f")


def equal(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)


# -- the chain rule ----------------------------------------------------------------------------------------------------


@backends
def test_a_value_used_twice_accumulates_its_cotangents(backend: str):
    def fn(x):
        y = x * 3.0
        return (y * y + np.sin(y) + y).sum()

    y = 3 * X
    equal(fg.grad(fn, backend=backend)(X), 3 * (2 * y + np.cos(y) + 1))


@backends
def test_an_argument_given_twice_to_one_op(backend: str):
    equal(fg.grad(lambda x: (x * x * x).sum(), backend=backend)(X), 3 * X**2)
    equal(fg.grad(lambda x: (x / x).sum(), backend=backend)(X), 0 * X)
    a = np.arange(4.0).reshape(2, 2)
    equal(fg.grad(lambda x: (x @ x).sum(), backend=backend)(a), np.ones((2, 2)) @ a.T + a.T @ np.ones((2, 2)))


def test_both_halves_of_a_diamond():
    def fn(x):
        left, right = np.exp(x), np.tanh(x)
        return (left * right + left / (1 + right * right)).sum()

    step = 1e-6
    numeric = [(fn(X + step * e) - fn(X - step * e)) / (2 * step) for e in np.eye(3)]
    np.testing.assert_allclose(fg.grad(fn)(X), numeric, rtol=1e-8)


def test_an_unused_argument_has_the_gradient_zero():
    gradients = fg.grad(lambda x, y: (x * x).sum(), argnums=(0, 1))(X, np.ones((2, 2), np.float32))
    equal(gradients[0], 2 * X)
    assert gradients[1].dtype == np.float32
    np.testing.assert_array_equal(gradients[1], np.zeros((2, 2)))


def test_an_output_that_is_an_input_or_a_constant():
    np.testing.assert_array_equal(fg.grad(lambda x: x)(2.0), 1.0)
    value, gradient = fg.value_and_grad(lambda x: 3.0)(2.0)
    assert (value, gradient) == (3.0, 0.0)
    _, pullback = fg.vjp(lambda x, y: (x, y, x), X, X + 1)
    equal(pullback((X, X, X)), (2 * X, X))


def test_a_stopped_gradient_is_zero_on_its_path_alone():
    equal(fg.grad(lambda x: (fg.stop_gradient(x * x) * x).sum())(X), X**2)


def test_a_stopped_gradient_stays_so_in_a_pullback_that_is_differentiated():
    def cotangent(x):
        return fg.vjp(lambda x: (fg.stop_gradient(x) * x * x).sum(), x)[1](np.ones(()))[0]

    equal(fg.grad(lambda x: cotangent(x).sum())(X), 2 * X)


def test_a_stopped_gradient_stays_so_in_the_body_of_a_loop_that_is_differentiated_twice():
    def value(x):
        return fg.scan(lambda c, _: (fg.stop_gradient(c) * c * x, None), x, None, length=1)[0].sum()

    # stop(x) x x: the second derivative is 2 stop(x).
    equal(fg.grad(lambda x: fg.grad(value)(x).sum())(X), 2 * X)


def chain(n: int) -> Callable:
    def fn(x):
        for _ in range(n):
            x = np.sin(x) + 0.5 * x
        return x.sum()

    return fn


def test_a_chain_of_2000_ops_differentiates_both_ways():
    n = 700  # three ops a link
    graph = graph_of(chain(n), X)
    assert len(graph.eqns) > 2000 > sys.getrecursionlimit()
    value, slope = X, np.ones(3)
    for _ in range(n):
        value, slope = np.sin(value) + 0.5 * value, (np.cos(value) + 0.5) * slope
    _, pulled = evaluate(passes.run(autodiff.vjp(graph, [0])), [X, np.ones(())])
    np.testing.assert_allclose(pulled, slope, rtol=1e-10)
    _, pushed = evaluate(passes.run(autodiff.jvp(graph)), [X, np.ones(3)])
    np.testing.assert_allclose(pushed, slope.sum(), rtol=1e-10)


def test_a_chain_of_300_ops_compiles():
    joint = autodiff.vjp(graph_of(chain(100), X), [0])
    for got, expected in zip(
        Executable(joint)(X, np.ones(())), evaluate(joint, [X, np.ones(())]), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_forward_and_backward_say_the_same(seed: int):
    """<ct, J t> = <J^T ct, t>."""
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((4, 3)), rng.standard_normal((3, 5))
    graph = graph_of(lambda x, w: np.tanh(x @ w) / (1 + np.exp(x).sum(1, keepdims=True)), x, w)
    tangents, ct = [rng.standard_normal(a.shape) for a in (x, w)], rng.standard_normal((4, 5))
    pushed = evaluate(autodiff.jvp(graph), [x, w, *tangents])[1]
    pulled = evaluate(autodiff.vjp(graph, [0, 1]), [x, w, ct])[1:]
    np.testing.assert_allclose(
        np.vdot(ct, pushed), sum(np.vdot(g, t) for g, t in zip(pulled, tangents, strict=True))
    )


# -- pullbacks ---------------------------------------------------------------------------------------------------------


def curved(x, y):
    return np.exp(x) * np.sin(y)


def cotangents(x, y, ct):
    return ct * np.exp(x) * np.sin(y), ct * np.exp(x) * np.cos(y)


@backends
def test_two_live_pullbacks_keep_apart(backend: str):
    points = [(X + i, X * i) for i in range(4)]
    pullbacks = [fg.vjp(curved, *p, backend=backend)[1] for p in points]
    for order in (range(4), reversed(range(4)), (2, 0, 2)):
        for i in order:
            equal(pullbacks[i](X), cotangents(*points[i], X))


@backends
def test_a_pullback_may_be_called_again(backend: str):
    out, pullback = fg.vjp(curved, X, X, backend=backend)
    equal(out, curved(X, X))
    first, second, third = pullback(X), pullback(2 * X), pullback(X)
    equal(first, cotangents(X, X, X))
    equal(second, cotangents(X, X, 2 * X))
    equal(third, first)
    assert not any(np.may_share_memory(a, b) for a in first for b in third)


@backends
def test_changing_a_primal_does_not_change_its_pullback(backend: str):
    x, y = X.copy(), X.copy()
    _, pullback = fg.vjp(lambda x, y: x * y, x, y, backend=backend)
    x[...], y[...] = np.nan, np.nan
    equal(pullback(np.ones(3)), (X, X))


@backends
def test_changing_a_captured_array_does_not_change_a_pullback(backend: str):
    for scale in (X.copy(), np.repeat(X, 2)[::2]):
        _, pullback = fg.vjp(lambda x, s=scale: x * s, X, backend=backend)
        scale[...] = np.nan
        equal(pullback(np.ones(3))[0], X)


def test_a_dropped_pullback_gives_its_block_back():
    def fn(x):
        return np.exp(x) * x

    def block(pullback) -> int:
        return min(r.ctypes.data for r in pullback._residuals)

    _, first = fg.vjp(fn, X)
    _, second = fg.vjp(fn, X)
    where = block(first)
    assert block(second) != where
    del first
    gc.collect()
    _, third = fg.vjp(fn, X + 1)
    assert block(third) == where
    equal(second(X)[0], X * np.exp(X) * (1 + X))
    equal(third(X)[0], X * np.exp(X + 1) * (2 + X))


def test_a_pullback_inside_a_trace():
    def directional(x, ct):
        _, pullback = fg.vjp(lambda x: np.sin(x) * x, x)
        return pullback(ct)[0]

    expected = X * (np.cos(X) * X + np.sin(X))
    equal(fg.jit(directional)(X, X), expected)
    slope = fg.grad(lambda x: directional(x, X).sum())(X)
    equal(slope, X * (2 * np.cos(X) - X * np.sin(X)))


def test_a_pullback_from_outside_called_in_a_trace():
    """The trace keeps its numbers when the pullback is gone and its block serves another."""

    def cube(x):
        return x**3

    pullbacks = [fg.vjp(cube, X)[1]]
    traced = fg.jit(lambda ct: pullbacks[0](ct * 2.0)[0])
    equal(traced(X), 6 * X**3)
    pullbacks.clear()
    gc.collect()
    _, other = fg.vjp(cube, X * 0)
    equal(traced(X), 6 * X**3)
    equal(other(X)[0], 0 * X)


def test_a_cotangent_nests_like_the_output():
    _, pullback = fg.vjp(lambda x: {"a": x * 2.0, "b": (x.sum(),)}, X)
    equal(pullback({"a": X, "b": (np.float64(3.0),)})[0], 2 * X + 3)
    with pytest.raises(ArgumentError, match="nests"):
        pullback(X)
    with pytest.raises(ShapeError, match=r"output 0 must be f64\[3\]"):
        pullback({"a": np.ones(4), "b": (1.0,)})
    with pytest.raises(DTypeError, match="output 0"):
        pullback({"a": np.ones(3, np.float32), "b": (1.0,)})


def test_integer_primals_have_no_cotangent():
    _, pullback = fg.vjp(lambda x, i: np.take(x, i), X, np.array([2, 2, 0]))
    ct, none = pullback(np.array([1.0, 10.0, 100.0]))
    equal(ct, [100.0, 0.0, 11.0])
    assert none is None


def test_vjp_has_aux():
    out, pullback, aux = fg.vjp(lambda x: (x * x, {"n": x.sum()}), X, has_aux=True)
    equal(out, X * X)
    equal(aux["n"], X.sum())
    equal(pullback(np.ones(3))[0], 2 * X)


# -- gradients ---------------------------------------------------------------------------------------------------------


@backends
def test_a_gradient_of_gradients(backend: str):
    f = lambda x: np.sin(x) * x**2  # noqa: E731
    first, second = fg.grad(f), fg.grad(fg.grad(f))
    equal(fg.jit(first, backend=backend)(2.0), np.cos(2) * 4 + np.sin(2) * 4)
    equal(fg.jit(second, backend=backend)(2.0), -np.sin(2) * 4 + 8 * np.cos(2) + 2 * np.sin(2))
    third = fg.grad(second)(2.0)
    equal(third, -4 * np.cos(2) - 12 * np.sin(2) + 6 * np.cos(2))


def test_a_hessian_times_a_vector():
    a = np.array([[2.0, 1.0, 0.0], [1.0, 3.0, 1.0], [0.0, 1.0, 4.0]])
    g = fg.grad(lambda x: 0.5 * x @ a @ x + (x**3).sum())
    product = fg.grad(lambda x, v: (g(x) * v).sum())
    equal(product(X, np.ones(3)), a.sum(1) + 6 * X)


def test_integers_have_no_gradient():
    with pytest.raises(DTypeError, match=r"float arguments, got i64\[3\]") as info:
        fg.grad(lambda x: x.sum())(np.arange(3))
    assert ".astype(np.float64)" in str(info.value)
    with pytest.raises(DTypeError, match="must return a float, got i64"):
        fg.grad(lambda x: np.argmax(x))(X)
    equal(fg.grad(lambda x, i: x[i].sum())(X, np.array([1, 1])), [0.0, 2.0, 0.0])


def test_what_is_no_scalar_has_no_gradient():
    with pytest.raises(ShapeError, match=r"must return a scalar, got f64\[3\]") as info:
        fg.grad(lambda x: x * 2.0)(X)
    assert "fg.jacrev" in str(info.value) and "fg.vjp" in str(info.value)
    with pytest.raises(ShapeError, match="got 2 values"):
        fg.grad(lambda x: (x.sum(), x.sum()))(X)
    with pytest.raises(ShapeError):
        fg.grad(lambda x: x.sum(keepdims=True))(X)


def test_argnums_names_arguments():
    def fn(x, y, z):
        return (x * y * y * z * z * z).sum()

    x, y, z = X, X + 1, X + 2
    parts = y**2 * z**3, 2 * x * y * z**3, 3 * x * y**2 * z**2
    equal(fg.grad(fn)(x, y, z), parts[0])
    equal(fg.grad(fn, argnums=1)(x, y, z), parts[1])
    equal(fg.grad(fn, argnums=-1)(x, y, z), parts[2])
    picked = fg.grad(fn, argnums=(2, 0))(x, y, z)
    assert type(picked) is tuple
    equal(picked, (parts[2], parts[0]))
    assert len(fg.grad(fn, argnums=[1])(x, y, z)) == 1
    with pytest.raises(ArgumentError, match="argnums 3 with 3"):
        fg.grad(fn, argnums=3)(x, y, z)


@backends
def test_has_aux(backend: str):
    def fn(x):
        y = x * x
        return y.sum(), {"squares": y, "n": 3}

    gradient, aux = fg.grad(fn, has_aux=True, backend=backend)(X)
    equal(gradient, 2 * X)
    equal(aux["squares"], X * X)
    assert aux["n"] == 3
    (value, aux), gradient = fg.value_and_grad(fn, has_aux=True, backend=backend)(X)
    equal(value, (X * X).sum())
    equal(aux["squares"], X * X)
    equal(gradient, 2 * X)


def test_gradients_keep_the_dtype():
    x32 = X.astype(np.float32)
    value, gradient = fg.value_and_grad(lambda x: (x * 2.0).sum())(x32)
    assert value.dtype == gradient.dtype == np.float32
    mixed = fg.grad(lambda x, y: (x * y).sum(), argnums=(0, 1))(x32, X)
    assert [g.dtype for g in mixed] == [np.float32, np.float64]


# -- closures ----------------------------------------------------------------------------------------------------------


@backends
def test_a_captured_array_is_read_anew(backend: str):
    """Contiguous and strided ones alike, in the value and in the gradient."""
    whole = np.arange(6.0)
    for weights in (whole[:3], whole[::2], np.asfortranarray(np.arange(6.0).reshape(3, 2))[:, 1]):
        both = fg.value_and_grad(lambda x, w=weights: (w * x * w).sum(), backend=backend)
        for _ in range(3):
            value, gradient = both(X)
            equal(value, (weights**2 * X).sum())
            equal(gradient, weights**2)
            weights += 1


def test_a_captured_array_that_is_also_differentiated():
    """Closed over, it is a constant; given as an argument, a variable."""
    equal(fg.grad(lambda x: (x * X).sum())(X), X)


def test_jit_and_grad_of_closures_over_traced_values():
    @fg.jit
    def outer(x, y):
        inner = fg.jit(lambda z: z * y + x)
        slope = fg.grad(lambda z: (z * z * y).sum())
        return inner(x) + slope(x)

    equal(outer(X, X + 1), X * (X + 1) + X + 2 * X * (X + 1))
    total = fg.grad(lambda x: outer(x, x).sum())(X)
    equal(total, 2 * X + 1 + 4 * X)


def test_a_gradient_through_a_closure_of_a_closure():
    def fn(x):
        def middle(y):
            return fg.grad(lambda z: (x * y * z * z).sum())(y).sum()

        return fg.grad(middle)(x).sum()

    # d/dx sum of d/dy (2 x y y) at y = x:  4 x x
    equal(fg.grad(fn)(X), 8 * X)


# -- nestings ----------------------------------------------------------------------------------------------------------


@dataclass
class Layer:
    w: Any
    b: Any


Pair = namedtuple("Pair", "first second")


@pytest.mark.parametrize(
    ("tree", "leaves"),
    [
        ({"b": X, "a": X + 1}, lambda t: [t["a"], t["b"]]),
        ([X, (X + 1, [X + 2])], lambda t: [t[0], t[1][0], t[1][1][0]]),
        (Layer(X, X + 1), lambda t: [t.w, t.b]),
        ({"layers": [Layer(X, None), Layer(X + 1, X + 2)]}, lambda t: [t["layers"][0].w, t["layers"][1].b]),
        (Pair(X, {"x": X + 1}), lambda t: [t.first, t.second["x"]]),
        ((X, None, X + 1), lambda t: [t[0], t[2]]),
    ],
    ids=["dict", "list", "dataclass", "dataclasses", "namedtuple", "None"],
)
def test_a_gradient_nests_like_its_argument(tree, leaves):
    value, gradient = fg.value_and_grad(lambda t: sum((x * x).sum() for x in leaves(t)))(tree)
    assert type(gradient) is type(tree)
    for g, x in zip(leaves(gradient), leaves(tree), strict=True):
        equal(g, 2 * x)
    equal(value, sum((x * x).sum() for x in leaves(tree)))


def test_none_stays_none_in_a_gradient():
    gradient = fg.grad(lambda t: (t[0] * t[2]).sum())((X, None, X + 1))
    assert gradient[1] is None


def test_an_empty_nesting_has_an_empty_gradient():
    value, gradient = fg.value_and_grad(lambda t, x: (x * x).sum())({}, X)
    assert gradient == {}
    equal(value, (X * X).sum())


def test_an_op_without_a_derivative_names_itself():
    graph = graph_of(lambda x: np.sin(x).sum(), X)
    [sin, *rest] = graph.eqns
    bare = replace(sin.prim, vjp=None, jvp=None)
    broken = replace(graph, eqns=(replace(sin, prim=bare), *rest))
    with pytest.raises(UnsupportedError, match="sin: has no reverse-mode derivative"):
        autodiff.vjp(broken, [0])
    with pytest.raises(UnsupportedError, match="sin: has no forward-mode derivative"):
        autodiff.jvp(broken)
