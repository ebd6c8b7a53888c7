"""Which equations share a step: levels, joining, lines. See the package's docstring for the idea."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import count
from typing import Any

import numpy as np

from ..core.expr import SCALAR_ONLY, MapBuilder
from ..core.graph import Atom, Eqn, Graph, Literal, Var
from ..core.loops import Layout, Library, Pointwise, Reduce, Region, View
from ..errors import GraphError
from .group import Group, as_matrices, finish, in_order
from .library import LIBRARY
from .phases import phased
from .regions import region
from .steps import Buffer, Indices, Ref, Schedule

MAX_LAZY = 3
"""Cheap lines in a row that readers compute again; a longer chain is stored."""
_CHEAP = frozenset(
    {"eq", "ne", "lt", "le", "gt", "ge", "not", "neg", "cast", "add", "sub", "mul", "max", "min", "select"}
)


class Scheduler:
    def __init__(self, graph: Graph, schedule: Callable[[Graph], Schedule]):
        self.graph, self.schedule = graph, schedule
        self.order = count()
        self.groups: list[Group] = []
        self.home: dict[Var, Group] = {}  # which group computes a value
        self.place: dict[Var, Ref] = {}  # where a stored value lies
        self.lazy: dict[Var, Eqn] = {}
        self.constants: dict[Var, Literal] = {}  # one number all over: a scalar to whoever computes with it
        self.siblings: dict[tuple, Group] = {}
        self.merged: dict[Group, Group] = {}
        self.written_over = {
            e.inputs[0] for e in graph.eqns if e.prim.name in ("update_slice", "scatter")
        } - set(graph.outputs)
        self.readers = Counter(
            a for eqn in graph.eqns for a in dict.fromkeys(eqn.inputs) if isinstance(a, Var)
        )
        self.readers.update(a for a in graph.outputs if isinstance(a, Var))
        self.input_vars = [*graph.inputs, *(v for v, _ in graph.captured)]
        for var in self.input_vars:
            self.place[var] = Ref(Buffer(var.aval.size, var.aval.dtype), Layout.contiguous(var.aval.shape))
        self.taken = {self.place[v].buffer for v in self.input_vars}  # no output may be one of these

    def run(self) -> Schedule:
        for eqn in self.graph.eqns:
            self.add(eqn)
        outputs = [self.output(atom) for atom in self.graph.outputs]
        groups = [g for g in self.groups if g not in self.merged]
        for g in groups:
            g.producers = {self.standing(p) for p in g.producers} - {g}
        steps = [step for group in in_order(groups, self.graph.name) for step in finish(group, self.place)]
        inputs = tuple(self.place[v].buffer for v in self.input_vars)
        return Schedule(inputs, tuple(outputs), tuple(phased(steps, outputs)), self.graph.name)

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
        elif isinstance(kernel, Library):
            LIBRARY[kernel.name](self, eqn)
        elif isinstance(kernel, Region):
            region(self, eqn, self.schedule)
        else:
            raise GraphError(f"{eqn.prim.name}: cannot be scheduled")

    def is_cheap(self, eqn: Eqn) -> bool:
        """One line over one array of the output's own shape: computed again by each reader instead of stored."""
        arrays = [a for a in eqn.inputs if isinstance(a, Var) and a.aval.shape]
        if len({id(a) for a in arrays}) != 1 or arrays[0].aval.shape != eqn.outputs[0].aval.shape:
            return False
        if arrays[0] in self.lazy and self.lazy_depth(arrays[0]) >= MAX_LAZY:
            return False
        if self.narrows(arrays[0], eqn.outputs[0]):
            return False
        scalars = [a for a in eqn.inputs if isinstance(a, Var) and not a.aval.shape]
        ops = ops_of(eqn)
        return not scalars and len(ops) <= 1 and all(op in _CHEAP for op in ops)

    def narrows(self, source: Var, out: Var) -> bool:
        """Whether ``source``, just computed, has no reader but this equation, which keeps less of it (a mask, of words)."""
        fresh = source in self.home and source not in self.place and source not in self.lazy
        return fresh and self.readers[source] == 1 and out.aval.dtype.itemsize < source.aval.dtype.itemsize

    def lazy_depth(self, var: Var) -> int:
        """How many cheap lines stand one on the other up to ``var``."""
        depth = 0
        while var in self.lazy:
            depth += 1
            var = next(a for a in self.lazy[var].inputs if isinstance(a, Var) and a.aval.shape)
        return depth

    def lazy_view(self, eqn: Eqn, kernel: View) -> None:
        source, out = eqn.inputs[0], eqn.outputs[0]
        if isinstance(source, Literal) or source in self.constants:
            self.constants[out] = source if isinstance(source, Literal) else self.constants[source]
            return
        ref = self.stored(source)
        params = tuple(eqn.params.items())
        layout = _viewed(kernel, ref.layout, out.aval.shape, params)
        if layout is None:
            copied = self.copy(source, eqn)
            layout = _viewed(kernel, copied.layout, out.aval.shape, params)
            assert layout is not None, "a contiguous layout takes any view"
            ref, self.home[out] = copied, self.groups[-1]
        elif (home := self.home.get(source)) is not None:
            self.home[out] = home
        self.place[out] = Ref(ref.buffer, layout)
        if source in self.written_over and 2 * out.aval.size <= source.aval.size:
            copied = self.copy(out, eqn)  # read now, so that the array can be written over in place
            self.place[out], self.home[out] = copied, self.groups[-1]

    def pointwise(self, eqn: Eqn) -> None:
        """Join the step of a producer, or a sibling's, or open a new one."""
        shape = eqn.outputs[0].aval.shape
        arrays = self.array_inputs(eqn)
        group = self.joinable(shape, arrays)
        if group is None or (group.kind == "gemm" and not SCALAR_ONLY.isdisjoint(ops_of(eqn))):
            group = self.beside(shape, arrays)
        self.inline(group, eqn)

    def beside(
        self, shape: tuple[int, ...], arrays: Sequence[Var], axes: tuple[int, ...] | None = None
    ) -> Group:
        """A step of the same level, shape and folded axes that reads one of ``arrays`` too, or a new one.

        Reading the same array is what makes the shapes equal by construction: two steps whose sizes merely happen to
        agree stay apart, or another batch size would need other kernels.
        """
        level = max((self.level(a) + 1 for a in arrays), default=0)
        keys = [(level, a, axes) for a in arrays if a.aval.shape == shape] if shape else [(level, None, axes)]
        found = (self.standing(self.siblings[key]) for key in keys if key in self.siblings)
        group = next((g for g in found if g.room()), None) or self.open("loop", shape, level)
        self.siblings.update(dict.fromkeys(keys, group))
        return group

    def joinable(self, shape: tuple[int, ...], arrays: Sequence[Var]) -> Group | None:
        """The producer's step that a consumer of ``arrays`` over ``shape`` may join, if any.

        Producers of one level cannot depend on each other: where the consumer reads several, they become one step. One of a
        lower level that nobody has read yet moves there too: then it need not be stored. Of several products one that nobody
        has read yet waits for the others, and takes their results as operands.
        """
        homes = (self.home[a] for a in arrays if a in self.home and a in self.home[a].values)
        hosts = [g for g in dict.fromkeys(homes) if g.shape == shape]
        if not hosts:
            return None
        top = max(g.level for g in hosts)
        group, *peers = sorted(
            (g for g in hosts if g.level == top), key=lambda g: (not g.folds, bool(g.stores))
        )
        for peer in (*peers, *(g for g in hosts if g.level < top and not (g.stores or g.awaited))):
            if group.takes_in(peer):
                self.merge(group, peer)
        late = [a for a in arrays if a not in group.values and self.level(a) >= group.level]
        unread = group.kind == "gemm" and not (group.stores or group.awaited)
        if unread and all(self.home[a].kind == "gemm" and self.home[a] is not group for a in late):
            group.level = max((group.level, *(self.level(a) + 1 for a in late)))
            late = []
        fits = group.room() and not late
        return group if fits and (group.kind == "loop" or self.vectorises(arrays, group)) else None

    def merge(self, group: Group, peer: Group) -> None:
        """Write the peer's equations into ``group``, which stands for both from now on."""
        for eqn in peer.eqns:
            if eqn.outputs[0] not in group.values:
                self.inline(group, eqn)
        group.stores.update(peer.stores)
        group.awaited |= peer.awaited
        self.merged[peer] = group

    def standing(self, group: Group) -> Group:
        """The group that stands for ``group`` after merging."""
        while group in self.merged:
            group = self.merged[group]
        return group

    def vectorises(self, arrays: Sequence[Var], group: Group) -> bool:
        """Whether what is loaded beside a matrix product lies fit for vector lines: inner stride 1 or 0."""
        for a in arrays:
            if a not in group.values:
                if a not in self.place and a not in self.home:
                    return False
                ref = self.stored(a)
                layout = as_matrices(ref.layout.broadcast(group.shape))
                if layout is None or isinstance(ref.buffer, Indices) or layout.axes[2].kind == "run":
                    return False
        return True

    def array_inputs(self, eqn: Eqn) -> list[Var]:
        """The values that the equation reads, seen through lazy ones."""
        found: list[Var] = []
        stack = [a for a in eqn.inputs if isinstance(a, Var)]
        while stack:
            var = stack.pop()
            if var in self.constants:
                continue
            if var in self.lazy:
                stack += [a for a in self.lazy[var].inputs if isinstance(a, Var)]
            else:
                found.append(var)
        return found

    def level(self, var: Var) -> int:
        return self.home[var].level if var in self.home else -1

    def open(self, kind: str, shape: tuple[int, ...], level: int) -> Group:
        group = Group(kind, shape, level, next(self.order))
        self.groups.append(group)
        return group

    # -- lines -------------------------------------------------------------------------------------------------------

    def inline(self, group: Group, eqn: Eqn) -> int:
        """Write the equation's lines into the group; the value number of its output."""
        out = eqn.outputs[0]
        values = [self.value(group, a) for a in eqn.inputs]
        group.values[out] = eqn.prim.kernel.lines(group.lines, out.aval.dtype, *values, **eqn.params)  # type: ignore[union-attr]
        group.eqns.append(eqn)
        if out not in self.lazy:
            self.home[out] = group
        return group.values[out]

    def value(self, group: Group, atom: Atom) -> int:
        """The value number of ``atom`` inside the group: computed there, computed again, a scalar, or a load."""
        if isinstance(atom, Literal):
            key = atom.key()[:2]
            if key not in group.scalars:
                group.scalars[key] = (atom.value, group.lines.input(atom.aval.dtype))
            return group.scalars[key][1]
        if atom in self.constants:
            return self.value(group, self.constants[atom])
        if atom in group.values and not self.folded(group, atom):
            return group.values[atom]
        if atom in self.lazy:
            return self.inline(group, self.lazy[atom])
        return self.load(group, self.stored(atom), atom)

    def folded(self, group: Group, var: Var) -> bool:
        return any(var is v for v, _, _ in group.folds)

    def load(self, group: Group, ref: Ref, var: Var) -> int:
        if (home := self.home.get(var)) is not None:
            if home is group:
                raise GraphError(f"{self.graph.name}: a step reads what it computes itself")
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
        elif var in self.constants and var not in self.home:
            self.fill(var, self.constants[var])
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
        group.sealed = True
        out = Var(atom.aval)
        group.values[out] = self.value(group, atom)
        self.home[out] = group
        if eqn is not None:
            group.eqns.append(eqn)
        return self.stored(out)

    def fill(self, out: Var, literal: Literal) -> None:
        """A step that writes a constant out, for a reader that wants it in memory."""
        group = self.beside(out.aval.shape, [])
        group.sealed = True
        group.values[out] = self.value(group, literal)
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
        if group is not None and not group.takes_fold(kernel, axes, out.aval.dtype):
            group = None
        if group is None:
            group = self.beside(shape, arrays, axes)
        group.reduced = axes
        value = self.value(group, source)
        group.folds.append((out, kernel, value))
        group.eqns.append(eqn)
        self.home[out] = group

    # -- the end -----------------------------------------------------------------------------------------------------

    def computes(self, group: Group, var: Var) -> bool:
        """Whether the loop nest ``group`` has ``var`` at hand, element by element, and room for one more store of it."""
        plain = group.kind == "loop" and var.aval.shape == group.shape and not self.folded(group, var)
        return plain and var in group.values and group.room()

    def output(self, atom: Atom) -> Buffer:
        """A buffer of its own for an output: the value's if a step wrote it whole and no other output claims it.

        Otherwise a copy, made by a step that has the value at hand where there is one.
        """
        buffer = self.own_buffer(atom) or (self.store_again(atom) or self.copy(atom)).buffer
        self.taken.add(buffer)
        return buffer

    def store_again(self, atom: Atom) -> Ref | None:
        """A second place for a value, stored by the step that computes it or by one that loads it anyway."""
        if not isinstance(atom, Var) or not atom.aval.shape:
            return None
        if (home := self.home.get(atom)) is not None and self.computes(home, atom):
            group, value = home, home.values[atom]
        else:
            ref = self.stored(atom)
            key = (ref.buffer, ref.layout)
            readers = (g for g in self.groups if key in g.loads and g.shape == atom.aval.shape)
            fit = (g for g in readers if g.kind == "loop" and not g.sealed and g.room())
            found = next((g for g in fit if g not in self.merged), None)
            if found is None:
                return None
            group, value = found, found.loads[key][1]
        again = Var(atom.aval)
        group.values[again], self.home[again] = value, group
        return self.stored(again)

    def own_buffer(self, atom: Atom) -> Buffer | None:
        if not isinstance(atom, Var):
            return None
        ref = self.stored(atom)
        whole = ref.layout.is_contiguous and ref.layout.offset == 0 and ref.buffer.size == atom.aval.size
        fits = whole and not isinstance(ref.buffer, Indices)
        return ref.buffer if fits and ref.buffer not in self.taken else None


def ops_of(eqn: Eqn) -> list[str]:
    """The scalar ops that a pointwise equation takes."""
    assert isinstance(eqn.prim.kernel, Pointwise)
    dtypes = tuple(a.aval.dtype for a in eqn.inputs)
    return _ops(eqn.prim.kernel, dtypes, eqn.outputs[0].aval.dtype, tuple(eqn.params.items()))


@lru_cache(maxsize=1024)
def _ops(
    kernel: Pointwise, inputs: tuple[np.dtype, ...], output: np.dtype, params: tuple[tuple[str, Any], ...]
) -> list[str]:
    k = MapBuilder()
    kernel.lines(k, output, *map(k.input, inputs), **dict(params))
    return k.ops()


@lru_cache(maxsize=4096)  # equal layers share the records of their views
def _viewed(
    view: View, layout: Layout, shape: tuple[int, ...], params: tuple[tuple[str, Any], ...]
) -> Layout | None:
    return view.layout(layout, shape, **dict(params))
