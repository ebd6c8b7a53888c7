"""Graph -> Schedule: which equations run together in one kernel, and in which order.

Kinds of step:

    Loop     a loop nest: loads, scalar lines, then stores and folds      (elementwise chains, reductions, copies)
    Phases   loops over common rows, one after the other on each row      (softmax, cross-entropy, layer norm)
    Gemm     a matrix product with scalar lines on its accumulators       (bias, activation, a mask in backward)
    Pack     an operand of a product in the order in which it is read     (put in by `codegen.packing`, for this machine)
    Library  one named routine                                            (take, scatter_add, check_index, cumsum)
    Region   schedules of their own, run in a loop or by choice           (scan, while, switch)

Fusion works on levels: a step's level is one more than the highest level it reads from. Steps of one level cannot
depend on each other, so an equation may join a step exactly when all else it reads lies on lower levels; no cycle can
arise, and scheduling stays linear in the graph. Reshapes, transposes, slices and broadcasts are layouts, not steps.
Cheap lines over one value (a comparison, a sign change) are not stored: each reader computes them again. So does one that
reads what a stored value comes from in a few cheap lines (`recompute`).
"""

from functools import partial

from ..core.graph import Graph
from .fusion import Scheduler
from .nest import Nest, nest
from .recompute import MOST_LINES, recomputed
from .steps import (
    Buffer,
    Computed,
    Fold,
    Gemm,
    Indices,
    Local,
    Loop,
    Pack,
    Phases,
    Ref,
    Region,
    Routine,
    Schedule,
    Step,
    Unplaced,
)

__all__ = [
    "Buffer",
    "Computed",
    "Fold",
    "Gemm",
    "Indices",
    "Local",
    "Loop",
    "Nest",
    "Pack",
    "Phases",
    "Ref",
    "Region",
    "Routine",
    "Schedule",
    "Step",
    "Unplaced",
    "nest",
    "schedule",
]


def schedule(graph: Graph, most_lines: int = MOST_LINES) -> Schedule:
    """Schedule ``graph``: each equation lands in exactly one step, or in each of its readers if it is cheap.

    ``most_lines``: how many lines are computed again rather than stored (`recomputed`); bits do not depend on it.
    """
    return recomputed(Scheduler(graph, partial(schedule, most_lines=most_lines)).run(), most_lines)
