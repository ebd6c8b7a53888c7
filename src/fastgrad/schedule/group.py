"""A step under construction, and the step that it becomes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..core.expr import MapBuilder
from ..core.graph import Eqn, Var
from ..core.loops import Axis, Layout, Reduce
from .nest import nest
from .steps import Buffer, Fold, Gemm, Loop, Ref, Routine, Step

MAX_LINES = 96
MAX_OPERANDS = 22
"""A step stops growing here, to bound compile time (and `codegen.simd.intrinsics.MAX_STORES`)."""


@dataclass(eq=False)
class Group:
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
    producers: set[Group] = field(default_factory=set)
    operands: tuple[Ref, ...] = ()
    routine: Routine | None = None

    def room(self) -> bool:
        """Whether one more equation may join."""
        return (
            len(self.lines) < MAX_LINES
            and len(self.loads) + len(self.stores) + len(self.folds) < MAX_OPERANDS - 3
        )


def finish(group: Group, place: Mapping[Var, Ref]) -> list[Step]:
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
        return [
            Gemm(*group.operands, lines, tuple(refs[: len(loads)]), numbers, tuple(refs[len(loads) :]), eqns)
        ]
    folds = [(v, r, value) for v, r, value in group.folds if v in place]
    lines = group.lines.build([group.values[v] for v, _ in stores] + [value for _, _, value in folds], inputs)
    targets = [Fold(r.combine, r.init(v.aval.dtype), place[v]) for v, r, _ in folds]
    loop = Loop(
        group.shape,
        lines,
        load_refs,
        numbers,
        tuple(r for _, r in stores),
        group.reduced,
        tuple(targets),
        False,
        eqns,
    )
    if targets and len(group.reduced) == len(group.shape):
        return _two_phase(loop)
    return [loop if targets else replace(loop, reduced=())]


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
    identity = MapBuilder()
    values = [identity.input(p.buffer.dtype) for p in parts]
    second = Loop(
        (tiles,), identity.build(values, values), tuple(parts), (), (), (0,), loop.folds, False, loop.eqns
    )
    return [first, second]


def as_matrices(layout: Layout) -> Layout | None:
    """``[..., i, j]`` with its leading axes merged into one batch axis, or None where they do not merge."""
    *lead, i, j = layout.axes
    if not all(axis.joined or axis.kind == "zero" for axis in lead[:-1]):
        return None
    batch = lead[-1]._replace(joined=False) if lead else Axis(0, "zero", False)
    shape = (math.prod(layout.shape[:-2]), *layout.shape[-2:])
    return Layout(shape, (batch, i, j), layout.offset)
