"""`custom_vjp` and `custom_jvp`: the user's rule is what counts, in every nesting; and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad.errors import ArgumentError, DTypeError, FastgradError, ShapeError, TraceError, UnsupportedError

X = np.array([0.5, -1.0, 2.0])
B = np.random.default_rng(0).standard_normal((4, 3))
backends = pytest.mark.parametrize("backend", ["numba", "numpy"])


def equal(got, expected) -> None:
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@fg.custom_vjp
def tripled(x):
    """x * sin(x), whose rule claims three times the derivative."""
    return x * np.sin(x)


def tripled_fwd(x):
    return tripled(x), (x, np.cos(x))  # calls the function itself, as most rules do


def tripled_bwd(residuals, ct):
    x, c = residuals
    return (3 * ct * (np.sin(x) + x * c),)


tripled.defvjp(tripled_fwd, tripled_bwd)


@fg.custom_jvp
def doubled(x):
    return x * np.sin(x)


@doubled.defjvp
def doubled_rule(primals, tangents):
    (x,), (t,) = primals, tangents
    return doubled(x), 2 * t * (np.sin(x) + x * np.cos(x))


def slope(x):
    return np.sin(x) + x * np.cos(x)


def curve(x):
    return 2 * np.cos(x) - x * np.sin(x)


# -- custom_vjp --------------------------------------------------------------------------------------------------------


@backends
def test_the_rule_is_the_derivative(backend: str):
    equal(tripled(X), X * np.sin(X))
    equal(fg.jit(tripled, backend=backend)(X), X * np.sin(X))
    equal(fg.grad(lambda x: tripled(x).sum(), backend=backend)(X), 3 * slope(X))
    equal(fg.grad(tripled, backend=backend)(0.7), 3 * slope(0.7))
    out, pullback = fg.vjp(tripled, X, backend=backend)
    equal(out, X * np.sin(X))
    equal(pullback(B[0])[0], 3 * B[0] * slope(X))
    equal(fg.jacrev(tripled, backend=backend)(X), np.diag(3 * slope(X)))


def test_second_derivatives_differentiate_the_rule():
    total = lambda x: tripled(x).sum()  # noqa: E731
    equal(fg.grad(fg.grad(tripled))(0.7), 3 * curve(0.7))
    equal(fg.hvp(total, (X,), (B[0],)), 3 * curve(X) * B[0])
    equal(fg.hessian(total)(X), np.diag(3 * curve(X)))
    equal(fg.grad(fg.grad(fg.grad(tripled)))(0.7), 3 * (-3 * np.sin(0.7) - 0.7 * np.cos(0.7)))


def test_forward_mode_says_custom_jvp():
    for how in (lambda: fg.jvp(tripled, (X,), (X,)), lambda: fg.jacfwd(tripled)(X)):
        with pytest.raises(UnsupportedError, match="custom_vjp tripled: has no forward-mode") as info:
            how()
        assert "fg.custom_jvp" in str(info.value) and "test_transforms_custom.py:" in str(info.value)


@backends
def test_batches(backend: str):
    equal(fg.vmap(tripled, backend=backend)(B), B * np.sin(B))
    equal(fg.vmap(fg.grad(lambda x: tripled(x).sum()), backend=backend)(B), 3 * slope(B))
    equal(fg.grad(lambda x: fg.vmap(tripled)(x).sum(), backend=backend)(B), 3 * slope(B))
    equal(fg.vmap(fg.hessian(lambda x: tripled(x).sum()))(B), [np.diag(3 * curve(b)) for b in B])
    second = fg.grad(
        lambda x: fg.vmap(fg.grad(lambda x: fg.vmap(tripled)(x).sum()))(x).sum(), backend=backend
    )
    equal(second(B), 3 * curve(B))


def test_shared_arguments_gather_their_cotangents():
    @fg.custom_vjp
    def scaled(w, x):
        return w * x

    scaled.defvjp(lambda w, x: (w * x, (w, x)), lambda r, ct: (10 * ct * r[1], ct * r[0]))
    of_w, of_x = fg.grad(lambda w, x: fg.vmap(scaled, in_axes=(None, 0))(w, x).sum(), argnums=(0, 1))(X, B)
    equal(of_w, 10 * B.sum(0))
    equal(of_x, np.tile(X, (4, 1)))
    constant = fg.custom_vjp(lambda w, x: w + x)
    constant.defvjp(lambda w, x: (w + x, None), lambda r, ct: (np.ones(3), None))
    equal(fg.grad(lambda w: fg.vmap(constant, in_axes=(None, 0))(w, B).sum())(X), np.full(3, 4.0))


def test_nestings_none_and_arguments_without_derivative():
    @fg.custom_vjp
    def f(p, i, scale=2.0):
        return {"y": p["a"][i] * p["b"][0] * scale, "i": i}

    def bwd(residuals, ct):
        assert ct["i"] is None
        return {"a": np.zeros(3), "b": (ct["y"] * residuals["a"], None)}, None, None

    f.defvjp(lambda p, i, scale: (f(p, i, scale), {"a": p["a"][i], "name": "kept"}), bwd)
    p = {"a": X, "b": (np.float64(3.0), np.ones(2))}
    loss = lambda p, i: f(p, i)["y"]  # noqa: E731
    gradient = fg.grad(loss)(p, 1)
    equal(gradient["a"], np.zeros(3))
    equal(gradient["b"][0], -1.0)
    equal(gradient["b"][1], np.zeros(2))
    equal(fg.grad(lambda p, i: f(p, scale=1.0, i=i)["y"])(p, 2)["b"][0], 2.0)


def test_nondiff_argnums_come_first():
    @fg.custom_vjp
    def plain(g, x, n):
        return g(x) * n

    @(lambda f: fg.custom_vjp(f, nondiff_argnums=(0, 2)))
    def app(g, x, n):
        return g(x) * n

    app.defvjp(lambda g, x, n: (app(g, x, n), x), lambda g, n, x, ct: (ct * g(x) * n * 100,))
    equal(fg.grad(lambda x: app(np.cos, x, 3).sum())(X), 300 * np.cos(X))
    equal(fg.vmap(fg.grad(lambda x: app(np.cos, x, 3).sum()))(B), 300 * np.cos(B))
    assert app.__name__ == "app" and "custom_vjp" in repr(app)
    del plain


@backends
def test_rules_close_over_traced_values(backend: str):
    @fg.grad
    def outer(x, y):
        k = fg.stop_gradient(np.exp(y))  # a value of the trace that is differentiated

        f = fg.custom_vjp(lambda x: x * k)
        f.defvjp(lambda x: (f(x), x * k), lambda r, ct: (ct * r * k,))
        return (f(x) * x).sum()

    k = np.exp(X + 1)
    expected = X * (X * k * k) + X * k
    equal(fg.jit(outer, backend=backend)(X, X + 1), expected)
    equal(fg.vmap(outer)(np.stack([X, X]), np.stack([X + 1, X]))[0], expected)

    @fg.grad
    def forward(x, y):
        k = fg.stop_gradient(np.exp(y))
        f = fg.custom_jvp(lambda x: x * k)
        f.defjvp(lambda p, t: (f(p[0]), t[0] * p[0] * k * k))
        return (f(x) * x).sum()

    equal(fg.jit(forward, backend=backend)(X, X + 1), expected)


def test_the_derivative_by_a_closed_over_value_is_refused():
    def loss(y):
        f = fg.custom_vjp(lambda x: x * y)
        f.defvjp(lambda x: (x * y, None), lambda r, ct: (ct * y,))
        return f(2.0 * y)

    with pytest.raises(
        TraceError, match="says nothing of the derivative by a value that it closes over"
    ) as info:
        fg.grad(loss)(1.0)
    assert "pass the value as an argument" in str(info.value)


def test_methods_and_jit_inside():
    class Layer:
        scale = 3.0

        @fg.custom_vjp
        def __call__(self, x):
            return x * self.scale

    Layer.__call__.defvjp(lambda self, x: (x, None), lambda r, ct: (None, ct * 7))
    equal(fg.grad(lambda x: Layer()(x))(1.0), 7.0)
    equal(fg.grad(fg.jit(lambda x: fg.jit(tripled)(x).sum()))(X), 3 * slope(X))
    equal(fg.grad(lambda x: fg.checkpoint(tripled)(x).sum())(X), 3 * slope(X))
    equal(
        fg.grad(lambda x: fg.checkpoint(lambda x: tripled(x) * x)(x).sum())(X),
        3 * slope(X) * X + X * np.sin(X),
    )


def test_tensors_follow_the_rule():
    for f, factor in ((tripled, 3), (doubled, 2)):
        t = fg.Tensor(X, requires_grad=True)
        f(t).sum().backward()
        equal(t.grad, factor * slope(X))


# -- custom_jvp --------------------------------------------------------------------------------------------------------


@backends
def test_a_rule_for_tangents_serves_both_modes(backend: str):
    equal(doubled(X), X * np.sin(X))
    out, tangent = fg.jvp(doubled, (X,), (B[0],), backend=backend)
    equal(out, X * np.sin(X))
    equal(tangent, 2 * slope(X) * B[0])
    equal(fg.grad(lambda x: doubled(x).sum(), backend=backend)(X), 2 * slope(X))
    equal(fg.jacfwd(doubled, backend=backend)(X), np.diag(2 * slope(X)))
    equal(fg.jacrev(doubled, backend=backend)(X), np.diag(2 * slope(X)))
    equal(fg.vmap(fg.grad(lambda x: doubled(x).sum()), backend=backend)(B), 2 * slope(B))
    equal(fg.jvp(fg.vmap(doubled), (B,), (B,), backend=backend)[1], 2 * slope(B) * B)


def test_second_derivatives_of_a_tangent_rule():
    total = lambda x: doubled(x).sum()  # noqa: E731
    equal(fg.grad(fg.grad(doubled))(0.7), 2 * curve(0.7))
    equal(fg.jvp(lambda x: fg.jvp(doubled, (x,), (1.0,))[1], (0.7,), (1.0,))[1], 2 * curve(0.7))
    for how in (
        fg.hessian,
        lambda f: fg.jacrev(fg.jacrev(f)),
        lambda f: fg.jacrev(fg.jacfwd(f)),
        lambda f: fg.jacfwd(fg.jacfwd(f)),
    ):
        equal(how(total)(X), np.diag(2 * curve(X)))
    equal(fg.vmap(fg.hessian(total))(B), [np.diag(2 * curve(b)) for b in B])


def test_defvjps_one_rule_an_argument():
    @fg.custom_jvp
    def f(x, y, n):
        return x * y + n

    f.defjvps(lambda t, out, x, y, n: 5 * t * y, None, None)
    equal(fg.grad(lambda x, y: f(x, y, 3).sum(), argnums=(0, 1))(X, X + 1)[0], 5 * (X + 1))
    equal(fg.grad(lambda x, y: f(x, y, 3).sum(), argnums=(0, 1))(X, X + 1)[1], 0 * X)
    f.defjvps(lambda t, out, *xs: t, lambda t, out, *xs: 2 * t * out, None)
    equal(fg.jvp(lambda x, y: f(x, y, 0), (X, X), (X, X))[1], X + 2 * X * X * X)


def test_tangent_rules_of_nestings():
    @(lambda f: fg.custom_jvp(f, nondiff_argnums=1))
    def f(p, power):
        return (p["x"] ** power, p["i"] + 1)

    @f.defjvp
    def rule(power, primals, tangents):
        (p,), (t,) = primals, tangents
        assert t["i"] is None
        return f(p, power), (7 * t["x"], None)

    p = {"x": X, "i": 3}
    equal(fg.grad(lambda x: f({"x": x, "i": 3}, 2)[0].sum())(X), np.full(3, 7.0))
    assert fg.jvp(lambda p: f(p, 2), (p,), ({"x": X, "i": None},))[1][1] is None


# -- errors ------------------------------------------------------------------------------------------------------------


def vjp_of(fwd, bwd, f=lambda x: x * 2.0):
    made = fg.custom_vjp(f)
    made.defvjp(fwd, bwd)
    return made


def jvp_of(rule, f=lambda x: x * 2.0):
    made = fg.custom_jvp(f)
    made.defjvp(rule)
    return made


ROWS = {
    "no vjp rule": (lambda: fg.custom_vjp(lambda x: x), ArgumentError,
                           ["custom_vjp <lambda>: has no rule yet", "defvjp"]),
    "no jvp rule": (lambda: fg.custom_jvp(lambda x: x), ArgumentError,
                           ["custom_jvp <lambda>: has no rule yet", "defjvp"]),
    "fwd returns no pair": (lambda: vjp_of(lambda x: x, bool), ArgumentError,
                           ["fwd must return (output, residuals)"]),
    "fwd's nesting": (lambda: vjp_of(lambda x: ((x, x), x), bool), ArgumentError,
                           ["the output of fwd nests as", "expected"]),
    "fwd's shape": (lambda: vjp_of(lambda x: (x.sum(), x), bool), ShapeError,
                           ["output 0 of fwd must be f64[3], got f64[]"]),
    "fwd's dtype": (lambda: vjp_of(lambda x: (x.astype("f4"), x), bool), DTypeError,
                    ["output 0 of fwd must be f64[3], got f32[3]", ".astype(np.float64)"]),
    "bwd returns no tuple": (lambda: vjp_of(lambda x: (x, x), lambda r, ct: ct), ArgumentError,
                             ["bwd must return a tuple of 1 cotangents, one for each argument, got Array"]),
    "bwd returns too many": (lambda: vjp_of(lambda x: (x, x), lambda r, ct: (ct, ct)), ArgumentError,
                           ["of 1 cotangents", "got 2 values"]),
    "bwd's nesting": (lambda: vjp_of(lambda x: (x, x), lambda r, ct: ((ct, ct),)), DTypeError,
                      ["the cotangent of argument [0] from bwd must be f64[3], got tuple"]),
    "bwd's shape": (lambda: vjp_of(lambda x: (x, x), lambda r, ct: (ct.sum(),)), ShapeError,
                    ["the cotangent of argument [0] from bwd must be f64[3], got f64[]"]),
    "bwd's dtype": (lambda: vjp_of(lambda x: (x, x), lambda r, ct: (ct.astype("f4"),)), DTypeError,
                           ["must be f64[3], got f32[3]"]),
    "rule returns no pair": (lambda: jvp_of(lambda p, t: t), ArgumentError,
                           ["the rule must return (output, tangent of the output)"]),
    "rule's output": (lambda: jvp_of(lambda p, t: (p[0].sum(), t[0])), ShapeError,
                           ["output 0 of the rule must be f64[3], got f64[]"]),
    "rule's tangent": (lambda: jvp_of(lambda p, t: (p[0], t[0].sum())), ShapeError,
                           ["tangent 0 of the rule must be f64[3], got f64[]"]),
    "rule's nesting": (lambda: jvp_of(lambda p, t: ([p[0]], t[0])), ArgumentError, ["the rule's output nests as"]),
    "nondiff out of range": (lambda: fg_custom_out_of_range(), ArgumentError, ["nondiff_argnums 3 with 1 arguments"]),
}  # fmt: skip


def fg_custom_out_of_range():
    made = fg.custom_vjp(lambda x: x, nondiff_argnums=(3,))
    made.defvjp(lambda x: (x, None), lambda r, ct: (ct,))
    return made


@pytest.mark.parametrize("name", ROWS)
def test_error(name: str):
    make, kind, parts = ROWS[name]
    f = make()
    with pytest.raises(kind) as info:
        fg.grad(lambda x: fnp.sum(f(x)))(X)
    assert isinstance(info.value, FastgradError)
    for part in (*parts, "test_transforms_custom.py:"):
        assert part in str(info.value)


def test_integers_take_no_cotangent_and_give_no_tangent():
    f = fg.custom_vjp(lambda x, i: x * 2.0)
    f.defvjp(lambda x, i: (x, None), lambda r, ct: (ct, 0))
    with pytest.raises(
        DTypeError, match=r"the cotangent of argument \[1\] from bwd must be None, as that is i64"
    ):
        fg.grad(lambda x: f(x, 3))(1.0)
    g = fg.custom_jvp(lambda x: (x, 3))
    g.defjvp(lambda p, t: ((p[0], 3), (t[0], 1)))
    with pytest.raises(DTypeError, match="tangent 1 of the rule must be None"):
        fg.grad(lambda x: g(x)[0])(1.0)
