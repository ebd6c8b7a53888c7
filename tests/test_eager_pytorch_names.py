"""PyTorch's method names on `fg.Tensor`: what they compute, and what other names are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad.eager.pytorch_names import _HINTS, PyTorchNames
from fastgrad.errors import ArgumentError, ShapeError
from fastgrad.nn import functional as F

X = np.array([[0.5, 1.0, 2.0], [3.0, 0.25, 1.5]])

METHODS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "exp": (lambda x: x.exp(), np.exp),
    "log": (lambda x: x.log(), np.log),
    "sqrt": (lambda x: x.sqrt(), np.sqrt),
    "abs": (lambda x: (-x).abs(), np.abs),
    "sin": (lambda x: x.sin(), np.sin),
    "cos": (lambda x: x.cos(), np.cos),
    "square": (lambda x: x.square(), np.square),
    "sign": (lambda x: x.sign(), np.sign),
    "tanh": (lambda x: x.tanh(), np.tanh),
    "sigmoid": (lambda x: x.sigmoid(), F.sigmoid),
    "relu": (lambda x: (x - 1).relu(), lambda x: F.relu(x - 1)),
    "softmax": (lambda x: x.softmax(dim=0), lambda x: F.softmax(x, axis=0)),
    "log_softmax": (lambda x: x.log_softmax(1), lambda x: F.log_softmax(x, axis=1)),
    "pow": (lambda x: x.pow(3), lambda x: x**3),
    "matmul": (lambda x: x.matmul(x.t()), lambda x: x @ x.T),
    "mm": (lambda x: x.mm(x.T), lambda x: x @ x.T),
    "clamp": (lambda x: x.clamp(min=0.6), lambda x: np.clip(x, 0.6, None)),
    "clamp both": (lambda x: x.clamp(0.6, 1.7), lambda x: np.clip(x, 0.6, 1.7)),
    "norm": (lambda x: x.norm(), lambda x: np.sqrt((x * x).sum())),
    "norm dim": (lambda x: x.norm(dim=1, keepdim=True), lambda x: np.sqrt((x * x).sum(1, keepdims=True))),
    "view": (lambda x: x.view(3, -1), lambda x: x.reshape(3, 2)),
    "view of a tuple": (lambda x: x.view((-1,)), lambda x: x.reshape(-1)),
    "t": (lambda x: x.t(), lambda x: x.T),
    "unsqueeze": (lambda x: x.unsqueeze(1), lambda x: x[:, None]),
    "unsqueeze last": (lambda x: x.unsqueeze(-1), lambda x: x[..., None]),
    "double": (lambda x: x.double(), lambda x: x),
    "sum": (lambda x: x.sum(dim=1), lambda x: x.sum(1)),
    "sum keepdim": (lambda x: x.sum(1, keepdim=True), lambda x: x.sum(1, keepdims=True)),
    "mean": (lambda x: x.mean(dim=(0, 1)), lambda x: x.mean()),
    "mean keepdim": (lambda x: x.mean(dim=0, keepdim=True), lambda x: x.mean(0, keepdims=True)),
    "mean axis": (lambda x: x.mean(axis=0, keepdims=True), lambda x: x.mean(0, keepdims=True)),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_methods_compute_and_are_recorded(name: str):
    method, expected = METHODS[name]
    x, twin = fg.Tensor(X, requires_grad=True), fg.Tensor(X, requires_grad=True)
    out, other = method(x), expected(twin)
    np.testing.assert_array_equal(out.numpy(), other.numpy())
    assert (out.shape, out.dtype) == (other.shape, other.dtype)
    np.testing.assert_allclose(out.numpy(), expected(X), rtol=1e-14)
    (out * out).sum().backward()
    (other * other).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), twin.grad.numpy())


def test_what_is_no_float_or_no_tensor():
    x = fg.Tensor(X)
    assert x.numel() == x.size == 6 and x.dim() == x.ndim == 2
    assert x.argmax(dim=1).tolist() == [2, 0] and x.argmin(dim=0, keepdim=True).tolist() == [[0, 1, 1]]
    assert (x > 0).all(dim=1).tolist() == [True, True] and (x > 2).any(dim=0).tolist() == [True, False, False]
    assert x.float().dtype == np.float32 and x.long().tolist() == [[0, 1, 2], [3, 0, 1]]
    assert x.double() is x and x.long().dtype == np.int64
    assert fg.Tensor([1, 2]).float().mean().item() == 1.5
    assert ((fg.Tensor([1, 2]) == fg.Tensor([1, 3])).float().mean()).item() == 0.5
    with pytest.raises(ArgumentError, match="axis is given twice"):
        x.sum(1, dim=1)
    with pytest.raises(ArgumentError, match="keepdims is given twice"):
        x.mean(dim=1, keepdims=True, keepdim=True)
    with pytest.raises(ArgumentError, match="norm: p must be 2"):
        x.norm(1)
    with pytest.raises(ShapeError, match="a matrix is transposed"):
        x.unsqueeze(0).t()


def test_methods_in_place():
    w = fg.Tensor([1.0, 2.0], requires_grad=True)
    same = w
    with fg.no_grad():
        assert w.sub_(0.5).add_(np.array([1.0, 2.0]), alpha=2).mul_(2).div_(4) is same
        w.sub_(fg.Tensor([1.0, 1.0]), alpha=0.25).add_([1.0, 1.0], alpha=1)
    assert w.tolist() == [2.0, 3.5] and w.is_leaf
    w.data.sub_(1.0)
    assert w.tolist() == [1.0, 2.5]


@pytest.mark.parametrize("name", ["add_", "sub_", "mul_", "div_"])
def test_methods_in_place_are_never_recorded(name: str):
    x = fg.Tensor([1.0, 2.0], requires_grad=True)
    for target, other in ((x, 1.0), (x * 2, 1.0), (fg.Tensor([1.0, 2.0]), x)):
        before = target.tolist()
        with pytest.raises(ArgumentError, match="would lose it") as error:
            getattr(target, name)(other)
        assert "fg.no_grad()" in str(error.value) and target.tolist() == before


def test_other_names_are_told_what_to_write():
    x = fg.Tensor(X, requires_grad=True)
    for name, hint in (
        ("permute", "x.transpose(axes)"),
        ("cuda", "the CPU"),
        ("eq", "x == y"),
        ("expm1", "fnp.expm1(x)"),
        ("logsumexp", "functional.logsumexp(x"),
        ("erfinv", "fastgrad.numpy"),
    ):
        with pytest.raises(AttributeError) as error:
            getattr(x, name)
        assert f"fg.Tensor has no {name!r}" in str(error.value) and hint in str(error.value)
        assert error.value.name == name and error.value.obj is x
    assert getattr(x, "cuda", None) is None and not hasattr(x, "__dlpack__")
    with pytest.raises(AttributeError):
        x.gradient = 1  # nor are names made up by assigning
    assert not [name for name in _HINTS if hasattr(fg.Tensor, name)]
    assert all(method.__doc__ for name, method in vars(PyTorchNames).items() if name[0] != "_")


def test_a_textbook_loop_in_numpys_names_is_the_same():
    rng = np.random.default_rng(0)
    data, labels = rng.standard_normal((20, 3)), (rng.standard_normal((20, 1)) > 0).astype(float)

    def loop(w: Any, loss_of: Callable, step: Callable) -> list[float]:
        x, y, losses = fg.Tensor(data), fg.Tensor(labels), []
        for _ in range(5):
            loss = loss_of(x, y, w)
            loss.backward()
            step(w)
            losses.append(loss.item())
        return losses

    @fg.no_grad
    def theirs(w: Any) -> None:
        w.sub_(w.grad, alpha=0.1)
        w.grad.zero_()

    @fg.no_grad()
    def ours(w: Any) -> None:
        w -= 0.1 * w.grad
        w.grad = None

    def in_theirs(x: Any, y: Any, w: Any) -> Any:
        p = x.mm(w).sigmoid()
        return -(y * p.log() + (1 - y) * (1 - p).log()).mean(dim=0).sum() + 0.01 * w.pow(2).sum()

    def in_ours(x: Any, y: Any, w: Any) -> Any:
        p = F.sigmoid(x @ w)
        return -(y * np.log(p) + (1 - y) * fnp.log(1 - p)).mean(axis=0).sum() + 0.01 * (w**2).sum()

    start = rng.standard_normal((3, 1))
    got = loop(fg.Tensor(start, requires_grad=True), in_theirs, theirs)
    assert got == loop(fg.Tensor(start, requires_grad=True), in_ours, ours) and got[-1] < got[0]
