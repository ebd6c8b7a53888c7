"""The one loop that every forward pass shares: walk the equations, replace atoms, keep or drop each equation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ..core.graph import Atom, Eqn, Graph, Literal, Var

Substitution = dict[Var, Atom]


Result = Eqn | Atom | list[Eqn] | tuple[Atom, ...]


def substitute(graph: Graph, rule: Callable[[Eqn], Result]) -> Graph:
    """Apply ``rule`` to each equation in order, with earlier replacements already made in its inputs.

    A rule returns the equation (maybe changed, same outputs), several equations that have its outputs among them, or
    the atoms that its outputs equal (one, or a tuple).
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
        elif isinstance(result, tuple):
            known.update(zip(eqn.outputs, result, strict=True))
        else:
            known[eqn.outputs[0]] = result
    return replace(graph, eqns=tuple(eqns), outputs=tuple(read(a) for a in graph.outputs))


def spliced(graph: Graph, atoms: Sequence[Atom]) -> tuple[list[Eqn], list[Atom]]:
    """The equations of ``graph`` on ``atoms``, with values of their own, and the atoms that its outputs are."""
    known: Substitution = dict(zip(graph.inputs, atoms, strict=True))
    known.update((v, v) for v, _ in graph.captured)

    def read(atom: Atom) -> Atom:
        return atom if isinstance(atom, Literal) else known[atom]

    eqns = []
    for eqn in graph.eqns:
        outputs = tuple(Var(v.aval) for v in eqn.outputs)
        eqns.append(replace(eqn, inputs=tuple(map(read, eqn.inputs)), outputs=outputs))
        known.update(zip(eqn.outputs, outputs, strict=True))
    return eqns, [read(a) for a in graph.outputs]


def ancestors(eqns: Sequence[Eqn], wanted: Iterable[Atom]) -> list[Eqn]:
    """The equations that ``wanted`` depend on, in their order."""
    needed = {a for a in wanted if isinstance(a, Var)}
    found = []
    for eqn in reversed(eqns):
        if any(v in needed for v in eqn.outputs):
            needed.update(a for a in eqn.inputs if isinstance(a, Var))
            found.append(eqn)
    return found[::-1]
