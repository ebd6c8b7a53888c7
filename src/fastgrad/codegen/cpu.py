"""Step -> kernel text for the CPU. It only prints what the schedule fixed; equal structure gives equal text.

A kernel is ``kernel(desc, lo, hi)``: it does tiles ``lo`` to ``hi`` of the step that the int64 words at ``desc`` describe
and returns 0, or a status that the run reports. For ``tanh(x + b)`` on a matrix and a row vector it reads

    def kernel(desc, lo, hi):
        x0 = word(desc, 0)                          # pointers: loads x, stores y, folds z
        x1 = word(desc, 1)
        y0 = word(desc, 2)
        n0 = word(desc, 3)                          # sizes, outermost first
        n1 = word(desc, 4)
        x0_0 = word(desc, 5)                        # outer strides in bytes
        y0_0 = word(desc, 6)
        blocks = quotient(n1 + 4095, 4096)
        for t in range(lo, hi):
            row = quotient(t, blocks)               # a tile is a row, or a block of a long one
            first = (t - row * blocks) * 4096
            last = smaller(first + 4096, n1)
            j0 = row
            x0k = x0 + j0 * x0_0                    # operands at the kept indices
            x1k = x1
            y0k = y0 + j0 * y0_0
            for i in range(first, last):
                v0 = load_f32(x0k, i)
                v1 = load_f32(x1k, i)
                t0 = add(v0, v1)
                t1 = tanh(t0)
                store0_f32(y0k, i, t1)
        return 0
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..core.aval import short
from ..core.expr import LIBM, Map, op_name
from ..core.loops import StrideKind
from ..schedule import Computed, Gemm, Indices, Loop, Pack, Ref, Routine, nest
from .routines import ROUTINES
from .simd.gemm import gemm_source, pack_source
from .simd.tile import AHEAD, SLICE, Tile, host_tile
from .target import cpu_features
from .writer import Word, Writer, scalar_word

LINE_COST = {
    "exp": 1.0,
    "log": 1.2,
    "tanh": 1.2,
    "sigmoid": 1.2,
    "pow": 10.0,
    "sin": 8.0,
    "cos": 8.0,
    **dict.fromkeys(LIBM, 10.0),
    "div": 0.4,
    "sqrt": 0.4,
    "ndtri": 4.0,
    "plain_log": 1.5,
    "threefry32": 1.2,
    "threefry64": 2.4,
}
"""Rough nanoseconds an element in float32; every other line takes 0.06."""


@dataclass(frozen=True, eq=False)
class Source:
    """A step's kernel: its text (the key of the compiled code), descriptor words, number of tiles, a guess of its time."""

    step: Computed
    text: str
    words: tuple[Word, ...]
    tiles: int
    cost_ns: float


def emit(step: Computed) -> Source:
    """The kernel of one step."""
    if isinstance(step, Loop):
        return _loop(step)
    if isinstance(step, Gemm):
        return _gemm(step)
    if isinstance(step, Pack):
        return _pack(step)
    return _routine(step)


class Structure(NamedTuple):
    """All that the text of a loop nest depends on; no size and no stride is among it."""

    map: Map
    constants: tuple[str, ...]  # the Map's, in full: 0.0 and -0.0 compare equal
    kinds: str
    block: int
    partial: bool
    loads: tuple[str, ...]  # what loads them: load_f32, or index_i64 where the index itself is the value
    scalars: tuple[np.dtype, ...]
    stores: tuple[np.dtype, ...]
    folds: tuple[tuple[str, str, np.dtype], ...]  # combine, printed neutral element, dtype
    strides: tuple[tuple[StrideKind, ...], ...]  # of each operand along each axis


def _loop(loop: Loop) -> Source:
    n = nest(loop)
    refs = [*loop.loads, *loop.stores, *(f.ref for f in loop.folds)]
    structure = Structure(
        loop.map,
        _constants(loop.map),
        n.kinds,
        n.block,
        loop.partial,
        tuple(map(_loader, loop.loads)),
        tuple(s.dtype for s in loop.scalars),
        tuple(r.buffer.dtype for r in loop.stores),
        tuple((f.combine, _constant(f.init), f.ref.buffer.dtype) for f in loop.folds),
        tuple(tuple(axis.kind for axis in axes) for axes in n.operands),
    )
    words: list[Word] = [*map(_base, refs), *n.sizes]
    inner = len(n.sizes) - 1
    for ref, axes in zip(refs, n.operands, strict=True):
        for a, axis in enumerate(axes):
            if _reads_stride(axis.kind, a == inner):
                words.append(axis.stride * (1 if a == inner else ref.buffer.dtype.itemsize))
    words += map(scalar_word, loop.scalars)
    lines = sum(LINE_COST.get(line.op, 0.06) for line in loop.map.lines)
    cost = math.prod(n.sizes) * (lines + 0.06 * len(refs)) + 4.0 * n.tiles
    return Source(loop, _loop_text(structure), tuple(words), n.tiles, cost)


