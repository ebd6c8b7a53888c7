"""Matrix products. The one primitive multiplies stacks of matrices with equal batch axes; transposes are strides.

z = x @ y      x_ct = z_ct @ y^T      y_ct = x^T @ z_ct        (Giles 2008, *Collected matrix derivative results*, §2.2)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.aval import Aval, broadcast_shapes
from ..core.bfloat16 import rounded
from ..core.loops import Library
from ..core.primitive import Primitive
from ..errors import DTypeError, FastgradError, ShapeError, UnsupportedError, user_line
from .arrangement import diagonal
from .comparison import not_equal
from .elementwise import absolute, mul_p, sqrt, subtract
from .movement import concatenate_p, moveaxis, ravel, slice_axis, swapaxes, transpose_p
from .operands import aval, dtype_of, normalize_axis, shape_of
from .pointwise import cast, promote
from .power import power
from .reduce import max as reduce_max
from .reduce import min as reduce_min
from .reduce import sum
from .shaping import broadcast_to_p, reshape_p

# --- matmul ---------------------------------------------------------------------------------------------------------


def _matmul_rule(x: Aval, y: Aval, precision: str | None = None) -> Aval:
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


def _matmul_reference(x: np.ndarray, y: np.ndarray, precision: str | None = None) -> np.ndarray:
    """With ``precision`` "bfloat16" the operands are rounded, and nothing else."""
    return np.matmul(x, y) if precision is None else np.matmul(rounded(x), rounded(y))


def _matmul_vjp(ct: Any, out: Any, x: Any, y: Any, **how: Any) -> tuple[Any, Any]:
    return matmul_p(ct, _t(y), **how), matmul_p(_t(x), ct, **how)


def _matmul_jvp(tangents: Sequence[Any], out: Any, x: Any, y: Any, **how: Any) -> Any:
    dx, dy = tangents
    if dy is None:
        return matmul_p(dx, y, **how)
    return matmul_p(x, dy, **how) if dx is None else matmul_p(dx, y, **how) + matmul_p(x, dy, **how)


def _matmul_batch(args: Sequence[Any], batched: Sequence[bool], **how: Any) -> Any:
    x, y = args
    size = shape_of(x if batched[0] else y)[0]
    if not batched[1] and len(shape_of(y)) == 2:
        return _stacked_rows(x, y, **how)
    if not batched[0] and len(shape_of(x)) == 2 and shape_of(y)[-1] == 1:
        return swapaxes(
            _stacked_rows(_t(y), _t(x), **how), -1, -2
        )  # one matrix times many vectors: again one product
    if all(batched) and shape_of(x)[-1] == 1 and not how:
        return mul_p(x, y)  # outer products, as gradients by example are: a loop that only writes
    x, y = (
        a if b else broadcast_to_p(a, shape=(size, *shape_of(a))) for a, b in zip(args, batched, strict=True)
    )
    return matmul_p(x, y, **how)


matmul_p = Primitive(
    "matmul",
    abstract=_matmul_rule,
    reference=_matmul_reference,
    vjp=_matmul_vjp,
    jvp=_matmul_jvp,
    batch=_matmul_batch,
    kernel=Library("matmul"),
)


def _stacked_rows(x: Any, y: Any, **how: Any) -> Any:
    """A stack of matrices times one matrix: all rows in one product, so that y's cotangent is one product as well."""
    *lead, k = shape_of(x)
    rows = reshape_p(x, shape=(math.prod(lead), k))
    return reshape_p(matmul_p(rows, y, **how), shape=(*lead, shape_of(y)[-1]))


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


def vdot(x: Any, y: Any) -> Any:
    """Sum of products of all elements, both read as vectors."""
    x, y = promote(ravel(x), ravel(y))
    return _product_sum(x, y, 0)


def vecdot(x: Any, y: Any, axis: int = -1) -> Any:
    """Sum of products along one axis, the others broadcast."""
    x, y = promote(x, y)
    return _product_sum(moveaxis(x, axis, -1), moveaxis(y, axis, -1), -1)


def kron(x: Any, y: Any) -> Any:
    """Kronecker product: each element of ``x`` times the whole of ``y``, in blocks.

    >>> kron(np.array([1, 10]), np.array([1, 2]))
    array([ 1,  2, 10, 20])
    """
    x, y = promote(x, y)
    ndim = max(len(shape_of(x)), len(shape_of(y)))
    xs, ys = ((1,) * (ndim - len(shape_of(v))) + shape_of(v) for v in (x, y))
    left = reshape_p(x, shape=tuple(m for n in xs for m in (n, 1)))
    right = reshape_p(y, shape=tuple(m for n in ys for m in (1, n)))
    return reshape_p(mul_p(left, right), shape=tuple(a * b for a, b in zip(xs, ys, strict=True)))


def cross(x: Any, y: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    """Vector product of vectors of three components along an axis, the other axes broadcast.

    Raises: `ShapeError` where an operand has another number of components.

    >>> cross(np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]))
    array([0., 0., 1.])
    """
    x, y = promote(x, y)
    if axis is not None:
        axisa = axisb = axisc = axis
    x, y = (moveaxis(v, a, -1) if shape_of(v) else v for v, a in ((x, axisa), (y, axisb)))
    if any(shape_of(v)[-1:] != (3,) for v in (x, y)):
        raise ShapeError(f"cross: wants vectors of 3 components, got {aval(x)} and {aval(y)}", at=user_line())
    (x0, x1, x2), (y0, y1, y2) = (
        [slice_axis(v, len(shape_of(v)) - 1, i, i + 1) for i in range(3)] for v in (x, y)
    )
    parts = [
        subtract(mul_p(x1, y2), mul_p(x2, y1)),
        subtract(mul_p(x2, y0), mul_p(x0, y2)),
        subtract(mul_p(x0, y1), mul_p(x1, y0)),
    ]
    out = concatenate_p(*parts, axis=len(shape_of(parts[0])) - 1)
    return moveaxis(out, -1, axisc)


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Euclidean norm ``sqrt(sum(x**2))`` over ``axis`` (all axes when None); of vectors also ``ord`` 1, inf, -inf, 0 or p.

    The derivative of the Euclidean norm at 0 is NaN. Raises `UnsupportedError` for other norms of matrices.

    >>> float(norm(np.array([3.0, -4.0]))), float(norm(np.array([3.0, -4.0]), 1))
    (5.0, 7.0)
    """
    (x,) = promote(x, floats=True)
    matrix = (len(shape_of(x)) if axis is None else len(axis) if isinstance(axis, tuple) else 1) > 1
    if ord is None or (ord == "fro" and matrix) or (ord == 2 and not matrix):
        return sqrt(sum(mul_p(x, x), axis=axis, keepdims=keepdims))
    if matrix or isinstance(ord, str):
        raise UnsupportedError(
            f"np.linalg.norm: ord={ord!r} is not supported for {aval(x)}",
            hint="np.sqrt(np.sum(x * x))",
            at=user_line(),
        )
    size = absolute(x)
    if np.isinf(ord):
        return (reduce_max if ord > 0 else reduce_min)(size, axis, keepdims=keepdims)
    if ord == 0:
        return sum(cast(not_equal(x, 0), dtype_of(x)), axis, keepdims=keepdims)
    if ord == 1:
        return sum(size, axis, keepdims=keepdims)
    return power(sum(power(size, ord), axis, keepdims=keepdims), 1 / ord)


def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None) -> Any:
    """Sum of the diagonal of a matrix, or of each pair of the axes ``axis1`` and ``axis2``."""
    return sum(diagonal(x, offset, axis1, axis2), -1, dtype=dtype)
