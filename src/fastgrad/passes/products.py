"""Products with slices of xs are one product, before the loop.

    scan: z_t = x_t @ W + h @ U    ->    Z = X @ W  (all T * B rows at once);   scan: z_t = Z_t + h @ U

Moved are matrix products of something computed from xs and consts with something computed from consts, and what leads
to them, all by the batch rules of their ops. One GEMM of many rows runs at the machine's rate where T of few do not
(cuDNN's recurrent layers do the same: Appleyard, Kociský, Blunsom 2016).
"""

from __future__ import annotations

from ..batching import batch
from ..core.graph import Eqn, Graph, Var
from ..core.loops import Region
from .loops import Loop, dependent
from .rewrite import ancestors, spliced, substitute


def products(graph: Graph) -> Graph:
    """Move the products of every scan of ``graph``."""
    return substitute(graph, lambda eqn: _hoist(eqn) if eqn.prim.name == "scan" else eqn)


def _hoist(eqn: Eqn) -> Eqn | list[Eqn]:
    loop = Loop.of(eqn)
    if (
        loop.length < 2 or "every" in eqn.params
    ):  # a loop whose memory the user limits: nothing of all steps at once
        return eqn
    stepwise = dependent(loop.eqns, {c[1] for c in loop.carries})
    sliced = dependent(loop.eqns, {v for _, v in loop.xs})
    found = [e for e in loop.eqns if _is_product(e, stepwise, sliced)]
    moved = ancestors(loop.eqns, [v for e in found for v in e.outputs])
    if not found or any(isinstance(e.prim.kernel, Region) for e in moved):
        return eqn
    rest = [e for e in loop.eqns if e not in found]
    outputs = [*(c[2] for c in loop.carries), *(a for a, _ in loop.ys)]
    rest = ancestors(rest, outputs)
    read = {a for e in rest for a in e.inputs} | set(outputs)
    results = [e.outputs[0] for e in found if e.outputs[0] in read]
    inputs = (*(v for _, v in loop.consts), *(v for _, v in loop.xs))
    inner = Graph(inputs, tuple(moved), tuple(results), (), loop.eqn.params["body"].name)
    flags = [False] * len(loop.consts) + [True] * len(loop.xs)
    whole, _ = batch(inner, flags, loop.length, [True] * len(results))
    if whole.captured:
        return eqn
    eqns, atoms = spliced(whole, [*(a for a, _ in loop.consts), *(a for a, _ in loop.xs)])
    loop.eqns = rest
    loop.xs += list(zip(atoms, results, strict=True))
    return [*eqns, loop.equation()]


def _is_product(eqn: Eqn, stepwise: set[Var], sliced: set[Var]) -> bool:
    """A slice's matrix times a const one, or the other way round; nothing of the carry in it."""
    if eqn.prim.name != "matmul" or any(a in stepwise for a in eqn.inputs):
        return False
    return sum(a in sliced for a in eqn.inputs) == 1
