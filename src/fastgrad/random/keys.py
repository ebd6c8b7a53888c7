"""Keys: two words of 32 bits that a stream of random numbers begins from, and how others are made of them."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ..core.graph import Literal, Tracer
from ..errors import ArgumentError, DTypeError, ShapeError, user_line
from ..ops.comparison import shr_p
from ..ops.movement import concatenate_p, expand_dims
from ..ops.operands import as_dtype, aval, dtype_of, normalize_shape, operand, shape_of
from ..ops.pointwise import cast
from ..ops.random import UINT32, UINT64, iota, random_bits, threefry_p
from ..ops.subscript import getitem

_KEY = (2,)


def key(seed: Any) -> Any:
    """The key of a seed: an integer, a Python one of 64 bits at most or a traced or NumPy scalar. Returns ``u32[2]``.

    Equal seeds give equal keys, whatever their dtype; a negative one is its two's complement in 64 bits. Raises
    `DTypeError` for what is no integer, `ShapeError` for several of them, `ArgumentError` beyond 64 bits.

    >>> key(7)
    array([0, 7], dtype=uint32)
    """
    if isinstance(seed, int) and not isinstance(seed, bool) and not -(2**63) <= seed < 2**64:
        raise ArgumentError(f"key: a seed has 64 bits at most, got {seed}", at=user_line())
    value = np.uint64(seed % 2**64) if type(seed) is int else operand(seed)
    kind = aval(value)
    if kind.dtype.kind not in "iu":
        raise DTypeError(f"key: a seed is an integer, got {kind}", hint="fg.random.key(0)", at=user_line())
    if kind.shape:
        raise ShapeError(f"key: one seed, got {kind}", hint="fg.vmap(fg.random.key)(seeds)", at=user_line())
    return _joined(*_words(value))


def split(key: Any, num: int | tuple[int, ...] = 2) -> Any:
    """``num`` new keys, ``u32[num, 2]`` (or of the shape ``num``), as good as unrelated to each other. Drop the old one.

    Raises `DTypeError` or `ShapeError` for what is no key, `ShapeError` for a negative ``num``.

    >>> split(fastgrad.random.key(0), 3).shape
    (3, 2)
    """
    k0, k1 = words("split", key)
    shape = draw_shape("split", num)
    if math.prod(shape) > 2**32:
        raise ShapeError(f"split: into 2**32 keys at most, got {list(shape)}", at=user_line())
    return _joined(*_pair(k0, k1, _zero(), iota(k0, shape, UINT32)))


def fold_in(key: Any, data: Any) -> Any:
    """The key that an integer makes of ``key``: of a step, a layer, an example. ``data`` may be traced.

    Different integers give keys as good as unrelated. Raises as `key` for ``data`` that is no integer.

    >>> bool((fold_in(fastgrad.random.key(0), 5) == fold_in(fastgrad.random.key(0), np.int8(5))).all())
    True
    """
    k0, k1 = words("fold_in", key)
    if isinstance(data, int) and not isinstance(data, bool):
        if not -(2**63) <= data < 2**64:
            raise ArgumentError(f"fold_in: data has 64 bits at most, got {data}", at=user_line())
        data = np.uint64(data % 2**64)
    value = operand(data)
    kind = aval(value)
    if kind.dtype.kind not in "iu" or kind.shape:
        problem = ShapeError if kind.dtype.kind in "iu" else DTypeError
        raise problem(
            f"fold_in: data is one integer, got {kind}",
            hint="fg.vmap(fg.random.fold_in, (None, 0))(key, data)" if kind.shape else None,
            at=user_line(),
        )
    return _joined(*_pair(k0, k1, *_words(value)))


def bits(key: Any, shape: Any = (), dtype: Any = np.uint32) -> Any:
    """Uniformly random bits as unsigned integers of ``dtype``: uint8, uint16, uint32 or uint64.

    Raises `DTypeError` for another dtype, `ShapeError` for a negative size, both for what is no key.

    >>> bits(fastgrad.random.key(0), (2,))
    array([4070199207, 4202968722], dtype=uint32)
    """
    k0, k1 = words("bits", key)
    dtype = as_dtype(dtype)
    if dtype.kind != "u":
        raise DTypeError(
            f"bits: dtype must be unsigned, got {dtype.name}", hint="fg.random.randint", at=user_line()
        )
    return cast(random_bits(k0, k1, draw_shape("bits", shape), max(32, 8 * dtype.itemsize)), dtype)


def words(op: str, key: Any) -> tuple[Any, Any]:
    """The two words of a key, checked; errors name the function ``op`` that was handed it."""
    if not isinstance(key, Tracer | np.ndarray):
        got = aval(operand(key)) if isinstance(key, int | float | list) else type(key).__name__
        raise DTypeError(f"{op}: a key is u32[2], got {got}", hint=_hint(key), at=user_line())
    kind = aval(key)
    if kind.dtype != UINT32:
        raise DTypeError(f"{op}: a key is u32[2], got {kind}", hint="fg.random.key(seed)", at=user_line())
    if kind.shape != _KEY:
        several = kind.shape[-1:] == _KEY
        hint = f"fg.vmap(lambda key: fg.random.{op}(key, ...))(keys)" if several else "fg.random.key(seed)"
        raise ShapeError(f"{op}: takes one key u32[2], got {kind}", hint=hint, at=user_line())
    return getitem(key, 0), getitem(key, 1)


def _hint(key: Any) -> str:
    return f"fg.random.key({key})" if type(key) is int else "fg.random.key(seed)"


def draw_shape(op: str, shape: Any) -> tuple[int, ...]:
    """A shape argument as a tuple; `ShapeError` where a size is negative."""
    sizes = normalize_shape(op, shape)
    if any(operator.lt(n, 0) for n in sizes):
        raise ShapeError(f"{op}: sizes are not negative, got {list(sizes)}", at=user_line())
    return sizes


def float_dtype(op: str, dtype: Any) -> np.dtype:
    """A dtype argument of a draw of floats; `DTypeError` where it is none."""
    dtype = as_dtype(dtype)
    if dtype.kind != "f":
        raise DTypeError(
            f"{op}: dtype must be float32 or float64, got {dtype.name}",
            hint="fg.random.randint" if dtype.kind in "iu" else "fg.random.bernoulli",
            at=user_line(),
        )
    return dtype


def _zero() -> Literal:
    return Literal(UINT32.type(0))


def _words(value: Any) -> tuple[Any, Any]:
    """The high and the low half of an integer in 64 bits; negative ones of 32 bits and fewer have a high half of 0."""
    if dtype_of(value).itemsize <= 4:
        return _zero(), cast(value, UINT32)
    wide = cast(value, UINT64)
    return cast(shr_p(wide, Literal(UINT64.type(32))), UINT32), cast(wide, UINT32)


def _pair(k0: Any, k1: Any, c0: Any, c1: Any) -> tuple[Any, Any]:
    """Both words of a block."""
    block = threefry_p(k0, k1, c0, c1, bits=64)
    return cast(shr_p(block, Literal(UINT64.type(32))), UINT32), cast(block, UINT32)


def _joined(high: Any, low: Any) -> Any:
    """Two words side by side on a new last axis."""
    if isinstance(high, Literal):
        high = high.value
    axis = len(shape_of(low))
    return concatenate_p(expand_dims(high, axis), expand_dims(low, axis), axis=axis)
