"""Loops and branches against `jax.lax` in float64: values, VJPs, JVPs and Hessians to 1e-10."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import autodiff
from fastgrad.core.aval import aval_of
from fastgrad.interpreter import evaluate
from fastgrad.trace import trace

# JAX may warn while it is imported and used; its warnings are not ours to fix.
pytestmark = [pytest.mark.filterwarnings(f"ignore:::{name}(\\..*)?") for name in ("jax", "jaxlib")]


@pytest.fixture(scope="module")
def jax() -> Iterator[ModuleType]:
    """JAX in float64."""
    module = pytest.importorskip("jax")
    before = module.config.read("jax_enable_x64")
    module.config.update("jax_enable_x64", True)
    yield module
    module.config.update("jax_enable_x64", before)


def cell(m: Any, reverse: bool) -> Callable:
    def f(w, h, xs):
        def step(carry, x):
            h, c = carry
            z = m.np.tanh(h @ w + x)
            c = c * z + m.np.exp(-h * h)
            return (z * m.np.sin(c), c), z.sum() + c

        (h, c), ys = m.scan(step, (h, h * 0.5), xs, reverse=reverse)
        return (h * c).sum() + (ys * ys).sum()

    return f


def accumulate(m: Any) -> Callable:
    """A carry with integers, a dead one, and slices that go straight through."""

    def f(w, h, xs):
        def step(carry, x):
            n, total, dead = carry
            return (n + 1, total * 0.9 + m.np.sin(n * x @ w), dead + 1.0), (x, total * x)

        (_, total, _), (same, ys) = m.scan(step, (0, h, h), xs)
        return total.sum() + (same * ys).sum()

    return f


def fori(m: Any) -> Callable:
    def f(w, h, xs):
        return m.fori_loop(1, 5, lambda i, v: m.np.tanh(v @ w) * i + xs[0], h).sum()

    return f


def while_forward(m: Any) -> Callable:
    """Newton's iteration until it stands: forward mode alone."""

    def f(w, h, xs):
        def more(state):
            n, v = state
            return (n < 50) & (abs(v * v - 2.0 - h[0] ** 2) > 1e-12)

        def step(state):
            n, v = state
            return n + 1, v - (v * v - 2.0 - h[0] ** 2) / (2 * v)

        return m.while_loop(more, step, (0, 1.0 + 0 * h[0]))[1] * w.sum()

    return f


def branch(m: Any, positive: bool) -> Callable:
    def f(w, h, xs):
        pred = h.sum() * 0 > (-1.0 if positive else 1.0)
        return m.cond(pred, lambda v: m.np.tanh(v @ w) * v, lambda v: m.np.exp(v) + xs[1], h).sum()

    return f


def branches(m: Any, index: int) -> Callable:
    def f(w, h, xs):
        def step(c, x):
            i = m.np.floor(x[0] * 0).astype(int) + index
            return m.switch(i, [lambda c: m.np.sin(c @ w), lambda c: c * x, lambda c: c + x * x], c), c.sum()

        c, ys = m.scan(step, h, xs)
        return c.sum() + (ys**2).sum()

    return f


OURS = SimpleNamespace(
    np=np, scan=fg.scan, fori_loop=fg.fori_loop, while_loop=fg.while_loop, cond=fg.cond, switch=fg.switch
)


def both(name: str, jax: ModuleType) -> tuple[Callable, Callable]:
    """A program written with our functions, and with those of `jax.lax`."""
    lax = jax.lax
    theirs = SimpleNamespace(
        np=jax.numpy, scan=lax.scan, fori_loop=lax.fori_loop, while_loop=lax.while_loop, cond=lax.cond,
        switch=lax.switch,
    )  # fmt: skip
    return PROGRAMS[name](OURS), PROGRAMS[name](theirs)


PROGRAMS: dict[str, Callable[[Any], Callable]] = {
    "scan": lambda m: cell(m, False),
    "scan-reverse": lambda m: cell(m, True),
    "accumulate": accumulate,
    "fori": fori,
    "while": while_forward,
    "cond-true": lambda m: branch(m, True),
    "cond-false": lambda m: branch(m, False),
    **{f"switch-{i}": (lambda m, i=i: branches(m, i)) for i in (-2, 0, 1, 2, 5)},
}
ONE = np.float64(1)
RNG = np.random.default_rng(3)
ARRAYS = [0.5 * RNG.standard_normal(s) for s in ((3, 3), (3,), (6, 3))]
TANGENTS = [RNG.standard_normal(a.shape) for a in ARRAYS]


def close(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(got, np.asarray(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", PROGRAMS)
def test_against_jax(name: str, jax: ModuleType):
    ours, theirs = both(name, jax)
    graph = trace(lambda *a: [ours(*a)], [aval_of(a) for a in ARRAYS])
    arrays = [jax.numpy.asarray(a) for a in ARRAYS]
    value, tangent = jax.jvp(theirs, arrays, [jax.numpy.asarray(t) for t in TANGENTS])
    close(evaluate(graph, ARRAYS)[0], value)
    close(evaluate(autodiff.jvp(graph), [*ARRAYS, *TANGENTS]), [value, tangent])
    if name == "while":
        return
    joint = autodiff.vjp(graph, [0, 1, 2])
    for got, expected in zip(
        evaluate(joint, [*ARRAYS, np.float64(1)])[1:], jax.grad(theirs, (0, 1, 2))(*arrays), strict=True
    ):
        close(got, expected)


@pytest.mark.parametrize("name", PROGRAMS)
def test_hessians_against_jax(name: str, jax: ModuleType):
    ours, theirs = both(name, jax)
    arrays = [jax.numpy.asarray(a) for a in ARRAYS]
    expected = (
        jax.hessian(theirs, 1)(*arrays) if name != "while" else jax.jacfwd(jax.jacfwd(theirs, 1), 1)(*arrays)
    )
    graph = trace(lambda h: [ours(ARRAYS[0], h, ARRAYS[2])], [aval_of(ARRAYS[1])])
    if name == "while":
        second = autodiff.jvp(autodiff.jvp(graph))
        eye, zero = np.eye(3), np.zeros(3)
        rows = [[evaluate(second, [ARRAYS[1], a, b, zero])[3] for b in eye] for a in eye]
    else:
        joint = autodiff.vjp(graph, [0])
        forward_over_reverse = autodiff.jvp(joint)
        rows = [evaluate(forward_over_reverse, [ARRAYS[1], ONE, v, 0 * ONE])[3] for v in np.eye(3)]
        reverse_over_reverse = autodiff.vjp(joint, [0])
        close([evaluate(reverse_over_reverse, [ARRAYS[1], ONE, 0 * ONE, v])[2] for v in np.eye(3)], expected)
    close(rows, expected)
