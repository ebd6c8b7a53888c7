"""Quotients and roots by multiply-adds: every bit of the divider's, and how the work is shared out."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.codegen import target, toolchain
from fastgrad.codegen.divider import by_multiply_adds
from fastgrad.codegen.simd import division, wide
from fastgrad.core.expr import MapBuilder

F32, F64 = np.dtype("f4"), np.dtype("f8")
TEXT = """
def kernel(desc, lo, hi):
    x0 = word(desc, 0)
    x1 = word(desc, 1)
    y0 = word(desc, 2)
    n0 = word(desc, 3)
    for part in range(2):
        m = mask_STEP(part, lo, n0)
        for i in range(begin_STEP(part, lo, n0), end_STEP(part, lo, n0), step_STEP()):
            v0 = load_DTYPE_STEP(x0, i, m)
            v1 = load_DTYPE_STEP(x1, i, m)
            t0 = LINE
            store0_DTYPE_STEP(y0, i, m, t0)
    return 0
"""
LINES = {
    ("div_fma1", F32): "div_fma1(v0, v1)",
    ("div_fma2", F32): "div_fma2(v0, v1)",
    ("div_fma2", F64): "div_fma2(v0, v1)",
    ("sqrt_fma2", F32): "sqrt_fma2(v0)",
}


@cache
def text(name: str, dtype: np.dtype) -> str:
    short, step = {F32: ("f32", "w4x2"), F64: ("f64", "w8x2")}[dtype]
    line = LINES[name, dtype]
    return TEXT.replace("STEP", step).replace("DTYPE", short).replace("LINE", line)


@cache
def native(name: str, dtype: np.dtype):
    return toolchain.compile_unit("kernel", text(name, dtype))


def computed(name: str, x: np.ndarray, y: np.ndarray, jit: bool = True) -> np.ndarray:
    if jit:
        call = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(native(name, x.dtype).address)
    else:
        call = toolchain.define(text(name, x.dtype), jit=False)
    x, y, z = np.ascontiguousarray(x), np.ascontiguousarray(y), np.empty_like(x)
    desc = np.array([x.ctypes.data, y.ctypes.data, z.ctypes.data, x.size])
    assert call(desc.ctypes.data, 0, 0) == 0
    return z


def same_bits(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_array_equal(got, want)  # NaN equals NaN
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(want[number]))


def edges(dtype: np.dtype) -> np.ndarray:
    """Zeros, limits, infinities, NaN, what lies on both sides of the bounds that the branch asks for, all ones."""
    limits = np.finfo(dtype)
    lowest, large = (63, 95) if dtype == F32 else (511, 767)
    one = dtype.type(1)
    powers = [
        np.ldexp(one, e * s) for e in (lowest, lowest + 1, large, large + 1, 2 * lowest) for s in (-1, 1)
    ]
    ends = [
        limits.tiny,
        limits.smallest_subnormal,
        limits.tiny / 2,
        limits.tiny / 4,
        limits.tiny / 8,
        limits.max,
    ]
    ordinary = [
        0.0,
        1.0,
        3.0,
        0.1,
        2 - limits.eps,
        1 + limits.eps,
        np.inf,
        np.nan,
        limits.max / 2,
        limits.max / 4,
    ]
    it = np.array([*ends, *ordinary, *powers], dtype)
    it = np.concatenate([it, np.nextafter(it, dtype.type(0)), np.nextafter(it, dtype.type(np.inf))])
    return np.concatenate([it, -it])


def pairs(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every pair in a whole step of its own: no other lane sends it to the divider."""
    return tuple(np.repeat(g.ravel(), 32) for g in np.meshgrid(x, y))  # type: ignore[return-value]


@pytest.mark.parametrize(("name", "dtype"), LINES)
@pytest.mark.parametrize("jit", [True, False])
def test_special_pairs(name, dtype, jit):
    with np.errstate(all="ignore"):
        x, y = pairs(edges(dtype), edges(dtype))
        if not jit:
            x, y = x[::1001], y[::1001]
        same_bits(computed(name, x, y, jit), np.sqrt(x) if name.startswith("sqrt") else x / y)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_quotients_of_all_kinds(dtype):
    rng, unsigned, n = np.random.default_rng(0), np.dtype(f"u{dtype.itemsize}"), 1 << 16
    top = 60 if dtype == F32 else 500
    with np.errstate(all="ignore"):
        for _ in range(8):
            bits = [rng.integers(0, 2 ** (8 * dtype.itemsize), n, unsigned).view(dtype) for _ in range(2)]
            plain = [np.ldexp(1 + rng.random(n), rng.integers(-top, top, n)).astype(dtype) for _ in range(2)]
            whole = [rng.integers(-999, 1000, n).astype(dtype) for _ in range(2)]
            for x, y in (bits, plain, whole):
                same_bits(computed("div_fma2", x, y), x / y)


