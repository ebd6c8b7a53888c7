"""The one loop that every forward pass shares: walk the equations, replace atoms, keep or drop each equation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..core.graph import Atom, Eqn, Graph, Literal, Var

Substitution = dict[Var, Atom]


def substitute(graph: Graph, rule: Callable[[Eqn], Eqn | Atom | list[Eqn]]) -> Graph:
    """Apply ``rule`` to each equation in order, with earlier replacements already made in its inputs.

    A rule returns the equation (maybe changed, same outputs), several equations of which the last has its outputs, or the
    atom that its single output equals.
    """
    known: Substitution = {}
    eqns: list[Eqn] = []

    def read(atom: Atom) -> Atom:
        return atom if isinstance(atom, Literal) else known.get(atom, atom)

    for eqn in graph.eqns:
        if any(isinstance(a, Var) and a in known for a in eqn.inputs):
            eqn = replace(eqn, inputs=tuple(map(read, eqn.inputs)))
        result = rule(eqn)
        if isinstance(result, Eqn):
            eqns.append(result)
        elif isinstance(result, list):
            eqns += result
        else:
            known[eqn.outputs[0]] = result
    return replace(graph, eqns=tuple(eqns), outputs=tuple(read(a) for a in graph.outputs))
