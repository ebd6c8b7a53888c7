"""Derivatives of every kind and batches against JAX in float64, skipped where it is not installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp

pytestmark = [pytest.mark.filterwarnings(f"ignore:::{name}(\\..*)?") for name in ("jax", "jaxlib")]
RELATIVE = 1e-10


@pytest.fixture(scope="module")
def jax() -> Iterator[ModuleType]:
    """JAX in float64."""
    module = pytest.importorskip("jax")
    before = module.config.read("jax_enable_x64")
    module.config.update("jax_enable_x64", True)
    yield module
    module.config.update("jax_enable_x64", before)


def close(jax: ModuleType, ours: Any, theirs: Any) -> None:
    """Equal in nesting, shapes and dtypes, and to `RELATIVE` of the largest element."""
    mine, nesting = jax.tree.flatten(ours)
    other, expected = jax.tree.flatten(theirs)
    assert nesting == expected
    for a, b in zip(mine, map(np.asarray, other), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=0, atol=RELATIVE * float(np.abs(b).max(initial=1e-300)))


def rosenbrock(np: Any, x: Any) -> Any:
    return (100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def ackley(np: Any, x: Any) -> Any:
    return 20 - 20 * np.exp(-0.2 * np.sqrt((x * x).mean())) - np.exp(np.cos(6.28 * x).mean())


def quadratic(np: Any, x: Any) -> Any:
    a = np.outer(x, x) + 1.0
    return x @ a @ x


def perceptron(np: Any, x: Any) -> Any:
    w = np.reshape(np.sin(np.arange(15.0)), (3, 5))
    return np.tanh(np.tanh(x @ w) @ w.T).sum()


def softmax(np: Any, x: Any) -> Any:
    e = np.exp(x - x.max())
    return (e / e.sum() * x).sum()


def distances(np: Any, x: Any) -> Any:
    d = x[:, None] - x[None, :]
    return np.log(1 + d * d).sum()


def powers(np: Any, x: Any) -> Any:
    return (np.abs(x) ** 2.5 / (1 + x**2)).sum()


def pieces(np: Any, x: Any) -> Any:
    return np.where(x > 0, np.sin(x), x**3).sum() + np.clip(x, -0.5, 0.5).sum()


def moved(np: Any, x: Any) -> Any:
    y = np.concatenate([x[::-1], np.stack([x, x * 2]).reshape(-1)[1:4]])
    return (y**3).sum() * y[0]


def variance(np: Any, x: Any) -> Any:
    return np.var(x) / (1e-3 + np.mean(x) ** 2)


FUNCTIONS = [rosenbrock, ackley, quadratic, perceptron, softmax, distances, powers, pieces, moved, variance]
functions = pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)


def pair(jax: ModuleType, f: Callable) -> tuple[Callable, Callable]:
    return (lambda x: f(fnp, x)), (lambda x: f(jax.numpy, x))


X = np.random.default_rng(0).standard_normal((6, 3))
V = np.random.default_rng(1).standard_normal((6, 3))


@functions
def test_derivatives_are_jaxs(jax: ModuleType, f: Callable) -> None:
    mine, theirs = pair(jax, f)
    x, v = X[0], V[0]
    close(jax, fg.jvp(mine, (x,), (v,)), jax.jvp(theirs, (x,), (v,)))
    close(jax, fg.jacfwd(mine)(x), jax.jacfwd(theirs)(x))
    close(jax, fg.jacrev(mine)(x), jax.jacrev(theirs)(x))
    close(jax, fg.hessian(mine)(x), jax.hessian(theirs)(x))
    close(jax, fg.hvp(mine, (x,), (v,)), jax.jvp(jax.grad(theirs), (x,), (v,))[1])


@functions
def test_batches_are_jaxs(jax: ModuleType, f: Callable) -> None:
    mine, theirs = pair(jax, f)
    close(jax, fg.vmap(mine)(X), jax.vmap(theirs)(X))
    close(jax, fg.vmap(fg.grad(mine), in_axes=1, out_axes=1)(X.T), jax.vmap(jax.grad(theirs), 1, 1)(X.T))
    close(jax, fg.vmap(fg.hessian(mine))(X), jax.vmap(jax.hessian(theirs))(X))
    close(jax, fg.jacrev(fg.vmap(mine))(X), jax.jacrev(jax.vmap(theirs))(X))
    close(
        jax,
        fg.vmap(lambda x, v: fg.jvp(fg.grad(mine), (x,), (v,))[1])(X, V),
        jax.vmap(lambda x, v: jax.jvp(jax.grad(theirs), (x,), (v,))[1])(X, V),
    )


def test_nesting_of_jacobians_is_jaxs(jax: ModuleType) -> None:
    p = {"w": X[:2], "b": (V[0], np.float64(2.0))}

    def f(np: Any, p: Any, x: Any) -> Any:
        h = np.tanh(p["w"] @ x) * p["b"][1]
        return {"h": h, "s": (h.sum() * p["b"][0], x[1])}

    mine, theirs = (lambda p, x: f(fnp, p, x)), (lambda p, x: f(jax.numpy, p, x))
    for argnums in (0, 1, (0, 1), (1,)):
        for name in ("jacfwd", "jacrev", "hessian"):
            close(
                jax,
                getattr(fg, name)(mine, argnums=argnums)(p, X[0]),
                getattr(jax, name)(theirs, argnums=argnums)(p, X[0]),
            )


def test_jaxs_own_checks_accept_ours(jax: ModuleType) -> None:
    from jax.test_util import check_jvp, check_vjp

    for f in (lambda x, w: np.tanh(x @ w), lambda x, w: (x * x[0]).sum() * w):
        args = (X[0], V[:3])
        check_jvp(f, lambda primals, tangents, f=f: fg.jvp(f, primals, tangents), args, rtol=1e-5, atol=1e-5)
        check_vjp(f, lambda *primals, f=f: fg.vjp(f, *primals), args, rtol=1e-5, atol=1e-5)
