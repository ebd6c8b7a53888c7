"""How ops that are no loop nest become steps: products, picked rows, running sums, windows of a larger array."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.aval import Aval
from ..core.graph import Atom, Eqn, Literal, Var
from ..core.loops import Layout
from .group import Group, as_matrices
from .steps import Buffer, Indices, Ref, Routine

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
    layout = None if isinstance(ref.buffer, Indices) else as_matrices(ref.layout)
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
        if ref.layout.is_contiguous and not isinstance(ref.buffer, Indices):
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


def _update_slice(s: Scheduler, eqn: Eqn) -> None:
    """The operand as it is, then a copy (or a sum) into the window."""
    x, u = eqn.inputs
    whole, base = _written_over(s, eqn, x)
    starts, steps = eqn.params["starts"], eqn.params["steps"]
    stops = [a + max(0, (n - 1) * t + 1) for a, n, t in zip(starts, u.aval.shape, steps, strict=True)]
    target = Ref(whole.buffer, whole.layout.slice(starts, stops, steps))
    group = _copy_into(s, target, u, eqn, above=[base])
    if eqn.params["mode"] == "add":
        (part,) = group.stores
        key = (target.buffer, target.layout)
        group.loads[key] = (target, group.lines.input(x.aval.dtype))
        group.values[part] = group.lines.line(
            "add", group.loads[key][1], group.values[part], dtype=x.aval.dtype
        )
    _join_windows(s, eqn.outputs[0], whole, [group])


def _scatter(s: Scheduler, eqn: Eqn) -> None:
    """The operand as it is, then a routine that writes the updates over it, one after the other."""
    x, indices, u = eqn.inputs
    reads = (contiguous(s, u), contiguous(s, indices))
    whole, base = _written_over(s, eqn, x)
    inputs = [a for a in (u, indices) if isinstance(a, Var)]
    group = s.open("routine", (), max([base.level, *(s.level(a) for a in inputs)]) + 1)
    group.producers.update(home for a in inputs if (home := s.home.get(a)) is not None)
    group.producers.add(base)
    shape, axis = x.aval.shape, eqn.params["axis"]
    sizes = (math.prod(shape[:axis]), shape[axis], indices.aval.size, math.prod(shape[axis + 1 :]))
    group.step = Routine(f"write_{eqn.params['mode']}", reads, (whole,), sizes, (eqn,))
    s.place[eqn.outputs[0]], s.home[eqn.outputs[0]] = whole, group


def _written_over(s: Scheduler, eqn: Eqn, x: Atom) -> tuple[Ref, Group]:
    """A buffer that holds ``x``, to be written to, and the copy that fills it.

    Where ``x`` is not read later the memory plan gives both the same place, and leaves the copy out. That needs what was
    read of ``x`` before to be done by then: `Scheduler.lazy_view` copies slices of arrays that are written over.
    """
    out = eqn.outputs[0].aval
    whole = Ref(Buffer(out.size, out.dtype), Layout.contiguous(out.shape))
    group = s.open("loop", out.shape, s.level(x) + 1 if isinstance(x, Var) else 0)
    group.sealed = True
    copied = Var(out)
    group.values[copied] = s.value(group, x)
    group.level = max([group.level, *(p.level + 1 for p in group.producers)])
    group.stores[copied], group.eqns = whole, [eqn]
    return whole, group


def _check_index(s: Scheduler, eqn: Eqn) -> None:
    _routine(s, eqn, (eqn.inputs[0].aval.size, eqn.params["size"]))


def _cumsum(s: Scheduler, eqn: Eqn) -> None:
    """In reverse the walk starts at the last row of the axis and steps back."""
    shape, axis, reverse = eqn.outputs[0].aval.shape, eqn.params["axis"], eqn.params["reverse"]
    outer, length, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    start, step = ((length - 1) * inner, -inner) if reverse else (0, inner)
    _routine(s, eqn, (outer, length, inner, start, step))


def _concatenate(s: Scheduler, eqn: Eqn) -> None:
    """Each part into its window of the result: by the step that computes it if it lies nowhere else, or by a copy."""
    out, axis = eqn.outputs[0], eqn.params["axis"]
    whole = Ref(Buffer(out.aval.size, out.aval.dtype), Layout.contiguous(out.aval.shape))
    start, groups = 0, []
    for atom in eqn.inputs:
        stop = start + atom.aval.shape[axis]
        groups.append(_window(s, whole, atom, axis, start, stop, eqn))
        start = stop
    _join_windows(s, out, whole, groups)


def _pad(s: Scheduler, eqn: Eqn) -> None:
    """Zeros around a window (or everywhere, if it has gaps), and x into it: by the step that computes it, or by a copy."""
    x, out = eqn.inputs[0], eqn.outputs[0]
    lo, interior = eqn.params["lo"], eqn.params["interior"]
    whole = Ref(Buffer(out.aval.size, out.aval.dtype), Layout.contiguous(out.aval.shape))
    stops = [p + max(0, (n - 1) * (i + 1) + 1) for p, n, i in zip(lo, x.aval.shape, interior, strict=True)]
    window = whole.layout.slice(lo, stops, [i + 1 for i in interior])
    around = [whole.layout] if any(interior) else _around(whole.layout, lo, stops)
    zeros = [_zero(s, Ref(whole.buffer, layout), eqn) for layout in around]
    group = _put(s, Ref(whole.buffer, window), x, eqn, above=zeros)
    _join_windows(s, out, whole, [group])


MAX_STRIPS = 2
"""Zeros around a window go to so many strips at most; where it takes more, all is zeroed first."""


def _around(whole: Layout, starts: Sequence[int], stops: Sequence[int]) -> list[Layout]:
    """What lies around the window: strips that do not overlap, axis by axis, each inside the window along those before."""
    strips = []
    lower, upper = [0] * len(starts), list(whole.shape)
    ones = [1] * len(starts)
    for i, (start, stop, n) in enumerate(zip(starts, stops, whole.shape, strict=True)):
        for a, b in ((0, start), (stop, n)):
            if a < b and all(p < q for p, q in zip(lower[:i], upper[:i], strict=True)):
                strips.append(
                    whole.slice([*lower[:i], a, *lower[i + 1 :]], [*upper[:i], b, *upper[i + 1 :]], ones)
                )
        lower[i], upper[i] = start, stop
    return strips if len(strips) <= MAX_STRIPS else [whole]


def _zero(s: Scheduler, target: Ref, eqn: Eqn) -> Group:
    """A step that zeroes ``target``, below whatever may compute what stands beside."""
    dtype = target.buffer.dtype
    group = s.open("loop", target.layout.shape, -1)
    group.sealed = True
    blank = Var(Aval(target.layout.shape, dtype))
    group.values[blank] = s.value(group, Literal(dtype.type(0)))
    group.stores[blank], group.eqns = target, [eqn]
    s.home[blank] = group
    return group


def _window(s: Scheduler, whole: Ref, atom: Atom, axis: int, start: int, stop: int, eqn: Eqn) -> Group:
    shape = whole.layout.shape
    starts = [start if i == axis else 0 for i in range(len(shape))]
    stops = [stop if i == axis else n for i, n in enumerate(shape)]
    return _put(s, Ref(whole.buffer, whole.layout.slice(starts, stops, [1] * len(shape))), atom, eqn)


def _put(s: Scheduler, target: Ref, atom: Atom, eqn: Eqn, above: Sequence[Group] = ()) -> Group:
    """The step that writes ``atom`` to ``target``, after ``above``: the one that computes it, where it lies nowhere else."""
    if atom in s.lazy:
        s.pointwise(s.lazy.pop(atom))  # type: ignore[arg-type]
    home = s.home.get(atom) if isinstance(atom, Var) else None
    if home is None or not isinstance(atom, Var) or atom in s.place or not s.computes(home, atom):
        return _copy_into(s, target, atom, eqn, above)
    s.place[atom] = home.stores[atom] = target
    home.producers.update(above)
    return home


def _copy_into(s: Scheduler, target: Ref, atom: Atom, eqn: Eqn, above: Sequence[Group] = ()) -> Group:
    if isinstance(atom, Var) and atom not in s.constants:
        s.stored(atom)
    level = s.level(atom) if isinstance(atom, Var) else -1
    group = s.open("loop", atom.aval.shape, max([level, *(g.level for g in above)]) + 1)
    group.sealed = True
    part = Var(atom.aval)
    group.values[part] = s.value(group, atom)
    group.stores[part], group.eqns = target, [eqn]
    group.producers.update(above)
    return group


def _join_windows(s: Scheduler, out: Var, whole: Ref, groups: list[Group]) -> None:
    """Readers of ``out`` come after every window: the last group stands for all of them."""
    last = max(groups, key=lambda g: g.level)
    last.producers.update(g for g in groups if g is not last)
    s.place[out], s.home[out] = whole, last


def _barrier(s: Scheduler, eqn: Eqn) -> None:
    """No work: the same places under new names, on a level above all that they wait for."""
    values = eqn.inputs[: eqn.params["count"]]
    places = [None if isinstance(a, Literal) or a in s.constants else s.stored(a) for a in values]
    waits = s.array_inputs(eqn)
    fence = s.open("fence", (), max((s.level(a) for a in waits), default=-1) + 1)
    fence.producers.update(home for a in waits if (home := s.home.get(a)) is not None)
    for group in fence.producers:
        group.awaited = True
    for atom, place, out in zip(values, places, eqn.outputs, strict=True):
        if place is None:
            s.constants[out] = atom if isinstance(atom, Literal) else s.constants[atom]
        else:
            s.place[out], s.home[out] = place, fence


def _iota(s: Scheduler, eqn: Eqn) -> None:
    """No step: whoever reads it computes it from its loop's counters."""
    out = eqn.outputs[0]
    s.place[out] = Ref(Indices(out.aval.size, out.aval.dtype), Layout.contiguous(out.aval.shape))


def _permutation(s: Scheduler, eqn: Eqn) -> None:
    _routine(s, eqn, (eqn.inputs[0].aval.size // 2, eqn.params["n"]))


LIBRARY = {
    "barrier": _barrier,
    "matmul": _matmul,
    "take": _take,
    "scatter_add": _scatter_add,
    "scatter": _scatter,
    "update_slice": _update_slice,
    "check_index": _check_index,
    "cumsum": _cumsum,
    "concatenate": _concatenate,
    "pad": _pad,
    "iota": _iota,
    "permutation": _permutation,
}
