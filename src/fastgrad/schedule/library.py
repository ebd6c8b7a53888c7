"""How ops that are no loop nest become steps: products, picked rows, running sums, windows of a larger array."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..core.graph import Atom, Eqn, Literal, Var
from ..core.loops import Layout
from .group import Group, as_matrices
from .steps import Buffer, Ref, Routine

if TYPE_CHECKING:
    from .fusion import Scheduler


def _matmul(s: Scheduler, eqn: Eqn) -> None:
    a, b = (_matrices(s, x) for x in eqn.inputs)
    out = eqn.outputs[0]
    inputs = [x for x in eqn.inputs if isinstance(x, Var)]
    group = s.open("gemm", out.aval.shape, max(s.level(x) for x in inputs) + 1)
    group.producers.update(home for x in inputs if (home := s.home.get(x)) is not None)
    group.operands = (a, b)
    group.values[out] = group.lines.input(out.aval.dtype)
    group.eqns.append(eqn)
    s.home[out] = group


def _matrices(s: Scheduler, atom: Atom) -> Ref:
    """The operand of a product as one batch axis over matrices; copied where its batch axes do not merge."""
    assert isinstance(atom, Var), "matmul operands have at least two axes"
    ref = s.stored(atom)
    layout = as_matrices(ref.layout)
    if layout is None:
        ref = s.copy(atom)
        s.home[atom], s.place[atom] = s.groups[-1], ref
        layout = as_matrices(ref.layout)
        assert layout is not None
    return Ref(ref.buffer, layout)


def contiguous(s: Scheduler, atom: Atom) -> Ref:
    """The atom as a contiguous buffer, copied if need be."""
    if isinstance(atom, Var):
        ref = s.stored(atom)
        if ref.layout.is_contiguous:
            return ref
    ref = s.copy(atom)
    if isinstance(atom, Var):
        s.home[atom], s.place[atom] = s.groups[-1], ref
    return ref


def _routine(s: Scheduler, eqn: Eqn, sizes: tuple[int, ...]) -> None:
    reads = tuple(contiguous(s, a) for a in eqn.inputs)
    inputs = [a for a in eqn.inputs if isinstance(a, Var)]
    group = s.open("routine", (), max((s.level(a) for a in inputs), default=-1) + 1)
    group.producers.update(home for a in inputs if (home := s.home.get(a)) is not None)
    out = eqn.outputs[0]
    ref = Ref(Buffer(out.aval.size, out.aval.dtype), Layout.contiguous(out.aval.shape))
    s.place[out], s.home[out] = ref, group
    group.step = Routine(eqn.prim.name, reads, (ref,), sizes, (eqn,))


def _take(s: Scheduler, eqn: Eqn) -> None:
    x, indices, axis = eqn.inputs[0].aval, eqn.inputs[1].aval, eqn.params["axis"]
    _routine(s, eqn, (math.prod(x.shape[:axis]), x.shape[axis], indices.size, math.prod(x.shape[axis + 1 :])))


def _scatter_add(s: Scheduler, eqn: Eqn) -> None:
    out, axis = eqn.outputs[0].aval, eqn.params["axis"]
    indices = eqn.inputs[1].aval
    _routine(
        s, eqn, (math.prod(out.shape[:axis]), out.shape[axis], indices.size, math.prod(out.shape[axis + 1 :]))
    )


def _check_index(s: Scheduler, eqn: Eqn) -> None:
    _routine(s, eqn, (eqn.inputs[0].aval.size, eqn.params["size"]))


def _cumsum(s: Scheduler, eqn: Eqn) -> None:
    """In reverse the walk starts at the last row of the axis and steps back."""
    shape, axis, reverse = eqn.outputs[0].aval.shape, eqn.params["axis"], eqn.params["reverse"]
    outer, length, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    start, step = ((length - 1) * inner, -inner) if reverse else (0, inner)
    _routine(s, eqn, (outer, length, inner, start, step))


def _concatenate(s: Scheduler, eqn: Eqn) -> None:
    """One copy a part, each into its window of the result."""
    out, axis = eqn.outputs[0], eqn.params["axis"]
    whole = Ref(Buffer(out.aval.size, out.aval.dtype), Layout.contiguous(out.aval.shape))
    start, groups = 0, []
    for atom in eqn.inputs:
        stop = start + atom.aval.shape[axis]
        groups.append(_window(s, whole, atom, axis, start, stop, eqn))
        start = stop
    _join_windows(s, out, whole, groups)


def _pad(s: Scheduler, eqn: Eqn) -> None:
    """Zeros everywhere, then a copy into a strided window."""
    x, out = eqn.inputs[0], eqn.outputs[0]
    lo, interior = eqn.params["lo"], eqn.params["interior"]
    whole = Ref(Buffer(out.aval.size, out.aval.dtype), Layout.contiguous(out.aval.shape))
    zero = s.open("loop", out.aval.shape, 0)
    zero.sealed = True
    blank = Var(out.aval)
    zero.values[blank] = s.value(zero, Literal(out.aval.dtype.type(0)))
    zero.stores[blank], zero.eqns = whole, [eqn]
    s.home[blank] = zero
    stops = [p + max(0, (n - 1) * (i + 1) + 1) for p, n, i in zip(lo, x.aval.shape, interior, strict=True)]
    layout = whole.layout.slice(lo, stops, [i + 1 for i in interior])
    group = _copy_into(s, Ref(whole.buffer, layout), x, eqn, above=zero)
    _join_windows(s, out, whole, [group])


def _window(s: Scheduler, whole: Ref, atom: Atom, axis: int, start: int, stop: int, eqn: Eqn) -> Group:
    shape = whole.layout.shape
    starts = [start if i == axis else 0 for i in range(len(shape))]
    stops = [stop if i == axis else n for i, n in enumerate(shape)]
    layout = whole.layout.slice(starts, stops, [1] * len(shape))
    return _copy_into(s, Ref(whole.buffer, layout), atom, eqn)


def _copy_into(s: Scheduler, target: Ref, atom: Atom, eqn: Eqn, above: Group | None = None) -> Group:
    if isinstance(atom, Var):
        s.stored(atom)
    level = s.level(atom) + 1 if isinstance(atom, Var) else 0
    group = s.open("loop", atom.aval.shape, max(level, above.level + 1 if above else 0))
    group.sealed = True
    part = Var(atom.aval)
    group.values[part] = s.value(group, atom)
    group.stores[part], group.eqns = target, [eqn]
    if above:
        group.producers.add(above)
    return group


def _join_windows(s: Scheduler, out: Var, whole: Ref, groups: list[Group]) -> None:
    """Readers of ``out`` come after every window: the last group stands for all of them."""
    last = max(groups, key=lambda g: g.level)
    last.producers.update(g for g in groups if g is not last)
    s.place[out], s.home[out] = whole, last


LIBRARY = {
    "matmul": _matmul,
    "take": _take,
    "scatter_add": _scatter_add,
    "check_index": _check_index,
    "cumsum": _cumsum,
    "concatenate": _concatenate,
    "pad": _pad,
}
