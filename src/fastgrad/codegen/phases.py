"""The printer of phases: loops that run one after the other on each block of rows. ``x - mean(x)`` by rows reads

def kernel(desc, lo, hi):
    h0 = local(0)                               # blocks of values that stay inside
    h1 = local(1)
    x0 = word(desc, 0)                          # pointers: loads x, stores y, folds z, numbered over all phases
    z0 = h0 + word(desc, 1)
    ...
    m0 = word(desc, 6)                          # sizes: of the rows' axes m, of each phase's own n
    block = word(desc, 7)
    n0_0 = word(desc, 8)
    n2_0 = word(desc, 9)
    x0_j = word(desc, 10)                       # strides along the rows, in bytes
    ...
    rows = m0
    for t in range(lo, hi):
        first = t * block
        last = smaller(first + block, rows)
        for row in range(first, last):          # phase 0: fold
            j0 = row
            x0k = x0 + j0 * x0_j0
            z0k = z0 + (row - first) * z0_j
            f0 = const_f32(0)
            for i in range(n0_0):
                v0 = load_f32(x0k, i)
                f0 = accumulate_f32(f0, v0)
            store0_f32(z0k, 0, f0)
        x1k = x1 - first * 4                    # phase 1: one element a row
        y0k = y0 - first * 4
        for i in range(first, last):
            v1 = load_f32_phase1(x1k, i)
            p1t0 = div(v1, s1_0)
            store0_f32_phase1(y0k, i, p1t0)
        for row in range(first, last):          # phase 2: map
            ...
    return 0
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..core.aval import short
from ..core.expr import Map
from ..core.loops import Axis, Layout, StrideKind, merge
from ..schedule import Buffer, Local, Loop, Phases, Ref
from . import folds as folding
from .lines import base, constant, constants, loader, print_lines, reads_stride
from .source import Source
from .steps import Parts, Step, step_of
from .writer import Word, Writer, scalar_word


class Operand(NamedTuple):
    """How a phase reaches an operand: by which access (load_f32, index_i64, the dtype of what is written), in which frame or
    in memory (None), moving how along the rows' axes and the phase's own."""

    access: str
    size: int
    frame: int | None
    rows: tuple[StrideKind, ...]
    inner: tuple[StrideKind, ...]


class Phase(NamedTuple):
    """All that the text of one phase depends on. A ``flat`` one walks its rows as one axis."""

    map: Map
    constants: tuple[str, ...]
    flat: bool
    depth: int  # of its own loops
    loads: tuple[Operand, ...]
    scalars: tuple[np.dtype, ...]
    stores: tuple[Operand, ...]
    folds: tuple[tuple[str, str, Operand], ...]  # combine, printed neutral element, target


class _Axes(NamedTuple):
    """A phase's own axes, merged, and each operand's along them; of a flat phase, the one axis of its rows."""

    flat: bool
    sizes: tuple[int, ...]
    operands: list[tuple[Axis, ...]]


def phases_source(step: Phases) -> Source:
    """The kernel of loops over common rows."""
    sizes, rows = _merged_rows(step)
    axes = [_axes(part, len(step.rows), single) for part, single in zip(step.parts, step.single, strict=True)]
    frames: dict[Buffer, int] = {}
    phases = tuple(_phase(*each, frames) for each in zip(step.parts, rows, axes, strict=True))
    pointers: list[Word] = []
    strides: list[int] = []
    for part, phase, outer, own in zip(step.parts, phases, rows, axes, strict=True):
        for ref, operand, along, inner in zip(
            _refs(part), _operands(phase), outer, own.operands, strict=True
        ):
            pointers.append(base(ref))
            if operand.frame is not None and not own.flat:
                strides.append(ref.buffer.size // step.block * operand.size)
            strides += [
                a.stride * operand.size
                for a, kind in zip(along, operand.rows, strict=False)
                if kind != "zero"
            ]
            last = len(inner) - 1
            strides += [
                a.stride * (1 if i == last else operand.size)
                for i, a in enumerate(inner)
                if reads_stride(a.kind, i == last)
            ]
    own_sizes = [n for own in axes if not own.flat for n in own.sizes]
    scalars = [scalar_word(x) for part in step.parts for x in part.scalars]
    words = [*pointers, *sizes, step.block, *own_sizes, *strides, *scalars]
    tiles = -(-math.prod(sizes) // step.block)
    return Source(step, _text(len(sizes), phases), tuple(words), tiles)


def _refs(part: Loop) -> list[Ref]:
    return [*part.loads, *part.stores, *(f.ref for f in part.folds)]


def _operands(phase: Phase) -> list[Operand]:
    return [*phase.loads, *phase.stores, *(target for _, _, target in phase.folds)]


def _merged_rows(step: Phases) -> tuple[tuple[int, ...], list[list[tuple[Axis, ...]]]]:
    """The rows' axes, merged where they merge in every operand of every part, and those of each operand."""
    k = len(step.rows)
    layouts = [
        Layout(
            step.rows,
            tuple(a._replace(joined=a.joined and i + 1 < k) for i, a in enumerate(ref.layout.axes[:k])),
        )
        for part in step.parts
        for ref in _refs(part)
    ]
    sizes, merged = merge(step.rows, layouts)
    each = iter(merged)
    return sizes, [[next(each) for _ in _refs(part)] for part in step.parts]


