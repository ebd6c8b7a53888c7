"""Dead code: equations that no output depends on."""

from __future__ import annotations

from dataclasses import replace

from ..core.graph import Graph, Var


def dce(graph: Graph) -> Graph:
    """Drop what is not needed, and captured arrays that nobody reads."""
    needed = {a for a in graph.outputs if isinstance(a, Var)}
    eqns = []
    for eqn in reversed(graph.eqns):
        if any(v in needed for v in eqn.outputs):
            needed.update(a for a in eqn.inputs if isinstance(a, Var))
            eqns.append(eqn)
    captured = tuple((v, value) for v, value in graph.captured if v in needed)
    return replace(graph, eqns=tuple(reversed(eqns)), captured=captured)
