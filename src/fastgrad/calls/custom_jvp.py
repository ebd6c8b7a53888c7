"""`custom_jvp`: both modes by a rule for tangents.

forward mode    y, y_t = rule(x, x_t)
reverse mode    x_ct = (d y_t / d x_t)^T y_ct: the rule is linear in x_t, so its transpose is its VJP by x_t, at x_t = 0
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import autodiff, batching, pytree
from ..core.aval import Aval
from ..core.graph import Graph, Tracer
from ..core.loops import Call
from ..core.primitive import Primitive
from ..errors import ArgumentError, DTypeError, user_line
from ..ops.operands import aval, shape_of
from ..trace import close, inline, trace
from .call import apply, close_together, graph_avals, in_trace, reference
from .custom_vjp import zeros
from .rule import CustomRule, Later, Taken, closed_over, fitting, flatten_like


@dataclass(frozen=True, eq=False)
class Rule:
    """The rule as a graph, after ``n_consts`` inputs for what is closed over.

    ``graph``: arguments, tangents of the arguments ``moved`` -> outputs, tangents of the outputs ``given``.
    """

    graph: Graph
    n_consts: int
    moved: tuple[int, ...]
    given: tuple[int, ...]


# --- custom_jvp[graph,rule,n_consts,name] ---------------------------------------------------------------------------


def _known(rule: Rule | Later[Rule]) -> Rule:
    return rule.get() if isinstance(rule, Later) else rule


def _inputs(inputs: Sequence[Any], n_consts: int, rule: Rule) -> list[Any]:
    """What the rule takes before the tangents."""
    return list(inputs[n_consts - rule.n_consts :])


def _push(
    inputs: Sequence[Any],
    tangents: Sequence[Any],
    *,
    graph: Graph,
    rule: Rule | Later[Rule],
    n_consts: int,
    name: str,
) -> tuple[list[Any], list[Any]]:
    if any(t is not None for t in tangents[:n_consts]):
        raise closed_over("custom_jvp", name)
    known = _known(rule)
    given = [
        zeros(_aval(inputs[n_consts + i])) if (t := tangents[n_consts + i]) is None else t
        for i in known.moved
    ]
    n = len(graph.outputs)
    values = inline(known.graph, [*_inputs(inputs, n_consts, known), *given])
    out_tangents: list[Any] = [None] * n
    for i, tangent in zip(known.given, values[n:], strict=True):
        out_tangents[i] = tangent
    return values[:n], out_tangents


def _aval(value: Any) -> Aval:
    return Aval(aval(value).shape, aval(value).dtype)


def _pull(
    inputs: Sequence[Any],
    wanted: Sequence[bool],
    *,
    graph: Graph,
    rule: Rule | Later[Rule],
    n_consts: int,
    name: str,
) -> tuple[list[Any], Any]:
    if any(wanted[:n_consts]):
        raise closed_over("custom_jvp", name)
    known = _known(rule)
    n = len(graph.outputs)
    args = _inputs(inputs, n_consts, known)
    args += [zeros(_aval(inputs[n_consts + i])) for i in known.moved]
    values = inline(replace(known.graph, outputs=known.graph.outputs[:n]), args)

    def back(cts: Sequence[Any]) -> list[Any]:
        of = [k for k, i in enumerate(known.given) if cts[i] is not None]
        first = len(args) - len(known.moved)
        wrt = [first + k for k, i in enumerate(known.moved) if wanted[n_consts + i]]
        found: list[Any] = [None] * len(inputs)
        if not of or not wrt:
            return found
        linear = replace(known.graph, outputs=tuple(known.graph.outputs[n + k] for k in of))
        transposed = autodiff.vjp(linear, wrt)
        results = inline(transposed, [*args, *(cts[known.given[k]] for k in of)])
        for k, ct in zip(wrt, results[len(of) :], strict=True):
            found[n_consts + known.moved[k - first]] = ct
        return found

    return values, back


def _vjp(ct: Any, out: Any, *inputs: Any, graph: Graph, n_consts: int, **params: Any) -> Sequence[Any]:
    """For tensors, which record one op at a time."""
    wanted = [i >= n_consts for i in range(len(inputs))]
    cts = [ct] if len(graph.outputs) == 1 else ct
    return _pull(inputs, wanted, graph=graph, n_consts=n_consts, **params)[1](cts)


def _batch(
    args: Sequence[Any],
    batched: Sequence[bool],
    *,
    graph: Graph,
    rule: Rule | Later[Rule],
    n_consts: int,
    name: str,
) -> tuple[list[Any], Sequence[bool]]:
    size = next(shape_of(a)[0] for a, b in zip(args, batched, strict=True) if b)
    mapped, carried = batching.batch(graph, batched, size, [True] * len(graph.outputs))
    closed, values = close(mapped)
    flags = tuple(batched)

    def batched_rule(known: Rule) -> Rule:
        mine = flags[n_consts - known.n_consts :]
        moved = [flags[n_consts + i] for i in known.moved]
        every, _ = batching.batch(known.graph, [*mine, *moved], size, [True] * len(known.graph.outputs))
        return replace(known, graph=every)

    made = Later(lambda: batched_rule(rule.get())) if isinstance(rule, Later) else batched_rule(rule)
    params = {"graph": closed, "rule": made, "n_consts": n_consts + len(values), "name": name}
    return apply(custom_jvp_p, [*values, *args], **params), carried


custom_jvp_p = Primitive(
    "custom_jvp",
    abstract=graph_avals,
    reference=reference,
    vjp=_vjp,
    jvp=None,
    batch=_batch,
    kernel=Call(),
    pull=_pull,
    push=_push,
)


class custom_jvp(CustomRule):
    """A function whose derivative is given by hand, for both modes: a decorator, completed by `defjvp` or `defjvps`.

    Args: ``f``, function of nestings of arrays. ``nondiff_argnums``: positions of arguments that are no arrays, or have no
    derivative; the rule gets them first.
    Reverse mode transposes the rule, which must be linear in the tangents: its VJP by the tangents, taken where they are
    zero. `vmap` batches function and rule; a second derivative differentiates the rule. Outside of a trace it is ``f``.
    Function and rule may close over traced values, but not be differentiated by them.

    >>> @custom_jvp
    ... def softplus(x):
    ...     return np.log(1 + np.exp(x))
    >>> softplus.defjvps(lambda t, out, x: t / (1 + np.exp(-x)))
    >>> grad(softplus)(0.0)
    array(0.5)
    """

    kind = "custom_jvp"
    jvp: Callable | None = None

    def defjvp(self, jvp: Callable) -> Callable:
        """Give the rule, ``jvp(*nondiff, primals, tangents) -> (out, tangent_out)``; may be used as a decorator.

        ``primals`` and ``tangents`` are tuples with an entry for each argument but the nondiff ones (None as the tangent of
        what is no float); ``tangent_out`` nests, and is shaped and typed, like the output; None is zero.
        Raises when the function is called in a trace: `ArgumentError`, `ShapeError`, `DTypeError` that say which output
        does not fit.
        """
        self.jvp = jvp
        return jvp

    def defjvps(self, *jvps: Callable | None) -> None:
        """Give the rule as one function for each argument: ``jvp(t, out, *primals)``, or None where it is zero."""
        if self.nondiff_argnums:
            raise ArgumentError(
                f"custom_jvp {self.name}: defjvps takes no nondiff_argnums", hint="defjvp", at=user_line()
            )

        def jvp(primals: tuple, tangents: tuple) -> tuple:
            if len(jvps) != len(primals):
                raise ArgumentError(
                    f"custom_jvp {self.name}: defjvps has {len(jvps)} rules for {len(primals)} arguments",
                    at=user_line(),
                )
            out = self(*primals)
            total: list[Any] | None = None
            for rule, tangent in zip(jvps, tangents, strict=True):
                if rule is not None and tangent is not None:
                    mine = pytree.flatten(rule(tangent, out, *primals))[0]
                    total = mine if total is None else [a + b for a, b in zip(total, mine, strict=True)]
            return out, None if total is None else pytree.unflatten(pytree.flatten(out)[1], total)

        self.jvp = jvp

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.jvp is None:
            raise ArgumentError(
                f"custom_jvp {self.name}: has no rule yet", hint=f"{self.name}.defjvp(jvp)", at=user_line()
            )
        call = self.take(args, kwargs)
        if not call.traced and not in_trace(call.leaves):
            return self.f(*args, **kwargs)
        tree: list[Any] = []

        def flat(*values: Any) -> list[Any]:
            outputs, nesting = pytree.flatten(self.f(*call.call_with(values)))
            tree.append(nesting)
            return outputs

        graph = trace(flat, call.avals, name=self.name)
        outputs = [a.aval for a in graph.outputs]
        rule = self.rule_now_or_later(lambda: self._rule(call, tree[0], outputs))
        if isinstance(rule, Later):
            graph, consts = close(graph)
        else:
            (graph, of_rule), consts = close_together([graph, rule.graph])
            rule = replace(rule, graph=of_rule, n_consts=len(consts))
        params = {"graph": graph, "rule": rule, "n_consts": len(consts), "name": self.name}
        return pytree.unflatten(tree[0], apply(custom_jvp_p, [*consts, *call.values], **params))

    def _rule(self, call: Taken, out_tree: Any, outputs: Sequence[Aval]) -> Rule:
        """The graph of the rule at this call."""
        what = f"custom_jvp {self.name}: "
        n = len(call.traced)
        moved = tuple(k for k, a in enumerate(call.avals) if a.dtype.kind == "f")
        given: list[int] = []

        def flat(*values: Any) -> list[Any]:
            assert self.jvp is not None
            leaf_tangents = [None if isinstance(leaf, Tracer) else _no_motion(leaf) for leaf in call.leaves]
            for k, tangent in zip(moved, values[n:], strict=True):
                leaf_tangents[call.traced[k]] = tangent
            tangents = tuple(pytree.unflatten(call.structure, leaf_tangents))
            result = self.jvp(*call.nondiff(), call.nest(values[:n]), tangents)
            if not isinstance(result, tuple) or len(result) != 2:
                raise ArgumentError(
                    f"{what}the rule must return (output, tangent of the output)", at=user_line()
                )
            outs = flatten_like(f"{what}the rule's output", out_tree, result[0])
            found = flatten_like(f"{what}the rule's tangent", out_tree, result[1], holes=True)
            pairs = enumerate(zip(outputs, outs, strict=True))
            outs = [fitting(f"{what}output {i} of the rule", a, v) for i, (a, v) in pairs]
            given[:] = [i for i, t in enumerate(found) if t is not None]
            for i in given:
                if outputs[i].dtype.kind != "f":
                    raise DTypeError(
                        f"{what}tangent {i} of the rule must be None, as output {i} is {outputs[i]}",
                        at=user_line(),
                    )
            return [*outs, *(fitting(f"{what}tangent {i} of the rule", outputs[i], found[i]) for i in given)]

        avals = [*call.avals, *(Aval(call.avals[k].shape, call.avals[k].dtype) for k in moved)]
        graph = trace(flat, avals, name=f"jvp({self.name})")
        return Rule(graph, 0, moved, tuple(given))


def _no_motion(leaf: Any) -> Any:
    """The tangent of an argument that is a constant here: zero, None where it is no float."""
    if isinstance(leaf, float):
        return 0.0
    floats = isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind == "f"
    return np.zeros(leaf.shape, leaf.dtype) if floats else None
