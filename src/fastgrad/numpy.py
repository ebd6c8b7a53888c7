"""NumPy's names and signatures: ``import fastgrad.numpy as fnp``. All take traced values, arrays and numbers.

Plain ``np.*`` functions find these through the tables of `protocols` when they are handed a traced value.
"""

from __future__ import annotations

import builtins
import functools
import types
from typing import Any

import numpy as np

from .core.graph import Literal, Tracer
from .creation import arange as arange
from .creation import empty as empty
from .creation import empty_like, full_like, ones_like, zeros_like
from .creation import eye as eye
from .creation import full as full
from .creation import linspace as linspace
from .creation import ones as ones
from .creation import zeros as zeros
from .errors import DTypeError, ShapeError, UnsupportedError, user_line
from .joining import (
    append,
    array_split,
    atleast_1d,
    atleast_2d,
    broadcast_arrays,
    column_stack,
    concatenate,
    dstack,
    hstack,
    split,
    stack,
    vstack,
)
from .ops import arrangement, comparison, movement, shaping
from .ops import einsum as contraction
from .ops.arrangement import (
    diff,
    meshgrid,
    repeat,
    roll,
    tile,
    tril,
    triu,
)
from .ops.assign import fit
from .ops.at import at as at
from .ops.comparison import (
    bitwise_and,
    bitwise_or,
    bitwise_xor,
    equal,
    greater,
    greater_equal,
    invert,
    left_shift,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    nan_to_num,
    not_equal,
    right_shift,
    select,
    where,
)
from .ops.cumulative import accumulate, cumprod, cumsum, fold, prod
from .ops.elementwise import (
    absolute,
    add,
    ceil,
    cos,
    divide,
    exp,
    expm1,
    fabs,
    floor,
    floor_divide,
    fmax,
    fmin,
    isclose,
    isfinite,
    isinf,
    isnan,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    negative,
    positive,
    reciprocal,
    remainder,
    sign,
    sin,
    sqrt,
    square,
    subtract,
    tanh,
)
from .ops.index import take
from .ops.linalg import cross, dot, inner, kron, matmul, norm, outer, tensordot, trace, vdot, vecdot
from .ops.operands import as_dtype, aval, dtype_of, normalize_axis, operand, shape_of
from .ops.padding import pad
from .ops.pointwise import cast, copied, promote
from .ops.power import power
from .ops.reduce import (
    all,
    any,
    argmax,
    argmin,
    average,
    count_nonzero,
    max,
    mean,
    min,
    ptp,
    std,
    sum,
    var,
)
from .ops.rounding import copysign, heaviside, rint, round, sinc, trunc
from .ops.sampled import convolve, correlate, gradient, interp, polyval, trapezoid
from .ops.shaping import broadcast_to
from .ops.statistics import corrcoef, cov, nanmean, nansum
from .ops.subscript import getitem
from .ops.transcendental import (
    arccos,
    arccosh,
    arcsin,
    arcsinh,
    arctan,
    arctan2,
    arctanh,
    cbrt,
    cosh,
    deg2rad,
    exp2,
    hypot,
    log2,
    log10,
    logaddexp,
    rad2deg,
    sinh,
    tan,
)
from .views import View, contiguous, viewing

# On a traced array these give views of it, as in NumPy.
_reshaped, diagonal, diag = viewing(shaping.reshape), viewing(arrangement.diagonal), viewing(arrangement.diag)
squeeze, expand_dims = viewing(movement.squeeze), viewing(movement.expand_dims)
transpose, swapaxes = viewing(movement.transpose), viewing(movement.swapaxes)
moveaxis, flip = viewing(movement.moveaxis), viewing(movement.flip)
fliplr, flipud = viewing(arrangement.fliplr), viewing(arrangement.flipud)
rot90 = viewing(arrangement.rot90)
abs, mod, true_divide, pow, bitwise_not = absolute, remainder, divide, power, invert
around, fix = round, trunc
amax, amin, permute_dims, radians, degrees = max, min, transpose, deg2rad, rad2deg
asin, acos, atan, atan2, asinh, acosh, atanh = arcsin, arccos, arctan, arctan2, arcsinh, arccosh, arctanh
pi, e, inf, nan, newaxis = np.pi, np.e, np.inf, np.nan, None
bool_, int8, int16, int32, int64 = np.bool_, np.int8, np.int16, np.int32, np.int64
uint8, uint16, uint32, uint64, float32, float64 = (
    np.uint8,
    np.uint16,
    np.uint32,
    np.uint64,
    np.float32,
    np.float64,
)
linalg = types.SimpleNamespace(norm=norm, matmul=matmul, cross=cross, outer=outer, vecdot=vecdot)

_raveled, _renamed = viewing(movement.ravel), viewing(lambda x, subscripts: contraction.einsum(subscripts, x))


def reshape(x: Any, shape: Any, order: str = "C") -> Any:
    """`shaping.reshape`: the elements of ``x`` in another shape; ``order="F"`` counts the first axis fastest, as Fortran.

    >>> reshape(np.array([1, 2, 3, 4]), (2, 2), "F")
    array([[1, 3],
           [2, 4]])
    """
    if not _fortran("reshape", order):
        return _reshaped(x, shape)
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    return transpose(_reshaped(transpose(x), sizes[::-1]))


