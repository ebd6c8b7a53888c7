"""Matrix-product kernels against `np.matmul`: sizes, strides, epilogues, tilings, guard zones, the twin."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Sequence
from functools import cache

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import cfunc, int64

from fastgrad.codegen.simd import gemm, twins
from fastgrad.codegen.simd.tile import FAR
from fastgrad.core.expr import Line, Map

F32, F64, BOOL, I32 = (np.dtype(d) for d in ("float32", "float64", "bool", "int32"))
SIZES = (0, 1, 2, 3, 7, 8, 13, 16, 31, 33, 64, 100, 257)
MACHINES: dict[str, dict[str, bool]] = {
    "host": dict(llvm.get_host_cpu_features()),
    "avx2": {"avx2": True, "fma": True},
    "portable": {},
}
Kernel = Callable[[int, int, int], int]


@cache
def kernel(
    dtype: np.dtype,
    b_unit: bool,
    epilogue: Map | None = None,
    kinds: tuple[gemm.Kind, ...] = (),
    machine: str = "host",
    jit: bool = True,
    folds: int = 0,
    moves: bool = False,
) -> tuple[Kernel, gemm.Tile]:
    """A kernel by its text, and its tile."""
    tile = gemm.host_tile(dtype, MACHINES[machine])
    names = twins.namespace(jit)
    exec(gemm.gemm_source(dtype, b_unit, epilogue, kinds, tile, folds, moves=moves), names)
    if not jit:
        return names["kernel"], tile
    compiled = cfunc(int64(int64, int64, int64), error_model="numpy")(names["kernel"])
    kernel.alive.append(compiled)  # type: ignore[attr-defined]
    return compiled.ctypes, tile


kernel.alive = []  # type: ignore[attr-defined]


def strides(x: np.ndarray) -> list[int]:
    return [s // x.itemsize for s in x.strides]


def run(
    built: tuple[Kernel, gemm.Tile],
    a: np.ndarray,
    b: np.ndarray,
    outputs: Sequence[np.ndarray],
    operands: Sequence[np.ndarray] = (),
    literals: Sequence[np.generic] = (),
    row_block: int = 1 << 30,
    splits: Sequence[int] = (),
    packed: str = "",
) -> None:
    """Compute all tiles of a batch of products (every array 3-d), in ranges that end at ``splits``.

    Of ``packed`` operands ("a", "b", "ab") the kernel gets a packed copy alone.
    """
    function, tile = built
    (batch, m, k), n = a.shape, b.shape[2]
    a_strides = [strides(a)[0], tile.rows * strides(a)[1], *strides(a)[1:]]
    b_strides = [strides(b)[0], tile.width * strides(b)[2], *strides(b)[1:]]
    if "a" in packed:
        a = panels(a, tile.rows)
        a_strides = [a[0].size, tile.rows * k, 1, tile.rows]
    if "b" in packed:
        b = panels(b.transpose(0, 2, 1), tile.width)
        b_strides = [b[0].size, tile.width * k, tile.width, 1]
    words = [x.ctypes.data for x in (a, b, *operands, *outputs)] + [batch, m, n, k]
    words += a_strides + b_strides
    words += (
        [s for x in operands for s in strides(x)] + [s for x in outputs for s in strides(x)[:2]] + [row_block]
    )
    words += [int.from_bytes(x.tobytes().ljust(8, b"\xaa"), "little", signed=True) for x in literals]
    desc = np.array(words, np.int64)
    n_tiles = batch * -(-n // tile.width) * -(-m // row_block)
    bounds = [0, *splits, n_tiles]
    for lo, hi in itertools.pairwise(bounds):
        assert function(desc.ctypes.data, lo, hi) == 0


def panels(x: np.ndarray, width: int) -> np.ndarray:
    """[batch, extent, k] as [batch, panels, k, width]; what is beyond the extent may be anything."""
    batch, extent, k = x.shape
    count = -(-extent // width)
    out = np.full((batch, count * width, k), 1e30, x.dtype)
    out[:, :extent] = x
    return np.ascontiguousarray(out.reshape(batch, count, width, k).transpose(0, 1, 3, 2))


def guarded(shape: tuple[int, ...], dtype: np.dtype, margin: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """An array inside a larger one of sentinel bytes: ``(outer, view)``."""
    outer = np.full(
        (shape[0], shape[1] + 2 * margin, shape[2] + 2 * margin), 119, np.dtype(f"u{dtype.itemsize}")
    )
    return outer, outer[:, margin : margin + shape[1], margin : margin + shape[2]].view(dtype)


def assert_close(got: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Within the forward error bound of any order of summation."""
    bound = np.matmul(np.abs(a), np.abs(b), dtype=np.float64) * (a.shape[-1] + 2) * np.finfo(got.dtype).eps
    error = np.abs(got - np.matmul(a, b, dtype=np.float64))
    assert (error <= bound).all(), (a.shape, b.shape, error.max())


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("transpose_a", [False, True], ids=["a", "aT"])
@pytest.mark.parametrize("b_kind", ["b", "b_any", "bT"])
def test_every_size_and_transpose(dtype: np.dtype, transpose_a: bool, b_kind: str) -> None:
    rng = np.random.default_rng(0)
    big = rng.standard_normal((2, 257, 257)).astype(dtype)
    built = kernel(dtype, b_kind == "b")
    for m, n, k in itertools.product(SIZES, SIZES, SIZES):
        a = big[:1, :k, :m].transpose(0, 2, 1) if transpose_a else big[:1, :m, :k]
        b = big[1:, :n, :k].transpose(0, 2, 1) if b_kind == "bT" else big[1:, :k, :n]
        outer, c = guarded((1, m, n), dtype)
        run(built, a, b, [c])
        assert_close(c, a, b)
        c.view(outer.dtype)[:] = 119
        assert (outer == 119).all()


