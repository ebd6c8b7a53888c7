"""HIPS autograd's contestant: `autograd.value_and_grad` and the optimizer by hand in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from .models import CHAIN_LINKS, CHAIN_SCALE, RATES, RESTING_RATE, Model, batch, parameters
from .timing import Contestant


def interpreted(model: Model, dtype: Any, threads: int) -> Contestant:
    """Op by op over NumPy; parameters and moments are updated in place, one array at a time."""
    from autograd import value_and_grad

    data = batch(model, dtype)
    if model.optimizer is None:
        both = value_and_grad(_chain)
        return Contestant(lambda: both(*data))
    tree = parameters(model, dtype)
    named = list(tree.values()) if isinstance(tree, dict) else tree
    both = value_and_grad({"mlp": _mlp_loss, "vae": _vae_loss}[model.kind])
    rate, t = RATES[model.optimizer], 0
    moments = [(np.zeros_like(p), np.zeros_like(p)) for layer in named for p in layer.values()]

    def step() -> Any:
        nonlocal t
        value, grads = both(tree, *data)
        t += 1
        found = list(grads.values()) if isinstance(grads, dict) else grads
        pairs = [(p, g[name]) for layer, g in zip(named, found, strict=True) for name, p in layer.items()]
        for (p, g), (m, v) in zip(pairs, moments, strict=True):
            if model.optimizer == "adam":
                _adam(p, g, m, v, rate, t)
            else:
                p -= rate * g
        return value

    def rest() -> None:
        nonlocal rate
        rate = RESTING_RATE

    return Contestant(step, rest)


def _adam(p: Any, g: Any, m: Any, v: Any, rate: float, t: int, b1: float = 0.9, b2: float = 0.999) -> None:
    m *= b1
    m += (1 - b1) * g
    v *= b2
    v += (1 - b2) * (g * g)
    p -= (rate / (1 - b1**t)) * m / (np.sqrt(v) * (1 / (1 - b2**t)) ** 0.5 + 1e-8)


def _mlp_loss(params: Any, x: Any, labels: Any) -> Any:
    import autograd.numpy as anp

    for layer in params[:-1]:
        x = anp.maximum(x @ layer["w"] + layer["b"], 0.0)
    logits = x @ params[-1]["w"] + params[-1]["b"]
    logits = logits - anp.max(logits, axis=1, keepdims=True)
    chosen = logits[np.arange(len(labels)), labels]
    return anp.mean(anp.log(anp.sum(anp.exp(logits), axis=1)) - chosen)


def _vae_loss(params: Any, x: Any, noise: Any) -> Any:
    import autograd.numpy as anp

    def affine(name: str, x: Any) -> Any:
        return x @ params[name]["w"] + params[name]["b"]

    hidden = anp.maximum(affine("encoder", x), 0.0)
    mean, log_variance = affine("mean", hidden), affine("log_variance", hidden)
    code = mean + anp.exp(0.5 * log_variance) * noise
    logits = affine("pixels", anp.maximum(affine("decoder", code), 0.0))
    pixels = anp.sum(anp.logaddexp(logits, 0.0) - logits * x)
    divergence = -0.5 * anp.sum(1.0 + log_variance - mean * mean - anp.exp(log_variance))
    return (pixels + divergence) / x.shape[0]


def _chain(y: Any) -> Any:
    import autograd.numpy as anp

    for _ in range(CHAIN_LINKS):
        y = y + CHAIN_SCALE * (anp.sin(y) * anp.tanh(y))
    return anp.sum(y)
