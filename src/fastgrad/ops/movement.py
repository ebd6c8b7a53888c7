"""Ops that move elements and compute nothing. All are linear: a tangent moves as its value does.

transpose[perm]  slice[starts,stops,steps]  flip[axes]     views: strides, no copy where strides can say it
pad[lo,hi,interior]                                                         the transpose of slice
concatenate[axis]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.aval import Aval
from ..core.loops import Layout, Library, View
from ..core.primitive import Primitive
from ..errors import DTypeError, ShapeError, user_line
from .operands import aval, normalize_axes, normalize_axis, operand, shape_of
from .shaping import broadcast_to_p, filled, linear_jvp, reshape, reshape_p

# --- reshape, by other names ---------------------------------------------------------------------------------------


def ravel(x: Any) -> Any:
    """``x`` as a vector, in C order."""
    return reshape(x, -1) if aval(operand(x)).size else reshape(x, 0)


def expand_dims(x: Any, axis: Any) -> Any:
    """``x`` with new axes of size 1 at the positions ``axis`` of the result.

    >>> expand_dims(np.zeros(3), 0).shape
    (1, 3)
    """
    x = operand(x)
    count = len(axis) if isinstance(axis, tuple | list) else 1
    ndim = len(shape_of(x)) + count
    new, old = normalize_axes("expand_dims", axis, ndim), iter(shape_of(x))
    return reshape_p(x, shape=tuple(1 if i in new else next(old) for i in range(ndim)))


def squeeze(x: Any, axis: Any = None) -> Any:
    """``x`` without the axes ``axis``, which must have size 1 (all such axes when None).

    Raises: `ShapeError` for an axis of another size.
    """
    x = operand(x)
    shape = shape_of(x)
    axes = (
        tuple(i for i, n in enumerate(shape) if n == 1)
        if axis is None
        else normalize_axes("squeeze", axis, len(shape))
    )
    if any(shape[i] != 1 for i in axes):
        raise ShapeError(
            f"squeeze: only axes of size 1 can go, got {aval(x)} with axis={axis}", at=user_line()
        )
    return reshape_p(x, shape=tuple(n for i, n in enumerate(shape) if i not in axes))


# --- transpose[perm] ------------------------------------------------------------------------------------------------


def _transpose_rule(x: Aval, *, perm: tuple[int, ...]) -> Aval:
    if sorted(perm) != list(range(x.ndim)):
        raise ShapeError(f"transpose: axes {list(perm)} are no permutation of the axes of {x}")
    return Aval(tuple(x.shape[p] for p in perm), x.dtype, x.weak)


def _inverse(perm: Sequence[int]) -> tuple[int, ...]:
    return tuple(perm.index(i) for i in range(len(perm)))


transpose_p = Primitive(
    "transpose",
    abstract=_transpose_rule,
    reference=lambda x, *, perm: np.asarray(x).transpose(perm),
    vjp=lambda ct, out, x, *, perm: (transpose_p(ct, perm=_inverse(perm)),),
    jvp=linear_jvp(lambda: transpose_p),
    batch=lambda args, batched, *, perm: transpose_p(args[0], perm=(0, *(p + 1 for p in perm))),
    kernel=View(lambda layout, out, *, perm: layout.transpose(perm)),
)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    """``x`` with its axes in the order ``axes`` (reversed when None).

    >>> transpose(np.zeros((2, 3, 4)), (1, 0, 2)).shape
    (3, 2, 4)
    """
    x = operand(x)
    ndim = len(shape_of(x))
    given = reversed(range(ndim)) if axes is None else axes
    return transpose_p(x, perm=tuple(normalize_axis("transpose", a, ndim) for a in given))


def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """``x`` with two of its axes exchanged."""
    x = operand(x)
    perm = list(range(len(shape_of(x))))
    i, j = (normalize_axis("swapaxes", a, len(perm)) for a in (axis1, axis2))
    perm[i], perm[j] = j, i
    return transpose_p(x, perm=tuple(perm))


def moveaxis(x: Any, source: Any, destination: Any) -> Any:
    """``x`` with the axes ``source`` moved to ``destination``, the others in their order.

    >>> moveaxis(np.zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    x = operand(x)
    ndim = len(shape_of(x))
    sources, targets = (
        [normalize_axis("moveaxis", a, ndim) for a in (v if isinstance(v, tuple | list) else (v,))]
        for v in (source, destination)
    )
    if len(sources) != len(targets) or len(set(sources)) < len(sources) or len(set(targets)) < len(targets):
        raise ShapeError(f"moveaxis: axes do not pair up, got {source} and {destination}", at=user_line())
    perm = [i for i in range(ndim) if i not in sources]
    for target, moved in sorted(zip(targets, sources, strict=True)):
        perm.insert(target, moved)
    return transpose_p(x, perm=tuple(perm))


# --- slice[starts,stops,steps] --------------------------------------------------------------------------------------


def _slice_rule(x: Aval, *, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]) -> Aval:
    if not len(starts) == len(stops) == len(steps) == x.ndim or any(s < 1 for s in steps):
        raise ShapeError(f"slice: wants a start, a stop and a positive step for each axis of {x}")
    if any(not 0 <= a <= b <= n for a, b, n in zip(starts, stops, x.shape, strict=True)):
        raise ShapeError(f"slice: [{list(starts)}:{list(stops)}] lies outside {x}")
    return Aval(
        tuple(-(-(b - a) // s) for a, b, s in zip(starts, stops, steps, strict=True)), x.dtype, x.weak
    )


def _slice_reference(x: Any, *, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int]) -> Any:
    return np.asarray(x)[tuple(map(slice, starts, stops, steps))]


def _slice_vjp(ct: Any, out: Any, x: Any, *, starts: Any, stops: Any, steps: Any) -> tuple:
    kept = [(n - 1) * step + 1 if n else 0 for n, step in zip(shape_of(ct), steps, strict=True)]
    hi = tuple(n - a - k for n, a, k in zip(shape_of(x), starts, kept, strict=True))
    return (pad_p(ct, lo=starts, hi=hi, interior=tuple(s - 1 for s in steps)),)


slice_p = Primitive(
    "slice",
    abstract=_slice_rule,
    reference=_slice_reference,
    vjp=_slice_vjp,
    jvp=linear_jvp(lambda: slice_p),
    batch=lambda args, batched, *, starts, stops, steps: slice_p(
        args[0], starts=(0, *starts), stops=(shape_of(args[0])[0], *stops), steps=(1, *steps)
    ),
    kernel=View(lambda layout, out, *, starts, stops, steps: layout.slice(starts, stops, steps)),
)


def slice_axis(x: Any, axis: int, start: int, stop: int) -> Any:
    """``x[start:stop]`` along one axis, ``0 <= start <= stop <= size``."""
    shape = shape_of(x)
    starts, stops = [0] * len(shape), list(shape)
    starts[axis], stops[axis] = start, stop
    return slice_p(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * len(shape))


# --- flip[axes] -----------------------------------------------------------------------------------------------------


def _flip_rule(x: Aval, *, axes: tuple[int, ...]) -> Aval:
    if any(not 0 <= a < x.ndim for a in axes):
        raise ShapeError(f"flip: axes {list(axes)} are not all axes of {x}")
    return x


def _flip_layout(layout: Layout, out: tuple[int, ...], *, axes: tuple[int, ...]) -> Layout:
    sizes = list(enumerate(layout.shape))
    return layout.slice(
        [n - 1 if i in axes else 0 for i, n in sizes],
        [-1 if i in axes else n for i, n in sizes],
        [-1 if i in axes else 1 for i, n in sizes],
    )


flip_p = Primitive(
    "flip",
    abstract=_flip_rule,
    reference=lambda x, *, axes: np.flip(x, axes),
    vjp=lambda ct, out, x, *, axes: (flip_p(ct, axes=axes),),
    jvp=linear_jvp(lambda: flip_p),
    batch=lambda args, batched, *, axes: flip_p(args[0], axes=tuple(a + 1 for a in axes)),
    kernel=View(_flip_layout),
)


def flip(x: Any, axis: Any = None) -> Any:
    """``x`` with the elements along ``axis`` (all axes when None) in reverse order."""
    x = operand(x)
    return flip_p(x, axes=normalize_axes("flip", axis, len(shape_of(x))))


# --- pad[lo,hi,interior] --------------------------------------------------------------------------------------------


def _pad_rule(x: Aval, *, lo: tuple[int, ...], hi: tuple[int, ...], interior: tuple[int, ...]) -> Aval:
    if not len(lo) == len(hi) == len(interior) == x.ndim or any(n < 0 for n in (*lo, *hi, *interior)):
        raise ShapeError(
            f"pad: wants widths of 0 or more for each axis of {x}, got {list(lo)} and {list(hi)}"
        )
    sizes = zip(lo, x.shape, hi, interior, strict=True)
    return Aval(tuple(a + n + max(n - 1, 0) * between + b for a, n, b, between in sizes), x.dtype, x.weak)


def _pad_reference(x: Any, *, lo: Sequence[int], hi: Sequence[int], interior: Sequence[int]) -> np.ndarray:
    x = np.asarray(x)
    out = np.zeros(_pad_rule(Aval(x.shape, x.dtype), lo=lo, hi=hi, interior=interior).shape, x.dtype)  # type: ignore[arg-type]
    out[
        tuple(
            slice(a, out.shape[i] - b, between + 1)
            for i, (a, b, between) in enumerate(zip(lo, hi, interior, strict=True))
        )
    ] = x
    return out


def _pad_vjp(ct: Any, out: Any, x: Any, *, lo: Any, hi: Any, interior: Any) -> tuple:
    stops = tuple(n - b for n, b in zip(shape_of(ct), hi, strict=True))
    return (slice_p(ct, starts=lo, stops=stops, steps=tuple(n + 1 for n in interior)),)


pad_p = Primitive(
    "pad",
    abstract=_pad_rule,
    reference=_pad_reference,
    vjp=_pad_vjp,
    jvp=linear_jvp(lambda: pad_p),
    batch=lambda args, batched, *, lo, hi, interior: pad_p(
        args[0], lo=(0, *lo), hi=(0, *hi), interior=(0, *interior)
    ),
    kernel=Library("pad"),
)


# --- concatenate[axis] ----------------------------------------------------------------------------------------------


def _concatenate_rule(*avals: Aval, axis: int) -> Aval:
    if not avals:
        raise ShapeError("concatenate: wants at least one array")
    first = avals[0]
    if not 0 <= axis < first.ndim:
        raise ShapeError(
            f"concatenate: axis {axis} is out of bounds, got {_list(avals)}",
            hint="x[None]" if not first.ndim else None,
        )
    others = first.shape[:axis] + first.shape[axis + 1 :]
    if any(a.ndim != first.ndim or a.shape[:axis] + a.shape[axis + 1 :] != others for a in avals):
        raise ShapeError(f"concatenate: all axes but axis {axis} must match, got {_list(avals)}")
    if any(a.dtype != first.dtype for a in avals):
        raise DTypeError(f"concatenate: dtypes must be equal, got {_list(avals)}")
    size = sum(a.shape[axis] for a in avals)
    return Aval(
        (*first.shape[:axis], size, *first.shape[axis + 1 :]), first.dtype, all(a.weak for a in avals)
    )


def _list(avals: Sequence[Aval]) -> str:
    return ", ".join(map(str, avals))


def _concatenate_vjp(ct: Any, out: Any, *xs: Any, axis: int) -> list:
    cts, start = [], 0
    for x in xs:
        stop = start + shape_of(x)[axis]
        cts.append(slice_axis(ct, axis, start, stop))
        start = stop
    return cts


def _concatenate_jvp(tangents: Sequence[Any], out: Any, *xs: Any, axis: int) -> Any:
    given = next(t for t in tangents if t is not None)
    zeros = (filled(given, shape_of(x), 0) if t is None else t for t, x in zip(tangents, xs, strict=True))
    return concatenate_p(*zeros, axis=axis)


def _concatenate_batch(args: Sequence[Any], batched: Sequence[bool], *, axis: int) -> Any:
    size = next(shape_of(x)[0] for x, b in zip(args, batched, strict=True) if b)
    full = [
        x if b else broadcast_to_p(x, shape=(size, *shape_of(x))) for x, b in zip(args, batched, strict=True)
    ]
    return concatenate_p(*full, axis=axis + 1)


concatenate_p = Primitive(
    "concatenate",
    abstract=_concatenate_rule,
    reference=lambda *xs, axis: np.concatenate(xs, axis),
    vjp=_concatenate_vjp,
    jvp=_concatenate_jvp,
    batch=_concatenate_batch,
    kernel=Library("concatenate"),
)
