"""What transformations refuse: the op, the argument, what it got, the user's line, a way out."""

from __future__ import annotations

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.errors import ArgumentError, DTypeError, FastgradError, ShapeError, TraceError

X, I = np.ones(3), np.arange(3)
M = np.ones((4, 3))

ROWS = {
    # name: call, error, parts of the message
    "grad of an integer": (lambda: fg.grad(lambda x: x.sum())(I), DTypeError,
                           ["grad: differentiates by float arguments, got i64[3] as argument [0]", ".astype"]),
    "grad of one leaf": (lambda: fg.grad(lambda x, p: x, argnums=1)(1.0, {"a": X, "n": I}), DTypeError,
                         ["got i64[3] as argument [1]['n']"]),
    "grad of a string": (lambda: fg.grad(lambda x: 1.0)("a"), DTypeError, ["got str as argument [0]"]),
    "grad of a vector": (lambda: fg.grad(lambda x: x)(X), ShapeError,
                         ["grad: the function must return a scalar, got f64[3]", "fg.jacrev, or fg.vjp"]),
    "jacfwd of integers": (lambda: fg.jacfwd(lambda x: x)(I), DTypeError,
                           ["jacfwd: differentiates by float arguments"]),
    "jacrev of integers": (lambda: fg.jacrev(lambda x: x)(I), DTypeError,
                           ["jacrev: differentiates by float arguments"]),
    "hessian of integers": (lambda: fg.hessian(lambda x: x)(I), DTypeError, ["hessian: differentiates by float"]),
    "jacfwd to integers": (lambda: fg.jacfwd(lambda x: x > 0)(X), DTypeError,
                           ["jacfwd: the function must return floats, got bool[3]", "has_aux=True"]),
    "jacrev to integers": (lambda: fg.jacrev(lambda x: (x, x > 0))(X), DTypeError,
                           ["jacrev: the function must return floats"]),
    "hvp of a vector": (lambda: fg.hvp(lambda x: x, (X,), (X,)), ShapeError,
                        ["hvp: the function must return a scalar, got f64[3]"]),
    "hvp of integers": (lambda: fg.hvp(lambda x: 1.0, (I,), (I,)), DTypeError,
                           ["hvp: argument [0] is i64[3], which has no tangent"]),
    "hvp along nothing": (lambda: fg.hvp(lambda x: 1.0, (X,), (None,)), ArgumentError,
                           ["hvp: no primal has a tangent"]),
    "argnums too high": (lambda: fg.jacrev(lambda x: x, argnums=1)(X), ArgumentError,
                           ["jacrev: argnums 1 with 1 positional"]),
    "argnums twice": (lambda: fg.jacfwd(lambda x, y: x, argnums=(0, -2))(X, X), ArgumentError,
                           ["names an argument twice"]),
    "no aux": (lambda: fg.jacfwd(lambda x: x, has_aux=True)(X), ArgumentError,
                           ["jacfwd: with has_aux", "(value, aux)"]),
    "a string back": (lambda: fg.jacfwd(lambda x: "a")(X), DTypeError, ["must return arrays or numbers, got str"]),
    # jvp
    "primals bare": (lambda: fg.jvp(np.sin, X, X), ArgumentError, ["jvp: primals must be a tuple", "(primals,)"]),
    "tangents bare": (lambda: fg.jvp(np.sin, (X,), X), ArgumentError, ["jvp: tangents must be a tuple", "(tangents,)"]),
    "a tangent missing": (lambda: fg.jvp(np.add, (X, X), (X,)), ArgumentError, ["jvp: 2 primals with 1 tangents"]),
    "tangent nests otherwise": (lambda: fg.jvp(lambda p: p["a"], ({"a": X},), ([X],)), ArgumentError,
                                ["the tangent of argument [0] nests as", "its primal as"]),
    "tangent's shape": (lambda: fg.jvp(lambda p: p["a"], ({"a": X},), ({"a": M},)), ShapeError,
                        ["the tangent of argument [0]['a'] must be f64[3], got f64[4,3]"]),
    "tangent's dtype": (lambda: fg.jvp(np.sin, (X,), (X.astype("f4"),)), DTypeError,
                        ["the tangent of argument [0] must be f64[3], got f32[3]", ".astype(np.float64)"]),
    "tangent of an integer": (lambda: fg.jvp(lambda i: i, (I,), (I,)), DTypeError,
                              ["argument [0] is i64[3], which has no tangent, got i64[3]", "None in its place"]),
    # vmap
    "axes too many": (lambda: fg.vmap(np.sin, in_axes=(0, 0))(X), ArgumentError,
                           ["in_axes has 2 entries, the call 1 positional"]),
    "axes nest otherwise": (lambda: fg.vmap(lambda p: p["a"], in_axes=({"b": 0},))({"a": X}), ArgumentError,
                            ["in_axes of argument [0] nests as", "the argument as"]),
    "an axis that is none": (lambda: fg.vmap(np.sin, in_axes=0.5), ArgumentError,
                           ["in_axes holds integers and None, got 0.5"]),
    "out_axes that is none": (lambda: fg.vmap(np.sin, out_axes=True), ArgumentError,
                           ["out_axes holds integers and None, got True"]),
    "axis out of range": (lambda: fg.vmap(lambda p: p["a"], in_axes=2)({"a": M}), ShapeError,
                          ["in_axes maps axis 2 of argument [0]['a'], which is f64[4,3]", "None for"]),
    "a number mapped": (lambda: fg.vmap(np.multiply)(X, 2.0), ShapeError,
                           ["maps axis 0 of argument [1], which is f64*[]"]),
    "sizes disagree": (lambda: fg.vmap(lambda x, *, y: x)(X, y={"k": M}), ShapeError,
                       ["sizes disagree: axis 0 of argument [0] has 3, axis 0 of argument y['k'] has 4"]),
    "axis_size is no size": (lambda: fg.vmap(np.sin, in_axes=None, axis_size=-2)(X), ArgumentError,
                             ["vmap: axis_size must be 0 or more, got -2"]),
    "vmap of no function": (lambda: fg.vmap(3)(X), ArgumentError, ["vmap: expected a function, got int"]),
    "jvp of no function": (lambda: fg.jvp(None, (X,), (X,)), ArgumentError,
                           ["jvp: expected a function, got NoneType"]),
    "axis_size disagrees": (lambda: fg.vmap(np.sin, axis_size=5)(X), ShapeError,
                           ["axis_size has 5, axis 0 of argument [0] has 3"]),
    "nothing mapped": (lambda: fg.vmap(np.sin, in_axes=None)(X), ArgumentError,
                           ["no argument is mapped", "axis_size="]),
    "out_axes nest otherwise": (lambda: fg.vmap(lambda x: (x, x), out_axes=(0, 0, 0))(X), ArgumentError,
                                ["out_axes nests as", "the output as"]),
    "out_axes too high": (lambda: fg.vmap(np.sin, out_axes=1)(X), ShapeError,
                           ["examples on axis 1 of output 0, which is f64[3]"]),
    "out_axes None": (lambda: fg.vmap(lambda x: (x, x), out_axes=(0, None))(X), ArgumentError,
                      ["output 1 differs between examples, out_axes says None", "out_axes=0"]),
    "vmap returns a string": (lambda: fg.vmap(lambda x: "a")(X), DTypeError, ["vmap: the function must return arrays"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_error(name: str):
    call, kind, parts = ROWS[name]
    with pytest.raises(kind) as info:
        call()
    assert isinstance(info.value, FastgradError)
    for part in parts:
        assert part in str(info.value)
    assert "test_transforms_errors.py:" in str(info.value)


@pytest.mark.parametrize("how", [
    lambda f: fg.grad(f)(1.0), lambda f: fg.jvp(f, (1.0,), (1.0,)), lambda f: fg.jacfwd(f)(1.0), lambda f: fg.vmap(f)(X),
    lambda f: fg.hvp(f, (1.0,), (1.0,)), lambda f: fg.vjp(f, 1.0),
])  # fmt: skip
def test_a_value_leaked_out_of_a_transformation(how):
    kept = []

    def f(x):
        kept.append(x)
        return x * 2.0

    how(f)
    for use in (
        lambda: kept[-1] * 2.0,
        lambda: fg.jit(lambda y: y + kept[-1])(1.0),
        lambda: fg.grad(lambda y: y * kept[-1])(1.0),
    ):
        with pytest.raises(TraceError, match="used after its function had been traced") as info:
            use()
        assert "test_transforms_errors.py:" in str(info.value)
