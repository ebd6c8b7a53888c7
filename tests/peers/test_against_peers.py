"""Values, gradients and whole training runs against PyTorch and JAX in float64, each skipped where it is not installed.

Not compared: points where functions have a kink or a tie. There libraries choose differently (the cotangent of a maximum
goes to all equal winners evenly here and in `jax.numpy.max` and `torch.amax`, to one of them in `torch.max(dim)`); the
random inputs below have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.nn import functional as F
from fastgrad.ops.index import scatter_add

# PyTorch and JAX may warn while they are imported and used; their warnings are not ours to fix.
pytestmark = [pytest.mark.filterwarnings(f"ignore:::{name}(\\..*)?") for name in ("torch", "jax", "jaxlib")]

RELATIVE = 1e-10
SIZES, ROWS, STEPS = (12, 16, 8, 5), 9, 20


@pytest.fixture(scope="module")
def torch() -> ModuleType:
    """PyTorch."""
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def jax() -> Iterator[ModuleType]:
    """JAX in float64."""
    module = pytest.importorskip("jax")
    before = module.config.read("jax_enable_x64")
    module.config.update("jax_enable_x64", True)
    yield module
    module.config.update("jax_enable_x64", before)


def close(ours: Any, theirs: Any) -> None:
    """Equal in shape and dtype, and to `RELATIVE` of the largest element."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    assert np.isfinite(theirs).all()
    np.testing.assert_allclose(
        ours, theirs, rtol=0, atol=RELATIVE * float(np.abs(theirs).max(initial=1e-300))
    )


def network() -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Parameters ``w, b, w, b, ...``, inputs and labels."""
    rng = np.random.default_rng(0)
    params = []
    for n, m in pairwise(SIZES):
        params += [rng.standard_normal((n, m)) / np.sqrt(n), 0.1 * rng.standard_normal(m)]
    return params, rng.standard_normal((ROWS, SIZES[0])), rng.integers(0, SIZES[-1], ROWS)


def loss(
    params: Any, x: Any, labels: Any, relu: Callable = F.relu, cross_entropy: Callable = F.cross_entropy
) -> Any:
    """A perceptron's cross-entropy, in anybody's relu and cross_entropy."""
    for w, b in zip(params[:-2:2], params[1:-2:2], strict=True):
        x = relu(x @ w + b)
    return cross_entropy(x @ params[-2] + params[-1], labels)


# -- PyTorch -----------------------------------------------------------------------------------------------------------


def torch_loss(torch: ModuleType, params: Any, x: Any, labels: Any) -> Any:
    """`loss` in PyTorch's functions."""
    theirs = torch.nn.functional
    return loss(params, torch.from_numpy(x), torch.from_numpy(labels), theirs.relu, theirs.cross_entropy)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_perceptron_gradient_is_torchs(torch: ModuleType, backend: str) -> None:
    params, x, labels = network()
    leaves = [torch.tensor(p, requires_grad=True) for p in params]
    expected = torch_loss(torch, leaves, x, labels)
    expected.backward()
    value, grads = fg.value_and_grad(loss, backend=backend)(params, x, labels)
    close(value, expected.detach())
    for ours, theirs in zip(grads, leaves, strict=True):
        close(ours, theirs.grad)


OPTIMIZERS = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd-decay": ("SGD", {"lr": 0.1, "weight_decay": 0.03}),
    "momentum": ("SGD", {"lr": 0.05, "momentum": 0.9}),
    "nesterov": ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "nesterov-decay": ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.03}),
    "adam": ("Adam", {"lr": 0.01}),
    "adam-betas": ("Adam", {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6}),
    "adam-decay": ("Adam", {"lr": 0.01, "weight_decay": 0.03}),
}


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_torchs(torch: ModuleType, name: str, backend: str) -> None:
    kind, options = OPTIMIZERS[name]
    params, x, labels = network()
    leaves = [torch.tensor(p, requires_grad=True) for p in params]
    optimizer = getattr(torch.optim, kind)(leaves, **options)
    step = fg.TrainStep(loss, params, getattr(fg.optim, kind)(**options), backend=backend)
    ours, theirs = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        value = torch_loss(torch, leaves, x, labels)
        value.backward()
        optimizer.step()
        theirs.append(value.item())
        ours.append(float(step(x, labels)))
    np.testing.assert_allclose(ours, theirs, rtol=RELATIVE)
    for mine, leaf in zip(step.params, leaves, strict=True):
        close(mine, leaf.detach())


# -- JAX ---------------------------------------------------------------------------------------------------------------


