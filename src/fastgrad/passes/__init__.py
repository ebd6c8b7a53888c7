"""Graph -> graph rewrites that keep the numbers: `run` applies them in order and verifies after each.

inline    calls are written out: what is left of their graphs
fold      equations over literals alone become literals
simplify  local identities, exact in floating point:  x*1 -> x,  reshape(reshape(x)) -> reshape(x)
cse       equal equations are computed once
dce       what no output needs goes
"""

from __future__ import annotations

from ..core.graph import Graph, verify
from .cse import cse
from .dce import dce
from .fold import fold
from .inline import inline
from .simplify import simplify

PASSES = (inline, dce, simplify, fold, simplify, cse, dce)


def run(graph: Graph) -> Graph:
    """The graph after every pass, verified after each."""
    for rewrite in PASSES:
        graph = verify(rewrite(graph), typed=graph.eqns)
    return graph
