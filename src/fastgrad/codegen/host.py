"""Graph -> the schedule that this machine runs: what is computed again rather than stored, how products are packed."""

from __future__ import annotations

from ..core.graph import Graph
from ..schedule import Schedule, schedule
from .packing import packed
from .rates import reliable


def host_schedule(graph: Graph) -> Schedule:
    """`schedule`, with the choices that follow the machine. None of them changes a bit but those of the shipped table
    (`machine.cuts`)."""
    return packed(schedule(graph, reliable().lines_worth_storing))
