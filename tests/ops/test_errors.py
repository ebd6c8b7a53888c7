"""Bad input: each a clear error that names the op, what it got in short types, the user's line, and what to try."""

from __future__ import annotations

import numpy as np
import pytest

import fastgrad.numpy as fnp
from fastgrad.core.aval import aval_of
from fastgrad.errors import (
    ArgumentError,
    DTypeError,
    OutOfBoundsError,
    ShapeError,
    TraceError,
    UnsupportedError,
)
from fastgrad.nn import functional as F
from fastgrad.ops import index
from fastgrad.trace import inline, trace

X = np.ones((3, 4), np.float32)
V = np.ones(3, np.float32)
I = np.arange(4)
B = np.array([True, False, True])
LOGITS, LABELS = np.zeros((5, 3), np.float32), np.zeros(5, np.int64)


def branch(x):
    return x if x > 0 else -x


def store(x):
    out = np.zeros(3)
    out[0] = x[0]
    return out


def write(x):
    x[0] = np.ones(2)
    return x


def into_array(x):
    out = np.zeros(3)
    out += x
    return out


TABLE = [
    # function, inputs, error, message, hint
    (lambda x: x @ np.ones((5, 6), "f4"), [X],
     ShapeError, "matmul: inner dimensions must match, got f32[3,4] @ f32[5,6]", None),
    (lambda x: x @ np.ones((6, 4), "f4"), [X], ShapeError, "got f32[3,4] @ f32[6,4]", "x @ y.T"),
    (lambda x: x @ np.ones((3, 6), "f4"), [X], ShapeError, "got f32[3,4] @ f32[3,6]", "x.T @ y"),
    (lambda x: x @ 2.0, [X], ShapeError, "matmul: 0-d operands", "x * y"),
    (lambda x: x @ x.reshape(1, 4, 3).partition(2), [X], AttributeError, "partition", None),
    (lambda x: fnp.matmul(np.ones((2, 3, 4), "f4"), np.ones((5, 4, 3), "f4")), [X],
     ShapeError, "batch axes do not broadcast", None),
    (lambda x: x + np.ones(3, "f4"), [X],
     ShapeError, "add: shapes do not broadcast, got f32[3,4], f32[3]", "y[:, None]"),
    (lambda x: x + np.ones(5, "f4"), [X], ShapeError, "add: shapes do not broadcast", None),
    (lambda x: np.reshape(x, (5, 2)), [X], ShapeError, "reshape: cannot make [5, 2] of f32[3,4]", None),
    (lambda x: np.reshape(x, (5, -1)), [X], ShapeError, "reshape: cannot make [5, -1] of f32[3,4]", None),
    (lambda x: x.reshape(x.size / 2), [X], ShapeError, "reshape: a shape holds integers, got 6.0", None),
    (lambda x: x.sum(axis=2), [X], ShapeError, "sum: axis 2 is out of bounds for an array of 2 axes", None),
    (lambda x: x.sum(axis=(0, 0)), [X], ShapeError, "sum: an axis appears twice", None),
    (lambda x: x.sum(axis=0.5), [X], ShapeError, "sum: axis must be an integer", None),
    (lambda x: x.max(axis=1), [np.ones((2, 0))],
     ShapeError, "max: an empty axis has no maximum, got f64[2,0]", None),
    (lambda x: x.argmax(), [np.ones((2, 0))], ShapeError, "argmax: an empty axis", None),
    (lambda x: np.transpose(x, (0, 0)), [X], ShapeError, "transpose: axes [0, 0] are no permutation", None),
    (lambda x: np.concatenate([x, V]), [X], ShapeError, "concatenate: all axes but axis 0 must match", None),
    (lambda x: np.stack([x, x.T]), [X],
     ShapeError, "stack: all shapes must be equal, got f32[3,4], f32[4,3]", None),
    (lambda x: np.split(x, 5), [X], ShapeError, "split: f32[3,4] has no 5 equal sections", None),
    (lambda x: np.squeeze(x, 0), [X], ShapeError, "squeeze: only axes of size 1", None),
    (lambda x: np.broadcast_to(x, (3, 5)), [X],
     ShapeError, "broadcast_to: f32[3,4] does not broadcast to [3, 5]", None),
    (lambda x: np.tensordot(x, x, 1), [X], ShapeError, "tensordot: paired axes must have equal sizes", None),
    (lambda x: -x, [B], DTypeError, "negative: a bool has no negative", "~x"),
    (lambda x: x - x, [B], DTypeError, "subtract: bools do not subtract", "x ^ y"),
    (lambda x: x & x, [X], DTypeError, "and: does not take f32[3,4]", None),
    (lambda x: x + np.ones(4, "f2"), [X],
     DTypeError, "dtype float16 is not supported", "x.astype(np.float32)"),
    (lambda x: x + np.ones(4, "c16"), [X],
     DTypeError, "dtype complex128 is not supported", "real and imaginary"),
    (lambda x: x * 1j, [X], DTypeError, "got complex", None),
    (lambda x: x + np.array(["a"]), [X], DTypeError, "is not supported", None),
    (lambda x: x + np.array([None, 1]), [X], DTypeError, "dtype object is not supported", "numeric array"),
    (lambda x: x.astype("c8"), [X], DTypeError, "dtype complex64 is not supported", None),
    (lambda x: fnp.add(x, None), [X], DTypeError, "expected an array or a number, got NoneType", None),
    (lambda i: i**i, [I], UnsupportedError, "power: integers to an array of integers", "astype(np.float64)"),
    (lambda i: i**-2, [I], ArgumentError, "power: integers to negative powers", "x ** -2.0"),
    (lambda i: np.reciprocal(i), [I], DTypeError, "reciprocal: wants floats, got i64[4]", "1 / x"),
    (lambda x: x[3], [X], OutOfBoundsError, "index 3 is out of bounds for axis 0 of f32[3,4]", None),
    (lambda x: x[0, 0, 0], [X], OutOfBoundsError, "too many indices: 3 for f32[3,4]", None),
    (lambda x: x[B[:2]], [X], OutOfBoundsError,
     "a boolean mask must have the shape of the axes that it selects from, got bool[2] on f32[3,4]", None),
    (lambda x: x[x > 0], [X], UnsupportedError, "a boolean mask on f32[3,4]", "np.where(mask, x, 0)"),
    (lambda x: x[I[:2], I[:3]], [X],
     ShapeError, "x[i, j]: shapes do not broadcast, got i64[2], i64[3] as indices", None),
    (lambda x: x[x], [V], DTypeError, "indices must be integers, got f32[3]", "astype(np.int64)"),
    (lambda x, i: x[: i[0]], [X, I], UnsupportedError, "bounds of a slice must be Python integers", None),
    (lambda x: np.take(x, V, 0), [X],
     DTypeError, "take: indices must be integers, got f32[3]", "indices.astype(np.int64)"),
    (branch, [np.float32(1)], TraceError, "a Python `if` on a traced value bool[]", "np.where(condition, x, y)"),
    (lambda x: float(x[0]), [V], TraceError, "float() of a traced value f32[]", "np.zeros_like(x)"),
    (lambda x: x[0].item(), [V], TraceError, ".item() of a traced value f32[]", None),
    (lambda x: range(x), [I], TraceError, "as a Python index or size", None),
    (lambda x: np.asarray(x), [X], TraceError, "cannot be stored in a NumPy array", "np.stack"),
    (store, [V], TraceError, "a traced value f32[]", "np.zeros_like(x)"),
    (into_array, [V], TraceError, "np.add: a traced value cannot be stored in a NumPy array", "a = a + b"),
    (write, [V], ShapeError, "x[i] = v: f64[2] does not broadcast to the window f32[] of f32[3]", "v.reshape"),
    (lambda x: fnp.add([x[0], x[1]], 1), [V],
     TraceError, "a list of traced values is not an array", "np.stack"),
    (lambda x: np.linalg.svd(x), [X],
     UnsupportedError, "np.linalg.svd is not supported on traced values", "fastgrad.numpy"),
    (lambda x: np.spacing(x), [X], UnsupportedError, "np.spacing is not supported", None),
    (lambda x: np.hypot.accumulate(x), [X], UnsupportedError, "np.hypot.accumulate is not supported", None),
    (lambda x: x[..., ...], [X], OutOfBoundsError, "an index can hold one Ellipsis (...)", None),
    (lambda x: np.reshape(x, -1, order="A"), [X], UnsupportedError, "reshape: order must be 'C' or 'F', got 'A'", None),
    (lambda x: np.pad(x, 1, mode="linear_ramp"), [X], UnsupportedError, "pad: mode='linear_ramp' is not", "np.concatenate"),
    (lambda x: np.pad(x, (1, 2, 3)), [X], ArgumentError, "pad: widths are counts, one pair for each of 2 axes", None),
    (lambda x: np.pad(x[:0], 1, mode="wrap"), [X], ArgumentError, "pad: an empty axis has no elements to repeat", None),
    (lambda x: np.take_along_axis(x, I[:3], 0), [X],
     ShapeError, "take_along_axis: i64[3] must have as many axes as f32[3,4]", None),
    (lambda x: np.cov(x[None]), [X], ShapeError, "cov: wants a vector or a matrix, got f32[1,3,4]", None),
    (lambda x: np.logaddexp.reduce(x[:0]), [X], ShapeError, "reduce: an empty axis has no value, got f32[0,4]", None),
    (lambda x: np.max(x, where=B[:, None]), [X], UnsupportedError, "np.max", "leave the argument out"),
    (lambda x: np.roll(x, 1.5), [X], UnsupportedError, "roll: wants Python integers, got 1.5", None),
    (lambda x: np.roll(x, 1, 2), [X], ShapeError, "roll: axis 2 is out of bounds for an array of 2 axes", None),
    (lambda x: np.diff(x[0, 0]), [X], ShapeError, "diff: wants at least one axis and n >= 0, got f32[]", None),
    (lambda x: np.diff(x, -1), [X], ShapeError, "got f32[3,4] and n=-1", None),
    (lambda x: np.tril(x), [V], ShapeError, "tril: wants at least two axes, got f32[3]", None),
    (lambda x: np.diag(x[None]), [X], ShapeError, "diag: wants a vector or a matrix, got f32[1,3,4]", None),
    (lambda x: np.repeat(x, x), [V], TraceError, "cannot be stored in a NumPy array", None),
    (lambda x: fnp.meshgrid(x, x, indexing="ji"), [V], ShapeError, "indexing must be 'xy' or 'ij', got 'ji'", None),
    (lambda x: np.cumsum(x, 2), [X], ShapeError, "cumsum: axis 2 is out of bounds for an array of 2 axes", None),
    (lambda x: np.prod(x, (0, 0)), [X], ShapeError, "prod: an axis appears twice in axis=(0, 0)", None),
    (lambda x: np.cross(x, x), [X], ShapeError, "cross: wants vectors of 3 components, got f32[3,4] and f32[3,4]", None),
    (lambda x: np.linalg.norm(x, "nuc"), [X], UnsupportedError, "np.linalg.norm: ord='nuc' is not supported", "np.sqrt"),
    (lambda x: np.linalg.norm(x, 2), [X], UnsupportedError, "ord=2 is not supported for f32[3,4]", None),
    (lambda x: np.einsum("ij,jk", x), [X], ShapeError, "einsum: 'ij,jk': 2 terms for 1 operands", None),
    (lambda x: np.einsum("ijk->k", x), [X], ShapeError, "'ijk' names 3 axes of an operand of 2", None),
    (lambda x: np.einsum("ij,ij->i", x, x.T), [X], ShapeError, "the sizes of 'i' differ, got f32[3,4], f32[4,3]", None),
    (lambda x: np.einsum("ii", x), [X], ShapeError, "the axes 'i' of f32[3,4] must be equal", None),
    (lambda x: np.einsum("ij->ik", x), [X], ShapeError, "the output 'ik' must hold letters of the operands", None),
    (lambda x: np.einsum("i1->i", x), [X], ShapeError, "'i1' holds more than letters", None),
    (lambda x: np.einsum(x, [0, 1]), [X], UnsupportedError, "einsum: wants its subscripts as a string", "ij,jk->ik"),
    (lambda x: np.average(x, 0, np.ones(4)), [X], ShapeError, "weights f64[4] do not fit", None),
    (lambda x: np.select([x > 0], [x, x]), [X], ShapeError, "select: 1 conditions for 2 choices", None),
    (lambda x: np.interp(x, np.ones(3), np.ones(2)), [X], ShapeError, "interp: xp and fp must be vectors of one size", None),
    (lambda x: np.gradient(x, x), [X], UnsupportedError, "gradient: only even spacing", "np.diff"),
    (lambda x: np.gradient(x, 1.0, 2.0, 3.0), [X], ArgumentError, "gradient: 3 spacings for 2 axes", None),
    (lambda x: np.gradient(x[:1], axis=0), [X], ShapeError, "gradient: wants at least 2 samples along axis 0", None),
    (lambda x: np.polyval(x, 2.0), [X], ShapeError, "polyval: wants a vector of coefficients, got f32[3,4]", None),
    (lambda x: np.convolve(x, x), [X], ShapeError, "convolve: wants two vectors, got f32[3,4] and f32[3,4]", None),
    (lambda x: np.convolve(x, x, "wide"), [V], ArgumentError, "convolve: mode must be", None),
    (lambda x: np.arctan2(x, True) @ np.hypot(B, 1), [X], ShapeError, "matmul", None),
    (lambda x: np.var(x, where=B[:, None]), [X], UnsupportedError, "np.var", "leave the argument out"),
    (lambda x: np.sum(x, out=np.zeros(())), [X], UnsupportedError, "np.sum: out= is not supported", None),
    (lambda x: np.exp(x, dtype="f8"), [X], UnsupportedError, "np.exp", "leave the argument out"),
    (lambda x: np.where(x > 0), [X],
     UnsupportedError, "np.where with one argument", "np.where(condition, x, y)"),
    (lambda x: iter(x), [np.float32(1)], TraceError, "no axis to iterate over", None),
    (lambda x: len(x), [np.float32(1)], TraceError, "has no length", None),
    (lambda x: F.cross_entropy(x, LABELS[:4]), [LOGITS],
     ShapeError, "cross_entropy: wants logits [..., C] and labels [...]", None),
    (lambda x: F.cross_entropy(x, LABELS[:, None]), [LOGITS],
     ShapeError, "got f32[5,3] and i64[5,1]", "labels[..., 0]"),
    (lambda x: F.cross_entropy(x, x), [LOGITS], ShapeError, "got f32[5,3] and f32[5,3]", "labels.argmax(-1)"),
    (lambda x: F.cross_entropy(x, LABELS * 1.0), [LOGITS],
     DTypeError, "labels must be integers, got f64[5]", "labels.astype(np.int64)"),
    (lambda x: F.cross_entropy(x, LABELS[:0]), [LOGITS[:0]],
     ShapeError, "cross_entropy: empty batch, got f32[0,3]", None),
    (lambda x: F.cross_entropy(x, LABELS, reduction="avg"), [LOGITS],
     ArgumentError, "reduction is mean, sum or none, got 'avg'", None),
    (lambda x: F.gelu(x, approximate="erf"), [X],
     ArgumentError, "gelu: approximate is \"none\" or \"tanh\", got 'erf'", 'approximate="tanh"'),
    (lambda x: F.softplus(x, -1.0), [X], ArgumentError, "softplus: beta is a positive number, got -1.0", None),
    (lambda x: F.logsumexp(x, 1), [np.ones((2, 0))], ShapeError, "logsumexp: an empty axis", None),
    (lambda x: F.linear(x, np.ones((7, 4), "f4")), [X], ShapeError, "got f32[3,4] @ f32[7,4]", "x @ y.T"),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "inputs", "error", "message", "hint"), TABLE, ids=range(len(TABLE)))
