"""Reverse mode of scan: a forward scan that also stacks what backward reads, then a scan the other way round.

    forward   body -> body and residuals                 residuals come out as ys
    backward  carry: cotangents of the carry, sums of the cotangents of the consts
              xs: residuals, cotangents of ys            ys: cotangents of xs

Not every residual is stacked: consts, and what is computed from them alone, are consts of the backward loop; slices of
xs are read from xs again; a y that is a residual too is stacked once; views are taken anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from .. import autodiff, passes
from ..autodiff import is_float
from ..core.aval import Aval
from ..core.graph import Eqn, Graph, Var, verify
from ..core.primitive import Primitive
from ..ops.operands import shape_of
from ..trace import close, current, inline
from .bodies import bind, closed, zeros
from .linear import without_zeros

Back = Callable[[Sequence[Any]], list[Any]]
_VIEWS = ("reshape", "transpose", "broadcast_to")


class _Halves(NamedTuple):
    """A body split at the border of forward and backward, and what of ``forward``'s values backward reads."""

    forward: Graph
    backward: Graph  # inputs: ``residuals``, then a cotangent for each float output of the body
    residuals: list[Var]  # values of ``forward``
    extra: list[Any]  # what the derivative's rules closed over: the first consts
    wrt: list[int]  # inputs of the body, in the order of backward's outputs


def active_inputs(body: Graph, wanted: Sequence[bool], consts: int, carry: int) -> list[int]:
    """The inputs that cotangents reach: those wanted, and the carries that something wanted flows into."""
    flags = list(wanted)
    while True:
        live = autodiff.active(body, [i for i, flag in enumerate(flags) if flag])
        reached = [
            flags[consts + j] or (isinstance(a, Var) and a in live and is_float(a))
            for j, a in enumerate(body.outputs[:carry])
        ]
        if reached == flags[consts : consts + carry]:
            return [i for i, flag in enumerate(flags) if flag]
        flags[consts : consts + carry] = reached


def _halves(body: Graph, wrt: list[int], consts: int, recompute: bool) -> _Halves:
    """Forward and backward of one step; with ``recompute`` backward reads nothing but the inputs of the step."""
    joint, extra = close(passes.tidy(autodiff.vjp(body, wrt)))
    n, outs = len(extra) + len(body.inputs), len(body.outputs)
    if recompute:
        backward = passes.dce(replace(joint, outputs=joint.outputs[outs:]))
        read = {a for eqn in backward.eqns for a in eqn.inputs} | set(backward.outputs)
        residuals = [v for v in joint.inputs[:n] if v in read]
        forward = replace(joint, inputs=joint.inputs[:n], outputs=joint.outputs[:outs])
        forward = passes.dce(forward)
        backward = replace(backward, inputs=(*residuals, *joint.inputs[n:]))
        return _Halves(verify(forward, joint.eqns), verify(backward, joint.eqns), residuals, extra, wrt)
    forward, backward = autodiff.split(joint, n, outs)
    residuals = [v for v in forward.outputs[outs:] if isinstance(v, Var)]
    eqns, residuals = _cheap(forward, residuals, set(joint.inputs[: len(extra) + consts]))
    cts = backward.inputs[len(forward.outputs) - outs :]
    backward = Graph((*residuals, *cts), (*eqns, *backward.eqns), backward.outputs, (), body.name)
    forward = passes.dce(replace(forward, outputs=(*joint.outputs[:outs], *residuals)))
    return _Halves(verify(forward, joint.eqns), verify(backward, joint.eqns), residuals, extra, wrt)


def _cheap(forward: Graph, residuals: list[Var], fixed: set[Var]) -> tuple[list[Eqn], list[Var]]:
    """The equations that backward runs again rather than read their results, and what it still has to read.

    Views cost nothing; what depends on consts alone would be stacked as equal copies (`passes` moves both out of the
    loops, where they are one).
    """
    made = {v: (i, eqn) for i, eqn in enumerate(forward.eqns) for v in eqn.outputs}
    invariant = set(fixed)
    for eqn in forward.eqns:
        if all(a in invariant for a in eqn.inputs if isinstance(a, Var)):
            invariant.update(eqn.outputs)
    again: dict[int, Eqn] = {}
    read: dict[Var, None] = {}
    todo = list(residuals)
    while todo:
        v = todo.pop(0)
        if v in made and (v in invariant or made[v][1].prim.name in _VIEWS):
            i, eqn = made[v]
            if i not in again:
                again[i] = eqn
                todo += [a for a in eqn.inputs if isinstance(a, Var)]
        else:
            read[v] = None
    return [again[i] for i in sorted(again)], list(read)


