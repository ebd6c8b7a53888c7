"""Random bits as ops: numbers 0, 1, 2, ..., the generator on them, shuffles.

iota[shape,dtype]                 the numbers of the elements in C order: no memory, whoever reads it counts
threefry[bits](k0, k1, c0, c1)    random bits of a key and a counter, elementwise (`core.counter`)
permutation[n](keys)              0 ... n-1 shuffled, a row for each key

A draw is the generator on an iota, so it fuses with what is made of it, and a batch of keys is broadcasting.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core import counter
from ..core.aval import Aval
from ..core.expr import MapBuilder
from ..core.graph import Literal, joined
from ..core.loops import Library
from ..core.primitive import Primitive
from ..errors import DTypeError, ShapeError
from .comparison import shr_p
from .pointwise import cast, pointwise

UINT32, UINT64 = np.dtype(np.uint32), np.dtype(np.uint64)
_TOO_LONG = 2**32

# --- iota[shape,dtype] ----------------------------------------------------------------------------------------------

iota_p = Primitive(
    "iota",
    abstract=lambda *, shape, dtype: Aval(shape, dtype),
    reference=lambda *, shape, dtype: np.arange(math.prod(shape), dtype=dtype).reshape(shape),
    vjp=lambda ct, out, *, shape, dtype: (),
    jvp=lambda tangents, out, *, shape, dtype: None,
    batch=None,  # it has no operand that could be batched
    kernel=Library("iota"),
)


def iota(like: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """``np.arange`` in ``shape``, in the trace of ``like``."""
    if (builder := joined([like])) is not None:
        return builder.emit(iota_p, (), {"shape": shape, "dtype": dtype})[0]
    return iota_p(shape=shape, dtype=dtype)


# --- threefry[bits] -------------------------------------------------------------------------------------------------


def _threefry_result(*avals: Aval, bits: int) -> tuple[np.dtype, bool]:
    if any(a.dtype != UINT32 for a in avals):
        raise DTypeError(f"threefry: takes uint32, got {', '.join(map(str, avals))}")
    return (UINT32 if bits == 32 else UINT64), False


def _threefry_lines(k: MapBuilder, dtype: np.dtype, k0: int, k1: int, c0: int, c1: int, *, bits: int) -> int:
    return k.line(f"threefry{bits}", k0, k1, c0, c1, dtype=dtype)


threefry_p = pointwise(
    "threefry",
    lambda k0, k1, c0, c1, *, bits: (counter.mixed if bits == 32 else counter.both)(k0, k1, c0, c1),
    _threefry_lines,
    result=_threefry_result,
)


def random_bits(k0: Any, k1: Any, shape: tuple[int, ...], bits: int) -> Any:
    """Words of 32 or 64 random bits: element i of ``shape`` is the generator at counter i."""
    if math.prod(shape) <= _TOO_LONG:
        return threefry_p(k0, k1, Literal(UINT32.type(0)), iota(k0, shape, UINT32), bits=bits)
    number = iota(k0, shape, UINT64)
    high = cast(shr_p(number, Literal(UINT64.type(32))), UINT32)
    return threefry_p(k0, k1, high, cast(number, UINT32), bits=bits)


# --- permutation[n] -------------------------------------------------------------------------------------------------


def _permutation_rule(keys: Aval, *, n: int) -> Aval:
    if keys.dtype != UINT32 or keys.shape[-1:] != (2,):
        raise DTypeError(f"permutation: a key is u32[2], got {keys}")
    if not 0 <= n < _TOO_LONG:
        raise ShapeError(f"permutation: of 0 to 2**32 - 1 elements, got {n}")
    return Aval((*keys.shape[:-1], n), np.dtype(np.int64))


def _permutation_reference(keys: Any, *, n: int) -> np.ndarray:
    """Fisher and Yates' shuffle from the inside out (Knuth, *The Art of Computer Programming* 2, §3.4.2, algorithm P).

    Number i goes to place j, uniform in [0, i] from 64 random bits, and what was there goes to place i.
    """
    keys = np.asarray(keys)
    out = np.empty((*keys.shape[:-1], n), np.int64)
    numbers, half = np.arange(n, dtype=np.uint64), np.uint64(32)
    for row in np.ndindex(keys.shape[:-1]):
        bits = counter.both(keys[row][0], keys[row][1], np.uint32(0), numbers.astype(np.uint32))
        count = numbers + np.uint64(1)
        low = (bits & np.uint64(0xFFFFFFFF)) * count
        places = (((bits >> half) * count + (low >> half)) >> half).tolist()
        shuffled = [0] * n
        for i, j in enumerate(places):
            shuffled[i] = shuffled[j]
            shuffled[j] = i
        out[row] = shuffled
    return out


permutation_p = Primitive(
    "permutation",
    abstract=_permutation_rule,
    reference=_permutation_reference,
    vjp=lambda ct, out, keys, *, n: (None,),
    jvp=lambda tangents, out, keys, *, n: None,
    batch=lambda args, batched, *, n: permutation_p(args[0], n=n),
    kernel=Library("permutation"),
)
