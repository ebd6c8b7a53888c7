"""What shares memory in NumPy shares elements on traced values, and `fastgrad.numpy` on arrays does as NumPy does."""

from __future__ import annotations

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp

VIEWS = """
    np.reshape(x, -1); x.T; np.swapaxes(x, 0, 1); np.moveaxis(x, 0, 1); np.flip(x); np.rot90(x); np.split(x, 2)[1]; x[...]
    x[:, :1].reshape(-1); x.T.T.ravel(); x[0].ravel(); x[:1].T.ravel(); np.squeeze(x[None])
    np.einsum("ij->ji", x); np.einsum("ij", x); np.einsum("ii->i", x)
"""
COPIES = """
    x.flatten()
    x[:, ::-1].reshape(-1); x[::-1].ravel(); x[:, :1].ravel(); x[:, ::-1].ravel(); np.ravel(x.T); np.reshape(x.T, -1)
    np.tile(x, 1)
    np.tile(x, (1, 1)); np.repeat(x, 1, axis=0); np.roll(x, 0); np.roll(x, 0, axis=0); np.roll(x, 0, axis=()); np.copy(x)
    np.clip(x, None, None); np.positive(x); np.prod(x, axis=()); np.power(x, 1); np.floor(x); np.nan_to_num(x); x[[0, 1]]
    np.diff(x, n=0, axis=0)[:]; np.meshgrid(x[0])[0]; np.meshgrid(x[0], x[1])[0]; np.pad(x, 0); np.concatenate([x])
    np.einsum("ij->i", x); np.sum(x, axis=()); np.where(True, x, 0); np.astype(x, x.dtype); np.ravel(x, order="F")
"""


def lines(text: str) -> list[str]:
    return [part.strip() for part in text.replace("\n", ";").split(";") if part.strip()]


def written(source: str, module: object, x: object) -> object:
    """x after its part that ``source`` names was set to 7, the names of NumPy being those of ``module``."""
    part = eval(source, {"np": module, "x": x})
    if source != "np.diff(x, n=0, axis=0)[:]":  # of order 0 it is x, as NumPy's
        part[...] = 7
    return x


@pytest.mark.parametrize("dtype", [float, int])
@pytest.mark.parametrize("source", [*lines(VIEWS), *lines(COPIES)])
def test_writes_go_where_numpys_go(source: str, dtype: type):
    x = np.array([[1, 2], [3, 4]], dtype)
    expected = written(source, np, x.copy())
    assert np.array_equal(expected, x) == (source in lines(COPIES))
    traced = fg.jit(lambda x: written(source, np, x), backend="numpy")(x)
    np.testing.assert_array_equal(traced, expected)
    np.testing.assert_array_equal(written(source, fnp, x.copy()), expected)


def test_a_diagonal_sees_what_is_written_later():
    def f(x):
        d = np.diagonal(x)
        x[0, 0] = 9.0
        return d

    np.testing.assert_array_equal(fg.jit(f)(np.ones((2, 2))), [9.0, 1.0])


@pytest.mark.parametrize("source", ["floor", "ceil", "nan_to_num", "positive"])
def test_a_bool_or_number_outside_a_trace_stays_one(source: str):
    value = np.int64(3) if source == "positive" else np.bool_(True)
    assert np.asarray(getattr(fnp, source)(value)).dtype == value.dtype


def test_an_argument_given_as_none_is_not_left_out():
    x = np.ones((2, 2))
    assert fg.jit(lambda x: np.concatenate([x, x], axis=None))(x).shape == (8,)
