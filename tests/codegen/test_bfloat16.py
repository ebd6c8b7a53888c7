"""Products of bfloat16 operands, each family of kernels: sizes, strides, epilogues, threads, guard zones, NaN, the twin."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

import fastgrad as fg
from codegen.test_jit_off import run_in_python
from fastgrad import passes
from fastgrad.codegen import bfloat16, packing, target, toolchain
from fastgrad.codegen.simd.gemm import pack_bfloat16_source
from fastgrad.codegen.simd.tile import RUN, STRIP
from fastgrad.core.aval import aval_of
from fastgrad.core.bfloat16 import rounded
from fastgrad.core.graph import Graph
from fastgrad.executor.executable import Executable
from fastgrad.passes.precision import lowered
from fastgrad.schedule import Gemm, schedule
from fastgrad.trace import trace

FORMS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "NN": lambda a, b: a @ b,
    "NT": lambda a, b: a @ b.swapaxes(-1, -2),
    "TN": lambda a, b: a.swapaxes(-1, -2) @ b,
    "TT": lambda a, b: a.swapaxes(-1, -2) @ b.swapaxes(-1, -2),
}
FAMILIES = ("tiles", "pairs", "rounded")


def force(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make ``name`` the family of this process, whatever its processor has."""
    monkeypatch.setattr(bfloat16, "amx", lambda: name == "tiles")
    monkeypatch.setattr(bfloat16, "cpu_features", lambda: {"avx512bf16": name == "pairs"})
    monkeypatch.setattr(bfloat16, "cpu", lambda: ("znver4", ""))


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each family that this processor can run."""
    name = request.param
    if name == "tiles" and not target.amx():
        pytest.skip("no AMX")
    if name == "pairs" and not target.cpu_features().get("avx512bf16"):
        pytest.skip("no AVX512_BF16")
    force(monkeypatch, name)
    return name


def operands(form: str, m: int, k: int, n: int, batch: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(m + 7 * k + 31 * n)
    a = rng.standard_normal((*batch, k, m) if form[0] == "T" else (*batch, m, k)).astype(np.float32)
    b = rng.standard_normal((*batch, n, k) if form[1] == "T" else (*batch, k, n)).astype(np.float32)
    return a, b


def marked(f: Callable, arrays: Sequence[np.ndarray]) -> Graph:
    return lowered(passes.run(trace(lambda *xs: [f(*xs)], [aval_of(a) for a in arrays])), "bfloat16")


def assert_product(f: Callable, a: np.ndarray, b: np.ndarray, got: np.ndarray) -> None:
    """Within the error bound of a float32 sum in any order, of products of rounded operands."""
    exact = [rounded(x).astype(np.float64) for x in (a, b)]
    bound = f(*map(np.abs, exact)) * (a.size + 2) * np.finfo(np.float32).eps if a.size else 0
    assert got.dtype == np.float32
    assert (np.abs(got - f(*exact)) <= np.minimum(bound, f(*map(np.abs, exact)) * 3e-5)).all()


@pytest.mark.parametrize("form", FORMS)
def test_every_size_at_one_and_two_threads(family: str, form: str) -> None:
    f = FORMS[form]
    functions = [fg.jit(f, precision="bfloat16", threads=t) for t in (1, 2)]
    sizes = itertools.product((1, 5, 33, 300), (1, 2, 31, 70), (0, 1, 2, 33, 100))
    for m, n, k in [*sizes, (64, 160, 64), (290, 150, 2100), (0, 3, 4), (3, 0, 4)]:
        a, b = operands(form, m, k, n)
        results = [g(a, b) for g in functions]
        assert_product(f, a, b, results[0])
        assert results[0].tobytes() == results[1].tobytes()


@pytest.mark.parametrize("form", FORMS)
def test_batches_and_strides(family: str, form: str) -> None:
    for batch, m, k, n in (((3,), 17, 19, 33), ((2, 2), 40, 64, 5), ((70,), 3, 4, 5)):
        a, b = operands(form, m, k, n, batch)
        assert_product(FORMS[form], a, b, fg.jit(FORMS[form], precision="bfloat16")(a, b))
    a, b = operands("NN", 50, 70, 36)

    def every_other(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a[::2, ::-2] @ b[::2, ::3]

    assert_product(every_other, a, b, fg.jit(every_other, precision="bfloat16")(a, b))


def test_epilogues(family: str) -> None:
    a, b = operands("NN", 45, 70, 37)
    rng = np.random.default_rng(0)
    bias, scale, other = (rng.standard_normal(s).astype(np.float32) for s in ((37,), (45, 1), (45, 37)))

    def f(a, b, bias, scale, other):
        h = a @ b + bias
        return np.maximum(h, 0) * scale + other, np.tanh(h), h > 0, h.sum(0)

    got = fg.jit(f, precision="bfloat16")(a, b, bias, scale, other)
    expected = f(rounded(a), rounded(b), bias, scale, other)
    for x, y in zip(got, expected, strict=True):
        assert x.dtype == y.dtype
        if y.dtype != np.bool_:
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)


def test_nan_and_inf_reach_their_rows_and_columns_only(family: str) -> None:
    a, b = np.ones((30, 41), np.float32), np.ones((41, 50), np.float32)
    a[3, 5], a[29, 40], b[7, 49] = np.nan, np.inf, np.nan
    expected = np.full((30, 50), 41, np.float32)
    expected[29] = np.inf
    expected[3] = expected[:, 49] = np.nan
    for form, f in FORMS.items():
        x, y = (v.T.copy() if letter == "T" else v for v, letter in zip((a, b), form, strict=True))
        np.testing.assert_array_equal(fg.jit(f, precision="bfloat16")(x, y), expected)


def test_every_kind_of_nan_stays_one() -> None:
    bits = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000], np.uint32)
    assert np.isnan(rounded(bits.view(np.float32))).all()


def test_rounding_is_to_nearest_even() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 1 << 32, 100_000, np.uint32)
    halfway = (x & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    for bits in (x, halfway, halfway - np.uint32(1), halfway + np.uint32(1)):
        numbers = bits.view(np.float32)
        numbers = numbers[np.isfinite(numbers)]
        np.testing.assert_array_equal(rounded(numbers), numbers.astype(ml_dtypes.bfloat16).astype(np.float32))


@pytest.mark.parametrize("unit", ["extent", "k", "any"])
@pytest.mark.parametrize("order, width, group", [("rows", 32, 16), ("columns", 32, 16), ("columns", 14, 1)])
def test_packing_is_its_twin_and_stays_within_its_target(
    order: str, width: int, group: int, unit: str
) -> None:
    text = pack_bfloat16_source(order, width, group, unit, 16)
    compiled = toolchain.compile_unit("kernel", text).ctypes
    twin = toolchain.define(text, jit=False)
    rng = np.random.default_rng(3)
    big = rng.standard_normal((3, 150, 150)).astype(np.float32)
    big[:, ::7, ::5] = np.inf
    for extent, k in ((1, 1), (5, 70), (14, 64), (33, 129), (70, 13)):
        x = {
            "extent": big[:2, :k, :extent].transpose(0, 2, 1),
            "k": big[:2, :extent, :k],
            "any": big[::2, : 2 * extent : 2, k - 1 :: -1],
        }[unit]
        panels, pairs = -(-extent // width), bfloat16.pairs_of(k, group)
        size = 2 * panels * pairs * width
        results = []
        for kernel in (compiled, twin):
            room = np.full(size + 96, 0x77777777, np.int32)
            room = room[-room.ctypes.data % 64 // 4 + 16 :][: size + 48]
            strides = [s // 4 for s in x.strides]
            desc = np.array([x.ctypes.data, room.ctypes.data, *x.shape, *strides], np.int64)
            slices = -(-k // STRIP) if unit == "extent" else panels * -(-k // RUN)
            for lo, hi in ((1, 2 * slices), (0, 1)):
                assert kernel(desc.ctypes.data, lo, hi) == 0
            assert (room[size:] == 0x77777777).all()
            out = room[:size].reshape(2, panels, -1)
            if order == "rows":
                out = out.reshape(2, panels, -1, width, 16).transpose(0, 1, 3, 2, 4)
            else:
                out = out.reshape(2, panels, pairs, width).swapaxes(2, 3)
            results.append(out.reshape(2, panels * width, pairs)[:, :extent])
        np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("name", FAMILIES)
def test_kernels_in_plain_python(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, name)
    bias = np.linspace(-1, 1, 35, dtype=np.float32)
    for form, (m, k, n) in {"NN": (37, 35, 35), "TT": (5, 3, 35), "TN": (14, 64, 35)}.items():
        a, b = operands(form, m, k, n)

        def f(a, b, bias, form=form):
            return np.maximum(FORMS[form](a, b) + bias, 0)

        [got] = run_in_python(marked(f, (a, b, bias)), [a, b, bias])
        np.testing.assert_allclose(got, f(rounded(a), rounded(b), bias), rtol=1e-5, atol=1e-5)


def test_the_schedule_says_what_computes_a_product(family: str) -> None:
    a, b = operands("NN", 20, 30, 40)
    text = fg.explain(lambda a, b: a @ b, a, b, stage="schedule", precision="bfloat16")
    assert "k=30 bfloat16" in text
    assert f"{family} " in text
    assert text.count("pack[") == 2
    double = fg.explain(
        lambda a, b: a @ b, a.astype("f8"), b.astype("f8"), stage="schedule", precision="bfloat16"
    )
    assert "bfloat16" not in double


def test_a_refusal_of_tile_registers_leaves_the_other_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Linux says no, the kernels are others: their text is another, and so is their key in the cache."""
    a, b = operands("NN", 40, 40, 40)
    texts = []
    for name in FAMILIES:
        force(monkeypatch, name)
        steps = packing.packed(schedule(marked(FORMS["NN"], (a, b)))).steps
        texts.append([s.form for s in steps if isinstance(s, Gemm)])
    assert texts == [["tiles"], ["pairs"], ["rounded"]]


