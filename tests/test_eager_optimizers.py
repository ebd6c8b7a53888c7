"""Optimizers bound to `fg.Tensor`: what may be assigned, copied and shared."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.errors import ArgumentError


def leaf(data: Any) -> fg.Tensor:
    return fg.Tensor(data, requires_grad=True)


def run(opt: Any, w: fg.Tensor, steps: int = 1) -> np.ndarray:
    """``w`` after steps of ``opt`` down ``sum(w * w)``."""
    for _ in range(steps):
        opt.zero_grad()
        (w * w).sum().backward()
        opt.step()
    return w.numpy().copy()


KINDS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "lr": (fg.optim.SGD, {"lr": 0.1}, {"lr": 0.25}),
    "momentum": (fg.optim.SGD, {"lr": 0.1, "momentum": 0.9}, {"momentum": 0.5}),
    "nesterov": (fg.optim.SGD, {"lr": 0.1, "momentum": 0.9}, {"nesterov": True}),
    "weight_decay": (fg.optim.SGD, {"lr": 0.1, "weight_decay": 0.1}, {"weight_decay": 0.5}),
    "adam lr": (fg.optim.Adam, {"lr": 0.1}, {"lr": 0.01}),
    "betas": (fg.optim.Adam, {"lr": 0.1}, {"betas": (0.5, 0.9)}),
    "eps": (fg.optim.Adam, {"lr": 0.1}, {"eps": 0.5}),
}


@pytest.mark.parametrize("name", KINDS)
def test_an_assigned_hyper_parameter_takes_effect(name: str):
    kind, made, change = KINDS[name]
    w, expected = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    opt, twin = kind([w], **made), kind([expected], **(made | change))
    for key, value in change.items():
        setattr(opt, key, value)
        assert getattr(opt, key) == value
    assert repr(opt) == repr(twin)
    np.testing.assert_array_equal(run(opt, w, 3), run(twin, expected, 3))
    before = run(opt, w)
    for key in change:  # and after it was traced
        setattr(opt, key, made.get(key, getattr(kind(**made), key)))
    assert not np.array_equal(run(opt, w), before) and repr(opt) == repr(kind(**made))


def test_assigning_and_the_state_are_one():
    w = leaf([1.0])
    opt = fg.optim.SGD([w], lr=1.0)
    opt.state["lr"] = 0.5
    assert opt.lr == 0.5
    opt.lr *= 0.5
    assert float(opt.state["lr"]) == 0.25
    opt.state["lr"][...] = 0.125
    assert opt.lr == 0.125
    opt.lr = 1.0  # what it was made with
    w.sum().backward()
    opt.step()
    assert w.item() == 0.0 and repr(opt) == repr(fg.optim.SGD(1.0))
    adam = fg.optim.Adam([w], lr=0.1)
    run(adam, w, 2)
    adam.betas = (0.5, 0.5)
    assert float(adam.state["step"]) == 2.0 and float(adam.state["beta1"]) == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", -1.0), ("lr", "fast"), ("lr", np.nan), ("momentum", 0.9), ("nesterov", True), ("state", {})],
)
def test_what_cannot_be_assigned_says_so_and_changes_nothing(name: str, value: Any):
    w = leaf([1.0])
    opt = fg.optim.SGD([w], lr=0.5)
    with pytest.raises(ArgumentError, match=name):
        setattr(opt, name, value)
    assert repr(opt) == repr(fg.optim.SGD(0.5)) and float(opt.state["lr"]) == 0.5
    assert run(opt, w).tolist() == [0.0]


def test_what_binding_has_settled_says_what_to_do():
    w = leaf([1.0])
    with pytest.raises(ArgumentError, match="bound to tensors") as error:
        fg.optim.SGD([w], lr=0.5).momentum = 0.9
    assert "a new SGD(tensors, momentum=...)" in str(error.value) and "test_eager_optimizers.py" in str(
        error.value
    )
    with pytest.raises(AttributeError, match=r"opt\.lr"):
        _ = fg.optim.SGD([w], lr=0.5).param_groups
    with pytest.raises(AttributeError, match=r"opt\.state"):
        fg.optim.SGD(lr=0.5).state_dict()
    with pytest.raises(AttributeError, match="SGD has no 'rate'"):
        _ = fg.optim.SGD([w], lr=0.5).rate


@dataclass
class Scaled(fg.optim.Optimizer):
    """A user's own, whose hyper-parameter has a default and whose update reads an attribute."""

    lr: float = 0.5
    power: float = 1.0

    @property
    def scalars(self) -> dict[str, float]:
        return {"lr": self.lr}

    def update(self, p: Any, g: Any, slots: Any, scalars: Any) -> Any:
        return p - scalars["lr"] * self.power * g, {}


def test_a_users_optimizer_may_be_assigned_to():
    w = leaf([1.0])
    opt = Scaled([w], lr=0.25)
    assert run(opt, w).tolist() == [0.5]
    assert opt.lr == 0.25
    opt.lr = 0.5
    assert opt.lr == 0.5 and run(opt, w).tolist() == [0.0]
    w.data = np.ones(1)
    opt.power = 0.5
    assert run(opt, w).tolist() == [0.5]
    opt.label = "anything"
    assert opt.label == "anything"


@pytest.mark.parametrize(
    "twin_of", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize(
    "kind", [lambda p: fg.optim.SGD(p, lr=0.1, momentum=0.9), lambda p: fg.optim.Adam(p, lr=0.1)]
)
def test_a_bound_optimizer_is_pickled_and_copied_after_a_step(kind: Any, twin_of: Any):
    w = leaf([1.0, 2.0])
    opt = kind({"w": w})
    run(opt, w, 2)
    opt.state["lr"] = 0.05
    both = twin_of({"w": w, "opt": opt})
    assert both["w"] is not w and repr(both["opt"]) == repr(opt)
    for rate in (0.05, 0.2):
        opt.lr = both["opt"].lr = rate
        np.testing.assert_array_equal(run(both["opt"], both["w"], 3), run(opt, w, 3))
    for name, value in opt.state.items():
        np.testing.assert_equal(both["opt"].state[name], value)
    plain = twin_of(kind(w))
    run(plain, leaf([1.0]), 1)
    assert repr(twin_of(fg.optim.SGD(0.1))) == repr(fg.optim.SGD(0.1))


def test_tensors_that_share_memory_are_refused():
    w = fg.Tensor([[1.0, 2.0], [3.0, 4.0]])
    for other in (w.detach(), w.detach()[0], w.data.T):
        with pytest.raises(ArgumentError, match="share memory") as error:
            fg.optim.SGD({"a": w, "b": [leaf([1.0]), other]}, lr=0.1)
        assert "test_eager_optimizers.py" in str(error.value)
    opt = fg.optim.SGD([w[0], w[1], w.clone()], lr=0.5)  # parts that do not overlap
    assert opt.lr == 0.5
    like = leaf([1.0, 2.0])
    a, b = np.zeros_like(like), np.zeros_like(like)
    opt = fg.optim.SGD([a, b], lr=1.0)
    a.grad, b.grad = np.ones(2), 2 * np.ones(2)
    opt.step()
    assert a.tolist() == [-1.0, -1.0] and b.tolist() == [-2.0, -2.0]


@pytest.mark.parametrize("nothing", [[], (), {}, iter([])])
def test_no_tensors_is_said_so(nothing: Any):
    for make in (fg.optim.SGD, fg.optim.Adam):
        with pytest.raises(ArgumentError, match="no tensors were given"):
            make(nothing, lr=0.1)
