"""Vector mathematics: accuracy, special values, and that loops really vectorise."""

from __future__ import annotations

import platform
import re
from functools import cache

import mpmath
import numba
import numpy as np
import pytest
from numba.extending import intrinsic

from compiled_lines import LANES, Compiled
from exact_functions import EXACT
from fastgrad.codegen.simd import math

FUNCTIONS = sorted(math.UNARY)
F32, F64 = np.dtype("f4"), np.dtype("f8")
inf, nan = float("inf"), float("nan")


@cache
def numba_loop(name: str, fastmath: bool = False):
    build = math.UNARY[name]

    @intrinsic
    def function(typingctx, x):
        return x(x), lambda context, b, signature, args: build(b, args[0])

    flags = {"reassoc", "contract", "nsz", "arcp", "afn"} if fastmath else False

    @numba.njit(error_model="numpy", fastmath=flags)
    def loop(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    return loop


def points64(name: str) -> np.ndarray:
    """Finite float64 points: the interesting range, its borders, every magnitude."""
    rng = np.random.default_rng(5)
    magnitudes = 10.0 ** rng.uniform(-320, 3, 250) * rng.choice([-1.0, 1.0], 250)
    every = rng.integers(0, 2**63, 250, dtype=np.uint64).view(F64)
    quarters = np.arange(1, 100) * (np.pi / 2)
    borders = np.array([0.5, 2**-0.5, 2**0.5, 0.5625, 709.78, 1e300, 5e-324, 2.2e-308, 1e-16, 2.0**40])
    hardest = np.array(
        [6381956970095103 * 2.0**797]
    )  # next to a multiple of pi/2 (Muller et al. 2018, §11.3.2)
    parts = [rng.uniform(-3, 3, 500), rng.uniform(-40, 40, 250), rng.uniform(-745, 709, 250), magnitudes]
    x = np.concatenate([*parts, every, quarters, borders, -borders, np.nextafter(borders, 0), hardest])
    low, high = RANGES.get(name, (-inf, inf))
    return x[np.isfinite(x) & (x > low) & (x < high)]


RANGES = {
    **dict.fromkeys(("log", "log2", "log10", "rsqrt"), (0.0, inf)),
    "log1p": (-1.0, inf),
    **dict.fromkeys(("exp", "expm1"), (-750.0, 709.7)),
    "exp2": (-1080.0, 1024.0),
    **dict.fromkeys(("tanh", "sigmoid", "erf", "gelu_tanh"), (-800.0, 800.0)),
    **dict.fromkeys(("ndtr", "gelu"), (-40.0, 800.0)),
}
"""Where the exact value is a finite float, and not so small that mpmath takes long."""


def run_loop(name: str, x: np.ndarray, **options: bool) -> np.ndarray:
    out = np.empty_like(x)
    numba_loop(name, **options)(x, out)
    return out


@cache
def compiled_math() -> Compiled:
    unary = [(name, (d,), d) for name in math.UNARY for d in (F32, F64)]
    return Compiled(unary + [(name, (d, d), d) for name in math.BINARY for d in (F32, F64)])


def both_forms(name: str, x: np.ndarray) -> dict[str, np.ndarray]:
    d = x.dtype
    return {"loop": run_loop(name, x), "vector": compiled_math()(name, (d,), d, LANES, [x])}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_within_2_ulp(name):
    x = points64(name)
    with mpmath.workprec(256):
        reference = [EXACT[name](mpmath.mpf(v)) for v in x]
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
    "exp2": [
        (0.0, 1.0),
        (-0.0, 1.0),
        (inf, inf),
        (-inf, 0.0),
        (1e4, inf),
        (-1e4, 0.0),
        (10, 1024),
        (-3, 0.125),
    ],
    "log2": [
        (0.0, -inf),
        (-0.0, -inf),
        (1.0, 0.0),
        (1024, 10),
        (0.125, -3),
        (inf, inf),
        (-inf, nan),
        (-1, nan),
    ],
    "log10": [(0.0, -inf), (-0.0, -inf), (1.0, 0.0), (1000, 3), (inf, inf), (-inf, nan), (-1, nan)],
    "sin": [(0.0, 0.0), (-0.0, -0.0), (inf, nan), (-inf, nan), (-1e-40, -1e-40)],
    "cos": [(0.0, 1.0), (-0.0, 1.0), (inf, nan), (-inf, nan), (-1e-40, 1.0)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (30, 1.0), (-30, -1.0)],
    "ndtr": [(0.0, 0.5), (-0.0, 0.5), (inf, 1.0), (-inf, 0.0), (300, 1.0), (-300, 0.0)],
    "gelu": [(0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -0.0), (300, 300), (-300, -0.0)],
    "gelu_tanh": [(0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -0.0), (300, 300), (-300, -0.0)],
    "cbrt": [(0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -inf), (27, 3), (-8, -2), (1, 1)],
    "rsqrt": [(0.0, inf), (-0.0, -inf), (inf, 0.0), (-inf, nan), (-1, nan), (0.25, 2), (4, 0.5)],
}


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(name, dtype):
    x, want = np.array([*SPECIAL[name], (nan, nan), (-nan, nan)], dtype).T.copy()
    twin = np.array([math.TWINS[name](v) for v in x])
    assert twin.dtype == dtype
    np.testing.assert_allclose(twin, want, rtol=np.finfo(dtype).eps)  # NumPy's cube root of 27 is not quite 3
    for y in both_forms(name, x).values():
        np.testing.assert_array_equal(y, want)
        number = ~np.isnan(want)
        np.testing.assert_array_equal(np.signbit(y[number]), np.signbit(want[number]))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_twin_agrees(name):
    for dtype in (F32, F64):
        x = np.linspace(0.01, 20, 301).astype(dtype)
        x = x if name.startswith("log") else np.concatenate([x, -x])
        twin = np.array([math.TWINS[name](v) for v in x])
        tails = 2e-13 if name in ("ndtr", "gelu", "gelu_tanh") else 0.0  # as their references say
        np.testing.assert_allclose(run_loop(name, x), twin, rtol=max(4 * np.finfo(dtype).eps, tails))


