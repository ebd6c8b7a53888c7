"""Loops and branches that do not fit: each its own error, with the leaf, both kinds, the line and a way out."""

from __future__ import annotations

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.core.aval import aval_of
from fastgrad.errors import ArgumentError, DTypeError, ShapeError, TraceError, UnsupportedError
from fastgrad.trace import trace

X = np.ones((3, 4), np.float32)
Z = np.zeros(4, np.float32)


def pair(c, x):
    return c + x, c


TABLE = [
    # function, error, message, hint
    (lambda x: fg.scan(lambda c, x: (c[:2], None), Z, x), ShapeError,
     "scan: the carry must keep its shape and dtype, carry came in as f32[4] and left as f32[2]", None),
    (lambda x: fg.scan(lambda c, x: ({"h": c["h"], "k": c["k"] + x}, None), {"h": Z, "k": 0.0}, x), ShapeError,
     "carry['k'] came in as f64*[] and left as f32[4]", "init = np.zeros((4,), np.float32)"),
    (lambda x: fg.scan(lambda c, x: ((c[0], c[1] * np.float64(2)), None), (Z, Z), x), DTypeError,
     "scan: the carry must keep its shape and dtype, carry[1] came in as f32[4] and left as f64[4]",
     ".astype(np.float32) in the body"),
    (lambda x: fg.scan(lambda c, x: ((c, c), None), Z, x), ShapeError,
     "scan: the carry must keep its structure, it came in as * and left as (*, *)", "nested as init"),
    (lambda x: fg.scan(lambda c, x: c, Z, x), TraceError,
     "scan: the function must return (carry, y), got Array", "return carry, None"),
    (lambda x: fg.scan(lambda c, x: (c, x, x), Z, x), TraceError,
     "scan: the function must return (carry, y), got 3 values", None),
    (lambda x: fg.scan(pair, "zero", x), DTypeError, "scan: carry: expected an array or a number, got str", None),
    (lambda x: fg.scan(lambda c, x: (c, "y"), Z, x), DTypeError,
     "scan: y: expected an array or a number, got str", None),
    (lambda x: fg.scan(pair, Z, {"a": x, "b": x[:2]}), ShapeError,
     "scan: all xs must have one leading size, xs['a'] has 3, xs['b'] has 2", None),
    (lambda x: fg.scan(pair, Z, x[0, 0]), ShapeError, "scan: xs has no axis to scan over, got f32[]", "x[None]"),
    (lambda x: fg.scan(pair, Z, x, length=4), ShapeError, "scan: length=4, but xs has 3 slices", None),
    (lambda x: fg.scan(pair, Z), ArgumentError, "scan: without xs it needs a length", "length=n"),
    (lambda x: fg.scan(pair, Z, length=-1), ArgumentError, "scan: length must be 0 or more, got -1", None),
    (lambda x: fg.scan(pair, Z, length=2.0), ArgumentError, "scan: length must be an integer, got 2.0", None),
    (lambda x: fg.scan(pair, Z, x, checkpoint_every=0), ArgumentError,
     "scan: checkpoint_every must be 1 or more, got 0", "root of length"),
    (lambda x: fg.scan(pair, Z, x, unroll=-1), ArgumentError,
     "scan: unroll must be True or 1 or more, got -1", None),
    (lambda x: fg.scan(3, Z, x), TraceError, "scan: f must be a function, got int", None),
    (lambda x: fg.while_loop(lambda v: v > 0, lambda v: v, x), ShapeError,
     "while_loop: the condition must be a bool scalar, got bool[3,4]", "pred.all()"),
    (lambda x: fg.while_loop(lambda v: v.sum(), lambda v: v, x), DTypeError,
     "while_loop: the condition must be a bool scalar, got f32[]", "x != 0"),
    (lambda x: fg.while_loop(lambda v: True, lambda v: v[0], x), ShapeError,
     "while_loop: the carry must keep its shape and dtype, carry came in as f32[3,4] and left as f32[4]", None),
    (lambda x: fg.while_loop(lambda v: True, lambda v: v, x, bound=-1), ArgumentError,
     "while_loop: bound must be 0 or more, got -1", None),
    (lambda x: fg.fori_loop(0, 2.5, lambda i, v: v, x), DTypeError,
     "fori_loop: upper must be an integer, got f64*[]", None),
    (lambda x: fg.fori_loop(0, 2, lambda i, v: v[0], x), ShapeError, "carry came in as f32[3,4]", None),
    (lambda x: fg.cond(x > 0, lambda: 1, lambda: 2), ShapeError,
     "cond: the predicate must be a bool scalar, got bool[3,4]", "pred.all()"),
    (lambda x: fg.cond(x[0, 0] > 0, lambda v: v[0], lambda v: v, x), ShapeError,
     "cond: branches must agree, result is f32[3,4] from false_fun and f32[4] from true_fun", "np.broadcast_to"),
    (lambda x: fg.cond(x[0, 0] > 0, lambda v: {"a": v}, lambda v: {"a": v.astype("f8")}, x), DTypeError,
     "cond: branches must agree, result['a'] is f64[3,4] from false_fun and f32[3,4] from true_fun",
     ".astype(np.float64)"),
    (lambda x: fg.cond(True, lambda v: (v, v), lambda v: v, x), ShapeError,
     "cond: branches must return one structure", None),
    (lambda x: fg.switch(1, [lambda v: v, lambda v: v, lambda v: v[0]], x), ShapeError,
     "result is f32[3,4] from branches[0] and f32[4] from branches[2]",
     "np.broadcast_to(x, (3, 4))"),
    (lambda x: fg.switch(0, [], x), ArgumentError, "switch: wants at least one branch, got none", None),
    (lambda x: fg.switch(x[0, 0] > 0, [lambda: 1], ), ShapeError,
     "switch: the index must be an integer scalar, got bool[]", "fg.cond"),
    (lambda x: fg.switch(x[0, 0], [lambda: 1]), ShapeError,
     "switch: the index must be an integer scalar, got f32[]", None),
    (lambda x: fg.switch(0, np.sin, x), TraceError, "switch: branches must be a list of functions, got ufunc", None),
    (lambda x: fg.switch(None, [np.sin], x), DTypeError,
     "switch: index: expected an array or a number, got NoneType", None),
    (lambda x: fg.cond("yes", np.sin, np.cos, x), DTypeError,
     "cond: pred: expected an array or a number, got str", None),
    (lambda x: fg.fori_loop(0, None, lambda i, v: v, x), DTypeError,
     "fori_loop: upper: expected an array or a number, got NoneType", None),
    (lambda x: fg.while_loop(lambda v: None, lambda v: v, x), ShapeError,
     "while_loop: the condition must be a bool scalar, got None", None),
    (lambda x: fg.cond(True, lambda v: None, lambda v: v, x), ShapeError,
     "cond: branches must return one structure, false_fun gives *, true_fun gives None", None),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "error", "message", "hint"), TABLE, ids=range(len(TABLE)))
