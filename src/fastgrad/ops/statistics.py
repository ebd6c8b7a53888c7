"""Statistics that are short compositions: covariances, and sums and means that leave NaN out."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ShapeError, user_line
from .arrangement import diagonal
from .comparison import logical_not, where
from .elementwise import divide, isnan, sqrt, subtract
from .linalg import matmul, outer
from .movement import concatenate_p, transpose
from .operands import Axes, as_dtype, aval, dtype_of, operand, shape_of
from .pointwise import cast, promote
from .reduce import mean, sum
from .shaping import reshape_p


def cov(m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: int | None = None) -> Any:
    """Covariance matrix (float64) of variables in the rows of ``m`` (columns with ``rowvar=False``), and in those of ``y``.

    Divided by the count less ``ddof``: 1 when None, 0 with ``bias``. Raises `ShapeError` for more than two axes.

    >>> cov(np.array([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]))
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    rows = _variables(m, rowvar)
    if y is not None:
        rows = concatenate_p(*promote(rows, _variables(y, rowvar)), axis=0)
    count, n = shape_of(rows)
    less = ddof if ddof is not None else 0 if bias else 1
    centred = subtract(rows, mean(rows, 1, keepdims=True))
    out = divide(matmul(centred, transpose(centred)), float(max(n - less, 0)))
    return reshape_p(out, shape=()) if count == 1 else out


def corrcoef(x: Any, y: Any = None, rowvar: bool = True) -> Any:
    """Correlation matrix: `cov` scaled so that its diagonal is 1."""
    c = cov(x, y, rowvar)
    if not shape_of(c):
        return divide(c, c)
    deviation = sqrt(diagonal(c))
    return divide(c, outer(deviation, deviation))


def _variables(m: Any, rowvar: bool) -> Any:
    m = operand(m)
    if len(shape_of(m)) > 2:
        raise ShapeError(f"cov: wants a vector or a matrix, got {aval(m)}", at=user_line())
    m = cast(m, np.dtype(np.float64))
    if len(shape_of(m)) < 2:
        return reshape_p(m, shape=(1, aval(m).size))
    return m if rowvar or shape_of(m)[0] == 1 else transpose(m)


def nansum(x: Any, axis: Axes = None, *, dtype: Any = None, keepdims: bool = False) -> Any:
    """Sum over ``axis`` of what is not NaN; no derivative passes to NaNs."""
    (x,) = promote(x)
    if dtype_of(x).kind == "f":
        x = where(isnan(x), 0, x)
    return sum(x, axis, dtype=dtype, keepdims=keepdims)


def nanmean(x: Any, axis: Axes = None, *, dtype: Any = None, keepdims: bool = False) -> Any:
    """Mean over ``axis`` of what is not NaN; NaN where there is nothing else."""
    (x,) = promote(x, floats=True)
    x = x if dtype is None else cast(x, as_dtype(dtype))
    count = cast(sum(logical_not(isnan(x)), axis, keepdims=keepdims), dtype_of(x))
    return divide(nansum(x, axis, keepdims=keepdims), count)
