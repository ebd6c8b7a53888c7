"""Clipping by the global norm: the same updates as PyTorch's rule by hand, one reduction and one update kernel."""

from __future__ import annotations

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.errors import ArgumentError
from fastgrad.schedule import Loop

PARAMS = {"w": np.arange(6.0).reshape(2, 3), "b": np.array([0.5, -2.0])}


def loss(p, x):
    return ((p["w"] @ x - p["b"]) ** 2).sum()


def gradient(p, x):
    error = 2.0 * (p["w"] @ x - p["b"])
    return {"w": np.outer(error, x), "b": -error}


def norm_of(grads) -> float:
    return float(np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads.values())))


X = np.array([1.0, -0.5, 0.25])


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("bound", [0.0, 0.3, 1e6])
def test_sgd_with_a_bound_is_the_rule_by_hand(backend: str, bound: float):
    step = fg.TrainStep(loss, PARAMS, fg.optim.SGD(0.1, clip_norm=bound), backend=backend)
    expected = {k: v.copy() for k, v in PARAMS.items()}
    for _ in range(3):
        step(X)
        grads = gradient(expected, X)
        scale = min(1.0, bound / (norm_of(grads) + 1e-6))
        expected = {k: v - 0.1 * scale * grads[k] for k, v in expected.items()}
    for k, v in expected.items():
        np.testing.assert_allclose(step.params[k], v, rtol=1e-12)


def test_the_norm_runs_over_both_dtypes():
    params = {"w": PARAMS["w"].astype(np.float32), "b": PARAMS["b"]}
    step = fg.TrainStep(loss, params, fg.optim.SGD(1.0, clip_norm=1.0))
    step(X)
    moved = {k: params[k] - step.params[k] for k in params}
    np.testing.assert_allclose(norm_of(moved), 1.0, rtol=1e-5)


def test_tensors_are_clipped_together():
    w, b = (fg.Tensor(PARAMS[k], requires_grad=True) for k in ("w", "b"))
    optimizer = fg.optim.SGD([w, b], 1.0, clip_norm=0.5)
    loss({"w": w, "b": b}, X).backward()
    optimizer.step()
    moved = {"w": PARAMS["w"] - w.numpy(), "b": PARAMS["b"] - b.numpy()}
    np.testing.assert_allclose(norm_of(moved), 0.5, rtol=1e-5)


def test_the_bound_is_a_scalar_of_the_state():
    step = fg.TrainStep(loss, PARAMS, fg.optim.SGD(1.0, clip_norm=1.0))
    step.state["optimizer"]["clip_norm"][...] = 0.25
    step(X)
    moved = {k: PARAMS[k] - step.params[k] for k in PARAMS}
    np.testing.assert_allclose(norm_of(moved), 0.25, rtol=1e-5)


def test_a_gradient_that_is_nan_shows():
    step = fg.TrainStep(loss, PARAMS, fg.optim.SGD(1.0, clip_norm=1.0))
    step(np.array([1.0, np.nan, 0.0]))
    assert all(np.isnan(v).all() for v in (step.params["w"], step.params["b"]))


def test_adam_with_a_bound_is_one_reduction_and_one_update():
    params = {k: v.astype(np.float32) for k, v in PARAMS.items()}
    step = fg.TrainStep(loss, params, fg.optim.Adam(1e-2, clip_norm=1.0))
    step(X.astype(np.float32))
    update = step.executable.plans[1].steps
    assert all(isinstance(s, Loop) for s in update)
    over_parameters = [s for s in update if any(r.buffer.size > 1 for r in s.reads)]
    assert [len(s.stores) for s in over_parameters] == [0, 3], "the norm, then all that is updated"


@pytest.mark.parametrize("kind", [fg.optim.Adam, fg.optim.SGD])
def test_a_bound_is_a_number_from_0(kind):
    with pytest.raises(
        ArgumentError, match=rf"{kind.__name__}: clip_norm must lie in \[0.0, inf\), got -1.0"
    ):
        kind(lr=0.1, clip_norm=-1.0)
    assert repr(kind(lr=0.1, clip_norm=2.0)).endswith("clip_norm=2.0)")
    assert "clip" not in repr(kind(lr=0.1))
