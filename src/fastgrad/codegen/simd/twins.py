"""What a kernel's text names, and the matrix product in plain Python: obvious, slow, the twin of `macrokernel`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...core.aval import DTYPES
from ...core.expr import Line, Map
from . import lines
from .gemm import Kind, short_name
from .probe import probe, probe_twin
from .tile import SLICE, Tile, Words


def namespace(jit: bool = True) -> dict[str, Any]:
    """What a kernel's text names: makers of Numba intrinsics, or without ``jit`` of their plain Python twins."""
    names: dict[str, Any] = {short_name(dtype): dtype for dtype in DTYPES}
    names |= {"Map": Map, "Line": Line, "Tile": Tile, "inf": np.inf, "nan": np.nan}
    if not jit:
        return names | {"matmul": matmul_twin, "panels": panels_twin, "probe": probe_twin}
    from . import macrokernel, pack

    return names | {"matmul": macrokernel.matmul, "panels": pack.panels, "probe": probe}


def matmul_twin(
    dtype: np.dtype, tile: Tile, epilogue: Map, kinds: tuple[Kind, ...], b_unit: bool
) -> Callable[[int, int, int], int]:
    """`macrokernel.matmul` in plain Python: the same arguments, descriptor and tiles; rounds each product."""
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
        a = _blocked(w[0], dtype, (batch, m, k), w[words.a : words.a + 4], tile.rows)
        b_j = 1 if b_unit else w[words.a + 7]
        b_strides = [*w[words.a + 4 : words.a + 6], b_j, w[words.a + 6]]
        b = _blocked(w[1], dtype, (batch, n, k), b_strides, tile.width).transpose(0, 2, 1)
        arrays = []
        for x, d in enumerate(dtypes):
            at = words.strides(x)
            s_j = w[at + 2] if x < words.operands else 1
            arrays.append(_view(w[2 + x], d, (batch, m, n), [*w[at : at + 2], s_j]))
        row_block = w[words.row_block]
        blocks, panels = -(-m // row_block), -(-n // tile.width)
        for t in range(lo, hi):
            s, i0, j0 = t // panels // blocks, t // panels % blocks * row_block, t % panels * tile.width
            for i in range(i0, min(m, i0 + row_block)):
                for j in range(j0, min(n, j0 + tile.width)):
                    total = dtype.type(0)
                    for p in range(k):
                        total += a[s, i, p] * b[s, p, j]
                    operands = [x[s, i, j] for x in arrays[: words.operands]]
                    outputs = _evaluate(epilogue, [total, *operands, *literals])
                    for array, value in zip(arrays[words.operands : n_arrays], outputs, strict=True):
                        array[s, i, j] = value
        return 0

    return tiles


def panels_twin(dtype: np.dtype, lanes: int, width: int, unit: bool) -> Callable[[int, int, int], int]:
    """`pack.panels` in plain Python."""

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
                    out[s, i // width, p, i % width] = x[s, i, p] if i < extent else last
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
