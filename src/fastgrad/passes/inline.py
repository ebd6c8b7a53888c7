"""Calls written out: ``%2 = checkpoint[graph=g] %0 %1`` -> the equations of ``g`` on %0 and %1, and %2 is what they return.

The rules of a call have served when the passes run; what is left is its graph. Of ``stop_gradient``, which is all rule, its
operand is left; it must not go earlier (in `simplify`, say), as a graph that is only tidied may be differentiated again.
Bodies of loops and branches are graphs of their own, and are written out inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..core.graph import Atom, Eqn, Graph, Literal, Var, subgraphs
from ..core.loops import Call
from .rewrite import spliced


def inline(graph: Graph) -> Graph:
    """The graph without calls and without ``stop_gradient``, at any depth."""
    if not any(_touches(eqn) for eqn in graph.eqns):
        return graph
    known: dict[Var, Atom] = {}
    eqns: list[Eqn] = []
    for eqn in graph.eqns:
        if any(isinstance(a, Var) and a in known for a in eqn.inputs):
            eqn = replace(eqn, inputs=tuple(_read(known, a) for a in eqn.inputs))
        if isinstance(eqn.prim.kernel, Call):
            written, outputs = spliced(inline(eqn.params["graph"]), eqn.inputs)
            eqns += written
            known.update(zip(eqn.outputs, outputs, strict=True))
        elif eqn.prim.name == "stop_gradient":
            known[eqn.outputs[0]] = eqn.inputs[0]
        else:
            eqns.append(replace(eqn, params=_inside(eqn.params)) if _touches(eqn) else eqn)
    return replace(graph, eqns=tuple(eqns), outputs=tuple(_read(known, a) for a in graph.outputs))


def _read(known: Mapping[Var, Atom], atom: Atom) -> Atom:
    return atom if isinstance(atom, Literal) else known.get(atom, atom)


def _touches(eqn: Eqn) -> bool:
    served = isinstance(eqn.prim.kernel, Call) or eqn.prim.name == "stop_gradient"
    return served or any(_touches(e) for g in subgraphs(eqn) for e in g.eqns)


def _inside(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with the calls inside their graphs written out."""

    def clean(value: Any) -> Any:
        if isinstance(value, tuple) and any(isinstance(v, Graph) for v in value):
            return tuple(map(clean, value))
        return inline(value) if isinstance(value, Graph) else value

    return {name: clean(value) for name, value in params.items()}
