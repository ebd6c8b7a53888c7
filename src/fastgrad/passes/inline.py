"""Calls written out: ``%2 = checkpoint[graph=g] %0 %1`` -> the equations of ``g`` on %0 and %1, and %2 is what they return.

The rules of a call have served when the passes run; what is left is its graph. Bodies of loops and branches are graphs of
their own, and are written out inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..core.graph import Atom, Eqn, Graph, Literal, Var, subgraphs
from ..core.loops import Call


def inline(graph: Graph) -> Graph:
    """The graph without calls, at any depth."""
    if not any(_touches(eqn) for eqn in graph.eqns):
        return graph
    known: dict[Var, Atom] = {}
    eqns: list[Eqn] = []
    for eqn in graph.eqns:
        if any(isinstance(a, Var) and a in known for a in eqn.inputs):
            eqn = replace(eqn, inputs=tuple(_read(known, a) for a in eqn.inputs))
        if isinstance(eqn.prim.kernel, Call):
            known.update(zip(eqn.outputs, _write_out(eqn, eqns), strict=True))
        else:
            eqns.append(replace(eqn, params=_inside(eqn.params)) if _touches(eqn) else eqn)
    return replace(graph, eqns=tuple(eqns), outputs=tuple(_read(known, a) for a in graph.outputs))


def _read(known: Mapping[Var, Atom], atom: Atom) -> Atom:
    return atom if isinstance(atom, Literal) else known.get(atom, atom)


def _touches(eqn: Eqn) -> bool:
    return isinstance(eqn.prim.kernel, Call) or any(_touches(e) for g in subgraphs(eqn) for e in g.eqns)


def _inside(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with the calls inside their graphs written out."""

    def clean(value: Any) -> Any:
        if isinstance(value, tuple) and any(isinstance(v, Graph) for v in value):
            return tuple(map(clean, value))
        return inline(value) if isinstance(value, Graph) else value

    return {name: clean(value) for name, value in params.items()}


def _write_out(call: Eqn, eqns: list[Eqn]) -> list[Atom]:
    """Append the equations of a call, each with values of its own: the graph may be called elsewhere too."""
    graph = inline(call.params["graph"])
    env: dict[Var, Atom] = dict(zip(graph.inputs, call.inputs, strict=True))
    for eqn in graph.eqns:
        outputs = tuple(Var(v.aval) for v in eqn.outputs)
        eqns.append(replace(eqn, inputs=tuple(_read(env, a) for a in eqn.inputs), outputs=outputs))
        env.update(zip(eqn.outputs, outputs, strict=True))
    return [_read(env, a) for a in graph.outputs]
