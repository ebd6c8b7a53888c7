"""Loop-invariant work is done once.

    scan: y_t = x_t * exp(c)    ->    e = exp(c);   scan: y_t = x_t * e

Invariant is what depends on consts alone. A view of a const is no work and stays in the body, but for a transpose that is
the right operand of a matrix product: handed over it is laid out once, where each step would pack it. What may raise at
run time stays where it might not run at all: in a while loop, in a scan of length 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..core.graph import Atom, Eqn, Graph, Var, verify
from .loops import dependent, is_view, may_fail
from .rewrite import ancestors, spliced, substitute


def invariant(graph: Graph) -> Graph:
    """Move invariant equations in front of the scans and while loops of ``graph``."""

    def rule(eqn: Eqn) -> Eqn | list[Eqn]:
        if eqn.prim.name == "scan":
            c = eqn.params["consts"]
            return _hoist(eqn, "body", eqn.inputs[:c], 0, safe=eqn.params["length"] > 0)
        if eqn.prim.name == "while":
            a, b = eqn.params["cond_consts"], eqn.params["body_consts"]
            first = _hoist(eqn, "cond", eqn.inputs[:a], 0, safe=False)
            a = first[-1].params["cond_consts"]
            eqn = first[-1]
            return [*first[:-1], *_hoist(eqn, "body", eqn.inputs[a : a + b], a, safe=False)]
        return eqn

    return substitute(graph, rule)


_COUNT = {("scan", "body"): "consts", ("while", "cond"): "cond_consts", ("while", "body"): "body_consts"}


def _hoist(eqn: Eqn, name: str, operands: Sequence[Atom], start: int, safe: bool) -> list[Eqn]:
    """The equations that leave graph ``name`` of a loop, and the loop without them.

    ``operands`` are the consts of that graph, which begin at operand ``start`` of the loop.
    """
    body: Graph = eqn.params[name]
    consts = body.inputs[: len(operands)]
    varying = dependent(body.eqns, set(body.inputs[len(operands) :]))
    fixed = [e for e in body.eqns if not any(isinstance(a, Var) and a in varying for a in e.inputs)]
    if not safe:
        fixed = _never_fails(fixed)
    right = {e.inputs[1] for e in body.eqns if e.prim.name == "matmul"}
    stays = {e for e in fixed if is_view(e) and not (e.prim.name == "transpose" and e.outputs[0] in right)}
    work = {v for e in fixed if e not in stays for v in e.outputs}
    moved = ancestors(fixed, work)
    if not moved:
        return [eqn]
    # What the rest of the body reads of it: of the views among what moves, it keeps its own.
    rest = [e for e in body.eqns if e not in set(moved) or e in stays]
    rest = ancestors(rest, [*body.outputs, *(a for e in rest if e not in stays for a in e.inputs)])
    read = {a for e in rest for a in e.inputs} | set(body.outputs)
    results = [v for e in moved if e not in stays for v in e.outputs if v in read]
    outer = Graph(consts, tuple(moved), tuple(results), (), body.name)
    eqns, atoms = spliced(outer, operands)
    end = len(operands)
    inputs = (*body.inputs[:end], *results, *body.inputs[end:])
    new = verify(replace(body, inputs=inputs, eqns=tuple(rest)), typed=body.eqns)
    at = start + end
    count = _COUNT[eqn.prim.name, name]
    params = {**eqn.params, name: new, count: end + len(atoms)}
    return [*eqns, replace(eqn, inputs=(*eqn.inputs[:at], *atoms, *eqn.inputs[at:]), params=params)]


def _never_fails(eqns: Sequence[Eqn]) -> list[Eqn]:
    """Those that cannot raise, nor depend on one that can."""
    failing: set[Var] = set()
    found = []
    for eqn in eqns:
        if may_fail(eqn) or any(a in failing for a in eqn.inputs if isinstance(a, Var)):
            failing.update(eqn.outputs)
        else:
            found.append(eqn)
    return found