def _loader(ref: Ref) -> str:
    return ("index_" if isinstance(ref.buffer, Indices) else "load_") + short(ref.buffer.dtype)


def _base(ref: Ref) -> Word:
    """Where a window begins; indices, which no memory holds, begin at the address of element 0 of an array at 0."""
    return ref.layout.offset * ref.buffer.dtype.itemsize if isinstance(ref.buffer, Indices) else ref


def _reads_stride(kind: StrideKind, inner: bool) -> bool:
    """Whether a kernel reads an operand's stride along an axis; outer ones are in bytes, the inner one in elements."""
    return kind == "run" or (kind == "unit" and not inner)


@lru_cache(maxsize=1024)  # equal steps are printed once
def _loop_text(structure: Structure) -> str:
    return _Nested(structure).text()


def _constants(lines: Map) -> tuple[str, ...]:
    return tuple(repr(line.args[0]) for line in lines.lines if line.op == "const")


class _Nested:
    """The printer of loop nests."""

    def __init__(self, structure: Structure):
        self.s, self.w = structure, Writer()
        n, m, k = len(structure.loads), len(structure.stores), len(structure.folds)
        self.names = [
            *(f"x{i}" for i in range(n)),
            *(f"y{i}" for i in range(m)),
            *(f"z{i}" for i in range(k)),
        ]
        self.dtypes = [*structure.stores, *(dtype for _, _, dtype in structure.folds)]  # of what is written
        self.inner_folded = structure.kinds[-1] == "R"
        self.inner = len(structure.kinds) - 1

    def text(self) -> str:
        w = self.w
        with w.block("def kernel(desc, lo, hi):"):
            self.head()
            with w.block("for t in range(lo, hi):"):
                self.tile()
            w("return 0")
        return w.text()

    def head(self) -> None:
        """Everything that does not change from tile to tile: the descriptor's words, in the order of `_loop`."""
        w, s = self.w, self.s
        for name in self.names:
            w.read(name)
        for a in range(len(s.kinds)):
            w.read(f"n{a}")
        for name, kinds in zip(self.names, s.strides, strict=True):
            for a, kind in enumerate(kinds):
                if _reads_stride(kind, a == self.inner):
                    w.read(f"{name}_{a}")
        for k, dtype in enumerate(s.scalars):
            w(f"s{k} = const_{short(dtype)}(word(desc, {w.word()}))")
        if not self.inner_folded:
            w(f"blocks = quotient(n{self.inner} + {s.block - 1}, {s.block})")

    def tile(self) -> None:
        """One tile: find its kept indices, then run the folded loops and the inner one."""
        w, s = self.w, self.s
        kept = [a for a, kind in enumerate(s.kinds) if kind == "K" and (a != self.inner)]
        left = "t"
        if not self.inner_folded:
            w("row = quotient(t, blocks)")
            w(f"first = (t - row * blocks) * {s.block}")
            w(f"last = smaller(first + {s.block}, n{self.inner})")
            left = "row"
        for a in reversed(kept[1:]):
            w(f"next{a} = quotient({left}, n{a})")
            w(f"j{a} = {left} - next{a} * n{a}")
            left = f"next{a}"
        if kept:
            w(f"j{kept[0]} = {left}")
        for name, kinds in zip(self.names, s.strides, strict=True):
            w(f"{name}k = " + self.address(name, kinds, kept, "j"))
        if s.partial:
            for k, (_, _, dtype) in enumerate(s.folds):
                w(f"z{k}k = z{k} + t * {dtype.itemsize}")
        if "R" in s.kinds or s.partial:
            self.folding([a for a, kind in enumerate(s.kinds) if kind == "R" and a != self.inner])
        else:
            self.inner_loop("k", "first", "last")

    def address(
        self, name: str, kinds: Sequence[StrideKind], over: Sequence[int], index: str, base: str = ""
    ) -> str:
        terms = [f"{index}{a} * {name}_{a}" for a in over if kinds[a] != "zero"]
        return " + ".join([base or name, *terms])

    def folding(self, outer: Sequence[int]) -> None:
        """Folds: into scalars where the inner axis is folded, into a block of results where it is kept."""
        w, s = self.w, self.s
        in_scalars = self.inner_folded or s.partial
        if in_scalars:
            for k, (_, init, _) in enumerate(s.folds):
                w(f"f{k} = {init}")
        else:
            with w.block("for i in range(first, last):"):
                for k, (_, init, _) in enumerate(s.folds):
                    w(f"{self.store(len(s.stores) + k)}, {init})")
        loops = [w.block(f"for r{a} in range(n{a}):") for a in outer]
        for block in loops:
            block.__enter__()
        for name, kinds in zip(self.names, s.strides, strict=True):
            if outer and not (name.startswith("z")):
                w(f"{name}r = " + self.address(name, kinds, outer, "r", f"{name}k"))
        level = "r" if outer else "k"
        bounds = ("0", f"n{self.inner}") if self.inner_folded else ("first", "last")
        self.inner_loop(level, *bounds)
        for block in reversed(loops):
            block.__exit__(None, None, None)
        if in_scalars:
            for k, (_, _, dtype) in enumerate(s.folds):
                w(f"store{len(s.stores) + k}_{short(dtype)}(z{k}k, 0, f{k})")

    def inner_loop(self, level: str, first: str, last: str) -> None:
        """Loads that do not move with the inner axis stand before the loop."""
        w, s = self.w, self.s
        n = len(s.loads)
        fixed = [i for i in range(n) if s.strides[i][self.inner] == "zero"]
        for i in fixed:
            w(f"v{i} = {s.loads[i]}(x{i}{level}, 0)")
        with w.block(f"for i in range({first}, {last}):"):
            for i in range(n):
                if i not in fixed:
                    index = "i" if s.strides[i][self.inner] == "unit" else f"i * x{i}_{self.inner}"
                    w(f"v{i} = {s.loads[i]}(x{i}{level}, {index})")
            names = [f"v{i}" for i in range(n)] + [f"s{k}" for k in range(len(s.scalars))]
            values = _print_lines(w, s.map, names)
            for k in range(len(s.stores)):
                w(f"{self.store(k, level)}, {values[k]})")
            for k in range(len(s.folds)):
                self.fold(k, values[len(s.stores) + k])

    def store(self, k: int, level: str = "k") -> str:
        """``store0_f32(y0k, i`` : the opening of store number ``k``, folds' targets counted after the stores."""
        operand = len(self.s.loads) + k
        kind, name = self.s.strides[operand][self.inner], self.names[operand]
        index = {"unit": "i", "zero": "0", "run": f"i * {name}_{self.inner}"}[kind]
        return f"store{k}_{short(self.dtypes[k])}({name}{level}, {index}"

    def fold(self, k: int, value: str) -> None:
        w, s = self.w, self.s
        combine, _, dtype = s.folds[k]
        if self.inner_folded or s.partial:
            w(f"f{k} = {_combine(combine, short(dtype), f'f{k}', value)}")
            return
        kind, number = s.strides[len(s.loads) + len(s.stores) + k][self.inner], len(s.stores) + k
        index = "i" if kind == "unit" else f"i * z{k}_{self.inner}"
        w(f"g{k} = reload{number}_{short(dtype)}(z{k}k, {index})")
        w(f"{self.store(number)}, {_combine(combine, short(dtype), f'g{k}', value)})")


