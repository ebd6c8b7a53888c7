"""What a loop only adds up or only puts out is computed after it, from all steps at once.

    scan: dW' = dW + a_t^T @ b_t                ->   scan: ys a_t, b_t;     dW = dW_0 + A^T @ B      over T * K rows
    scan: db' = db + sum(b_t, rows)             ->   scan: ys b_t;          db = db_0 + sum(B, steps and rows)
    scan: y_t = f(h_t @ V), read nowhere else   ->   scan: ys h_t;          Y = f(H @ V)             over T * B rows

So the gradient of a recurrent weight is one GEMM instead of T small ones. Operands that are slices of xs are read from
xs; sums are gathered only where what they add up is stacked anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..batching import batch
from ..core.graph import Atom, Eqn, Graph, Literal, Var
from ..core.loops import Region
from ..ops.elementwise import add_p
from ..ops.linalg import matmul_p
from ..ops.movement import moveaxis, swapaxes
from ..ops.operands import shape_of
from ..ops.shaping import reduce_sum_p, reshape_p
from ..trace import inline, trace
from .loops import Loop, counts, dependent, is_view
from .rewrite import ancestors, spliced, substitute


def gather(graph: Graph) -> Graph:
    """Gather sums and results of every scan of ``graph``."""
    zero = {
        e.outputs[0]
        for e in graph.eqns
        if e.prim.name == "broadcast_to" and isinstance(e.inputs[0], Literal) and not e.inputs[0].value
    }
    return substitute(graph, lambda eqn: _gather(eqn, zero) if eqn.prim.name == "scan" else eqn)


def _gather(eqn: Eqn, zero: set[Var]) -> Eqn | list[Eqn]:
    loop = Loop.of(eqn)
    if (
        loop.length < 2 or "every" in eqn.params
    ):  # a loop whose memory the user limits: nothing of all steps at once
        return eqn
    sums: list[Eqn] = []
    _sums(loop, sums, zero, products=True)
    results: list[Eqn] = []
    _results(loop, results)  # these read what the products made the loop stack, and take over some of it
    plain: list[Eqn] = []  # what was left of a carry whose products are gone: their sums begin with it
    _sums(loop, plain, zero, products=False)
    after = [*plain, *results, *sums]
    return [loop.equation(), *after] if after else eqn


# --- results ----------------------------------------------------------------------------------------------------------


def _results(loop: Loop, after: list[Eqn]) -> None:
    """Products with a const that only results depend on, and all that follows from them."""
    fed = ancestors(loop.eqns, [c[2] for c in loop.carries])
    free = [e for e in loop.eqns if e not in set(fed)]
    varying = dependent(loop.eqns, {c[1] for c in loop.carries} | {v for _, v in loop.xs})
    found = {
        e.outputs[0] for e in free if e.prim.name == "matmul" and sum(a in varying for a in e.inputs) == 1
    }
    if not found:
        return
    follow = dependent(free, found)
    moved = [e for e in free if any(v in follow for v in e.outputs)]
    results = [(a, v) for a, v in loop.ys if a in follow]
    moved = ancestors(moved, [a for a, _ in results])
    if not moved or any(isinstance(e.prim.kernel, Region) for e in moved):
        return
    inner = _subgraph(loop, moved, [a for a, _ in results])
    fresh = [v for v in inner.inputs if v in varying and not _is_there(loop, v)]
    weight = sum(v.aval.nbytes for v in fresh)
    if weight > 8 * sum(e.outputs[0].aval.nbytes for e in moved if e.outputs[0] in found):
        return
    whole, _ = batch(inner, [v in varying for v in inner.inputs], loop.length, [True] * len(results))
    distinct = set(whole.outputs) & {v for e in whole.eqns for v in e.outputs}
    if whole.captured or len(distinct) < len(results):
        return
    loop.ys = [(a, v) for a, v in loop.ys if a not in follow]
    eqns, atoms = spliced(whole, [_whole(loop, v) for v in inner.inputs])
    after += _named(eqns, atoms, [v for _, v in results])
    outputs = [*(c[2] for c in loop.carries), *(a for a, _ in loop.ys)]
    loop.eqns = ancestors(loop.eqns, outputs)


def _subgraph(loop: Loop, moved: Sequence[Eqn], outputs: Sequence[Atom]) -> Graph:
    """``moved`` with the views that lead to it, on values of the body (its consts and slices among them)."""
    made = {v: e for e in loop.eqns for v in e.outputs}
    inside = set(moved)
    todo = [a for e in moved for a in e.inputs]
    while todo:
        atom = todo.pop()
        source = made.get(atom) if isinstance(atom, Var) else None
        if source is not None and source not in inside and is_view(source):
            inside.add(source)
            todo += source.inputs
    eqns = tuple(e for e in loop.eqns if e in inside)
    within = {v for e in eqns for v in e.outputs}
    read = [a for e in eqns for a in e.inputs if isinstance(a, Var) and a not in within]
    return Graph(tuple(dict.fromkeys(read)), eqns, tuple(outputs), (), loop.eqn.params["body"].name)


def _is_there(loop: Loop, value: Var) -> bool:
    """Whether all steps' values are stacked already."""
    return any(v is value for _, v in loop.xs) or any(a is value for a, _ in loop.ys)


