"""Local identities that hold bit for bit (``x + 0`` does not: it turns -0.0 into 0.0).

x*1, x/1, x-0, pow(x,1), cast to its own dtype, stop_gradient -> x
reshape, transpose, broadcast_to, sum over no axes: without effect -> x;   two reshapes or transposes in a row -> one
add(x, broadcast_to(y)) with x of the full shape -> add(x, y)      elementwise ops broadcast by themselves
"""

from __future__ import annotations

from dataclasses import replace

from ..core.graph import Atom, Eqn, Graph, Var
from ..core.loops import Pointwise
from .rewrite import substitute


def simplify(graph: Graph) -> Graph:
    """One sweep, each equation seen after its inputs were simplified."""
    made: dict[Var, Eqn] = {}

    def rule(eqn: Eqn) -> Eqn | Atom:
        result = _identity(_implicit_broadcast(eqn, made), made)
        if isinstance(result, Eqn):
            made.update(dict.fromkeys(result.outputs, result))
        return result

    return substitute(graph, rule)


def _identity(eqn: Eqn, made: dict[Var, Eqn]) -> Eqn | Atom:
    name, x, out = eqn.prim.name, eqn.inputs[0], eqn.outputs[0].aval
    same = x.aval.shape == out.shape and x.aval.dtype == out.dtype
    if same and name in ("stop_gradient", "cast", "reshape", "broadcast_to"):
        return x
    if name == "transpose" and eqn.params["perm"] == tuple(range(out.ndim)):
        return x
    if name.startswith("reduce_") and not eqn.params["axes"]:
        return x
    inner = made.get(x) if isinstance(x, Var) else None
    if inner is None or inner.prim is not eqn.prim:
        return eqn
    if name == "reshape":
        source = inner.inputs[0]
        return source if source.aval.shape == out.shape else replace(eqn, inputs=(source,))
    if name == "transpose":
        perm = tuple(inner.params["perm"][p] for p in eqn.params["perm"])
        return (
            inner.inputs[0]
            if perm == tuple(range(out.ndim))
            else replace(eqn, inputs=inner.inputs, params={"perm": perm})
        )
    if name == "neg":
        return inner.inputs[0]
    return eqn


def _implicit_broadcast(eqn: Eqn, made: dict[Var, Eqn]) -> Eqn:
    if not isinstance(eqn.prim.kernel, Pointwise):
        return eqn
    inputs = list(eqn.inputs)
    for i, atom in enumerate(inputs):
        source = made.get(atom) if isinstance(atom, Var) else None
        others = any(a.aval.shape == eqn.outputs[0].aval.shape for j, a in enumerate(inputs) if j != i)
        if source is not None and source.prim.name == "broadcast_to" and others:
            inputs[i] = source.inputs[0]
    return eqn if tuple(inputs) == eqn.inputs else replace(eqn, inputs=tuple(inputs))
