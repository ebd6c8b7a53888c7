"""What ``x[key]`` means, in equations: NumPy's basic and advanced indexing as a path of ops that can be read and written.

A `Subscript` of a shape and a key is a sequence of steps, each one op on the result of the step before:

    slice, flip        what slices and integers select
    transpose, reshape None, dropped axes; the axes that several index arrays share brought together and merged
    take               at integer arrays, several of them as one number on the merged axes

`read` goes forward through them. `ops.assign.write` goes back, and so gives ``x[key] = v``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import EllipsisType
from typing import Any, NamedTuple

import numpy as np

from ..core.aval import broadcast_shapes
from ..core.graph import Tracer
from ..core.primitive import Primitive
from ..errors import DTypeError, FastgradError, OutOfBoundsError, ShapeError, UnsupportedError, user_line
from .comparison import where
from .index import check_bounds, check_index_p, take_p
from .movement import flip_p, slice_p, transpose_p
from .operands import aval, dtype_of, operand, shape_of
from .pointwise import cast
from .shaping import reshape_p


class Step(NamedTuple):
    """One op on the path to an element: its first operand is what the step before gave, ``extra`` are the others."""

    prim: Primitive
    params: dict[str, Any]
    extra: tuple = ()

    def read(self, x: Any) -> Any:
        """The op on ``x``."""
        return self.prim(x, *self.extra, **self.params)


@dataclass(frozen=True)
class Subscript:
    """The path of ``x[key]``. ``is_view``: whether NumPy's result shares the memory of ``x``."""

    steps: tuple[Step, ...]
    is_view: bool


def read(x: Any, steps: Sequence[Step]) -> Any:
    """What stands at the end of the path."""
    for step in steps:
        x = step.read(x)
    return x


def getitem(x: Any, key: Any) -> Any:
    """``x[key]``: integers, traced ones too, slices with any step, None, Ellipsis, integer arrays, static masks.

    Result shapes are NumPy's: the axes of index arrays stand where the first one stood, or first where a slice, None or
    Ellipsis separates them. Basic indexing is slices, flips and a reshape (no copies); index arrays take.
    Raises: `OutOfBoundsError` for a static index outside its axis (a traced one is checked by the run),
    `UnsupportedError` for a traced mask, `DTypeError` for indices that are no integers.

    >>> getitem(np.arange(12).reshape(3, 4), (slice(None, None, -2), np.array([0, 3])))
    array([[ 8, 11],
           [ 0,  3]])
    """
    x = operand(x)
    return read(x, subscript(x, key).steps)


# --- reading the key ------------------------------------------------------------------------------------------------


def subscript(x: Any, key: Any, writing: bool = False) -> Subscript:
    """The path of ``x[key]``; see `getitem` for what a key may hold and for the errors.

    With ``writing`` index arrays are copied now, so that what is known of them (no repeats) stays true.
    """
    given = key if isinstance(key, tuple) else (key,)
    if all(type(i) in _BASIC for i in given):
        plain = tuple((i.start, i.stop, i.step) if type(i) is slice else i for i in given)
        try:
            return _basic(shape_of(x), plain)
        except (FastgradError, TypeError):
            pass  # said below, with the dtype of ``x``
    return _subscript(x, given, writing)


_BASIC = frozenset({int, slice, type(None), EllipsisType})


@lru_cache(maxsize=4096)  # loops over rows ask again and again
def _basic(shape: tuple[int, ...], key: tuple) -> Subscript:
    given = tuple(slice(*i) if isinstance(i, tuple) else i for i in key)
    return _subscript(np.broadcast_to(np.zeros(()), shape), given, False)


def _subscript(x: Any, given: Sequence[Any], writing: bool) -> Subscript:
    items = _expand(x, [_item(x, i) for i in given])
    shape = shape_of(x)
    path = _Path(shape)
    axis = 0
    for item in items:
        if item is None:
            path.result.append((None, 1))
            path.between()
        elif isinstance(item, slice):
            path.slice(axis, item)
            axis += 1
        elif isinstance(item, EllipsisType):
            path.between()
        elif isinstance(item, int):
            path.integer(axis, item, x)
            axis += 1
        else:
            path.array(axis, item, x, writing)
            axis += 1
    return Subscript(tuple(path.steps()), path.is_view(given))


def is_mask(item: Any) -> bool:
    """Whether an item of a key is a boolean mask."""
    return not (item is None or isinstance(item, slice | EllipsisType)) and (
        isinstance(item, bool | np.bool_) or dtype_of(operand(item)).kind == "b"
    )


