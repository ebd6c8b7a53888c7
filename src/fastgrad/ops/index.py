"""Reading and adding up rows by number.

take[axis](x, i)                  y = x[i] along an axis           its VJP is scatter_add
scatter_add[axis,size](u, i)      zeros, then y[i] += u in order   its VJP is take
check_index[size](i)              i itself; an error where one lies outside [0, size)
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.aval import Aval
from ..core.graph import current
from ..core.loops import Library
from ..core.primitive import Primitive
from ..errors import DTypeError, OutOfBoundsError, user_line
from .comparison import where
from .movement import moveaxis, ravel
from .operands import normalize_axis, operand, shape_of
from .pointwise import cast
from .shaping import broadcast_to_p, reshape_p

INDEX_OPERAND = {"check_index": 0, "take": 1, "scatter_add": 1, "scatter": 1}
"""Where the indices stand among the inputs of the ops that a run refuses for a bad one."""


def check_integers(op: str, indices: Aval) -> None:
    if indices.dtype.kind not in "iu":
        hint = "np.where(mask, x, 0)" if indices.dtype.kind == "b" else "indices.astype(np.int64)"
        raise DTypeError(f"{op}: indices must be integers, got {indices}", hint=hint)


def check_bounds(op: str, indices: Any, size: int, lowest: int) -> Any:
    """``indices``; `OutOfBoundsError` names the first outside ``[lowest, size)``."""
    indices = np.asarray(indices)
    if indices.size and (
        np.minimum.reduce(indices, None) < lowest or np.maximum.reduce(indices, None) >= size
    ):
        outside = (indices < lowest) | (indices >= size)
        raise OutOfBoundsError(
            f"{op}: index {indices[outside].flat[0]} is out of bounds for an axis of size {size}"
        )
    return indices


# --- take[axis] -----------------------------------------------------------------------------------------------------


def _take_rule(x: Aval, indices: Aval, *, axis: int) -> Aval:
    check_integers("take", indices)
    if not 0 <= axis < x.ndim:
        raise OutOfBoundsError(f"take: axis {axis} is out of bounds for {x}")
    if x.shape[axis] == 0 and indices.size:
        raise OutOfBoundsError(f"take: cannot take from an empty axis, got {x} at {indices}")
    return Aval(x.shape[:axis] + indices.shape + x.shape[axis + 1 :], x.dtype, x.weak)


def _take_reference(x: Any, indices: Any, *, axis: int) -> Any:
    size = np.shape(x)[axis]
    return np.take(x, check_bounds("take", indices, size, -size), axis)


def _take_batch(args: Sequence[Any], batched: Sequence[bool], *, axis: int) -> Any:
    x, indices = args
    if not batched[1]:
        return take_p(x, indices, axis=axis + 1)
    if not batched[0]:
        return moveaxis(take_p(x, indices, axis=axis), axis, 0)
    # Both: element b of the batch reads its own block of one long axis.
    rows = moveaxis(x, axis + 1, 1)
    count, size, *rest = shape_of(rows)
    out = take_p(reshape_p(rows, shape=(count * size, *rest)), in_blocks(indices, count, size), axis=0)
    n = len(shape_of(indices)) - 1
    return moveaxis(out, tuple(range(1, 1 + n)), tuple(range(1 + axis, 1 + axis + n)))


def in_blocks(indices: Any, count: int, size: int) -> Any:
    """Row b of ``indices`` (in ``[-size, size)``) as numbers on one axis of ``count`` blocks of ``size``."""
    indices = cast(indices, np.dtype(np.int64))
    indices = check_index_p(where(indices < 0, indices + size, indices), size=size)
    offsets = (np.arange(count) * size).reshape(count, *(1,) * (len(shape_of(indices)) - 1))
    return indices + offsets


take_p = Primitive(
    "take",
    abstract=_take_rule,
    reference=_take_reference,
    vjp=lambda ct, out, x, i, *, axis: (scatter_add_p(ct, i, axis=axis, size=shape_of(x)[axis]), None),
    jvp=lambda tangents, out, x, i, *, axis: take_p(tangents[0], i, axis=axis),
    batch=_take_batch,
    kernel=Library("take"),
)


def take(x: Any, indices: Any, axis: int | None = None) -> Any:
    """``x`` at integer ``indices`` along ``axis`` (of the raveled x when None); negative indices count from the end.

    Shape ``x.shape[:axis] + indices.shape + x.shape[axis+1:]``. Raises `DTypeError` for indices that are no integers,
    `OutOfBoundsError` for an index outside the axis: of a NumPy array while tracing, of a traced one when the step runs.

    >>> take(np.array([10, 20, 30]), np.array([2, -3]))
    array([30, 10])
    """
    x, indices = operand(x), operand(indices)
    x = ravel(x) if axis is None else x
    along = normalize_axis("take", axis or 0, len(shape_of(x)))
    size = shape_of(x)[along]
    if current() is not None and isinstance(indices, np.ndarray) and indices.dtype.kind in "iu":
        try:
            check_bounds("take", indices, size, -size)
        except OutOfBoundsError as error:
            error.at = user_line()
            raise
    return take_p(x, indices, axis=along)


# --- scatter_add[axis,size] -----------------------------------------------------------------------------------------


def _scatter_rule(updates: Aval, indices: Aval, *, axis: int, size: int) -> Aval:
    check_integers("scatter_add", indices)
    if updates.shape[axis : axis + indices.ndim] != indices.shape:
        raise OutOfBoundsError(f"scatter_add: axes of {indices} must stand at axis {axis} of {updates}")
    return Aval(
        (*updates.shape[:axis], size, *updates.shape[axis + indices.ndim :]), updates.dtype, updates.weak
    )


def _scatter_reference(updates: Any, indices: Any, *, axis: int, size: int) -> np.ndarray:
    updates, indices = np.asarray(updates), check_bounds("scatter_add", indices, size, -size)
    shape = (*updates.shape[:axis], size, *updates.shape[axis + indices.ndim :])
    out = np.zeros(shape, updates.dtype)
    np.add.at(out, (*(slice(None),) * axis, indices), updates)
    return out


def _scatter_batch(args: Sequence[Any], batched: Sequence[bool], *, axis: int, size: int) -> Any:
    updates, indices = args
    if not batched[1]:
        return scatter_add_p(updates, indices, axis=axis + 1, size=size)
    count, *inner = shape_of(indices)
    if not batched[0]:
        updates = broadcast_to_p(updates, shape=(count, *shape_of(updates)))
    n = len(inner)
    rows = moveaxis(updates, tuple(range(1 + axis, 1 + axis + n)), tuple(range(1, 1 + n)))
    out = scatter_add_p(rows, in_blocks(indices, count, size), axis=0, size=count * size)
    return moveaxis(reshape_p(out, shape=(count, size, *shape_of(out)[1:])), 1, 1 + axis)


scatter_add_p = Primitive(
    "scatter_add",
    abstract=_scatter_rule,
    reference=_scatter_reference,
    vjp=lambda ct, out, u, i, *, axis, size: (take_p(ct, i, axis=axis), None),
    jvp=lambda tangents, out, u, i, *, axis, size: scatter_add_p(tangents[0], i, axis=axis, size=size),
    batch=_scatter_batch,
    kernel=Library("scatter_add"),
)


def scatter_add(updates: Any, indices: Any, size: int, axis: int = 0) -> Any:
    """Zeros with an axis of length ``size``, and ``updates`` added at ``indices`` along it, in index order.

    The axes of ``indices`` stand at ``axis`` of ``updates``; an index that appears twice adds twice.

    >>> scatter_add(np.array([1.0, 2.0, 4.0]), np.array([0, 2, 0]), size=3)
    array([5., 0., 2.])
    """
    updates, indices = operand(updates), operand(indices)
    ndim = len(shape_of(updates)) - len(shape_of(indices)) + 1
    return scatter_add_p(
        updates, indices, axis=normalize_axis("scatter_add", axis, ndim), size=operator.index(size)
    )


# --- check_index[size] ----------------------------------------------------------------------------------------------


def _check_rule(indices: Aval, *, size: int) -> Aval:
    check_integers("check_index", indices)
    return indices


check_index_p = Primitive(
    "check_index",
    abstract=_check_rule,
    reference=lambda indices, *, size: check_bounds("check_index", indices, size, 0),
    vjp=lambda ct, out, indices, *, size: (None,),
    jvp=lambda tangents, out, indices, *, size: None,
    batch=lambda args, batched, *, size: check_index_p(args[0], size=size),
    kernel=Library("check_index"),
)


def check_index(indices: Any, size: int) -> Any:
    """``indices`` unchanged; `OutOfBoundsError` when the step runs on one outside ``[0, size)``."""
    return check_index_p(operand(indices), size=size)
