"""The models of the bench as data: sizes, batch, optimizer, and random numbers made by NumPy once for everybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

RATES = {"adam": 1e-3, "sgd": 1e-2, None: 0.0}
"""Learning rates of the first steps, whose losses must agree among all contestants."""
RESTING_RATE = 1e-8
"""Learning rate while time is measured: tiny on purpose. However many steps a contestant takes, the network stays what it
was, with no dead units and no subnormal numbers, which would slow some contestants more than others."""

CHAIN_ELEMENTS, CHAIN_LINKS, CHAIN_SCALE = 4096, 200, 0.01
"""``y + 0.01 * (sin(y) * tanh(y))``, 200 times: 1,000 ops. Each link's derivative lies within 1 ± 0.02, so that neither the
value nor the gradient vanishes or blows up."""


@dataclass(frozen=True)
class Model:
    """One model: ``sizes`` are the widths of its layers (of the chain, its elements), ``rows`` the batch."""

    name: str
    title: str
    kind: Literal["mlp", "vae", "chain"]
    sizes: tuple[int, ...]
    rows: int
    optimizer: Literal["adam", "sgd"] | None = "adam"

    @property
    def flops(self) -> float:
        """About how many floating-point operations a step has, to estimate how long it takes."""
        if self.kind == "chain":
            return 100.0 * 1000 * self.sizes[0]  # a sine takes dozens
        there_and_back = self.sizes + self.sizes[-2::-1] if self.kind == "vae" else self.sizes
        return 6.0 * self.rows * sum(m * n for m, n in pairwise(there_and_back))


MODELS = {
    model.name: model
    for model in (
        Model("mlp-64-32-10", "MLP 64-32-10, batch 32", "mlp", (64, 32, 10), 32),
        Model("mlp-64-128-64-10", "MLP 64-128-64-10, batch 64", "mlp", (64, 128, 64, 10), 64),
        Model("mlp-784-512-512-10", "MLP 784-512-512-10, batch 128", "mlp", (784, 512, 512, 10), 128),
        Model("mlp-1024x3", "MLP 1024-1024-1024-10, batch 512", "mlp", (1024, 1024, 1024, 10), 512),
        Model("vae", "VAE 784-400-20-400-784, batch 128", "vae", (784, 400, 20), 128),
        Model("softmax", "softmax regression 784-10, batch 128", "mlp", (784, 10), 128, "sgd"),
        Model("chain", "1,000 elementwise ops on 4,096", "chain", (CHAIN_ELEMENTS,), 1, None),
    )
}


def layer(rng: np.random.Generator, pair: Sequence[int], dtype: Any) -> dict[str, np.ndarray]:
    """``w [in, out]`` by He et al. 2015, drawn in float64 and rounded, and a bias of zeros ``b [out]``."""
    m, n = pair
    return {"w": (rng.standard_normal((m, n)) * np.sqrt(2 / m)).astype(dtype), "b": np.zeros(n, dtype)}


def layers(sizes: Sequence[int], dtype: Any = np.float32, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """The parameters of a multilayer perceptron, one `layer` for each pair of neighbours in ``sizes``."""
    rng = np.random.default_rng(seed)
    return [layer(rng, pair, dtype) for pair in pairwise(sizes)]


def classified(
    sizes: Sequence[int], rows: int, dtype: Any = np.float32, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Random ``x[rows, in]`` and integer labels."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, sizes[0])).astype(dtype), rng.integers(0, sizes[-1], rows)


def parameters(model: Model, dtype: Any) -> Any:
    """The parameters to begin with: a list of layers, or a dict of them (VAE), or nothing (chain)."""
    if model.kind == "mlp":
        return layers(model.sizes, dtype)
    if model.kind == "chain":
        return []
    pixels, hidden, latent = model.sizes
    rng = np.random.default_rng(0)
    shapes = {
        "encoder": (pixels, hidden),
        "mean": (hidden, latent),
        "log_variance": (hidden, latent),
        "decoder": (latent, hidden),
        "pixels": (hidden, pixels),
    }
    made = {name: layer(rng, shape, dtype) for name, shape in shapes.items()}
    made["log_variance"]["w"] *= dtype(0.1)  # exp of it stays of order 1
    return made


def batch(model: Model, dtype: Any) -> tuple[np.ndarray, ...]:
    """What one step works on: ``(x, labels)``, or ``(x, noise)`` of the VAE (so that all draw the same), or ``(x,)``."""
    if model.kind == "mlp":
        return classified(model.sizes, model.rows, dtype)
    rng = np.random.default_rng(1)
    if model.kind == "chain":
        return (rng.standard_normal(model.sizes).astype(dtype),)
    pixels, _, latent = model.sizes
    x = rng.uniform(0.0, 1.0, (model.rows, pixels)).astype(dtype)
    return x, rng.standard_normal((model.rows, latent)).astype(dtype)
