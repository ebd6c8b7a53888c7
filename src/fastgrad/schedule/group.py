"""A step under construction, the order of such, and the step that each becomes."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count

import numpy as np

from ..core.expr import Map, MapBuilder
from ..core.graph import Eqn, Var
from ..core.loops import Axis, Layout, Reduce
from ..errors import GraphError
from .nest import nest, parts
from .steps import Buffer, Fold, Gemm, Loop, Ref, Region, Routine, Step

MAX_LINES = 96
MAX_OPERANDS = 22
"""A step stops growing here, to bound compile time (and `codegen.simd.intrinsics.MAX_STORES`)."""


@dataclass(eq=False)
class Group:
    """A step under construction."""

    kind: str  # "loop" | "gemm" | "routine" | "fence" (a barrier: no step)
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
    producers: set[Group] = field(default_factory=set)
    operands: tuple[Ref, Ref] | None = None
    step: Routine | Region | None = None  # what stands finished from the start
    awaited: bool = False  # a barrier stands behind it
    sealed: bool = False  # holds values that no equation of its own computes (copies, fills)

    def takes_in(self, peer: Group) -> bool:
        """Whether the equations of ``peer``, a step of the same level and shape, may move here."""
        plain = self.kind == peer.kind == "loop" and not peer.folds and not peer.sealed
        lines = len(self.lines) + len(peer.lines)
        operands = sum(len(g.loads) + len(g.stores) + len(g.folds) for g in (self, peer))
        return plain and lines <= MAX_LINES and operands <= MAX_OPERANDS - 3

    def takes_fold(self, kernel: Reduce, axes: tuple[int, ...], dtype: np.dtype) -> bool:
        """Whether a fold over ``axes`` may join: all of a step share theirs; a product sums its rows, and nothing else."""
        if self.folds and self.reduced != axes:
            return False
        if self.kind == "gemm":
            assert self.operands is not None
            own = self.operands[0].buffer.dtype
            if self.eqns[0].params.get("precision"):
                return False
            return kernel.combine == "add" and len(self.shape) == 2 and axes == (0,) and dtype == own
        return self.kind == "loop"

    def room(self) -> bool:
        """Whether one more equation may join."""
        return (
            len(self.lines) < MAX_LINES
            and len(self.loads) + len(self.stores) + len(self.folds) < MAX_OPERANDS - 3
        )


def in_order(groups: Sequence[Group], name: str) -> list[Group]:
    """A topological order that stays close to the program's, so that values die soon (Kahn 1962).

    Raises `GraphError` where there is none.
    """
    waiting = {g: len(g.producers) for g in groups}
    readers: dict[Group, list[Group]] = {g: [] for g in groups}
    for g in groups:
        for p in g.producers:
            readers[p].append(g)
    heap = [(g.order, i, g) for i, g in enumerate(g for g in groups if not waiting[g])]
    heapq.heapify(heap)
    done: list[Group] = []
    tick = count(len(heap))
    while heap:
        group = heapq.heappop(heap)[2]
        done.append(group)
        for reader in readers[group]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(heap, (reader.order, next(tick), reader))
    if len(done) != len(groups):
        raise GraphError(f"{name}: the schedule has a cycle")
    return done


def finish(group: Group, place: Mapping[Var, Ref]) -> Sequence[Step | None]:
    """The steps that a finished group becomes: one, unless it folds to a number or stores more than one kernel may.

    A barrier is None: nothing moves over it.
    """
    if group.kind == "fence":
        return [None]
    if group.step is not None:
        return [group.step]
    folded = {var for var, _, _ in group.folds}
    stores = [(group.values[var], ref) for var, ref in group.stores.items() if var not in folded]
    folds = [
        (value, Fold(r.combine, r.init(v.aval.dtype), place[v])) for v, r, value in group.folds if v in place
    ]
    if group.operands is not None:
        return [_gemm(group, stores, folds)]
    steps: list[Step] = []
    for i in range(0, len(stores) + len(folds), MAX_OPERANDS):
        mine = stores[i : i + MAX_OPERANDS]
        rest = max(0, i - len(stores))
        steps += _loops(group, mine, folds[rest : rest + MAX_OPERANDS - len(mine)])
    return steps


def _inputs(
    group: Group, outputs: list[int], first: tuple[int, ...] = ()
) -> tuple[Map, tuple[Ref, ...], tuple]:
    """The lines that ``outputs`` take, with the loads and scalars that those read."""
    needed = group.lines.needed(outputs)
    loads = [(ref, value) for ref, value in group.loads.values() if value in needed]
    scalars = [(number, value) for number, value in group.scalars.values() if value in needed]
    lines = group.lines.build(
        outputs, [*first, *(value for _, value in loads), *(value for _, value in scalars)]
    )
    return lines, tuple(ref for ref, _ in loads), tuple(number for number, _ in scalars)


def _loops(group: Group, stores: list[tuple[int, Ref]], folds: list[tuple[int, Fold]]) -> list[Step]:
    lines, loads, scalars = _inputs(group, [value for value, _ in (*stores, *folds)])
    targets = tuple(ref for _, ref in stores)
    loop = Loop(group.shape, lines, loads, scalars, targets, eqns=tuple(dict.fromkeys(group.eqns)))
    if not folds:
        return [loop]
    loop = replace(loop, reduced=group.reduced, folds=tuple(fold for _, fold in folds))
    return _two_phase(loop) if len(group.reduced) == len(group.shape) else _in_parts(loop)


def _gemm(group: Group, stores: list[tuple[int, Ref]], folds: list[tuple[int, Fold]]) -> Gemm:
    assert group.operands is not None
    accumulator = group.values[group.eqns[0].outputs[0]]
    lines, loads, scalars = _inputs(group, [value for value, _ in (*stores, *folds)], (accumulator,))
    targets = tuple(_matrix_ref(ref) for _, ref in stores)
    eqns = tuple(dict.fromkeys(group.eqns))
    precision = group.eqns[0].params.get("precision")
    refs, sums = tuple(map(_matrix_ref, loads)), tuple(fold for _, fold in folds)
    return Gemm(*group.operands, lines, refs, scalars, targets, eqns, sums, precision=precision)


def _matrix_ref(ref: Ref) -> Ref:
    layout = as_matrices(ref.layout)
    assert layout is not None, "checked before it was fused"
    return Ref(ref.buffer, layout)


def _two_phase(loop: Loop) -> list[Step]:
    """A fold to one number: each tile leaves a partial result, a second loop folds those.

    The tiles depend on the sizes alone, so the sum has the same bits at any number of threads.
    """
    tiles = nest(replace(loop, partial=True)).tiles
    parts = [Ref(Buffer(tiles, f.ref.buffer.dtype), Layout.contiguous((tiles,))) for f in loop.folds]
    first = replace(
        loop, partial=True, folds=tuple(f._replace(ref=p) for f, p in zip(loop.folds, parts, strict=True))
    )
    return [first, _folded(loop, parts, (tiles,))]


def _in_parts(loop: Loop) -> list[Step]:
    """A fold over many rows: stretches of them leave a partial result each, and a second loop folds those.

    How many depends on the sizes alone, so the sum has the same bits at any number of threads.
    """
    count = parts(loop)
    if count == 1:
        return [loop]
    shape = (count, *loop.folds[0].ref.layout.shape)
    refs = [Ref(Buffer(math.prod(shape), f.ref.buffer.dtype), Layout.contiguous(shape)) for f in loop.folds]
    first = replace(
        loop, parts=count, folds=tuple(f._replace(ref=r) for f, r in zip(loop.folds, refs, strict=True))
    )
    return [first, _folded(loop, refs, shape)]


def _folded(loop: Loop, partial: Sequence[Ref], shape: tuple[int, ...]) -> Loop:
    """The loop that folds partial results of ``loop`` along their leading axis."""
    identity = MapBuilder()
    values = [identity.input(ref.buffer.dtype) for ref in partial]
    lines = identity.build(values, values)
    return Loop(shape, lines, tuple(partial), (), (), (0,), loop.folds, False, loop.eqns)


@lru_cache(maxsize=4096)
def as_matrices(layout: Layout) -> Layout | None:
    """``[..., i, j]`` with its leading axes merged into one batch axis, or None where they do not merge."""
    *lead, i, j = layout.axes
    if not all(axis.joined for axis in lead[:-1]):
        return None
    batch = lead[-1]._replace(joined=False) if lead else Axis(0, "zero", False)
    shape = (math.prod(layout.shape[:-2]), *layout.shape[-2:])
    return Layout(shape, (batch, i, j), layout.offset)
