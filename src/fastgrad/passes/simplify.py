"""Local identities that hold bit for bit and look at structure alone.

    cast to its own dtype, two sign changes -> x
    reshape, transpose, broadcast_to, sum over no axes: without effect -> x;   two reshapes or transposes in a row -> one
    add(x, broadcast_to(y)) with x of the full shape -> add(x, y)      elementwise ops broadcast by themselves
    neg(broadcast_to(s)), reshape(broadcast_to(s)) of a scalar s -> broadcast_to(neg(s)), broadcast_to(s)

``x * 1 -> x`` is not among them: the 1 may be a batch size, and a batch of one would get kernels of its own. One more
multiplication inside a fused kernel costs nothing.
"""

from __future__ import annotations

from dataclasses import replace

from ..core.aval import Aval
from ..core.graph import Atom, Eqn, Graph, Var
from ..core.loops import Pointwise, Region, View
from .rewrite import substitute


def simplify(graph: Graph) -> Graph:
    """One sweep, each equation seen after its inputs were simplified."""
    made: dict[Var, Eqn] = {}

    def rule(eqn: Eqn) -> Eqn | Atom | list[Eqn]:
        if isinstance(eqn.prim.kernel, Region):
            return eqn
        late = _broadcast_late(_implicit_broadcast(eqn, made), made)
        result = _identity(late[0], made) if len(late) == 1 else late
        for new in result if isinstance(result, list) else [result]:
            if isinstance(new, Eqn):
                made.update(dict.fromkeys(new.outputs, new))
        return result

    return substitute(graph, rule)


def _identity(eqn: Eqn, made: dict[Var, Eqn]) -> Eqn | Atom:
    if not eqn.inputs:
        return eqn
    name, x, out = eqn.prim.name, eqn.inputs[0], eqn.outputs[0].aval
    same = x.aval.shape == out.shape and x.aval.dtype == out.dtype
    if same and name in ("cast", "reshape", "broadcast_to"):
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


def _broadcast_late(eqn: Eqn, made: dict[Var, Eqn]) -> list[Eqn]:
    """Work on a scalar before it is broadcast, not after."""
    scalars: list[Atom] = []
    spread: Eqn | None = None
    for atom in eqn.inputs:
        source = made.get(atom) if isinstance(atom, Var) else None
        if source is not None and source.prim.name == "broadcast_to" and not source.inputs[0].aval.shape:
            spread = source
            scalars.append(source.inputs[0])
        elif atom.aval.shape:
            return [eqn]
        else:
            scalars.append(atom)
    out = eqn.outputs[0]
    if spread is None or not out.aval.shape:
        return [eqn]
    shape = {"shape": out.aval.shape}
    if isinstance(eqn.prim.kernel, View) and "shape" in eqn.params:
        return [replace(spread, outputs=eqn.outputs, params=shape, source=eqn.source)]
    if not isinstance(eqn.prim.kernel, Pointwise):
        return [eqn]
    scalar = Var(Aval((), out.aval.dtype, out.aval.weak))
    return [
        replace(eqn, inputs=tuple(scalars), outputs=(scalar,)),
        replace(spread, inputs=(scalar,), outputs=eqn.outputs, params=shape, source=eqn.source),
    ]