def _whole(loop: Loop, value: Var) -> Atom:
    """A value of the body outside: a const itself, else the stack of all steps."""
    for operand, inner in (*loop.consts, *loop.xs):
        if inner is value:
            return operand
    return loop.stack_of(value)


def _named(eqns: list[Eqn], atoms: Sequence[Atom], results: Sequence[Var]) -> list[Eqn]:
    """``eqns``, the values ``atoms`` of which are called ``results``."""
    names = dict(zip(atoms, results, strict=True))
    swap = lambda a: names.get(a, a) if isinstance(a, Var) else a  # noqa: E731
    return [
        replace(e, inputs=tuple(map(swap, e.inputs)), outputs=tuple(names.get(v, v) for v in e.outputs))
        for e in eqns
    ]


# --- sums -------------------------------------------------------------------------------------------------------------


def _sums(loop: Loop, after: list[Eqn], zero: set[Var], products: bool) -> None:
    """Carries that are only added to: their products, or (once those are stacked) their plain sums."""
    for carry in list(loop.carries):
        made = {v: e for e in loop.eqns for v in e.outputs}
        outputs = [*(c[2] for c in loop.carries), *(a for a, _ in loop.ys)]
        uses = counts(loop.eqns, outputs)
        init, inner, new, result = carry
        terms, adds = _terms(new, inner, made, uses)
        if terms.count(inner) != 1 or uses[inner] != 1 or inner.aval.dtype == np.bool_:
            continue  # of bools, + is "or", and sum counts
        varying = dependent(loop.eqns, {c[1] for c in loop.carries} | {v for _, v in loop.xs})
        totals: list[tuple[list[Eqn], Atom]] = []
        left: list[Atom] = []
        for term in terms:
            total = None if term is inner else _total(loop, term, made, uses, varying, products)
            if total is None:
                left.append(term)
            else:
                totals.append(total)
        if not totals:
            continue
        loop.carries.remove(carry)
        loop.eqns = [e for e in loop.eqns if e not in adds]
        start: Atom = init
        if len(left) > 1:  # some of it stays in the loop
            rest, start = left[0], Var(result.aval)
            for term in left[1:]:
                out = Var(inner.aval)
                loop.eqns.append(Eqn(add_p, (rest, term), (out,), {}, adds[0].source))
                rest = out
            loop.carries.append((init, inner, rest, start))
        after += _added(start, totals, zero, result, adds[0].source)
        outputs = [*(c[2] for c in loop.carries), *(a for a, _ in loop.ys)]
        loop.eqns = ancestors(loop.eqns, outputs)


def _added(
    start: Atom, totals: Sequence[tuple[list[Eqn], Atom]], zero: set[Var], result: Var, source: str
) -> list[Eqn]:
    """``result = start + totals...``; a start of zeros is none."""
    none = start in zero or (isinstance(start, Literal) and not start.value)
    found: list[Eqn] = []
    for i, (eqns, term) in enumerate(totals):
        out = result if i == len(totals) - 1 else Var(result.aval)
        if i == 0 and none and any(term in e.outputs for e in eqns):
            found += _named(eqns, [term], [out])
        else:
            found += [*eqns, Eqn(add_p, (start, term), (out,), {}, source)]
        start = out
    return found


