"""Matrix products: C[b, i, j] = Map(sum_k A[b, i, k] * B[b, k, j], operands...), as the text of one kernel.

The scheme is that of GotoBLAS and BLIS (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication",
2008), with less packing. A tile of C is a row block of one panel (``tile.width`` columns, but for a narrow one);
tiles count panels fastest, then row blocks, then the batch. Which panel is the narrow one depends on whether a call
has all tiles, so that the calls which share a product must be all of one kind. Within a tile the microkernel holds
``tile.rows`` x ``tile.width`` sums in registers and reads A by broadcast with any strides: it may be a transpose or a
view. A short epilogue runs on the registers. Else the sums go to a scratch tile in the first-level cache and the
epilogue's Map runs over that, row by row: a loop over rows holds the Map's code once, not once a register, which is
what keeps compile time low.

B with unit column stride is read where it lies, unless it spans so much that its rows get in each other's way; any other B
is packed, ``tile.depth`` rows of a panel at a time. Partial sums then wait in the scratch tile, in full, so that every
element is the same chain of fused multiply-adds, k ascending, whatever the row block, the register tile or the packing:
every split and both kinds of kernel give the same bits. Large operands are packed ahead by steps of their own
(`codegen.packing`); one row, or one column, goes to `matvec`.

Descriptor, int64 words (`Words` numbers them):

    pointers    A, B, each epilogue operand, each output
    sizes       batch, M, N, K
    strides     in elements, any sign: A (b, block, i, k), B (b, panel, k, j), each operand (b, i, j), each output (b, i;
                j is unit), or of sums over rows (b, row block)
    row block   rows of C in a tile, 1 or more
    literals    each one's bits in the low bytes of a word

An output may be an operand itself (in place, element for element), and must overlap nothing else.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ...core.aval import short
from ...core.expr import Map
from .tile import Tile, host_tile

__all__ = ["Kind", "Tile", "gemm_source", "host_tile"]

Kind = Literal["unit", "zero"]
Factors = Literal["plain", "rounded", "pairs", "tiles"]
"""What A and B are, in memory: themselves, or packed for ``precision="bfloat16"``: float32 rounded to bfloat16, pairs for
register tiles (`bfloat16.dot`), pairs for AMX's tiles (`amx`)."""


def gemm_source(
    dtype: np.dtype,
    b_unit: bool,
    epilogue: Map | None,
    operand_kinds: tuple[Kind, ...],
    tile: Tile,
    folds: int = 0,
    factors: Factors = "plain",
    moves: bool = False,
) -> str:
    """The kernel's text: Python that runs with or without the JIT, and a complete key of the machine code.

    ``epilogue`` takes the sum, then one value per operand (``unit``: unit column stride; ``zero``: one value a row),
    then its literals; its last ``folds`` outputs are added up over the rows of each row block. ``b_unit`` promises that
    B has unit column stride. ``moves``: the next panel of B comes near while one is read, for a B that is large (it is a
    loop more to compile). For a bias and ReLU:

        TILE = Tile(lanes=16, vectors=2, rows=14, middle=8, tail=4, depth=1024, fused=True)
        EPILOGUE = Map((f32, f32, ), (
            Line('add', (0, 1), f32),
            Line('const', (0.0,), f32),
            Line('max', (2, 3), f32),), (4,))
        tiles = matmul(f32, TILE, EPILOGUE, ('unit',), b_unit=True)

        def kernel(desc, lo, hi):
            return tiles(desc, lo, hi)
    """
    epilogue = epilogue or Map((dtype,), (), (0,))
    if factors == "tiles":
        tiles = f"tile_matmul(TILE, EPILOGUE, {operand_kinds!r})"
    else:
        options = (
            f"b_unit={b_unit}"
            + (f", folds={folds}" if folds else "")
            + (", pairs=True" if factors == "pairs" else "")
            + (", moves=True" if moves else "")
        )
        tiles = f"matmul({short_name(dtype)}, TILE, EPILOGUE, {operand_kinds!r}, {options})"
    return (
        f"TILE = {tile!r}\n"
        f"EPILOGUE = {_map_text(epilogue)}\n"
        f"tiles = {tiles}\n\n\n"
        "def kernel(desc, lo, hi):\n    return tiles(desc, lo, hi)\n"
    )


def pack_source(dtype: np.dtype, lanes: int, width: int, unit: bool, rounded: bool = False) -> str:
    """The text of the kernel that packs an operand into panels (see `pack`)."""
    how = ", rounded=True" if rounded else ""
    return (
        f"tiles = panels({short_name(dtype)}, lanes={lanes}, width={width}, unit={unit}{how})\n\n\n"
        "def kernel(desc, lo, hi):\n    return tiles(desc, lo, hi)\n"
    )


def pack_bfloat16_source(order: str, width: int, group: int, unit: str, lanes: int) -> str:
    """The text of the kernel that packs an operand into pairs of bfloat16 (see `pack_bfloat16`)."""
    return (
        f"tiles = bfloat16_panels({order!r}, {width}, group={group}, unit={unit!r}, lanes={lanes})\n\n\n"
        "def kernel(desc, lo, hi):\n    return tiles(desc, lo, hi)\n"
    )


def short_name(dtype: np.dtype) -> str:
    """`short`, but the name of bool's dtype must not hide Python's own."""
    return "boolean" if dtype.kind == "b" else short(dtype)


def _map_text(epilogue: Map) -> str:
    """A Map as the Python expression that builds it (``repr`` of a float is exact)."""
    lines = "".join(
        f"\n    Line({op!r}, {args!r}, {short_name(dtype)})," for op, args, dtype in epilogue.lines
    )
    inputs = "".join(f"{short_name(d)}, " for d in epilogue.inputs)
    return f"Map(({inputs}), ({lines}), {epilogue.outputs!r})"