@pytest.mark.parametrize("machine", ["avx2", "portable"])
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_tiles_of_other_machines(machine: str, dtype: np.dtype) -> None:
    rng = np.random.default_rng(1)
    big = rng.standard_normal((2, 33, 33)).astype(dtype)
    for m, n, k in itertools.product((1, 5, 16, 33), (1, 5, 16, 33), (0, 1, 7, 33)):
        for b_unit in (True, False):
            a, b = big[:1, :m, :k], big[1:, :k, :n] if b_unit else big[1:, :n, :k].transpose(0, 2, 1)
            c = np.empty((1, m, n), dtype)
            run(kernel(dtype, b_unit, machine=machine), a, b, [c])
            assert_close(c, a, b)


@pytest.mark.parametrize("b_unit", [True, False])
def test_batch_zero_and_negative_strides(b_unit: bool) -> None:
    rng = np.random.default_rng(2)
    a = rng.standard_normal((3, 14, 50)).astype(F32)[:, ::-1, ::-2]
    b = rng.standard_normal((3, 50, 45)).astype(F32)[::-1, ::-2]
    variants = [(a, b), (np.broadcast_to(a[:1], a.shape), b), (a, np.broadcast_to(b[1:2], b.shape))]
    if not b_unit:
        variants += [
            (a, b[:, :, ::-1]),
            (a, np.broadcast_to(b[:, :, :1], b.shape)),
            (a[:, :, ::2], b[:, ::2, ::3]),
        ]
    for x, y in variants:
        c = np.empty((3, 14, y.shape[2]), F32)
        run(kernel(F32, b_unit), x, y, [c])
        assert_close(c, x, y)


BIAS_RELU = Map(
    (F32, F32), (Line("add", (0, 1), F32), Line("const", (0.0,), F32), Line("max", (2, 3), F32)), (4,)
)
MASK = Map((F32, BOOL), (Line("const", (0.0,), F32), Line("select", (1, 0, 2), F32)), (3,))
TWO_AND_BOOL = Map(  # scale * acc + row value, whether it is positive, and an integer copy
    (F32, F32, F32, F64),
    (
        Line("mul", (0, 2), F32),
        Line("add", (4, 1), F32),
        Line("const", (0.0,), F32),
        Line("gt", (5, 6), BOOL),
        Line("cast", (5,), F64),
        Line("add", (8, 3), F64),
        Line("cast", (5,), I32),
    ),
    (5, 7, 9, 10),
)


