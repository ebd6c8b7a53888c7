"""Sums of windows: a small array padded with zeros and added to a large one is added to its window alone.

    %2 = pad[lo=(3,)] %1;  %3 = add %0 %2         ->     %3 = update_slice[starts=(3,),mode=add] %0 %1
    %2 = scatter_add %1 %i;  %3 = add %0 %2       ->     %3 = scatter[mode=add] %0 %i %1       for one index %i

That is what the gradient of ``x[3]``, and of ``x[i]``, does to the cotangent of ``x``. Compiled, the large array is
written over in place, so that n slices of an array of n rows cost n rows, where n sums of whole arrays cost n * n.
Numbers stay, but the sign of a zero that 0.0 would have been added to.
"""

from __future__ import annotations

from collections import Counter

from ..core.graph import Atom, Eqn, Graph, Var
from ..ops.scatter import scatter_p
from ..ops.window import update_slice_p
from .rewrite import substitute


def accumulate(graph: Graph) -> Graph:
    """One sweep; a pad that somebody else reads, or whose window is most of the array, stays."""
    readers = Counter(a for eqn in graph.eqns for a in eqn.inputs if isinstance(a, Var))
    readers.update(a for a in graph.outputs if isinstance(a, Var))
    pads = {eqn.outputs[0]: eqn for eqn in graph.eqns if eqn.prim.name == "pad" or _one_index(eqn)}

    def window(atom: Atom) -> Eqn | None:
        pad = pads.get(atom) if isinstance(atom, Var) else None
        small = pad is not None and 2 * pad.inputs[0].aval.size <= pad.outputs[0].aval.size
        return pad if small and readers[atom] == 1 else None  # type: ignore[index]

    def rule(eqn: Eqn) -> Eqn:
        if eqn.prim.name != "add":
            return eqn
        x, y = eqn.inputs
        if isinstance(y, Var) and window(y) is None:
            x, y = y, x
        pad, out = window(y), eqn.outputs[0]
        if pad is None or x.aval.shape != out.aval.shape or y.aval.shape != out.aval.shape:
            return eqn
        if pad.prim.name == "scatter_add":
            params = {"axis": pad.params["axis"], "mode": "add", "unique": True}
            return Eqn(scatter_p, (x, pad.inputs[1], pad.inputs[0]), eqn.outputs, params, eqn.source)
        params = {
            "starts": pad.params["lo"],
            "steps": tuple(n + 1 for n in pad.params["interior"]),
            "mode": "add",
        }
        return Eqn(update_slice_p, (x, pad.inputs[0]), eqn.outputs, params, eqn.source)

    return substitute(graph, rule)


def _one_index(eqn: Eqn) -> bool:
    return eqn.prim.name == "scatter_add" and eqn.inputs[1].aval.size == 1
