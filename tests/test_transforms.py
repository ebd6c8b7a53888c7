"""`jvp`, `jacfwd`, `jacrev`, `hessian`, `hvp` against closed forms, in every nesting, on both backends."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass

import numpy as np
import pytest

import fastgrad as fg

X = np.array([0.5, -1.0, 2.0])
A = np.array([[2.0, 1.0, 0.0], [1.0, 3.0, 1.0], [0.0, 1.0, 4.0]])
backends = pytest.mark.parametrize("backend", ["numba", "numpy"])


def equal(got, expected) -> None:
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def polar(r, angle):
    return np.stack([r * np.cos(angle), r * np.sin(angle)])


def polar_jacobian(r, angle):
    return np.array([[np.cos(angle), -r * np.sin(angle)], [np.sin(angle), r * np.cos(angle)]])


# -- jvp ---------------------------------------------------------------------------------------------------------------


@backends
def test_jvp_is_the_jacobian_times_the_tangents(backend: str):
    out, tangent = fg.jvp(polar, (2.0, 0.3), (0.7, -1.1), backend=backend)
    equal(out, polar(2.0, 0.3))
    equal(tangent, polar_jacobian(2.0, 0.3) @ [0.7, -1.1])


def test_jvp_of_nestings():
    @dataclass
    class Pair:
        a: object
        b: object

    def f(p, x):
        return {"sum": p.a * x + p.b, "both": (p.a, x * x)}

    out, tangent = fg.jvp(f, [Pair(2.0, X), X], [Pair(1.0, X + 1), 2 * X])
    equal(out["sum"], 2 * X + X)
    equal(tangent["sum"], X + 2.0 * 2 * X + X + 1)
    equal(tangent["both"][0], 1.0)
    equal(tangent["both"][1], 4 * X * X)


def test_a_tangent_of_none_is_zero():
    equal(fg.jvp(lambda x, y: x * y, (X, X + 1), (None, X))[1], X * X)
    equal(fg.jvp(lambda p: p["a"] * p["b"], ({"a": X, "b": X},), ({"a": X, "b": None},))[1], X * X)
    out, tangent = fg.jvp(lambda x: x * 2.0, (X,), (None,))
    equal(out, 2 * X)
    equal(tangent, 0 * X)
    assert [
        e.prim.name for e in fg.jit(lambda x, t: fg.jvp(np.multiply, (x, x), (t, None))[1]).lower(X, X).eqns
    ] == [
        "mul",
        "mul",
    ]


def test_integers_have_no_tangent():
    out, tangent = fg.jvp(lambda x, i: (x[i], i + 1, x > 0), (X, np.array([2, 0])), (X, None))
    equal(out[0], X[[2, 0]])
    equal(tangent[0], X[[2, 0]])
    assert tangent[1] is None and tangent[2] is None
    assert out[1].dtype == np.int64


def test_jvp_has_aux():
    out, tangent, aux = fg.jvp(lambda x: (x * x, {"n": x.sum()}), (X,), (X,), has_aux=True)
    equal(out, X * X)
    equal(tangent, 2 * X * X)
    equal(aux["n"], X.sum())


def test_tangents_keep_their_dtypes():
    out, tangent = fg.jvp(lambda x, y: x * y, (X.astype("f4"), np.float32(2)), (X.astype("f4"), 1.5))
    assert out.dtype == tangent.dtype == np.float32
    equal(tangent, 3.5 * X)


def test_a_stopped_gradient_has_no_tangent():
    equal(fg.jvp(lambda x: fg.stop_gradient(x) * x, (X,), (X,))[1], X * X)


# -- Jacobians ---------------------------------------------------------------------------------------------------------


@backends
@pytest.mark.parametrize("jacobian", [fg.jacfwd, fg.jacrev])
def test_jacobians(jacobian, backend: str):
    equal(jacobian(lambda x: A @ x, backend=backend)(X), A)
    equal(
        jacobian(lambda x: np.sin(x) * x[0], backend=backend)(X),
        np.diag(np.cos(X) * X[0]) + np.outer(np.sin(X), [1, 0, 0]),
    )
    rows = jacobian(polar, argnums=(0, 1), backend=backend)(2.0, 0.3)
    equal(np.stack(rows, 1), polar_jacobian(2.0, 0.3))


@pytest.mark.parametrize("jacobian", [fg.jacfwd, fg.jacrev])
def test_jacobians_nest_outputs_outside_and_arguments_inside(jacobian):
    p = {"w": np.arange(6.0).reshape(2, 3), "b": np.ones(2)}

    def f(p, x):
        return p["w"] @ x + p["b"], {"s": (p["w"] ** 2).sum()}

    first, second = jacobian(f)(p, X)
    equal(first["w"], np.einsum("ik,j->ikj", np.eye(2), X))
    equal(first["b"], np.eye(2))
    equal(second["s"]["w"], 2 * p["w"])
    equal(second["s"]["b"], np.zeros(2))
    both = jacobian(f, argnums=(1, 0))(p, X)
    equal(both[0][0], p["w"])
    equal(both[0][1]["b"], np.eye(2))
    equal(both[1]["s"][0], np.zeros(3))
    assert jacobian(f, argnums=[-1])(p, X)[0][0].shape == (2, 3)


@pytest.mark.parametrize("jacobian", [fg.jacfwd, fg.jacrev])
def test_jacobians_of_scalars_arrays_and_nothing(jacobian):
    equal(jacobian(lambda x: x**3)(2.0), 12.0)
    equal(jacobian(lambda x: x * X)(2.0), X)
    equal(jacobian(lambda x: (x * x).sum())(X), 2 * X)
    assert jacobian(lambda x: np.ones((2, 4)) * 3.0)(X).shape == (2, 4, 3)
    assert jacobian(lambda x: x * 2.0)(np.ones((0, 2))).shape == (0, 2, 0, 2)
    assert jacobian(lambda x: np.outer(x, x))(X).shape == (3, 3, 3)
    assert jacobian(lambda x: x * 2)(X.astype("f4")).dtype == np.float32


@pytest.mark.parametrize("jacobian", [fg.jacfwd, fg.jacrev, fg.hessian])
def test_jacobians_has_aux(jacobian):
    result, aux = jacobian(lambda x: ((x**3).sum(), {"x": x, "n": 2}), has_aux=True)(X)
    equal(result, np.diag(6 * X) if jacobian is fg.hessian else 3 * X**2)
    equal(aux["x"], X)
    assert aux["n"] == 2


def test_no_array_of_the_basis_is_captured():
    x = np.ones(500)
    for jacobian in (fg.jacfwd, fg.jacrev):
        graph = jacobian(lambda x: np.tanh(x) * x.sum()).lower(x)
        assert all(value.size <= 500 for _, value in graph.captured)


@backends
def test_hessian(backend: str):
    def f(x):
        return 0.5 * x @ A @ x + (x**3).sum()

    equal(fg.hessian(f, backend=backend)(X), A + np.diag(6 * X))
    equal(fg.jacrev(fg.grad(f), backend=backend)(X), A + np.diag(6 * X))
    equal(fg.jacfwd(fg.jacfwd(f), backend=backend)(X), A + np.diag(6 * X))
    equal(fg.jacrev(fg.jacfwd(f), backend=backend)(X), A + np.diag(6 * X))


def test_hessian_nests_arguments_in_arguments():
    p = {"a": X, "b": np.float64(2.0)}
    blocks = fg.hessian(lambda p: (p["a"] ** 2).sum() * p["b"] ** 3)(p)
    equal(blocks["a"]["a"], 2 * 8.0 * np.eye(3))
    equal(blocks["a"]["b"], 2 * X * 12.0)
    equal(blocks["b"]["a"], 2 * X * 12.0)
    equal(blocks["b"]["b"], (X**2).sum() * 12.0)
    (xx, xy), (yx, yy) = fg.hessian(lambda x, y: (x * y * y).sum(), argnums=(0, 1))(X, X + 1)
    equal(xx, np.zeros((3, 3)))
    equal(xy, np.diag(2 * (X + 1)))
    equal(yx, xy)
    equal(yy, np.diag(2 * X))
    assert fg.hessian(lambda x: np.sin(x))(X).shape == (3, 3, 3)


@backends
def test_hvp_is_the_hessian_times_a_vector(backend: str):
    def f(x):
        return 0.5 * x @ A @ x + (x**3).sum()

    equal(fg.hvp(f, (X,), (X + 1,), backend=backend), (A + np.diag(6 * X)) @ (X + 1))


def test_hvp_of_several_arguments():
    def f(x, y, scale):
        return (x * y * y).sum() * scale

    y, u, v = X + 1, X * 2, X - 1
    of_x, of_y, none = fg.hvp(f, (X, y, 3.0), (u, v, None))
    equal(of_x, 3 * 2 * y * v)
    equal(of_y, 3 * (2 * y * u + 2 * X * v))
    assert none is None
    product, aux = fg.hvp(lambda x: ((x**3).sum(), x.sum()), [X], [X], has_aux=True)
    equal(product, 6 * X * X)
    equal(aux, X.sum())
    labels = np.array([1, 2])
    equal(fg.hvp(lambda x, i: (x[i] ** 3).sum(), (X, labels), (X, None))[0], [0, 6.0, 24.0])


def test_a_hessian_diagonal_makes_no_square_array():
    x = np.linspace(-1, 1, 400)
    f = lambda x: np.exp(x).sum() + (x**3).sum()  # noqa: E731
    graph = fg.jit(lambda x: fg.hvp(f, (x,), (np.ones(400),))).lower(x)
    assert max(v.aval.size for eqn in graph.eqns for v in eqn.outputs) <= 400
    equal(fg.hvp(f, (x,), (np.ones(400),)), np.exp(x) + 6 * x)


# -- nesting -----------------------------------------------------------------------------------------------------------


def test_perturbations_are_not_confused():
    """Siskind & Pearlmutter 2005, *Perturbation confusion and referential transparency*."""
    equal(fg.grad(lambda x: x * fg.grad(lambda y: x + y)(1.0))(1.0), 1.0)
    d = lambda f, x: fg.jvp(f, (x,), (1.0,))[1]  # noqa: E731
    equal(d(lambda x: x * d(lambda y: x + y, 1.0), 1.0), 1.0)
    equal(d(lambda x: x * fg.grad(lambda y: x + y)(1.0), 1.0), 1.0)
    equal(fg.grad(lambda x: x * d(lambda y: x + y, 1.0))(1.0), 1.0)
    equal(d(lambda x: x * d(lambda y: x * y, 2.0), 3.0), 6.0)
    equal(d(lambda x: d(lambda y: d(lambda z: x * y * z * z, 2.0), 3.0), 5.0), 4.0)
    equal(fg.grad(lambda x: (x * fg.jacrev(lambda y: y * y * x)(X)).sum())(2.0), 8 * X.sum())


def test_higher_derivatives_in_every_order():
    f = lambda x: np.sin(x) * x  # noqa: E731
    forward = lambda f: lambda x: fg.jvp(f, (x,), (1.0,))[1]  # noqa: E731
    pulled = lambda f: lambda x: fg.vjp(f, x)[1](1.0)[0]  # noqa: E731
    third = -3 * np.sin(0.7) - 0.7 * np.cos(0.7)
    steps = {"jvp": forward, "grad": fg.grad, "vjp": pulled, "jacfwd": fg.jacfwd, "jit": fg.jit}
    for a in steps:
        for b in steps:
            for c in steps:
                order = sum(name != "jit" for name in (a, b, c))
                expected = [
                    f(0.7),
                    np.cos(0.7) * 0.7 + np.sin(0.7),
                    2 * np.cos(0.7) - 0.7 * np.sin(0.7),
                    third,
                ][order]
                equal(steps[a](steps[b](steps[c](f)))(0.7), expected)


def test_a_pullback_is_a_function_of_its_cotangent():
    _, pullback = fg.vjp(np.sin, X)
    out, tangent = fg.jvp(lambda ct: pullback(ct)[0], (X,), (X + 1,))
    equal(out, np.cos(X) * X)
    equal(tangent, np.cos(X) * (X + 1))
    equal(fg.jacfwd(lambda ct: pullback(ct)[0])(X), np.diag(np.cos(X)))
    mapped = fg.vmap(lambda ct: pullback(ct)[0])(np.eye(3))
    equal(mapped, np.diag(np.cos(X)))


def test_closures_over_traced_values():
    @fg.jit
    def f(x, y):
        scale = np.exp(y)
        gradient = fg.grad(lambda x: (x * scale).sum())(x)
        tangent = fg.jvp(lambda x: x * scale * gradient, (x,), (x,))[1]
        jacobian = fg.jacrev(lambda x: x * scale)(x)
        return tangent + jacobian @ x + fg.hvp(lambda x: (x**2 * scale).sum(), (x,), (y,))

    s = np.exp(X + 1)
    equal(f(X, X + 1), X * s * s + s * X + 2 * s * (X + 1))


def test_jit_of_any_of_them_and_any_of_them_of_jit():
    f = fg.jit(lambda x: (x**3).sum())
    equal(fg.jit(fg.hessian(f))(X), np.diag(6 * X))
    equal(fg.jit(lambda x, v: fg.hvp(f, (x,), (v,)))(X, X), 6 * X * X)
    equal(fg.jacfwd(fg.jit(fg.grad(f)))(X), np.diag(6 * X))


# -- what is remembered ------------------------------------------------------------------------------------------------


def test_a_transformed_function_traces_once():
    count = 0

    def f(x):
        nonlocal count
        count += 1
        return (x**2).sum()

    for _ in range(3):
        fg.hessian(f)(X)
        fg.jacfwd(f)(X)
        fg.jvp(f, (X,), (X,))
        fg.hvp(f, (X,), (X,))
        fg.vmap(f, in_axes=(0,))(A)
    assert count == 5
    assert fg.jacrev(f, argnums=[0]) is fg.jacrev(f, argnums=(0,)) is not fg.jacrev(f)
    assert fg.vmap(f, in_axes=[{"a": 0}]) is fg.vmap(f, in_axes=({"a": 0},)) is not fg.vmap(f)


def test_what_is_remembered_dies_with_the_function():
    def f(x):
        return (x**2).sum()

    alive = weakref.ref(f)
    fg.hvp(f, (X,), (X,))
    fg.vmap(fg.hessian(f))(A)
    del f
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("how", [fg.jacfwd, fg.jacrev, fg.hessian, fg.vmap])
def test_names_and_options(how):
    def f(x):
        """What f is."""
        return x.sum()

    made = how(f, backend="numpy")
    assert made.__name__ == f"{how.__name__}(f)"
    assert made.__doc__ == f.__doc__
    assert made(np.ones((2, 2))).dtype == np.float64
    with pytest.raises(fg.errors.ArgumentError, match="unknown option 'speed'"):
        how(f, speed=9)