def check_epilogues(b_unit: bool, m: int, n: int, k: int, jit: bool) -> None:
    rng = np.random.default_rng(3)
    a = rng.standard_normal((2, m, k)).astype(F32)
    b = rng.standard_normal((2, n, k)).astype(F32).transpose(0, 2, 1)
    b = np.ascontiguousarray(b) if b_unit else b
    sums = np.empty((2, m, n), F32)
    run(kernel(F32, b_unit, jit=jit), a, b, [sums])

    bias = np.broadcast_to(rng.standard_normal(n).astype(F32), sums.shape)
    out = np.empty_like(sums)
    run(kernel(F32, b_unit, BIAS_RELU, ("unit",), jit=jit), a, b, [out], [bias])
    np.testing.assert_array_equal(out, np.maximum(sums + bias, 0))

    mask = rng.random((2, m, n)) > 0.5
    run(kernel(F32, b_unit, MASK, ("unit",), jit=jit), a, b, [out], [mask])
    np.testing.assert_array_equal(out, np.where(mask, sums, 0))

    in_place = bias.copy()  # a residual connection that is overwritten by the result
    run(kernel(F32, b_unit, BIAS_RELU, ("unit",), jit=jit), a, b, [in_place], [in_place], row_block=5)
    np.testing.assert_array_equal(in_place, np.maximum(sums + bias, 0))

    row = np.broadcast_to(rng.standard_normal((2, m, 1)).astype(F32), sums.shape)
    guards, outs = zip(*(guarded(sums.shape, d) for d in (F32, BOOL, F64, I32)), strict=True)
    scale, shift = np.float32(0.5), np.float64(1e-9)
    run(kernel(F32, b_unit, TWO_AND_BOOL, ("zero",), jit=jit), a, b, outs, [row], [scale, shift])
    expected = np.float32(0.5) * sums + row
    np.testing.assert_array_equal(outs[0], expected)
    np.testing.assert_array_equal(outs[1], expected > 0)
    np.testing.assert_array_equal(outs[2], expected.astype(F64) + shift)
    np.testing.assert_array_equal(outs[3], expected.astype(I32))
    for outer, out_ in zip(guards, outs, strict=True):
        out_.view(outer.dtype)[:] = 119
        assert (outer == 119).all()


@pytest.mark.parametrize("b_unit", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 1), (13, 45, 20), (30, 10, 33), (40, 64, 300), (9, 33, 0)])
def test_epilogues(b_unit: bool, shape: tuple[int, int, int]) -> None:
    check_epilogues(b_unit, *shape, jit=True)


