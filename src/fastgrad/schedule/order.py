"""Steps -> the same steps in an order in which values die sooner.

The program's order is kept but for steps that bring no new value to life: all that they write has a place already, as
results have. They run as soon as they can. No value lives longer for it, and some shorter. In backward the gradient of a
layer's weights then comes before the gradient of its input, which may overwrite the activation that both read:

    dX = gemm(dY, W.T) * (X > 0)        dW = gemm(X.T, dY)
    dW = gemm(X.T, dY)            ->    dX = gemm(dY, W.T) * (X > 0)        in place of X

The rule looks at no size, so another batch size has the same order. It is list scheduling (Graham 1966) with one bit of
priority.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from .steps import Buffer, Pack, Routine, Step, may_fail


@dataclass(eq=False)
class _Unit:
    """Steps that stay together: one step, after those that pack its operands."""

    steps: list[Step] = field(default_factory=list)
    reads: set[Buffer] = field(default_factory=set)
    writes: set[Buffer] = field(default_factory=set)
    later: list[int] = field(default_factory=list)  # units that must come after this one
    waits: int = 0  # for so many units
    births: int = 0  # values that are not alive before it, but after it
    needs_room: bool = False  # for values that live within it

    @property
    def uses(self) -> set[Buffer]:
        return self.reads | self.writes

    @property
    def may_fail(self) -> bool:
        return any(map(may_fail, self.steps))

    @property
    def is_urgent(self) -> bool:
        """Whether it goes before all others: steps that do nothing but look whether to go on."""
        return any(isinstance(step, Routine) and step.name == "check_index" for step in self.steps)


def ordered(
    steps: Sequence[Step], placed: Set[Buffer], replaced: Mapping[Buffer, Buffer]
) -> tuple[Step, ...]:
    """``steps`` in another valid order, or the same. Steps that may stop a run with an error keep theirs; those that do
    nothing else come as soon as they can.

    ``placed`` are the buffers that have a place whether they are alive or not; ``replaced`` says for a buffer which other
    one it is written over: readers of that one stay before its writers where they are.
    """
    units = _units(steps)
    _link(units, replaced)
    writers = _writers(units, placed)
    ready: list[int] = []  # heaps, in the program's order
    first: list[int] = []
    beside: dict[Buffer, list[int]] = {}  # units that may run before one that reads this too
    done = [False] * len(units)
    result: list[Step] = []

    def is_ready(number: int) -> None:
        unit = units[number]
        heapq.heappush(ready, number)
        if unit.is_urgent or not (unit.births or unit.needs_room):
            heapq.heappush(first, number)
        elif not unit.births:
            for buffer in unit.reads - placed:
                beside.setdefault(buffer, []).append(number)

    def run(number: int) -> None:
        unit, done[number] = units[number], True
        result.extend(unit.steps)
        for buffer in unit.writes:
            for writer in writers.pop(buffer, ()):  # is alive from now on
                units[writer].births -= 1
        for follower in unit.later:
            units[follower].waits -= 1
            if not units[follower].waits:
                is_ready(follower)

    for number, unit in enumerate(units):
        if not unit.waits:
            is_ready(number)
    while ready:
        number = heapq.heappop(first) if first else heapq.heappop(ready)
        if done[number]:
            continue
        if units[number].births:
            found = {n for b in units[number].reads - placed for n in beside.pop(b, ()) if not done[n]}
            for other in sorted(found):
                run(other)
        run(number)
    return tuple(result)


def _units(steps: Sequence[Step]) -> list[_Unit]:
    units = [_Unit()]
    for i, step in enumerate(steps):
        unit = units[-1]
        unit.steps.append(step)
        unit.reads.update(ref.buffer for ref in step.reads)
        unit.writes.update(ref.buffer for ref in step.writes)
        if not isinstance(step, Pack) and i + 1 < len(steps):
            units.append(_Unit())
    return units if steps else []


def _link(units: Sequence[_Unit], replaced: Mapping[Buffer, Buffer]) -> None:
    """Fill in which unit waits for which: for those that wrote what it uses, and those that read what it writes over."""
    writer: dict[Buffer, int] = {}
    readers: dict[Buffer, list[int]] = {}
    failing: list[int] = []
    for number, unit in enumerate(units):
        before: set[int] = {writer[b] for b in unit.uses if b in writer}
        for buffer in unit.writes:
            before.update(readers.get(buffer, ()))
            old = replaced.get(buffer)
            if old is not None:
                before.update(readers.get(old, ()))
        if unit.may_fail:
            before.update(failing)
            failing = [number]
        before.discard(number)
        for other in before:
            units[other].later.append(number)
        unit.waits = len(before)
        for buffer in unit.writes:
            writer[buffer] = number
            readers[buffer] = []
        for buffer in unit.reads:
            readers.setdefault(buffer, []).append(number)


def _writers(units: Sequence[_Unit], placed: Set[Buffer]) -> dict[Buffer, list[int]]:
    """The units that write each buffer that is not ``placed``, nor used by one unit alone; counts their births."""
    users: dict[Buffer, set[int]] = {}
    for number, unit in enumerate(units):
        for buffer in unit.uses - placed:
            users.setdefault(buffer, set()).add(number)
    writers: dict[Buffer, list[int]] = {}
    for number, unit in enumerate(units):
        for buffer in unit.writes - placed:
            if len(users[buffer]) == 1:
                unit.needs_room = True
            else:
                unit.births += 1
                writers.setdefault(buffer, []).append(number)
    return writers
