"""PyTorch's contestants: eager with its faster Adam, and torch.compile of loss, backward and optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .models import CHAIN_LINKS, CHAIN_SCALE, RATES, RESTING_RATE, Model, batch, parameters
from .timing import Contestant, timed

CHOOSING_S = 0.2
"""Seconds that each optimizer of the eager contestant is tried for."""


def eager(model: Model, dtype: Any, threads: int) -> Contestant:
    """Op by op. The first steps use the default optimizer; `rest` then keeps the fastest of those that PyTorch has."""
    import torch

    _configure(dtype, threads)
    data = tuple(map(torch.from_numpy, batch(model, dtype)))
    net, loss = _net(model, dtype)
    if model.optimizer is None:
        return Contestant(_both(loss, *data))
    step = _training_step(loss, data, _optimizer(model, net, RATES[model.optimizer]))
    chosen = Contestant(step)

    def resting(name: str) -> Callable[[], Any]:
        options = {} if name == "default" else {name: True}
        return _training_step(loss, data, _optimizer(model, net, RESTING_RATE, **options))

    def rest() -> str:
        nonlocal step
        del step
        chosen.step = float  # one optimizer's state at a time: peak memory is measured as well
        tried = {name: timed(resting(name), CHOOSING_S) for name in ("default", "foreach", "fused")}
        best = min(tried, key=lambda name: tried[name])
        chosen.step = resting(best)
        return f"{best} optimizer"

    chosen.rest = rest
    return chosen


def compiled(model: Model, dtype: Any, threads: int) -> Contestant:
    """`torch.compile` of the loss with its backward, and of the optimizer's step."""
    import torch

    _configure(dtype, threads)
    data = tuple(map(torch.from_numpy, batch(model, dtype)))
    net, loss = _net(model, dtype)
    loss = torch.compile(loss)
    if model.optimizer is None:
        return Contestant(_both(loss, *data))
    # A tensor: a number would be part of the compiled text, and setting it would compile the optimizer anew.
    rate = torch.tensor(RATES[model.optimizer], dtype=torch.float64)
    optimizer = _optimizer(model, net, rate)
    update = torch.compile(optimizer.step)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        value = loss(*data)
        value.backward()
        update()
        return value.detach()

    def rest() -> None:
        rate.fill_(RESTING_RATE)

    return Contestant(step, rest)


def _configure(dtype: Any, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    # Adam counts its steps in the default dtype. Compiled, in float32, its bias correction 1 - 0.999**t is off by 6e-5.
    torch.set_default_dtype(torch.float64 if dtype is np.float64 else torch.float32)


def _optimizer(model: Model, net: Any, rate: Any, **options: bool) -> Any:
    import torch

    make: Any = torch.optim.Adam if model.optimizer == "adam" else torch.optim.SGD
    return make(net.parameters(), lr=rate, **options)


def _training_step(loss: Callable[..., Any], data: tuple[Any, ...], optimizer: Any) -> Callable[[], Any]:
    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        value = loss(*data)
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def _both(loss: Callable[..., Any], x: Any) -> Callable[[], Any]:
    x.requires_grad_()

    def step() -> Any:
        x.grad = None
        value = loss(x)
        value.backward()
        return value.detach(), x.grad

    return step


def _net(model: Model, dtype: Any) -> tuple[Any, Callable[..., Any]]:
    """The module that holds the parameters, and ``loss(*batch)``."""
    if model.kind == "chain":
        return None, _chain
    params = parameters(model, dtype)
    return _perceptron(params) if model.kind == "mlp" else _autoencoder(params)


def _linear(layer: dict[str, np.ndarray]) -> Any:
    import torch

    dtype = torch.from_numpy(layer["b"]).dtype
    linear = torch.nn.Linear(*layer["w"].shape, dtype=dtype)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(layer["w"].T))
        linear.bias.copy_(torch.from_numpy(layer["b"]))
    return linear


def _perceptron(params: Any) -> tuple[Any, Callable[..., Any]]:
    import torch

    modules: list[Any] = []
    for layer in params:
        modules += [_linear(layer), torch.nn.ReLU()]
    net = torch.nn.Sequential(*modules[:-1])
    return net, lambda x, labels: torch.nn.functional.cross_entropy(net(x), labels)


def _autoencoder(params: Any) -> tuple[Any, Callable[..., Any]]:
    import torch

    F = torch.nn.functional
    net = torch.nn.ModuleDict({name: _linear(layer) for name, layer in params.items()})
    encoder, mean_of, log_variance_of = net["encoder"], net["mean"], net["log_variance"]
    decoder, pixels_of = net["decoder"], net["pixels"]

    def loss(x: Any, noise: Any) -> Any:
        hidden = F.relu(encoder(x))
        mean, log_variance = mean_of(hidden), log_variance_of(hidden)
        code = mean + torch.exp(0.5 * log_variance) * noise
        logits = pixels_of(F.relu(decoder(code)))
        pixels = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        divergence = -0.5 * torch.sum(1.0 + log_variance - mean * mean - torch.exp(log_variance))
        return (pixels + divergence) / x.shape[0]

    return net, loss


def _chain(y: Any) -> Any:
    import torch

    for _ in range(CHAIN_LINKS):
        y = y + CHAIN_SCALE * (torch.sin(y) * torch.tanh(y))
    return torch.sum(y)
