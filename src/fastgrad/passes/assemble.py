"""A sum of pieces padded to one size is their concatenation.

    %3 = pad[lo=(0,0), hi=(0,2)] %a
    %4 = pad[lo=(0,2), hi=(0,0)] %b
    %5 = add %3 %4                           ->    %5 = concatenate[axis=1] %a %b

That is what the cotangents of slices of one value come as (the gates of a recurrent layer, ``np.split``). The pieces must
fill one axis without a gap. Exact, but for the sign of a zero: -0.0 + 0.0 is 0.0, and the piece keeps its -0.0.
"""

from __future__ import annotations

from dataclasses import replace

from ..core.graph import Atom, Eqn, Graph, Var
from ..ops.movement import concatenate_p
from .rewrite import substitute

MOST = 256
"""Pieces of one sum that are looked at: a bound on the work, far above the gates of any layer."""


def assemble(graph: Graph) -> Graph:
    """One sweep, front to back: of each sum it is known which pieces it adds, if it adds pieces alone."""
    if not any(e.prim.name == "pad" for e in graph.eqns):
        return graph
    uses: dict[Var, int] = {}
    for atom in [*(a for e in graph.eqns for a in e.inputs), *graph.outputs]:
        if isinstance(atom, Var):
            uses[atom] = uses.get(atom, 0) + 1
    pieces: dict[Atom, list[Eqn]] = {}

    def rule(eqn: Eqn) -> Eqn:
        out = eqn.outputs[0]
        if eqn.prim.name == "pad":
            pieces[out] = [eqn]
        if eqn.prim.name != "add" or any(a not in pieces or uses[a] > 1 for a in eqn.inputs):  # type: ignore[index]
            return eqn
        found = [e for a in eqn.inputs for e in pieces[a]]
        axis = _axis(found)
        if axis is None:
            if len(found) <= MOST:
                pieces[out] = found
            return eqn
        found.sort(key=lambda e: e.params["lo"][axis])
        return replace(
            eqn, prim=concatenate_p, inputs=tuple(e.inputs[0] for e in found), params={"axis": axis}
        )

    return substitute(graph, rule)


def _axis(pads: list[Eqn]) -> int | None:
    """The one axis that the pieces fill; None where they do not."""
    padded = {
        i
        for e in pads
        for i, widths in enumerate(zip(e.params["lo"], e.params["hi"], e.params["interior"], strict=True))
        if any(widths)
    }
    if len(padded) != 1:
        return None
    [axis] = padded
    if any(e.params["interior"][axis] for e in pads):
        return None
    end = 0
    for start, size in sorted((e.params["lo"][axis], e.inputs[0].aval.shape[axis]) for e in pads):
        if start != end:
            return None
        end += size
    return axis if end == pads[0].outputs[0].aval.shape[axis] else None
