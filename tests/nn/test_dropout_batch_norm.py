"""`F.dropout` and `F.batch_norm` by themselves; inside a step they are tested in `test_train_step_state`."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.errors import ArgumentError, DTypeError, ShapeError
from fastgrad.nn import functional as F

KEY = fg.random.key(17)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_dropout_pulls_back_through_the_mask_of_the_forward_pass(backend):
    x = np.random.default_rng(0).standard_normal((40, 30))
    out, gradient = fg.jit(
        lambda x, k: (F.dropout(x, 0.4, key=k), fg.grad(lambda x: (F.dropout(x, 0.4, key=k) * 3).sum())(x)),
        backend=backend,
    )(x, KEY)
    kept = out != 0
    np.testing.assert_allclose(out[kept], x[kept] / 0.6)
    np.testing.assert_allclose(gradient, kept * (3 / 0.6))


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.99])
def test_dropout_drops_its_share_to_exact_zeros(p):
    x = np.full((200, 500), 3.0, np.float32)
    out = fg.jit(lambda x, k: F.dropout(x, p, key=k))(x, KEY)
    assert out.dtype == np.float32
    assert set(np.unique(out).tolist()) == {0.0, float(np.float32(3) * np.float32(1 / (1 - p)))}
    assert abs((out == 0).mean() - p) < 4 * np.sqrt(p * (1 - p) / x.size)
    assert abs(out.mean() - 3) < 4 * 3 * np.sqrt(p / (1 - p) / x.size)


def test_dropout_of_tensors():
    t = fg.Tensor(np.ones(1000), requires_grad=True)
    out = F.dropout(t, 0.5, key=KEY)
    out.sum().backward()
    np.testing.assert_array_equal(t.grad.numpy(), out.numpy())
    np.testing.assert_array_equal(out.numpy(), F.dropout(np.ones(1000), 0.5, key=KEY))


def test_dropped_nans_are_zeros():
    out = F.dropout(np.full(100, np.nan), 0.5, key=KEY)
    assert 20 < (out == 0).sum() < 80


X, C = np.zeros((4, 3)), np.ones(3)
BAD_CALLS = [
    (lambda: F.dropout(X, 1.0, key=KEY), ArgumentError, r"dropout: p is a Python number in \[0, 1\), got 1.0\n.*zeros_like"),
    (lambda: F.dropout(X, -0.1, key=KEY), ArgumentError, r"in \[0, 1\), got -0.1"),
    (lambda: F.dropout(X, np.array(0.5), key=KEY), ArgumentError, "p is a Python number"),
    (lambda: F.dropout(X, 0.5), ArgumentError, "dropout: needs a key in training\n.*key = fg.random.key"),
    (lambda: F.dropout(X, 0.5, key=3), DTypeError, r"dropout: a key is u32\[2\], got i64"),
    (lambda: F.batch_norm(X, C[:2], C), ShapeError, r"batch_norm: running_mean must be \[3\], got f64\[2\] for f64\[4,3\]"),
    (lambda: F.batch_norm(X[None], np.ones(4), np.ones(4)), ShapeError, 'try: layout="NCHW"'),
    (lambda: F.batch_norm(X, C, C, np.ones(4)), ShapeError, r"weight must be \[3\]"),
    (lambda: F.batch_norm(X, C, C, C, np.ones(())), ShapeError, r"bias must be \[3\]"),
    (lambda: F.batch_norm(X[0], C, C), ShapeError, r"wants a batch of channels \[N, ..., C\], got f64\[3\]"),
    (lambda: F.batch_norm(X[:1], C, C, training=True), ShapeError, "more than one value a channel, got f64"),
    (lambda: F.batch_norm(X, None, None), ArgumentError, "both given, or both None in training"),
    (lambda: F.batch_norm(X, C, None, training=True), ArgumentError, "both given"),
    (lambda: F.batch_norm(X, C, C, momentum=1.5), ArgumentError, r"momentum is a Python number in \[0, 1\], got 1.5"),
    (lambda: F.batch_norm(X, C, C, eps=0), ArgumentError, "eps is a Python number above 0, got 0"),
    (lambda: F.batch_norm(X, C, C, layout="NCWH"), ArgumentError, "layout is NHWC or NCHW, got 'NCWH'"),
    (lambda: F.batch_norm(X.astype(int), C, C), DTypeError, r"batch_norm: wants floats, got i64\[4,3\]"),
]  # fmt: skip


@pytest.mark.parametrize("i", range(len(BAD_CALLS)))
def test_bad_calls(i):
    call, error, message = BAD_CALLS[i]
    with pytest.raises(error) as caught:
        call()
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "at test_dropout_batch_norm.py:" in str(caught.value)


def test_dropout_that_drops_nothing_needs_no_key():
    assert F.dropout(X, 0.5, training=False) is X
    assert F.dropout(X, 0) is X


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_batch_norm_of_either_layout(layout):
    x = np.random.default_rng(0).standard_normal((5, 4, 3, 2))
    axis = 1 if layout == "NCHW" else 3
    c = x.shape[axis]
    y, mean, var = fg.jit(lambda x, m, v: F.batch_norm(x, m, v, training=True, momentum=1.0, layout=layout))(
        x, np.zeros(c), np.ones(c)
    )
    rows = np.moveaxis(x, axis, -1).reshape(-1, c)
    np.testing.assert_allclose(mean, rows.mean(0))
    np.testing.assert_allclose(var, rows.var(0, ddof=1))
    normal = np.moveaxis(y, axis, -1).reshape(-1, c)
    np.testing.assert_allclose(normal, (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5), rtol=1e-10)
