"""NumPy's names and signatures: ``import fastgrad.numpy as fnp``. All take traced values, arrays and numbers.

Plain ``np.*`` functions find these through the tables of `protocols` when they are handed a traced value.
"""

from __future__ import annotations

import builtins
import itertools
import types
from collections.abc import Sequence
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
from .errors import DTypeError, ShapeError, user_line
from .ops import arrangement, comparison, movement, shaping
from .ops.arrangement import (
    diag,
    diagonal,
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
from .ops.cumulative import cumprod, cumsum, prod
from .ops.einsum import einsum
from .ops.elementwise import (
    absolute,
    add,
    ceil,
    cos,
    divide,
    exp,
    expm1,
    floor,
    floor_divide,
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
from .ops.movement import concatenate_p, pad, slice_axis
from .ops.operands import as_dtype, aval, dtype_of, normalize_axis, operand, shape_of
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
from .ops.sampled import convolve, gradient, interp, polyval, trapezoid
from .ops.shaping import broadcast_to
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
from .views import viewing

# On a traced array these give views of it, as in NumPy.
ravel, reshape = viewing(movement.ravel), viewing(shaping.reshape)
squeeze, expand_dims = viewing(movement.squeeze), viewing(movement.expand_dims)
transpose, swapaxes = viewing(movement.transpose), viewing(movement.swapaxes)
moveaxis, flip = viewing(movement.moveaxis), viewing(movement.flip)
fliplr, flipud = viewing(arrangement.fliplr), viewing(arrangement.flipud)
rot90 = viewing(arrangement.rot90)
abs, mod, true_divide, pow, bitwise_not = absolute, remainder, divide, power, invert
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


# --- joining and splitting ------------------------------------------------------------------------------------------


def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Any:
    """``arrays`` one after the other along ``axis`` (raveled first when None), in their common dtype.

    Raises: `ShapeError` where the other axes differ.

    >>> concatenate([np.ones(1), np.zeros(2)])
    array([1., 0., 0.])
    """
    values = promote(*arrays)
    if not values:
        raise ShapeError("concatenate: wants at least one array", at=user_line())
    if axis is None:
        values, axis = [ravel(v) for v in values], 0
    ndim = len(shape_of(values[0]))
    return concatenate_p(*values, axis=normalize_axis("concatenate", axis, ndim))


def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    """``arrays`` of one shape side by side along a new axis.

    >>> stack([np.zeros(3), np.ones(3)], axis=1).shape
    (3, 2)
    """
    values = [operand(a) for a in arrays]
    if len({shape_of(v) for v in values}) > 1:
        got = ", ".join(str(aval(v)) for v in values)
        raise ShapeError(f"stack: all shapes must be equal, got {got}", at=user_line())
    return concatenate([expand_dims(v, axis) for v in values], axis)


def _at_least(x: Any, ndim: int) -> Any:
    x = operand(x)
    shape = shape_of(x)
    return reshape(x, (1,) * (ndim - len(shape)) + shape) if len(shape) < ndim else x


def vstack(arrays: Sequence[Any]) -> Any:
    """``arrays`` one below the other; vectors are rows."""
    return concatenate([_at_least(a, 2) for a in arrays], 0)


def hstack(arrays: Sequence[Any]) -> Any:
    """``arrays`` beside each other: along axis 1, vectors along axis 0."""
    values = [_at_least(a, 1) for a in arrays]
    return concatenate(values, 0 if values and len(shape_of(values[0])) == 1 else 1)


def column_stack(arrays: Sequence[Any]) -> Any:
    """``arrays`` beside each other as columns of a matrix; vectors are columns."""
    values = [operand(a) for a in arrays]
    return concatenate([v if _ndim(v) > 1 else reshape(v, (-1, 1)) for v in values], 1)


def _at_least_each(ndim: int, arrays: Sequence[Any]) -> Any:
    values = [_at_least(a, ndim) for a in arrays]
    return values[0] if len(values) == 1 else tuple(values)


def atleast_1d(*arrays: Any) -> Any:
    """Numbers as vectors of one element, other arrays as they are."""
    return _at_least_each(1, arrays)


def atleast_2d(*arrays: Any) -> Any:
    """Numbers and vectors as matrices of one row, other arrays as they are."""
    return _at_least_each(2, arrays)


def append(x: Any, values: Any, axis: int | None = None) -> Any:
    """``x`` and ``values`` one after the other along ``axis`` (both raveled when None)."""
    return concatenate([x, values], axis)


def split(x: Any, indices_or_sections: Any, axis: int = 0) -> list:
    """``x`` cut into equal sections, or at the given positions, along ``axis``.

    Raises: `ShapeError` when equal sections do not fit.
    """
    x = operand(x)
    axis = normalize_axis("split", axis, len(shape_of(x)))
    n = shape_of(x)[axis]
    if isinstance(indices_or_sections, int | np.integer):
        if n % indices_or_sections:
            raise ShapeError(f"split: {aval(x)} has no {indices_or_sections} equal sections", at=user_line())
        size = n // int(indices_or_sections)
        cuts = [size * i for i in range(1, int(indices_or_sections))]
    else:
        cuts = [slice(None, int(c)).indices(n)[1] for c in indices_or_sections]
    bounds = [0, *cuts, n]
    return [_section(x, axis, a, builtins.max(a, b)) for a, b in itertools.pairwise(bounds)]


_section = viewing(slice_axis)


# --- signatures that differ from the op's ---------------------------------------------------------------------------


def _ndim(x: Any) -> int:
    return len(shape_of(x))


def clip(x: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    """`comparison.clip`, with NumPy 2's ``min=`` and ``max=`` as well."""
    return comparison.clip(x, a_min if min is None else min, a_max if max is None else max)


def array_equal(x: Any, y: Any) -> Any:
    """Whether shapes and all elements are equal, bool."""
    x, y = operand(x), operand(y)
    return all(equal(x, y)) if shape_of(x) == shape_of(y) else np.False_
