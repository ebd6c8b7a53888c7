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

import numpy as np

from ..core.aval import short
from ..core.expr import Map, op_name
from ..core.loops import Axis
from ..schedule import Fold, Gemm, Loop, Nest, Routine, Step, nest
from .routines import ROUTINES
from .simd.gemm import gemm_source
from .simd.tile import Tile, host_tile
from .target import cpu_features
from .writer import Word, Writer

LINE_COST = {
    "exp": 1.0,
    "log": 1.2,
    "tanh": 1.2,
    "sigmoid": 1.2,
    "pow": 10.0,
    "sin": 8.0,
    "cos": 8.0,
    "div": 0.4,
    "sqrt": 0.4,
}
"""Rough nanoseconds an element in float32; every other line takes 0.06."""


@dataclass(frozen=True, eq=False)
class Source:
    """A step's kernel: its text (the key of the compiled code), descriptor words, number of tiles, a guess of its time."""

    step: Step
    text: str
    words: tuple[Word, ...]
    tiles: int
    cost_ns: float


def emit(step: Step) -> Source:
    """The kernel of one step."""
    if isinstance(step, Loop):
        return _Nested(step, nest(step)).emit()
    if isinstance(step, Gemm):
        return _gemm(step)
    return _routine(step)


class _Nested:
    """The printer of loop nests."""

    def __init__(self, loop: Loop, nest: Nest):
        self.loop, self.nest, self.w = loop, nest, Writer()
        self.refs = [*loop.loads, *loop.stores, *(f.ref for f in loop.folds)]
        n, m = len(loop.loads), len(loop.stores)
        self.names = (
            [f"x{i}" for i in range(n)]
            + [f"y{i}" for i in range(m)]
            + [f"z{i}" for i in range(len(loop.folds))]
        )
        self.inner_folded = nest.kinds[-1] == "R"
        self.inner = len(nest.sizes) - 1

    def emit(self) -> Source:
        w, loop = self.w, self.loop
        with w.block("def kernel(desc, lo, hi):"):
            self.head()
            with w.block("for t in range(lo, hi):"):
                self.tile()
            w("return 0")
        lines = sum(LINE_COST.get(line.op, 0.06) for line in loop.map.lines)
        elements = int(np.prod(self.nest.sizes, dtype=np.int64))
        cost = elements * (lines + 0.06 * len(self.refs)) + 4.0 * self.nest.tiles
        return Source(loop, w.text(), tuple(w.words), self.nest.tiles, cost)

    def head(self) -> None:
        """Everything that does not change from tile to tile."""
        w, nest = self.w, self.nest
        for name, ref in zip(self.names, self.refs, strict=True):
            w.read(name, Word(ref=ref))
        for a, size in enumerate(nest.sizes):
            w.read(f"n{a}", Word(bits=size))
        for name, ref, axes in zip(self.names, self.refs, nest.operands, strict=True):
            for a, axis in enumerate(axes):
                if axis.kind == "run" and a == self.inner:
                    w.read(f"{name}_{a}", Word(bits=axis.stride))
                elif axis.kind != "zero" and a != self.inner:
                    w.read(f"{name}_{a}", Word(bits=axis.stride * ref.buffer.dtype.itemsize))
        for k, scalar in enumerate(self.loop.scalars):
            w(f"s{k} = const_{short(scalar.dtype)}(word(desc, {w.word(Word.scalar(scalar))}))")
        if not self.inner_folded:
            w(f"blocks = quotient(n{self.inner} + {nest.block - 1}, {nest.block})")

    def tile(self) -> None:
        """One tile: find its kept indices, then run the folded loops and the inner one."""
        w, nest = self.w, self.nest
        kept = [a for a, kind in enumerate(nest.kinds) if kind == "K" and (a != self.inner)]
        left = "t"
        if not self.inner_folded:
            w("row = quotient(t, blocks)")
            w(f"first = (t - row * blocks) * {nest.block}")
            w(f"last = smaller(first + {nest.block}, n{self.inner})")
            left = "row"
        for a in reversed(kept[1:]):
            w(f"next{a} = quotient({left}, n{a})")
            w(f"j{a} = {left} - next{a} * n{a}")
            left = f"next{a}"
        if kept:
            w(f"j{kept[0]} = {left}")
        for name, axes in zip(self.names, nest.operands, strict=True):
            w(f"{name}k = " + self.address(name, axes, kept, "j"))
        if self.loop.partial:
            for k in range(len(self.loop.folds)):
                w(f"z{k}k = z{k} + t * {self.loop.folds[k].ref.buffer.dtype.itemsize}")
        if "R" in nest.kinds or self.loop.partial:
            self.folding([a for a, kind in enumerate(nest.kinds) if kind == "R" and a != self.inner])
        else:
            self.inner_loop("k", "first", "last")

    def address(
        self, name: str, axes: Sequence[Axis], over: Sequence[int], index: str, base: str = ""
    ) -> str:
        terms = [f"{index}{a} * {name}_{a}" for a in over if axes[a].kind != "zero"]
        return " + ".join([base or name, *terms])

    def folding(self, outer: Sequence[int]) -> None:
        """Folds: into scalars where the inner axis is folded, into a block of results where it is kept."""
        w, folds = self.w, self.loop.folds
        in_scalars = self.inner_folded or self.loop.partial
        if in_scalars:
            for k, fold in enumerate(folds):
                w(f"f{k} = {_constant(fold.init)}")
        else:
            with w.block("for i in range(first, last):"):
                for k, fold in enumerate(folds):
                    w(f"{self.store(len(self.loop.stores) + k)}, {_constant(fold.init)})")
        loops = [w.block(f"for r{a} in range(n{a}):") for a in outer]
        for block in loops:
            block.__enter__()
        for name, axes in zip(self.names, self.nest.operands, strict=True):
            if outer and not (name.startswith("z")):
                w(f"{name}r = " + self.address(name, axes, outer, "r", f"{name}k"))
        level = "r" if outer else "k"
        bounds = ("0", f"n{self.inner}") if self.inner_folded else ("first", "last")
        self.inner_loop(level, *bounds)
        for block in reversed(loops):
            block.__exit__(None, None, None)
        if in_scalars:
            for k, fold in enumerate(folds):
                w(f"store{len(self.loop.stores) + k}_{short(fold.ref.buffer.dtype)}(z{k}k, 0, f{k})")

    def inner_loop(self, level: str, first: str, last: str) -> None:
        """Loads that do not move with the inner axis stand before the loop."""
        w, loop = self.w, self.loop
        n = len(loop.loads)
        fixed = [i for i in range(n) if self.nest.operands[i][self.inner].kind == "zero"]
        for i in fixed:
            w(f"v{i} = load_{short(loop.loads[i].buffer.dtype)}(x{i}{level}, 0)")
        with w.block(f"for i in range({first}, {last}):"):
            for i in range(n):
                if i not in fixed:
                    axis = self.nest.operands[i][self.inner]
                    index = "i" if axis.kind == "unit" else f"i * x{i}_{self.inner}"
                    w(f"v{i} = load_{short(loop.loads[i].buffer.dtype)}(x{i}{level}, {index})")
            names = [f"v{i}" for i in range(n)] + [f"s{k}" for k in range(len(loop.scalars))]
            values = _print_lines(w, loop.map, names)
            for k in range(len(loop.stores)):
                w(f"{self.store(k, level)}, {values[k]})")
            for k, fold in enumerate(loop.folds):
                self.fold(k, fold, values[len(loop.stores) + k])

    def store(self, k: int, level: str = "k") -> str:
        """``store0_f32(y0k, i`` : the opening of store number ``k``, folds' targets counted after the stores."""
        operand = len(self.loop.loads) + k
        ref, axis, name = self.refs[operand], self.nest.operands[operand][self.inner], self.names[operand]
        index = {"unit": "i", "zero": "0", "run": f"i * {name}_{self.inner}"}[axis.kind]
        return f"store{k}_{short(ref.buffer.dtype)}({name}{level}, {index}"

    def fold(self, k: int, fold: Fold, value: str) -> None:
        w, d = self.w, short(fold.ref.buffer.dtype)
        if self.inner_folded or self.loop.partial:
            w(f"f{k} = {_combine(fold.combine, d, f'f{k}', value)}")
            return
        operand = len(self.loop.loads) + len(self.loop.stores) + k
        axis = self.nest.operands[operand][self.inner]
        index = "i" if axis.kind == "unit" else f"i * z{k}_{self.inner}"
        w(f"g{k} = reload{len(self.loop.stores) + k}_{d}(z{k}k, {index})")
        w(f"{self.store(len(self.loop.stores) + k)}, {_combine(fold.combine, d, f'g{k}', value)})")