def _terms(
    atom: Atom, carry: Var, made: dict[Var, Eqn], uses: dict[Var, int]
) -> tuple[list[Atom], list[Eqn]]:
    """The terms of a sum in which no partial sum is read twice, and its additions."""
    terms: list[Atom] = []
    adds: list[Eqn] = []
    todo = [atom]
    while todo:
        term = todo.pop()
        eqn = made.get(term) if isinstance(term, Var) else None
        whole = eqn is not None and all(a.aval.shape == carry.aval.shape for a in eqn.inputs)
        if eqn is None or not whole or eqn.prim is not add_p or uses[eqn.outputs[0]] != 1:
            terms.append(term)
        else:
            adds.append(eqn)
            todo += eqn.inputs[::-1]
    return terms, adds


def _total(
    loop: Loop, term: Atom, made: dict[Var, Eqn], uses: dict[Var, int], varying: set[Var], products: bool
) -> tuple[list[Eqn], Atom] | None:
    """The sum of ``term`` over all steps, after the loop; None where it is better summed in the loop."""
    chain: list[Eqn] = []  # linear ops between the term and what is summed; outermost first
    atom = term
    while (eqn := made.get(atom) if isinstance(atom, Var) else None) is not None:
        if uses[atom] != 1 or not (is_view(eqn) or eqn.prim.name == "neg"):  # type: ignore[index]
            break
        chain.append(eqn)
        atom = eqn.inputs[0]
    if isinstance(atom, Literal) or atom not in varying:
        return None
    chain.reverse()
    if products:
        if eqn is None or eqn.prim is not matmul_p or uses[atom] != 1:
            return None
        if not all(a in varying for a in eqn.inputs):
            return None
        inner = _subgraph(loop, [eqn], [])
        inner = replace(inner, eqns=tuple(e for e in inner.eqns if e is not eqn), outputs=eqn.inputs)
        return _after(loop, inner, _merged_product, chain)
    axes: tuple[int, ...] = ()
    if eqn is not None and eqn.prim is reduce_sum_p:
        axes, atom = eqn.params["axes"], eqn.inputs[0]
    inner = _sources(loop, made, atom)
    if not inner.inputs or not all(_is_there(loop, v) for v in inner.inputs if v in varying):
        return None

    def total(stack: Any) -> Any:
        return reduce_sum_p(stack, axes=(0, *(a + 1 for a in axes)))

    return _after(loop, inner, total, chain)


def _sources(loop: Loop, made: dict[Var, Eqn], atom: Atom) -> Graph:
    """``atom`` as views of values that may be stacked."""
    source = made.get(atom) if isinstance(atom, Var) else None
    if source is not None and is_view(source):
        return _subgraph(loop, [source], [atom])
    return Graph((atom,) if isinstance(atom, Var) else (), (), (atom,), (), loop.eqn.params["body"].name)


def _after(
    loop: Loop, inner: Graph, total: Callable[..., Any], chain: Sequence[Eqn]
) -> tuple[list[Eqn], Atom] | None:
    """``chain(total(stacked outputs of inner))`` outside the loop."""
    fixed = {v for _, v in loop.consts}
    whole, _ = batch(inner, [v not in fixed for v in inner.inputs], loop.length, [True] * len(inner.outputs))

    def gathered(*args: Any) -> list[Any]:
        value = total(*inline(whole, args))
        for eqn in chain:
            value = eqn.prim(value, **eqn.params)
        return [value]

    if whole.captured:
        return None
    graph = trace(gathered, [v.aval for v in whole.inputs], name=inner.name)
    eqns, [atom] = spliced(graph, [_whole(loop, v) for v in inner.inputs])
    return [replace(e, source=loop.eqn.source) for e in eqns], atom


def _merged_product(a: Any, b: Any) -> Any:
    """``sum_t a_t @ b_t`` as one product: steps and inner axis are one axis. ``a[T,...,m,k]``, ``b[T,...,k,n]``."""
    rows = swapaxes(a, -1, -2)  # where a_t is a transpose, this is what it is a transpose of
    merged = [_steps_inside(rows), _steps_inside(b)]
    return matmul_p(swapaxes(merged[0], -1, -2), merged[1])


def _steps_inside(x: Any) -> Any:
    """``[T, ..., k, n]`` -> ``[..., T * k, n]``."""
    length, *batch_axes, k, n = shape_of(x)
    if batch_axes:
        x = moveaxis(x, 0, -3)
    return reshape_p(x, shape=(*batch_axes, length * k, n))
