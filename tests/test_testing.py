"""`fg.testing` passes what is right and says where the rest is wrong: direction, argument, element, numbers."""

from __future__ import annotations

import doctest
import re
from dataclasses import dataclass

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import testing
from fastgrad.core.aval import Aval
from fastgrad.core.loops import Library
from fastgrad.core.primitive import Primitive
from fastgrad.errors import ArgumentError, CheckError
from fastgrad.ops.pointwise import pointwise
from fastgrad.testing import differences, examples, gradients

BOTH = ("numpy", "numba")
X = np.array([0.3, -0.7, 1.1])


def wrong_sin(factor):
    """A sine whose derivative is multiplied by ``factor``, in both directions."""
    return pointwise(
        "wrong_sin",
        np.sin,
        lambda k, dtype, x: k.line("sin", x, dtype=dtype),
        [lambda t, out, x: t * np.cos(x) * factor],
    )


def right(p, n, y):
    return {"a": np.sin(p["w"]) * y + n, "b": (np.sum(p["w"] ** 2), n)}


RIGHT = ({"w": X}, 3, 2.0)


def message(check, *args, **options) -> str:
    with pytest.raises(CheckError) as caught:
        check(*args, **options)
    assert isinstance(caught.value, AssertionError)
    return str(caught.value)


@pytest.mark.parametrize("check", [testing.check_vjp, testing.check_jvp, testing.check_grads])
def test_right_derivatives_pass_on_both_backends(check):
    check(right, RIGHT, backends=BOTH)
    check(fg.jit(right), RIGHT)
    check(fg.grad(lambda x: np.sum(np.tanh(x) ** 3)), (X,))


def test_any_nesting():
    @dataclass
    class Point:
        x: object
        y: object

    def f(point, parts):
        return Point(point.x * parts[0][0], np.exp(point.y) @ parts[1])

    args = (Point(X, X[:2]), [(2.0,), np.ones((2, 4))])
    testing.check_grads(f, args)


def test_float32_arguments_are_tested_in_float64():
    testing.check_vjp(lambda x: np.exp(x) / 3, (X.astype(np.float32),), rtol=1e-8)


@pytest.mark.parametrize("backend", BOTH)
def test_a_wrong_cotangent_is_named(backend: str):
    prim = wrong_sin(np.array([1.0, 1.0, 1.5]))
    text = message(
        testing.check_vjp, lambda p, y: prim(p["w"]) * y, ({"v": 1.0, "w": X}, 2.0), backends=(backend,)
    )
    expected = (
        rf"check_vjp \(rev, backend '{backend}'\): cotangent of args\[0\]\['w'\], element \[2\]: got (\S+), "
        r"differences give (\S+) \(relative error 0.5, tolerance 1e-06\)"
    )
    found = re.fullmatch(expected, text)
    assert found, text
    assert float(found[1]) == pytest.approx(1.5 * float(found[2]), rel=1e-6)


def test_a_wrong_tangent_is_named():
    prim = wrong_sin(np.array([1.0, 3.0, 1.0]))
    text = message(testing.check_jvp, lambda y, x: [y, (prim(x),)], (2.0, X))
    assert text.startswith("check_jvp (fwd): along args[1], tangent of output[1][0], element [1]: got "), text
    assert "(relative error 2, tolerance 1e-06)" in text


def test_one_wrong_direction_is_told_from_the_other():
    def rule(x: Aval) -> Aval:
        return x

    prim = Primitive(
        "half",
        abstract=rule,
        reference=lambda x: np.asarray(x) / 2,
        vjp=lambda ct, out, x: (ct / 2,),
        jvp=lambda tangents, out, x: tangents[0] / 3,
        batch=lambda args, batched: prim(args[0]),
        kernel=Library("half"),
    )
    testing.check_vjp(prim, (X,), backends=("numpy",))
    testing.check_grads(prim, (X,), modes=("rev",), backends=("numpy",))
    text = message(testing.check_grads, prim, (X,), backends=("numpy",))
    assert text.startswith(
        "check_grads (fwd, backend 'numpy'): along args[0], tangent of output, element ["
    ), text


def test_a_derivative_that_is_wrong_at_second_order():
    prim = pointwise(
        "product",
        np.multiply,
        None,
        [lambda t, out, x, y: t * y, lambda t, out, x, y: t * fg.stop_gradient(x)],
    )
    args = (X, X + 1)
    testing.check_grads(prim, args, order=1, backends=("numpy",))
    text = message(testing.check_grads, prim, args, modes=("rev",), backends=("numpy",))
    assert "check_grads (rev of rev, backend 'numpy'): cotangent of args[0], element [" in text, text
    text = message(testing.check_grads, prim, args, modes="fwd", backends=("numpy",))
    assert "(fwd of fwd, backend 'numpy'): along args[0], tangent of the tangent of output" in text, text


def test_tangents_that_are_wrong_only_together():
    prim = pointwise(
        "sum_of_two",
        np.add,
        None,
        [lambda t, out, x, y: t, lambda t, out, x, y: t],
        jvp=lambda tangents, out, x, y: tangents[0] - tangents[1],
    )
    text = message(testing.check_jvp, prim, (X, X), backends=("numpy",))
    assert "along args[1], tangent of output" in text, text


def test_values_beside_the_derivative_are_compared():
    calls = []

    def f(x):
        calls.append(x)
        return x * 2 if isinstance(x, np.ndarray) else x * 3

    text = message(testing.check_vjp, f, (X,))
    assert text.startswith("check_vjp (rev): output, element [2]: got 3.3, the function gives 2.2"), text
    assert "check_jvp (fwd): output, element [2]" in message(testing.check_jvp, f, (X,))