def hard(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Significands whose quotient lies next to the middle between two floats: A 2**24 or A 2**25 = d modulo B, d small."""
    numerators, divisors = [], []
    for b in np.random.default_rng(1).integers(2**23, 2**24, count) | 1:
        for power in (24, 25):
            inverse = pow(2, -power, int(b))
            for d in range(-4, 5):
                a = inverse * d % int(b)
                for it in (a, a + int(b)):
                    if 2**23 <= it < 2**24:
                        numerators.append(it)
                        divisors.append(b)
    return np.array(numerators, F32), np.array(divisors, F32)


def test_quotients_next_to_a_tie():
    x, y = hard(20_000)
    assert x.size > 100_000
    same_bits(computed("div_fma2", x, y), x / y)
    n = np.arange(1, 1 << 16)
    ones = 2 - n * 2.0**-52
    for power in (0.5, 1.0, 1.5):
        x = np.full_like(ones, power)
        same_bits(computed("div_fma2", x, ones), x / ones)


def test_roots():
    x = np.arange(0, 2**32, 1009, dtype=np.uint64).astype(np.uint32).view(F32)
    with np.errstate(invalid="ignore"):
        same_bits(computed("sqrt_fma2", x, x), np.sqrt(x))
    whole = np.arange(1 << 16).astype(F32)
    same_bits(computed("sqrt_fma2", whole * whole, whole), whole)


with_estimates = pytest.mark.skipif(
    wide.lanes(4, 1) == 1 or not target.cpu()[0].startswith(division._TRIED),
    reason="for estimates that have been tried",
)


@with_estimates
def test_the_divider_is_for_rare_lanes_and_its_share():
    assembly = native("div_fma2", F32)._library.get_asm_str()
    loop = assembly[: assembly.rindex("vdivps")]
    assert loop.count("vrcp14ps") == 4 and "vptestmd" in loop and "kortest" in loop
    assert "vrsqrt14ps" in native("sqrt_fma2", F32)._library.get_asm_str()


def test_estimates_that_nobody_has_tried_are_not_used(monkeypatch):
    monkeypatch.setattr(division, "cpu", lambda: ("znver4", ""))
    for name, dtype in LINES:
        assembly = toolchain.compile_unit("kernel", text(name, dtype))._library.get_asm_str()
        assert "rcp14" not in assembly and "rsqrt14" not in assembly


def quotients(count: int, *, others: int = 0, same: bool = False, dtype: np.dtype = F32):
    """A Map of so many quotients, by the same divisor or by their own, and so many sums."""
    lines = MapBuilder()
    x, *ys = (lines.input(dtype) for _ in range(1 + count))
    values = [lines.line("div", x, ys[0], dtype=dtype)]
    for y in ys[1:]:
        values.append(lines.line("div", values[-1], ys[0] if same else y, dtype=dtype))
    for _ in range(others):
        values.append(lines.line("add", values[-1], x, dtype=dtype))
    return lines.build([values[-1]], [x, *ys])


def test_shares():
    assert by_multiply_adds(quotients(1), 4, 2) == {0: 1}
    assert by_multiply_adds(quotients(1, others=40), 4, 2) == {}
    assert by_multiply_adds(quotients(1, dtype=F64), 8, 2) == {0: 1}
    assert sum(by_multiply_adds(quotients(3), 4, 2).values()) >= 3
    shared = by_multiply_adds(quotients(3, same=True), 4, 2)
    assert sum(shared.values()) > sum(by_multiply_adds(quotients(3), 4, 2).values())
    assert by_multiply_adds(quotients(1), 4, 2, uniform=[1]) == {0: 2}
    assert by_multiply_adds(quotients(1), 4, 2, uniform=[0, 1]) == {}


def test_what_waits_for_memory_is_not_shared_out():
    assert by_multiply_adds(quotients(1), 4, 2, past=12) == {}
    few, all_of_them = (sum(by_multiply_adds(quotients(4), 4, 2, past=n).values()) for n in (20, 0))
    assert 0 < few < all_of_them


def test_without_division_nothing_is_shared_out():
    lines = MapBuilder()
    x = lines.input(F64)
    it = lines.build([lines.line("sqrt", x, dtype=F64)], [x])
    assert by_multiply_adds(it, 8, 2) == {}
    assert by_multiply_adds(it, 4, 2) == {0: 1}


@pytest.mark.parametrize("dtype", [F32, F64])
def test_a_gradient_with_a_root_and_quotients(dtype):
    def f(x, y):
        return np.sum(x / np.sqrt(1 + y * y))

    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 10_007)).astype(dtype)
    step = fg.jit(fg.grad(f, (0, 1)), threads=1)
    assert "div_fma" in step.compile(x, y).source()
    for got, want in zip(step(x, y), fg.jit(fg.grad(f, (0, 1)), backend="numpy")(x, y), strict=True):
        np.testing.assert_array_equal(got, want)