def _item(x: Any, item: Any) -> Any:
    """One item of a key: None, Ellipsis, a slice, a Python integer, or an array of integers or bools."""
    if item is None or isinstance(item, slice | EllipsisType):
        return item
    if isinstance(item, int | np.integer) and not isinstance(item, bool):
        return operator.index(item)
    item = operand(item)
    if isinstance(item, np.ndarray) and item.dtype.kind == "f" and not item.size:
        item = item.astype(np.int64)  # an empty list
    if is_mask(item):
        if isinstance(item, Tracer) or not shape_of(item):
            raise UnsupportedError(
                f"a boolean mask on {aval(x)}: the result's shape would depend on values",
                hint="np.where(mask, x, 0)",
                at=user_line(),
            )
        return item
    if dtype_of(item).kind not in "iu":
        raise DTypeError(
            f"indices must be integers, got {aval(item)}", hint="i.astype(np.int64)", at=user_line()
        )
    return item


def _expand(x: Any, items: Sequence[Any]) -> list:
    """Masks as the arrays of their places, and the axes that the Ellipsis stands for (it stays before them)."""
    ndim = len(shape_of(x))
    taken = [0 if i is None or i is Ellipsis else i.ndim if _is_static_mask(i) else 1 for i in items]
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise OutOfBoundsError("an index can hold one Ellipsis (...)", at=user_line())
    if sum(taken) > ndim:
        raise OutOfBoundsError(f"too many indices: {sum(taken)} for {aval(x)}", at=user_line())
    at = dots[0] + 1 if dots else len(items)
    expanded: list[Any] = []
    for i, item in enumerate(items):
        if _is_static_mask(item):
            first = sum(taken[:i]) if i < at else ndim - sum(taken[i:])
            expanded += _places(x, item, first)
        else:
            expanded.append(item)
        if i + 1 == at and dots:
            expanded += [slice(None)] * (ndim - sum(taken))
    return expanded if dots else expanded + [slice(None)] * (ndim - sum(taken))


def _is_static_mask(item: Any) -> bool:
    return isinstance(item, np.ndarray) and item.dtype.kind == "b"


def _places(x: Any, mask: np.ndarray, first: int) -> list[np.ndarray]:
    """A static mask as index arrays; it must be as large as the axes that it selects from."""
    if shape_of(x)[first : first + mask.ndim] != mask.shape:
        raise OutOfBoundsError(
            f"a boolean mask must have the shape of the axes that it selects from, got {aval(mask)} on {aval(x)}",
            at=user_line(),
        )
    return list(np.nonzero(mask))


def _forward(item: slice, n: int) -> tuple[int, int, int, int]:
    """start, stop, positive step and size of the elements that ``item`` selects, read from the front."""
    try:
        start, stop, step = item.indices(n)
    except TypeError:
        raise UnsupportedError(
            "the bounds of a slice must be Python integers: shapes are static",
            hint="np.where(mask, x, 0)",
            at=user_line(),
        ) from None
    except ValueError:
        raise OutOfBoundsError("the step of a slice cannot be 0", at=user_line()) from None
    size = len(range(start, stop, step))
    if not size:
        return 0, 0, 1, 0
    first, last = (start, start + (size - 1) * step)[:: 1 if step > 0 else -1]
    return first, last + 1, abs(step), size


# --- the path -------------------------------------------------------------------------------------------------------


