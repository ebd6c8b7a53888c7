"""Loops and branches under every transformation, with steps that are checkpointed or carry rules of their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import fastgrad as fg

X = np.array([0.5, -1.0, 2.0])
B = np.stack([X, X + 0.3])
W = np.random.default_rng(0).standard_normal((3, 3))


@fg.custom_vjp
def tripled(x):
    return x * np.sin(x)


tripled.defvjp(
    lambda x: (tripled(x), (x, np.cos(x))),
    lambda r, ct: (3 * ct * (np.sin(r[0]) + r[0] * r[1]),),
)


@fg.custom_jvp
def doubled(x):
    return x * np.sin(x)


doubled.defjvp(lambda p, t: (doubled(p[0]), 2 * t[0] * (np.sin(p[0]) + p[0] * np.cos(p[0]))))


def layer(x):
    return np.tanh(W @ x) * x


STEPS = {
    "plain": layer,
    "checkpoint": fg.checkpoint(layer),
    "checkpoint products": fg.checkpoint(layer, "products"),
    "custom_vjp": tripled,
    "custom_jvp": doubled,
}
WAYS: dict[str, Callable] = {
    "grad": lambda f: fg.grad(f)(X),
    "vjp": lambda f: fg.vjp(f, X)[1](1.5)[0],
    "grad of grad": lambda f: fg.grad(lambda x: (fg.grad(f)(x) * X).sum())(X),
    "hvp": lambda f: fg.hvp(f, (X,), (X,)),
    "hessian": lambda f: fg.hessian(f)(X),
    "vmap of grad": lambda f: fg.vmap(fg.grad(f))(B),
    "grad of vmap": lambda f: fg.grad(lambda x: fg.vmap(f)(x).sum())(B),
    "vmap of hessian": lambda f: fg.vmap(fg.hessian(f))(B),
    "grad of checkpoint": lambda f: fg.grad(fg.checkpoint(f))(X),
    "jvp": lambda f: fg.jvp(f, (X,), (X,))[1],
}


def looped(step: Callable) -> Callable:
    def f(x):
        carry, sums = fg.scan(lambda c, _: (step(c), c.sum()), x, None, length=3)
        return carry.sum() + sums.sum()

    return f


def unrolled(step: Callable) -> Callable:
    def f(x):
        total = 0.0
        for _ in range(3):
            total, x = total + x.sum(), step(x)
        return x.sum() + total

    return f


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", STEPS)
def test_a_scan_is_its_steps_one_after_the_other(step: str, way: str):
    if (step, way) == ("custom_vjp", "jvp"):
        pytest.skip("a rule for reverse mode alone")
    got, expected = (WAYS[way](f(STEPS[step])) for f in (looped, unrolled))
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)


def test_branches_follow_the_rules_of_what_they_call():
    f = lambda x, p: fg.cond(p, tripled, lambda x: x * 2.0, x).sum()  # noqa: E731
    taken = 3 * (np.sin(X) + X * np.cos(X))
    np.testing.assert_allclose(fg.grad(f)(X, True), taken)
    np.testing.assert_allclose(fg.grad(f)(X, False), 2 + 0 * X)
    np.testing.assert_allclose(
        fg.vmap(fg.grad(f))(np.stack([X, X]), np.array([True, False])), [taken, 2 + 0 * X]
    )
    inside = fg.checkpoint(lambda x: fg.cond(x.sum() > 0, np.sin, np.cos, x))
    np.testing.assert_allclose(fg.grad(lambda x: inside(x).sum())(X), np.cos(X))