def test_bad_input(fn, inputs, error, message, hint):
    with pytest.raises(error) as caught:
        trace(lambda *xs: [fn(*xs)], [aval_of(a) for a in inputs])
    text = str(caught.value)
    assert message in text
    if error is not AttributeError:
        assert "at test_errors.py:" in text
        assert ("try:" in text) if hint else True
        assert hint is None or hint in text.split("try:")[1]


BOUNDS = [
    (
        lambda x, i: fnp.take(x, i, 0),
        [X, np.array([0, 3])],
        "take: index 3 is out of bounds for an axis of size 3",
    ),
    (lambda x, i: fnp.take(x, i, 0), [X, np.array([-4])], "take: index -4 is out of bounds"),
    (
        lambda x, i: index.scatter_add(x, i, 2),
        [X, np.array([0, 1, 2])],
        "scatter_add: index 2 is out of bounds",
    ),
    (
        lambda x, i: F.cross_entropy(x, i),
        [LOGITS, LABELS + 3],
        "check_index: index 3 is out of bounds for an axis of size 3",
    ),
    (lambda x, i: F.cross_entropy(x, i), [LOGITS, LABELS - 1], "check_index: index -1 is out of bounds"),
    (lambda x, i: F.one_hot(i, 2), [X, np.array([2])], "check_index: index 2"),
]


@pytest.mark.parametrize(("fn", "inputs", "message"), BOUNDS, ids=range(len(BOUNDS)))
def test_indices_are_checked_when_the_values_are_known(fn, inputs, message):
    graph = trace(lambda *xs: [fn(*xs)], [aval_of(a) for a in inputs])
    with pytest.raises(OutOfBoundsError, match=message):
        inline(graph, inputs)