def _axes(part: Loop, k: int, single: bool) -> _Axes:
    if single:
        sizes, axes = merge(part.shape, [ref.layout for ref in _refs(part)])
        if len(sizes) == 1:
            return _Axes(True, sizes, axes)
    shape = part.shape[k:] or (1,)
    layouts = [
        Layout(shape, ref.layout.axes[k:] or (Axis(0, "zero", False),)) for ref in (*part.loads, *part.stores)
    ]
    none = Layout(shape, tuple(Axis(0, "zero", i + 1 < len(shape)) for i in range(len(shape))))
    return _Axes(False, *merge(shape, [*layouts, *(none for _ in part.folds)]))


def _phase(part: Loop, rows: Sequence[tuple[Axis, ...]], axes: _Axes, frames: dict[Buffer, int]) -> Phase:
    def operand(n: int, ref: Ref, access: str) -> Operand:
        frame = frames.setdefault(ref.buffer, len(frames)) if isinstance(ref.buffer, Local) else None
        along = () if frame is not None or axes.flat else tuple(a.kind for a in rows[n])
        return Operand(
            access, ref.buffer.dtype.itemsize, frame, along, tuple(a.kind for a in axes.operands[n])
        )

    n, m = len(part.loads), len(part.stores)
    loads = tuple(operand(i, r, loader(r)) for i, r in enumerate(part.loads))
    stores = tuple(operand(n + i, r, short(r.buffer.dtype)) for i, r in enumerate(part.stores))
    folds = tuple(
        (f.combine, constant(f.init), operand(n + m + i, f.ref, short(f.ref.buffer.dtype)))
        for i, f in enumerate(part.folds)
    )
    dtypes = tuple(s.dtype for s in part.scalars)
    depth = 0 if axes.flat else len(axes.sizes)
    return Phase(part.map, constants(part.map), axes.flat, depth, loads, dtypes, stores, folds)


@lru_cache(maxsize=512)
def _text(n_rows: int, phases: tuple[Phase, ...]) -> str:
    return _Printer(n_rows, phases).text()


