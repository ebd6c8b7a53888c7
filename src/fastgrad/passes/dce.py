"""Dead code: equations that no output depends on."""

from __future__ import annotations

from dataclasses import replace

from ..core.graph import Eqn, Graph, Var
from ..ops.barrier import barrier_p


def dce(graph: Graph) -> Graph:
    """Drop what is not needed, and captured arrays that nobody reads."""
    needed = {a for a in graph.outputs if isinstance(a, Var)}
    eqns = []
    for eqn in reversed(graph.eqns):
        if any(v in needed for v in eqn.outputs):
            if eqn.prim is barrier_p:
                eqn = _narrowed(eqn, needed)
            needed.update(a for a in eqn.inputs if isinstance(a, Var))
            eqns.append(eqn)
    captured = tuple((v, value) for v, value in graph.captured if v in needed)
    return replace(graph, eqns=tuple(reversed(eqns)), captured=captured)


def _narrowed(eqn: Eqn, needed: set[Var]) -> Eqn:
    """A barrier that lets pass only what is needed; all that it waits for stays."""
    count = eqn.params["count"]
    passing = [i for i in range(count) if eqn.outputs[i] in needed]
    if len(passing) == count:
        return eqn
    inputs = (*(eqn.inputs[i] for i in passing), *eqn.inputs[count:])
    return replace(
        eqn, inputs=inputs, outputs=tuple(eqn.outputs[i] for i in passing), params={"count": len(passing)}
    )
