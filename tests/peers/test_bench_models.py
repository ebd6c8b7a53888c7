"""The bench's models are the same in every library: losses of the first steps in float64, each skipped where missing."""

from __future__ import annotations

import sys
from importlib import import_module

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.bench.contestant import CONTESTANTS
from fastgrad.bench.models import MODELS
from fastgrad.bench.timing import MORE_STEPS, Contestant, numbers

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:::{name}(\\..*)?") for name in ("torch", "jax", "jaxlib", "autograd")
]
PEERS = [name for name in CONTESTANTS if name not in ("fastgrad", "torch-compile")]  # that one takes minutes
LATER = 1e-9


def contestant(name: str, model: str) -> Contestant:
    """A contestant in this process, one thread."""
    entry = CONTESTANTS[name]
    pytest.importorskip(entry.package)
    if name == "tensor" and not hasattr(fg, "Tensor"):
        pytest.skip("this fastgrad has no fg.Tensor")
    library = import_module(f"fastgrad.bench.{entry.file}")
    return getattr(library, entry.function)(MODELS[model], np.float64, 1)


@pytest.fixture(autouse=True)
def as_it_was():
    """JAX's and PyTorch's global settings are put back."""
    jax, torch = sys.modules.get("jax"), sys.modules.get("torch")
    x64 = jax.config.read("jax_enable_x64") if jax else False
    threads, dtype = (torch.get_num_threads(), torch.get_default_dtype()) if torch else (None, None)
    yield
    if jax := sys.modules.get("jax"):
        jax.config.update("jax_enable_x64", x64)
    if torch := sys.modules.get("torch"):
        torch.set_default_dtype(dtype or torch.float32)
        torch.set_num_threads(threads or torch.get_num_threads())


def losses(name: str, model: str) -> list[float]:
    """What the first steps return."""
    step = contestant(name, model).step
    return [x for _ in range(1 + MORE_STEPS) for x in numbers(step())]


@pytest.fixture(scope="module")
def ours() -> dict[str, list[float]]:
    """Losses of compiled fastgrad."""
    return {model: losses("fastgrad", model) for model in MODELS}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", PEERS)
def test_losses_agree(ours, name, model):
    np.testing.assert_allclose(losses(name, model), ours[model], rtol=LATER)


@pytest.mark.parametrize("model", [name for name, model in MODELS.items() if model.optimizer])
def test_training_moves(ours, model):
    first, *later = ours[model]
    assert later[-1] < first * 0.999, "a loss that stands still would agree with anything"


@pytest.mark.parametrize("name", ["fastgrad", *PEERS])
def test_at_rest_the_network_stays(name):
    found = contestant(name, "softmax")
    found.step()
    found.rest()
    before, *_, after = (numbers(found.step())[0] for _ in range(6))
    assert after == pytest.approx(before, rel=1e-6)
