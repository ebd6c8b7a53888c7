"""Cheap values are computed where they are read instead of stored, with the same bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import machine
from fastgrad import schedule as schedules
from fastgrad.codegen import rates as kept
from fastgrad.schedule import Gemm, Loop
from fastgrad.schedule.recompute import MOST_LINES

RNG = np.random.default_rng(0)
W = [(RNG.standard_normal((48, 48)) / 7).astype(np.float32) for _ in range(4)]
X = RNG.standard_normal((33, 48)).astype(np.float32)


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1.0 + np.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


def network(act: Callable) -> Callable:
    def loss(w: list, x: np.ndarray) -> np.ndarray:
        for layer in w:
            x = act(x @ layer)
        return (x * x).sum()

    return lambda w, x: fg.value_and_grad(loss)(w, x)


def stored(plan) -> int:
    return sum(len(s.stores) for s in plan.steps if isinstance(s, Loop | Gemm))


def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "recomputed", lambda schedule, lines: schedule)


@pytest.mark.parametrize("threads", [1, 2])
def test_gelu_keeps_two_values_of_a_layer_and_gives_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    def run() -> tuple:
        f = fg.jit(network(gelu), threads=threads)
        plan = f.compile(W, X).memory_plan()
        return f(W, X), stored(plan), plan

    (value, grads), few, plan = run()
    without(monkeypatch)
    (other, others), many, larger = run()
    assert few < many and plan.naive_bytes < larger.naive_bytes and plan.arena_bytes <= larger.arena_bytes
    first = next(s for s in plan.steps if isinstance(s, Gemm))
    assert len(first.stores) == 3, "the activation, what it is of, and a tanh"
    np.testing.assert_array_equal(value, other)
    for got, expected in zip(grads, others, strict=True):
        np.testing.assert_array_equal(got, expected)


ACTS: dict[str, Callable] = {
    "cubic": lambda z: z + 0.1 * z * z * z,
    "swish": lambda z: z / (1.0 + np.exp(-z)),
    "clip": lambda z: np.clip(z, -0.5, 0.5) * z,
    "where": lambda z: np.where(z * z > 0.25, z, 0.1 * z) + np.tanh(z),
    "two": lambda z: np.tanh(z) * np.exp(-z * z) + np.abs(z - 0.5),
}


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_stay(monkeypatch: pytest.MonkeyPatch, name: str, dtype: type) -> None:
    w, x = [layer.astype(dtype) for layer in W], X.astype(dtype)

    def elementwise(x: np.ndarray) -> np.ndarray:
        return sum(ACTS[name](x.sum(i) * x[0, 0]).sum() for i in (0, 1)) + ACTS[name](x).sum()

    def run() -> list[np.ndarray]:
        value, grads = fg.jit(network(ACTS[name]))(w, x)
        both = fg.jit(lambda x: fg.value_and_grad(elementwise)(x))(x)
        return [value, *grads, *both]

    got = run()
    without(monkeypatch)
    for a, b in zip(got, run(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_results_are_stored_all_the_same() -> None:
    def f(x: np.ndarray, w: np.ndarray) -> tuple:
        z = x @ w
        u = 2.0 * z * z
        return z, u, (np.tanh(u) * z) @ w

    z, u, last = fg.jit(f)(X, W[0])
    np.testing.assert_allclose(z, X @ W[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(u, 2 * z * z, rtol=1e-6)
    np.testing.assert_allclose(last, (np.tanh(u) * z) @ W[0], rtol=1e-3, atol=1e-4)


# -- how many lines ----------------------------------------------------------------------------------------------------


def lines_of(count: int) -> Callable:
    """Two values of which the second comes of the first in ``count`` lines, both read behind a product."""

    def f(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        z = u = x @ w
        for i in range(count):
            u = u * z if i % 2 == 0 else u + 0.5
        return ((u * z) @ w) * u + z

    return f


def machine_with(monkeypatch: pytest.MonkeyPatch, peak: float, copy: float) -> machine.Rates:
    rates = machine.shipped(64, 2)
    levels = tuple(level._replace(copy=(copy, 2 * copy)) for level in rates.levels)
    rates = dataclasses.replace(rates, float32=(peak, 2 * peak), levels=levels)
    monkeypatch.setattr(kept, "measured", lambda: rates)
    return rates


@pytest.mark.parametrize(
    ("peak", "copy", "lines"), [(250.0, 100.0, 8), (250.0, 50.0, 12), (100.0, 100.0, 4), (1.0, 1e3, 4)]
)
def test_the_machine_says_how_many_lines_a_store_is_worth(
    monkeypatch: pytest.MonkeyPatch, peak: float, copy: float, lines: int
) -> None:
    assert machine_with(monkeypatch, peak, copy).lines_worth_storing == lines
    for count in (3, 4, 5, 8, 9, 12, 13):
        (first, *_) = [s for s in fg.jit(lines_of(count)).compile(X, W[0]).memory_plan().steps if s.stores]
        assert (len(first.stores) == 2) == (count <= lines), count


def test_bits_do_not_depend_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for peak, copy in ((100.0, 100.0), (250.0, 100.0), (250.0, 50.0)):
        machine_with(monkeypatch, peak, copy)
        results.append([fg.jit(lines_of(count))(X, W[0]).tobytes() for count in (3, 7, 11)])
    assert results[0] == results[1] == results[2]


def test_each_reader_counts() -> None:
    def f(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        z = u = x @ w
        for _ in range(4):
            u = u * z + 0.5
        a = ((u * z) @ w) * u + z
        return (a @ w) * u - z

    graph = fg.jit(f).lower(X, W[0])
    stored = {n: len(schedules.schedule(graph, n).steps[0].stores) for n in (7, 9, 10)}
    assert stored == {7: 3, 9: 3, 10: 2}, "seven lines, twice, for three moves: 7 <= 3 / 4 of 10"


def test_shipped_rates_ask_for_what_measured_ones_do() -> None:
    assert {machine.shipped(size).lines_worth_storing for size in (64, 32)} == {MOST_LINES}
