"""Draws of integers and bools, shuffles, choices."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ..core.graph import Literal, Tracer
from ..errors import ArgumentError, DTypeError, ShapeError, UnsupportedError, user_line
from ..ops.comparison import and_p, ge_p, less, lt_p, shr_p
from ..ops.elementwise import add, add_p, log, mul_p, sub_p
from ..ops.index import take
from ..ops.operands import as_dtype, aval, dtype_of, normalize_axis, number, operand, shape_of
from ..ops.pointwise import cast, convert, select_p
from ..ops.random import UINT64, permutation_p, random_bits
from ..ops.reduce import argmax
from ..ops.shaping import reshape
from .continuous import standard_gumbel, uniform
from .keys import draw_shape, split, words

_HALF = Literal(UINT64.type(32))
_LOW = Literal(UINT64.type(2**32 - 1))


def randint(key: Any, shape: Any, minval: Any, maxval: Any, dtype: Any = np.int64) -> Any:
    """Integers uniform in ``[minval, maxval)``; bounds are integers, or integer arrays that broadcast to ``shape``.

    The number of values times a random word, less the word's digits (Lemire 2019, without rejection). Up to 2**32 values
    the word has 64 bits and a probability is off by less than 2**-32 of itself; for more, and for bounds that are arrays, it
    has 128 bits, and 2**-64. Where a ``maxval`` of an array is not above ``minval`` the result is ``minval``. Raises
    `ArgumentError` for numbers out of order or out of the dtype, `DTypeError` for a dtype that is no integer, `ShapeError`
    where shapes do not fit, both for what is no key.

    >>> randint(fastgrad.random.key(0), (3,), 0, 10).dtype
    dtype('int64')
    """
    k0, k1 = words("randint", key)
    dtype, shape = as_dtype(dtype), draw_shape("randint", shape)
    if dtype.kind not in "iu":
        raise DTypeError(
            f"randint: dtype must be an integer one, got {dtype.name}",
            hint="fg.random.bernoulli" if dtype.kind == "b" else "fg.random.uniform",
            at=user_line(),
        )
    static = _static_bounds(minval, maxval, dtype)
    if static is not None:
        low, span = static
        if span <= 2**32:
            word = random_bits(k0, k1, shape, 64)
            offset = _times_over_2_64(word, Literal(UINT64.type(span % 2**64)))
        else:
            offset = _wide_offset(key, shape, Literal(UINT64.type(span % 2**64)), whole=span == 2**64)
        return add_p(cast(offset, dtype), Literal(dtype.type(low)))
    low, high = (_bound(name, v, dtype) for name, v in (("minval", minval), ("maxval", maxval)))
    wide = [cast(operand(v), UINT64) for v in (low, high)]
    span = select_p(lt_p(low, high), sub_p(wide[1], wide[0]), Literal(UINT64.type(1)))
    out = add(cast(_wide_offset(key, shape, span), dtype), low)
    if shape_of(out) != shape:
        got = f"minval {aval(operand(minval))}, maxval {aval(operand(maxval))}"
        raise ShapeError(
            f"randint: shape {list(shape)} does not hold {got}", hint=f"shape={shape_of(out)}", at=user_line()
        )
    return out


def _static_bounds(minval: Any, maxval: Any, dtype: np.dtype) -> tuple[int, int] | None:
    """The lower bound and the number of values, where both bounds are numbers."""
    bounds = []
    for name, value in (("minval", minval), ("maxval", maxval)):
        if isinstance(value, Tracer) or np.ndim(value):
            return None
        try:
            bounds.append(operator.index(value))
        except TypeError:
            raise DTypeError(f"randint: {name} is an integer, got {value!r}", at=user_line()) from None
    low, high = bounds
    limits = np.iinfo(dtype)
    if not low < high:
        raise ArgumentError(f"randint: minval must be below maxval, got {low} and {high}", at=user_line())
    if low < limits.min or high - 1 > limits.max:
        raise ArgumentError(
            f"randint: [{low}, {high}) is not within {dtype.name}", hint="dtype=np.int64", at=user_line()
        )
    return low, high - low


def _bound(name: str, value: Any, dtype: np.dtype) -> Any:
    """One bound of several, or traced, in ``dtype``."""
    value = operand(value)
    if dtype_of(value).kind not in "iu":
        raise DTypeError(f"randint: {name} is an integer, got {aval(value)}", at=user_line())
    return convert(value, dtype)


def _times_over_2_64(word: Any, span: Any) -> Any:
    """``floor(word * span / 2**64)`` for spans up to 2**32."""
    low = mul_p(and_p(word, _LOW), span)
    return shr_p(add_p(mul_p(shr_p(word, _HALF), span), shr_p(low, _HALF)), _HALF)


def _high_product(x: Any, y: Any) -> Any:
    """The high 64 bits of the product of two words (Knuth, *The Art of Computer Programming* 2, §4.3.1, algorithm M)."""
    x0, x1, y0, y1 = and_p(x, _LOW), shr_p(x, _HALF), and_p(y, _LOW), shr_p(y, _HALF)
    middle = add_p(mul_p(x1, y0), shr_p(mul_p(x0, y0), _HALF))
    other = add_p(mul_p(x0, y1), and_p(middle, _LOW))
    return add_p(mul_p(x1, y1), add_p(shr_p(middle, _HALF), shr_p(other, _HALF)))


def _wide_offset(key: Any, shape: tuple[int, ...], span: Any, whole: bool = False) -> Any:
    """``floor(word * span / 2**128)`` of a word of 128 bits; all 64 bits where ``span`` is 2**64."""
    keys = split(key)
    high, low = (random_bits(*words("randint", k), shape, 64) for k in (keys[0], keys[1]))
    if whole:
        return high
    fraction = mul_p(high, span)
    total = add_p(fraction, _high_product(low, span))
    return add_p(_high_product(high, span), cast(lt_p(total, fraction), UINT64))


def bernoulli(key: Any, p: Any = 0.5, shape: Any = None) -> Any:
    """Bools that are True with probability ``p``, a number or an array; ``shape`` defaults to that of ``p``.

    A uniform in the dtype of ``p`` (float64 for numbers) is compared with it. Raises `ArgumentError` for a number outside
    [0, 1], `DTypeError` for a ``p`` that is no float, `ShapeError` where shapes do not fit, both for what is no key.

    >>> bernoulli(fastgrad.random.key(0), 0.25, (2, 2)).dtype
    dtype('bool')
    """
    words("bernoulli", key)
    p = operand(p)
    value = number(p)
    if value is not None and not 0 <= value <= 1:
        raise ArgumentError(f"bernoulli: p lies in [0, 1], got {value}", at=user_line())
    if value is None and dtype_of(p).kind != "f":
        raise DTypeError(f"bernoulli: p is a probability, got {aval(p)}", at=user_line())
    dtype = np.dtype(np.float64) if value is not None else dtype_of(p)
    sizes = shape_of(p) if shape is None else draw_shape("bernoulli", shape)
    have = shape_of(p)
    if len(have) > len(sizes) or any(
        n not in (1, m) for n, m in zip(have, sizes[len(sizes) - len(have) :], strict=True)
    ):
        raise ShapeError(
            f"bernoulli: shape {list(sizes)} does not hold p {aval(p)}", hint=f"shape={have}", at=user_line()
        )
    return less(uniform(key, sizes, dtype), convert(p, dtype))


def categorical(key: Any, logits: Any, axis: int = -1, shape: Any = None) -> Any:
    r"""Class numbers (int64) with probabilities ``softmax(logits)`` along ``axis``, by the Gumbel maximum.

    ``shape`` defaults to that of ``logits`` without ``axis``, and must end with it: what stands before are more draws. A
    logit of -inf is never drawn. Gumbel 1954; Maddison, Tarlow, Minka 2014, *A\* sampling*. Raises `DTypeError` for logits
    that are no floats, `ShapeError` for no classes or a shape that does not fit.

    >>> int(categorical(fastgrad.random.key(0), np.array([0.0, -np.inf])))
    0
    """
    k0, k1 = words("categorical", key)
    logits = operand(logits)
    if dtype_of(logits).kind != "f":
        raise DTypeError(
            f"categorical: logits are floats, got {aval(logits)}", hint="np.log(p)", at=user_line()
        )
    sizes = shape_of(logits)
    axis = normalize_axis("categorical", axis, len(sizes))
    batch = sizes[:axis] + sizes[axis + 1 :]
    if not sizes[axis]:
        raise ShapeError(f"categorical: no classes to draw from, got {aval(logits)}", at=user_line())
    draws = batch if shape is None else draw_shape("categorical", shape)
    lead = len(draws) - len(batch)
    if lead < 0 or draws[lead:] != batch:
        raise ShapeError(
            f"categorical: shape {list(draws)} does not end with {list(batch)}, that of the logits {aval(logits)} without"
            f" axis {axis}",
            hint=f"shape={(*draws[: max(lead, 0)], *batch)}",
            at=user_line(),
        )
    noise = standard_gumbel(k0, k1, (*draws[:lead], *sizes), dtype_of(logits))
    return argmax(add(noise, logits), axis=axis + lead)


def permutation(key: Any, x: Any, axis: int = 0) -> Any:
    """``x`` with its rows along ``axis`` in random order; of an integer n, the numbers 0 ... n-1 (int64) so.

    Every order is as likely, up to 2**-32 of its probability at each place. Fisher and Yates' shuffle, one element after
    the other. Raises `ShapeError` for a scalar, for a negative n, and for what is no key.

    >>> sorted(permutation(fastgrad.random.key(0), 4).tolist())
    [0, 1, 2, 3]
    """
    words("permutation", key)
    if type(x) is int or (isinstance(x, np.integer) and not isinstance(x, np.ndarray)):
        if x < 0:
            raise ShapeError(f"permutation: of a count, got {x}", at=user_line())
        return permutation_p(key, n=int(x))
    x = operand(x)
    if not shape_of(x):
        raise ShapeError(f"permutation: takes an array or a Python integer, got {aval(x)}", at=user_line())
    axis = normalize_axis("permutation", axis, len(shape_of(x)))
    n = shape_of(x)[axis]
    return x if n == 0 else take(x, permutation_p(key, n=n), axis=axis)


def choice(key: Any, a: Any, shape: Any = (), replace: bool = True, p: Any = None, axis: int = 0) -> Any:
    """Rows of ``a`` along ``axis`` (of 0 ... a-1, if it is an integer), each as likely or with probabilities ``p``.

    ``p`` is a vector, one entry a row; it need not add up to 1. Raises `ArgumentError` for more rows than there are without
    replacement and for an array ``p`` below 0 or 0 throughout,
    `UnsupportedError` for ``p`` without replacement, `ShapeError` where shapes do not fit.

    >>> choice(fastgrad.random.key(0), 10, (2, 3)).shape
    (2, 3)
    """
    words("choice", key)
    shape = draw_shape("choice", shape)
    count = isinstance(a, int | np.integer)
    source = None if count else operand(a)
    axis = 0 if count else normalize_axis("choice", axis, len(shape_of(source)))
    n = int(a) if count else shape_of(source)[axis]
    size = math.prod(shape)
    if n < 1 and size:
        raise ArgumentError(f"choice: nothing to choose from, got {n} rows", at=user_line())
    if not replace:
        if p is not None:
            raise UnsupportedError(
                "choice: p without replacement is not supported", hint="replace=True", at=user_line()
            )
        if size > n:
            raise ArgumentError(
                f"choice: {size} of {n} rows without replacement", hint="replace=True", at=user_line()
            )
        rows = reshape(permutation_p(key, n=n)[:size], shape)
    elif p is None:
        rows = randint(key, shape, 0, n) if size else np.zeros(shape, np.int64)
    else:
        p = operand(p)
        if shape_of(p) != (n,):
            raise ShapeError(f"choice: p has an entry a row, {n}, got {aval(p)}", at=user_line())
        if isinstance(p, np.ndarray) and not (np.all(p >= 0) and 0 < p.sum() < np.inf):
            raise ArgumentError(
                f"choice: p holds weights, none below 0 and not all 0, got {p.min()} to {p.max()}",
                at=user_line(),
            )
        rows = categorical(key, log(p), shape=shape)
    return rows if source is None else take(source, rows, axis=axis)


def keep_mask(key: Any, p: float, shape: tuple[int, ...]) -> Any:
    """Bools that are False with probability ``p`` in [0, 1), to within 2**-32: words of 32 bits below ``p * 2**32``."""
    k0, k1 = words("dropout", key)
    bound = min(round(p * 2**32), 2**32 - 1)
    return ge_p(random_bits(k0, k1, shape, 32), Literal(np.uint32(bound)))
