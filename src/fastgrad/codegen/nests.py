"""The printer of loop nests. ``tanh(x + b)`` on a matrix and a row vector reads

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

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..core.aval import short
from ..core.expr import Map
from ..core.loops import StrideKind
from ..schedule import Loop, nest
from . import folds, past
from .lines import base, constant, constants, loader, print_lines, reads_stride
from .source import Source
from .steps import Parts, Step, step_of
from .writer import Word, Writer, scalar_word

NEAR_BYTES = 2 << 10
"""How far on a map in vectors of ours asks for memory."""
ROW_PIECE = 1024
"""Elements of a row that rows are added up into, in the kernel's frame, before its elements are."""

ROWS, FEW_LINES = 4, 8
"""Rows that are folded into columns at once, where the lines are few: results are loaded and stored once for all of them."""


class Structure(NamedTuple):
    """All that the text of a loop nest depends on; no size and no stride is among it."""

    map: Map
    constants: tuple[str, ...]  # the Map's, in full: 0.0 and -0.0 compare equal
    kinds: str
    block: int  # 0: known at run time
    partial: bool
    loads: tuple[str, ...]  # what loads them: load_f32, or index_i64 where the index itself is the value
    scalars: tuple[np.dtype, ...]
    stores: tuple[np.dtype, ...]
    folds: tuple[tuple[str, str, np.dtype], ...]  # combine, printed neutral element, dtype
    strides: tuple[tuple[StrideKind, ...], ...]  # of each operand along each axis
    streamed: tuple[int, ...] = ()  # stores that go past the cache
    pieces: past.Pieces | None = None  # in which pieces they do
    parts: bool = False  # each tile folds a stretch of rows
    waits: bool = False  # a fold that waits for memory


def loop_source(loop: Loop, apart: Sequence[int] = ()) -> Source:
    """The kernel of a loop nest; the stores numbered ``apart`` overwrite no operand."""
    n = nest(loop)
    streamed = tuple(k for k in apart if past.streams(loop, n, k))
    refs = [*loop.loads, *loop.stores, *(f.ref for f in loop.folds)]
    structure = Structure(
        loop.map,
        constants(loop.map),
        n.kinds,
        0 if n.kinds[-1] == "K" and "R" in n.kinds else n.block,
        loop.partial,
        tuple(map(loader, loop.loads)),
        tuple(s.dtype for s in loop.scalars),
        tuple(r.buffer.dtype for r in loop.stores),
        tuple((f.combine, constant(f.init), f.ref.buffer.dtype) for f in loop.folds),
        tuple(tuple(axis.kind for axis in axes) for axes in n.operands),
        streamed,
        past.pieces(loop, n, streamed),
        n.share > 0,
        past.waits(loop, n),
    )
    words: list[Word] = [*map(base, refs), *n.sizes]
    inner = len(n.sizes) - 1
    for ref, axes in zip(refs, n.operands, strict=True):
        for a, axis in enumerate(axes):
            if reads_stride(axis.kind, a == inner):
                words.append(axis.stride * (1 if a == inner else ref.buffer.dtype.itemsize))
    words += [*map(scalar_word, loop.scalars), *([] if structure.block else [n.block])]
    if structure.parts:
        words += [n.share, *(f.ref.layout.axes[0].stride * f.ref.buffer.dtype.itemsize for f in loop.folds)]
    return Source(loop, _loop_text(structure), tuple(words), n.tiles)


