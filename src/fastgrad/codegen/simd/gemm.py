"""Matrix products: C[b, i, j] = Map(sum_k A[b, i, k] * B[b, k, j], operands...), as the text of one kernel.

The scheme is that of GotoBLAS and BLIS (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication",
2008), with less packing. A tile of C is a row block of one panel (``tile.width`` columns); tiles count row blocks
fastest, then panels, then the batch. Within a tile the microkernel holds ``tile.rows`` x ``tile.width`` sums in
registers, reads A by broadcast with any strides (so A is never packed: it may be a transpose or a view), and leaves the
sums in a scratch tile that stays in the first-level cache. The epilogue's Map then runs over that scratch, row by row,
as vector code, and the outputs are stored: a loop over rows holds the Map's code once, not once a register, which is
what keeps compile time low.

B with unit column stride is read where it lies, unless K is long; any other B is packed, ``tile.depth`` rows of a panel
at a time. Partial sums then wait in the scratch tile, in full, so that every element is the same chain of fused
multiply-adds, k ascending, whatever the row block, the register tile or the packing: every split and both kinds of
kernel give the same bits.

Descriptor, int64 words (`Words` numbers them):

    pointers    A, B, each epilogue operand, each output
    sizes       batch, M, N, K
    strides     in elements, any sign: A (b, i, k), B (b, k, j), each operand (b, i, j), each output (b, i; j is unit)
    row block   rows of C in a tile, 1 or more
    literals    each one's bits in the low bytes of a word

An output may be an operand itself (in place, element for element), and must overlap nothing else.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from ...core.aval import DTYPES, short
from ...core.expr import Line, Map
from . import lines, microkernel
from .tile import Tile, Words, host_tile

__all__ = ["Kind", "Tile", "gemm_source", "host_tile", "matmul_twin", "namespace"]

Kind = Literal["unit", "zero"]


def gemm_source(
    dtype: np.dtype, b_unit: bool, epilogue: Map | None, operand_kinds: tuple[Kind, ...], tile: Tile
) -> str:
    """The kernel's text: Python that runs with or without the JIT, and a complete key of the machine code.

    ``epilogue`` takes the sum, then one value per operand (``unit``: unit column stride; ``zero``: one value a row),
    then its literals. ``b_unit`` promises that B has unit column stride. For a bias and ReLU:

        TILE = Tile(lanes=16, vectors=2, rows=12, tail=4, depth=256, fused=True)
        EPILOGUE = Map((f32, f32, ), (
            Line('add', (0, 1), f32),
            Line('const', (0.0,), f32),
            Line('max', (2, 3), f32),), (4,))
        tiles = matmul(f32, TILE, EPILOGUE, ('unit',), b_unit=True)

        def kernel(desc, lo, hi):
            return tiles(desc, lo, hi)
    """
    epilogue = epilogue or Map((dtype,), (), (0,))
    return (
        f"TILE = {tile!r}\n"
        f"EPILOGUE = {_map_text(epilogue)}\n"
        f"tiles = matmul({_short(dtype)}, TILE, EPILOGUE, {operand_kinds!r}, b_unit={b_unit})\n\n\n"
        "def kernel(desc, lo, hi):\n    return tiles(desc, lo, hi)\n"
    )


def namespace(jit: bool = True) -> dict[str, Any]:
    """What a kernel's text names: ``matmul`` makes Numba intrinsics, or without ``jit`` their plain Python twins."""
    names: dict[str, Any] = {_short(dtype): dtype for dtype in DTYPES}
    names |= {"Map": Map, "Line": Line, "Tile": Tile, "inf": np.inf, "nan": np.nan}
    return names | {"matmul": microkernel.matmul if jit else matmul_twin}


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
            s, j0, i0 = t // blocks // panels, t // blocks % panels * tile.width, t % blocks * row_block
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


def _short(dtype: np.dtype) -> str:
    """`short`, but the name of bool's dtype must not hide Python's own."""
    return "boolean" if dtype.kind == "b" else short(dtype)


def _map_text(epilogue: Map) -> str:
    """A Map as the Python expression that builds it (``repr`` of a float is exact)."""
    lines = "".join(f"\n    Line({op!r}, {args!r}, {_short(dtype)})," for op, args, dtype in epilogue.lines)
    inputs = "".join(f"{_short(d)}, " for d in epilogue.inputs)
    return f"Map(({inputs}), ({lines}), {epilogue.outputs!r})"