def test_bad_loops(fn, error, message, hint):
    with pytest.raises(error) as caught:
        trace(lambda x: [fn(x)], [aval_of(X)])
    text = str(caught.value)
    assert message in text
    assert "at test_errors.py:" in text
    assert hint is None or hint in text.split("try:")[1]


def test_shapes_that_no_broadcast_makes_one_get_no_such_hint():
    with pytest.raises(ShapeError) as caught:
        fg.cond(True, lambda v: v[:2], lambda v: v[:3], Z)
    assert caught.value.hint is None


def test_errors_are_the_same_on_arrays():
    with pytest.raises(ShapeError, match="carry came in as"):
        fg.scan(lambda c, x: (c[:2], None), Z, X)
    with pytest.raises(ArgumentError, match="at least one branch"):
        fg.switch(0, [])
    with pytest.raises(TraceError, match="must be a function"):
        fg.cond(True, None, 3)


def test_a_while_loop_in_reverse_needs_a_bound():
    def f(x):
        return fg.while_loop(lambda v: v.sum() < 10, lambda v: v * 2, x).sum()

    with pytest.raises(UnsupportedError, match="while: reverse mode") as caught:
        fg.grad(f)(X)
    assert "at test_errors.py:" in str(caught.value)
    assert "bound=n, fg.fori_loop with Python integers, or fg.scan" in caught.value.hint


def test_a_traced_bound_in_reverse_needs_a_bound():
    def f(n, x):
        return fg.fori_loop(0, n, lambda i, v: v * 2, x).sum()

    with pytest.raises(UnsupportedError, match="how many there are at most"):
        fg.grad(f, argnums=1)(np.int64(3), X)


def test_a_value_of_a_body_that_leaks():
    kept = []

    def step(c, x):
        kept.append(c)
        return c + x, None

    with pytest.raises(TraceError, match="after its function had been traced"):
        trace(lambda x: [fg.scan(step, Z, x)[0] + kept[0]], [aval_of(X)])
    with pytest.raises(TraceError, match="a Python `if`"):
        trace(lambda x: [fg.scan(lambda c, x: (c if c[0] > 0 else x, None), Z, x)[0]], [aval_of(X)])


def test_an_index_out_of_bounds_inside_a_body():
    def f(i, x):
        return fg.scan(lambda c, k: (c + np.take(x, k, 0), None), Z, i)[0]

    run = fg.jit(f, backend="numpy")
    with pytest.raises(IndexError, match=r"take: index 3 is out of bounds(.|\n)*test_errors.py"):
        run(np.array([0, 3]), X)
    run(np.array([], int), X)


def test_a_float_bound_raises_also_after_the_same_integer():
    """What is kept of one call does not serve another whose options are equal but of another kind."""

    def body(i, v):
        return v + i

    assert fg.fori_loop(0, 5, body, 1.0) == 11.0
    with pytest.raises(DTypeError, match="fori_loop: lower must be an integer"):
        fg.fori_loop(0.0, 5.0, body, 1.0)