def test_a_kink_is_told():
    at = np.array([0.0, 0.5])
    text = message(testing.check_vjp, lambda x: np.clip(x, 0, 1), (at,))
    assert "element [0]" in text
    assert "try: another point: one-sided differences disagree" in text
    text = message(testing.check_jvp, lambda x: np.clip(x, 0, 1), (at,))
    assert "another point" in text
    assert "another point" not in message(testing.check_vjp, wrong_sin(2.0), (X,))


def test_what_is_not_finite_is_told():
    assert "check_vjp: output is not finite" in message(testing.check_vjp, np.log, (-X,))


def test_large_arguments_are_looked_at_in_places(monkeypatch):
    monkeypatch.setattr(differences, "ELEMENTS", 10)
    factor = np.ones(1000)
    factor[400:] = 2.0
    text = message(testing.check_vjp, wrong_sin(factor), (np.linspace(0.1, 1, 1000),))
    assert "element [444]" in text, text
    factor = np.ones(1000)
    factor[401] = 2.0
    text = message(testing.check_vjp, wrong_sin(factor), (np.linspace(0.1, 1, 1000),))
    assert "cotangent of args[0], along a random direction: got" in text, text


def test_the_function_may_write_to_its_arguments():
    def f(x):
        y = x * 1.0
        x *= 0 if isinstance(x, np.ndarray) else 1
        return y * y

    before = X.copy()
    testing.check_vjp(f, (X,))
    np.testing.assert_array_equal(X, before)


def test_seeds_and_tolerances():
    prim = wrong_sin(1 + 1e-4)
    testing.check_grads(prim, (X,), rtol=1e-3, seed=7)
    message(testing.check_vjp, prim, (X,), seed=7)
    testing.check_vjp(prim, (X,), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (lambda: testing.check_vjp(np.sin, (3,)), "check_vjp: no argument holds floats"),
        (lambda: testing.check_jvp(lambda x: x > 0, (X,)), "check_jvp: the function returns no floats"),
        (lambda: testing.check_grads(np.sin, (X,), order=0), "wants an order of 1 or more"),
        (lambda: testing.check_grads(np.sin, (X,), modes=("forward",)), "modes among 'fwd' and 'rev'"),
        (
            lambda: testing.check_vmap(np.add, (X, X[:2])),
            "one batch size of 1 or more over in_axes=0, got [2, 3]",
        ),
        (lambda: testing.check_vmap(np.sin, (X,), None), "one batch size"),
        (lambda: testing.check_vmap(np.sin, (X[:0],)), "one batch size"),
        (lambda: testing.check_vmap(np.add, (X, X), (0,)), "in_axes=(0,) does not nest like the arguments"),
    ],
)
def test_bad_arguments(check, text: str):
    with pytest.raises(ArgumentError) as caught:
        check()
    assert text in str(caught.value)


# -- check_vmap --------------------------------------------------------------------------------------------------------


def test_right_batches_pass():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, 3)), rng.standard_normal((3, 5))

    def f(p, w, n):
        return {"y": np.tanh(p["x"] @ w) + n, "n": n * 2, "first": p["x"][0]}

    testing.check_vmap(
        f, ({"x": x, "s": 1.0}, w, np.arange(4)), ({"x": 1, "s": None}, None, 0), backends=BOTH
    )
    testing.check_vmap(lambda x: x.T @ x, (x,), [-1], out_axes=-1)


def test_a_wrong_batch_rule_is_named():
    prim = pointwise("twice", lambda x: np.asarray(x) * 2)

    def batch(args, batched):
        return prim(args[0]) * np.array([1.0, 1.0, 5.0])[:, None]

    broken = Primitive("twice", prim.abstract, prim.reference, prim.vjp, prim.jvp, batch, prim.kernel)
    args = (np.ones((3, 2)) * [1.0, 3.0],)
    text = message(testing.check_vmap, lambda x: [broken(x)], args, backends=("numpy",))
    assert text == (
        "check_vmap (backend 'numpy'): output[0], example 2, element [1]: got 30, the loop gives 6 "
        "(relative error 4, tolerance 1e-09)"
    )
    longer = Primitive(
        "twice",
        prim.abstract,
        prim.reference,
        None,
        None,
        lambda args, batched: prim(args[0])[:, :1],
        prim.kernel,
    )
    text = message(testing.check_vmap, longer, args, backends=("numpy",))
    assert text == "check_vmap (backend 'numpy'): output: an example is f64[1] batched, f64[2] alone"


@pytest.mark.parametrize("module", [gradients, examples], ids=lambda m: m.__name__)
def test_the_docstrings_speak_the_truth(module):
    failed, tried = doctest.testmod(module, extraglobs={"np": np})
    assert tried and not failed


def test_strings_among_the_arguments_stay():
    testing.check_grads(lambda x, how: np.sin(x) if how == "sine" else x, (X, "sine"))


def test_arguments_are_a_tuple():
    with pytest.raises(
        ArgumentError, match=r"check_vjp: args is a tuple of arguments, got ndarray\n.*try: check_vjp\(f"
    ):
        testing.check_vjp(np.sin, X)


def test_a_function_in_float32_is_told_what_to_try():
    def f(x):
        return np.sin(x.astype(np.float32))

    with pytest.raises(CheckError, match=r"try: eps=1e-2, rtol=1e-3: the function computes in float32"):
        testing.check_grads(f, (X,), order=1)
    testing.check_grads(f, (X,), order=1, eps=1e-2, rtol=1e-3, atol=1e-4)


def test_an_argument_without_the_axis_of_examples_is_named():
    with pytest.raises(ArgumentError, match=r"check_vmap: f64\[\] has no axis 0 of examples"):
        testing.check_vmap(lambda x, y: x * y, (X, 2.0))
