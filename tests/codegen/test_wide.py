"""Loops in vectors of ours, and the functions by tables that they are for."""

from __future__ import annotations

import ctypes
import re
from functools import cache

import mpmath
import numpy as np
import pytest

from codegen.test_simd_math import SPECIAL, powers
from compiled_lines import Compiled
from exact_functions import exact
from fastgrad.codegen import toolchain
from fastgrad.codegen.simd import lookup, math, vec, wide

F32 = np.dtype("f4")
NAMES = sorted(lookup.UNARY[32])
WIDTHS = (16, 32, 64)
TEXT = """
def kernel(desc, lo, hi):
    x0 = word(desc, 0)
    y0 = word(desc, 1)
    y1 = word(desc, 2)
    n0 = word(desc, 3)
    s0 = const_f32(word(desc, 4))
    for part in range(2):
        m = mask_w4xV(part, lo, n0)
        for i in range(begin_w4xV(part, lo, n0), end_w4xV(part, lo, n0), step_w4xV()):
            ahead_f32_w4xV(x0, i)
            v0 = load_f32_w4xV(x0, i, m)
            t0 = mul(v0, s0)
            t1 = lt(t0, v0)
            t2 = select(t1, t0, s0)
            t3 = cast_i32(t2)
            store0_f32_w4xV(y0, i, m, t2)
            store1_bool_w4xV(y1, i, m, t1)
    return 0
"""
FOLD = """
def kernel(desc, lo, hi):
    x0 = word(desc, 0)
    z0 = word(desc, 1)
    n0 = word(desc, 2)
    f0 = const_f32(word(desc, 3))
    f1 = const_f32(0)
    a0 = each_f32_w4x2(f0)
    a1 = each_f32_w4x2(f1)
    for part in range(2):
        m = mask_w4x2(part, lo, n0)
        for i in range(begin_w4x2(part, lo, n0), end_w4x2(part, lo, n0), step_w4x2()):
            v0 = load_f32_w4x2(x0, i, m)
            a0 = max_(a0, kept_f32_w4x2(m, v0, f0))
            a1 = accumulate_f32(a1, kept_f32_w4x2(m, const_f32(1065353216), f1))
    f0 = max_(f0, total_max_f32_w4x2(a0))
    f1 = accumulate_f32(f1, total_add_f32_w4x2(a1))
    store0_f32(z0, 0, f0)
    store1_f32(z0, 1, f1)
    return 0
"""
with_avx512 = pytest.mark.skipif(wide.lanes(4, 1) == 1, reason="the tables lie in registers of AVX-512")


@cache
def compiled() -> Compiled:
    return Compiled([*((name, (F32,), F32) for name in NAMES), ("pow", (F32, F32), F32)], WIDTHS)


def in_vectors(name: str, x: np.ndarray, lanes: int = 16) -> np.ndarray:
    return compiled()(name, (F32,), F32, lanes, [x])


@with_avx512
@pytest.mark.parametrize("name", NAMES)
def test_special_values(name):
    x, want = np.array([*SPECIAL[name], (np.nan, np.nan), (-np.nan, np.nan)], F32).T.copy()
    for lanes in WIDTHS:
        y = in_vectors(name, x, lanes)
        np.testing.assert_array_equal(y, want)
        number = ~np.isnan(want)
        np.testing.assert_array_equal(np.signbit(y[number]), np.signbit(want[number]))


@with_avx512
@pytest.mark.parametrize("name", NAMES)
def test_within_2_ulp_at_every_exponent(name):
    rng = np.random.default_rng(3)
    with np.errstate(all="ignore"):
        bits = rng.integers(0, 2**32, 1 << 14, dtype=np.uint64).astype(np.uint32)
        x = np.concatenate([bits.view(F32), rng.normal(0, 3, 1 << 14).astype(F32)])
        want = exact(name, x.astype("f8"))
        rounded = want.astype(F32)
        finite = np.isfinite(rounded)
        ulp = np.maximum(2.0**-149, np.exp2(np.frexp(rounded)[1] - 24.0))
        y = in_vectors(name, x)
        error = np.where(finite, np.abs(y - want) / ulp, 0)
    assert error.max() <= 2
    np.testing.assert_array_equal(y[~finite], rounded[~finite])


@with_avx512
@pytest.mark.parametrize("name", NAMES)
def test_lanes_do_not_change_bits(name):
    x = np.random.default_rng(4).normal(0, 4, 640).astype(F32)
    for lanes in WIDTHS[1:]:
        np.testing.assert_array_equal(in_vectors(name, x, lanes), in_vectors(name, x))


