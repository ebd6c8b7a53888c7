"""Loops and branches on the tape: rows that jump, words that move with a loop, memory of their own."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import passes
from fastgrad.codegen import abi
from fastgrad.core.aval import aval_of
from fastgrad.errors import OutOfBoundsError
from fastgrad.executor.executable import Executable
from fastgrad.trace import trace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "codegen"))

from test_jit_off import run_in_python


def cell(w, h, n, xs, length=None, reverse=False):
    """Two carries of which one must take turns, three results of which one is the carry as it came in."""

    def body(carry, x):
        h, n = carry
        new = np.tanh(h @ w + x)
        return (new, n + 1.0), (new.sum(), h, n)

    return fg.scan(body, (h, n), xs, length, reverse)


def by_hand(w, h, n, xs, reverse=False):
    steps = range(len(xs))
    sums, states, counts = np.zeros(len(xs)), np.zeros((len(xs), *h.shape)), np.zeros(len(xs))
    for t in reversed(steps) if reverse else steps:
        states[t], counts[t] = h, n
        h, n = np.tanh(h @ w + xs[t]), n + 1.0
        sums[t] = h.sum()
    return [h, n, sums, states, counts]


def arrays(length: int, width: int = 3, rows: int = 2):
    rng = np.random.default_rng(length)
    return [
        rng.standard_normal((width, width)) / width**0.5, rng.standard_normal((rows, width)), np.zeros(()),
        rng.standard_normal((length, rows, width)),
    ]  # fmt: skip


def graph_of(f, inputs):
    def flat(*xs):
        (h, n), ys = f(*xs)
        return [h, n, *ys]

    return passes.run(trace(flat, [aval_of(a) for a in inputs]))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 1, 2, 5, 8])
def test_a_scan_is_its_loop_time_and_again(length, reverse):
    inputs = arrays(length)
    graph = graph_of(lambda *xs: cell(*xs, reverse=reverse), inputs)
    executable = Executable(graph)
    expected = by_hand(*inputs, reverse=reverse)
    for _ in range(3):  # words that moved are back where they began
        for got, want in zip(executable(*inputs), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)
    for got, want in zip(run_in_python(graph, inputs), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


def test_rows_inside_a_loop_are_shared_among_threads():
    inputs = arrays(6, width=96, rows=512)
    graph = graph_of(cell, inputs)
    one, two = Executable(graph, threads=1), Executable(graph, threads=2)
    rows = two.program.native.tape.words
    kinds = rows[abi.HEADER :][: abi.ROW * rows[abi.N_ROWS]].reshape(-1, abi.ROW)[:, abi.KIND]
    if two.program.native.runtime.pool_threads > 1:
        assert abi.PARALLEL in kinds
    for a, b in zip(one(*inputs), two(*inputs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_nested_loop_begins_anew_each_time():
    def f(h, xs):
        def outer(h, rows):
            def inner(h, x):
                return 0.5 * h + x, h

            h, seen = fg.scan(inner, h, rows)
            return h, seen.sum(0)

        return fg.scan(outer, h, xs, reverse=True)

    h, xs = np.ones(2), np.random.default_rng(0).standard_normal((4, 3, 2))
    expected = np.zeros((4, 2))
    want = h
    for t in reversed(range(4)):
        for k in range(3):
            expected[t] += want
            want = 0.5 * want + xs[t, k]
    for _ in range(2):
        got = fg.jit(f)(h, xs)
        np.testing.assert_allclose(got[0], want)
        np.testing.assert_allclose(got[1], expected)


def test_carries_change_places():
    def f(a, b, xs):
        return fg.scan(lambda c, x: ((c[1], c[0] + x), c[0]), (a, b), xs)

    a, b, xs = np.array([1.0, 2.0]), np.array([10.0, 20.0]), np.arange(10.0).reshape(5, 2)
    (x, y), seen = fg.jit(f)(a, b, xs)
    for t in range(5):
        np.testing.assert_array_equal(seen[t], a)
        a, b = b, a + xs[t]
    np.testing.assert_array_equal([x, y], [a, b])


def test_condition_and_body_of_a_while_loop_have_operands_of_their_own():
    def f(limit, a, b, x, n):
        return fg.while_loop(
            lambda c: c[1] * limit[0] < limit[1], lambda c: (c[0] * a + b[1], c[1] + a * b[0]), (x, n)
        )

    limit, a, b = np.array([2.0, 31.0]), np.array(3.0), np.array([0.5, 7.0])
    x, n = np.arange(3.0), np.array(1.0)
    got = fg.jit(f)(limit, a, b, x, n)
    while n * limit[0] < limit[1]:
        x, n = x * a + b[1], n + a * b[0]
    np.testing.assert_allclose(got[0], x)
    assert got[1] == n


def test_memory_of_a_scan_does_not_depend_on_its_length():
    peaks = []
    for length in (10, 1000):
        w, h, n, xs = arrays(length)
        plan = fg.jit(lambda w, h, n, xs: cell(w, h, n, xs)[0]).compile(w, h, n, xs).memory_plan()
        peaks.append(plan.arena_bytes)
    assert peaks[0] == peaks[1]


def test_kernels_and_tape_of_a_scan_do_not_depend_on_its_length():
    def loss(w, h, n, xs):
        return cell(w, h, n, xs)[0][0].sum()

    both = fg.value_and_grad(loss)
    short, long = (both.compile(*arrays(length)).program.native.tape for length in (7, 3000))
    assert short.texts == long.texts and short.words.size == long.words.size


def test_only_the_branch_that_is_taken_runs():
    calls = np.array([5, 0, 99])

    def f(i, x):
        return fg.switch(i, [lambda x: x[0], lambda x: np.take(x, calls[2:] + 0 * i, 0)[0]], x)

    jitted = fg.jit(f)
    x = np.arange(3.0)
    assert jitted(np.array(0), x) == 0.0
    with pytest.raises(OutOfBoundsError, match="index 99 is out of bounds"):
        jitted(np.array(1), x)
    assert jitted(np.array(0), x) == 0.0


def test_an_error_in_a_loop_leaves_the_program_usable():
    def f(table, places):
        return fg.scan(lambda total, i: (total + np.take(table, i, 0), total), 0.0, places)

    jitted = fg.jit(f)
    table, good = np.arange(4.0), np.array([1, 3, 0, 2, 3])
    want = jitted(table, good)
    for at in range(5):
        bad = good.copy()
        bad[at] = 7
        with pytest.raises(OutOfBoundsError, match="take: index 7 is out of bounds for an axis of size 4"):
            jitted(table, bad)
        again = jitted(table, good)
        assert again[0] == want[0] == 9.0
        np.testing.assert_array_equal(again[1], want[1])


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that sends signals")
def test_a_loop_without_an_end_can_be_stopped():
    """However little one iteration costs: nobody knows how many there are."""
    f = fg.jit(lambda n: fg.while_loop(lambda i: i < n, lambda i: i + 1, 0), threads=1)
    assert f(7) == 7

    def stop(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            f(2**60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert f(7) == 7


def test_bounds_beyond_what_words_hold():
    """Estimates of loops in loops multiply, and a bound may be any number."""

    def f(x):
        inner = lambda v: fg.while_loop(lambda w: w < 8.0, lambda w: w * 2, v + 1, bound=10**30)  # noqa: E731
        outer = lambda v: fg.while_loop(lambda w: w < 32.0, inner, v, bound=2**39)  # noqa: E731
        return fg.while_loop(lambda v: v < 128.0, lambda v: outer(v) * 4, x, bound=2**39)

    assert fg.jit(f)(1.0) == fg.jit(f, backend="numpy")(1.0)
