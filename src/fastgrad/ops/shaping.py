"""Ops that change shapes: reshape, and the pair that are each other's transpose, broadcast_to and reduce_sum.

reshape[shape]      the same elements in C order
broadcast_to[shape] repeats elements       x_j       -> y_ij = x_j         a view with strides 0
reduce_sum[axes]    adds elements up       x_ij      -> y_j = sum_i x_ij
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.aval import Aval
from ..core.graph import Literal, joined
from ..core.loops import Reduce, View
from ..core.primitive import Primitive
from ..errors import DTypeError, ShapeError, user_line
from .operands import aval, dtype_of, normalize_shape, operand, shape_of


def linear_jvp(prim: Callable[[], Primitive]) -> Callable[..., Any]:
    """JVP of a unary linear op: the op itself, on the tangent."""
    return lambda tangents, out, x, **params: prim()(tangents[0], **params)


# --- reshape[shape] -------------------------------------------------------------------------------------------------


def _reshape_rule(x: Aval, *, shape: tuple[int, ...]) -> Aval:
    if math.prod(shape) != x.size or any(n < 0 for n in shape):
        raise ShapeError(
            f"reshape: cannot make {list(shape)} of {x}: {x.size} elements, not {math.prod(shape)}"
        )
    return Aval(shape, x.dtype, x.weak)


reshape_p = Primitive(
    "reshape",
    abstract=_reshape_rule,
    reference=lambda x, *, shape: np.asarray(x).reshape(shape),
    vjp=lambda ct, out, x, *, shape: (reshape_p(ct, shape=shape_of(x)),),
    jvp=linear_jvp(lambda: reshape_p),
    batch=lambda args, batched, *, shape: reshape_p(args[0], shape=(shape_of(args[0])[0], *shape)),
    kernel=View(lambda layout, out, *, shape: layout.reshape(shape)),
)


def reshape(x: Any, shape: Any) -> Any:
    """``x`` with the same elements in C order under another shape; one size may be -1.

    Args: x of any shape and dtype; shape an integer or a sequence of integers.
    Raises: `ShapeError` when the sizes do not multiply to ``x.size``.

    >>> reshape(np.arange(6), (2, -1)).shape
    (2, 3)
    """
    x, sizes = operand(x), normalize_shape("reshape", shape)
    if -1 in sizes:
        known, size = math.prod(n for n in sizes if n != -1), aval(x).size
        if sizes.count(-1) > 1 or known == 0 or size % known:
            raise ShapeError(f"reshape: cannot make {list(sizes)} of {aval(x)}", at=user_line())
        sizes = tuple(size // known if n == -1 else n for n in sizes)
    return reshape_p(x, shape=sizes)


# --- broadcast_to[shape] --------------------------------------------------------------------------------------------


def _broadcast_rule(x: Aval, *, shape: tuple[int, ...]) -> Aval:
    extra = len(shape) - x.ndim
    if extra < 0 or any(n not in (1, m) for n, m in zip(x.shape, shape[max(extra, 0) :], strict=True)):
        raise ShapeError(f"broadcast_to: {x} does not broadcast to {list(shape)}")
    return Aval(shape, x.dtype, x.weak)


def _broadcast_batch(args: Sequence[Any], batched: Sequence[bool], *, shape: tuple[int, ...]) -> Any:
    size, *rest = shape_of(args[0])
    lead = (1,) * (len(shape) - len(rest))
    return broadcast_to_p(reshape_p(args[0], shape=(size, *lead, *rest)), shape=(size, *shape))


broadcast_to_p = Primitive(
    "broadcast_to",
    abstract=_broadcast_rule,
    reference=lambda x, *, shape: np.broadcast_to(x, shape),
    vjp=lambda ct, out, x, *, shape: (unbroadcast(ct, shape_of(x)),),
    jvp=linear_jvp(lambda: broadcast_to_p),
    batch=_broadcast_batch,
    kernel=View(lambda layout, out, *, shape: layout.broadcast(shape)),
)


def broadcast_to(x: Any, shape: Any) -> Any:
    """``x`` repeated along new leading axes and along axes of size 1, so that it has ``shape``.

    Raises: `ShapeError` where NumPy's broadcasting rule does not allow it.

    >>> broadcast_to(np.arange(2), (2, 2))
    array([[0, 1],
           [0, 1]])
    """
    return broadcast_to_p(operand(x), shape=normalize_shape("broadcast_to", shape))


def unbroadcast(ct: Any, shape: tuple[int, ...]) -> Any:
    """The cotangent of an operand of ``shape`` that was stretched to the shape of ``ct``: summed over repeats."""
    have = shape_of(ct)
    if have == shape:
        return ct
    extra = len(have) - len(shape)
    stretched = tuple(i + extra for i, n in enumerate(shape) if n == 1 and have[i + extra] != 1)
    total = reduce_sum_p(ct, axes=(*range(extra), *stretched))
    return reshape_p(total, shape=shape) if stretched else total


def filled(like: Any, shape: tuple[int, ...], value: Any, dtype: np.dtype | None = None) -> Any:
    """``value`` (in the dtype of ``like``) all over ``shape``: a broadcast literal in the trace of ``like``."""
    literal = Literal((dtype or dtype_of(like)).type(value))
    if (builder := joined([like])) is not None:
        return builder.emit(broadcast_to_p, (literal,), {"shape": shape})[0]
    return broadcast_to_p(literal, shape=shape)


# --- reduce_sum[axes] -----------------------------------------------------------------------------------------------


def check_reduction(name: str, x: Aval, axes: tuple[int, ...]) -> None:
    """Raise unless ``axes`` are axes of ``x``, sorted."""
    if list(axes) != sorted(set(axes)) or any(not 0 <= a < x.ndim for a in axes):
        raise ShapeError(f"{name}: axes {list(axes)} are not all axes of {x}")


def _sum_rule(x: Aval, *, axes: tuple[int, ...]) -> Aval:
    check_reduction("sum", x, axes)
    if x.dtype.kind == "b":
        raise DTypeError(f"sum: cannot add up {x} in bool")
    return Aval(tuple(n for i, n in enumerate(x.shape) if i not in axes), x.dtype, x.weak)


def spread(y: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """``y``, a reduction over ``axes``, repeated along them again (leading ones by broadcasting alone)."""
    lead = next((i for i in range(len(shape)) if i not in axes), len(shape))
    kept = tuple(1 if i in axes else shape[i] for i in range(lead, len(shape)))
    return broadcast_to_p(reshape_p(y, shape=kept) if kept != shape_of(y) else y, shape=shape)


def shift(axes: Sequence[int]) -> tuple[int, ...]:
    """The same axes behind a new leading axis."""
    return tuple(a + 1 for a in axes)


reduce_sum_p = Primitive(
    "reduce_sum",
    abstract=_sum_rule,
    reference=lambda x, *, axes: np.add.reduce(x, axes, dtype=np.asarray(x).dtype),
    vjp=lambda ct, out, x, *, axes: (spread(ct, shape_of(x), axes),),
    jvp=linear_jvp(lambda: reduce_sum_p),
    batch=lambda args, batched, *, axes: reduce_sum_p(args[0], axes=shift(axes)),
    kernel=Reduce("add"),
)