def ravel(x: Any, order: str = "C") -> Any:
    """``x`` as a vector, in C order (or Fortran's, "F"): a view where its elements lie in that order, else a copy."""
    x = transpose(x) if _fortran("ravel", order) else x
    return movement.ravel(x) if isinstance(x, View) and not contiguous(x) else _raveled(x)


def _fortran(op: str, order: str) -> bool:
    if order not in ("C", "F", "K"):
        raise UnsupportedError(f"{op}: order must be 'C' or 'F', got {order!r}", at=user_line())
    return order == "F"


@functools.wraps(contraction.einsum)
def einsum(subscripts: str, *operands: Any, optimize: Any = True) -> Any:
    if len(operands) == 1 and isinstance(
        operands[0], Tracer
    ):  # what only names its axes anew is a view of it
        return _renamed(operands[0], subscripts)
    return contraction.einsum(subscripts, *operands, optimize=optimize)


# --- conversion and copies ------------------------------------------------------------------------------------------


def asarray(x: Any, dtype: Any = None) -> Any:
    """``x`` as an array: a traced value stays one, lists of traced values are stacked, anything else goes to NumPy."""
    if isinstance(x, list | tuple) and _traced(x):
        x = stack([asarray(item) for item in x])
    if isinstance(x, Tracer | Literal):
        return x if dtype is None else cast(x, as_dtype(dtype))
    array_ = np.asarray(x, None if dtype is None else as_dtype(dtype))
    aval(array_)  # raises for dtypes that fastgrad does not compute in
    return array_


def array(x: Any, dtype: Any = None, *, copy: bool = True) -> Any:
    """`asarray`, in memory of its own where the result is a NumPy array or a `fastgrad.Tensor`."""
    out = asarray(x, dtype)
    return out.copy() if copy and not isinstance(out, Literal) else out


def copy(x: Any) -> Any:
    """A copy: what is written to one is not seen by the other."""
    return array(x)


def _traced(x: Any) -> bool:
    return isinstance(x, Tracer) or (isinstance(x, list | tuple) and builtins.any(map(_traced, x)))


def astype(x: Any, dtype: Any, *, copy: bool = True) -> Any:
    """``x`` in ``dtype``; floats become integers by truncation. A copy, unless ``copy=False`` and the dtype is that of x."""
    x, target = operand(x), as_dtype(dtype)
    out = cast(x, target)
    return copied(out) if copy and out is x else out


def copyto(dst: Any, src: Any, *, where: Any = True) -> None:
    """``dst[...] = src``, where the mask ``where`` holds; raises `DTypeError` for a cast that NumPy's would refuse."""
    src = operand(src)
    if not np.can_cast(aval(src).dtype, dtype_of(dst), "same_kind") and not aval(src).weak:
        raise DTypeError(f"copyto: {aval(dst)} cannot hold {aval(src)}", hint=".astype", at=user_line())
    dst[...] = src if where is True else _chosen(where, fit(src, shape_of(dst), dst), dst)


def _chosen(mask: Any, x: Any, y: Any) -> Any:
    return where(mask, x, y)


# --- signatures that differ from the op's ---------------------------------------------------------------------------


def clip(x: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    """`comparison.clip`, with NumPy 2's ``min=`` and ``max=`` as well."""
    return comparison.clip(x, a_min if min is None else min, a_max if max is None else max)


def array_equal(x: Any, y: Any) -> Any:
    """Whether shapes and all elements are equal, bool."""
    x, y = operand(x), operand(y)
    return all(equal(x, y)) if shape_of(x) == shape_of(y) else np.False_


def allclose(x: Any, y: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """Whether all elements are `isclose`, bool."""
    return all(isclose(x, y, rtol, atol, equal_nan))


def float_power(x: Any, y: Any) -> Any:
    """`power` in float64."""
    return power(astype(x, np.float64), y)


def take_along_axis(x: Any, indices: Any, axis: int | None = -1) -> Any:
    """``x`` at ``indices`` along ``axis``, each line of x by its own line of indices; the other axes broadcast.

    Raises: `ShapeError` where the numbers of axes differ, errors of indices as ``x[i]``.

    >>> take_along_axis(np.array([[1, 2], [3, 4]]), np.array([[1], [0]]), axis=1)
    array([[2],
           [3]])
    """
    x, indices = operand(x), operand(indices)
    if axis is None:
        return take(x, indices)
    sizes, ndim = shape_of(x), len(shape_of(x))
    if len(shape_of(indices)) != ndim:
        raise ShapeError(
            f"take_along_axis: {aval(indices)} must have as many axes as {aval(x)}", at=user_line()
        )
    axis = normalize_axis("take_along_axis", axis, ndim)
    lines = [np.arange(n).reshape(-1, *(1,) * (ndim - 1 - i)) for i, n in enumerate(sizes)]
    return getitem(x, tuple(indices if i == axis else line for i, line in enumerate(lines)))


def real(x: Any) -> Any:
    """``x`` itself: there are no complex numbers here."""
    return x if isinstance(x, Tracer) else np.real(x)


def imag(x: Any) -> Any:
    """Zeros like ``x``."""
    return zeros_like(x)


def conj(x: Any) -> Any:
    """``x``, in memory of its own: there are no complex numbers here."""
    return copied(operand(x))


conjugate = conj


def ediff1d(x: Any) -> Any:
    """The differences of neighbours in the raveled ``x``."""
    return diff(movement.ravel(x))
