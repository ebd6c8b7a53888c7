"""`fg.Tensor` and memory that changes between forward and backward through NumPy's hands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.eager import rule


@pytest.fixture(autouse=True)
def soon_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules are traced the second time that they run, so that three runs in a test go both ways."""
    monkeypatch.setattr(rule, "TRACE_AFTER", 1)


def frozen(a: np.ndarray) -> np.ndarray:
    """A read-only view of ``a``."""
    view = a[:]
    view.flags.writeable = False
    return view


READ_ONLY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "view": frozen,
    "view of a view": lambda a: frozen(frozen(a))[:],
    "reversed": lambda a: frozen(a)[::-1],
    "broadcast_to": lambda a: np.broadcast_to(a, (2, 3)),
    "sliding windows": lambda a: np.lib.stride_tricks.sliding_window_view(a, 3),
    "memoryview": lambda a: np.asarray(memoryview(a).toreadonly()),
}


@pytest.mark.parametrize("name", READ_ONLY)
def test_a_read_only_view_counts_as_it_was_when_it_was_used(name: str):
    for _ in range(3):
        a = np.array([1.0, 2.0, 3.0])
        seen = READ_ONLY[name](a)
        assert not seen.flags.writeable
        expected = np.broadcast_to(seen, seen.shape).copy()
        w = fg.Tensor(np.ones(seen.shape), requires_grad=True)
        out = (w * seen).sum()
        a += 10
        out.backward()
        np.testing.assert_array_equal(w.grad.numpy(), expected)


def test_an_owner_that_was_frozen_may_change_all_the_same():
    for _ in range(3):
        a = np.array([1.0, 2.0, 3.0])
        view = a[:]
        a.flags.writeable = False
        w = fg.Tensor(np.ones(3), requires_grad=True)
        out = (w * a).sum()
        view += 10
        out.backward()
        assert w.grad.tolist() == [1.0, 2.0, 3.0]


CHANGES: dict[str, Callable[[fg.Tensor], Any]] = {
    "-=": lambda w: w.__isub__(1.0),
    "copy_": lambda w: w.copy_([7.0, 8.0, 9.0]),
    "a view": lambda w: w[1:].zero_(),
    "detach": lambda w: w.detach().fill_(2),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize(
    "seen_by",
    [lambda w: w.detach().numpy(), np.asarray, lambda w: np.asarray(w)[:]],
    ids=["numpy", "asarray", "view"],
)
def test_the_memory_of_a_tensor_as_a_numpy_operand(seen_by: Any, name: str):
    for _ in range(3):
        w = fg.Tensor([1.0, 2.0, 3.0], requires_grad=True)
        out = (w * seen_by(w)).sum()
        with fg.no_grad():
            CHANGES[name](w)
        out.backward()
        assert w.grad.tolist() == [1.0, 2.0, 3.0]


def test_the_memory_of_a_tensor_as_a_numpy_operand_and_an_optimizer_step():
    for _ in range(3):
        w = fg.Tensor([1.0, 2.0, 3.0], requires_grad=True)
        anchor = w.detach().numpy()
        opt = fg.optim.SGD([w], lr=1.0)
        penalty = (w * anchor).sum()
        w.sum().backward()
        opt.step()
        opt.zero_grad()
        penalty.backward()
        assert w.grad.tolist() == [1.0, 2.0, 3.0]


def test_a_view_that_changes_from_step_to_step_adds_up():
    x, w = np.zeros(3), fg.Tensor(np.ones((2, 3)), requires_grad=True)
    seen, total = np.broadcast_to(x, (2, 3)), fg.Tensor(0.0)
    for _ in range(4):
        total = total + (w * seen).sum()
        x += 1
    total.backward()
    assert (w.grad == 6.0).all()