def test_results_are_written_within_their_arrays(family: str) -> None:
    for m, k, n in ((33, 40, 35), (1, 3, 1), (300, 1100, 130)):
        a, b = operands("NN", m, k, n)
        room = np.full(m * n + 64, 7, np.float32)
        out = room[32 : 32 + m * n].reshape(m, n)
        Executable(marked(FORMS["NN"], (a, b)), threads=2)(a, b, out=[out])
        assert_product(FORMS["NN"], a, b, out)
        assert (room[:32] == 7).all()
        assert (room[32 + m * n :] == 7).all()


TINY = np.float32(2.0**-126)
"""The smallest normal number."""


def products_of(values: Sequence[float], factor: float) -> np.ndarray:
    """Each of ``values`` times ``factor``, by a product in bfloat16."""
    a, b = np.zeros((len(values), 4), np.float32), np.zeros((4, 3), np.float32)
    a[:, 0], b[0] = values, factor
    return fg.jit(lambda a, b: a @ b, precision="bfloat16")(a, b)[:, 0]


def test_what_becomes_of_subnormal_numbers(family: str) -> None:
    """The processor's own instructions take them for zero, as operands and as results; float32 arithmetic keeps them."""
    kept = family == "rounded"
    np.testing.assert_array_equal(
        products_of([TINY, -TINY, TINY / 2, TINY / 64], 2.0**20)[:2], [2.0**-106, -(2.0**-106)]
    )
    np.testing.assert_array_equal(
        products_of([TINY / 2, -TINY / 64], 2.0**20), [2.0**-107, -(2.0**-112)] if kept else [0.0, 0.0]
    )
    np.testing.assert_array_equal(products_of([TINY, 4 * TINY], 0.25), [TINY / 4 if kept else 0.0, TINY])
