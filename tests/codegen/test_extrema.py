"""Folds by max and min: NaN wherever it stands, infinities, both zeros, over all sets of axes, with tails of all lengths."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.codegen import past

AXES = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
SHAPES = [(1, 1, 1), (3, 5, 7), (9, 2, 33), (4, 6, 64), (5, 3, 1030)]


@pytest.fixture(params=["in cache", "out of cache"], autouse=True)
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Each fold as it is printed for little data, and as for much."""
    if request.param == "out of cache":
        monkeypatch.setattr(past, "STREAM_BYTES", 1)
        monkeypatch.setattr(past, "LEAST_ROW", 1)


def folded(op: str, axes: tuple[int, ...], x: np.ndarray) -> np.ndarray:
    return fg.jit(lambda x: getattr(np, op)(x, axis=axes))(x)


@pytest.mark.parametrize("op", ["max", "min"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("axes", AXES, ids=str)
def test_extrema_are_numpys(op: str, dtype: str, axes: tuple[int, ...]):
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        x = rng.standard_normal(shape).astype(dtype)
        np.testing.assert_array_equal(folded(op, axes, x), getattr(np, op)(x, axis=axes))
        x[rng.random(shape) < 0.05] = np.nan
        x[rng.random(shape) < 0.05] = np.inf
        x[rng.random(shape) < 0.05] = -np.inf
        np.testing.assert_array_equal(folded(op, axes, x), getattr(np, op)(x, axis=axes))


@pytest.mark.parametrize("nan", [np.nan, -np.nan])
@pytest.mark.parametrize("op", ["max", "min"])
def test_one_nan_of_either_sign_is_found_in_every_place(op: str, nan: float):
    x = np.ones((5, 37), np.float32)
    for i, j in product(range(5), range(37)):
        x[i, j] = nan
        for axis in ((0,), (1,), (0, 1)):
            np.testing.assert_array_equal(folded(op, axis, x), getattr(np, op)(x, axis=axis))
        x[i, j] = 1.0


@pytest.mark.parametrize("value", [np.inf, -np.inf, 0.0, -0.0, 3.4e38, 1e-45])
@pytest.mark.parametrize("op", ["max", "min"])
def test_rows_of_one_value(op: str, value: float):
    x = np.full((9, 40), value, np.float32)
    for axis in ((0,), (1,), (0, 1)):
        np.testing.assert_array_equal(folded(op, axis, x), getattr(np, op)(x, axis=axis))


def test_an_empty_fold_is_an_infinity():
    x = np.zeros((0, 3), np.float32)
    assert (fg.jit(lambda x: np.max(x, axis=0, initial=-np.inf))(x) == -np.inf).all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("axes", AXES, ids=str)
def test_sums(dtype: str, axes: tuple[int, ...]):
    for shape in SHAPES:
        x = np.random.default_rng(0).integers(-9, 9, shape).astype(dtype)
        np.testing.assert_array_equal(fg.jit(lambda x: np.sum(x * x, axis=axes))(x), (x * x).sum(axes))


def test_only_folds_out_of_cache_ask_for_memory_ahead(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(past, "STREAM_BYTES", 32 << 20)
    sources = [
        fg.explain(lambda x: np.max(x, axis=1), np.zeros((n, 4096), np.float32), stage="codegen")
        for n in (64, 4096)
    ]
    assert ["ahead_f32" in source for source in sources] == [False, True]
