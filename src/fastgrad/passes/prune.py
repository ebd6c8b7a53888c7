"""What a loop or a branch need not take, carry or give.

scan  consts nobody reads, xs nobody reads, ys nobody reads                         -> gone
      a carry whose result nobody reads and that feeds only itself                  -> gone
      a carry that leaves as it came                                                -> a const
      two operands that are one, two ys that are one                                -> one
      y_t = x_t -> xs;   y_t = a const -> broadcast_to of it;   xs that are a broadcast -> a const
      an operand that is a literal                                                  -> a literal in the body
while, switch   the same for their consts, carries, operands and results; a switch by a literal -> its branch
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..core.graph import Atom, Eqn, Graph, Literal, Var, verify
from ..ops.shaping import broadcast_to_p
from .loops import Loop
from .rewrite import ancestors, spliced


def prune(graph: Graph) -> Graph:
    """One sweep from the results back, so that what a later loop no longer reads is gone from an earlier one."""
    used = {a for a in graph.outputs if isinstance(a, Var)}
    made = {v: e for e in graph.eqns for v in e.outputs}
    known: dict[Var, Atom] = {}
    kept: list[list[Eqn]] = []
    for eqn in reversed(graph.eqns):
        if not any(v in used for v in eqn.outputs):
            continue
        rule = _RULES.get(eqn.prim.name)
        new = rule(eqn, used, made, known) if rule else [eqn]
        for each in new:
            used.update(a for a in each.inputs if isinstance(a, Var))
        used.update(a for v in eqn.outputs if isinstance(a := known.get(v), Var))
        kept.append(new)
    eqns = [e for group in reversed(kept) for e in group]
    if not known:
        return replace(graph, eqns=tuple(eqns))
    closed = {v: _end(known, v) for v in known}
    swap = lambda a: closed.get(a, a) if isinstance(a, Var) else a  # noqa: E731
    eqns = [replace(e, inputs=tuple(map(swap, e.inputs))) for e in eqns]
    return replace(graph, eqns=tuple(eqns), outputs=tuple(map(swap, graph.outputs)))


def _end(known: dict[Var, Atom], atom: Atom) -> Atom:
    while isinstance(atom, Var) and atom in known:
        atom = known[atom]
    return atom


# --- scan -------------------------------------------------------------------------------------------------------------


def _scan(eqn: Eqn, used: set[Var], made: dict[Var, Eqn], known: dict[Var, Atom]) -> list[Eqn]:
    loop = Loop.of(eqn)
    after: list[Eqn] = []
    _standing(loop, known)
    _results(loop, used, known, after)
    _broadcasts(loop, made)
    _merge(loop)
    live = {i for i, c in enumerate(loop.carries) if c[3] in used}
    while True:
        wanted = [loop.carries[i][2] for i in sorted(live)] + [a for a, _ in loop.ys]
        wanted = [loop.read(a) for a in wanted]
        needed = set(wanted) | {loop.read(a) for e in ancestors(loop.eqns, wanted) for a in e.inputs}
        more = {i for i, c in enumerate(loop.carries) if c[1] in needed} - live
        if not more:
            break
        live |= more
    loop.eqns = ancestors(loop.eqns, wanted)
    loop.carries = [c for i, c in enumerate(loop.carries) if i in live]
    loop.consts = [c for c in loop.consts if c[1] in needed]
    loop.xs = [x for x in loop.xs if x[1] in needed]
    if not loop.carries and not loop.ys:
        return after
    before, sizes = eqn.params, (len(loop.consts), len(loop.carries), len(loop.xs), len(loop.ys))
    c, k = before["consts"], before["carry"]
    if not loop.known and sizes == (c, k, len(eqn.inputs) - c - k, len(eqn.outputs) - k):
        return [eqn, *after]
    return [loop.equation(), *after]


def _standing(loop: Loop, known: dict[Var, Atom]) -> None:
    """Carries that never change become consts."""
    for carry in list(loop.carries):
        init, inner, new, result = carry
        if new is inner:
            loop.carries.remove(carry)
            loop.consts.append((init, inner))
            known[result] = init


def _results(loop: Loop, used: set[Var], known: dict[Var, Atom], after: list[Eqn]) -> None:
    """The ys that are needed, each once; those that are slices or consts are not stacked at all."""
    fixed, slices = {v: a for a, v in loop.consts}, {v: a for a, v in loop.xs}
    kept: dict[Atom, Var] = {}
    for inner, result in loop.ys:
        if result not in used:
            continue
        if inner in slices:
            known[result] = slices[inner]  # type: ignore[index]
        elif inner in fixed or isinstance(inner, Literal):
            source = inner if isinstance(inner, Literal) else fixed[inner]
            after.append(
                Eqn(broadcast_to_p, (source,), (result,), {"shape": result.aval.shape}, loop.eqn.source)
            )
        elif inner in kept:
            known[result] = kept[inner]
        else:
            kept[inner] = result
    loop.ys = list(kept.items())


def _broadcasts(loop: Loop, made: dict[Var, Eqn]) -> None:
    """xs that repeat one value along the loop: the value is a const."""
    for pair in list(loop.xs):
        operand, inner = pair
        source = made.get(operand) if isinstance(operand, Var) else None
        if source is None or source.prim is not broadcast_to_p:
            continue
        [origin] = source.inputs
        if origin.aval.ndim >= operand.aval.ndim:
            continue
        loop.xs.remove(pair)
        const: Atom = origin
        if isinstance(origin, Var):
            const = Var(origin.aval)
            loop.consts.append((origin, const))
        loop.eqns.insert(
            0, Eqn(broadcast_to_p, (const,), (inner,), {"shape": inner.aval.shape}, source.source)
        )


def _merge(loop: Loop) -> None:
    """Each operand once; literals go into the body."""
    for name in ("consts", "xs"):
        seen: dict[Atom, Var] = {}
        for operand, inner in getattr(loop, name):
            if isinstance(operand, Literal):
                loop.known[inner] = operand
            elif operand in seen:
                loop.known[inner] = seen[operand]
            else:
                seen[operand] = inner
        setattr(loop, name, list(seen.items()))


# --- while ------------------------------------------------------------------------------------------------------------


def _while(eqn: Eqn, used: set[Var], made: dict[Var, Eqn], known: dict[Var, Atom]) -> list[Eqn]:
    cond, body = eqn.params["cond"], eqn.params["body"]
    a, b = eqn.params["cond_consts"], eqn.params["body_consts"]
    n = len(eqn.outputs)
    tested = {x for e in ancestors(cond.eqns, cond.outputs) for x in e.inputs} | set(cond.outputs)
    live = {i for i, v in enumerate(eqn.outputs) if v in used or cond.inputs[a + i] in tested}
    while True:
        wanted = [body.outputs[i] for i in sorted(live)]
        read = set(wanted) | {x for e in ancestors(body.eqns, wanted) for x in e.inputs}
        more = {i for i in range(n) if body.inputs[b + i] in read} - live
        if not more:
            break
        live |= more
    standing = [i for i in sorted(live) if body.outputs[i] is body.inputs[b + i]]
    moving = [i for i in sorted(live) if i not in standing]
    if not moving:  # it runs for ever or not at all
        return [eqn]
    init = eqn.inputs[a + b :]
    for i in standing:
        known[eqn.outputs[i]] = init[i]
    consts = [i for i in range(b) if body.inputs[i] in read]
    first = [i for i in range(a) if cond.inputs[i] in tested]
    if (len(moving), len(consts), len(first)) == (n, b, a):
        return [eqn]
    test_in = [cond.inputs[i] for i in first] + [cond.inputs[a + i] for i in standing]
    body_in = [body.inputs[i] for i in consts] + [body.inputs[b + i] for i in standing]
    new_cond = replace(cond, inputs=(*test_in, *(cond.inputs[a + i] for i in moving)))
    new_body = replace(
        body,
        inputs=(*body_in, *(body.inputs[b + i] for i in moving)),
        eqns=tuple(ancestors(body.eqns, wanted)),
        outputs=tuple(body.outputs[i] for i in moving),
    )
    held = [init[i] for i in standing]
    inputs = [*(eqn.inputs[i] for i in first), *held, *(eqn.inputs[a + i] for i in consts), *held]
    params = {
        "cond": verify(new_cond, cond.eqns),
        "body": verify(new_body, body.eqns),
        "cond_consts": len(test_in),
        "body_consts": len(body_in),
    }
    return [
        replace(
            eqn,
            inputs=(*inputs, *(init[i] for i in moving)),
            outputs=tuple(eqn.outputs[i] for i in moving),
            params={**eqn.params, **params},
        )
    ]


# --- switch -----------------------------------------------------------------------------------------------------------


def _switch(eqn: Eqn, used: set[Var], made: dict[Var, Eqn], known: dict[Var, Atom]) -> list[Eqn]:
    branches, operands = eqn.params["branches"], eqn.inputs[1:]
    index = eqn.inputs[0]
    if isinstance(index, Literal):
        taken = branches[min(max(int(index.value), 0), len(branches) - 1)]
        eqns, outputs = spliced(taken, operands)
        known.update(zip(eqn.outputs, outputs, strict=True))
        return eqns
    wanted = [i for i, v in enumerate(eqn.outputs) if v in used]
    first: dict[Atom, int] = {}
    for i, operand in enumerate(operands):
        first.setdefault(operand, i)
    new = []
    for branch in branches:
        swap: dict[Var, Atom] = {
            v: operand if isinstance(operand, Literal) else branch.inputs[first[operand]]
            for v, operand in zip(branch.inputs, operands, strict=True)
        }
        new.append(_renamed(branch, swap, wanted))
    read = [{a for e in b.eqns for a in e.inputs} | set(b.outputs) for b in new]
    kept = [
        i for i in range(len(operands)) if any(b.inputs[i] in r for b, r in zip(branches, read, strict=True))
    ]
    if len(kept) == len(operands) and len(wanted) == len(eqn.outputs):
        return [eqn]
    new = [
        verify(replace(n, inputs=tuple(b.inputs[i] for i in kept)), typed=b.eqns)
        for n, b in zip(new, branches, strict=True)
    ]
    return [
        replace(
            eqn,
            inputs=(index, *(operands[i] for i in kept)),
            outputs=tuple(eqn.outputs[i] for i in wanted),
            params={"branches": tuple(new)},
        )
    ]


def _renamed(branch: Graph, swap: dict[Var, Atom], wanted: list[int]) -> Graph:
    """A branch with its inputs replaced, and only the outputs ``wanted``."""
    get: Callable[[Atom], Atom] = lambda a: swap.get(a, a) if isinstance(a, Var) else a  # noqa: E731
    outputs = [branch.outputs[i] for i in wanted]
    eqns = [replace(e, inputs=tuple(map(get, e.inputs))) for e in ancestors(branch.eqns, outputs)]
    return replace(branch, eqns=tuple(eqns), outputs=tuple(map(get, outputs)))


_RULES: dict[str, Callable[[Eqn, set[Var], dict[Var, Eqn], dict[Var, Atom]], list[Eqn]]] = {
    "scan": _scan,
    "while": _while,
    "switch": _switch,
}
