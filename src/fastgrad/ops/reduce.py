"""Reductions over any axes. An axis of size 1 is reduced like any other: no kernel is keyed by sizes.

`broadcast_to` and `reduce_sum`, each the other's transpose, stand in `shaping` below the elementwise ops.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.aval import Aval
from ..core.graph import Literal
from ..core.loops import Reduce
from ..core.primitive import Primitive
from ..errors import ShapeError, user_line
from .comparison import eq_p, logical_not, logical_or, ne_p, truth
from .elementwise import add_p, divide, isnan, maximum, minimum, mul_p, sqrt, sub_p
from .operands import (
    Axes,
    as_dtype,
    aval,
    dtype_of,
    normalize_axes,
    normalize_axis,
    operand,
    shape_of,
    strong,
)
from .pointwise import cast, cast_p, promote, select_p, zero_like
from .shaping import broadcast_to as broadcast_to
from .shaping import broadcast_to_p as broadcast_to_p
from .shaping import check_reduction, filled, reduce_sum_p, reshape_p, shift, spread

# --- sum ------------------------------------------------------------------------------------------------------------


def _keep(x: Any, reduced: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    if not keepdims:
        return reduced
    return reshape_p(reduced, shape=tuple(1 if i in axes else n for i, n in enumerate(shape_of(x))))


def sum(
    x: Any,
    axis: Axes = None,
    *,
    dtype: Any = None,
    keepdims: bool = False,
    initial: Any = None,
    where: Any = True,
) -> Any:
    """Sum over ``axis`` (an integer, several, or None for all). Bools and small integers add up in int64 or uint64.

    Of the elements where the mask ``where`` holds, and of ``initial``. Empty sums are 0. The order of additions depends
    on the sizes alone, never on threads.

    >>> sum(np.ones((2, 3)), axis=0)
    array([2., 2., 2.])
    """
    x = operand(x)
    axes = normalize_axes("sum", axis, len(shape_of(x)))
    x = cast(x, as_dtype(dtype) if dtype is not None else sum_dtype(dtype_of(x)))
    x = _masked(x, where, 0)
    out = _keep(x, reduce_sum_p(x, axes=axes), axes, keepdims)
    return out if initial is None else add_p(out, cast(strong(operand(initial)), dtype_of(out)))


def _masked(x: Any, mask: Any, neutral: Any) -> Any:
    """``x`` where the mask, broadcast to it, holds; elsewhere what leaves a reduction as it is."""
    if mask is True:
        return x
    mask = truth(mask)
    if len(shape_of(mask)) > len(shape_of(x)):
        raise ShapeError(f"where={aval(mask)} does not fit {aval(x)}", at=user_line())
    return select_p(mask, *promote(x, dtype_of(x).type(neutral)))


def sum_dtype(dtype: np.dtype) -> np.dtype:
    """What sums of ``dtype`` are kept in: int64 or uint64 for bools and integers, floats themselves."""
    if dtype.kind in "bi":
        return np.dtype(np.int64)
    return np.dtype(np.uint64) if dtype.kind == "u" else dtype


def mean(x: Any, axis: Axes = None, *, dtype: Any = None, keepdims: bool = False, where: Any = True) -> Any:
    """Arithmetic mean over ``axis``, of where the mask ``where`` holds: the sum by the count.

    Integers average in float64; an empty mean is NaN.

    >>> mean(np.array([[1, 2], [3, 5]]), axis=1)
    array([1.5, 4. ])
    """
    x = operand(x)
    if dtype is not None:
        x = cast(x, as_dtype(dtype))
    (x,) = promote(x, floats=True) if dtype is None else (x,)
    axes = normalize_axes("mean", axis, len(shape_of(x)))
    if where is not True:
        chosen = broadcast_to(truth(where), shape_of(x))
        count = cast(sum(chosen, axes, keepdims=keepdims), dtype_of(x))
        return divide(sum(x, axes, keepdims=keepdims, where=chosen), count)
    total = _keep(x, reduce_sum_p(x, axes=axes), axes, keepdims)
    return divide(total, math.prod(shape_of(x)[a] for a in axes))


def var(x: Any, axis: Axes = None, *, dtype: Any = None, ddof: int = 0, keepdims: bool = False) -> Any:
    """Variance over ``axis``: ``sum((x - mean)**2) / (count - ddof)``, in two passes (no cancellation)."""
    (x,) = promote(x, floats=True)
    if dtype is not None:
        x = cast(x, as_dtype(dtype))
    axes = normalize_axes("var", axis, len(shape_of(x)))
    deviation = sub_p(x, mean(x, axes, keepdims=True))
    total = _keep(x, reduce_sum_p(mul_p(deviation, deviation), axes=axes), axes, keepdims)
    return divide(total, float(builtins.max(math.prod(shape_of(x)[a] for a in axes) - ddof, 0)))


def std(x: Any, axis: Axes = None, *, dtype: Any = None, ddof: int = 0, keepdims: bool = False) -> Any:
    """Standard deviation over ``axis``: the root of `var`. Its derivative at 0 is NaN, as the root's is infinite."""
    return sqrt(var(x, axis, dtype=dtype, ddof=ddof, keepdims=keepdims))


