"""Scalar lines: that they mean what NumPy means, on scalars and on vectors, and their twins."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from llvmlite import ir

from compiled_lines import LANES, Compiled
from fastgrad.codegen.simd import lines, math, vec
from fastgrad.core import counter, error_function, quantile
from fastgrad.core.expr import LIBM, LIBM_UNARY

DTYPES = [np.dtype(c) for c in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")]
inf, nan = float("inf"), float("nan")

UNARY = {
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "not": np.invert,
    "sqrt": np.sqrt,
    "floor": np.floor,
    "ceil": np.ceil,
    "ndtri": quantile.ndtri,
    "plain_log": lambda x: np.where(np.isinf(x), quantile.log(x), np.log(x)).astype(x.dtype),
    **{name: getattr(np, name) for name in LIBM_UNARY},
    **{name: getattr(np, name) for name in math.UNARY if hasattr(np, name)},
    "sigmoid": lambda x: np.where(x < 0, np.exp(x), 1) / (1 + np.exp(-np.abs(x))),
    **{name: getattr(error_function, name) for name in ("erf", "ndtr", "gelu", "gelu_tanh")},
    "rsqrt": lambda x: 1 / np.sqrt(x),
}
BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "floor_divide": np.floor_divide,
    "remainder": np.remainder,
    "pow": np.power,
    "max": np.maximum,
    "min": np.minimum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "shl": np.left_shift,
    "shr": np.right_shift,
    "arctan2": np.arctan2,
    "hypot": np.hypot,
}
THREEFRY = {"threefry32": counter.mixed, "threefry64": counter.both}
COMPARISONS = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
NUMPY = {**UNARY, **BINARY, **COMPARISONS, **THREEFRY, "select": np.where}
FLOAT_ONLY = {"div", "sqrt", "ndtri", "plain_log", *LIBM, *math.UNARY}
BITWISE = {"and", "or", "xor", "not", "shl", "shr"}
NOT_BOOL = {"sub", "neg", "sign", "floor_divide", "remainder", "pow", "shl", "shr"}
ROUNDED = {
    "plain_log",
    *LIBM,
    *math.UNARY,
    *math.BINARY,
}  # NumPy's own result is not the correctly rounded one
TAILS = {"ndtr", "gelu", "gelu_tanh"}  # their references know the tails to 1e-13


def defined(op: str, dtype: np.dtype) -> bool:
    if op in THREEFRY:
        return dtype == np.uint32
    if dtype.kind == "f":
        return op not in BITWISE
    return op not in FLOAT_ONLY and not (dtype.kind == "b" and op in NOT_BOOL)


def in_dtypes(op: str, dtype: np.dtype) -> tuple:
    if op == "select":
        return np.dtype(bool), dtype, dtype
    if op in THREEFRY:
        return (dtype,) * 4
    return (dtype,) if op in UNARY else (dtype, dtype)


CASES = [
    (op, in_dtypes(op, d), lines.result(op, in_dtypes(op, d)))
    for op in NUMPY
    for d in DTYPES
    if defined(op, d)
]
CASTS = [("cast", (source,), target) for source in DTYPES for target in DTYPES]


@cache
def compiled_lines() -> Compiled:
    return Compiled(CASES + CASTS)


def values(dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.kind == "f":
        limits = np.finfo(dtype)
        magnitudes = [
            0.0,
            1.0,
            0.3,
            0.5,
            2.5,
            3.0,
            7.0,
            1e10,
            300.7,
            limits.max,
            limits.tiny,
            limits.smallest_subnormal,
        ]
        return np.array([s * m for m in [*magnitudes, inf, nan] for s in (1, -1)], dtype)
    limits = np.iinfo(dtype)
    small = [v for v in (-7, -3, -2, -1, 0, 1, 2, 3, 7, 100) if v >= limits.min]
    return np.array([limits.min, limits.min + 1, *small, limits.max - 1, limits.max], dtype)


def operands(ins: tuple) -> list[np.ndarray]:
    """Every combination of the dtypes' edge values."""
    return [np.ascontiguousarray(g.ravel()) for g in np.meshgrid(*map(values, ins), indexing="ij")]


def numpy_result(op: str, args: list, out: np.dtype) -> np.ndarray:
    """What NumPy gives; for int ** negative and float -> int, where it raises or leaves it open, what lines.py says."""
    if op == "pow" and out.kind == "i":
        x, n = args
        negative = np.where(np.abs(x) == 1, np.power(x, np.where(n < 0, n & 1, 0)), 0)
        return np.where(n < 0, negative, np.power(x, np.maximum(n, 0))).astype(out)
    if op != "cast":
        return NUMPY[op](*args)
    (x,) = args
    if x.dtype.kind != "f" or out.kind not in "iu":
        return x.astype(out)
    limits = np.iinfo(out)
    clipped = [0 if np.isnan(v) else max(min(v, limits.max), limits.min) for v in x.tolist()]
    return np.array([int(v) for v in clipped], out)


def assert_same(got: np.ndarray, want: np.ndarray, op: str) -> None:
    assert got.dtype == want.dtype
    if op in ROUNDED and got.dtype.kind == "f":
        limits = np.finfo(got.dtype)
        rtol = max(6 * limits.eps, 2e-13) if op in TAILS else 6 * limits.eps
        np.testing.assert_allclose(got, want, rtol=rtol, atol=limits.smallest_subnormal)
        return
    np.testing.assert_array_equal(got, want)
    if got.dtype.kind == "f" and op not in ("max", "min"):
        number = ~np.isnan(want)
        np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(want[number]))


@pytest.mark.parametrize("op", [*NUMPY, "cast"])
def test_line_means_what_numpy_means(op):
    for case in [c for c in CASES + CASTS if c[0] == op]:
        _, ins, out = case
        args = operands(ins)
        with np.errstate(all="ignore"):
            want = numpy_result(op, args, out)
        for lanes in (0, LANES):
            assert_same(compiled_lines()(*case, lanes, args), want, op)
        extra = (out,) if op == "cast" else ()
        twin = np.array([lines.TWINS[op](*scalars, *extra) for scalars in zip(*args, strict=True)])
        assert_same(twin, want, op)


def test_tables_agree():
    assert set(lines.TWINS) == lines.OPS == {*NUMPY, "cast"}
    assert {*UNARY, "cast"} == lines.UNARY
    assert set(lines.COMPARISONS) == set(COMPARISONS)
    assert set(THREEFRY) == lines.THREEFRY
    assert {"floor_divide", "remainder", *LIBM} == lines.OPS - lines.VECTOR_OPS


@pytest.mark.parametrize(
    ("op", "dtype"), [("sub", "?"), ("neg", "?"), ("and", "f4"), ("exp", "i4"), ("div", "i8")]
)
def test_undefined_lines_raise(op, dtype):
    d = np.dtype(dtype)
    with pytest.raises(TypeError, match=f"{op}: no scalar operation on {d}"):
        lines.emit(op, ir.IRBuilder(), [], in_dtypes(op, d), d)


def test_constants_and_splats():
    t = vec.widen(vec.F32, 4)
    assert str(vec.const(t, 1.0)) == str(ir.Constant(t, [ir.Constant(vec.F32, 1.0)] * 4))
    assert vec.suffix(t) == "v4f32" and vec.suffix(vec.F64) == "f64" and vec.suffix(ir.IntType(8)) == "i8"
    assert vec.like(t, vec.BIT) == vec.widen(vec.BIT, 4)
