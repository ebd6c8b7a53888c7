"""NumPy's names and signatures: ``import fastgrad.numpy as fnp``. All take traced values, arrays and numbers.

Plain ``np.*`` functions find these through `UFUNCS` and `FUNCTIONS` when they are handed a traced value.
"""

from __future__ import annotations

import builtins
import itertools
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .core.aval import result_type
from .core.graph import Literal, Tracer
from .errors import ShapeError, UnsupportedError, user_line
from .ops import comparison
from .ops import linalg as _linalg
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
    not_equal,
    right_shift,
    where,
)
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
from .ops.linalg import dot, inner, matmul, outer, tensordot, trace
from .ops.movement import (
    concatenate_p,
    expand_dims,
    flip,
    moveaxis,
    pad,
    ravel,
    slice_axis,
    squeeze,
    swapaxes,
    transpose,
)
from .ops.operands import as_dtype, aval, dtype_of, normalize_axis, normalize_shape, operand, shape_of
from .ops.pointwise import cast, promote
from .ops.power import power
from .ops.reduce import all, any, argmax, argmin, max, mean, min, std, sum, var
from .ops.shaping import broadcast_to, filled, reshape

abs, mod, true_divide, pow, bitwise_not = absolute, remainder, divide, power, invert
amax, amin, permute_dims = max, min, transpose
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
linalg = types.SimpleNamespace(norm=_linalg.norm, matmul=matmul)

# --- creation -------------------------------------------------------------------------------------------------------


def zeros(shape: Any, dtype: Any = np.float64) -> np.ndarray:
    """A NumPy array of zeros (writable: fill it before it meets a traced value)."""
    return np.zeros(normalize_shape("zeros", shape), as_dtype(dtype))


def ones(shape: Any, dtype: Any = np.float64) -> np.ndarray:
    """A NumPy array of ones."""
    return np.ones(normalize_shape("ones", shape), as_dtype(dtype))


def full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
    """``fill_value``, a number or an array or a traced value, broadcast to ``shape``."""
    value = operand(fill_value) if dtype is None else cast(operand(fill_value), as_dtype(dtype))
    if isinstance(value, Tracer):
        return broadcast_to(value, shape)
    return np.full(normalize_shape("full", shape), value, aval(value).dtype)


def arange(*args: Any, dtype: Any = None) -> np.ndarray:
    """``np.arange``: the bounds are Python numbers, as shapes are static."""
    return np.arange(*args, dtype=dtype)


def linspace(
    start: float, stop: float, num: int = 50, *, endpoint: bool = True, dtype: Any = None
) -> np.ndarray:
    """``np.linspace`` between Python numbers."""
    return np.linspace(start, stop, num, endpoint=endpoint, dtype=dtype)


def eye(n: int, m: int | None = None, dtype: Any = np.float64) -> np.ndarray:
    """``np.eye``: ones on the diagonal."""
    return np.eye(n, m, dtype=as_dtype(dtype))


def full_like(x: Any, fill_value: Any, dtype: Any = None, *, shape: Any = None) -> Any:
    """``fill_value`` in the shape and dtype of ``x``, or in those given instead."""
    x = operand(x)
    sizes = shape_of(x) if shape is None else normalize_shape("full_like", shape)
    target = dtype_of(x) if dtype is None else as_dtype(dtype)
    if isinstance(fill_value, Tracer):
        return broadcast_to(cast(fill_value, target), sizes)
    if not isinstance(x, Tracer):
        return np.full(sizes, fill_value, target)
    return filled(x, sizes, np.asarray(fill_value).astype(target), target)


def zeros_like(x: Any, dtype: Any = None, *, shape: Any = None) -> Any:
    """Zeros in the shape and dtype of ``x``: traced where ``x`` is, else a NumPy array."""
    return full_like(x, 0, dtype, shape=shape)


def ones_like(x: Any, dtype: Any = None, *, shape: Any = None) -> Any:
    """Ones in the shape and dtype of ``x``."""
    return full_like(x, 1, dtype, shape=shape)


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
    """A copy; of a traced value itself, which never changes."""
    return array(x)


def _traced(x: Any) -> bool:
    return isinstance(x, Tracer) or (isinstance(x, list | tuple) and builtins.any(map(_traced, x)))


def astype(x: Any, dtype: Any) -> Any:
    """``x`` in ``dtype``; floats become integers by truncation."""
    return cast(operand(x), as_dtype(dtype))


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
    return [slice_axis(x, axis, a, builtins.max(a, b)) for a, b in itertools.pairwise(bounds)]


# --- signatures that differ from the op's ---------------------------------------------------------------------------


