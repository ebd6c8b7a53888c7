"""Writing at integer indices, any of which may repeat: ``x[i] = v``, ``np.add.at(x, i, v)`` and their kin.

scatter[axis,mode,unique](x, i, u)     y = x, then for each j in C order of i:  y[i_j] = u_j, or y[i_j] op= u_j

along ``axis``; the axes of ``i`` stand at ``axis`` of ``u``. ``mode`` is set, add, mul, max or min. One order on every
backend and at any number of threads, hence the same bits; with "set" the last write to a place wins, as in NumPy.
``unique`` says that no index repeats (known for indices that are NumPy arrays), which makes derivatives cheaper.

Derivatives. set: of what was written last (an element written over has none). add: of the operand and of all updates.
mul: the product of all other factors. max, min: shared evenly among equal winners, the operand among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.aval import Aval
from ..core.loops import Library
from ..core.primitive import Primitive
from ..errors import DTypeError, OutOfBoundsError, ShapeError
from .comparison import where
from .index import check_bounds, check_integers, in_blocks, scatter_add_p, take_p
from .movement import moveaxis
from .operands import dtype_of, shape_of
from .pointwise import cast
from .shaping import broadcast_to_p, filled, reshape_p

MODES = ("set", "add", "mul", "max", "min")
_UFUNCS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}

# --- scatter[axis,mode,unique] --------------------------------------------------------------------------------------


def _scatter_rule(x: Aval, indices: Aval, u: Aval, *, axis: int, mode: str, unique: bool) -> Aval:
    check_integers("scatter", indices)
    if not 0 <= axis < x.ndim or mode not in MODES:
        raise ShapeError(f"scatter: axis {axis} of {x}, mode {mode!r}")
    if x.shape[:axis] + indices.shape + x.shape[axis + 1 :] != u.shape:
        raise ShapeError(f"scatter: {u} does not fit {x} at {indices} along axis {axis}")
    if x.dtype != u.dtype:
        raise DTypeError(f"scatter: dtypes must be equal, got {x} and {u}")
    if x.dtype.kind == "b" and mode in ("add", "mul"):
        raise DTypeError(f"scatter: does not {mode} in bool, got {x}")
    if x.shape[axis] == 0 and indices.size:
        raise OutOfBoundsError(f"scatter: cannot write to an empty axis, got {x} at {indices}")
    return Aval(x.shape, x.dtype, x.weak and u.weak)


def _scatter_reference(x: Any, indices: Any, u: Any, *, axis: int, mode: str, unique: bool) -> np.ndarray:
    size = np.shape(x)[axis]
    indices = check_bounds("scatter", indices, size, -size)
    out = np.array(x)
    rows, values = np.moveaxis(out, axis, 0), np.asarray(u)
    n = indices.ndim
    # Indices first on both sides: then NumPy goes through them in C order.
    values = np.moveaxis(values, range(axis, axis + n), range(n))
    if mode != "set":
        _UFUNCS[mode].at(rows, indices, values)
    elif unique:
        rows[indices] = values
    else:
        last = {int(row): at for at, row in enumerate(np.where(indices < 0, indices + size, indices).flat)}
        if last:
            rows[list(last)] = values.reshape(indices.size, *rows.shape[1:])[list(last.values())]
    return out


def _winners(x: Any, indices: Any, u: Any, axis: int) -> Any:
    """Which updates are the last to their place, with the shape of ``indices``; by the same scatter, of numbers."""
    shape, size = shape_of(indices), shape_of(x)[axis]
    order = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
    none = filled(x, (size,), -1, np.dtype(np.int64))
    last = scatter_p(none, indices, order, axis=0, mode="set", unique=False)
    return take_p(last, indices, axis=0) == order


def _beside(mask: Any, u: Any, axis: int) -> Any:
    """``mask``, shaped as the indices, to broadcast against the updates."""
    after = len(shape_of(u)) - axis - len(shape_of(mask))
    return reshape_p(mask, shape=(*shape_of(mask), *(1,) * after))


def _others(x: Any, indices: Any, u: Any, axis: int) -> Any:
    """For each factor the product of all others that go to its place, its own taken out; zeros counted apart."""
    size = shape_of(x)[axis]
    ones = filled(x, shape_of(x), 1)
    zero = u == 0
    counts = take_p(scatter_add_p(cast(zero, dtype_of(u)), indices, axis=axis, size=size), indices, axis=axis)
    nonzero = where(zero, 1, u)
    product = take_p(
        scatter_p(ones, indices, nonzero, axis=axis, mode="mul", unique=False), indices, axis=axis
    )
    return where(counts == cast(zero, dtype_of(u)), product / nonzero, 0)


def _weights(out: Any, x: Any, indices: Any, u: Any, axis: int, mode: str, unique: bool) -> tuple[Any, Any]:
    """d out / d x and d out / d u of the modes in which they are a factor each: mul, max, min."""
    if mode == "mul":
        ones = filled(x, shape_of(x), 1)
        factor = scatter_p(ones, indices, u, axis=axis, mode="mul", unique=unique)
        mine = take_p(x, indices, axis=axis)
        return factor, mine if unique else mine * _others(x, indices, u, axis)
    best = take_p(out, indices, axis=axis)
    kept, won = cast(x == out, dtype_of(x)), cast(u == best, dtype_of(u))
    winners = kept + scatter_add_p(won, indices, axis=axis, size=shape_of(x)[axis])
    share = 1 / where(winners == 0, 1, winners)  # none where the result is NaN
    return kept * share, won * take_p(share, indices, axis=axis)


def _scatter_vjp(ct: Any, out: Any, x: Any, i: Any, u: Any, *, axis: int, mode: str, unique: bool) -> tuple:
    mine = take_p(ct, i, axis=axis)
    if mode == "add":
        return ct, None, mine
    if mode == "set":
        zeros = filled(ct, shape_of(u), 0)
        if not unique:
            mine = where(_beside(_winners(x, i, u, axis), u, axis), mine, 0)
        return scatter_p(ct, i, zeros, axis=axis, mode="set", unique=unique), None, mine
    wx, wu = _weights(out, x, i, u, axis, mode, unique)
    return ct * wx, None, mine * wu


def _scatter_jvp(tangents: Sequence[Any], out: Any, x: Any, i: Any, u: Any, **params: Any) -> Any:
    tx, _, tu = tangents
    given = tu if tx is None else tx
    axis, mode, unique = params["axis"], params["mode"], params["unique"]
    if mode in ("set", "add"):
        tx = filled(given, shape_of(x), 0) if tx is None else tx
        return scatter_p(tx, i, filled(given, shape_of(u), 0) if tu is None else tu, **params)
    wx, wu = _weights(out, x, i, u, axis, mode, unique)
    moved = None if tu is None else scatter_add_p(tu * wu, i, axis=axis, size=shape_of(x)[axis])
    kept = None if tx is None else tx * wx
    return moved if kept is None else kept if moved is None else kept + moved


def _scatter_batch(
    args: Sequence[Any], batched: Sequence[bool], *, axis: int, mode: str, unique: bool
) -> Any:
    count = next(shape_of(a)[0] for a, b in zip(args, batched, strict=True) if b)
    full = [
        a if b or k == 1 else broadcast_to_p(a, shape=(count, *shape_of(a)))
        for k, (a, b) in enumerate(zip(args, batched, strict=True))
    ]
    x, indices, u = full
    if not batched[1]:
        return scatter_p(x, indices, u, axis=axis + 1, mode=mode, unique=unique)
    # Element b of the batch writes to its own block of one long axis.
    rows = moveaxis(x, axis + 1, 1)
    _, size, *rest = shape_of(rows)
    n = len(shape_of(indices)) - 1
    values = moveaxis(u, tuple(range(1 + axis, 1 + axis + n)), tuple(range(1, 1 + n)))
    out = scatter_p(
        reshape_p(rows, shape=(count * size, *rest)), in_blocks(indices, count, size), values,
        axis=0, mode=mode, unique=unique,
    )  # fmt: skip
    return moveaxis(reshape_p(out, shape=(count, size, *rest)), 1, 1 + axis)


scatter_p = Primitive(
    "scatter",
    abstract=_scatter_rule,
    reference=_scatter_reference,
    vjp=_scatter_vjp,
    jvp=_scatter_jvp,
    batch=_scatter_batch,
    kernel=Library("scatter"),
)


def repeats(indices: Any) -> bool:
    """Whether an index may repeat: known of NumPy arrays whose indices count from the front."""
    if len(shape_of(indices)) == 0:
        return False
    if not isinstance(indices, np.ndarray) or (indices.size and indices.min() < 0):
        return int(np.prod(shape_of(indices))) > 1
    return len(np.unique(indices)) < indices.size
