"""Products whose operands are packed by a step of their own: which ones, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.schedule import Gemm, Pack

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
    assert "Pack" in steps(FORMS[form], a, b)


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
