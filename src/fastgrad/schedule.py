"""Graph -> Schedule: which equations run together in one kernel, and in which order.

Three kinds of step:

    Loop     a loop nest: loads, scalar lines, then stores and folds      (elementwise chains, reductions, copies)
    Gemm     a matrix product with scalar lines on its accumulators       (bias, activation, a mask in backward)
    Library  one named routine                                            (take, scatter_add, check_index)

Fusion works on levels: a step's level is one more than the highest level it reads from. Steps of one level cannot
depend on each other, so an equation may join a step exactly when all else it reads lies on lower levels; no cycle can
arise, and scheduling stays linear in the graph. Reshapes, transposes, slices and broadcasts are layouts, not steps.
Cheap lines over one value (a comparison, a sign change) are not stored: each reader computes them again.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import NamedTuple

import numpy as np

from .core.aval import Aval
from .core.expr import SCALAR_ONLY, Map, MapBuilder
from .core.graph import Atom, Eqn, Graph, Literal, Var
from .core.loops import Axis, Layout, Library, Pointwise, Reduce, View, merge
from .errors import GraphError

MAX_LINES = 96
MAX_OPERANDS = 22
"""A step stops growing here, to bound compile time (and `codegen.simd.intrinsics.MAX_STORES`)."""

_CHEAP = frozenset("eq ne lt le gt ge not neg cast add sub mul max min select".split())


class Buffer:
    """Storage of one value, not placed yet: elements and dtype."""

    __slots__ = ("dtype", "size")

    def __init__(self, size: int, dtype: np.dtype):
        self.size, self.dtype = size, dtype

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return self.size * self.dtype.itemsize


class Ref(NamedTuple):
    """A strided window of a buffer."""

    buffer: Buffer
    layout: Layout


class Fold(NamedTuple):
    """A reduction inside a loop step: how it combines, and where the result goes."""

    combine: str
    init: np.generic
    ref: Ref


@dataclass(frozen=True, eq=False)
class Loop:
    """A loop nest over ``shape``. The Map's inputs are ``loads`` then ``scalars``; its outputs ``stores`` then ``folds``.

    ``reduced`` axes are folded. With ``partial`` (all axes folded) every tile leaves a partial result of its own.
    """

    shape: tuple[int, ...]
    map: Map
    loads: tuple[Ref, ...]
    scalars: tuple[np.generic, ...]
    stores: tuple[Ref, ...]
    reduced: tuple[int, ...] = ()
    folds: tuple[Fold, ...] = ()
    partial: bool = False
    eqns: tuple[Eqn, ...] = ()

    @property
    def reads(self) -> tuple[Ref, ...]:
        """What it reads."""
        return self.loads

    @property
    def writes(self) -> tuple[Ref, ...]:
        """What it writes."""
        return self.stores + tuple(f.ref for f in self.folds)

    def __str__(self) -> str:
        fold = f" fold[{','.join(f.combine for f in self.folds)} over {list(self.reduced)}]" if self.folds else ""
        return f"loop{list(self.shape)}{fold}{' partial' if self.partial else ''}"


@dataclass(frozen=True, eq=False)
class Gemm:
    """``map(a @ b, loads..., scalars...)`` with a: [batch,m,k], b: [batch,k,n], everything else [batch,m,n]."""

    a: Ref
    b: Ref
    map: Map
    loads: tuple[Ref, ...]
    scalars: tuple[np.generic, ...]
    stores: tuple[Ref, ...]
    eqns: tuple[Eqn, ...] = ()

    @property
    def reads(self) -> tuple[Ref, ...]:
        """What it reads."""
        return (self.a, self.b, *self.loads)

    @property
    def writes(self) -> tuple[Ref, ...]:
        """What it writes."""
        return self.stores

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """batch, m, n, k."""
        batch, m, k = self.a.layout.shape
        return batch, m, self.b.layout.shape[2], k

    def __str__(self) -> str:
        batch, m, n, k = self.sizes
        return f"gemm[batch={batch} m={m} n={n} k={k}]"


@dataclass(frozen=True, eq=False)
class Routine:
    """A named library routine: ``sizes`` are its run-time integers."""

    name: str
    reads: tuple[Ref, ...]
    writes: tuple[Ref, ...]
    sizes: tuple[int, ...]
    eqns: tuple[Eqn, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}{list(self.sizes)}"


Step = Loop | Gemm | Routine


@dataclass(frozen=True, eq=False)
class Schedule:
    """Steps in a valid order. ``inputs`` (the graph's, then captured ones) and ``outputs`` are whole buffers."""

    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    name: str = "f"

    def __str__(self) -> str:
        names: dict[Buffer, str] = {}
        for i, b in enumerate(self.inputs):
            names.setdefault(b, f"in{i}")
        for i, b in enumerate(self.outputs):
            names.setdefault(b, f"out{i}")
        number = count()

        def show(ref: Ref) -> str:
            name = names.setdefault(ref.buffer, "") or names.setdefault(ref.buffer, "")
            if not name:
                name = names[ref.buffer] = f"b{next(number)}"
            kinds = "".join({"unit": "1", "zero": "0", "run": "s"}[a.kind] for a in ref.layout.axes)
            return f"{name}<{kinds}>"

        lines = [f"schedule {self.name}"]
        for i, step in enumerate(self.steps):
            writes, reads = " ".join(map(show, step.writes)), " ".join(map(show, step.reads))
            lines.append(f"  {i:3d} {writes} = {step} {reads}".ljust(76) + "  # " + " ".join(_names(step.eqns)))
        return "\n".join(lines)


def _names(eqns: Sequence[Eqn]) -> list[str]:
    return list(dict.fromkeys(e.prim.name for e in eqns)) or ["copy"]


@dataclass(eq=False)
class _Group:
    """A step under construction."""

    kind: str  # "loop" | "gemm" | "routine"
    shape: tuple[int, ...]
    level: int
    order: int
    lines: MapBuilder = field(default_factory=MapBuilder)
    loads: dict[tuple, tuple[Ref, int]] = field(default_factory=dict)
    scalars: dict[tuple, tuple[np.generic, int]] = field(default_factory=dict)
    values: dict[Var, int] = field(default_factory=dict)
    stores: dict[Var, Ref] = field(default_factory=dict)
    reduced: tuple[int, ...] = ()
    folds: list[tuple[Var, Reduce, int]] = field(default_factory=list)
    eqns: list[Eqn] = field(default_factory=list)
    producers: set[_Group] = field(default_factory=set)
    operands: tuple[Ref, ...] = ()
    routine: Routine | None = None

    def room(self) -> bool:
        """Whether one more equation may join."""
        return len(self.lines) < MAX_LINES and len(self.loads) + len(self.stores) + len(self.folds) < MAX_OPERANDS - 3


def schedule(graph: Graph) -> Schedule:
    """Schedule ``graph``: each equation lands in exactly one step, or in each of its readers if it is cheap."""
    return _Scheduler(graph).run()


class _Scheduler:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.order = count()
        self.groups: list[_Group] = []
        self.home: dict[Var, _Group] = {}  # which group computes a value
        self.place: dict[Var, Ref] = {}  # where a stored value lies
        self.lazy: dict[Var, Eqn] = {}
        self.siblings: dict[tuple, _Group] = {}
        self.claimed: list[Buffer] = []
        self.input_vars = [*graph.inputs, *(v for v, _ in graph.captured)]
        for var in self.input_vars:
            self.place[var] = Ref(Buffer(var.aval.size, var.aval.dtype), Layout.contiguous(var.aval.shape))

    def run(self) -> Schedule:
        for eqn in self.graph.eqns:
            self.add(eqn)
        outputs = [self.output(atom, i) for i, atom in enumerate(self.graph.outputs)]
        steps = [step for group in self.sorted_groups() for step in _finish(group, self)]
        inputs = tuple(self.place[v].buffer for v in self.input_vars)
        return Schedule(inputs, tuple(outputs), tuple(steps), self.graph.name)

    # -- one equation ------------------------------------------------------------------------------------------------

    def add(self, eqn: Eqn) -> None:
        kernel = eqn.prim.kernel
        if isinstance(kernel, View):
            self.lazy_view(eqn, kernel)
        elif isinstance(kernel, Pointwise):
            if self.is_cheap(eqn):
                self.lazy[eqn.outputs[0]] = eqn
            else:
                self.pointwise(eqn)
        elif isinstance(kernel, Reduce):
            self.reduce(eqn, kernel)
        else:
            getattr(self, f"add_{kernel.name}")(eqn)

    def is_cheap(self, eqn: Eqn) -> bool:
        """One line over one array of the output's own shape: computed again by each reader instead of stored."""
        arrays = [a for a in eqn.inputs if isinstance(a, Var) and a.aval.shape]
        if len({id(a) for a in arrays}) != 1 or arrays[0].aval.shape != eqn.outputs[0].aval.shape:
            return False
        scalars = [a for a in eqn.inputs if isinstance(a, Var) and not a.aval.shape]
        ops = _ops(eqn)
        return not scalars and len(ops) <= 1 and all(op in _CHEAP for op in ops)

    def lazy_view(self, eqn: Eqn, kernel: View) -> None:
        source, out = eqn.inputs[0], eqn.outputs[0]
        if isinstance(source, Literal):
            self.fill(out, source, eqn)
            return
        ref = self.stored(source)
        layout = kernel.layout(ref.layout, out.aval.shape, **eqn.params)
        if layout is None:
            copied = self.copy(source, eqn)
            layout = kernel.layout(copied.layout, out.aval.shape, **eqn.params)
            assert layout is not None, "a contiguous layout takes any view"
            ref, self.home[out] = copied, self.groups[-1]
        elif (home := self.home.get(source)) is not None:
            self.home[out] = home
        self.place[out] = Ref(ref.buffer, layout)

    def pointwise(self, eqn: Eqn) -> None:
        """Join the step of a producer, or a sibling's, or open a new one."""
        shape = eqn.outputs[0].aval.shape
        arrays = self.array_inputs(eqn)
        group = self.joinable(shape, arrays)
        if group is None or (group.kind == "gemm" and not SCALAR_ONLY.isdisjoint(_ops(eqn))):
            level = max((self.level(a) + 1 for a in arrays), default=0)
            group = self.siblings.get((level, shape))
            if group is None or not group.room():
                group = self.open("loop", shape, level)
                self.siblings[level, shape] = group
        self.inline(group, eqn)

    def joinable(self, shape: tuple[int, ...], arrays: Sequence[Var]) -> _Group | None:
        """The producer's step that a consumer of ``arrays`` over ``shape`` may join, if any."""
        hosts = {g for a in arrays if (g := self.home.get(a)) is not None and a in g.values and g.shape == shape}
        if not hosts:
            return None
        group = max(hosts, key=lambda g: g.level)
        others = (a for a in arrays if not (a in group.values))
        fits = group.room() and all(self.level(a) < group.level for a in others)
        return group if fits and (group.kind == "loop" or self.vectorises(arrays, group)) else None

    def vectorises(self, arrays: Sequence[Var], group: _Group) -> bool:
        """Whether what is loaded beside a matrix product lies fit for vector lines: inner stride 1 or 0."""
        for a in arrays:
            if a not in group.values:
                if a not in self.place and a not in self.home:
                    return False
                layout = _as_matrices(self.stored(a).layout.broadcast(group.shape))
                if layout is None or layout.axes[2].kind == "run":
                    return False
        return True

    def array_inputs(self, eqn: Eqn) -> list[Var]:
        """The values that the equation reads, seen through lazy ones."""
        found: list[Var] = []
        stack = [a for a in eqn.inputs if isinstance(a, Var)]
        while stack:
            var = stack.pop()
            if var in self.lazy:
                stack += [a for a in self.lazy[var].inputs if isinstance(a, Var)]
            else:
                found.append(var)
        return found

    def level(self, var: Var) -> int:
        home = self.home.get(var)
        return home.level if home is not None else -1

    def open(self, kind: str, shape: tuple[int, ...], level: int) -> _Group:
        group = _Group(kind, shape, level, next(self.order))
        self.groups.append(group)
        return group

    # -- lines -------------------------------------------------------------------------------------------------------

    def inline(self, group: _Group, eqn: Eqn) -> int:
        """Write the equation's lines into the group; the value number of its output."""
        out = eqn.outputs[0]
        values = [self.value(group, a) for a in eqn.inputs]
        group.values[out] = eqn.prim.kernel.lines(group.lines, out.aval.dtype, *values, **eqn.params)  # type: ignore[union-attr]
        group.eqns.append(eqn)
        if out not in self.lazy:
            self.home[out] = group
        return group.values[out]

    def value(self, group: _Group, atom: Atom) -> int:
        """The value number of ``atom`` inside the group: computed there, computed again, a scalar, or a load."""
        if isinstance(atom, Literal):
            key = atom.key()[:2]
            if key not in group.scalars:
                group.scalars[key] = (atom.value, group.lines.input(atom.aval.dtype))
            return group.scalars[key][1]
        if atom in group.values and not self.folded(group, atom):
            return group.values[atom]
        if atom in self.lazy:
            return self.inline(group, self.lazy[atom])
        return self.load(group, self.stored(atom), atom)

    def folded(self, group: _Group, var: Var) -> bool:
        return any(var is v for v, _, _ in group.folds)

    def load(self, group: _Group, ref: Ref, var: Var) -> int:
        if (home := self.home.get(var)) is not None:
            group.producers.add(home)
        layout = ref.layout.broadcast(group.shape)
        key = (ref.buffer, layout)
        if key not in group.loads:
            group.loads[key] = (Ref(ref.buffer, layout), group.lines.input(ref.buffer.dtype))
        return group.loads[key][1]

    def stored(self, var: Var) -> Ref:
        """Where ``var`` lies, made to be stored if it was not yet."""
        if var in self.lazy:
            self.pointwise(self.lazy.pop(var))
        if var not in self.place:
            ref = Ref(Buffer(var.aval.size, var.aval.dtype), Layout.contiguous(var.aval.shape))
            self.place[var] = ref
            self.home[var].stores[var] = ref
        return self.place[var]

    def copy(self, atom: Atom, eqn: Eqn | None = None) -> Ref:
        """A step that copies ``atom`` into a contiguous buffer of its own."""
        if isinstance(atom, Var):
            self.stored(atom)
        group = self.open("loop", atom.aval.shape, self.level(atom) + 1 if isinstance(atom, Var) else 0)
        out = Var(atom.aval)
        group.values[out] = self.value(group, atom)
        self.home[out] = group
        if eqn is not None:
            group.eqns.append(eqn)
        return self.stored(out)

    def fill(self, out: Var, literal: Literal, eqn: Eqn) -> None:
        key = (0, out.aval.shape)
        group = self.siblings.get(key)
        if group is None or not group.room():
            group = self.siblings[key] = self.open("loop", out.aval.shape, 0)
        group.values[out] = self.value(group, literal)
        group.eqns.append(eqn)
        self.home[out] = group

    # -- reductions, products, routines ------------------------------------------------------------------------------

    def reduce(self, eqn: Eqn, kernel: Reduce) -> None:
        """Fold inside the producer's step when it has no other folds, else in a step that shares the loop and axes."""
        source, out, axes = eqn.inputs[0], eqn.outputs[0], eqn.params["axes"]
        shape = source.aval.shape
        arrays = [source] if isinstance(source, Var) and source not in self.lazy else []
        if isinstance(source, Var) and source in self.lazy:
            arrays = self.array_inputs(self.lazy[source])
        group = self.joinable(shape, arrays)
        if group is not None and (group.kind != "loop" or (group.folds and group.reduced != axes)):
            group = None
        if group is None:
            level = max((self.level(a) + 1 for a in arrays), default=0)
            key = (level, shape, axes)
            group = self.siblings.get(key)
            if group is None or not group.room():
                group = self.siblings[key] = self.open("loop", shape, level)
        group.reduced = axes
        value = self.value(group, source)
        group.folds.append((out, kernel, value))
        group.eqns.append(eqn)
        self.home[out] = group

    def add_matmul(self, eqn: Eqn) -> None:
        a, b = (self.matrices(x) for x in eqn.inputs)
        out = eqn.outputs[0]
        inputs = [x for x in eqn.inputs if isinstance(x, Var)]
        group = self.open("gemm", out.aval.shape, max(self.level(x) for x in inputs) + 1)
        group.producers.update(home for x in inputs if (home := self.home.get(x)) is not None)
        group.operands = (a, b)
        group.values[out] = group.lines.input(out.aval.dtype)
        group.eqns.append(eqn)
        self.home[out] = group

    def matrices(self, atom: Atom) -> Ref:
        """The operand of a product as one batch axis over matrices; copied where its batch axes do not merge."""
        assert isinstance(atom, Var), "matmul operands have at least two axes"
        ref = self.stored(atom)
        layout = _as_matrices(ref.layout)
        if layout is None:
            ref = self.copy(atom)
            self.home[atom], self.place[atom] = self.groups[-1], ref
            layout = _as_matrices(ref.layout)
            assert layout is not None
        return Ref(ref.buffer, layout)

    def contiguous(self, atom: Atom) -> Ref:
        """The atom as a contiguous buffer, copied if need be."""
        if isinstance(atom, Var):
            ref = self.stored(atom)
            if ref.layout.is_contiguous:
                return ref
        ref = self.copy(atom)
        if isinstance(atom, Var):
            self.home[atom], self.place[atom] = self.groups[-1], ref
        return ref

    def routine(self, eqn: Eqn, sizes: tuple[int, ...]) -> None:
        reads = tuple(self.contiguous(a) for a in eqn.inputs)
        inputs = [a for a in eqn.inputs if isinstance(a, Var)]
        group = self.open("routine", (), max((self.level(a) for a in inputs), default=-1) + 1)
        group.producers.update(home for a in inputs if (home := self.home.get(a)) is not None)
        out = eqn.outputs[0]
        ref = Ref(Buffer(out.aval.size, out.aval.dtype), Layout.contiguous(out.aval.shape))
        self.place[out], self.home[out] = ref, group
        group.routine = Routine(eqn.prim.name, reads, (ref,), sizes, (eqn,))

    def add_take(self, eqn: Eqn) -> None:
        x, indices, axis = eqn.inputs[0].aval, eqn.inputs[1].aval, eqn.params["axis"]
        self.routine(eqn, (math.prod(x.shape[:axis]), x.shape[axis], indices.size, math.prod(x.shape[axis + 1 :])))

    def add_scatter_add(self, eqn: Eqn) -> None:
        out, axis = eqn.outputs[0].aval, eqn.params["axis"]
        indices = eqn.inputs[1].aval
        self.routine(eqn, (math.prod(out.shape[:axis]), out.shape[axis], indices.size, math.prod(out.shape[axis + 1 :])))

    def add_check_index(self, eqn: Eqn) -> None:
        self.routine(eqn, (eqn.inputs[0].aval.size, eqn.params["size"]))

    def add_concatenate(self, eqn: Eqn) -> None:
        """One copy a part, each into its window of the result."""
        out, axis = eqn.outputs[0], eqn.params["axis"]
        whole = Ref(Buffer(out.aval.size, out.aval.dtype), Layout.contiguous(out.aval.shape))
        start, groups = 0, []
        for atom in eqn.inputs:
            stop = start + atom.aval.shape[axis]
            groups.append(self.window(whole, atom, axis, start, stop, eqn))
            start = stop
        self.join_windows(out, whole, groups)

    def add_pad(self, eqn: Eqn) -> None:
        """Zeros everywhere, then a copy into a strided window."""
        x, out = eqn.inputs[0], eqn.outputs[0]
        lo, interior = eqn.params["lo"], eqn.params["interior"]
        whole = Ref(Buffer(out.aval.size, out.aval.dtype), Layout.contiguous(out.aval.shape))
        zero = self.open("loop", out.aval.shape, 0)
        blank = Var(out.aval)
        zero.values[blank] = self.value(zero, Literal(out.aval.dtype.type(0)))
        zero.stores[blank], zero.eqns = whole, [eqn]
        self.home[blank] = zero
        stops = [p + max(0, (n - 1) * (i + 1) + 1) for p, n, i in zip(lo, x.aval.shape, interior, strict=True)]
        layout = whole.layout.slice(lo, stops, [i + 1 for i in interior])
        group = self.copy_into(Ref(whole.buffer, layout), x, eqn, above=zero)
        self.join_windows(out, whole, [group])

    def window(self, whole: Ref, atom: Atom, axis: int, start: int, stop: int, eqn: Eqn) -> _Group:
        shape = whole.layout.shape
        starts = [start if i == axis else 0 for i in range(len(shape))]
        stops = [stop if i == axis else n for i, n in enumerate(shape)]
        layout = whole.layout.slice(starts, stops, [1] * len(shape))
        return self.copy_into(Ref(whole.buffer, layout), atom, eqn)

    def copy_into(self, target: Ref, atom: Atom, eqn: Eqn, above: _Group | None = None) -> _Group:
        if isinstance(atom, Var):
            self.stored(atom)
        level = self.level(atom) + 1 if isinstance(atom, Var) else 0
        group = self.open("loop", atom.aval.shape, max(level, above.level + 1 if above else 0))
        part = Var(atom.aval)
        group.values[part] = self.value(group, atom)
        group.stores[part], group.eqns = target, [eqn]
        if above:
            group.producers.add(above)
        return group

    def join_windows(self, out: Var, whole: Ref, groups: list[_Group]) -> None:
        """Readers of ``out`` come after every window: the last group stands for all of them."""
        last = max(groups, key=lambda g: g.level)
        last.producers.update(g for g in groups if g is not last)
        self.place[out], self.home[out] = whole, last

    # -- the end -----------------------------------------------------------------------------------------------------

    def output(self, atom: Atom, i: int) -> Buffer:
        """A buffer of its own for output ``i``: the value's if a step wrote it whole and no other output claims it."""
        taken = [*(self.place[v].buffer for v in self.input_vars), *self.claimed]
        if isinstance(atom, Var):
            ref = self.stored(atom)
            own = ref.layout.is_contiguous and ref.layout.offset == 0 and ref.buffer.size == atom.aval.size
            if own and all(ref.buffer is not b for b in taken):
                self.claimed.append(ref.buffer)
                return ref.buffer
        buffer = self.copy(atom).buffer
        self.claimed.append(buffer)
        return buffer

    def sorted_groups(self) -> list[_Group]:
        """A topological order that stays close to the program's, so that values die soon (Kahn 1962)."""
        waiting = {g: len(g.producers - {g}) for g in self.groups}
        readers: dict[_Group, list[_Group]] = {g: [] for g in self.groups}
        for g in self.groups:
            for p in g.producers - {g}:
                readers[p].append(g)
        ready = [(g.order, g) for g in self.groups if not waiting[g]]
        heap = [(order, i, g) for i, (order, g) in enumerate(ready)]
        heapq.heapify(heap)
        done: list[_Group] = []
        tick = count(len(heap))
        while heap:
            group = heapq.heappop(heap)[2]
            done.append(group)
            for reader in readers[group]:
                waiting[reader] -= 1
                if not waiting[reader]:
                    heapq.heappush(heap, (reader.order, next(tick), reader))
        if len(done) != len(self.groups):
            raise GraphError(f"{self.graph.name}: the schedule has a cycle")
        return done


def _ops(eqn: Eqn) -> list[str]:
    """The scalar ops that a pointwise equation takes."""
    k = MapBuilder()
    values = [k.input(a.aval.dtype) for a in eqn.inputs]
    eqn.prim.kernel.lines(k, eqn.outputs[0].aval.dtype, *values, **eqn.params)  # type: ignore[union-attr]
    return k.ops()


def _as_matrices(layout: Layout) -> Layout | None:
    """``[..., i, j]`` with its leading axes merged into one batch axis, or None where they do not merge."""
    *lead, i, j = layout.axes
    if not all(axis.joined or axis.kind == "zero" for axis in lead[:-1]):
        return None
    batch = lead[-1]._replace(joined=False) if lead else Axis(0, "zero", False)
    shape = (math.prod(layout.shape[:-2]), *layout.shape[-2:])
    return Layout(shape, (batch, i, j), layout.offset)


def _finish(group: _Group, scheduler: _Scheduler) -> list[Step]:
    """The steps that a finished group becomes."""
    if group.routine is not None:
        return [group.routine]
    folded = {var for var, _, _ in group.folds}
    stores = [(var, ref) for var, ref in group.stores.items() if var not in folded]
    loads = list(group.loads.values())
    scalars = list(group.scalars.values())
    inputs = [value for _, value in loads + scalars]
    load_refs, numbers = tuple(r for r, _ in loads), tuple(s for s, _ in scalars)
    eqns = tuple(dict.fromkeys(group.eqns))
    if group.kind == "gemm":
        accumulator = group.values[group.eqns[0].outputs[0]]
        lines = group.lines.build([group.values[v] for v, _ in stores], [accumulator, *inputs])
        refs = [_matrix_ref(r) for r in (*load_refs, *(r for _, r in stores))]
        return [Gemm(*group.operands, lines, tuple(refs[: len(loads)]), numbers, tuple(refs[len(loads) :]), eqns)]
    folds = [(v, r, value) for v, r, value in group.folds if v in scheduler.place]
    lines = group.lines.build([group.values[v] for v, _ in stores] + [value for _, _, value in folds], inputs)
    targets = [Fold(r.combine, r.init(v.aval.dtype), scheduler.place[v]) for v, r, _ in folds]
    loop = Loop(group.shape, lines, load_refs, numbers, tuple(r for _, r in stores), group.reduced, tuple(targets), False, eqns)
    if targets and len(group.reduced) == len(group.shape):
        return _two_phase(loop)
    return [loop if targets else replace(loop, reduced=())]


def _matrix_ref(ref: Ref) -> Ref:
    layout = _as_matrices(ref.layout)
    assert layout is not None, "checked before it was fused"
    return Ref(ref.buffer, layout)


def _two_phase(loop: Loop) -> list[Step]:
    """A fold to one number: each tile leaves a partial result, a second loop folds those.

    The tiles depend on the sizes alone, so the sum has the same bits at any number of threads.
    """
    tiles = nest(replace(loop, partial=True)).tiles
    parts = [Ref(Buffer(tiles, f.ref.buffer.dtype), Layout.contiguous((tiles,))) for f in loop.folds]
    first = replace(loop, partial=True, folds=tuple(f._replace(ref=p) for f, p in zip(loop.folds, parts, strict=True)))
    identity = MapBuilder()
    values = [identity.input(p.buffer.dtype) for p in parts]
    second = Loop((tiles,), identity.build(values, values), tuple(parts), (), (), (0,), loop.folds, False, loop.eqns)
    return [first, second]


# -- loop nests --------------------------------------------------------------------------------------------------------

MAP_BLOCK = 4096
"""Elements of the inner axis that one tile covers: small enough for L1, large enough to hide the tile's own cost."""
COLUMN_BLOCK = 128
"""The same where rows are folded into columns: the tile's results stay in L1 while all rows pass by."""


@dataclass(frozen=True)
class Nest:
    """A loop's axes after merging, outermost first: sizes, ``K`` (kept) or ``R`` (folded), and an axis record an operand.

    Operands are the loads, the stores, the folds' targets. Tiles count the kept axes, the inner one in blocks.
    """

    sizes: tuple[int, ...]
    kinds: str
    operands: tuple[tuple[Axis, ...], ...]
    block: int
    tiles: int


def nest(loop: Loop) -> Nest:
    """The loop nest of a step: which axes merge depends on construction alone, never on sizes."""
    shape, layouts = loop.shape, [r.layout for r in loop.loads + loop.stores]
    layouts += [_over(f.ref.layout, loop) for f in loop.folds]
    if not shape:
        shape, layouts = (1,), [Layout((1,), (Axis(1, "unit", False),), x.offset) for x in layouts]
    folded = [i in loop.reduced and not loop.partial for i in range(len(shape))]
    cuts = [i for i in range(1, len(shape)) if folded[i] != folded[i - 1]]
    sizes, axes = merge(shape, layouts, cuts)
    ends = [i for i in range(len(shape)) if i + 1 == len(shape) or i + 1 in cuts or not all(x.axes[i].joined for x in layouts)]
    kinds = "".join("R" if folded[i] else "K" for i in ends)
    block = (COLUMN_BLOCK if "R" in kinds else MAP_BLOCK) if kinds[-1] == "K" else 1
    tiles = math.prod(n for n, k in zip(sizes, kinds, strict=True) if k == "K")
    if kinds[-1] == "K":
        tiles = math.prod(n for n, k in zip(sizes[:-1], kinds, strict=False) if k == "K") * -(-sizes[-1] // block)
    return Nest(sizes, kinds, tuple(axes), block, tiles)


def _over(kept: Layout, loop: Loop) -> Layout:
    """The layout of a fold's target, seen from the whole iteration space: folded axes have stride 0."""
    if loop.partial:
        return Layout(loop.shape, tuple(Axis(0, "zero", True) for _ in loop.shape), kept.offset)
    mine = iter(kept.axes)
    axes = [Axis(0, "zero", True) if i in loop.reduced else next(mine) for i in range(len(loop.shape))]
    kept_positions = [i for i in range(len(loop.shape)) if i not in loop.reduced]
    for i in kept_positions:
        axes[i] = axes[i]._replace(joined=axes[i].joined and i + 1 in kept_positions)
    return Layout(loop.shape, tuple(axes), kept.offset)