class _Printer:
    """Prints the phases in order, inside the loop over blocks of rows."""

    def __init__(self, n_rows: int, phases: tuple[Phase, ...]):
        self.w, self.n_rows, self.phases = Writer(), n_rows, phases
        self.names: list[list[str]] = []
        n = m = k = 0
        for p in phases:
            x, y, z = range(n, n + len(p.loads)), range(m, m + len(p.stores)), range(k, k + len(p.folds))
            self.names.append([*(f"x{i}" for i in x), *(f"y{i}" for i in y), *(f"z{i}" for i in z)])
            n, m, k = x.stop, y.stop, z.stop

    def operands(self, p: int) -> Iterator[tuple[str, Operand]]:
        """The operands of phase ``p`` by name."""
        return zip(self.names[p], _operands(self.phases[p]), strict=True)

    def text(self) -> str:
        w, count = self.w, len(self.phases)
        with w.block("def kernel(desc, lo, hi):"):
            self.head([each for p in range(count) for each in self.operands(p)])
            with w.block("for t in range(lo, hi):"):
                w("first = t * block")
                w("last = smaller(first + block, rows)")
                for p in range(count):
                    self.phase(p)
            w("return 0")
        return w.text()

    def head(self, operands: Sequence[tuple[str, Operand]]) -> None:
        """The descriptor's words, in the order of `phases_source`."""
        w = self.w
        for frame in sorted({o.frame for _, o in operands if o.frame is not None}):
            w(f"h{frame} = local({frame})")
        for name, o in operands:
            w(f"{name} = " + (f"h{o.frame} + " if o.frame is not None else "") + f"word(desc, {w.word()})")
        for a in range(self.n_rows):
            w.read(f"m{a}")
        w.read("block")
        for p, phase in enumerate(self.phases):
            for a in range(phase.depth):
                w.read(f"n{p}_{a}")
        for p, phase in enumerate(self.phases):
            for name, o in self.operands(p):
                if o.frame is not None and not phase.flat:
                    w.read(f"{name}_j")
                for a, kind in enumerate(o.rows):
                    if kind != "zero":
                        w.read(f"{name}_j{a}")
                for a, kind in enumerate(o.inner):
                    if reads_stride(kind, a + 1 == len(o.inner)):
                        w.read(f"{name}_{a}")
        for p, phase in enumerate(self.phases):
            for k, dtype in enumerate(phase.scalars):
                w(f"s{p}_{k} = const_{short(dtype)}(word(desc, {w.word()}))")
        w("rows = " + " * ".join(f"m{a}" for a in range(self.n_rows)))

    def phase(self, p: int) -> None:
        w, phase = self.w, self.phases[p]
        if not phase.flat:
            with w.block("for row in range(first, last):"):
                self.row(p)
            return
        for name, o in self.operands(p):
            step = {"zero": "0", "unit": str(o.size)}.get(o.inner[0], f"{name}_0 * {o.size}")
            w(f"{name}k = {name}" + (f" - first * {step}" if o.frame is not None else ""))
        fixed = {i for i, o in enumerate(phase.loads) if o.inner[0] == "zero"}
        for i in sorted(fixed):
            self.load(p, i, "k", "0")
        with w.block("for i in range(first, last):"):
            self.lines(p, "k", fixed)

    def row(self, p: int) -> None:
        """One row of a phase: its folds end with the row."""
        w, phase = self.w, self.phases[p]
        self.addresses(p)
        folds = self.names[p][len(phase.loads) + len(phase.stores) :]
        for name, (combine, init, o) in zip(folds, phase.folds, strict=True):
            folding.begin(w, name[1:], combine, o.access, init)
        outer = range(phase.depth - 1)
        loops = [w.block(f"for r{a} in range(n{p}_{a}):") for a in outer]
        for block in loops:
            block.__enter__()
        for name, o in self.operands(p):
            if outer and not name.startswith("z"):
                terms = [f"r{a} * {name}_{a}" for a in outer if o.inner[a] != "zero"]
                w(f"{name}r = " + " + ".join([f"{name}k", *terms]))
        level = "r" if outer else "k"
        fixed = {i for i, o in enumerate(phase.loads) if o.inner[-1] == "zero"}
        for i in sorted(fixed):
            self.load(p, i, level, "0")
        size, step = f"n{p}_{phase.depth - 1}", self.step(p)
        if step is not None:
            self.wide_lines(p, step, level, size, fixed)
        else:
            with w.block(f"for i in range({size}):"):
                self.lines(p, level, fixed)
        for block in reversed(loops):
            block.__exit__(None, None, None)
        for k, (name, (combine, _, target)) in enumerate(zip(folds, phase.folds, strict=True)):
            value = folding.result(name[1:], combine, target.access)
            self.store(p, len(phase.stores) + k, target.access, f"{name}k", "0", value)

    def addresses(self, p: int) -> None:
        """The row's number along each of the rows' axes, and where each operand's row begins."""
        w, left = self.w, "row"
        for a in reversed(range(1, self.n_rows)):
            w(f"next{a} = quotient({left}, m{a})")
            w(f"j{a} = {left} - next{a} * m{a}")
            left = f"next{a}"
        w(f"j0 = {left}")
        for name, o in self.operands(p):
            terms = [f"j{a} * {name}_j{a}" for a, kind in enumerate(o.rows) if kind != "zero"]
            if o.frame is not None:
                terms = [f"(row - first) * {name}_j"]
            w(f"{name}k = " + " + ".join([name, *terms]))

    def lines(self, p: int, level: str, fixed: set[int]) -> None:
        """The body: what is not loaded yet, the Map's lines, stores and folds."""
        w, phase, names = self.w, self.phases[p], self.names[p]
        n, m = len(phase.loads), len(phase.stores)
        for i, o in enumerate(phase.loads):
            if i not in fixed:
                self.load(p, i, level, _index(names[i], o))
        values = ["v" + name[1:] for name in names[:n]] + [f"s{p}_{k}" for k in range(len(phase.scalars))]
        results = print_lines(w, phase.map, values, f"p{p}t")
        for k, o in enumerate(phase.stores):
            self.store(p, k, o.access, names[n + k] + level, _index(names[n + k], o), results[k])
        for name, (combine, _, o), value in zip(names[n + m :], phase.folds, results[m:], strict=True):
            folding.take(w, name[1:], combine, o.access, value)

    def step(self, p: int) -> Step | None:
        """The step of a phase's rows where they run in vectors of ours."""
        phase = self.phases[p]
        dtypes = [phase.map.dtype(value) for value in phase.map.outputs[len(phase.stores) :]]
        return step_of(
            phase.map,
            [o.access for o in phase.loads],
            [o.inner[-1] for o in phase.loads],
            [o.inner[-1] for o in phase.stores],
            [(combine, dtype) for (combine, _, _), dtype in zip(phase.folds, dtypes, strict=True)],
            rows=True,
        )

    def wide_lines(self, p: int, step: Step, level: str, size: str, fixed: set[int]) -> None:
        """A row in vectors of ours; folds have a total in each lane, and what is beyond the end adds nothing."""
        w, phase, names = self.w, self.phases[p], self.names[p]
        n, m = len(phase.loads), len(phase.stores)
        folds = list(zip(names[n + m :], phase.folds, strict=True))
        for name, (_, init, o) in folds:
            w(f"a{name[1:]} = each_{o.access}_{step}({init})")
        with Parts(w, step, "0", size) as parts:
            for i, o in enumerate(phase.loads):
                if i not in fixed:
                    parts.load("v" + names[i][1:], o.access, names[i] + level)
            values = ["v" + name[1:] for name in names[:n]] + [f"s{p}_{k}" for k in range(len(phase.scalars))]
            results = print_lines(w, phase.map, values, f"p{p}t", step.shares)
            for k, o in enumerate(phase.stores):
                parts.store(k, o.access, names[n + k] + level, results[k])
            for (name, (combine, init, o)), value in zip(folds, results[m:], strict=True):
                kept = f"kept_{o.access}_{step}(m, {value}, {init})"
                w(f"a{name[1:]} = {folding.combined(combine, o.access, f'a{name[1:]}', kept)}")
        for name, (combine, _, o) in folds:
            w(f"v{name[1:]}_all = total_{combine}_{o.access}_{step}(a{name[1:]})")
            folding.take(w, name[1:], combine, o.access, f"v{name[1:]}_all")

    def load(self, p: int, i: int, level: str, index: str) -> None:
        name, access = self.names[p][i], self.phases[p].loads[i].access
        self.w(f"v{name[1:]} = {_of_phase(access, p)}({name}{level}, {index})")

    def store(self, p: int, k: int, dtype: str, address: str, index: str, value: str) -> None:
        self.w(f"{_of_phase(f'store{k}_{dtype}', p)}({address}, {index}, {value})")


def _index(name: str, o: Operand) -> str:
    return {"unit": "i", "zero": "0"}.get(o.inner[-1], f"i * {name}_{len(o.inner) - 1}")


def _of_phase(access: str, p: int) -> str:
    return access if p == 0 or access.startswith("index") else f"{access}_phase{p}"
