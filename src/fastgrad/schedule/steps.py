"""What a schedule is made of: buffers, windows on them, and the kinds of step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np

from ..core.expr import Map
from ..core.graph import Eqn
from ..core.loops import Layout


class Buffer:
    """Storage of one value, not placed yet: elements and dtype."""

    __slots__ = ("dtype", "size")

    def __init__(self, size: int, dtype: np.dtype):
        self.size, self.dtype = size, dtype

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return self.size * self.dtype.itemsize


class Unplaced(Buffer):
    """What the memory plan gives no place."""

    __slots__ = ()


class Indices(Unplaced):
    """No storage at all: element i is i. To load one is arithmetic on the loop's own counters."""

    __slots__ = ()


class Local(Unplaced):
    """One block of a value that lives inside a `Phases` step, in its kernel's frame: each block takes the same place."""

    __slots__ = ()


class Ref(NamedTuple):
    """A strided window of a buffer."""

    buffer: Buffer
    layout: Layout

    @property
    def nbytes(self) -> int:
        """Bytes of the elements that the window shows."""
        return math.prod(self.layout.shape) * self.buffer.dtype.itemsize


class Fold(NamedTuple):
    """A reduction inside a loop step: how it combines, and where the result goes."""

    combine: str
    init: np.generic
    ref: Ref


