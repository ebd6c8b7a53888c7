"""Folds over many rows are cut into stretches: NumPy's numbers, the same bits on any number of threads, nothing else cut."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import passes
from fastgrad.core.aval import aval_of
from fastgrad.executor.executable import Executable
from fastgrad.schedule import Loop, schedule
from fastgrad.trace import trace

sys.path.insert(0, str(Path(__file__).resolve().parent))

from test_jit_off import close, run_in_python

nest = importlib.import_module("fastgrad.schedule.nest")


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nest, "PART_BYTES", 1)
    monkeypatch.setattr(nest, "PART_ROWS", 2)


def graph_of(fn, *arrays: np.ndarray):
    return passes.run(trace(lambda *xs: list(fn(*xs)), [aval_of(a) for a in arrays]))


def cut(graph) -> list[int]:
    return [step.parts for step in schedule(graph).steps if isinstance(step, Loop) and step.folds]


def many(x, row):
    scaled = np.tanh(x) * row
    return scaled, scaled.sum(0), x.max(0), x.min(0), (x > 0.3).sum(0), (x * x).sum((0, 1))


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 31, 32, 33, 47, 129])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_parts_are_numpys(few_are_many, rows: int, dtype: str):
    x = np.random.default_rng(0).standard_normal((rows, 37)).astype(dtype)
    row = np.arange(37).astype(dtype)
    graph = graph_of(many, x, row)
    assert (max(cut(graph)) > 1) == (rows > 3)
    for a, b in zip(Executable(graph)(x, row), many(x, row), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5 if dtype == "f4" else 1e-12, atol=1e-5)


def test_parts_in_python(few_are_many):
    x = np.random.default_rng(0).standard_normal((13, 9))
    graph = graph_of(many, x, np.arange(9.0))
    assert max(cut(graph)) > 1
    close(run_in_python(graph, [x, np.arange(9.0)]), many(x, np.arange(9.0)))


def test_leading_axes_together_and_nan(few_are_many):
    x = np.random.default_rng(0).standard_normal((7, 11, 5)).astype("f4")
    x[3, 4, 2] = np.nan
    graph = graph_of(lambda x: (x.max((0, 1)), x.sum((0, 1))), x)
    assert max(cut(graph)) > 1
    for a, b in zip(Executable(graph)(x), (x.max((0, 1)), x.sum((0, 1))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_the_same_bits_on_any_number_of_threads():
    x = np.random.default_rng(0).standard_normal((9001, 130)).astype("f4")
    one, two = (fg.jit(lambda x: (x.sum(0), np.max(x, 0)), threads=n)(x) for n in (1, 2))
    assert cut(graph_of(lambda x: (x.sum(0),), x)) == [32, 1]
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


def test_small_folds_are_one_loop():
    assert cut(graph_of(lambda x: (x.sum(0),), np.ones((1000, 100), "f4"))) == [1]
    assert cut(graph_of(lambda x: (x.sum(1),), np.ones((4096, 1024), "f4"))) == [1]