# --- reduce_max[axes], reduce_min[axes] -----------------------------------------------------------------------------


def _extremum_rule(name: str) -> Callable[..., Aval]:
    def rule(x: Aval, *, axes: tuple[int, ...]) -> Aval:
        check_reduction(name, x, axes)
        if builtins.any(x.shape[a] == 0 for a in axes):
            raise ShapeError(f"{name}: an empty axis has no {name}imum, got {x} over axes {list(axes)}")
        return Aval(tuple(n for i, n in enumerate(x.shape) if i not in axes), x.dtype, x.weak)

    return rule


def _extremum(name: str, reference: Callable[..., Any]) -> Primitive:
    def winners(out: Any, x: Any, axes: tuple[int, ...], dtype: np.dtype) -> tuple[Any, Any]:
        """Which elements equal the extremum, and how many."""
        won = eq_p(x, spread(out, shape_of(x), axes))
        return won, reduce_sum_p(cast_p(won, dtype=dtype), axes=axes)

    def vjp(ct: Any, out: Any, x: Any, *, axes: tuple[int, ...]) -> tuple:
        if dtype_of(x).kind != "f":
            return (None,)
        won, count = winners(out, x, axes, dtype_of(x))
        return (select_p(won, spread(divide(ct, count), shape_of(x), axes), zero_like(ct)),)

    def jvp(tangents: Sequence[Any], out: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
        won, count = winners(out, x, axes, dtype_of(x))
        return divide(reduce_sum_p(select_p(won, tangents[0], zero_like(tangents[0])), axes=axes), count)

    prim = Primitive(
        f"reduce_{name}",
        abstract=_extremum_rule(name),
        reference=lambda x, *, axes: reference(x, axis=axes),
        vjp=vjp,
        jvp=jvp,
        batch=lambda args, batched, *, axes: prim(args[0], axes=shift(axes)),
        kernel=Reduce(name),  # type: ignore[arg-type]
    )
    return prim


reduce_max_p = _extremum("max", np.max)
reduce_min_p = _extremum("min", np.min)


def _reduce(prim: Primitive, name: str, x: Any, axis: Axes, keepdims: bool, initial: Any = None) -> Any:
    x = operand(x)
    shape = shape_of(x)
    axes = normalize_axes(name, axis, len(shape))
    if initial is None:
        return _keep(x, prim(x, axes=axes), axes, keepdims)
    initial = cast(strong(operand(initial)), dtype_of(x))
    if builtins.any(shape[a] == 0 for a in axes):
        kept = tuple(n for i, n in enumerate(shape) if i not in axes)
        out = add_p(*promote(filled(x, kept, 0), initial))
    else:
        out = (maximum if prim is reduce_max_p else minimum)(prim(x, axes=axes), initial)
    return _keep(x, out, axes, keepdims)


def max(x: Any, axis: Axes = None, *, keepdims: bool = False, initial: Any = None) -> Any:
    """Largest element over ``axis``, ``initial`` included; NaN if there is one. Equal winners share the cotangent evenly.

    Raises: `ShapeError` over an empty axis.

    >>> max(np.array([[1, 5], [7, 2]]), axis=1)
    array([5, 7])
    """
    return _reduce(reduce_max_p, "max", x, axis, keepdims, initial)


def min(x: Any, axis: Axes = None, *, keepdims: bool = False, initial: Any = None) -> Any:
    """Smallest element over ``axis``, ``initial`` included; NaN if there is one. Equal winners share the cotangent evenly.

    Raises: `ShapeError` over an empty axis.
    """
    return _reduce(reduce_min_p, "min", x, axis, keepdims, initial)


amax, amin = max, min


def ptp(x: Any, axis: Axes = None, *, keepdims: bool = False) -> Any:
    """Largest less smallest element over ``axis``."""
    return sub_p(*promote(max(x, axis, keepdims=keepdims), min(x, axis, keepdims=keepdims)))


def average(
    x: Any, axis: Axes = None, weights: Any = None, returned: bool = False, *, keepdims: bool = False
) -> Any:
    """Mean over ``axis`` weighted by ``weights``: of the shape of x, or of the one axis that is averaged.

    With ``returned`` also the sum of the weights. Raises `ShapeError` for weights that fit neither.

    >>> float(average(np.array([1.0, 4.0]), weights=np.array([2.0, 1.0])))
    2.0
    """
    x = operand(x)
    shape = shape_of(x)
    if weights is None:
        out = mean(x, axis, keepdims=keepdims)
        count = math.prod(shape[a] for a in normalize_axes("average", axis, len(shape)))
        return (out, filled(out, shape_of(out), count)) if returned else out
    x, w = promote(x, weights, floats=True)
    if shape_of(w) != shape:
        single = axis if isinstance(axis, int) else None
        if single is None or shape_of(w) != (shape[normalize_axis("average", single, len(shape))],):
            raise ShapeError(f"average: weights {aval(w)} do not fit {aval(x)}", at=user_line())
        place = normalize_axis("average", single, len(shape))
        w = reshape_p(w, shape=tuple(n if i == place else 1 for i, n in enumerate(shape)))
        w = broadcast_to_p(w, shape=shape)
    total = sum(w, axis, keepdims=keepdims)
    out = divide(sum(mul_p(x, w), axis, keepdims=keepdims), total)
    return (out, total) if returned else out


def count_nonzero(x: Any, axis: Axes = None, *, keepdims: bool = False) -> Any:
    """How many elements over ``axis`` are not 0, int64."""
    return sum(truth(x), axis, keepdims=keepdims)


# --- argmax argmin all any ------------------------------------------------------------------------------------------


def _first(x: Any, extremum: Primitive, name: str, axis: int | None, keepdims: bool) -> Any:
    """The first position that equals the extremum (or is NaN): the smallest of the candidates' numbers."""
    x = operand(x)
    shape = shape_of(x)
    axes = (
        normalize_axes(name, axis, len(shape)) if axis is None else (normalize_axis(name, axis, len(shape)),)
    )
    if builtins.any(shape[a] == 0 for a in axes):
        raise ShapeError(f"{name}: an empty axis has no extremum, got {aval(x)}", at=user_line())
    # No leading 1s: an axis added by rank is a broadcast by construction, whatever the size of x there.
    sizes = [n if i in axes else 1 for i, n in enumerate(shape)][axes[0] if axes else 0 :]
    places = np.arange(math.prod(sizes), dtype=np.int64).reshape(sizes)
    best = eq_p(x, spread(extremum(x, axes=axes), shape, axes))
    if dtype_of(x).kind == "f":
        best = logical_or(best, isnan(x))
    chosen = reduce_min_p(select_p(best, places, Literal(np.int64(places.size))), axes=axes)
    return _keep(x, chosen, axes, keepdims)


def argmax(x: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
    """Position of the largest element along ``axis`` (in the raveled array when None), int64; the first of equals."""
    return _first(x, reduce_max_p, "argmax", axis, keepdims)


def argmin(x: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
    """Position of the smallest element along ``axis`` (in the raveled array when None), int64; the first of equals."""
    return _first(x, reduce_min_p, "argmin", axis, keepdims)


def all(x: Any, axis: Axes = None, *, keepdims: bool = False) -> Any:
    """Whether every element is true, bool; True when there is none."""
    return eq_p(sum(logical_not(x), axis, keepdims=keepdims), Literal(np.int64(0)))


def any(x: Any, axis: Axes = None, *, keepdims: bool = False) -> Any:
    """Whether some element is true, bool; False when there is none."""
    return ne_p(sum(truth(x), axis, keepdims=keepdims), Literal(np.int64(0)))
