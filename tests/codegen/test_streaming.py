"""Large results are written past the cache: the same numbers, nothing outside, never over an operand."""

from __future__ import annotations

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.codegen import past
from fastgrad.core.aval import aval_of
from fastgrad.core.graph import Graph
from fastgrad.executor.executable import Executable
from fastgrad.trace import trace


def test_a_piece_fits_the_frame():
    """Numba's side of these kernels and ours name the sizes each for itself: ours may not import Numba."""
    from fastgrad.codegen.simd import intrinsics

    assert (past.PIECE_BYTES, past.MOST_AHEAD) == (intrinsics.PIECE_BYTES, intrinsics.MOST_AHEAD)


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(past, "STREAM_BYTES", 1)
    monkeypatch.setattr(past, "STRETCH_BYTES", 1)


def graph_of(fn, *arrays: np.ndarray) -> Graph:
    return trace(lambda *xs: list(fn(*xs)), [aval_of(a) for a in arrays], name="streamed")


def both(x, row):
    return x + row, x * row, x < row


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "u1"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 63), (5, 64), (2, 4097), (7, 129)], ids=str)
def test_streamed_results_are_numpys(small_is_large, dtype: str, shape: tuple[int, int]):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 9, shape).astype(dtype), rng.integers(0, 9, shape[1:]).astype(dtype)]
    graph = graph_of(both, *arrays)
    compiled = Executable(graph)
    assert "(o0 + p" in compiled.source() and "streamed()" in compiled.source()
    for a, b in zip(compiled(*arrays), both(*arrays), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("offset", range(0, 72, 8))
def test_nothing_outside_is_written(small_is_large, offset: int):
    x, row = np.ones((3, 71)), np.arange(71.0)
    compiled = Executable(graph_of(lambda x, row: [x + row], x, row))
    room = np.full(3 * 71 + 20, -1.0)
    start = offset // 8
    out = room[start : start + 3 * 71].reshape(3, 71)
    compiled(x, row, out=[out])
    np.testing.assert_array_equal(out, x + row)
    assert (room[:start] == -1).all() and (room[start + 3 * 71 :] == -1).all()


def test_small_results_are_not_streamed():
    x = np.ones(5000)
    assert "streamed()" not in Executable(graph_of(lambda x: [x + 1.0], x)).source()


def test_updates_in_place_are_not_streamed(small_is_large):
    """What is read in the same loop is in the cache already."""
    step = fg.TrainStep(lambda p, x: ((p - x) ** 2).sum(), np.ones(5000), fg.optim.SGD(0.1, momentum=0.9))
    step(np.zeros(5000))
    gradient, update = _kernels(step)
    assert "streamed()" in gradient and "streamed()" not in update


def _kernels(step: fg.TrainStep) -> tuple[str, str]:
    """The kernel that writes the gradient, and the one that updates momentum and parameters."""
    texts = ["def kernel" + text for text in step.executable.source().split("def kernel")[1:]]
    [update] = [text for text in texts if "y1 = word" in text]
    [gradient] = [text for text in texts if "y0 = word" in text and "z0 = word" in text]
    return gradient, update