@lru_cache(maxsize=1024)  # equal steps are printed once
def _loop_text(structure: Structure) -> str:
    return _Nested(structure).text()


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
        self.moving = [i for i in range(len(structure.loads)) if structure.strides[i][self.inner] != "zero"]
        self.in_frame = False  # what is folded goes to a row in the kernel's frame

    def text(self) -> str:
        w = self.w
        with w.block("def kernel(desc, lo, hi):"):
            self.head()
            with w.block("for t in range(lo, hi):"):
                self.tile()
            if self.s.streamed:
                w("streamed()")
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
                if reads_stride(kind, a == self.inner):
                    w.read(f"{name}_{a}")
        for k in s.streamed:
            w(f"h{k} = piece({k})")
        for k, dtype in enumerate(s.scalars):
            w(f"s{k} = const_{short(dtype)}(word(desc, {w.word()}))")
        if not self.inner_folded:
            if not s.block:
                w.read("block")
            last = f"{s.block - 1}, {s.block}" if s.block else "block - 1, block"
            w(f"blocks = quotient(n{self.inner} + {last})")
        for name in ("share", *(f"z{k}_part" for k in range(len(s.folds)))) if s.parts else ():
            w.read(name)

    def tile(self) -> None:
        """One tile: find its kept indices, then run the folded loops and the inner one."""
        w, s = self.w, self.s
        kept = [a for a, kind in enumerate(s.kinds) if kind == "K" and (a != self.inner)]
        left = "t"
        if not self.inner_folded:
            w("row = quotient(t, blocks)")
            w(f"first = (t - row * blocks) * {s.block or 'block'}")
            w(f"last = smaller(first + {s.block or 'block'}, n{self.inner})")
            left = "row"
        for a in reversed(kept[1:]):
            w(f"next{a} = quotient({left}, n{a})")
            w(f"j{a} = {left} - next{a} * n{a}")
            left = f"next{a}"
        if kept:
            w(f"j{kept[0]} = {left}")
        for name, kinds in zip(self.names, s.strides, strict=True):
            w(f"{name}k = " + self.address(name, kinds, kept, "j"))
        if s.parts:
            w("start = row * share")
            w("stop = smaller(start + share, n0)")
            for k in range(len(s.folds)):
                w(f"z{k}k = z{k} + row * z{k}_part")
        for k in s.streamed:
            w(f"o{k} = y{k}k")
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
        s = self.s
        if not (self.inner_folded or s.partial):
            self.columns(outer)
            return
        for k, (combine, init, dtype) in enumerate(s.folds):
            folds.begin(self.w, k, combine, short(dtype), init)
        if self.inner_folded and outer and not s.stores and (self.step() is None or s.waits):
            self.row_of_rows(outer)
        else:
            self.over_rows(outer, *(("0", f"n{self.inner}") if self.inner_folded else ("first", "last")), 1)
        for k, (combine, _, dtype) in enumerate(s.folds):
            value = folds.result(k, combine, short(dtype))
            self.w(f"store{len(s.stores) + k}_{short(dtype)}(z{k}k, 0, {value})")

    def columns(self, outer: Sequence[int]) -> None:
        """Fold rows, several at once, into the elements from ``first`` to ``last`` of the targets."""
        w, s = self.w, self.s
        with w.block("for i in range(first, last):"):
            for k, (_, init, _) in enumerate(s.folds):
                w(f"{self.store(len(s.stores) + k)}, {init})")
        self.over_rows(outer, "first", "last", 1 if s.stores or len(s.map.lines) > FEW_LINES else ROWS)

    def row_of_rows(self, outer: Sequence[int]) -> None:
        """Fold all rows into one, a piece of it at a time, in the kernel's frame; then its elements into scalars.

        The elements of each row would else be added up at its end, lane by lane, which for short rows is most of the work.
        """
        w, s = self.w, self.s
        for k in range(len(s.folds)):
            w(f"h{k} = local({k})")
        with w.block(f"for first in range(0, n{self.inner}, {ROW_PIECE}):"):
            w(f"last = smaller(first + {ROW_PIECE}, n{self.inner})")
            for k, (_, _, dtype) in enumerate(s.folds):
                w(f"e{k}k = h{k} - first * {dtype.itemsize}")
            self.in_frame = True
            self.columns(outer)
            self.in_frame = False
            with w.block("for i in range(first, last):"):
                for k, (combine, _, dtype) in enumerate(s.folds):
                    w(f"v{k} = reload{k}_{short(dtype)}(e{k}k, i)")
                    folds.take(w, k, combine, short(dtype), f"v{k}")

    def over_rows(self, outer: Sequence[int], first: str, last: str, together: int) -> None:
        """The folded loops around the inner one, rows of the innermost of them ``together``."""
        w = self.w
        if not outer:
            self.inner_loop("k", first, last)
            return
        *around, along = outer
        start, stop = ("start", "stop") if self.s.parts else ("0", f"n{along}")
        loops = [w.block(f"for r{a} in range(n{a}):") for a in around]
        for block in loops:
            block.__enter__()
        if together > 1:
            count = f"{stop} - {start}" if self.s.parts else stop
            w(f"whole = {'start + ' if self.s.parts else ''}quotient({count}, {together}) * {together}")
            with w.block(f"for r{along} in range({start}, whole, {together}):"):
                self.rows(outer, together)
                self.inner_loop("r", first, last, rows=together)
            start = "whole"
        with w.block(f"for r{along} in range({f'{start}, ' if start != '0' else ''}{stop}):"):
            self.rows(outer, 1)
            self.inner_loop("r", first, last)
        for block in reversed(loops):
            block.__exit__(None, None, None)

    def rows(self, outer: Sequence[int], count: int) -> None:
        """Where operands begin at the indices of the loops ``outer``, and in the rows after that."""
        for name, kinds in zip(self.names, self.s.strides, strict=True):
            if not name.startswith("z"):
                self.w(f"{name}r = " + self.address(name, kinds, outer, "r", f"{name}k"))
                for row in range(1, count):
                    step = f" + {name}_{outer[-1]}" if kinds[outer[-1]] != "zero" else ""
                    before = f"{name}r" if row == 1 else f"{name}r_{row - 1}"
                    self.w(f"{name}r_{row} = {before}{step}")

    def inner_loop(self, level: str, first: str, last: str, rows: int = 1) -> None:
        """One row, or several at once. Loads that do not move with the inner axis stand before the loop."""
        w, s = self.w, self.s
        suffixes = ["", *(f"_{row}" for row in range(1, rows))]
        for c in suffixes:
            for i in range(len(s.loads)):
                if i not in self.moving:
                    w(f"v{i}{c} = {s.loads[i]}(x{i}{level}{c}, 0)")
        step = self.step() if rows == 1 or s.waits else None
        if s.pieces is None:
            self.elements(step, level, first, last, suffixes)
            return
        with past.in_turn(w, first, last, s.pieces):
            for k in s.streamed:  # into the kernel's frame first, then in one stretch past the cache
                w(f"y{k}k = h{k} - p * {s.stores[k].itemsize}")
            self.elements(step, level, "p", "stop", suffixes)
            for number, k in enumerate(s.streamed):
                past.copy_out(w, s.pieces, k, number, s.stores[k].itemsize, level)

    def elements(self, step: Step | None, level: str, first: str, last: str, suffixes: Sequence[str]) -> None:
        """The loop over the inner axis itself: in vectors of ours, or one that LLVM makes vectors of."""
        if step is not None and self.into_elements():
            self.wide_columns(step, level, first, last, suffixes)
            return
        if step is not None:
            self.wide_loop(step, level, first, last)
            return
        with self.w.block(f"for i in range({first}, {last}):"):
            self.body(level, suffixes)

    def body(self, level: str, suffixes: Sequence[str]) -> None:
        """What is done at one index of the inner axis, in one row or several: loads, lines, stores, folds."""
        w, s = self.w, self.s
        each = []
        for row, c in enumerate(suffixes):
            for i in self.moving:
                index = "i" if s.strides[i][self.inner] == "unit" else f"i * x{i}_{self.inner}"
                w(f"v{i}{c} = {s.loads[i]}(x{i}{level}{c}, {index})")
            names = [f"v{i}{c}" for i in range(len(s.loads))] + [f"s{k}" for k in range(len(s.scalars))]
            each.append(print_lines(w, s.map, names, f"t{row}_" if row else "t"))
        for k in range(len(s.stores)):
            w(f"{self.store(k, level)}, {each[0][k]})")
        for k in range(len(s.folds)):
            self.fold(k, [values[len(s.stores) + k] for values in each])

    def step(self) -> Step | None:
        """The step of the inner loop where it runs in vectors of ours: of a map, of a fold into scalars, or out of cache."""
        s, n, m = self.s, len(self.s.loads), len(self.s.stores)
        if self.into_elements() and not s.waits:
            return None
        kinds = [axes[self.inner] for axes in s.strides]
        each = [d.itemsize for d, kind in zip(s.map.inputs, kinds[:n], strict=False) if kind == "unit"]
        moved = sum(each) + sum(d.itemsize for d in s.stores) if s.streamed else 0
        folded = [(c, d) for c, _, d in s.folds]
        return step_of(s.map, s.loads, kinds[:n], kinds[n : n + m], folded, s.waits, past=moved)

    def wide_loop(self, step: Step, level: str, first: str, last: str) -> None:
        """One row in vectors of ours; folds have a total in each lane, and what is beyond the end adds nothing."""
        w, s = self.w, self.s
        for k, (combine, init, dtype) in enumerate(s.folds):
            folds.begin_lanes(w, k, combine, short(dtype), init, step)
        with Parts(w, step, first, last) as parts:
            for i in self.moving:
                parts.load(f"v{i}", s.loads[i], f"x{i}{level}")
                if s.pieces is None:
                    parts.ahead(s.loads[i], f"x{i}{level} + {past.AHEAD_BYTES if s.waits else NEAR_BYTES}")
            names = [f"v{i}" for i in range(len(s.loads))] + [f"s{k}" for k in range(len(s.scalars))]
            values = print_lines(w, s.map, names, shares=step.shares)
            for k, dtype in enumerate(s.stores):
                parts.store(k, short(dtype), f"y{k}{level}", values[k])
            for k, (combine, init, dtype) in enumerate(s.folds):
                folds.take_lanes(w, k, combine, short(dtype), values[len(s.stores) + k], init, step)
        for k, (combine, _, dtype) in enumerate(s.folds):
            folds.join_lanes(w, k, combine, short(dtype), step)

    def into_elements(self) -> bool:
        """Whether the inner loop folds into elements of memory."""
        return bool(self.s.folds) and (self.in_frame or not (self.inner_folded or self.s.partial))

    def wide_columns(self, step: Step, level: str, first: str, last: str, suffixes: Sequence[str]) -> None:
        """A row or several into elements, in vectors of ours: one of each row at a time."""
        w, s = self.w, self.s
        with Parts(w, step, first, last) as parts:
            each = []
            for row, c in enumerate(suffixes):
                for i in self.moving:
                    parts.load(f"v{i}{c}", s.loads[i], f"x{i}{level}{c}")
                names = [f"v{i}{c}" for i in range(len(s.loads))] + [f"s{k}" for k in range(len(s.scalars))]
                each.append(print_lines(w, s.map, names, f"t{row}_" if row else "t"))
            for k, (combine, _, dtype) in enumerate(s.folds):
                place = f"e{k}k" if self.in_frame else f"z{k}k"
                parts.load(f"g{k}", f"load_{short(dtype)}", place)
                folds.element(w, k, combine, short(dtype), [values[k] for values in each])
                parts.store(k, short(dtype), place, f"g{k}")

    def store(self, k: int, level: str = "k") -> str:
        """``store0_f32(y0k, i`` : the opening of store number ``k``, folds' targets counted after the stores."""
        if self.in_frame:
            return f"store{k}_{short(self.dtypes[k])}(e{k}k, i"
        operand = len(self.s.loads) + k
        kind, name = self.s.strides[operand][self.inner], self.names[operand]
        index = {"unit": "i", "zero": "0", "run": f"i * {name}_{self.inner}"}[kind]
        return f"store{k}_{short(self.dtypes[k])}({name}{level}, {index}"

    def fold(self, k: int, values: Sequence[str]) -> None:
        w, s = self.w, self.s
        combine, _, dtype = s.folds[k]
        if not self.in_frame and (self.inner_folded or s.partial):
            folds.take(w, k, combine, short(dtype), values[0])
            return
        kind, number = s.strides[len(s.loads) + len(s.stores) + k][self.inner], len(s.stores) + k
        place = (
            f"e{k}k, i"
            if self.in_frame
            else f"z{k}k, " + ("i" if kind == "unit" else f"i * z{k}_{self.inner}")
        )
        w(f"g{k} = reload{number}_{short(dtype)}({place})")
        folds.element(w, k, combine, short(dtype), values)
        w(f"{self.store(number)}, g{k})")
