"""A textbook loop, written once for `fg.Tensor` and for PyTorch: the same losses, gradients and parameters in float64."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.nn import functional as F

# PyTorch may warn while it is imported and used; its warnings are not ours to fix.
pytestmark = pytest.mark.filterwarnings("ignore:::torch(\\..*)?")

RELATIVE = 1e-10
SIZES, BATCH, EPOCHS, ROWS = (64, 32, 10), 50, 3, 500


@pytest.fixture(scope="module")
def torch() -> ModuleType:
    """PyTorch."""
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """The embedded digits in float64."""
    data = fg.data.digits()
    return data.x_train[:ROWS].astype(np.float64), data.y_train[:ROWS].astype(np.int64)


def weights() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [a for n, m in pairwise(SIZES) for a in (rng.standard_normal((n, m)) / np.sqrt(n), np.zeros(m))]


def train(
    params: list[Any], x: Any, y: Any, optimizer: Any, relu: Callable, cross_entropy: Callable
) -> list[float]:
    """The loop of the textbooks, in anybody's tensors."""
    w1, b1, w2, b2 = params
    losses = []
    for _ in range(EPOCHS):
        for i in range(0, ROWS, BATCH):
            optimizer.zero_grad()
            hidden = relu(x[i : i + BATCH] @ w1 + b1)
            loss = cross_entropy(hidden @ w2 + b2, y[i : i + BATCH])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


OPTIMIZERS = {
    "momentum": ("SGD", {"lr": 0.05, "momentum": 0.9}),
    "nesterov-decay": ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": ("Adam", {"lr": 0.01}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_textbook_loop_is_torchs(torch: ModuleType, digits: Any, name: str) -> None:
    kind, options = OPTIMIZERS[name]
    x, y = digits
    ours = [fg.Tensor(w, requires_grad=True) for w in weights()]
    theirs = [torch.tensor(w, requires_grad=True) for w in weights()]
    mine = train(
        ours, fg.Tensor(x), fg.Tensor(y), getattr(fg.optim, kind)(ours, **options), F.relu, F.cross_entropy
    )
    functions = torch.nn.functional
    expected = train(
        theirs, torch.tensor(x), torch.tensor(y), getattr(torch.optim, kind)(theirs, **options),
        functions.relu, functions.cross_entropy,
    )  # fmt: skip
    assert expected[-1] < 0.5 * expected[0]
    np.testing.assert_allclose(mine, expected, rtol=RELATIVE)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=0, atol=RELATIVE)
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=0, atol=RELATIVE)


def test_updates_by_hand_are_torchs(torch: ModuleType, digits: Any) -> None:
    x, y = digits

    def loop(w: Any, x: Any, y: Any, cross_entropy: Callable, no_grad: Callable) -> list[float]:
        losses = []
        for _ in range(20):
            loss = cross_entropy(x @ w, y) + 0.01 * (w * w).sum()
            loss.backward()
            with no_grad():
                w -= 0.5 * w.grad
                w.grad.zero_()
            losses.append(loss.item())
        return losses

    w = weights()[0][:, :10]
    mine = loop(fg.Tensor(w, requires_grad=True), fg.Tensor(x), fg.Tensor(y), F.cross_entropy, fg.no_grad)
    expected = loop(
        torch.tensor(w, requires_grad=True), torch.tensor(x), torch.tensor(y),
        torch.nn.functional.cross_entropy, torch.no_grad,
    )  # fmt: skip
    np.testing.assert_allclose(mine, expected, rtol=RELATIVE)


def test_accumulation_and_branches_are_torchs(torch: ModuleType) -> None:
    a = np.random.default_rng(1).standard_normal((4, 3))

    def run(x: Any, tanh: Callable) -> np.ndarray:
        for k in range(1, 4):
            h = x
            while (h * h).sum().item() < 50.0 * k:  # the recording follows the branch taken
                h = h * 1.5 + tanh(h)
            (h.sum() / k).backward()
        return np.asarray(x.grad)

    mine = run(fg.Tensor(a, requires_grad=True), np.tanh)
    expected = run(torch.tensor(a, requires_grad=True), torch.tanh)
    np.testing.assert_allclose(mine, expected, rtol=RELATIVE)


def test_method_names_are_torchs(torch: ModuleType) -> None:
    a = np.random.default_rng(2).standard_normal((4, 3))

    def run(w: Any, x: Any, optimizer: Any) -> list[Any]:
        seen: list[Any] = []
        for _ in range(3):
            optimizer.zero_grad()
            h = x.view(-1, 4).mm(w).tanh().unsqueeze(0).sum(dim=0)
            p = (h.matmul(w.t()) - 0.1).relu().clamp(min=0.01, max=3).softmax(dim=1)
            loss = -p.log().mean(dim=1, keepdim=True).sum() + w.norm() + w.abs().sqrt().mean(0).sum()
            loss = (
                loss
                + 0.1 * w.pow(2).sum()
                + w.sigmoid().exp().mean()
                + h.log_softmax(1).sum(1, keepdim=True).mean()
            )
            loss.backward()
            optimizer.step()
            seen += [loss.item(), p.numel(), p.dim(), p.argmax(dim=1).double().mean().item()]
            w.data.sub_(w.grad, alpha=0.01).mul_(0.5).add_(0.1).div_(2)
        return [*seen, w.norm(dim=0).tolist(), (w > 0).float().mean().item(), w.long().sum().item()]

    x = np.random.default_rng(3).standard_normal(8)
    ours, theirs = fg.Tensor(a, requires_grad=True), torch.tensor(a, requires_grad=True)
    mine = run(ours, fg.Tensor(x), fg.optim.SGD([ours], lr=0.1))
    expected = run(theirs, torch.tensor(x), torch.optim.SGD([theirs], lr=0.1))
    for got, want in zip(mine, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=RELATIVE)
