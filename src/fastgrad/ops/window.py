"""Writing into a window of an array: the op behind ``x[1:3] = v``, and the cheap transpose of a slice.

update_slice[starts,steps,mode](x, u)     y = x, but y[window] = u      (mode "set")
                                          y = x, but y[window] += u     (mode "add")

The window begins at ``starts``, goes on by ``steps`` (all positive) and is as large as ``u``. Compiled, an operand that
nobody reads later is written over in place, so that filling an array of n rows costs n rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.aval import Aval
from ..core.loops import Library
from ..core.primitive import Primitive
from ..errors import DTypeError, ShapeError
from .movement import slice_p
from .operands import shape_of
from .shaping import broadcast_to_p, filled

# --- update_slice[starts,steps,mode] --------------------------------------------------------------------------------


def window_stops(starts: Sequence[int], steps: Sequence[int], sizes: Sequence[int]) -> tuple[int, ...]:
    """Where a window of ``sizes`` elements ends, as `slice_p` counts."""
    return tuple(
        start + (n - 1) * step + 1 if n else start
        for start, step, n in zip(starts, steps, sizes, strict=True)
    )


def _update_rule(x: Aval, u: Aval, *, starts: tuple[int, ...], steps: tuple[int, ...], mode: str) -> Aval:
    if not len(starts) == len(steps) == x.ndim == u.ndim or any(s < 1 for s in steps):
        raise ShapeError(f"update_slice: wants a start and a positive step for each axis of {x}, got {u}")
    stops = window_stops(starts, steps, u.shape)
    if any(not 0 <= a <= b <= n for a, b, n in zip(starts, stops, x.shape, strict=True)):
        raise ShapeError(f"update_slice: a window of {u} at {list(starts)} lies outside {x}")
    if x.dtype != u.dtype:
        raise DTypeError(f"update_slice: dtypes must be equal, got {x} and {u}")
    if mode == "add" and x.dtype.kind == "b":
        raise DTypeError(f"update_slice: cannot add up {x} in bool")
    return Aval(x.shape, x.dtype, x.weak and u.weak)


def _update_reference(
    x: Any, u: Any, *, starts: Sequence[int], steps: Sequence[int], mode: str
) -> np.ndarray:
    out = np.array(x)
    window = tuple(map(slice, starts, window_stops(starts, steps, np.shape(u)), steps))
    if mode == "add":
        out[window] += u
    else:
        out[window] = u
    return out


def _window(x: Any, u: Any, starts: tuple[int, ...], steps: tuple[int, ...]) -> Any:
    return slice_p(x, starts=starts, stops=window_stops(starts, steps, shape_of(u)), steps=steps)


def _update_vjp(ct: Any, out: Any, x: Any, u: Any, *, starts: Any, steps: Any, mode: str) -> tuple:
    inside = _window(ct, u, starts, steps)  # read first: then nobody reads ``ct`` after it was written over
    if mode == "add":
        return ct, inside
    zeros = filled(ct, shape_of(u), 0)
    return update_slice_p(ct, zeros, starts=starts, steps=steps, mode="set"), inside


def _update_jvp(tangents: Sequence[Any], out: Any, x: Any, u: Any, **params: Any) -> Any:
    tx, tu = tangents
    given = tu if tx is None else tx
    tx = filled(given, shape_of(x), 0) if tx is None else tx
    if tu is None and params["mode"] == "add":
        return tx
    return update_slice_p(tx, filled(given, shape_of(u), 0) if tu is None else tu, **params)


def _update_batch(args: Sequence[Any], batched: Sequence[bool], *, starts: Any, steps: Any, mode: str) -> Any:
    count = next(shape_of(a)[0] for a, b in zip(args, batched, strict=True) if b)
    x, u = (
        a if b else broadcast_to_p(a, shape=(count, *shape_of(a))) for a, b in zip(args, batched, strict=True)
    )
    return update_slice_p(x, u, starts=(0, *starts), steps=(1, *steps), mode=mode)


update_slice_p = Primitive(
    "update_slice",
    abstract=_update_rule,
    reference=_update_reference,
    vjp=_update_vjp,
    jvp=_update_jvp,
    batch=_update_batch,
    kernel=Library("update_slice"),
)


def update_slice(x: Any, u: Any, starts: Sequence[int], steps: Sequence[int] | None = None) -> Any:
    """``x`` with the window that begins at ``starts`` (and goes on by ``steps``, 1 by default) replaced by ``u``.

    Args: u of x's dtype and rank; starts and steps, one for each axis. Raises: `ShapeError` for a window outside ``x``.

    >>> update_slice(np.zeros(4), np.ones(2), (1,))
    array([0., 1., 1., 0.])
    """
    sizes = (1,) * len(shape_of(x)) if steps is None else tuple(steps)
    return update_slice_p(x, u, starts=tuple(starts), steps=sizes, mode="set")
