"""The printer of phases: loops that run one after the other on each row. ``x - mean(x)`` on the rows of a matrix reads

    def kernel(desc, lo, hi):
        x0 = word(desc, 0)                          # pointers: loads x, stores y, folds z, numbered over all phases
        x1 = word(desc, 1)
        y0 = word(desc, 2)
        m0 = word(desc, 3)                          # sizes: of the rows' axes m, of each phase's own n
        n0_0 = word(desc, 4)
        n2_0 = word(desc, 5)
        x0_j0 = word(desc, 6)                       # strides along the rows' axes, in bytes
        x1_j0 = word(desc, 7)
        y0_j0 = word(desc, 8)
        s1_0 = const_f32(word(desc, 9))
        for t in range(lo, hi):
            j0 = t
            x0k = x0 + j0 * x0_j0                   # phase 0: fold
            q0 = const_f32(0)
            for i in range(n0_0):
                v0 = load_f32(x0k, i)
                q0 = accumulate_f32(q0, v0)
            p1t0 = div(q0, s1_0)                    # phase 1: one element a row
            q1 = p1t0
            x1k = x1 + j0 * x1_j0                   # phase 2: map
            y0k = y0 + j0 * y0_j0
            for i in range(n2_0):
                v1 = load_f32_phase2(x1k, i)
                p2t0 = sub(v1, q1)
                store0_f32_phase2(y0k, i, p2t0)
        return 0

What has one element a row is a variable ``q``; a row that nobody else reads lies in the kernel's frame, at ``h``.
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
from ..schedule.phases import is_scalar
from .nests import base, combined, constant, constants, element_cost, loader, print_lines, reads_stride
from .source import Source
from .writer import Word, Writer, scalar_word


class Operand(NamedTuple):
    """How a phase reaches an operand: in a variable, in the frame, in memory (both None), or not at all (``skipped``)."""

    access: str  # load_f32, index_i64; for what is written, the dtype
    variable: int | None
    frame: int | None
    skipped: bool
    rows: tuple[StrideKind, ...]
    inner: tuple[StrideKind, ...]

    @property
    def addressed(self) -> bool:
        """Whether it has a place."""
        return not self.skipped


class Phase(NamedTuple):
    """All that the text of one phase depends on."""

    map: Map
    constants: tuple[str, ...]
    scalar: bool
    depth: int  # of its own loops
    loads: tuple[Operand, ...]
    scalars: tuple[np.dtype, ...]
    stores: tuple[Operand, ...]
    folds: tuple[tuple[str, str, Operand], ...]  # combine, printed neutral element, target


class _Inner(NamedTuple):
    """The axes of one part beyond the rows, merged."""

    sizes: tuple[int, ...]
    operands: list[tuple[Axis, ...]]


def phases_source(step: Phases) -> Source:
    """The kernel of loops over common rows."""
    k = len(step.rows)
    rows, outer = _merged_rows(step, k)
    inner = [_inner(part, k) for part in step.parts]
    variables: dict[Buffer, int] = {}
    frames: dict[Buffer, int] = {}
    phases = tuple(
        _phase(step, part, outer[p], inner[p], variables, frames) for p, part in enumerate(step.parts)
    )
    words: list[Word] = []
    strides: list[int] = []
    for p, phase in enumerate(phases):
        for ref, operand, row_axes, own in zip(_refs(step.parts[p]), _operands(phase), outer[p], inner[p].operands, strict=True):
            if operand.skipped:
                continue
            words.append(base(ref))
            size = ref.buffer.dtype.itemsize
            if operand.frame is None:
                strides += [a.stride * size for a in row_axes if a.kind != "zero"]
            last = len(own) - 1
            strides += [
                a.stride * (1 if i == last else size) for i, a in enumerate(own) if reads_stride(a.kind, i == last)
            ]
    words += rows
    for phase, own in zip(phases, inner, strict=True):
        words += () if phase.scalar else own.sizes
    words += strides
    for part in step.parts:
        words += map(scalar_word, part.scalars)
    tiles = math.prod(rows)
    cost = 4.0 * tiles + sum(math.prod(part.shape) * element_cost(part) for part in step.parts)
    return Source(step, _text(len(rows), phases), tuple(words), tiles, cost)


def _refs(part: Loop) -> list[Ref]:
    return [*part.loads, *part.stores, *(f.ref for f in part.folds)]


def _operands(phase: Phase) -> list[Operand]:
    return [*phase.loads, *phase.stores, *(target for _, _, target in phase.folds)]


def _merged_rows(step: Phases, k: int) -> tuple[tuple[int, ...], list[list[tuple[Axis, ...]]]]:
    """The rows' axes, merged where they merge in every operand of every part, and those of each operand."""
    layouts = []
    for part in step.parts:
        for ref in _refs(part):
            axes = tuple(a._replace(joined=a.joined and i + 1 < k) for i, a in enumerate(ref.layout.axes[:k]))
            layouts.append(Layout(step.rows, axes))
    sizes, merged = merge(step.rows, layouts)
    each = iter(merged)
    return sizes, [[next(each) for _ in _refs(part)] for part in step.parts]