@dataclass(frozen=True, eq=False)
class Loop:
    """A loop nest over ``shape``. The Map's inputs are ``loads`` then ``scalars``; its outputs ``stores`` then ``folds``.

    ``reduced`` axes are folded. With ``partial`` (all axes folded) every tile leaves a partial result of its own. With
    ``parts`` above 1 (leading axes folded) so many stretches of rows leave one each, along a leading axis of the targets.
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
    parts: int = 1

    @property
    def reads(self) -> tuple[Ref, ...]:
        """What it reads."""
        return self.loads

    @property
    def writes(self) -> tuple[Ref, ...]:
        """What it writes."""
        return self.stores + tuple(f.ref for f in self.folds)

    def __str__(self) -> str:
        fold = (
            f" fold[{','.join(f.combine for f in self.folds)} over {list(self.reduced)}]"
            if self.folds
            else ""
        )
        parts = f" in {self.parts} parts" if self.parts > 1 else ""
        return f"loop{list(self.shape)}{fold}{' partial' if self.partial else ''}{parts}"


@dataclass(frozen=True, eq=False)
class Phases:
    """Loops over the same leading axes, ``rows``, that run one after the other on each ``block`` of rows, in cache.

    What a part reads of an earlier one it reads at its own row. Part number p has one element a row where ``single[p]``.
    """

    rows: tuple[int, ...]
    block: int
    parts: tuple[Loop, ...]
    single: tuple[bool, ...]

    @property
    def reads(self) -> tuple[Ref, ...]:
        """What it reads of memory."""
        return tuple(r for part in self.parts for r in part.loads if not isinstance(r.buffer, Local))

    @property
    def writes(self) -> tuple[Ref, ...]:
        """What it writes to memory."""
        return tuple(r for part in self.parts for r in part.writes if not isinstance(r.buffer, Local))

    @property
    def eqns(self) -> tuple[Eqn, ...]:
        """The equations of all parts, in order."""
        return tuple(dict.fromkeys(e for part in self.parts for e in part.eqns))

    def __str__(self) -> str:
        return f"phases{list(self.rows)}"


@dataclass(frozen=True, eq=False)
class Gemm:
    """``map(a @ b, loads..., scalars...)`` with a: [batch,m,k], b: [batch,k,n], everything else [batch,m,n].

    The map's outputs are ``stores``, then ``folds``: sums over all rows, [n], or as they leave `codegen.packing`, over
    each row block, [blocks, n]. Where ``packed_a`` or ``packed_b`` stands, a step before this one has packed the operand
    there (`Pack`), in ``form``. ``precision`` "bfloat16": both operands are rounded to it, which packing does; ``kernel``
    tells readers how.
    """

    a: Ref
    b: Ref
    map: Map
    loads: tuple[Ref, ...]
    scalars: tuple[np.generic, ...]
    stores: tuple[Ref, ...]
    eqns: tuple[Eqn, ...] = ()
    folds: tuple[Fold, ...] = ()
    packed_a: Ref | None = None
    packed_b: Ref | None = None
    precision: str | None = None
    form: str = "plain"
    kernel: str = ""

    @property
    def reads(self) -> tuple[Ref, ...]:
        """What it reads."""
        return (self.packed_a or self.a, self.packed_b or self.b, *self.loads)

    @property
    def writes(self) -> tuple[Ref, ...]:
        """What it writes."""
        return self.stores + tuple(f.ref for f in self.folds)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """batch, m, n, k."""
        batch, m, k = self.a.layout.shape
        return batch, m, self.b.layout.shape[2], k

    def __str__(self) -> str:
        batch, m, n, k = self.sizes
        how = "".join(f" {word}" for word in (self.precision, self.kernel) if word)
        fold = " fold[add over rows]" if self.folds else ""
        return f"gemm[batch={batch} m={m} n={n} k={k}{how}]{fold}"


@dataclass(frozen=True, eq=False)
class Pack:
    """An operand of a product, [batch, extent, k], copied to panels: [batch, ceil(extent / width), k, width].

    ``form`` "plain"; "rounded" to bfloat16; or pairs of bfloat16 along k, in "columns" or "rows"
    (`codegen.simd.pack_bfloat16`), with zeros up to a multiple of ``group`` pairs.
    """

    source: Ref
    target: Ref
    width: int
    eqns: tuple[Eqn, ...] = ()
    form: str = "plain"
    group: int = 1

    @property
    def reads(self) -> tuple[Ref, ...]:
        """What it reads."""
        return (self.source,)

    @property
    def writes(self) -> tuple[Ref, ...]:
        """What it writes."""
        return (self.target,)

    def __str__(self) -> str:
        batch, extent, k = self.source.layout.shape
        how = "" if self.form == "plain" else f" {self.form}"
        return f"pack[batch={batch} extent={extent} k={k}{how}]"


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


@dataclass(frozen=True, eq=False)
class Region:
    """Schedules that run between the other rows of the tape, on buffers of the steps around them.

    scan      parts: body                reads: shared, init, xs          writes: carry, ys
    while     parts: condition, body     reads: the condition's shared, the body's shared, init       writes: carry
    switch    parts: branches            reads: index, operands           writes: outputs

    A body's inputs are its shared operands, the carry, and slices of ``xs``; ``trips`` counts a loop's iterations at most.
    """

    kind: str
    parts: tuple[Schedule, ...]
    reads: tuple[Ref, ...]
    writes: tuple[Ref, ...]
    shared: tuple[int, ...] = ()  # a part each
    carry: int = 0
    trips: int = 1
    reverse: bool = False
    eqns: tuple[Eqn, ...] = ()

    def __str__(self) -> str:
        size = f"[{self.trips}{' reversed' if self.reverse else ''}]" if self.kind == "scan" else ""
        return f"{self.kind}{size}"


Computed = Loop | Phases | Gemm | Pack | Routine
Step = Computed | Region

INFALLIBLE = frozenset({"cumsum", "permutation"})
"""Routines that never stop a run: all others look at indices."""


def may_fail(step: Step) -> bool:
    """Whether ``step``, or one inside it, may stop the run with an error."""
    if isinstance(step, Region):
        return any(may_fail(inner) for part in step.parts for inner in part.steps)
    return isinstance(step, Routine) and step.name not in INFALLIBLE


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
            if ref.buffer not in names:
                names[ref.buffer] = "iota" if isinstance(ref.buffer, Indices) else f"b{next(number)}"
            kinds = "".join({"unit": "1", "zero": "0", "run": "s"}[a.kind] for a in ref.layout.axes)
            return f"{names[ref.buffer]}<{kinds}>"

        def row(head: str, step: Step) -> str:
            writes, reads = " ".join(map(show, step.writes)), " ".join(map(show, step.reads))
            return f"{head} {writes} = {step} {reads}".ljust(76) + "  # " + " ".join(_names(step.eqns))

        lines = [f"schedule {self.name}"]
        for i, step in enumerate(self.steps):
            lines.append(row(f"  {i:3d}", step))
            if isinstance(step, Phases):
                lines += [row("       ", part) for part in step.parts]
            for part in step.parts if isinstance(step, Region) else ():
                lines += ["      " + line for line in str(part).split("\n")]
        return "\n".join(lines)


def _names(eqns: Sequence[Eqn]) -> list[str]:
    return list(dict.fromkeys(e.prim.name for e in eqns)) or ["copy"]
