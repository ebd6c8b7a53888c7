"""How loops and branches become steps: each graph among the parameters has a schedule of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..core.graph import Eqn, Graph, Var
from ..core.loops import Layout
from .library import contiguous
from .steps import Buffer, Ref, Region, Schedule

if TYPE_CHECKING:
    from .fusion import Scheduler

ENDLESS = 1 << 62
"""Trips of a loop that has no bound."""


def region(s: Scheduler, eqn: Eqn, schedule: Callable[[Graph], Schedule]) -> None:
    """One step for the whole equation; ``schedule`` is the entry of this stage, for the graphs inside."""
    reads = tuple(contiguous(s, a) for a in eqn.inputs)
    inputs = [a for a in eqn.inputs if isinstance(a, Var)]
    group = s.open("routine", (), max((s.level(a) for a in inputs), default=-1) + 1)
    group.producers.update(home for a in inputs if (home := s.home.get(a)) is not None)
    for out in eqn.outputs:
        s.place[out] = Ref(Buffer(out.aval.size, out.aval.dtype), Layout.contiguous(out.aval.shape))
        s.home[out] = group
    group.step = _STEPS[eqn.prim.name](eqn, reads, tuple(s.place[v] for v in eqn.outputs), schedule)


def _scan(eqn: Eqn, reads: tuple, writes: tuple, schedule: Callable[[Graph], Schedule]) -> Region:
    p = eqn.params
    parts = (schedule(p["body"]),)
    return Region("scan", parts, reads, writes, (p["consts"],), p["carry"], p["length"], p["reverse"], (eqn,))


def _while(eqn: Eqn, reads: tuple, writes: tuple, schedule: Callable[[Graph], Schedule]) -> Region:
    p = eqn.params
    parts = (schedule(p["cond"]), schedule(p["body"]))
    trips = ENDLESS if p["bound"] is None else min(p["bound"], ENDLESS)
    shared = (p["cond_consts"], p["body_consts"])
    return Region("while", parts, reads, writes, shared, len(writes), trips, False, (eqn,))


def _switch(eqn: Eqn, reads: tuple, writes: tuple, schedule: Callable[[Graph], Schedule]) -> Region:
    parts = tuple(schedule(branch) for branch in eqn.params["branches"])
    return Region("switch", parts, reads, writes, eqns=(eqn,))


_STEPS = {"scan": _scan, "while": _while, "switch": _switch}