def bodies(code: str) -> dict[str, str]:
    """The functions of a module's text, by name."""
    return {m[1]: m[0] for m in re.finditer(r'^define [^@]*@"?([\w.$]+)"?\(.*?^}', code, re.M | re.S)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_loop_is_vectorised_and_stays_in_float32(name):
    run_loop(name, np.ones(4, F32))
    (code,) = [c for s, c in numba_loop(name).inspect_llvm().items() if s[0].dtype == numba.float32]
    functions = bodies(code)
    for function, body in functions.items():
        if function not in math.FLOAT64_IN_FLOAT32:
            assert "fpext" not in body
            assert not re.search(r"\bdouble\b", body)
    if platform.machine() in ("x86_64", "AMD64"):
        loops = "".join(body for function, body in functions.items() if not function.startswith("fastgrad."))
        assert re.search(r"<\d+ x float> @(llvm\.(fma|sqrt)\.v\d+f32|fastgrad\.\w+\.v\d+f32)", loops)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_fastmath_kernels_get_the_same_bits(name):
    x = np.random.default_rng(1).uniform(-20, 20, 1000).astype(F32)
    np.testing.assert_array_equal(run_loop(name, x, fastmath=True), run_loop(name, x))


# pow


def powers(dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Bases and exponents: near 1, of every magnitude, and with results all over the range."""
    rng, n = np.random.default_rng(6), 1500
    top = 80 if dtype == F32 else 700
    x = np.concatenate([rng.uniform(0.1, 4, n), np.exp(rng.uniform(-top, top, 2 * n))])
    y = np.concatenate([rng.choice([-1, 1], n) * 10.0 ** rng.uniform(-3, 3, n), rng.uniform(-2, 2, n)])
    low, high = np.log(np.finfo(dtype).smallest_subnormal), np.log(np.finfo(dtype).max)
    y = np.concatenate([y, rng.uniform(low, high, n) / np.log(x[2 * n :])])
    return x.astype(dtype), y.astype(dtype)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_pow_within_2_ulp(dtype):
    x, y = powers(dtype)
    for lanes in (0, LANES):
        z = compiled_math()("pow", (dtype, dtype), dtype, lanes, [x, y])
        with mpmath.workprec(256):
            for base, exponent, got in zip(x.tolist(), y.tolist(), z, strict=True):
                want = mpmath.mpf(base) ** mpmath.mpf(exponent)
                with np.errstate(over="ignore", under="ignore"):
                    rounded = dtype.type(float(want))
                if np.isinf(rounded):
                    assert got == rounded, (base, exponent, got)
                    continue
                error = abs(mpmath.mpf(float(got)) - want) / float(np.spacing(rounded))
                assert error <= 2, (base, exponent, got, error)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_special_values_of_pow(dtype):
    limits = np.finfo(dtype)
    sizes = [
        0,
        0.5,
        1,
        2,
        2.5,
        3,
        1e30,
        2.0**24 + 1,
        inf,
        nan,
        limits.max,
        limits.tiny,
        limits.smallest_subnormal,
    ]
    edges = np.array([s * v for v in sizes for s in (1, -1)], dtype)
    x, y = (np.ascontiguousarray(g.ravel()) for g in np.meshgrid(edges, edges))
    with np.errstate(all="ignore"):
        want = np.array([math.TWINS["pow"](*pair) for pair in zip(x, y, strict=True)])
    assert want.dtype == dtype
    for lanes in (0, LANES):
        got = compiled_math()("pow", (dtype, dtype), dtype, lanes, [x, y])
        np.testing.assert_allclose(got, want, rtol=4 * limits.eps)
        number = ~np.isnan(want)
        np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(want[number]))