def _inner(part: Loop, k: int) -> _Inner:
    shape = part.shape[k:]
    layouts = [Layout(shape, ref.layout.axes[k:]) for ref in (*part.loads, *part.stores)]
    none = Layout(shape, tuple(Axis(0, "zero", i + 1 < len(shape)) for i in range(len(shape))))
    sizes, axes = merge(shape, [*layouts, *(none for _ in part.folds)])
    return _Inner(sizes, axes)


def _phase(
    step: Phases,
    part: Loop,
    rows: Sequence[tuple[Axis, ...]],
    inner: _Inner,
    variables: dict[Buffer, int],
    frames: dict[Buffer, int],
) -> Phase:
    def operand(n: int, ref: Ref, access: str, written: bool) -> Operand:
        buffer = ref.buffer
        scalar = buffer in step.scalars
        if scalar and written:
            variables[buffer] = len(variables)
        if isinstance(buffer, Local):
            frames.setdefault(buffer, len(frames))
        skipped = buffer in step.inside or (scalar and not written)
        kinds = tuple(a.kind for a in rows[n]), tuple(a.kind for a in inner.operands[n])
        return Operand(access, variables.get(buffer) if scalar else None, frames.get(buffer), skipped, *(kinds if not skipped else ((), ())))

    scalar = is_scalar(part, len(step.rows), step.scalars)
    n, m = len(part.loads), len(part.stores)
    loads = tuple(operand(i, r, loader(r), False) for i, r in enumerate(part.loads))
    stores = tuple(operand(n + i, r, short(r.buffer.dtype), True) for i, r in enumerate(part.stores))
    folds = tuple(
        (f.combine, constant(f.init), operand(n + m + i, f.ref, short(f.ref.buffer.dtype), True))
        for i, f in enumerate(part.folds)
    )
    dtypes = tuple(s.dtype for s in part.scalars)
    depth = 0 if scalar else len(inner.sizes)
    return Phase(part.map, constants(part.map), scalar, depth, loads, dtypes, stores, folds)


@lru_cache(maxsize=512)
def _text(n_rows: int, phases: tuple[Phase, ...]) -> str:
    return _Printer(n_rows, phases).text()


