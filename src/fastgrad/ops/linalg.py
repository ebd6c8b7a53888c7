"""Matrix products. The one primitive multiplies stacks of matrices with equal batch axes; transposes are strides.

z = x @ y      x_ct = z_ct @ y^T      y_ct = x^T @ z_ct        (Giles 2008, *Collected matrix derivative results*, §2.2)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.aval import Aval, broadcast_shapes
from ..core.loops import Library
from ..core.primitive import Primitive
from ..errors import DTypeError, FastgradError, ShapeError, user_line
from .elementwise import mul_p, sqrt
from .movement import swapaxes, transpose_p
from .operands import aval, dtype_of, normalize_axis, operand, shape_of
from .pointwise import promote
from .reduce import sum
from .shaping import broadcast_to_p, reshape_p

# --- matmul ---------------------------------------------------------------------------------------------------------


def _matmul_rule(x: Aval, y: Aval) -> Aval:
    if x.ndim < 2 or y.ndim < 2 or x.shape[:-2] != y.shape[:-2]:
        raise ShapeError(f"matmul: wants matrices with equal batch axes, got {x} @ {y}")
    if x.shape[-1] != y.shape[-2]:
        raise ShapeError(
            f"matmul: inner dimensions must match, got {x} @ {y}", hint=_matmul_hint(x.shape, y.shape)
        )
    if x.dtype != y.dtype or x.dtype.kind != "f":
        raise DTypeError(f"matmul: wants floats of one dtype, got {x} @ {y}")
    return Aval((*x.shape[:-1], y.shape[-1]), x.dtype)


def _matmul_hint(x: tuple[int, ...], y: tuple[int, ...]) -> str | None:
    """The transpose that would make the product type-check, if one does."""
    if len(y) == 2 and len(x) >= 1 and x[-1] == y[-1]:
        return "x @ y.T"
    if len(x) == 2 and len(y) <= 2 and x[0] == y[0]:
        return "x.T @ y"
    if len(x) == len(y) == 2 and x[0] == y[1]:
        return "y @ x"
    return None


def _t(x: Any) -> Any:
    return swapaxes(x, -1, -2)


def _matmul_jvp(tangents: Sequence[Any], out: Any, x: Any, y: Any) -> Any:
    dx, dy = tangents
    if dy is None:
        return matmul_p(dx, y)
    return matmul_p(x, dy) if dx is None else matmul_p(dx, y) + matmul_p(x, dy)


def _matmul_batch(args: Sequence[Any], batched: Sequence[bool]) -> Any:
    x, y = args
    size = shape_of(x if batched[0] else y)[0]
    if not batched[1] and len(shape_of(y)) == 2:
        return _stacked_rows(x, y)
    if not batched[0] and len(shape_of(x)) == 2 and shape_of(y)[-1] == 1:
        return swapaxes(
            _stacked_rows(_t(y), _t(x)), -1, -2
        )  # one matrix times many vectors: again one product
    if all(batched) and shape_of(x)[-1] == 1:
        return mul_p(x, y)  # outer products, as gradients by example are: a loop that only writes
    x, y = (
        a if b else broadcast_to_p(a, shape=(size, *shape_of(a))) for a, b in zip(args, batched, strict=True)
    )
    return matmul_p(x, y)


matmul_p = Primitive(
    "matmul",
    abstract=_matmul_rule,
    reference=np.matmul,
    vjp=lambda ct, out, x, y: (matmul_p(ct, _t(y)), matmul_p(_t(x), ct)),
    jvp=_matmul_jvp,
    batch=_matmul_batch,
    kernel=Library("matmul"),
)


def _stacked_rows(x: Any, y: Any) -> Any:
    """A stack of matrices times one matrix: all rows in one product, so that y's cotangent is one product as well."""
    *lead, k = shape_of(x)
    rows = reshape_p(x, shape=(math.prod(lead), k))
    return reshape_p(matmul_p(rows, y), shape=(*lead, shape_of(y)[-1]))


def matmul(x: Any, y: Any) -> Any:
    """Matrix product ``x @ y`` of ``[..., m, k]`` and ``[..., k, n]``; batch axes broadcast, vectors too.

    Integers and bools multiply and add up in their common dtype (as in NumPy), floats in theirs.
    Raises: `ShapeError` for 0-d operands and inner dimensions that differ, with the transpose that would fit.

    >>> matmul(np.ones((2, 3)), np.ones(3))
    array([3., 3.])
    """
    x, y = promote(x, y)
    xs, ys = shape_of(x), shape_of(y)
    if not xs or not ys:
        raise ShapeError(
            f"matmul: 0-d operands have no product, got {aval(x)} @ {aval(y)}", hint="x * y", at=user_line()
        )
    if xs[-1] != ys[-2 if len(ys) > 1 else 0]:
        raise ShapeError(
            f"matmul: inner dimensions must match, got {aval(x)} @ {aval(y)}",
            hint=_matmul_hint(xs, ys),
            at=user_line(),
        )
    if len(xs) == len(ys) == 1:
        return _product_sum(x, y, 0)
    if dtype_of(x).kind != "f":
        return _integer_matmul(x, y)
    if len(xs) == 1:
        out = matmul(reshape_p(x, shape=(1, *xs)), y)
        return reshape_p(out, shape=(*shape_of(out)[:-2], ys[-1]))
    if len(ys) == 1:
        out = matmul(x, reshape_p(y, shape=(*ys, 1)))
        return reshape_p(out, shape=shape_of(out)[:-1])
    if len(ys) == 2:
        return matmul_p(x, y) if len(xs) == 2 else _stacked_rows(x, y)
    batch = _batch_shape(x, y)
    return matmul_p(broadcast_to_p(x, shape=(*batch, *xs[-2:])), broadcast_to_p(y, shape=(*batch, *ys[-2:])))


