"""`fg.scan` and its kin as users call them: nestings, numbers, closures, sizes of zero, inside and outside of traces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from programs import BACKENDS, graph_of

import fastgrad as fg
import fastgrad.control.while_
import fastgrad.numpy as fnp
from fastgrad import pytree
from fastgrad.interpreter import evaluate

X = np.array([1.0, 2.0, 4.0])
backends = pytest.mark.parametrize("backend", BACKENDS)


class State(NamedTuple):
    h: np.ndarray
    count: int


def test_nested_carries_and_slices():
    def step(state, x):
        h = np.tanh(state.h + x["a"] * x["b"][0])
        return State(h, state.count + 1), {"h": h, "sum": [h.sum(), x["a"]]}

    xs = {"a": np.arange(4.0), "b": np.ones((4, 2, 3))}
    last, ys = fg.scan(step, State(np.zeros(3), 0), xs)
    assert isinstance(last, State)
    assert last.count == 4 and last.count.dtype == np.int64
    assert ys["h"].shape == (4, 3) and ys["sum"][0].shape == (4,)
    np.testing.assert_array_equal(ys["sum"][1], xs["a"])


def test_numbers_take_the_dtype_that_the_body_makes_of_them():
    total, ys = fg.scan(lambda t, x: (t + x, t), 0.0, X.astype(np.float32))
    assert (total.dtype, ys.dtype) == (np.float32, np.float32)
    assert fg.scan(lambda t, x: (t + x, None), 0, X)[0].dtype == np.float64
    assert fg.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * np.float32(2)), (0, 1.0))[
        1
    ].dtype == (np.float32)
    value = fg.cond(True, lambda x: 0.0, lambda x: x, np.float32(3))
    assert value.dtype == np.float32
    kept = fg.scan(lambda t, x: (0.0, x), np.float32(1), X)[0]  # a number put into a float32 carry
    assert kept.dtype == np.float32


def test_the_count_of_a_loop_promotes_as_a_python_integer():
    out = fg.fori_loop(0, 3, lambda i, v: v * i + 1, np.float32(1))
    assert out.dtype == np.float32 and out == 5


@backends
def test_bounds_may_be_traced(backend: str):
    f = fg.jit(lambda n, x: fg.fori_loop(1, n, lambda i, v: v * i, x), backend=backend)
    assert [f(np.int64(n), np.array(1.0)) for n in (0, 1, 5)] == [1, 1, 24]


@backends
def test_bodies_close_over_values_and_arrays(backend: str):
    table = np.array([1.0, 10.0])

    def f(w, xs):
        scale = np.exp(w)
        return fg.scan(lambda c, x: (c * scale + x * table, c.sum()), fnp.zeros(2), xs)[1].sum()

    g = fg.grad(f, backend=backend)
    first = g(np.array(0.1), X)
    table *= 2.0  # read anew at every run
    np.testing.assert_allclose(g(np.array(0.1), X), 2 * first)


def test_lengths_of_zero_and_one():
    for n in (0, 1):
        xs = np.ones((n, 2))
        carry, ys = fg.scan(lambda c, x: (c + x, c), np.zeros(2), xs)
        assert ys.shape == (n, 2)
        np.testing.assert_array_equal(carry, [n, n])
        _, (by_init, by_xs) = fg.value_and_grad(
            lambda c, xs: fg.scan(lambda c, x: (c * x, None), c, xs)[0].sum(), argnums=(0, 1)
        )(np.full(2, 3.0), xs)
        np.testing.assert_array_equal(by_init, [1, 1])
        assert by_xs.shape == (n, 2)


def test_without_slices():
    carry, ys = fg.scan(lambda c, _: (c * 2.0, c), 1.0, None, length=4)
    assert carry == 16
    np.testing.assert_array_equal(ys, [1, 2, 4, 8])
    assert fg.scan(lambda c, _: (c, None), (), None, length=3) == ((), None)


def test_ys_stand_at_the_index_of_their_slice():
    _, ys = fg.scan(lambda c, x: (c + x, c), 0.0, X, reverse=True)
    np.testing.assert_array_equal(ys, [6, 4, 0])


def test_only_the_branch_taken_runs():
    rows = np.arange(3)

    def f(i, x):
        return fg.cond(i < 3, lambda: fnp.take(x, i, 0), lambda: -1.0)

    graph = graph_of(lambda i, x: (f(i, x),), [np.int64(0), X])
    assert [evaluate(graph, [np.int64(i), X])[0] for i in rows] == list(X)
    assert evaluate(graph, [np.int64(7), X])[0] == -1


def test_an_index_is_clamped():
    branches = [lambda x: x, lambda x: x * 10]
    assert [fg.switch(i, branches, np.array(2.0)) for i in (-5, 0, 1, 5)] == [2, 2, 20, 20]
    assert fg.switch(np.uint64(2**63 + 1), branches, np.array(2.0)) == 20  # beyond int64, not below zero


def test_a_predicate_that_is_a_number_holds_where_it_is_not_zero():
    assert [fg.cond(p, lambda: 1, lambda: 2) for p in (True, False, 0.0, 3)] == [1, 2, 2, 1]


def test_a_bound_stops_the_loop():
    assert fg.while_loop(lambda x: x < 100.0, lambda x: x * 2.0, 1.0, bound=3) == 8


def test_a_loop_on_arrays_is_traced_once():
    calls = []

    def step(c, x):
        calls.append(1)
        return c + x, c

    for _ in range(3):
        fg.scan(step, np.zeros(()), X)
    assert len(calls) == 1
    fg.scan(step, np.zeros(2), np.zeros((5, 2)))
    assert len(calls) == 2


def test_the_graph_does_not_depend_on_the_length():
    def text(n):
        f = lambda c, xs: fg.scan(lambda c, x: (np.tanh(c + x), c * 2), c, xs)  # noqa: E731
        graph = graph_of(f, [np.zeros(3), np.zeros((n, 3))])
        return str(graph).replace(f"length={n}", "length=n").replace(f"[{n},", "[n,")

    assert text(10) == text(10_000)


def test_inside_a_trace_of_the_graph_builder():
    g = fg.Graph()
    x = g.input("x", (3,), np.float64)
    g.output(fg.scan(lambda c, v: (c + v * x[0], None), 0.0, x)[0])
    assert evaluate(g.build(), [X])[0] == 7


@backends
def test_a_gradient_inside_a_body(backend: str):
    """Newton's method on x**2 = a, each step with its own gradient; differentiated by a once more."""

    def root(a):
        f = lambda x: (x * x - a) ** 2  # noqa: E731
        return fg.fori_loop(0, 40, lambda i, x: x - 0.1 * fg.grad(f)(x), 1.0)

    np.testing.assert_allclose(fg.jit(root, backend=backend)(np.array(2.0)), np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(fg.grad(root, backend=backend)(np.array(2.0)), 0.5 / np.sqrt(2), rtol=1e-4)


@backends
def test_results_that_are_consts_or_slices_stay_whole_in_reverse(backend: str):
    """A const that backward reads may be put out by every step as well: backward reads the const, not the stack."""

    def f(a, xs):
        last, (consts, slices) = fg.scan(lambda c, x: (np.sin(c * a) + x * a, (a, x)), a, xs)
        return (last**2).sum() + (consts**2).sum() + (slices * a).sum()

    def written_out(a, xs):
        c = a
        for i in range(3):
            c = np.sin(c * a) + xs[i] * a
        return (c**2).sum() + 3 * (a**2).sum() + (xs * a).sum()

    a, xs = np.array([0.3, -0.7]), np.array([[0.1, 2.0], [-1.0, 0.4], [0.5, 0.6]])
    for derive in (fg.grad, fg.hessian):
        got = derive(f, argnums=(0, 1), backend=backend)(a, xs)
        expected = derive(written_out, argnums=(0, 1), backend="numpy")(a, xs)
        for x, y in zip(pytree.flatten(got)[0], pytree.flatten(expected)[0], strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12)


@backends
def test_a_carry_of_bools_is_an_or(backend: str):
    f = fg.jit(lambda c, xs: fg.scan(lambda c, x: (c + x, x), c, xs), backend=backend)
    any_, ys = f(np.array([False, True, False]), np.array([[True, False, False], [True, False, False]]))
    assert any_.dtype == ys.dtype == np.bool_ and any_.tolist() == [True, True, False]


@backends
def test_numbers_of_a_long_loop_are_counted(backend: str, monkeypatch):
    """They are no array that grows with the loop, and say the same."""
    f = lambda x: fg.fori_loop(-1, 4, lambda i, v: v * 0.5 + i * v, x)  # noqa: E731
    x = np.array([1.0, 2.0])
    listed = fg.jit(f, backend=backend)(x), fg.jacrev(f, backend=backend)(x)
    monkeypatch.setattr(fastgrad.control.while_, "_LISTED", 3)
    g = lambda x: f(x)  # noqa: E731
    counted = fg.jit(g, backend=backend)(x), fg.jacrev(g, backend=backend)(x)
    for a, b in zip(listed, counted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)
    graph = graph_of(lambda x: (f(x),), [x])
    assert not graph.captured and fg.fori_loop(2, 1, lambda i, v: v + i, 5) == 5