@pytest.mark.parametrize("b_unit", [True, False])
def test_without_the_jit(b_unit: bool) -> None:
    check_epilogues(b_unit, 5, 35, 4, jit=False)
    rng = np.random.default_rng(4)
    for m, n, k in ((0, 3, 2), (3, 0, 2), (3, 2, 0), (7, 34, 6)):
        a, b = rng.standard_normal((2, m, k)), rng.standard_normal((2, k, n))
        c, d = np.empty((2, m, n)), np.empty((2, m, n))
        run(kernel(F64, b_unit), a, b, [c], row_block=3)
        run(kernel(F64, b_unit, jit=False), a, b, [d], row_block=3)
        np.testing.assert_allclose(c, d, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_same_bits_for_every_split(dtype: np.dtype) -> None:
    """Row blocks, tile ranges, packed or not, one row or all: an element is always the same chain of operations."""
    rng = np.random.default_rng(5)
    m, n, k = 203, 70, 1100
    a, b = rng.standard_normal((1, m, k)).astype(dtype), rng.standard_normal((1, k, n)).astype(dtype)
    expected = np.empty((1, m, n), dtype)
    run(kernel(dtype, True), a, b, [expected])
    assert_close(expected, a, b)
    turned = np.ascontiguousarray(b.transpose(0, 2, 1)).transpose(0, 2, 1)
    for b_unit, x, row_block in itertools.product((True, False), (b, turned), (1, 5, 12, 64, 203)):
        if b_unit and x is turned:
            continue
        c = np.empty_like(expected)
        run(kernel(dtype, b_unit), a, x, [c], row_block=row_block, splits=(1, 2, 3))
        np.testing.assert_array_equal(c, expected)
    single = np.empty((1, 1, n), dtype)
    run(kernel(dtype, True), a[:, 77:78], b, [single])
    np.testing.assert_array_equal(single[:, 0], expected[:, 77])


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_packed_operands(dtype: np.dtype, machine: str) -> None:
    """The same bits as from operands read where they lie; the twin reads them too."""
    rng = np.random.default_rng(7)
    built = kernel(dtype, True, machine=machine)
    rows = built[1].rows
    for m, n, k in ((1, 1, 1), (14, 32, 5), (31, 70, 9), (130, 50, 1300), (0, 4, 3), (4, 0, 3), (40, 40, 0)):
        a, b = rng.standard_normal((2, m, k)).astype(dtype), rng.standard_normal((2, k, n)).astype(dtype)
        expected = np.empty((2, m, n), dtype)
        run(built, a, b, [expected])
        for packed in ("a", "b", "ab"):
            for row_block in (rows, 3 * rows, 1000 * rows):
                c = np.empty_like(expected)
                run(
                    kernel(dtype, True, machine=machine, moves="b" in packed),
                    a,
                    b,
                    [c],
                    row_block=row_block,
                    packed=packed,
                )
                np.testing.assert_array_equal(c, expected)
        if m * n * k < 20_000:
            c = np.empty_like(expected)
            run(kernel(dtype, True, machine=machine, jit=False), a, b, [c], row_block=rows, packed="ab")
            assert_close(c, a, b)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_panels_that_are_packed_while_others_are_read(dtype: np.dtype, machine: str) -> None:
    """Rows of B far apart, whole panels and a partial one, several row blocks and matrices, K cut and not."""
    rng = np.random.default_rng(8)
    built, turned = (kernel(dtype, b_unit, machine=machine, moves=True) for b_unit in (True, False))
    tile = built[1]
    sizes = [
        (5 * tile.rows, 3 * tile.width + 5, 41),
        (9 * tile.rows + 1, 2 * tile.width, 8),
        (40, 2 * tile.width, 3),
    ]
    sizes += [
        (6 * tile.rows + 3, 3 * tile.width + 1, tile.depth + 7),
        (2 * tile.held, 4 * tile.width, tile.depth + 900),
    ]
    for m, n, k in sizes:
        apart = max(n, FAR // (k * dtype.itemsize)) + 9
        a = rng.standard_normal((2, m, k)).astype(dtype)
        b = np.full((2, k, apart), np.nan, dtype)[:, :, 3 : n + 3]
        b[...] = rng.standard_normal(b.shape)
        expected = np.empty((2, m, n), dtype)
        run(kernel(dtype, False, machine=machine), a, b, [expected])  # packs a panel at one go
        assert_close(expected, a, b)
        count = -(-n // tile.width)
        for row_block in (2 * tile.rows, 4 * tile.rows + 2, 1000):
            for splits in ((), (1, count - 1, count), (count + 1,)):
                dense = np.ascontiguousarray(b.transpose(0, 2, 1)).transpose(
                    0, 2, 1
                )  # comes near, is packed later
                for product, x in ((built, b), (turned, dense)):
                    outer, c = guarded((2, m, n), dtype)
                    run(product, a, x, [c], row_block=row_block, splits=splits)
                    np.testing.assert_array_equal(c, expected)
                    c.view(outer.dtype)[:] = 119
                    assert (outer == 119).all()


RELU_AND_SUM = Map(
    (F32, F32),
    (
        Line("add", (0, 1), F32),
        Line("const", (0.0,), F32),
        Line("max", (2, 3), F32),
        Line("mul", (4, 4), F32),
    ),
    (4, 4, 5),
)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("jit", [True, False])
def test_sums_over_the_rows_of_each_block(machine: str, jit: bool) -> None:
    """The last outputs are added up over a row block, in the order of its rows, beside a store of all of them."""
    rng = np.random.default_rng(9)
    built = kernel(F32, True, RELU_AND_SUM, ("unit",), machine=machine, jit=jit, folds=2)
    shapes = ((1, 1, 1), (47, 70, 5), (14, 32, 3), (60, 33, 9)) if jit else ((5, 70, 3), (9, 3, 2))
    for (m, n, k), row_block in itertools.product(shapes, (1, 5, 14, 100)):
        a, b = rng.standard_normal((2, m, k)).astype(F32), rng.standard_normal((2, k, n)).astype(F32)
        bias = rng.standard_normal((2, m, n)).astype(F32)
        blocks = -(-m // row_block)
        out = np.empty((2, m, n), F32)
        (outer_1, total), (outer_2, squares) = (guarded((2, blocks, n), F32) for _ in range(2))
        splits = (1,) if m * n > 1 and row_block < m else ()  # then a narrow panel is not the last
        run(built, a, b, [out, total, squares], [bias], row_block=row_block, splits=splits)
        for s, i in itertools.product(range(2), range(blocks)):
            rows = out[s, i * row_block : (i + 1) * row_block]
            for got, want in ((total, rows), (squares, rows * rows)):
                in_order = np.zeros(n, F32)
                for row in want:
                    in_order += row
                np.testing.assert_allclose(got[s, i], in_order, rtol=1e-6)
        for outer, view in ((outer_1, total), (outer_2, squares)):
            view.view(outer.dtype)[:] = 119
            assert (outer == 119).all()


@cache
def packer(dtype: np.dtype, lanes: int, width: int, unit: bool, jit: bool) -> Callable[[int, int, int], int]:
    names = twins.namespace(jit)
    exec(gemm.pack_source(dtype, lanes, width, unit), names)
    if not jit:
        return names["kernel"]
    compiled = cfunc(int64(int64, int64, int64), error_model="numpy")(names["kernel"])
    kernel.alive.append(compiled)  # type: ignore[attr-defined]
    return compiled.ctypes


@pytest.mark.parametrize("lanes, width", [(16, 14), (16, 32), (8, 14), (8, 16), (8, 6), (4, 4), (2, 4)])
@pytest.mark.parametrize("jit", [True, False])
def test_packing(lanes: int, width: int, jit: bool) -> None:
    dtype = F32 if lanes != 2 else F64
    rng = np.random.default_rng(8)
    big = rng.standard_normal((3, 200, 200)).astype(dtype)
    for extent, k in ((1, 1), (5, 70), (14, 64), (33, 129), (96, 13)) if jit else ((5, 3), (20, 70)):
        variants = (
            big[:2, :extent, :k],
            big[:2, :k, :extent].transpose(0, 2, 1),
            big[::2, : 2 * extent : 2, k - 1 :: -1],
        )
        for x in variants:
            unit = x.strides[1] == x.itemsize
            expected = panels(x, width)
            out = np.full(expected.size + 80, 7, dtype)
            out = out[-out.ctypes.data % 64 // dtype.itemsize :]  # as in the arena
            desc = np.array([x.ctypes.data, out.ctypes.data, *x.shape, *strides(x)], np.int64)
            slices = 2 * -(-k // 64)
            for lo, hi in ((1, slices), (0, 1)):
                assert packer(dtype, lanes, width, unit, jit)(desc.ctypes.data, lo, hi) == 0
            got = out[: expected.size].reshape(expected.shape)
            np.testing.assert_array_equal(got[expected != 1e30], expected[expected != 1e30])
            assert np.isfinite(got).all()
            assert (out[expected.size :] == 7).all()


@pytest.mark.parametrize("b_unit", [True, False])
def test_nan_and_inf_reach_their_rows_and_columns_only(b_unit: bool) -> None:
    a, b = np.ones((1, 30, 40), F32), np.ones((1, 40, 50), F32)
    a[0, 3, 5], a[0, 29, 0], b[0, 7, 49] = np.nan, np.inf, np.nan
    b = b if b_unit else np.asfortranarray(b[0])[None]
    c = np.empty((1, 30, 50), F32)
    run(kernel(F32, b_unit, BIAS_RELU, ("unit",)), a, b, [c], [np.zeros_like(c)])
    expected = np.full((30, 50), 40, F32)
    expected[29] = np.inf
    expected[3] = expected[:, 49] = np.nan
    np.testing.assert_array_equal(c[0], expected)


def test_memory_beyond_the_operands_is_not_touched() -> None:
    """Operands that end where a page ends; the next page may not be read."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mprotect"):
        pytest.skip("no mprotect")
    import mmap

    def at_the_end(x: np.ndarray) -> np.ndarray:
        pages = mmap.mmap(-1, (x.nbytes // mmap.PAGESIZE + 2) * mmap.PAGESIZE)
        buffer = np.frombuffer(pages, np.uint8)
        boundary = buffer.ctypes.data + buffer.size - mmap.PAGESIZE
        assert libc.mprotect(ctypes.c_void_p(boundary), mmap.PAGESIZE, 0) == 0
        placed = buffer[: buffer.size - mmap.PAGESIZE][-x.nbytes :].view(x.dtype).reshape(x.shape)
        placed[...] = x
        return placed

    rng = np.random.default_rng(6)
    for m, n, k in ((1, 1, 1), (1, 45, 300), (150, 1, 45), (13, 33, 17), (5, 10, 257), (60, 40, 1000)):
        a = at_the_end(rng.standard_normal((1, m, k)).astype(F32))
        b = at_the_end(rng.standard_normal((1, k, n)).astype(F32))
        turned = at_the_end(rng.standard_normal((1, n, k)).astype(F32)).transpose(0, 2, 1)
        c = at_the_end(np.zeros((1, m, n), F32))
        for b_unit, x in ((True, b), (False, b), (False, turned)):
            run(kernel(F32, b_unit), a, x, [c])
            assert_close(c, a, x)
    big = at_the_end(rng.standard_normal((1, 200, 1100)).astype(F32))  # packed while others are read
    a, b = big[:, :70, :200], big[:, :, 1100 - 96 :]
    c = np.zeros((1, 70, 96), F32)
    run(kernel(F32, True, moves=True), a, b, [c])
    assert_close(c, a, b)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_lines_of_a_that_are_fetched(dtype: np.dtype) -> None:
    """Rows of A a multiple of `APART` from each other; steps along k far from each other: the same bits as elsewhere."""
    rng = np.random.default_rng(9)
    for m, n, k in ((30, 64, 512), (45, 33, 515), (29, 7, 600), (28, 96, 9)):
        a, b = rng.standard_normal((1, m, k)).astype(dtype), rng.standard_normal((1, k, n)).astype(dtype)
        results = []
        for apart in (k + 3, -(-k // 512) * 512):
            rows = np.zeros((1, m, apart), dtype)
            rows[:, :, :k] = a
            columns = np.zeros((1, k, 513), dtype)
            columns[:, :, :m] = a.transpose(0, 2, 1)
            for x, moves in itertools.product(
                (rows[:, :, :k], columns[:, :, :m].transpose(0, 2, 1)), (False, True)
            ):
                c = np.empty((1, m, n), dtype)
                run(kernel(dtype, True, moves=moves), x, b, [c])
                assert_close(c, a, b)
                results.append(c)
        assert all(np.array_equal(results[0], other) for other in results)


def test_text_is_a_complete_key() -> None:
    tile = gemm.host_tile(F32, MACHINES["host"])
    text = gemm.gemm_source(F32, True, BIAS_RELU, ("unit",), tile)
    names = twins.namespace()
    exec(text, names)
    assert names["EPILOGUE"] == BIAS_RELU
    assert names["TILE"] == tile
    assert text == gemm.gemm_source(F32, True, BIAS_RELU, ("unit",), tile)