def pairs(jax: ModuleType) -> dict[str, tuple[Callable, Callable, list[np.ndarray], int]]:
    """By name: our function, JAX's, the arguments, and how many of these are differentiated by."""
    jnp, rng = jax.numpy, np.random.default_rng(1)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape)

    def index(below: int, *shape: int) -> np.ndarray:
        return rng.integers(0, below, shape)

    def attention(softmax: Callable) -> Callable:
        return lambda q, k, v: softmax(q @ k.swapaxes(-1, -2) / 2.0) @ v

    def entropy(logits: Any, labels: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()

    params, x, labels = network()
    jax_loss = jax.tree_util.Partial(loss, relu=jax.nn.relu, cross_entropy=entropy)
    return {
        "perceptron": (
            lambda *a: loss(a[:-2], *a[-2:]),
            lambda *a: jax_loss(a[:-2], *a[-2:]),
            [*params, x, labels],
            6,
        ),
        "softmax-axis-0": (lambda a: F.softmax(a, 0), lambda a: jax.nn.softmax(a, 0), [3 * normal(4, 7)], 1),
        "log_softmax": (F.log_softmax, jax.nn.log_softmax, [30 * normal(4, 7)], 1),
        "logsumexp-axes": (
            lambda a: F.logsumexp(a, (0, 2), keepdims=True),
            lambda a: jax.nn.logsumexp(a, (0, 2), keepdims=True),
            [30 * normal(3, 5, 4)],
            1,
        ),
        "matmul": (np.matmul, jnp.matmul, [normal(3, 4), normal(4, 5)], 2),
        "matmul-batches": (np.matmul, jnp.matmul, [normal(2, 1, 3, 4), normal(5, 4, 2)], 2),
        "matmul-vector": (np.matmul, jnp.matmul, [normal(2, 3, 4), normal(4)], 2),
        "attention": (
            attention(F.softmax),
            attention(jax.nn.softmax),
            [normal(2, 5, 4) for _ in range(3)],
            3,
        ),
        "take": (
            lambda a, i: np.take(a, i, axis=1) ** 2,
            lambda a, i: jnp.take(a, i, axis=1) ** 2,
            [normal(3, 6), index(6, 2, 4)],
            1,
        ),
        "rows": (lambda a, i: a[i] * a[i], lambda a, i: a[i] * a[i], [normal(6, 3), index(6, 9)], 1),
        "scatter_add": (
            lambda u, i: scatter_add(u, i, 5) ** 2,
            lambda u, i: jnp.zeros((5, 3)).at[i].add(u) ** 2,
            [normal(8, 3), index(5, 8)],
            1,
        ),
        "max": (
            lambda a: np.max(a, axis=1) * np.max(a),
            lambda a: jnp.max(a, axis=1) * jnp.max(a),
            [normal(4, 6)],
            1,
        ),
        "maximum": (np.maximum, jnp.maximum, [normal(4, 1), normal(5)], 2),
        "elementwise": (
            lambda a, b: np.where(a > b, np.tanh(a) * np.exp(b), F.sigmoid(a) / (1.5 + np.abs(b))) ** 3,
            lambda a, b: (
                jnp.where(a > b, jnp.tanh(a) * jnp.exp(b), jax.nn.sigmoid(a) / (1.5 + jnp.abs(b))) ** 3
            ),
            [normal(4, 6), normal(6)],
            2,
        ),
        "roots": (
            lambda a: np.log(a) * np.sqrt(a) + a**-1.7,
            lambda a: jnp.log(a) * jnp.sqrt(a) + a**-1.7,
            [0.2 + normal(3, 4) ** 2],
            1,
        ),
        "layernorm": (
            lambda a: (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5),
            lambda a: (a - a.mean(-1, keepdims=True)) / jnp.sqrt(a.var(-1, keepdims=True) + 1e-5),
            [normal(4, 8)],
            1,
        ),
        "movement": (
            lambda a, b: np.concatenate([a.T[1:, ::-1], b.reshape(2, 3)], axis=1) ** 2,
            lambda a, b: jnp.concatenate([a.T[1:, ::-1], b.reshape(2, 3)], axis=1) ** 2,
            [normal(4, 3), normal(6)],
            2,
        ),
    }


NAMES = """
perceptron softmax-axis-0 log_softmax logsumexp-axes matmul matmul-batches matmul-vector attention
take rows scatter_add max maximum elementwise roots layernorm movement
""".split()  # noqa: SIM905


def weighed(f: Callable, cos: Callable) -> Callable:
    """A scalar of all of f's results, each with another weight."""

    def scalar(*args: Any) -> Any:
        out = f(*args)
        weights = np.cos(np.arange(1.0, 1.0 + int(np.prod(out.shape)))).reshape(out.shape)
        return cos(out * weights).sum()

    return scalar


def test_every_pair_has_a_name(jax: ModuleType) -> None:
    assert list(pairs(jax)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradients_are_jaxs(jax: ModuleType, name: str) -> None:
    ours, theirs, args, count = pairs(jax)[name]
    close(fg.jit(ours)(*args), theirs(*args))
    numbers = tuple(range(count))
    mine = fg.grad(weighed(ours, np.cos), argnums=numbers)(*args)
    expected = jax.jit(jax.grad(weighed(theirs, jax.numpy.cos), argnums=numbers))(*args)
    for a, b in zip(mine, expected, strict=True):
        close(a, b)


@pytest.mark.parametrize("name", ["softmax-axis-0", "matmul-batches", "rows", "elementwise"])
def test_second_derivatives_are_jaxs(jax: ModuleType, name: str) -> None:
    ours, theirs, args, _ = pairs(jax)[name]

    def twice(grad: Callable, f: Callable, sin: Callable) -> Callable:
        return grad(lambda *a: sin(grad(f)(*a)).sum())

    mine = twice(fg.grad, weighed(ours, np.cos), np.sin)(*args)
    expected = jax.jit(twice(jax.grad, weighed(theirs, jax.numpy.cos), jax.numpy.sin))(*args)
    close(mine, expected)
