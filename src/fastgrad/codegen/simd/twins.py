"""What a kernel's text names, and the matrix product in plain Python: obvious, slow, the twin of `macrokernel`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...core import bfloat16
from ...core.aval import DTYPES
from ...core.bfloat16 import UPPER
from ...core.expr import Line, Map
from . import lines
from .gemm import Kind, short_name
from .probe import probe, probe_twin
from .tile import AMX_COLUMNS, AMX_ROWS, COLUMNS, PAIRS_A_ROW, RUN, SLICE, STRIP, Tile, Words


def namespace(jit: bool = True) -> dict[str, Any]:
    """What a kernel's text names: makers of Numba intrinsics, or without ``jit`` of their plain Python twins."""
    names: dict[str, Any] = {short_name(dtype): dtype for dtype in DTYPES}
    names |= {"Map": Map, "Line": Line, "Tile": Tile, "inf": np.inf, "nan": np.nan}
    makers: tuple[Callable[..., Any], ...]
    if not jit:
        makers = (matmul_twin, tile_matmul_twin, panels_twin, bfloat16_panels_twin, probe_twin)
    else:
        from . import amx, macrokernel, pack, pack_bfloat16

        makers = (macrokernel.matmul, amx.tile_matmul, pack.panels, pack_bfloat16.bfloat16_panels, probe)
    return names | dict(
        zip(("matmul", "tile_matmul", "panels", "bfloat16_panels", "probe"), makers, strict=True)
    )


