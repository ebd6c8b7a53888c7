"""fastgrad's contestants: the compiled step, the same graph on its interpreter, and define-by-run `fg.Tensor`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .models import CHAIN_LINKS, CHAIN_SCALE, RATES, RESTING_RATE, Model, batch, parameters
from .timing import Contestant


def compiled(
    model: Model, dtype: Any, threads: int, backend: str = "numba", precision: str | None = None
) -> Contestant:
    """`fg.TrainStep`; of the chain `fg.value_and_grad`."""
    step, data = _step(model, dtype, threads, backend, precision), batch(model, dtype)
    if model.optimizer is None:
        return Contestant(lambda: step(*data))
    return Contestant(lambda: step(*data), lambda: _rest(step))


def _step(model: Model, dtype: Any, threads: int, backend: str, precision: str | None = None) -> Any:
    """The training step, or where nothing is trained the function with its gradient."""
    import fastgrad as fg

    loss = _loss(model)
    if model.optimizer is None:
        return fg.value_and_grad(loss, backend=backend, threads=threads, precision=precision)
    optimizer = {"adam": fg.optim.Adam, "sgd": fg.optim.SGD}[model.optimizer](RATES[model.optimizer])
    weights = parameters(model, dtype)
    return fg.TrainStep(loss, weights, optimizer, backend=backend, threads=threads, precision=precision)


def _rest(step: Any) -> None:
    step.state["optimizer"]["lr"][...] = RESTING_RATE


def profiled(model: Model, dtype: Any, threads: int) -> Any:
    """The `Profile` of the compiled step, measured in this process."""
    step, data = _step(model, dtype, threads, "numba"), batch(model, dtype)
    if model.optimizer is None:
        return step.compile(*data).profile(*data)
    step(*data)
    _rest(step)
    return step.executable.profile(*data)


def interpreter(model: Model, dtype: Any, threads: int) -> Contestant:
    """The same with ``backend="numpy"``: op by op."""
    return compiled(model, dtype, threads, "numpy")


def tensor(model: Model, dtype: Any, threads: int) -> Contestant:
    """`fg.Tensor`: the graph is made anew in each step, as in PyTorch eager."""
    import fastgrad as fg

    loss, data = _loss(model), batch(model, dtype)
    if model.optimizer is None:

        def both() -> tuple[Any, np.ndarray]:
            x = fg.Tensor(data[0], requires_grad=True)
            value = loss(x)
            value.backward()
            return value, np.asarray(x.grad)

        return Contestant(both)
    params = _map(lambda array: fg.Tensor(array, requires_grad=True), parameters(model, dtype))
    leaves = _leaves(params)
    make = {"adam": fg.optim.Adam, "sgd": fg.optim.SGD}[model.optimizer]
    optimizer = make(leaves, lr=RATES[model.optimizer])

    def step() -> Any:
        optimizer.zero_grad()
        value = loss(params, *data)
        value.backward()
        optimizer.step()
        return value

    def rest() -> None:
        nonlocal optimizer
        optimizer = make(leaves, lr=RESTING_RATE)

    return Contestant(step, rest)


def _loss(model: Model) -> Callable[..., Any]:
    losses: dict[str, Callable[..., Any]] = {"mlp": mlp_loss, "vae": vae_loss, "chain": chain}
    return losses[model.kind]


def mlp_loss(params: Any, x: Any, labels: Any) -> Any:
    """Mean cross-entropy of a multilayer perceptron with ReLU."""
    from fastgrad.nn import functional as F

    for layer in params[:-1]:
        x = F.relu(x @ layer["w"] + layer["b"])
    return F.cross_entropy(x @ params[-1]["w"] + params[-1]["b"], labels)


def vae_loss(params: Any, x: Any, noise: Any) -> Any:
    """Binary cross-entropy of the pixels and Kullback-Leibler divergence of the code (Kingma & Welling 2014), a row."""
    from fastgrad.nn import functional as F

    def affine(name: str, x: Any) -> Any:
        return x @ params[name]["w"] + params[name]["b"]

    hidden = F.relu(affine("encoder", x))
    mean, log_variance = affine("mean", hidden), affine("log_variance", hidden)
    code = mean + np.exp(0.5 * log_variance) * noise
    logits = affine("pixels", F.relu(affine("decoder", code)))
    pixels = np.maximum(logits, 0.0) - logits * x + np.log1p(np.exp(-np.abs(logits)))
    divergence = -0.5 * (1.0 + log_variance - mean * mean - np.exp(log_variance))
    return (np.sum(pixels) + np.sum(divergence)) / x.shape[0]


def chain(y: Any) -> Any:
    """The sum of y after 1,000 elementwise ops."""
    for _ in range(CHAIN_LINKS):
        y = y + CHAIN_SCALE * (np.sin(y) * np.tanh(y))
    return np.sum(y)


def _map(f: Callable[[np.ndarray], Any], tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _map(f, part) for name, part in tree.items()}
    return [_map(f, part) for part in tree] if isinstance(tree, list) else f(tree)


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict | list):
        return [
            leaf for part in (tree.values() if isinstance(tree, dict) else tree) for leaf in _leaves(part)
        ]
    return [tree]
