"""NumPy's functions that join arrays and split them."""

from __future__ import annotations

import builtins
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import ShapeError, user_line
from .ops import movement, shaping
from .ops.movement import concatenate_p, slice_axis
from .ops.operands import aval, normalize_axis, operand, shape_of, strong
from .ops.pointwise import promote
from .views import viewing

reshape, expand_dims = viewing(shaping.reshape), viewing(movement.expand_dims)
_section = viewing(slice_axis)


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
        values, axis = [movement.ravel(v) for v in values], 0
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


def dstack(arrays: Sequence[Any]) -> Any:
    """``arrays`` behind each other along axis 2; vectors are rows of a matrix first."""
    values = [_at_least(a, 2) for a in arrays]
    return concatenate([v if len(shape_of(v)) > 2 else reshape(v, (*shape_of(v), 1)) for v in values], 2)


def column_stack(arrays: Sequence[Any]) -> Any:
    """``arrays`` beside each other as columns of a matrix; vectors are columns."""
    values = [operand(a) for a in arrays]
    return concatenate([v if len(shape_of(v)) > 1 else reshape(v, (-1, 1)) for v in values], 1)


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
    return concatenate([x, strong(values)], axis)


def split(x: Any, indices_or_sections: Any, axis: int = 0) -> list:
    """``x`` cut into equal sections, or at the given positions, along ``axis``.

    Raises: `ShapeError` when equal sections do not fit.
    """
    x = operand(x)
    axis = normalize_axis("split", axis, len(shape_of(x)))
    n = shape_of(x)[axis]
    if isinstance(indices_or_sections, int | np.integer) and n % indices_or_sections:
        raise ShapeError(f"split: {aval(x)} has no {indices_or_sections} equal sections", at=user_line())
    return array_split(x, indices_or_sections, axis)


def array_split(x: Any, indices_or_sections: Any, axis: int = 0) -> list:
    """`split` whose first sections are larger by one where equal ones do not fit."""
    x = operand(x)
    axis = normalize_axis("array_split", axis, len(shape_of(x)))
    n = shape_of(x)[axis]
    if isinstance(indices_or_sections, int | np.integer):
        size, more = divmod(n, int(indices_or_sections))
        cuts = [size * i + builtins.min(i, more) for i in range(1, int(indices_or_sections))]
    else:
        cuts = [slice(None, int(c)).indices(n)[1] for c in indices_or_sections]
    bounds = [0, *cuts, n]
    return [_section(x, axis, a, builtins.max(a, b)) for a, b in itertools.pairwise(bounds)]


def broadcast_arrays(*arrays: Any) -> tuple:
    """``arrays`` stretched to their common shape, each in its dtype."""
    values = [operand(a) for a in arrays]
    shape = np.broadcast_shapes(*(shape_of(v) for v in values))
    return tuple(shaping.broadcast_to(v, shape) for v in values)
