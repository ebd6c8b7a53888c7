"""Keys and bits against `jax.random`, batch norm and a step with running statistics against PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.nn import functional as F

# PyTorch and JAX may warn while they are imported and used; their warnings are not ours to fix.
pytestmark = [pytest.mark.filterwarnings(f"ignore:::{name}(\\..*)?") for name in ("torch", "jax", "jaxlib")]

SEEDS = (0, 7, -3, 2**40 + 5, 2**63 - 1)


@pytest.fixture(scope="module")
def torch() -> ModuleType:
    """PyTorch."""
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def jax() -> Iterator[ModuleType]:
    """JAX with 64 bits."""
    module = pytest.importorskip("jax")
    before = module.config.read("jax_enable_x64")
    module.config.update("jax_enable_x64", True)
    yield module
    module.config.update("jax_enable_x64", before)


def equal(ours: Any, theirs: Any) -> None:
    np.testing.assert_array_equal(ours, np.asarray(theirs), strict=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_keys_and_bits_are_those_of_jax(jax, seed):
    ours, theirs = fg.random.key(seed), jax.random.PRNGKey(seed)
    equal(ours, theirs)
    for num in (2, 5, (2, 3)):
        equal(fg.random.split(ours, num), jax.random.split(theirs, num))
    for data in (0, 1, 12_345, 2**32 - 1):
        equal(fg.random.fold_in(ours, data), jax.random.fold_in(theirs, data))
    for shape in ((), (7,), (3, 4)):
        for dtype in ("uint8", "uint16", "uint32", "uint64"):
            equal(fg.random.bits(ours, shape, dtype), jax.random.bits(theirs, shape, dtype))


def test_floats_are_those_of_jax_but_for_their_last_bits(jax):
    ours, theirs = fg.random.key(3), jax.random.PRNGKey(3)
    for dtype, tolerance in (("float32", 2.0**-22), ("float64", 2.0**-51)):
        u = fg.random.uniform(ours, (1000,), dtype, -2.0, 3.0)
        np.testing.assert_allclose(
            u, jax.random.uniform(theirs, (1000,), dtype, -2.0, 3.0), rtol=0, atol=5 * tolerance
        )
        equal(
            fg.random.bernoulli(ours, np.full(1000, 0.3, dtype)),
            jax.random.bernoulli(theirs, np.full(1000, 0.3, dtype)),
        )


def channels_first(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(6, 3), (4, 5, 3), (4, 5, 2, 3)])
def test_batch_norm_is_torchs(torch, training, shape):
    rng = np.random.default_rng(0)
    x, ct = rng.standard_normal(shape), rng.standard_normal(shape)
    weight, bias, mean, var = rng.random((4, 3)) + 0.1

    def f(x, weight, bias):
        y, *running = F.batch_norm(x, mean, var, weight, bias, training, momentum=0.3, eps=1e-3)
        return (y * ct).sum(), (y, running)

    gradients, (y, running) = fg.grad(f, (0, 1, 2), has_aux=True)(x, weight, bias)
    tensors = [torch.tensor(a, requires_grad=True) for a in (channels_first(x), weight, bias)]
    kept = [torch.tensor(mean), torch.tensor(var)]
    out = torch.nn.functional.batch_norm(tensors[0], *kept, *tensors[1:], training, 0.3, 1e-3)
    (out * torch.tensor(channels_first(ct))).sum().backward()
    np.testing.assert_allclose(channels_first(y), out.detach().numpy(), rtol=1e-10, atol=1e-12)
    for ours, theirs in zip(running, kept, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12)
    for ours, theirs in zip([channels_first(gradients[0]), *gradients[1:]], tensors, strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_a_network_with_batch_norm_trains_as_in_torch(torch, backend):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((64, 6)), rng.integers(0, 4, 64)
    w1, w2 = rng.standard_normal((6, 8)) / 2, rng.standard_normal((8, 4)) / 2

    def loss(p, state, x, y):
        h, mean, var = F.batch_norm(x @ p["w1"], state["mean"], state["var"], p["scale"], p["shift"], True)
        return F.cross_entropy(F.relu(h) @ p["w2"], y), {"mean": mean, "var": var}

    step = fg.TrainStep(
        loss,
        {"w1": w1, "scale": np.ones(8), "shift": np.zeros(8), "w2": w2},
        fg.optim.SGD(0.1, momentum=0.9),
        model_state={"mean": np.zeros(8), "var": np.ones(8)},
        backend=backend,
    )
    losses = step.run(x, y, batch_size=16, epochs=3)

    norm = torch.nn.BatchNorm1d(8).double()
    weights = [torch.tensor(w, requires_grad=True) for w in (w1, w2)]
    optimizer = torch.optim.SGD([*weights, *norm.parameters()], lr=0.1, momentum=0.9)
    expected = []
    for i in [*range(0, 64, 16)] * 3:
        optimizer.zero_grad()
        rows, labels = torch.tensor(x[i : i + 16]), torch.tensor(y[i : i + 16])
        value = torch.nn.functional.cross_entropy(torch.relu(norm(rows @ weights[0])) @ weights[1], labels)
        value.backward()
        optimizer.step()
        expected.append(value.item())
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    np.testing.assert_allclose(step.state["model"]["mean"], norm.running_mean.numpy(), rtol=1e-9)
    np.testing.assert_allclose(step.state["model"]["var"], norm.running_var.numpy(), rtol=1e-9)
    np.testing.assert_allclose(step.params["scale"], norm.weight.detach().numpy(), rtol=1e-9)
