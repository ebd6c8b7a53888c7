"""``x[key] = v`` as a function: the array with the window that ``key`` selects written to, everything else as it was.

A path (`ops.subscript`) is written backwards. With ``y1 = step1(x)``, ``y2 = step2(y1)``, to write ``v`` where ``y2``
stands is

    new1 = put(step2, y1, v)          reshape, transpose, flip: their inverse, of v
    newx = put(step1, x, new1)        slice: update_slice;  take: scatter

`compose` first brings all slices of a path to its front and makes them one, so that a write through views of views
touches the elements that change, not the window around them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import numpy as np

from ..core.graph import Literal, Tracer
from ..errors import ShapeError, UnsupportedError, user_line
from .comparison import where
from .elementwise import maximum, minimum, multiply
from .index import take_p
from .movement import flip_p, slice_p, transpose_p
from .operands import aval, dtype_of, operand, shape_of
from .pointwise import convert
from .scatter import repeats, scatter_p
from .shaping import broadcast_to_p, filled, reshape_p
from .subscript import Step, is_mask, read, shape_after, subscript
from .window import update_slice_p

_COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, v: x + v,
    "mul": multiply,
    "max": maximum,
    "min": minimum,
}


def assign(x: Any, key: Any, value: Any, mode: str = "set") -> Any:
    """A new array: ``x`` after ``x[key] = value``, or after ``value`` was added, multiplied, ... into ``x[key]``.

    Args: ``key`` as `subscript.getitem` takes, and a traced mask (alone, or with a single number as ``value``).
    ``mode`` set, add, mul, max or min. Where an index repeats, "set" keeps the last value and the others apply each, in
    C order of the indices. ``value`` is cast to x's dtype and broadcast to the window, as NumPy does on assignment.
    Raises: `ShapeError` for a value that does not broadcast, errors of keys as `getitem`.

    >>> assign(np.zeros(3), np.array([0, 2, 0]), 1.0, "add")
    array([2., 0., 1.])
    """
    x = operand(x)
    items = key if isinstance(key, tuple) else (key,)
    if any(is_mask(i) and isinstance(i, Tracer) for i in items):
        return _masked(x, items, value, mode)
    return write(x, subscript(x, key, writing=True).steps, value, mode)


def write(x: Any, path: Sequence[Step], value: Any, mode: str = "set") -> Any:
    """``x`` with ``value``, cast and broadcast, written where ``path`` leads."""
    steps = compose(path, shape_of(x))
    shapes = [shape_of(x)]
    for step in steps:
        shapes.append(shape_after(step, shapes[-1]))
    new = fit(value, shapes[-1], x)
    read_so_far: list[Any] = [x]  # what the steps give before the write: only as far as it is needed
    if mode != "set" and not any(s.prim is slice_p or s.prim is take_p for s in steps):
        new, mode = _COMBINE[mode](read(x, steps), new), "set"
    for i in reversed(range(len(steps))):
        step = steps[i]
        inverse = _INVERSES.get(step.prim)
        if inverse is not None:
            new = inverse(new, step, shapes[i])
            continue
        while len(read_so_far) <= i:
            read_so_far.append(steps[len(read_so_far) - 1].read(read_so_far[-1]))
        new, mode = _put(step, read_so_far[i], new, mode), "set"
    if isinstance(x, Tracer) and not isinstance(new, Tracer):
        return where(np.True_, new, x)  # an array took the place of all: traced from here on
    return new


def _put(step: Step, x: Any, new: Any, mode: str) -> Any:
    if step.prim is take_p:
        (indices,) = step.extra
        axis = step.params["axis"]
        return scatter_p(x, indices, new, axis=axis, mode=mode, unique=not repeats(indices))
    starts, steps = step.params["starts"], step.params["steps"]
    if mode not in ("set", "add"):
        new, mode = _COMBINE[mode](step.read(x), new), "set"
    return update_slice_p(x, new, starts=starts, steps=steps, mode=mode)


_INVERSES: dict[Any, Callable[[Any, Step, tuple[int, ...]], Any]] = {
    reshape_p: lambda new, step, shape: reshape_p(new, shape=shape),
    flip_p: lambda new, step, shape: flip_p(new, **step.params),
    transpose_p: lambda new, step, shape: transpose_p(
        new, perm=tuple(step.params["perm"].index(i) for i in range(len(shape)))
    ),
}


def fit(value: Any, shape: tuple[int, ...], x: Any) -> Any:
    """``value`` in the dtype of ``x`` and of ``shape``, as NumPy fits what is assigned: leading axes of 1 may go."""
    value = operand(value)
    have = shape_of(value)
    extra = len(have) - len(shape)
    if extra > 0 and all(n == 1 for n in have[:extra]):
        value, have = reshape_p(value, shape=have[extra:]), have[extra:]
    fits = len(have) <= len(shape) and all(
        n in (1, m) for n, m in zip(have, shape[len(shape) - len(have) :], strict=True)
    )
    if not fits:
        window = f"{str(aval(x)).partition('[')[0]}[{','.join(map(str, shape))}]"
        raise ShapeError(
            f"x[i] = v: {aval(value)} does not broadcast to the window {window} of {aval(x)}",
            hint="v.reshape, or v[..., None]" if have else None,
            at=user_line(),
        )
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
        aval(value)  # says which dtype
    value = convert(value, dtype_of(x))
    if have == shape and not isinstance(value, Literal):
        return value
    return filled(x, shape, value.value) if isinstance(value, Literal) else broadcast_to_p(value, shape=shape)


# --- traced masks ---------------------------------------------------------------------------------------------------


def _masked(x: Any, items: Sequence[Any], value: Any, mode: str) -> Any:
    """``x[mask] = v`` where the mask is traced: a choice at each place, as how many places it has is not known."""
    plain = all(
        i is None or isinstance(i, slice | EllipsisType | int | np.integer) or is_mask(i) for i in items
    )
    masks = [i for i in items if is_mask(i)]
    value = operand(value)
    if not plain or len(masks) > 1 or not shape_of(masks[0]) or (len(items) > 1 and shape_of(value)):
        raise UnsupportedError(
            f"x[mask] = v with a traced mask {aval(masks[0])}: the mask stands alone, or v is one number",
            hint="np.where(mask, v, x)",
            at=user_line(),
        )
    mask = masks[0]
    ndim, at = len(shape_of(mask)), next(i for i, item in enumerate(items) if item is mask)
    whole = (*items[:at], *[slice(None)] * ndim, *items[at + 1 :])
    steps = subscript(x, whole).steps
    window = read(x, steps)
    first = _axis_of(mask, x, window, items, at)
    have = shape_of(window)
    if have[first : first + ndim] != shape_of(mask):
        raise ShapeError(
            f"x[mask] = v: a mask must have the shape of the axes that it selects from, got {aval(mask)} on {aval(x)}",
            at=user_line(),
        )
    rest = have[first + ndim :]
    if len(items) == 1 and len(shape_of(value)) > len(rest):
        value = _without_count(value, rest, mask)
    new = fit(value, (*(1,) * (len(have) - len(rest)), *rest), x)
    if mode != "set":
        new = _COMBINE[mode](window, new)
    chosen = reshape_p(mask, shape=(*(1,) * first, *shape_of(mask), *(1,) * len(rest)))
    return write(x, steps, where(chosen, new, window))


def _axis_of(mask: Any, x: Any, window: Any, items: Sequence[Any], at: int) -> int:
    """Where the axes of the mask stand in the window."""
    if any(i is Ellipsis for i in items[:at]):
        behind = sum(not isinstance(i, int | np.integer) for i in items[at + 1 :])
        return len(shape_of(window)) - behind - len(shape_of(mask))
    return sum(not isinstance(i, int | np.integer) for i in items[:at])


def _without_count(value: Any, rest: tuple[int, ...], mask: Any) -> Any:
    """A value with an axis for the chosen places: only 1 fits them, however many there are."""
    have = shape_of(value)
    if len(have) != len(rest) + 1 or have[0] != 1:
        raise UnsupportedError(
            f"x[mask] = v with a traced mask {aval(mask)}: how many values {aval(value)} must hold is not known",
            hint="np.where(mask, v, x) with v of the shape of x",
            at=user_line(),
        )
    return reshape_p(value, shape=have[1:])


# --- composing a path -----------------------------------------------------------------------------------------------


def compose(path: Sequence[Step], shape: tuple[int, ...]) -> list[Step]:
    """The same elements by a path that slices first, as far as that can be: slices pass what only names axes anew.

    transpose, flip, reshape that adds or drops axes of 1; slice before slice is one. Then what cancels goes.
    """
    if sum(s.prim is slice_p for s in path) == 0 or (path[0].prim is slice_p and len(path) < 3):
        return list(path)
    steps: list[Step] = []
    shapes = [shape]
    for step in path:
        if step.prim is slice_p:
            at = len(steps)
            moved: list[Step] = []  # the steps that the slice passed, as they are behind it
            while at:
                passed = _pass(steps[at - 1], step, shapes[at - 1])
                if passed is None:
                    break
                step, behind = passed
                at -= 1
                if behind is not None:
                    moved.insert(0, behind)
            steps = [*steps[:at], step, *moved]
        else:
            steps.append(step)
        shapes = [shape]
        for each in steps:
            shapes.append(shape_after(each, shapes[-1]))
    return steps


def _pass(first: Step, window: Step, shape: tuple[int, ...]) -> tuple[Step, Step | None] | None:
    """``window`` of ``first`` of an operand of ``shape``, with the slice done first; None where that cannot be."""
    starts, steps = window.params["starts"], window.params["steps"]
    sizes = shape_after(window, ())
    if first.prim is slice_p:
        a, b = first.params["starts"], first.params["steps"]
        start = tuple(x + y * s for x, y, s in zip(a, starts, b, strict=True))
        step = tuple(s * t for s, t in zip(b, steps, strict=True))
        start = tuple(s if n else 0 for s, n in zip(start, sizes, strict=True))
        return _slice(start, step, sizes), None
    if first.prim is transpose_p:
        back = [first.params["perm"].index(i) for i in range(len(shape))]
        new = _slice(*(tuple(v[b] for b in back) for v in (starts, steps, sizes)))
        return new, first
    if first.prim is flip_p:
        axes = first.params["axes"]
        start = tuple(
            (shape[i] - 1 - (s + (n - 1) * t) if n else 0) if i in axes else s
            for i, (s, t, n) in enumerate(zip(starts, steps, sizes, strict=True))
        )
        return _slice(start, steps, sizes), first
    if first.prim is reshape_p:
        to = first.params["shape"]
        old, new_axes = [i for i, n in enumerate(shape) if n != 1], [i for i, n in enumerate(to) if n != 1]
        units = all(sizes[i] == 1 for i, n in enumerate(to) if n == 1)
        if not units or [shape[i] for i in old] != [to[i] for i in new_axes]:
            return None
        at = dict(zip(old, new_axes, strict=True))
        start, step, size = (
            tuple(v[at[i]] if i in at else other for i in range(len(shape)))
            for v, other in ((starts, 0), (steps, 1), (sizes, 1))
        )
        return _slice(start, step, size), Step(reshape_p, {"shape": sizes})
    return None


def _slice(starts: tuple[int, ...], steps: tuple[int, ...], sizes: tuple[int, ...]) -> Step:
    stops = tuple(s + (n - 1) * t + 1 if n else s for s, t, n in zip(starts, steps, sizes, strict=True))
    return Step(slice_p, {"starts": starts, "stops": stops, "steps": steps})