def _batch_shape(x: Any, y: Any) -> tuple[int, ...]:
    heads = (Aval(shape_of(v)[:-2], dtype_of(v)) for v in (x, y))
    try:
        return broadcast_shapes("matmul", *heads)
    except FastgradError:
        raise ShapeError(
            f"matmul: batch axes do not broadcast, got {aval(x)} @ {aval(y)}", at=user_line()
        ) from None


def _product_sum(x: Any, y: Any, axis: int) -> Any:
    """``sum(x * y, axis)`` in the common dtype; on bools ``any(x and y)``."""
    product = mul_p(x, y)
    total = sum(product, axis=axis, dtype=None if dtype_of(x).kind == "b" else dtype_of(x))
    return total > 0 if dtype_of(x).kind == "b" else total


def _integer_matmul(x: Any, y: Any) -> Any:
    """Sum of products: integers have no library product, and rarely need a fast one."""
    xs, ys = shape_of(x), shape_of(y)
    left = reshape_p(x, shape=(*xs, 1)) if len(ys) > 1 else x
    right = y if len(xs) == 1 or len(ys) == 1 else reshape_p(y, shape=(*ys[:-2], 1, *ys[-2:]))
    return _product_sum(left, right, -1 if len(ys) == 1 else -2)


# --- compositions ---------------------------------------------------------------------------------------------------


def dot(x: Any, y: Any) -> Any:
    """``np.dot``: product of numbers or of matrices, inner product of vectors; x's last axis meets y's last but one."""
    x, y = promote(x, y)
    xs, ys = shape_of(x), shape_of(y)
    if not xs or not ys:
        return mul_p(x, y)
    if len(ys) <= 2:
        return matmul(x, y)
    return tensordot(x, y, ((len(xs) - 1,), (len(ys) - 2,)))


def outer(x: Any, y: Any) -> Any:
    """``x_i * y_j`` of two arrays read as vectors, shape ``(x.size, y.size)``."""
    x, y = promote(x, y)
    return mul_p(reshape_p(x, shape=(aval(x).size, 1)), reshape_p(y, shape=(1, aval(y).size)))


def inner(x: Any, y: Any) -> Any:
    """``np.inner``: sum of products over the last axes of both."""
    x, y = promote(x, y)
    xs, ys = shape_of(x), shape_of(y)
    if not xs or not ys:
        return mul_p(x, y)
    return tensordot(x, y, ((len(xs) - 1,), (len(ys) - 1,)))


def tensordot(x: Any, y: Any, axes: Any = 2) -> Any:
    """Sum of products over pairs of axes: the last n of x with the first n of y, or ``(axes of x, axes of y)``.

    >>> tensordot(np.ones((2, 3, 4)), np.ones((4, 3)), ((1, 2), (1, 0))).shape
    (2,)
    """
    x, y = promote(x, y)
    xs, ys = shape_of(x), shape_of(y)
    if isinstance(axes, int):
        pairs: Any = (range(len(xs) - axes, len(xs)), range(axes))
    else:
        pairs = tuple(a if isinstance(a, Sequence) else (a,) for a in axes)
    a = tuple(normalize_axis("tensordot", i, len(xs)) for i in pairs[0])
    b = tuple(normalize_axis("tensordot", i, len(ys)) for i in pairs[1])
    if [xs[i] for i in a] != [ys[i] for i in b]:
        got = f"{aval(x)} over {list(a)} and {aval(y)} over {list(b)}"
        raise ShapeError(f"tensordot: paired axes must have equal sizes, got {got}", at=user_line())
    x_free = tuple(i for i in range(len(xs)) if i not in a)
    y_free = tuple(i for i in range(len(ys)) if i not in b)
    k = math.prod(xs[i] for i in a)
    left = reshape_p(transpose_p(x, perm=x_free + a), shape=(math.prod(xs[i] for i in x_free), k))
    right = reshape_p(transpose_p(y, perm=b + y_free), shape=(k, math.prod(ys[i] for i in y_free)))
    return reshape_p(matmul(left, right), shape=tuple(xs[i] for i in x_free) + tuple(ys[i] for i in y_free))


def norm(x: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    """Euclidean norm ``sqrt(sum(x**2))`` over ``axis`` (all axes when None). Its derivative at 0 is NaN."""
    (x,) = promote(x, floats=True)
    return sqrt(sum(mul_p(x, x), axis=axis, keepdims=keepdims))


def trace(x: Any) -> Any:
    """Sum of the diagonal of a matrix."""
    x = operand(x)
    shape = shape_of(x)
    if len(shape) != 2:
        raise ShapeError(f"trace: wants a matrix, got {aval(x)}", at=user_line())
    return sum(mul_p(*promote(x, np.eye(*shape, dtype=dtype_of(x)))))