def _combine(combine: str, short: str, total: str, value: str) -> str:
    return f"accumulate_{short}({total}, {value})" if combine == "add" else f"{combine}_({total}, {value})"


def _constant(value: np.generic) -> str:
    return f"const_{short(value.dtype)}({scalar_word(value)})"


def _print_lines(w: Writer, lines: Map, names: list[str]) -> list[str]:
    """Print a Map as scalar source, its inputs called ``names``; the names of its outputs."""
    values = list(names)
    for k, line in enumerate(lines.lines):
        if line.op == "const":
            values.append(_constant(line.dtype.type(line.args[0])))
            continue
        args = ", ".join(values[a] for a in line.args)
        op = f"cast_{short(line.dtype)}" if line.op == "cast" else op_name(line.op)
        w(f"t{k} = {op}({args})")
        values.append(f"t{k}")
    return [values[o] for o in lines.outputs]


def _gemm(step: Gemm) -> Source:
    """A product's text comes from the microkernel generator; its rows are cut so that both threads find work."""
    dtype = step.a.buffer.dtype
    tile: Tile = host_tile(dtype, cpu_features())
    batch, m, n, k = step.sizes
    b_unit = step.packed_b is not None or step.b.layout.axes[2].kind == "unit"
    kinds = tuple("unit" if r.layout.axes[2].kind == "unit" else "zero" for r in step.loads)
    text = _gemm_text(dtype, b_unit, step.map, _constants(step.map), kinds, tile)
    rows = _row_block(step, tile)
    words: list[Word] = [step.reads[0], step.reads[1], *step.loads, *step.stores]
    words += [batch, m, n, k]
    words += _panels(step.a, step.packed_a, m, k, tile.rows)
    b_batch, b_panel, b_j, b_k = _panels(step.b, step.packed_b, n, k, tile.width, transposed=True)
    words += [b_batch, b_panel, b_k, b_j]
    for ref in step.loads:
        words += [a.stride for a in ref.layout.axes]
    for ref in step.stores:
        words += [a.stride for a in ref.layout.axes[:2]]
    words += [rows, *map(scalar_word, step.scalars)]
    tiles = batch * -(-m // rows) * -(-n // tile.width)
    flops = 2.0 * batch * m * n * max(k, 1)
    return Source(
        step, text, tuple(words), tiles, 20.0 * tiles + flops / (90.0 if dtype.itemsize == 4 else 45.0)
    )


def _panels(
    plain: Ref, packed: Ref | None, extent: int, k: int, width: int, transposed: bool = False
) -> list[int]:
    """Strides of an operand: of the batch, a panel, along the extent within it, along k. B has k first: ``transposed``."""
    if packed is not None:
        return [-(-extent // width) * width * k, width * k, 1, width]
    batch, *axes = (axis.stride for axis in plain.layout.axes)
    along, along_k = reversed(axes) if transposed else axes
    return [batch, width * along, along, along_k]


def _pack(step: Pack) -> Source:
    dtype = step.source.buffer.dtype
    batch, extent, k = step.source.layout.shape
    axes = step.source.layout.axes
    text = pack_source(dtype, host_tile(dtype, cpu_features()).lanes, step.width, axes[1].kind == "unit")
    words: list[Word] = [step.source, step.target, batch, extent, k, *(axis.stride for axis in axes)]
    tiles = batch * -(-k // SLICE)
    return Source(step, text, tuple(words), tiles, 20.0 * tiles + 0.1 * batch * extent * k * dtype.itemsize)


@lru_cache(maxsize=1024)
def _gemm_text(
    dtype: np.dtype, b_unit: bool, lines: Map, constants: tuple[str, ...], kinds: tuple, tile: Tile
) -> str:
    return gemm_source(dtype, b_unit, lines, kinds, tile)


SMALL_B, FEW_ROWS = 1 << 19, 8
"""Bytes of B that each core may well read whole, for so many register tiles of rows: a share of rows for each is then better
than a share of columns. With more rows, or a larger B, it is not."""


NEAR_A = 1 << 19
"""Bytes of A that a tile keeps in the second-level cache while panels of B pass by, where cutting it costs nothing."""


def _row_block(step: Gemm, tile: Tile) -> int:
    """Rows of C per tile: all of them, unless that leaves too few tiles to share between threads, B is small, or A large.

    Loops cut a matrix by rows. Where products do too, a core that takes the first rows of each step finds them in its cache.
    A packed A is cut between register tiles only.
    """
    batch, m, n, k = step.sizes
    size = step.a.buffer.dtype.itemsize
    if 2 * m * n * k <= 200_000:
        return max(1, -(-m // tile.rows)) * tile.rows
    panels = max(1, batch * -(-n // tile.width))
    pieces = -(-8 // panels)
    if batch == 1 and k * n * size <= SMALL_B and 2 * tile.rows <= m <= FEW_ROWS * tile.rows:
        pieces = max(pieces, 2)
    if step.packed_b is not None:
        pieces = max(pieces, -(-m * k * size // NEAR_A), 2)
    share = -(-m // pieces)
    if n == 1:  # what `matvec` sums side by side
        unit = AHEAD if step.a.layout.axes[2].kind == "unit" else AHEAD * tile.lanes
        return -(-share // unit) * unit
    unit = tile.tail if share < 4 * tile.rows and step.packed_a is None else tile.rows
    return -(-share // unit) * unit


def _routine(step: Routine) -> Source:
    routine = ROUTINES[step.name]
    refs = (*step.reads, *step.writes)
    dtypes = tuple(r.buffer.dtype for r in refs)
    tiles = routine.tiles(*step.sizes)
    return Source(
        step, routine.text(*map(short, dtypes)), (*refs, *step.sizes), tiles, routine.cost(*step.sizes)
    )
