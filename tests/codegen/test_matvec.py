"""Products with one row or one column: read as the matrix lies, the same bits for every split."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from codegen.test_gemm import (
    BIAS_RELU,
    F32,
    F64,
    MACHINES,
    TWO_AND_BOOL,
    assert_close,
    guarded,
    kernel,
    run,
)

EXTENTS = (1, 2, 7, 8, 9, 31, 32, 33, 127, 128, 129, 300)
DEPTHS = (0, 1, 3, 16, 17, 40, 300)


def operands(m: int, n: int, k: int, dtype: np.dtype, layout: str) -> tuple[np.ndarray, np.ndarray]:
    """A and B of batch 2 with room around them; T: transposed in memory, S: strided along both axes."""
    rng = np.random.default_rng(m + 7 * n + 31 * k)

    def drawn(rows: int, columns: int, kind: str) -> np.ndarray:
        big = rng.standard_normal((2, 2 * max(rows, columns) + 3, 2 * max(rows, columns) + 3)).astype(dtype)
        if kind == "S":
            return big[:, 1 : 1 + 2 * rows : 2, 2 * columns - 1 :: -2][:, :rows, :columns]
        return big[:, 1 : 1 + columns, :rows].transpose(0, 2, 1) if kind == "T" else big[:, :rows, :columns]

    return drawn(m, k, layout[0]), drawn(k, n, layout[1])


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("layout", ["NN", "NT", "TN", "TT", "SN", "NS", "SS"])
def test_one_row_and_one_column(dtype: np.dtype, layout: str) -> None:
    built = kernel(dtype, layout[1] == "N")
    for extent, k, down in itertools.product(EXTENTS, DEPTHS, (True, False)):
        m, n = (extent, 1) if down else (1, extent)
        a, b = operands(m, n, k, dtype, layout)
        vectors = [(a, b), (a, np.ascontiguousarray(b))] if down else [(a, b), (np.ascontiguousarray(a), b)]
        for x, y in vectors:
            outer, c = guarded((2, m, n), dtype)
            run(built, x, y, [c], row_block=24, splits=(1, 3) if extent > 100 else ())
            assert_close(c, x, y)
            c.view(outer.dtype)[:] = 119
            assert (outer == 119).all()


@pytest.mark.parametrize("machine", ["avx2", "portable"])
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_other_machines(machine: str, dtype: np.dtype) -> None:
    for layout, extent, down in itertools.product(("NN", "NT", "TN", "TT"), (1, 9, 70, 129), (True, False)):
        m, n = (extent, 1) if down else (1, extent)
        a, b = operands(m, n, 21, dtype, layout)
        c = np.empty((2, m, n), dtype)
        run(kernel(dtype, layout[1] == "N", machine=machine), a, b, [c])
        assert_close(c, a, b)


@pytest.mark.parametrize("layout", ["NN", "NT", "TN", "TT"])
def test_same_bits_for_every_split(layout: str) -> None:
    for m, n in ((1, 1000), (1000, 1)):
        a, b = operands(m, n, 130, F32, layout)
        built = kernel(F32, layout[1] == "N")
        expected = np.empty((2, m, n), F32)
        run(built, a, b, [expected])
        for row_block, cuts in itertools.product((1, 8, 37, 128), ((), (1, 2, 3), (5, 40), (7,))):
            tiles = 2 * -(-m // row_block) * -(-n // built[1].width)
            splits = [at for at in cuts if at < tiles]
            c = np.full_like(expected, np.nan)
            run(built, a, b, [c], row_block=row_block, splits=splits)
            np.testing.assert_array_equal(c, expected)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_a_row_has_the_bits_of_that_row_among_others(dtype: np.dtype) -> None:
    for n in (5, 32, 77, 128, 200):
        a, b = operands(20, n, 90, dtype, "NN")
        all_rows, one = np.empty((2, 20, n), dtype), np.empty((2, 1, n), dtype)
        run(kernel(dtype, True), a, b, [all_rows])
        run(kernel(dtype, True), a[:, 6:7], b, [one])
        np.testing.assert_array_equal(one, all_rows[:, 6:7])


@pytest.mark.parametrize("layout", ["NN", "NT", "TN", "TT"])
@pytest.mark.parametrize("m, n", [(1, 150), (150, 1), (1, 1)])
def test_epilogues(layout: str, m: int, n: int) -> None:
    rng = np.random.default_rng(0)
    a, b = operands(m, n, 40, F32, layout)
    b_unit = layout[1] == "N"
    sums = np.empty((2, m, n), F32)
    run(kernel(F32, b_unit), a, b, [sums])
    bias = np.broadcast_to(rng.standard_normal(n).astype(F32), sums.shape)
    outer, out = guarded(sums.shape, F32)
    run(kernel(F32, b_unit, BIAS_RELU, ("unit",)), a, b, [out], [bias], row_block=40)
    np.testing.assert_array_equal(out, np.maximum(sums + bias, 0))
    out.view(outer.dtype)[:] = 119
    assert (outer == 119).all()

    row = np.broadcast_to(rng.standard_normal((2, m, 1)).astype(F32), sums.shape)
    outs = [np.empty(sums.shape, d) for d in ("float32", "bool", "float64", "int32")]
    scale, shift = np.float32(0.5), np.float64(1e-9)
    run(kernel(F32, b_unit, TWO_AND_BOOL, ("zero",)), a, b, outs, [row], [scale, shift])
    expected = scale * sums + row
    for got, wanted in zip(outs, (expected, expected > 0, expected.astype(F64) + shift), strict=False):
        np.testing.assert_array_equal(got, wanted)


def test_nan_and_inf_reach_their_elements_only() -> None:
    for layout, down in itertools.product(("NN", "NT", "TN", "TT"), (True, False)):
        m, n = (90, 1) if down else (1, 90)
        a, b = operands(m, n, 21, F32, layout)
        a[...] = b[...] = 1
        matrix = a if down else b.transpose(0, 2, 1)
        matrix[:, 3, 20], matrix[:, 89, 0] = np.nan, np.inf
        c = np.empty((2, m, n), F32)
        run(kernel(F32, layout[1] == "N"), a, b, [c])
        expected = np.full(90, 21, F32)
        expected[3], expected[89] = np.nan, np.inf
        np.testing.assert_array_equal(c.reshape(2, 90), [expected, expected])


@pytest.mark.parametrize("machine", MACHINES)
def test_the_twin(machine: str) -> None:
    for layout, (m, n) in itertools.product(("NN", "TT"), ((1, 37), (37, 1))):
        a, b = operands(m, n, 19, F64, layout)
        c, d = np.empty((2, m, n)), np.empty((2, m, n))
        run(kernel(F64, layout[1] == "N", machine=machine), a, b, [c], row_block=8)
        run(kernel(F64, layout[1] == "N", machine=machine, jit=False), a, b, [d], row_block=8)
        np.testing.assert_allclose(c, d, rtol=1e-12, atol=1e-13)


def test_more_numbers_than_32_bits_count() -> None:
    try:
        x = np.zeros((1, 1, 2**31 + 100), np.float32)  # pages of zeros take no memory until they are written
    except MemoryError:
        pytest.skip("8 GB of addresses are too many here")
    x[..., 3], x[..., -1] = 5, 2
    c = np.empty((1, 1, 1), np.float32)
    run(kernel(F32, False), x, x.transpose(0, 2, 1), [c])
    assert c == 29


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("layout", ["NN", "NT", "TN"])
def test_where_in_a_line_the_matrix_begins_does_not_matter(dtype: np.dtype, layout: str) -> None:
    """Vectors begin with lines of the matrix: the first and the last one lack lanes, the sums stay the same."""
    built = kernel(dtype, layout[1] == "N")
    line = 64 // dtype.itemsize
    for extent, k in itertools.product(
        (1, 9, 129, 16 * line, 70 * line + 3), (1, 7, 8 * line, 9 * line + 5, 320)
    ):
        m, n = (extent, 1) if layout[0] == "T" else (1, extent)
        rng = np.random.default_rng(extent + k)
        vector = rng.standard_normal(k).astype(dtype)
        rows, columns = (extent, k) if layout[1] == "T" else (k, extent)
        values, results = rng.standard_normal((rows, columns)).astype(dtype), []
        for late in (0, 1, 4, line - 1):
            room = np.empty(values.size + 2 * line, dtype)
            first = (-room.ctypes.data // dtype.itemsize) % line + late
            matrix = room[first : first + values.size].reshape(values.shape)
            matrix[:] = values
            matrix = matrix.T if layout == "NT" else matrix
            a, b = (matrix.T, vector[:, None]) if layout[0] == "T" else (vector[None], matrix)
            outer, c = guarded((1, m, n), dtype)
            run(built, a[None], b[None], [c], row_block=24)
            assert_close(c, a[None], b[None])
            results.append(c.copy())
            c.view(outer.dtype)[:] = 119
            assert (outer == 119).all()
        assert all(np.array_equal(results[0], other) for other in results)


def test_negative_zeros_stay_wherever_the_matrix_begins() -> None:
    """-1e-30 * 1e-30 is -0.0, and so is a sum of those; lanes that are not there must not add 0.0."""
    built, k = kernel(F32, False), 128
    for late in range(16):
        room = np.empty(8 * k + 32, F32)
        first = (-room.ctypes.data // 4) % 16 + late
        matrix = room[first : first + 8 * k].reshape(1, 8, k)
        matrix[:] = -1e-30
        c = np.empty((1, 8, 1), F32)
        run(built, matrix, np.full((1, k, 1), 1e-30, F32), [c])
        assert np.signbit(c).all() and not c.any()