def pull_steps(
    scan_p: Primitive, inputs: Sequence[Any], wanted: Sequence[bool], *, recompute: bool,
    body: Graph, consts: int, carry: int, length: int, reverse: bool,
) -> tuple[list[Any], Back]:  # fmt: skip
    """The outputs of the scan, and ``back(cotangents) -> one cotangent or None per operand``.

    With ``recompute`` backward reads what each step was given and runs it again, so that only carries are kept.
    """
    builder = current()
    assert builder is not None
    source = builder.source
    wrt = active_inputs(body, wanted, consts, carry)
    halves = _halves(body, wrt, consts, recompute)
    e, outs = len(halves.extra), len(body.outputs)
    own = halves.forward.inputs
    first, second = e + consts, e + consts + carry  # where carries, and where xs begin
    place = {v: i for i, v in enumerate(own)}
    whole = {
        v for v, i in place.items() if not first <= i < second
    }  # consts and xs: there, whatever is put out
    ys = {v: i for i, v in enumerate(halves.forward.outputs[:outs]) if i >= carry and isinstance(v, Var)}
    ys = {v: i for v, i in ys.items() if v not in whole}
    new = [v for v in halves.residuals if v not in whole and v not in ys]
    forward = replace(halves.forward, outputs=(*halves.forward.outputs[:outs], *new))
    operands = [*halves.extra, *inputs]
    limit = (
        {"every": 1} if recompute else {}
    )  # the next derivative recomputes as well; passes leave such loops whole
    params = {"consts": e + consts, "carry": carry, "length": length, **limit}
    outputs = bind(scan_p, operands, body=verify(forward, forward.eqns), **params, reverse=reverse)
    kept = {v: outputs[i] for v, i in ys.items()} | dict(zip(new, outputs[outs:], strict=True))
    fixed = set(own[:first])
    values = {v: operands[i] for v, i in place.items()} | kept

    def back(cts: Sequence[Any]) -> list[Any]:
        floats = [i for i, a in enumerate(body.outputs) if is_float(a)]
        return _backward(
            scan_p, halves, [cts[i] for i in floats], floats, values, fixed, source,
            consts=consts, carry=carry, length=length, reverse=reverse, limit=limit,
        )  # fmt: skip

    return outputs[:outs], back


def _backward(
    scan_p: Primitive, halves: _Halves, cts: list[Any], floats: list[int], values: dict[Var, Any], fixed: set[Var],
    source: str | None, *, consts: int, carry: int, length: int, reverse: bool, limit: dict[str, int],
) -> list[Any]:  # fmt: skip
    """The scan the other way round. ``cts`` belong to the outputs ``floats``; ``values`` are whole operands or stacks."""
    wrt, n = halves.wrt, len(halves.residuals)
    at = {i: p for p, i in enumerate(wrt)}
    found: list[Any] = [None] * len(wrt)
    carries = {j: p for p, j in enumerate(floats) if j < carry and consts + j in at}
    given = [ct is not None and (j >= carry or j in carries) for ct, j in zip(cts, floats, strict=True)]
    while True:
        graph, flags = without_zeros(halves.backward, n, given)
        fresh = [p for j, p in carries.items() if flags[at[consts + j]] and not given[p]]
        if not fresh:
            break
        for p in fresh:
            given[p] = True
    result: list[Any] = [None] * (len(halves.forward.inputs) - len(halves.extra))
    if not any(given):
        return result
    moving = [j for j, p in carries.items() if given[p]]
    sums = [p for p, i in enumerate(wrt) if i < consts and flags[p]]
    slices = [p for p, i in enumerate(wrt) if i >= consts + carry and flags[p]]
    same = [v for v in halves.residuals if v in fixed]
    each = [v for v in halves.residuals if v not in fixed]
    y_cts = [p for p, j in enumerate(floats) if j >= carry and given[p]]
    c, k = len(same), len(moving) + len(sums)

    def step(*args: Any) -> list[Any]:
        builder = current()
        assert builder is not None
        builder.source = source
        state, xs = args[c : c + k], args[c + k :]
        env: dict[Any, Any] = dict(zip([*same, *each], [*args[:c], *xs[: len(each)]], strict=True))
        ct_of = {carries[j]: state[q] for q, j in enumerate(moving)}
        ct_of.update(zip(y_cts, xs[len(each) :], strict=True))
        outs = inline(graph, [*(env[v] for v in halves.residuals), *(ct_of[p] for p in sorted(ct_of))])
        some = iter(outs)
        ct = [next(some) if flag else None for flag in flags]
        new = [ct[at[consts + j]] for j in moving]
        new = [zeros(shape_of(s), s.aval.dtype) if t is None else t for t, s in zip(new, state, strict=False)]
        return [*new, *(state[len(moving) + q] + ct[p] for q, p in enumerate(sums)), *(ct[p] for p in slices)]

    def aval(p: int) -> Aval:
        v = halves.backward.inputs[n + p].aval
        return Aval(v.shape, v.dtype)

    kinds = [
        Aval(a.shape, a.dtype) for a in (halves.forward.inputs[len(halves.extra) + wrt[p]].aval for p in sums)
    ]
    state = [*(aval(carries[j]) for j in moving), *kinds]
    avals = [*(v.aval for v in same), *state, *(v.aval for v in each), *map(aval, y_cts)]
    body, extra = closed(step, avals, halves.forward.name)
    first = [cts[carries[j]] for j in moving] + [None] * len(sums)
    inits = [zeros(a.shape, a.dtype) if ct is None else ct for ct, a in zip(first, state, strict=True)]
    operands = [
        *extra,
        *(values[v] for v in same),
        *inits,
        *(values[v] for v in each),
        *(cts[p] for p in y_cts),
    ]
    params = {"consts": len(extra) + c, "carry": k, "length": length, "reverse": not reverse, **limit}
    outputs = bind(scan_p, operands, body=body, **params)
    for j, ct in zip(moving, outputs, strict=False):
        found[at[consts + j]] = ct
    for p, ct in zip([*sums, *slices], outputs[len(moving) :], strict=True):
        found[p] = ct
    for p, i in enumerate(wrt):
        result[i] = found[p]
    return result
