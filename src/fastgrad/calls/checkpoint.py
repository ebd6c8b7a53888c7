"""`checkpoint`: memory for time. Backward computes values again that forward would have kept.

forward    y = f(x)
backward   x' = barrier(x) after ct       then f'(x') and its pullback
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from .. import autodiff, batching, pytree
from ..core.graph import Graph, Tracer
from ..core.loops import Call
from ..core.primitive import Primitive
from ..errors import ArgumentError, user_line
from ..ops.barrier import barrier
from ..ops.operands import aval
from ..trace import close, inline, trace
from .call import apply, graph_avals, in_trace, reference

POLICIES = ("nothing", "products", "everything")
PRODUCTS = frozenset({"matmul"})
"""Ops whose results the policy "products" keeps: the ones that cost most to compute again."""

# --- checkpoint[graph,policy] ---------------------------------------------------------------------------------------


def _kept(graph: Graph, policy: str) -> list[Any]:
    if policy != "products":
        return []
    return [v for eqn in graph.eqns if eqn.prim.name in PRODUCTS for v in eqn.outputs]


def _pull(
    inputs: Sequence[Any], wanted: Sequence[bool], *, graph: Graph, policy: str
) -> tuple[list[Any], Any]:
    if policy == "everything":
        return autodiff.pull(graph, inputs, wanted)
    kept = _kept(graph, policy)
    n, count = len(graph.outputs), len(inputs)
    values = inline(replace(graph, outputs=(*graph.outputs, *kept)), inputs)

    def back(cts: Sequence[Any]) -> Sequence[Any]:
        again = barrier([*inputs, *values[n:]], [ct for ct in cts if ct is not None])
        known = dict(zip(kept, again[count:], strict=True))
        return autodiff.pull(graph, again[:count], wanted, known)[1](cts)

    return values[:n], back


def _push(inputs: Sequence[Any], tangents: Sequence[Any], *, graph: Graph, policy: str) -> tuple[list, list]:
    n = len(graph.outputs)
    pushed, moved = autodiff.push(graph, [t is not None for t in tangents], [False] * n)
    closed, values = close(pushed)
    given = [*values, *inputs, *(t for t in tangents if t is not None)]
    outputs = apply(checkpoint_p, given, graph=closed, policy=policy)
    rest = iter(outputs[n:])
    return outputs[:n], [next(rest) if m else None for m in moved]


def _batch(
    args: Sequence[Any], batched: Sequence[bool], *, graph: Graph, policy: str
) -> tuple[list, Sequence[bool]]:
    size = next(aval(a).shape[0] for a, b in zip(args, batched, strict=True) if b)
    mapped, carried = batching.batch(graph, batched, size, [False] * len(graph.outputs))
    closed, values = close(mapped)
    return apply(checkpoint_p, [*values, *args], graph=closed, policy=policy), carried


checkpoint_p = Primitive(
    "checkpoint",
    abstract=graph_avals,
    reference=reference,
    vjp=None,
    jvp=None,
    batch=_batch,
    kernel=Call(),
    pull=_pull,
    push=_push,
)


def checkpoint(f: Callable | None = None, policy: str = "nothing") -> Callable:
    """``f``, whose inner values are computed again in the backward pass instead of being kept until then.

    Values and gradients stay the same; memory falls, and the backward pass grows by one more forward pass of ``f`` (or a
    part of it). Wrap the layers of a deep network, each on its own, and only their inputs live from forward to backward.

    Args:
        f: function of nestings of arrays. Traced values that it closes over are differentiated too.
        policy: what is kept all the same: "nothing" (the inputs alone), "products" (the results of matrix products, which
            cost most to compute again), "everything" (no recomputation at all).
    Returns: a function with the arguments of ``f``, to be used as a decorator too: ``@checkpoint(policy="products")``.
        Outside of `grad`, `vjp` and their kin it is ``f``.
    Raises: `ArgumentError` for another policy.

    Source: Griewank & Walther 2000, *Algorithm 799: revolve*; Chen et al. 2016, *Training deep nets with sublinear memory
    cost*.

    >>> layer = checkpoint(lambda w, x: np.tanh(x @ w))
    >>> grad(lambda w: layer(w, np.ones((1, 2))).sum())(np.zeros((2, 2)))
    array([[1., 1.],
           [1., 1.]])
    """
    if policy not in POLICIES:
        raise ArgumentError(
            f"checkpoint: unknown policy {policy!r}",
            hint=f"one of {', '.join(map(repr, POLICIES))}",
            at=user_line(),
        )
    if f is None:
        return functools.partial(checkpoint, policy=policy)
    if not callable(f):
        raise ArgumentError(f"checkpoint: expected a function, got {type(f).__name__}", at=user_line())

    @functools.wraps(f)
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = pytree.flatten((args, kwargs))
        if not in_trace(leaves):
            return f(*args, **kwargs)
        traced = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tracer)]
        tree: list[Any] = []

        def flat(*values: Any) -> list[Any]:
            new = list(leaves)
            for i, value in zip(traced, values, strict=True):
                new[i] = value
            positional, named = pytree.unflatten(structure, new)
            outputs, nesting = pytree.flatten(f(*positional, **named))
            tree.append(nesting)
            return outputs

        graph = trace(flat, [leaves[i].aval for i in traced], name=getattr(f, "__name__", "f"))
        closed, values = close(graph)
        outputs = apply(checkpoint_p, [*values, *(leaves[i] for i in traced)], graph=closed, policy=policy)
        return pytree.unflatten(tree[0], outputs)

    return checkpointed
