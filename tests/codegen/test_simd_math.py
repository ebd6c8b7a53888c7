"""Vector mathematics and scalar lines: accuracy, special values, NumPy's meaning, and that loops really vectorise."""

from __future__ import annotations

import ctypes
import itertools
import platform
import re
from functools import cache

import llvmlite.binding as llvm
import mpmath
import numba
import numpy as np
import pytest
from llvmlite import ir
from numba.extending import intrinsic

from fastgrad.codegen.simd import lines, math, vec
from fastgrad.core import counter, quantile
from fastgrad.core.expr import LIBM, LIBM_UNARY

LANES = 8
FUNCTIONS = sorted(math.TWINS)
F32, F64 = np.dtype("f4"), np.dtype("f8")
DTYPES = [np.dtype(c) for c in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")]
inf, nan = float("inf"), float("nan")


# Running what emit() builds. Numba's loops show vectorisation; plain llvmlite compiles hundreds of lines in a second.


@cache
def numba_loop(name: str, fastmath: bool = False):
    build = getattr(math, name)

    @intrinsic
    def function(typingctx, x):
        return x(x), lambda context, b, signature, args: build(b, args[0])

    flags = {"reassoc", "contract", "nsz", "arcp", "afn"} if fastmath else False

    @numba.njit(error_model="numpy", fastmath=flags)
    def loop(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    return loop


def define(module: ir.Module, name: str, op: str, in_dtypes: tuple, out_dtype: np.dtype, lanes: int) -> None:
    """``void name(i64 n, in..., out)``: the line over n elements, ``lanes`` (0: one scalar) at a time."""
    index = ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [index] * (len(in_dtypes) + 2)), name)
    n, *addresses = function.args
    blocks = [function.append_basic_block(label) for label in ("entry", "loop", "done")]
    b = ir.IRBuilder(blocks[0])
    b.branch(blocks[1])
    b.position_at_end(blocks[1])
    i = b.phi(index)

    def element(address: ir.Value, dtype: np.dtype) -> ir.Value:
        offset = b.add(address, b.mul(i, index(dtype.itemsize)))
        return b.inttoptr(offset, lines.memory_type(dtype, lanes).as_pointer())

    args = []
    for address, dtype in zip(addresses, in_dtypes, strict=False):
        value = b.load(element(address, dtype), align=dtype.itemsize, typ=lines.memory_type(dtype, lanes))
        args.append(lines.from_memory(b, value, dtype))
    result = lines.emit(op, b, args, in_dtypes, out_dtype)
    assert result.type == lines.ir_type(out_dtype, lanes)
    b.store(
        lines.to_memory(b, result, out_dtype), element(addresses[-1], out_dtype), align=out_dtype.itemsize
    )
    following = b.add(i, index(lanes or 1))
    i.add_incoming(index(0), blocks[0])
    i.add_incoming(following, b.block)
    b.cbranch(b.icmp_signed("<", following, n), blocks[1], blocks[2])
    ir.IRBuilder(blocks[2]).ret_void()


