"""Common subexpressions: two equations with the same op, inputs and parameters -> one."""

from __future__ import annotations

from ..core.graph import Atom, Eqn, Graph, Literal, Var
from .rewrite import substitute


def cse(graph: Graph) -> Graph:
    """Keep the first of equal equations; ops are pure, so equal inputs give equal outputs."""
    seen: dict[tuple, tuple[Var, ...]] = {}

    def rule(eqn: Eqn) -> Eqn | tuple[Atom, ...]:
        inputs = tuple(a.key() if isinstance(a, Literal) else id(a) for a in eqn.inputs)
        key = (eqn.prim, inputs, tuple(sorted(eqn.params.items())))
        if key in seen:
            return seen[key]
        seen[key] = eqn.outputs
        return eqn

    return substitute(graph, rule)