def matmul_twin(
    dtype: np.dtype,
    tile: Tile,
    epilogue: Map,
    kinds: tuple[Kind, ...],
    b_unit: bool,
    folds: int = 0,
    pairs: bool = False,
    moves: bool = False,
) -> Callable[[int, int, int], int]:
    """`macrokernel.matmul` in plain Python: the same arguments, descriptor and tiles; rounds each product, moves nothing."""
    factor = np.dtype(np.int32) if pairs else dtype

    def factors(w: list[int], at: int, sizes: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        batch, m, n, k = sizes
        a = _blocked(w[0], factor, (batch, m, k), w[at : at + 4], tile.rows)
        b_strides = [*w[at + 4 : at + 6], b_j(w, at), w[at + 6]]
        b = _blocked(w[1], factor, (batch, n, k), b_strides, tile.width)
        return (_numbers(a), _numbers(b)) if pairs else (a, b)

    def b_j(w: list[int], at: int) -> int:
        return 1 if b_unit else w[at + 7]

    def packed_ahead(w: list[int], at: int) -> bool:
        return w[at + 5] != tile.width * b_j(w, at)

    return _product(epilogue, kinds, tile.width, factors, folds, packed_ahead)


def tile_matmul_twin(tile: Tile, epilogue: Map, kinds: tuple[Kind, ...]) -> Callable[[int, int, int], int]:
    """`amx.tile_matmul` in plain Python."""

    def factors(w: list[int], at: int, sizes: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        batch, m, n, steps = sizes
        row, width = PAIRS_A_ROW, AMX_COLUMNS
        strides = [width * row, row, 1]
        a = _panels(w[0], (batch, -(-m // AMX_ROWS), steps, AMX_ROWS, row), [*w[at : at + 2], *strides])
        a = a.transpose(0, 1, 3, 2, 4).reshape(batch, -1, steps * row)[:, :m]
        b = _panels(w[1], (batch, -(-n // width), steps * row, width), [*w[at + 4 : at + 6], width, 1])
        b = b.transpose(0, 1, 3, 2).reshape(batch, -1, steps * row)[:, :n]
        return _numbers(a), _numbers(b)

    return _product(epilogue, kinds, COLUMNS, factors)


def _panels(address: int, shape: tuple[int, ...], strides: Sequence[int]) -> np.ndarray:
    """Packed pairs where they lie."""
    return _view(address, np.dtype(np.int32), shape, strides)


def _numbers(pairs: np.ndarray) -> np.ndarray:
    """The float32 that pairs of bfloat16 along the last axis are."""
    halves = np.ascontiguousarray(pairs).view(np.uint32)
    both = np.stack([halves << np.uint32(16), halves & np.uint32(UPPER)], axis=-1)
    return both.view(np.float32).reshape(*pairs.shape[:-1], 2 * pairs.shape[-1])


def _product(
    epilogue: Map, kinds: tuple[Kind, ...], columns: int, factors: Callable, folds: int = 0,
    in_order: Callable[[list[int], int], bool] = lambda w, at: True,
) -> Callable[[int, int, int], int]:  # fmt: skip
    """The loops of a product, tiles of ``columns``, over what ``factors`` gives: A and B as [batch, m, k], [batch, n, k].

    Where panels need not be ``in_order`` and are shared, the narrow one is not the last (`macrokernel._Panels`).
    """
    dtype = epilogue.inputs[0]
    words = Words(len(kinds), len(epilogue.outputs))
    n_arrays = words.operands + words.outputs
    dtypes = [*epilogue.inputs[1 : 1 + words.operands], *(epilogue.dtype(o) for o in epilogue.outputs)]

    @np.errstate(all="ignore")
    def tiles(desc: int, lo: int, hi: int) -> int:
        literal_dtypes = epilogue.inputs[1 + words.operands :]
        w = _view(desc, np.dtype(np.int64), (words.row_block + 1 + len(literal_dtypes),), (1,)).tolist()
        at = desc + 8 * (words.row_block + 1)
        literals = [_view(at + 8 * x, d, (1,), (1,))[0] for x, d in enumerate(literal_dtypes)]
        batch, m, n, k = w[words.sizes : words.a]
        a, b = factors(w, words.a, (batch, m, n, k))
        arrays = []
        for x, d in enumerate(dtypes):
            at = words.strides(x)
            s_j = w[at + 2] if x < words.operands else 1
            arrays.append(_view(w[2 + x], d, (batch, m, n), [*w[at : at + 2], s_j]))
        row_block = w[words.row_block]
        blocks, panels = -(-m // row_block), -(-n // columns)
        folded = arrays[n_arrays - folds :]
        last = panels == 2 or hi - lo == batch * blocks * panels or in_order(w, words.a)
        narrow, missing = (panels - 1 if last else (panels - 1) // 2), panels * columns - n
        for t in range(lo, hi):
            band, panel = divmod(t, panels)
            j0 = panel * columns - missing * (panel > narrow)
            j1 = j0 + columns - missing * (panel == narrow)
            s, i0 = band // blocks, band % blocks * row_block
            for array in folded:
                array[s, band % blocks, j0:j1] = 0
            for i in range(i0, min(m, i0 + row_block)):
                for j in range(j0, j1):
                    total = dtype.type(0)
                    for p in range(a.shape[2]):
                        total += a[s, i, p] * b[s, j, p]
                    operands = [x[s, i, j] for x in arrays[: words.operands]]
                    outputs = _evaluate(epilogue, [total, *operands, *literals])
                    for x, (array, value) in enumerate(
                        zip(arrays[words.operands : n_arrays], outputs, strict=True)
                    ):
                        if x < words.outputs - folds:
                            array[s, i, j] = value
                        else:
                            array[s, i0 // row_block, j] += value
        return 0

    return tiles


def panels_twin(
    dtype: np.dtype, lanes: int, width: int, unit: bool, rounded: bool = False
) -> Callable[[int, int, int], int]:
    """`pack.panels` in plain Python."""
    value = bfloat16.rounded if rounded else np.asarray

    def tiles(desc: int, lo: int, hi: int) -> int:
        source, target, batch, extent, k, *strides = _view(desc, np.dtype(np.int64), (8,), (1,)).tolist()
        x = _view(source, dtype, (batch, extent, k), [strides[0], 1 if unit else strides[1], strides[2]])
        count, slices = -(-extent // width), -(-k // SLICE)
        out = _view(target, dtype, (batch, count, k, width), [count * k * width, k * width, width, 1])
        for t in range(lo, hi):
            s, first = t // slices, t % slices * SLICE
            for p in range(first, min(k, first + SLICE)):
                for i in range(count * width):
                    last = dtype.type(0) if unit else x[s, extent - 1, p]
                    out[s, i // width, p, i % width] = value(x[s, i, p]) if i < extent else last
        return 0

    return tiles


def bfloat16_panels_twin(
    order: str, width: int, group: int, unit: str, lanes: int = 16
) -> Callable[[int, int, int], int]:
    """`pack_bfloat16.bfloat16_panels` in plain Python; beyond the extent it leaves what was there."""
    step = STRIP if unit == "extent" else RUN

    def tiles(desc: int, lo: int, hi: int) -> int:
        source, target, batch, extent, k, *strides = _view(desc, np.dtype(np.int64), (8,), (1,)).tolist()
        x = _view(source, np.dtype(np.float32), (batch, extent, k), strides)
        count, slices, pairs = -(-extent // width), -(-k // step), -(-k // (2 * group)) * group
        alone = 1 if unit == "extent" else count
        out = _view(
            target,
            np.dtype(np.int32),
            (batch, count, pairs * width),
            [count * pairs * width, pairs * width, 1],
        )
        for t in range(lo, hi):
            s, only, piece = t // slices // alone, t // slices % alone, t % slices
            end = min(pairs, (piece + 1) * step // 2)
            for q in range(count) if unit == "extent" else (only,):
                for p in range(piece * step // 2, end):
                    for j in range(min(width, extent - q * width)):
                        place = p * width + j
                        if order == "rows":
                            place = p // PAIRS_A_ROW * width * PAIRS_A_ROW + j * PAIRS_A_ROW + p % PAIRS_A_ROW
                        both = np.zeros(2, np.float32)
                        part = x[s, q * width + j, 2 * p : 2 * p + 2]
                        both[: part.size] = bfloat16.rounded(part)
                        out[s, q, place] = (
                            (both.view(np.uint32) >> np.uint32(16)).astype(np.uint16).view(np.int32)[0]
                        )
        return 0

    return tiles


def _view(address: int, dtype: np.dtype, shape: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """The array at an address, its strides in elements."""
    one = np.frombuffer(memoryview((ctypes.c_char * dtype.itemsize).from_address(address)), dtype)
    return np.lib.stride_tricks.as_strided(one, shape, [dtype.itemsize * x for x in strides])


def _blocked(
    address: int, dtype: np.dtype, shape: tuple[int, int, int], strides: Sequence[int], block: int
) -> np.ndarray:
    """[batch, rows, k] whose rows lie in blocks: strides of the batch, of a block, of a row within it, of k."""
    batch, rows, k = shape
    parts = [np.empty((batch, 0, k), dtype)]
    for first in range(0, rows, block):
        at = address + first // block * strides[1] * dtype.itemsize
        inner = (batch, min(block, rows - first), k)
        parts.append(_view(at, dtype, inner, [strides[0], *strides[2:]]))
    return np.concatenate(parts, axis=1)


def _evaluate(epilogue: Map, values: list[Any]) -> list[Any]:
    """The Map's lines on scalars; gives its outputs."""
    for op, args, dtype in epilogue.lines:
        if op == "const":
            values.append(dtype.type(args[0]))
        else:
            extra = (dtype,) if op == "cast" else ()
            values.append(lines.TWINS[op](*(values[a] for a in args), *extra))
    return [values[o] for o in epilogue.outputs]