def _combine(combine: str, short: str, total: str, value: str) -> str:
    return f"accumulate_{short}({total}, {value})" if combine == "add" else f"{combine}_({total}, {value})"


def _constant(value: np.generic) -> str:
    return f"const_{short(value.dtype)}({Word.scalar(value).bits})"


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
    b_axes = step.b.layout.axes
    kinds = tuple("unit" if r.layout.axes[2].kind == "unit" else "zero" for r in step.loads)
    text = gemm_source(dtype, b_axes[2].kind == "unit", step.map, kinds, tile)  # type: ignore[arg-type]
    rows = _row_block(batch, m, n, k, tile)
    words = [Word(ref=r) for r in (step.a, step.b, *step.loads, *step.stores)]
    numbers = [batch, m, n, k, *(a.stride for a in step.a.layout.axes), *(a.stride for a in b_axes)]
    for ref in step.loads:
        numbers += [a.stride for a in ref.layout.axes]
    for ref in step.stores:
        numbers += [a.stride for a in ref.layout.axes[:2]]
    words += [Word(bits=x) for x in (*numbers, rows)] + [Word.scalar(s) for s in step.scalars]
    tiles = batch * -(-m // rows) * -(-n // tile.width)
    flops = 2.0 * batch * m * n * max(k, 1)
    return Source(
        step, text, tuple(words), tiles, 20.0 * tiles + flops / (90.0 if dtype.itemsize == 4 else 45.0)
    )


def _row_block(batch: int, m: int, n: int, k: int, tile: Tile) -> int:
    """Rows of C per tile: all of them, unless that leaves too few tiles to share between threads."""
    panels = batch * -(-n // tile.width)
    pieces = max(1, math.ceil(8 / max(panels, 1))) if 2 * m * n * k > 200_000 else 1
    return max(1, math.ceil(math.ceil(m / pieces) / tile.rows)) * tile.rows


def _routine(step: Routine) -> Source:
    routine = ROUTINES[step.name]
    refs = (*step.reads, *step.writes)
    dtypes = tuple(r.buffer.dtype for r in refs)
    words = [Word(ref=r) for r in refs] + [Word(bits=s) for s in step.sizes]
    tiles = routine.tiles(*step.sizes)
    return Source(step, routine.text(*map(short, dtypes)), tuple(words), tiles, routine.cost(*step.sizes))
