"""Graph -> graph rewrites that keep the numbers: `run` applies them in order and verifies after each.

fold      equations over literals alone become literals
simplify  local identities, exact in floating point:  x*1 -> x,  reshape(reshape(x)) -> reshape(x)
cse       equal equations are computed once
assemble  a sum of padded pieces is their concatenation
accumulate  x + pad(u) adds u to a window of x
dce       what no output needs goes

and before them, in what is compiled or interpreted:

inline    calls are written out: what is left of their graphs; stop_gradient(x) -> x

and where there are loops or branches, whose bodies get all of these too:

prune      consts, carries, slices and results of a loop that nobody needs go
invariant  what does not change from step to step is computed once
products   matrix products with slices are one product before the loop
gather     sums of products over the steps are one product after it
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..core.graph import Eqn, Graph, subgraphs, verify
from .accumulate import accumulate
from .assemble import assemble
from .cse import cse
from .dce import dce
from .fold import fold
from .gather import gather
from .inline import inline
from .invariant import invariant
from .products import products
from .prune import prune
from .rewrite import substitute
from .simplify import simplify

Pass = Callable[[Graph], Graph]
PASSES: tuple[Pass, ...] = (dce, simplify, fold, simplify, cse, assemble, accumulate, dce)


def bodies(graph: Graph) -> Graph:
    """Every graph that an equation carries after every pass."""
    return substitute(graph, lambda eqn: _with_bodies(eqn) if subgraphs(eqn) else eqn)


def _with_bodies(eqn: Eqn) -> Eqn:
    def new(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(new, value))
        return tidy(value) if isinstance(value, Graph) else value

    params = {name: new(value) for name, value in eqn.params.items()}
    changed = any(params[name] is not value for name, value in eqn.params.items() if isinstance(value, Graph))
    changed = changed or any(params[n] != v for n, v in eqn.params.items() if isinstance(v, tuple))
    return replace(eqn, params=params) if changed else eqn


LOOPS: tuple[Pass, ...] = (prune, bodies, invariant, products, gather, dce, prune, *PASSES, bodies)

_results: weakref.WeakKeyDictionary[Graph, Graph] = weakref.WeakKeyDictionary()
_done: weakref.WeakSet[Graph] = weakref.WeakSet()


def run(graph: Graph) -> Graph:
    """The graph after every pass, verified after each, fit to be scheduled or interpreted."""
    return tidy(verify(inline(graph), typed=graph.eqns))


def tidy(graph: Graph) -> Graph:
    """`run` for a graph that may yet be differentiated or batched: calls stay, and with them their rules.

    The same graph gives the same result, and a result itself.
    """
    if graph in _done:
        return graph
    result = _results.get(graph)
    if result is None:
        result = graph
        for rewrite in PASSES:
            result = verify(rewrite(result), typed=result.eqns)
        if any(subgraphs(eqn) for eqn in result.eqns):
            for rewrite in LOOPS:
                result = verify(rewrite(result), typed=result.eqns)
        _results[graph] = result
        _done.add(result)
    return result