class _Path:
    """Collects what each axis of the source goes through, then says it in steps."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape
        self.starts, self.stops, self.strides = [0] * len(shape), list(shape), [1] * len(shape)
        self.flipped: list[int] = []
        self.result: list[
            tuple[int | None, int]
        ] = []  # axis of the source (None: a new one) and size, in order
        self.dropped: list[int] = []
        self.arrays: list[tuple[int, Any]] = []  # axis of the source, its indices
        self.at = 0  # where the axes of index arrays stand in the result
        self.state = "none"  # of the advanced indices: "none" yet, "open" run of them, "closed" run, "apart"

    def between(self) -> None:
        """A slice, None or Ellipsis: it ends a run of advanced indices."""
        if self.state == "open":
            self.state = "closed"

    def advanced(self) -> None:
        if self.state == "none":
            self.state, self.at = "open", len(self.result)
        elif self.state == "closed":
            self.state, self.at = "apart", 0

    def slice(self, axis: int, item: slice) -> None:
        self.between()
        start, stop, step, size = _forward(item, self.shape[axis])
        if item.step is not None and operator.index(item.step) < 0:
            self.flipped.append(axis)
        self.starts[axis], self.stops[axis], self.strides[axis] = start, stop, step
        self.result.append((axis, size))

    def integer(self, axis: int, item: int, x: Any) -> None:
        self.advanced()
        self.dropped.append(axis)
        self.starts[axis] = self._inside(axis, item, x)
        self.stops[axis] = self.starts[axis] + 1

    def _inside(self, axis: int, item: int, x: Any) -> int:
        n = self.shape[axis]
        if not -n <= item < n:
            raise OutOfBoundsError(
                f"index {item} is out of bounds for axis {axis} of {aval(x)}", at=user_line()
            )
        return item % n

    def array(self, axis: int, item: Any, x: Any, writing: bool) -> None:
        if isinstance(item, np.ndarray):
            if not item.ndim:
                self.integer(axis, operator.index(item[()]), x)
                return
            try:
                check_bounds("x[i]", item, self.shape[axis], -self.shape[axis])
            except OutOfBoundsError as error:
                error.message = f"{error.message[6:]} (axis {axis} of {aval(x)})"
                raise OutOfBoundsError(error.message, at=user_line()) from None
            if writing:
                item = np.where(item < 0, item + self.shape[axis], item).astype(np.int64)
        self.advanced()
        self.arrays.append((axis, item))

    def is_view(self, given: Sequence[Any]) -> bool:
        """Index arrays copy, and an element picked by integers alone is a scalar; traced integers count as integers."""
        plain = [i for i in given if isinstance(i, np.ndarray | list)]
        copied = plain or any(shape_of(i) for _, i in self.arrays)
        return not copied and bool(self.result or any(i is Ellipsis for i in given))

    def steps(self) -> list[Step]:
        shape = [n for _, n in self.result]
        steps: list[Step] = []
        if (self.starts, self.stops, self.strides) != (
            [0] * len(self.shape), list(self.shape), [1] * len(self.shape),
        ):  # fmt: skip
            window = {"starts": tuple(self.starts), "stops": tuple(self.stops), "steps": tuple(self.strides)}
            steps.append(Step(slice_p, window))
        if self.flipped:
            steps.append(Step(flip_p, {"axes": tuple(self.flipped)}))
        left = [-(-(b - a) // s) for a, b, s in zip(self.starts, self.stops, self.strides, strict=True)]
        if not self.arrays:
            if left != shape:
                steps.append(Step(reshape_p, {"shape": tuple(shape)}))
            return steps
        return steps + self._advanced_steps(left, shape)

    def _advanced_steps(self, left: list[int], shape: list[int]) -> list[Step]:
        axes = [axis for axis, _ in self.arrays]
        before = [a for a, _ in self.result[: self.at] if a is not None]
        after = [a for a, _ in self.result[self.at :] if a is not None]
        perm = [*before, *axes, *after]
        for axis in self.dropped:  # of size 1: anywhere, and where they are is cheapest
            place = next((i for i, a in enumerate(perm) if a > axis), len(perm))
            perm.insert(place, axis)
        steps: list[Step] = []
        if perm != sorted(perm):
            steps.append(Step(transpose_p, {"perm": tuple(perm)}))
        sizes = [self.shape[a] for a in axes]
        merged = (*shape[: self.at], math.prod(sizes), *shape[self.at :])
        if tuple(left[p] for p in perm) != merged:
            steps.append(Step(reshape_p, {"shape": merged}))
        indices = self.arrays[0][1] if len(axes) == 1 else _linear(sizes, [i for _, i in self.arrays])
        return [*steps, Step(take_p, {"axis": self.at}, (indices,))]


def _linear(sizes: Sequence[int], arrays: Sequence[Any]) -> Any:
    """Several index arrays as one, on their axes merged in C order; each is checked against its own axis."""
    try:
        broadcast_shapes("x[i, j]", *(aval(i) for i in arrays))
    except ShapeError as error:
        raise ShapeError(f"{error.message} as indices", at=user_line()) from None
    total: Any = None
    for n, indices in zip(sizes, arrays, strict=True):
        if isinstance(indices, np.ndarray):
            inside = np.where(indices < 0, indices + n, indices).astype(np.int64)
        else:
            wide = cast(indices, np.dtype(np.int64))
            inside = check_index_p(where(wide < 0, wide + n, wide), size=n)
        total = inside if total is None else total * n + inside
    return total


# --- paths in general -----------------------------------------------------------------------------------------------


def shape_after(step: Step, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of what a step gives for an operand of ``shape``."""
    p = step.params
    if step.prim is slice_p:
        return tuple(-(-(b - a) // s) for a, b, s in zip(p["starts"], p["stops"], p["steps"], strict=True))
    if step.prim is transpose_p:
        return tuple(shape[i] for i in p["perm"])
    if step.prim is reshape_p:
        return p["shape"]
    if step.prim is take_p:
        axis = p["axis"]
        return (*shape[:axis], *shape_of(step.extra[0]), *shape[axis + 1 :])
    return shape
