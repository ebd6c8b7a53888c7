"""A sum of pieces padded to one size is their concatenation.

    %3 = pad[lo=(0,0), hi=(0,2)] %a
    %4 = pad[lo=(0,2), hi=(0,0)] %b
    %5 = add %3 %4                           ->    %5 = concatenate[axis=1] %a %b

That is what the cotangents of slices of one value come as (the gates of a recurrent layer, ``np.split``). The pieces must
fill one axis without a gap. Exact, but for the sign of a zero: -0.0 + 0.0 is 0.0, and the piece keeps its -0.0.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ..core.graph import Atom, Eqn, Graph, Var
from ..ops.movement import concatenate_p
from .rewrite import substitute


def assemble(graph: Graph) -> Graph:
    """One sweep; a sum inside a larger sum of pieces is left to that."""
    made = {v: e for e in graph.eqns for v in e.outputs}
    uses = Counter(a for e in graph.eqns for a in e.inputs if isinstance(a, Var))
    uses.update(a for a in graph.outputs if isinstance(a, Var))
    within = {
        a for e in graph.eqns if e.prim.name == "add" for a in e.inputs if isinstance(a, Var) and uses[a] == 1
    }

    def pieces(root: Eqn) -> list[Eqn] | None:
        """The pads that ``root`` adds up, itself or by sums that nothing else reads."""
        found: list[Eqn] = []
        stack: list[Atom] = list(root.inputs)
        while stack:
            atom = stack.pop()
            eqn = made.get(atom) if atom in within and isinstance(atom, Var) else None
            if eqn is not None and eqn.prim.name == "add":
                stack += eqn.inputs
            elif eqn is not None and eqn.prim.name == "pad":
                found.append(eqn)
            else:
                return None
        return found

    def rule(eqn: Eqn) -> Eqn:
        found = pieces(eqn) if eqn.prim.name == "add" and eqn.outputs[0] not in within else None
        axis = _axis(found) if found else None
        if found is None or axis is None:
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
