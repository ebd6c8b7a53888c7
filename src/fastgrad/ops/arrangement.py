"""Elements moved about: NumPy functions that are compositions of slices, pads, transposes and concatenations."""

from __future__ import annotations

import builtins
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError, UnsupportedError, user_line
from .comparison import not_equal, where
from .elementwise import subtract
from .index import take
from .movement import concatenate_p, flip, moveaxis, pad_p, ravel, slice_p, swapaxes
from .operands import aval, dtype_of, normalize_axis, operand, shape_of, strong
from .pointwise import copied, promote, unshared
from .shaping import broadcast_to_p, reshape_p

# --- roll diff ------------------------------------------------------------------------------------------------------


def _integers(op: str, value: Any) -> tuple[int, ...]:
    """A static integer, or several, as a tuple."""
    try:
        return tuple(operator.index(v) for v in (value if isinstance(value, tuple | list) else (value,)))
    except TypeError:
        raise UnsupportedError(f"{op}: wants Python integers, got {value!r}", at=user_line()) from None


def slice_along(x: Any, axis: int, start: int | None, stop: int | None, step: int = 1) -> Any:
    """``x[start:stop:step]`` along one axis, by Python's rules for bounds; ``step`` is positive."""
    shape = shape_of(x)
    a, b, _ = slice(start, stop, step).indices(shape[axis])
    starts, stops, steps = [0] * len(shape), list(shape), [1] * len(shape)
    starts[axis], stops[axis], steps[axis] = a, builtins.max(a, b), step
    return slice_p(x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def roll(x: Any, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Any:
    """``x`` with its elements moved on by ``shift`` along ``axis``, those beyond the end coming in at the front.

    Without an axis the raveled x is rolled. Shifts are Python integers; one for each axis where both are sequences.

    >>> roll(np.array([1, 2, 3, 4]), 1)
    array([4, 1, 2, 3])
    """
    x = operand(x)
    shape = shape_of(x)
    if axis is None:
        return reshape_p(roll(ravel(x), sum(_integers("roll", shift)), 0), shape=shape)
    given, shifts, axes = x, *np.broadcast_arrays(_integers("roll", shift), _integers("roll", axis))
    for s, a in zip(shifts.tolist(), axes.tolist(), strict=True):
        a = normalize_axis("roll", a, len(shape))
        cut = -s % shape[a] if shape[a] else 0
        if cut:
            x = concatenate_p(slice_along(x, a, cut, None), slice_along(x, a, 0, cut), axis=a)
    return copied(x) if x is given else x


def diff(x: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """The n-th differences ``x[i+1] - x[i]`` along ``axis``; of bools, whether they differ.

    ``prepend`` and ``append``, numbers or arrays, are joined to x first. Raises `ShapeError` for a 0-d x or a negative n.

    >>> diff(np.array([1, 2, 4, 7]))
    array([1, 2, 3])
    """
    x = operand(x)
    if not shape_of(x) or n < 0:
        raise ShapeError(f"diff: wants at least one axis and n >= 0, got {aval(x)} and n={n}", at=user_line())
    axis = normalize_axis("diff", axis, len(shape_of(x)))
    parts = [p for p in (prepend, x, append) if p is not None]
    if len(parts) > 1:
        one = tuple(1 if i == axis else size for i, size in enumerate(shape_of(x)))
        values = promote(*map(strong, parts))
        x = concatenate_p(*(v if shape_of(v) else broadcast_to_p(v, shape=one) for v in values), axis=axis)
    minus = not_equal if dtype_of(x).kind == "b" else subtract
    for _ in range(n):
        x = minus(slice_along(x, axis, 1, None), slice_along(x, axis, None, -1))
    return x


# --- triangles and diagonals ----------------------------------------------------------------------------------------


def _matrix_sizes(op: str, x: Any) -> tuple[int, int]:
    shape = shape_of(x)
    if len(shape) < 2:
        raise ShapeError(f"{op}: wants at least two axes, got {aval(x)}", at=user_line())
    return shape[-2], shape[-1]


def tril(x: Any, k: int = 0) -> Any:
    """``x`` with zeros above the k-th diagonal of its last two axes."""
    x = operand(x)
    return where(np.tri(*_matrix_sizes("tril", x), k, dtype=bool), x, dtype_of(x).type(0))


def triu(x: Any, k: int = 0) -> Any:
    """``x`` with zeros below the k-th diagonal of its last two axes."""
    x = operand(x)
    return where(np.tri(*_matrix_sizes("triu", x), k - 1, dtype=bool), dtype_of(x).type(0), x)


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The diagonal of two axes as the last axis of the result; ``offset`` > 0 lies above it. A strided slice, no gather.

    >>> diagonal(np.array([[1, 2, 3], [4, 5, 6]]), 1)
    array([2, 6])
    """
    x = operand(x)
    _matrix_sizes("diagonal", x)
    x = moveaxis(x, (axis1, axis2), (-2, -1))
    *lead, rows, columns = shape_of(x)
    count = builtins.max(0, min(rows + min(offset, 0), columns - builtins.max(offset, 0)))
    start = offset if offset >= 0 else -offset * columns
    flat = reshape_p(x, shape=(*lead, rows * columns))
    if not count:
        return slice_along(flat, len(lead), 0, 0)
    return slice_along(flat, len(lead), start, start + (count - 1) * (columns + 1) + 1, columns + 1)


def diag(x: Any, k: int = 0) -> Any:
    """The k-th diagonal of a matrix; of a vector, the matrix that has it there and zeros elsewhere.

    >>> diag(np.array([1, 2]))
    array([[1, 0],
           [0, 2]])
    """
    x = operand(x)
    shape = shape_of(x)
    if len(shape) == 2:
        return diagonal(x, k)
    if len(shape) != 1:
        raise ShapeError(f"diag: wants a vector or a matrix, got {aval(x)}", at=user_line())
    n = shape[0] + abs(k)
    start = k if k >= 0 else -k * n
    kept = (shape[0] - 1) * (n + 1) + 1 if shape[0] else 0
    flat = pad_p(x, lo=(start,), hi=(n * n - start - kept,), interior=(n,))
    return reshape_p(flat, shape=(n, n))


# --- repeats --------------------------------------------------------------------------------------------------------


def tile(x: Any, reps: int | Sequence[int]) -> Any:
    """``x`` repeated whole, ``reps`` times along each axis; missing leading axes are added on either side.

    >>> tile(np.array([1, 2]), (2, 2))
    array([[1, 2, 1, 2],
           [1, 2, 1, 2]])
    """
    x, counts = operand(x), _integers("tile", reps)
    shape = shape_of(x)
    ndim = builtins.max(len(shape), len(counts))
    sizes = (1,) * (ndim - len(shape)) + shape
    counts = (1,) * (ndim - len(counts)) + counts
    # [1, n] pairs of axes, the ones stretched: one broadcast and one reshape, no copy before the last.
    apart = reshape_p(x, shape=tuple(m for n in sizes for m in (1, n)))
    wide = broadcast_to_p(apart, shape=tuple(m for c, n in zip(counts, sizes, strict=True) for m in (c, n)))
    return unshared(reshape_p(wide, shape=tuple(c * n for c, n in zip(counts, sizes, strict=True))))


def repeat(x: Any, repeats: Any, axis: int | None = None) -> Any:
    """Each element of ``x`` ``repeats`` times along ``axis`` (of the raveled x when None); one static count, or one each.

    >>> repeat(np.array([1, 2]), 2)
    array([1, 1, 2, 2])
    """
    x = operand(x)
    x = ravel(x) if axis is None else x
    axis = normalize_axis("repeat", axis or 0, len(shape_of(x)))
    if isinstance(repeats, int | np.integer):
        shape = shape_of(x)
        wide = (*shape[: axis + 1], int(repeats), *shape[axis + 1 :])
        column = reshape_p(x, shape=(*shape[: axis + 1], 1, *shape[axis + 1 :]))
        joined = (*shape[:axis], shape[axis] * int(repeats), *shape[axis + 1 :])
        return unshared(reshape_p(broadcast_to_p(column, shape=wide), shape=joined))
    counts = np.asarray(_integers("repeat", np.asarray(repeats).tolist()), np.int64)
    return take(x, np.repeat(np.arange(shape_of(x)[axis]), counts), axis)


# --- turned about ---------------------------------------------------------------------------------------------------


def fliplr(x: Any) -> Any:
    """``x`` with its second axis reversed."""
    return flip(x, 1)


def flipud(x: Any) -> Any:
    """``x`` with its first axis reversed."""
    return flip(x, 0)


def rot90(x: Any, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Any:
    """``x`` turned by k right angles in the plane of two axes, from the first towards the second."""
    turns = k % 4
    if turns == 0:
        return operand(x)
    if turns == 2:
        return flip(x, axes)
    return flip(swapaxes(x, *axes), axes[0]) if turns == 1 else swapaxes(flip(x, axes[0]), *axes)


def meshgrid(*xs: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> tuple:
    """Coordinate matrices of coordinate vectors: each ``xs[i]`` varies along its own axis of the grid.

    With ``sparse`` the other axes stay of size 1. What is traced is never shared, whatever ``copy`` says.

    >>> meshgrid(np.array([1, 2]), np.array([3, 4, 5]))[0].shape
    (3, 2)
    """
    if indexing not in ("xy", "ij"):
        raise ShapeError(f"meshgrid: indexing must be 'xy' or 'ij', got {indexing!r}", at=user_line())
    values = [ravel(x) for x in xs]
    sizes = [shape_of(v)[0] for v in values]
    grids = []
    for i, value in enumerate(values):
        column = reshape_p(value, shape=tuple(n if j == i else 1 for j, n in enumerate(sizes)))
        grid = column if sparse else broadcast_to_p(column, shape=tuple(sizes))
        grid = swapaxes(grid, 0, 1) if indexing == "xy" and len(sizes) > 1 else grid
        grids.append(unshared(grid) if copy else grid)
    return tuple(grids)
