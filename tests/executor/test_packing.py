"""Products whose operands are packed by a step of their own: which ones, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.schedule import Gemm, Loop, Pack, Region

FORMS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "NN": lambda a, b: a @ b,
    "NT": lambda a, b: a @ b.T,
    "TN": lambda a, b: a.T @ b,
    "TT": lambda a, b: a.T @ b.T,
}


def operands(form: str, m: int, k: int, n: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((k, m) if form[0] == "T" else (m, k)).astype(dtype)
    return a, rng.standard_normal((n, k) if form[1] == "T" else (k, n)).astype(dtype)


def steps(f: Callable, *args: np.ndarray) -> list[str]:
    plan = fg.jit(f).compile(*args).memory_plan()
    return [type(s).__name__ for s in plan.steps if isinstance(s, (Gemm, Pack))]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_products_are_right_at_any_number_of_threads(form: str, dtype: str) -> None:
    m, k, n = 431, 517, 603
    a, b = operands(form, m, k, n, dtype)
    results = [fg.jit(FORMS[form], threads=t)(a, b) for t in (1, 2)]
    expected = FORMS[form](a.astype(np.float64), b.astype(np.float64))
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(results[0], expected, rtol=0, atol=k * eps * 16)
    np.testing.assert_array_equal(*results)
    assert ("Pack" in steps(FORMS[form], a, b)) == (form != "NN")  # that one packs its panels in passing


def test_a_large_operand_for_many_rows_is_packed_ahead() -> None:
    a, b = operands("NN", 800, 517, 603, "float32")
    assert steps(FORMS["NN"], a, b) == ["Pack", "Gemm"]
    np.testing.assert_allclose(fg.jit(FORMS["NN"], threads=2)(a, b), a.astype(np.float64) @ b, atol=1e-2)


def test_rows_that_share_cache_sets_are_packed_for_many_columns() -> None:
    both = ["Pack", "Pack", "Gemm"]
    for m, n, k, packed in (
        (770, 1024, 1024, both),
        (770, 1024, 1025, ["Pack", "Gemm"]),
        (770, 1000, 1024, ["Pack", "Gemm"]),
        (700, 1024, 1024, ["Gemm"]),  # B is packed in passing
    ):
        a, b = operands("NN", m, k, n, "float32")
        assert steps(FORMS["NN"], a, b) == packed
        results = [fg.jit(FORMS["NN"], threads=t)(a, b) for t in (1, 2)]
        np.testing.assert_allclose(results[0], a.astype(np.float64) @ b, atol=2e-2)
        np.testing.assert_array_equal(*results)


def test_small_products_are_not_packed() -> None:
    for form, f in FORMS.items():
        assert steps(f, *operands(form, 64, 32, 64, "float32")) == ["Gemm"]


def test_packing_inside_a_loop() -> None:
    rng = np.random.default_rng(1)
    w = rng.standard_normal((512, 512)).astype(np.float32) / 30
    x = rng.standard_normal((400, 512)).astype(np.float32)

    def f(w: np.ndarray, x: np.ndarray) -> np.ndarray:
        return fg.fori_loop(0, 3, lambda i, h: np.tanh(h @ w), x)

    expected = x.astype(np.float64)
    for _ in range(3):
        expected = np.tanh(expected @ w)
    np.testing.assert_allclose(fg.jit(f)(w, x), expected, atol=2e-5)


def recurrent(w: np.ndarray, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    def turn(h: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, None]:
        return np.tanh(h @ w + x), None

    return fg.scan(turn, h, x)[0]


def unrolled(w: np.ndarray, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    for part in x:
        h = np.tanh(h @ w + part)
    return h


def recurrent_operands(rows: int, width: int, trips: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(5)
    shapes = (width, width), (trips, rows, width), (rows, width)
    w, x, h = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    return w / np.float32(np.sqrt(width)), x, h


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [1, 4, 30])
def test_weights_of_a_loop_are_packed_once(rows: int, threads: int) -> None:
    """In front of it, forwards and backwards, where rows are enough over all turns; values are those of no loop."""
    args = recurrent_operands(rows, 512, 200)
    plan = fg.jit(recurrent).compile(*args).memory_plan()
    assert ("Pack" in [type(s).__name__ for s in plan.steps]) == (rows > 1)
    (loop,) = [s for s in plan.steps if isinstance(s, Region)]
    assert [type(s).__name__ for s in loop.parts[0].steps].count("Pack") == 0
    got = fg.jit(recurrent, threads=threads)(*args)
    np.testing.assert_array_equal(got, fg.jit(recurrent, threads=1)(*args))


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_through_a_loop_whose_weights_are_packed_once(threads: int) -> None:
    args = recurrent_operands(16, 512, 60)

    def gradient(f: Callable) -> tuple[np.ndarray, ...]:
        return fg.grad(lambda *a: (f(*a) ** 2).mean(), (0, 1, 2), threads=threads)(*args)

    def count(steps: tuple) -> int:
        return sum(isinstance(s, Pack) for s in steps)

    plan = fg.grad(lambda *a: (recurrent(*a) ** 2).mean(), (0, 1, 2)).compile(*args).memory_plan()
    assert count(plan.steps) >= 2  # of the weights and of their transpose
    assert not any(count(s.parts[0].steps) for s in plan.steps if isinstance(s, Region))
    for got, expected in zip(gradient(recurrent), gradient(unrolled), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-3)


def test_packs_leave_both_loops_of_a_nest_and_only_what_stays_leaves() -> None:
    w, x, h = recurrent_operands(40, 512, 30)

    def nest(w: np.ndarray, x: np.ndarray, h: np.ndarray) -> np.ndarray:
        def outer(i: np.ndarray, h: np.ndarray) -> np.ndarray:
            scaled = w * (1 + 0.001 * i)  # another one in each turn of the outer loop
            return fg.fori_loop(0, 3, lambda j, h: np.tanh((np.tanh(h @ w) + x[0]) @ scaled), h)

        return fg.fori_loop(0, 30, outer, h)

    plan = fg.jit(nest).compile(w, x, h).memory_plan()
    (outer,) = [s for s in plan.steps if isinstance(s, Region)]
    body = outer.parts[-1].steps
    (inner,) = [s for s in body if isinstance(s, Region)]
    packs = [sum(isinstance(s, Pack) for s in steps) for steps in (plan.steps, body, inner.parts[-1].steps)]
    assert packs[0] == 1 and packs[2] == 0
    expected = h.astype(np.float64)
    for i in range(30):
        for _ in range(3):
            expected = np.tanh((np.tanh(expected @ w) + x[0]) @ (w * (1 + 0.001 * i)))
    np.testing.assert_allclose(fg.jit(nest, threads=2)(w, x, h), expected, atol=5e-2)


def test_bfloat16_weights_of_a_loop_are_packed_once() -> None:
    args = recurrent_operands(16, 128, 5)
    plan = fg.jit(recurrent, precision="bfloat16").compile(*args).memory_plan()
    (loop,) = [s for s in plan.steps if isinstance(s, Region)]
    assert [type(s).__name__ for s in plan.steps].count("Pack") == 1
    assert [type(s).__name__ for s in loop.parts[0].steps].count("Pack") == 1  # the carry's
    got = fg.jit(recurrent, precision="bfloat16")(*args)
    np.testing.assert_allclose(got, unrolled(*args), atol=0.1)


@pytest.mark.parametrize("m", [0, 1, 30, 130, 500])
def test_a_bias_gradient_is_a_sum_in_the_product_before_it(m: int) -> None:
    """One product, and one loop that adds up its row blocks where there are several; the same bits at any thread count."""
    rng = np.random.default_rng(3)
    dy, w, z = (rng.standard_normal(s).astype(np.float32) for s in ((m, 400), (512, 400), (m, 512)))

    def f(dy: np.ndarray, w: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dz = (dy @ w.T) * (z > 0)
        return dz, dz.sum(0)

    results = [fg.jit(f, threads=t)(dy, w, z) for t in (1, 2)]
    expected = f(dy.astype(np.float64), w, z)
    for got, again, want in zip(*results, expected, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-2)
        np.testing.assert_array_equal(got, again)
    plan = fg.jit(f).compile(dy, w, z).memory_plan()
    products = [s for s in plan.steps if isinstance(s, Gemm)]
    assert [len(s.folds) for s in products] == [1]
    assert (
        all(s.reduced == (0,) and s.shape[0] < max(1, m) for s in plan.steps if isinstance(s, Loop)) or m <= 1
    )


def test_epilogues_after_packed_operands() -> None:
    rng = np.random.default_rng(2)
    a, b = operands("TN", 450, 300, 500, "float32")
    bias = rng.standard_normal(500).astype(np.float32)

    def f(a: np.ndarray, b: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        h = a.T @ b + bias
        return np.maximum(h, 0), h.sum(0)

    assert steps(f, a, b, bias)[0] == "Pack"
    got, sums = fg.jit(f)(a, b, bias)
    h = a.T.astype(np.float64) @ b + bias
    np.testing.assert_allclose(got, np.maximum(h, 0), atol=1e-3)
    np.testing.assert_allclose(sums, h.sum(0), atol=1e-1)


def test_a_sum_of_products_is_an_epilogue_of_the_last() -> None:
    """However many are added, and whatever reads one of them as well; what follows joins too."""
    rng = np.random.default_rng(4)
    x, h, w, u, v = (
        rng.standard_normal(s).astype(np.float32) for s in ((9, 20), (9, 33), (20, 40), (33, 40), (20, 40))
    )

    def cell(x, h, w, u, v):  # type: ignore[no-untyped-def]
        return np.tanh(x @ w + h @ u + x @ v)

    def read_twice(x, h, w, u, v):  # type: ignore[no-untyped-def]
        first = x @ w
        return (first + h @ u) @ v.T, first.sum(1)

    def chained(x, h, w, u, v):  # type: ignore[no-untyped-def]
        first = x @ w
        return first * (first @ v.T @ w), first + h @ u  # what needs the first may not wait for itself

    def centred(x, h, w, u, v):  # type: ignore[no-untyped-def]
        first = x @ w
        return first - first.sum(0) + h @ u  # nor for its own sum

    for f, loops in ((cell, 0), (read_twice, 1), (chained, 0), (centred, 1)):
        got, want = fg.jit(f)(x, h, w, u, v), f(*(a.astype(np.float64) for a in (x, h, w, u, v)))
        for g, e in zip(*((r,) if isinstance(r, np.ndarray) else r for r in (got, want)), strict=True):
            np.testing.assert_allclose(g, e, rtol=1e-3, atol=1e-2)
        plan = fg.jit(f).compile(x, h, w, u, v).memory_plan()
        assert sum(isinstance(s, Loop) for s in plan.steps) == loops
