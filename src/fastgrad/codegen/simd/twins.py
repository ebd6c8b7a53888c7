"""What a kernel's text names, and the matrix product in plain Python: obvious, slow, the twin of `microkernel`."""

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
from .tile import Tile, Words


def namespace(jit: bool = True) -> dict[str, Any]:
    """What a kernel's text names: ``matmul`` makes Numba intrinsics, or without ``jit`` their plain Python twins."""
    names: dict[str, Any] = {short_name(dtype): dtype for dtype in DTYPES}
    names |= {"Map": Map, "Line": Line, "Tile": Tile, "inf": np.inf, "nan": np.nan}
    if not jit:
        return names | {"matmul": matmul_twin, "probe": probe_twin}
    from . import microkernel

    return names | {"matmul": microkernel.matmul, "probe": probe}


def matmul_twin(
    dtype: np.dtype, tile: Tile, epilogue: Map, kinds: tuple[Kind, ...], b_unit: bool
) -> Callable[[int, int, int], int]:
    """`microkernel.matmul` in plain Python: the same arguments, descriptor and tiles; rounds each product."""
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
        a = _view(w[0], dtype, (batch, m, k), w[words.a : words.a + 3])
        b_j = 1 if b_unit else w[words.a + 5]
        b = _view(w[1], dtype, (batch, k, n), [*w[words.a + 3 : words.a + 5], b_j])
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


def _view(address: int, dtype: np.dtype, shape: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """The array at an address, its strides in elements."""
    one = np.frombuffer(memoryview((ctypes.c_char * dtype.itemsize).from_address(address)), dtype)
    return np.lib.stride_tricks.as_strided(one, shape, [dtype.itemsize * x for x in strides])


def _evaluate(epilogue: Map, values: list[Any]) -> list[Any]:
    """The Map's lines on scalars; gives its outputs."""
    for op, args, dtype in epilogue.lines:
        if op == "const":
            values.append(dtype.type(args[0]))
        else:
            extra = (dtype,) if op == "cast" else ()
            values.append(lines.TWINS[op](*(values[a] for a in args), *extra))
    return [values[o] for o in epilogue.outputs]
