"""JAX's contestant: one jitted function a step, parameters and optimizer state donated."""

from __future__ import annotations

from typing import Any

import numpy as np

from .models import CHAIN_LINKS, CHAIN_SCALE, RATES, RESTING_RATE, Model, batch, parameters
from .timing import Contestant


def jitted(model: Model, dtype: Any, threads: int) -> Contestant:
    """`jax.jit` of `jax.value_and_grad` and the update; each step waits until all its results are there."""
    import jax

    jax.config.update("jax_enable_x64", dtype is np.float64)
    data = jax.device_put(batch(model, dtype))
    loss = {"mlp": _mlp_loss, "vae": _vae_loss, "chain": _chain}[model.kind]
    if model.optimizer is None:
        both = jax.jit(jax.value_and_grad(loss))
        return Contestant(lambda: jax.block_until_ready(both(*data)))
    held = parameters(model, dtype)
    params, state = jax.device_put(held), {}
    if model.optimizer == "adam":
        # From NumPy and by device_put: jnp.zeros and jnp.asarray compile a program for each shape and start later.
        state = {name: jax.tree.map(lambda p: jax.device_put(np.zeros_like(p)), held) for name in "mv"}
        state["t"] = jax.device_put(np.zeros((), dtype))
    update = {"adam": adam, "sgd": _sgd}[model.optimizer]
    rate = jax.device_put(np.asarray(RATES[model.optimizer], dtype))

    def train(params: Any, state: Any, rate: Any, *data: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, *data)
        return *update(params, grads, state, rate), value

    compiled = jax.jit(train, donate_argnums=(0, 1))

    def step() -> Any:
        nonlocal params, state
        params, state, value = compiled(params, state, rate, *data)
        jax.block_until_ready((params, state, value))
        return value

    def rest() -> None:
        nonlocal rate
        rate = jax.device_put(np.asarray(RESTING_RATE, dtype))

    return Contestant(step, rest)


def _sgd(params: Any, grads: Any, state: Any, rate: Any) -> tuple[Any, Any]:
    import jax

    return jax.tree.map(lambda p, g: p - rate * g, params, grads), state


def adam(params: Any, grads: Any, state: Any, rate: Any, b1: float = 0.9, b2: float = 0.999) -> Any:
    """Kingma and Ba 2015: the new parameters and state; ``state`` has m and v, each as ``params``, and t."""
    import jax
    import jax.numpy as jnp

    t = state["t"] + 1
    m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state["m"], grads)
    v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state["v"], grads)
    size, root = rate / (1 - b1**t), 1 / jnp.sqrt(1 - b2**t)
    params = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v) * root + 1e-8), params, m, v)
    return params, {"m": m, "v": v, "t": t}


def _mlp_loss(params: Any, x: Any, labels: Any) -> Any:
    import jax
    import jax.numpy as jnp

    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    logits = x @ params[-1]["w"] + params[-1]["b"]
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()


def _vae_loss(params: Any, x: Any, noise: Any) -> Any:
    import jax
    import jax.numpy as jnp

    def affine(name: str, x: Any) -> Any:
        return x @ params[name]["w"] + params[name]["b"]

    hidden = jax.nn.relu(affine("encoder", x))
    mean, log_variance = affine("mean", hidden), affine("log_variance", hidden)
    code = mean + jnp.exp(0.5 * log_variance) * noise
    logits = affine("pixels", jax.nn.relu(affine("decoder", code)))
    pixels = jnp.sum(jax.nn.softplus(logits) - logits * x)
    divergence = -0.5 * jnp.sum(1.0 + log_variance - mean * mean - jnp.exp(log_variance))
    return (pixels + divergence) / x.shape[0]


def _chain(y: Any) -> Any:
    import jax.numpy as jnp

    for _ in range(CHAIN_LINKS):
        y = y + CHAIN_SCALE * (jnp.sin(y) * jnp.tanh(y))
    return jnp.sum(y)