def clip(x: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    """`comparison.clip`, with NumPy 2's ``min=`` and ``max=`` as well."""
    return comparison.clip(x, a_min if min is None else min, a_max if max is None else max)


def array_equal(x: Any, y: Any) -> Any:
    """Whether shapes and all elements are equal, bool."""
    x, y = operand(x), operand(y)
    return all(equal(x, y)) if shape_of(x) == shape_of(y) else np.False_


def _where(condition: Any, *choices: Any) -> Any:
    if len(choices) != 2:
        raise UnsupportedError(
            "np.where with one argument: the result's shape would depend on values",
            hint="np.where(condition, x, y)",
            at=user_line(),
        )
    return where(condition, *choices)


def _sum_like(op: Callable[..., Any]) -> Callable[..., Any]:
    """``op`` behind NumPy's positional order for sum and mean."""
    return lambda x, axis=None, dtype=None, out=None, keepdims=False: op(
        x, axis, dtype=dtype, keepdims=keepdims
    )


def _var_like(op: Callable[..., Any]) -> Callable[..., Any]:
    """``op`` behind NumPy's positional order for var and std."""
    return lambda x, axis=None, dtype=None, out=None, ddof=0, keepdims=False: op(
        x, axis, dtype=dtype, ddof=ddof, keepdims=keepdims
    )


def _max_like(op: Callable[..., Any]) -> Callable[..., Any]:
    """``op`` behind NumPy's positional order for max, argmax, all and their kin."""
    return lambda x, axis=None, out=None, keepdims=False: op(x, axis, keepdims=keepdims)


def _ndim(x: Any) -> int:
    return len(shape_of(x))


def _size(x: Any, axis: int | None = None) -> int:
    return aval(x).size if axis is None else shape_of(x)[axis]


def _result_type(*values: Any) -> np.dtype:
    return result_type(*(aval(_stand_in(v)) for v in values))[0]


def _stand_in(value: Any) -> Any:
    return np.empty(0, value) if isinstance(value, type | np.dtype | str) else operand(value)


def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    if ord not in (None, 2, "fro") or (ord == 2 and axis is None and len(shape_of(operand(x))) > 1):
        raise UnsupportedError(
            f"np.linalg.norm: ord={ord!r} is not supported", hint="np.sqrt(np.sum(x * x))", at=user_line()
        )
    return _linalg.norm(x, axis, keepdims=keepdims)


# --- the tables of the NumPy protocols ------------------------------------------------------------------------------

UFUNCS: dict[np.ufunc, Callable[..., Any]] = {
    getattr(np, f.__name__): f
    for f in (
        absolute, add, bitwise_and, bitwise_or, bitwise_xor, ceil, cos, divide, equal, exp, expm1, floor,
        floor_divide, greater, greater_equal, invert, isfinite, isinf, isnan, left_shift, less, less_equal,
        log, log1p, logical_and, logical_not, logical_or, logical_xor, matmul, maximum, minimum, multiply,
        negative, not_equal, positive, power, reciprocal, remainder, right_shift, sign, sin, sqrt, square,
        subtract, tanh,
    )
}  # fmt: skip
"""What each NumPy ufunc does on traced values."""

REDUCTIONS: dict[np.ufunc, Callable[..., Any]] = {
    np.add: sum, np.maximum: max, np.minimum: min, np.logical_and: all, np.logical_or: any,
}  # fmt: skip
"""What ``ufunc.reduce`` does on traced values."""

FUNCTIONS: dict[Any, Callable[..., Any]] = {
    getattr(np, f.__name__): f
    for f in (
        array_equal, astype, broadcast_to, clip, concatenate, copy, dot, expand_dims, flip, full_like, hstack, inner,
        moveaxis, ones_like, outer, pad, ravel, reshape, split, squeeze, stack, swapaxes, take, tensordot, trace,
        transpose, vstack, zeros_like,
    )
    if hasattr(np, f.__name__)
} | {
    np.sum: _sum_like(sum),
    np.mean: _sum_like(mean),
    np.var: _var_like(var),
    np.std: _var_like(std),
    np.max: _max_like(max),
    np.min: _max_like(min),
    np.all: _max_like(all),
    np.any: _max_like(any),
    np.argmax: _max_like(argmax),
    np.argmin: _max_like(argmin),
    np.where: _where,
    np.shape: shape_of,
    np.ndim: _ndim,
    np.size: _size,
    np.linalg.norm: _norm,
    np.result_type: _result_type,
}  # fmt: skip
"""What other NumPy functions do on traced values."""
FUNCTIONS |= {np.amax: FUNCTIONS[np.max], np.amin: FUNCTIONS[np.min]}