@with_avx512
def test_pow_within_2_ulp():
    x, y = powers(F32)
    near = 1 + np.random.default_rng(7).uniform(-1, 1, 3000) * np.exp2(np.linspace(-22, 0, 3000)).astype(F32)
    x = np.concatenate([x, near]).astype(F32)
    with np.errstate(divide="ignore"):
        reach = np.linspace(-104, 89, 3000) / np.log(x[-3000:].astype("f8"))
    y = np.concatenate([y, np.clip(reach, -1e30, 1e30)]).astype(F32)
    z = compiled()("pow", (F32, F32), F32, 16, [x, y])
    with mpmath.workprec(128), np.errstate(over="ignore", under="ignore"):
        for base, exponent, got in zip(x.tolist(), y.tolist(), z, strict=True):
            want = mpmath.mpf(base) ** mpmath.mpf(exponent)
            rounded = F32.type(float(want))
            if np.isinf(rounded):
                assert got == rounded, (base, exponent, got)
                continue
            error = abs(mpmath.mpf(float(got)) - want) / float(np.spacing(rounded))
            assert error <= 2, (base, exponent, got, error)


@with_avx512
def test_special_values_of_pow():
    limits = np.finfo(F32)
    sizes = [
        0,
        0.5,
        1,
        2,
        2.5,
        3,
        1e30,
        2.0**24 + 1,
        np.inf,
        np.nan,
        limits.max,
        limits.tiny,
        limits.smallest_subnormal,
    ]
    edges = np.array([s * v for v in sizes for s in (1, -1)], F32)
    x, y = (np.ascontiguousarray(g.ravel()) for g in np.meshgrid(edges, edges))
    want = np.array([math.TWINS["pow"](*pair) for pair in zip(x, y, strict=True)])
    for lanes in WIDTHS:
        got = compiled()("pow", (F32, F32), F32, lanes, [x, y])
        np.testing.assert_allclose(got, want, rtol=4 * limits.eps)
        number = ~np.isnan(want)
        np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(want[number]))


def run(function, n: int, first: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    guard = 64
    y, less = np.full(n + guard, 7, F32), np.full(n + guard, 7, np.uint8)
    half = int(np.float32(0.5).view(np.uint32))
    desc = np.array([x.ctypes.data, y.ctypes.data, less.ctypes.data, n, half])
    assert function(desc.ctypes.data, first, 0) == 0
    assert (y[n:] == 7).all() and (less[n:] == 7).all()
    assert (y[:first] == 7).all() and (less[:first] == 7).all()
    return y[first:n], less[first:n]


@cache
def loop(vectors: int):
    text = TEXT.replace("V", str(vectors))
    native = toolchain.compile_unit("kernel", text)
    call = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(native.address)
    return native, call, toolchain.define(text, jit=False)


@pytest.mark.parametrize("vectors", [1, 2, 4])
def test_every_length_and_nothing_outside(vectors):
    _, call, plain = loop(vectors)
    for n in [*range(1, 20), 31, 32, 33, 63, 64, 65, 127, 128, 200]:
        x = np.random.default_rng(n).normal(size=n).astype(F32)
        for first in (0, n // 2, n):
            y, less = run(call, n, first, x)
            want = np.where(x > 0, x / 2, np.float32(0.5))[first:]
            np.testing.assert_array_equal(y, want)
            np.testing.assert_array_equal(less, (x > 0)[first:])
            if n < 40:
                for got, twin in zip((y, less), run(plain, n, first, x), strict=True):
                    np.testing.assert_array_equal(got, twin)


@pytest.mark.parametrize("jit", [True, False])
def test_folds_take_every_element_once_and_nothing_else(jit):
    native = toolchain.compile_unit("kernel", FOLD) if jit else None
    call = (
        ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(native.address)
        if native
        else toolchain.define(FOLD, jit=False)
    )
    lowest = int(np.float32(-np.inf).view(np.uint32))
    for n in [*range(20), 31, 32, 33, 63, 64, 65, 200]:
        x = -1 - np.random.default_rng(n).random(n + 40).astype(F32)
        x[n:] = 5
        for broken in (False, True):
            if broken and n:
                x[n // 3] = np.nan
            z = np.zeros(2, F32)
            desc = np.array([x.ctypes.data, z.ctypes.data, n, lowest])
            assert call(desc.ctypes.data, 0, 0) == 0
            np.testing.assert_array_equal(z, [x[:n].max(initial=-np.inf), n])


@with_avx512
def test_a_step_asks_for_what_a_later_one_loads():
    native = loop(2)[0]
    prefetches = native._library.get_asm_str().count("prefetcht0")
    assert prefetches >= 2, "one a vector"


def test_without_avx512_llvm_makes_the_vectors(monkeypatch):
    monkeypatch.setattr(wide, "cpu_features", dict)
    native = toolchain.compile_unit("kernel", TEXT.replace("V", "2") + "\n# in LLVM's vectors\n")
    call = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(native.address)
    x = np.random.default_rng(0).normal(size=77).astype(F32)
    np.testing.assert_array_equal(run(call, 77, 5, x)[0], np.where(x > 0, x / 2, np.float32(0.5))[5:])
    assert re.search(r"store <\d+ x float>", native._library.get_llvm_str())
    assert "masked" not in native._library.get_llvm_str()


def test_a_wide_value_is_a_type_of_its_own():
    assert wide.Wide(F32, 32) == wide.Wide(F32, 32) != wide.Wide(F32, 16)
    assert vec.lanes(wide.lines.ir_type(F32, 32)) == 32