class _Printer:
    """Prints the phases in order, inside the loop over rows."""

    def __init__(self, n_rows: int, phases: tuple[Phase, ...]):
        self.w, self.n_rows, self.phases = Writer(), n_rows, phases
        numbers = {kind: iter(range(10_000)) for kind in "xyz"}

        def names(kind: str, operands: Sequence[Operand]) -> list[str]:
            return ["" if o.skipped else f"{kind}{next(numbers[kind])}" for o in operands]

        self.names = [
            (names("x", p.loads), names("y", p.stores), names("z", [f[2] for f in p.folds])) for p in phases
        ]

    def each(self) -> Iterator[tuple[int, str, Operand]]:
        """Every operand with a place: its phase, its name."""
        for p, phase in enumerate(self.phases):
            flat = [name for group in self.names[p] for name in group]
            yield from ((p, name, o) for name, o in zip(flat, _operands(phase), strict=True) if not o.skipped)

    def text(self) -> str:
        w = self.w
        with w.block("def kernel(desc, lo, hi):"):
            self.head()
            with w.block("for t in range(lo, hi):"):
                self.row()
                for p in range(len(self.phases)):
                    self.phase(p)
            w("return 0")
        return w.text()

    def head(self) -> None:
        """The descriptor's words, in the order of `phases_source`."""
        w = self.w
        for frame in sorted({o.frame for _, _, o in self.each() if o.frame is not None}):
            w(f"h{frame} = local({frame})")
        for _, name, o in self.each():
            if o.frame is None:
                w.read(name)
            else:
                w(f"{name} = h{o.frame} + word(desc, {w.word()})")
        for a in range(self.n_rows):
            w.read(f"m{a}")
        for p, phase in enumerate(self.phases):
            for a in range(phase.depth):
                w.read(f"n{p}_{a}")
        for _, name, o in self.each():
            for a, kind in enumerate(o.rows if o.frame is None else ()):
                if kind != "zero":
                    w.read(f"{name}_j{a}")
            for a, kind in enumerate(o.inner):
                if reads_stride(kind, a + 1 == len(o.inner)):
                    w.read(f"{name}_{a}")
        for p, phase in enumerate(self.phases):
            for k, dtype in enumerate(phase.scalars):
                w(f"s{p}_{k} = const_{short(dtype)}(word(desc, {w.word()}))")

    def row(self) -> None:
        left = "t"
        for a in reversed(range(1, self.n_rows)):
            self.w(f"next{a} = quotient({left}, m{a})")
            self.w(f"j{a} = {left} - next{a} * m{a}")
            left = f"next{a}"
        self.w(f"j0 = {left}")

    def phase(self, p: int) -> None:
        w, phase = self.w, self.phases[p]
        for q, name, o in self.each():
            if q == p:
                terms = [f"j{a} * {name}_j{a}" for a, kind in enumerate(o.rows) if kind != "zero" and o.frame is None]
                w(f"{name}k = " + " + ".join([name, *terms]))
        for combine, init, target in phase.folds:
            w(f"q{target.variable} = {init}")
        if phase.scalar:
            self.lines(p, "k", set())
            return
        outer = range(phase.depth - 1)
        loops = [w.block(f"for r{a} in range(n{p}_{a}):") for a in outer]
        for block in loops:
            block.__enter__()
        level = "r" if outer else "k"
        for q, name, o in self.each():
            if q == p and outer and not name.startswith("z"):
                terms = [f"r{a} * {name}_{a}" for a in outer if o.inner[a] != "zero"]
                w(f"{name}r = " + " + ".join([f"{name}k", *terms]))
        fixed = {i for i, o in enumerate(phase.loads) if not o.skipped and o.inner[-1] == "zero"}
        for i in fixed:
            self.load(p, i, level, "0")
        with w.block(f"for i in range(n{p}_{phase.depth - 1}):"):
            self.lines(p, level, fixed)
        for block in reversed(loops):
            block.__exit__(None, None, None)
        for k, (_, _, target) in enumerate(phase.folds):
            if not target.skipped:
                self.store(p, len(phase.stores) + k, target.access, f"{self.names[p][2][k]}k", "0", f"q{target.variable}")

    def lines(self, p: int, level: str, fixed: set[int]) -> None:
        """The body: what is not loaded yet, the Map's lines, stores and folds."""
        w, phase = self.w, self.phases[p]
        values = []
        for i, o in enumerate(phase.loads):
            if o.variable is not None:
                values.append(f"q{o.variable}")
                continue
            if i not in fixed:
                self.load(p, i, level, self.index(self.names[p][0][i], o, phase.scalar))
            values.append("v" + self.names[p][0][i][1:])
        values += [f"s{p}_{k}" for k in range(len(phase.scalars))]
        results = print_lines(w, phase.map, values, f"p{p}t")
        for k, o in enumerate(phase.stores):
            if o.variable is not None:
                w(f"q{o.variable} = {results[k]}")
            if not o.skipped:
                name = self.names[p][1][k]
                self.store(p, k, o.access, name + level, self.index(name, o, phase.scalar), results[k])
        for k, (combine, _, target) in enumerate(phase.folds):
            name, value = f"q{target.variable}", results[len(phase.stores) + k]
            w(f"{name} = {combined(combine, target.access, name, value)}")

    def index(self, name: str, o: Operand, scalar: bool) -> str:
        if scalar or o.inner[-1] == "zero":
            return "0"
        return "i" if o.inner[-1] == "unit" else f"i * {name}_{len(o.inner) - 1}"

    def load(self, p: int, i: int, level: str, index: str) -> None:
        name, access = self.names[p][0][i], self.phases[p].loads[i].access
        self.w(f"v{name[1:]} = {_of_phase(access, p)}({name}{level}, {index})")

    def store(self, p: int, k: int, dtype: str, address: str, index: str, value: str) -> None:
        self.w(f"{_of_phase(f'store{k}_{dtype}', p)}({address}, {index}, {value})")


def _of_phase(access: str, p: int) -> str:
    return access if p == 0 or access.startswith("index") else f"{access}_phase{p}"