class Compiled:
    """Every (op, in_dtypes, out_dtype) of ``cases``, for scalars and vectors, in one module."""

    def __init__(self, cases: list) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        module = ir.Module()
        self.names = {}
        for (op, ins, out), lanes in itertools.product(cases, (0, LANES)):
            name = self.names[op, ins, out, lanes] = f"f{len(self.names)}"
            define(module, name, op, ins, out, lanes)
        features = llvm.get_host_cpu_features().flatten()
        target = llvm.Target.from_default_triple()
        machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=1)
        self.engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), machine)
        self.engine.finalize_object()

    def __call__(self, op: str, ins: tuple, out: np.dtype, lanes: int, args: list) -> np.ndarray:
        n = args[0].size
        padded = [np.resize(a, -(-n // LANES) * LANES) for a in args]
        result = np.empty(padded[0].size, out)
        address = self.engine.get_function_address(self.names[op, ins, out, lanes])
        call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * (len(args) + 2))(address)
        call(result.size, *[a.ctypes.data for a in padded], result.ctypes.data)
        return result[:n]


# Accuracy.


def exact(name: str, x: np.ndarray) -> np.ndarray:
    """The function in the dtype of x, used one precision above the one under test."""
    with np.errstate(all="ignore"):
        if name == "sigmoid":
            e = np.exp(-np.abs(x))
            return np.where(x < 0, e, 1) / (1 + e)
        return getattr(np, name)(x)


def exact_mp(name: str, x: float) -> mpmath.mpf:
    x = mpmath.mpf(x)
    return 1 / (1 + mpmath.exp(-x)) if name == "sigmoid" else getattr(mpmath, name)(x)


def points64(name: str) -> np.ndarray:
    """Finite float64 points: the interesting range, its borders, every magnitude."""
    rng = np.random.default_rng(5)
    magnitudes = 10.0 ** rng.uniform(-320, 3, 250) * rng.choice([-1.0, 1.0], 250)
    borders = np.array([0.5, 2**-0.5, 2**0.5, 0.5625, 709.78, 1e300, 5e-324, 2.2e-308, 1e-16])
    parts = [rng.uniform(-3, 3, 500), rng.uniform(-40, 40, 250), rng.uniform(-745, 709, 250), magnitudes]
    x = np.concatenate([*parts, borders, -borders, np.nextafter(borders, 0)])
    lowest = {"log": 0.0, "log1p": -1.0}.get(name, -inf)
    return x[(x > lowest) & ((x < 709.7) | (name in ("log", "log1p", "tanh", "sigmoid")))]


def run_loop(name: str, x: np.ndarray, **options: bool) -> np.ndarray:
    out = np.empty_like(x)
    numba_loop(name, **options)(x, out)
    return out


@cache
def compiled_math() -> Compiled:
    return Compiled([(name, (d,), d) for name in FUNCTIONS for d in (F32, F64)])


def both_forms(name: str, x: np.ndarray) -> dict[str, np.ndarray]:
    d = x.dtype
    return {"loop": run_loop(name, x), "vector": compiled_math()(name, (d,), d, LANES, [x])}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_within_2_ulp_over_a_sweep_of_bit_patterns(name):
    x = np.arange(0, 2**32, 19_997, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = x[~np.isnan(x)]
    reference = exact(name, x.astype(F64))
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = reference.astype(F32)
    finite = np.isfinite(rounded)
    for form, y in both_forms(name, x).items():
        np.testing.assert_array_equal(y[~finite], rounded[~finite], form)
        error = np.abs(y[finite] - reference[finite]) / np.spacing(np.abs(rounded[finite])).astype(F64)
        assert error.max() <= 2, (form, error.max(), x[finite][error.argmax()])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_within_2_ulp(name):
    x = points64(name)
    with mpmath.workprec(160):
        reference = [exact_mp(name, v) for v in x]
        for form, y in both_forms(name, x).items():
            for v, got, want in zip(x, y, reference, strict=True):
                ulp = mpmath.mpf(np.spacing(abs(float(want))))
                assert abs(mpmath.mpf(got) - want) <= 2 * ulp, (form, v, got)


SPECIAL = {
    "exp": [(0.0, 1.0), (-0.0, 1.0), (inf, inf), (-inf, 0.0), (1e3, inf), (-1e3, 0.0)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -1.0), (1e3, inf), (-1e3, -1.0)],
    "log": [(0.0, -inf), (-0.0, -inf), (1.0, 0.0), (inf, inf), (-inf, nan), (-1.0, nan), (-1e-40, nan)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1.0, -inf), (inf, inf), (-inf, nan), (-2.0, nan)],
    "tanh": [
        (0.0, 0.0),
        (-0.0, -0.0),
        (inf, 1.0),
        (-inf, -1.0),
        (1e30, 1.0),
        (-30.0, -1.0),
        (-1e-40, -1e-40),
    ],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (inf, 1.0), (-inf, 0.0), (1e3, 1.0), (-1e3, 0.0)],
}


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(name, dtype):
    x, want = np.array([*SPECIAL[name], (nan, nan), (-nan, nan)], dtype).T.copy()
    twin = np.array([math.TWINS[name](v) for v in x])
    assert twin.dtype == dtype
    for y in (*both_forms(name, x).values(), twin):
        np.testing.assert_array_equal(y, want)
        number = ~np.isnan(want)
        np.testing.assert_array_equal(np.signbit(y[number]), np.signbit(want[number]))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_twin_agrees(name):
    for dtype in (F32, F64):
        x = np.linspace(0.01, 20, 301).astype(dtype)
        x = x if name.startswith("log") else np.concatenate([x, -x])
        twin = np.array([math.TWINS[name](v) for v in x])
        np.testing.assert_allclose(run_loop(name, x), twin, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_loop_is_vectorised_and_stays_in_float32(name):
    run_loop(name, np.ones(4, F32))
    (code,) = [c for s, c in numba_loop(name).inspect_llvm().items() if s[0].dtype == numba.float32]
    assert "fpext" not in code
    assert not re.search(r"\bdouble\b", code)
    if platform.machine() in ("x86_64", "AMD64"):
        assert re.search(r"<\d+ x float> @llvm\.fma\.v\d+f32", code)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_fastmath_kernels_get_the_same_bits(name):
    x = np.random.default_rng(1).uniform(-20, 20, 1000).astype(F32)
    np.testing.assert_array_equal(run_loop(name, x, fastmath=True), run_loop(name, x))


# Scalar lines.

UNARY = {
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "not": np.invert,
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
    "floor": np.floor,
    "ceil": np.ceil,
    "ndtri": quantile.ndtri,
    "plain_log": lambda x: np.where(np.isinf(x), quantile.log(x), exact("log", x)).astype(x.dtype),
    **{name: getattr(np, name) for name in LIBM_UNARY},
    **{name: lambda x, name=name: exact(name, x) for name in FUNCTIONS},
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
FLOAT_ONLY = {"div", "sqrt", "sin", "cos", "ndtri", "plain_log", *LIBM, *FUNCTIONS}
BITWISE = {"and", "or", "xor", "not", "shl", "shr"}
NOT_BOOL = {"sub", "neg", "sign", "floor_divide", "remainder", "pow", "shl", "shr"}
ROUNDED = {
    "pow",
    "sin",
    "cos",
    "plain_log",
    *LIBM,
    *FUNCTIONS,
}  # NumPy's own result is not the correctly rounded one


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
        np.testing.assert_allclose(got, want, rtol=6 * np.finfo(got.dtype).eps)
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
    assert {"pow", "sin", "cos", "floor_divide", "remainder", *LIBM} == lines.OPS - lines.VECTOR_OPS


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
