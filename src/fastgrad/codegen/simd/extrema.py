"""Folds by max and min of floats that propagate NaN, in one machine instruction a value and a half for NaN.

LLVM's ``maximum`` propagates NaN and orders the zeros: some six instructions, each waiting for the one before. A fold
only has to know at its end whether there was a NaN. So ``max_any`` says of NaN nothing at all (flags nnan, nsz: LLVM
makes many independent maxima of one fold), and NaN is kept apart: as the largest bits without sign, which are an
infinity's or less where there is none, or asked for two values at once. Which of -0.0 and 0.0 is the larger is left
open, as NumPy leaves it.

All but what ends a fold also serve vectors of ours (`simd.wide`).

A value that nnan makes poison meets one ``select`` alone, which then chooses NaN in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core.types import boolean
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from . import lines, variants, vec, wide

ORDER = {"max": ">", "min": "<"}
FLOATS: dict[str, np.dtype] = {"f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}


def _unsigned(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{dtype.itemsize}")


def _infinity(dtype: np.dtype) -> int:
    return int(dtype.type(np.inf).view(_unsigned(dtype)))


def _lanes(numba_type: Any) -> int:
    return numba_type.lanes if isinstance(numba_type, wide.Wide) else 1


def _any(dtype: np.dtype, order: str) -> Callable:
    type_ = from_dtype(dtype)

    @intrinsic
    def any_(typingctx, total, value):  # type: ignore[no-untyped-def]
        def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
            variants.attribute(b.function, '"prefer-vector-width"="512"')
            flags, (x, y) = ("nnan", "nsz"), (wide.splat(b, v, n) for v in args)
            return b.select(b.fcmp_ordered(order, y, x, flags=flags), y, x, flags=flags)

        n = max(_lanes(total), _lanes(value))
        return (wide.Wide(dtype, n)(total, value) if n > 1 else type_(type_, type_)), codegen

    return any_


def _or_nan(dtype: np.dtype, order: str) -> Callable:
    type_ = from_dtype(dtype)

    @intrinsic
    def or_nan(typingctx, total, value, nan):  # type: ignore[no-untyped-def]
        """The total, the value where that beats it, or NaN where ``nan``; a total of NaN is beaten by nothing."""

        def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
            total, value, some = (wide.splat(b, v, n) for v in args)
            best = b.select(b.fcmp_ordered(order, value, total), value, total)
            return b.select(some, vec.const(total.type, math.nan), best)

        n = _lanes(total)
        return (total(total, value, nan) if n > 1 else type_(type_, type_, boolean)), codegen

    return or_nan


def _nan(dtype: np.dtype) -> Callable:
    type_ = from_dtype(dtype)

    @intrinsic
    def nan(typingctx, x, y):  # type: ignore[no-untyped-def]
        def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
            return b.fcmp_unordered("uno", *(wide.splat(b, v, n) for v in args))

        n = max(_lanes(x), _lanes(y))
        return (wide.Wide(np.dtype(bool), n)(x, y) if n > 1 else boolean(type_, type_)), codegen

    return nan


def _nan_bits(dtype: np.dtype) -> Callable:
    type_, bits = from_dtype(dtype), from_dtype(_unsigned(dtype))

    @intrinsic
    def nan_bits(typingctx, total, value):  # type: ignore[no-untyped-def]
        def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
            size = vec.to_bits(b, wide.splat(b, args[1], n))
            size = b.and_(size, vec.const(size.type, (1 << (8 * dtype.itemsize - 1)) - 1))
            return lines.emit("max", b, [args[0], size], (_unsigned(dtype),) * 2, _unsigned(dtype))

        n = _lanes(total)
        return (total(total, value) if n > 1 else bits(bits, type_)), codegen

    return nan_bits


def _nan_for_bits(dtype: np.dtype) -> Callable:
    type_, bits = from_dtype(dtype), from_dtype(_unsigned(dtype))

    @intrinsic
    def nan_for_bits(typingctx, total, most):  # type: ignore[no-untyped-def]
        def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
            some = b.icmp_unsigned(">", args[1], ir.Constant(args[1].type, _infinity(dtype)))
            return b.select(some, vec.const(args[0].type, math.nan), args[0])

        return type_(type_, bits), codegen

    return nan_for_bits


def jit_namespace() -> dict[str, Any]:
    """The names of kernel text, bound to intrinsics."""
    names: dict[str, Any] = {}
    for d, dtype in FLOATS.items():
        for combine, order in ORDER.items():
            names |= {
                f"{combine}_any_{d}": _any(dtype, order),
                f"{combine}_or_nan_{d}": _or_nan(dtype, order),
            }
        names |= {f"nan_{d}": _nan(dtype), f"nan_bits_{d}": _nan_bits(dtype)}
        names[f"nan_for_bits_{d}"] = _nan_for_bits(dtype)
    return names


def python_namespace() -> dict[str, Any]:
    """The same names, bound to plain Python."""
    names: dict[str, Any] = {}
    for d, dtype in FLOATS.items():
        names |= {f"{name}_{d}": twin for name, twin in _twins(dtype).items()}
    return names


def _twins(dtype: np.dtype) -> dict[str, Callable[..., Any]]:
    number, bits, infinity = dtype.type, _unsigned(dtype), _infinity(dtype)
    return {
        "max_any": lambda total, value: value if value > total else total,
        "min_any": lambda total, value: value if value < total else total,
        "max_or_nan": lambda total, value, nan: number(np.nan) if nan else value if value > total else total,
        "min_or_nan": lambda total, value, nan: number(np.nan) if nan else value if value < total else total,
        "nan": lambda x, y: np.isnan(x) or np.isnan(y),
        "nan_bits": lambda total, value: max(total, np.abs(value).view(bits)),
        "nan_for_bits": lambda total, most: number(np.nan) if most > infinity else total,
    }
