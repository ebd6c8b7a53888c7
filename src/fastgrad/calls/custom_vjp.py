"""`custom_vjp`: reverse mode by a rule of the user's own.

forward    y, residuals = fwd(x)
backward   x_ct = bwd(residuals, y_ct)
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
from ..errors import ArgumentError, DTypeError, UnsupportedError, user_line
from ..ops.operands import aval, shape_of
from ..ops.shaping import reduce_sum_p
from ..trace import close, current, inline, trace
from .call import apply, close_together, graph_avals, in_trace, reference
from .rule import CustomRule, Later, Taken, closed_over, fitting, flatten_like


@dataclass(frozen=True, eq=False)
class Rule:
    """The rule as graphs, both of them after ``n_consts`` inputs for what is closed over.

    ``fwd``: arguments -> outputs, residuals. ``bwd``: residuals, cotangents of the float outputs -> cotangents of the
    arguments ``given``.
    """

    fwd: Graph
    bwd: Graph
    n_consts: int
    given: tuple[int, ...]


# --- custom_vjp[graph,rule,n_consts,name] ---------------------------------------------------------------------------
# ``n_consts`` inputs come before the arguments; the last of them are those that the rule takes too.


def _parts(inputs: Sequence[Any], n_consts: int, rule: Rule) -> tuple[Sequence[Any], Sequence[Any]]:
    return inputs[n_consts - rule.n_consts : n_consts], inputs[n_consts:]


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
        raise closed_over("custom_vjp", name)
    known = rule.get() if isinstance(rule, Later) else rule
    consts, args = _parts(inputs, n_consts, known)
    n = len(graph.outputs)
    values = inline(known.fwd, [*consts, *args])

    def back(cts: Sequence[Any]) -> list[Any]:
        full = [
            zeros(a.aval) if ct is None else ct
            for ct, a in zip(cts, graph.outputs, strict=True)
            if autodiff.is_float(a)
        ]
        found: list[Any] = [None] * len(inputs)
        results = inline(known.bwd, [*consts, *values[n:], *full])
        for i, ct in zip(known.given, results, strict=True):
            found[n_consts + i] = ct
        return found

    return values[:n], back


def zeros(like: Aval) -> Any:
    """Zeros of this kind, in the trace under way if there is one."""
    return np.zeros(like.shape, like.dtype) if current() is None else autodiff.zeros(like)


def _push(
    inputs: Sequence[Any],
    tangents: Sequence[Any],
    *,
    graph: Graph,
    rule: Rule | Later[Rule],
    n_consts: int,
    name: str,
) -> tuple[list[Any], list[Any]]:
    """An error, but where ``fwd`` calls its own function: there it is forward over reverse that asks.

    Backward is linear in the cotangents, and its transpose is what the function does to tangents.
    """
    if any(t is not None for t in tangents[:n_consts]):
        raise closed_over("custom_vjp", name)
    if isinstance(rule, Later):
        return _transposed(inputs, tangents, graph, rule.get(), n_consts)
    builder = current()
    raise UnsupportedError(
        f"custom_vjp {name}: has no forward-mode derivative, its rule is for reverse mode alone",
        hint="fg.custom_jvp, whose rule serves both",
        at=builder.source if builder and builder.source else user_line(),
    )


def _transposed(
    inputs: Sequence[Any], tangents: Sequence[Any], graph: Graph, rule: Rule, n_consts: int
) -> tuple[list[Any], list[Any]]:
    """The outputs, and their tangents by the transpose of ``bwd``."""
    n = len(graph.outputs)
    consts, args = _parts(inputs, n_consts, rule)
    values = inline(rule.fwd, [*consts, *args])
    floats = [i for i, a in enumerate(graph.outputs) if autodiff.is_float(a)]
    moved = [k for k, i in enumerate(rule.given) if tangents[n_consts + i] is not None]
    out_tangents: list[Any] = [None] * n
    if moved:
        first = len(rule.bwd.inputs) - len(floats)
        linear = replace(rule.bwd, outputs=tuple(rule.bwd.outputs[k] for k in moved))
        transpose = autodiff.vjp(linear, range(first, len(rule.bwd.inputs)))
        origin = [zeros(graph.outputs[i].aval) for i in floats]
        given = [tangents[n_consts + rule.given[k]] for k in moved]
        results = inline(transpose, [*consts, *values[n:], *origin, *given])
        for i, tangent in zip(floats, results[len(moved) :], strict=True):
            out_tangents[i] = tangent
    return values[:n], out_tangents


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
    n = len(graph.outputs)
    made: Rule | Later[Rule]
    if isinstance(rule, Later):
        made = Later(lambda: _batched_rule(rule.get(), flags[n_consts - rule.get().n_consts :], size, n))
    else:
        made = _batched_rule(rule, flags[n_consts - rule.n_consts :], size, n)
    params = {"graph": closed, "rule": made, "n_consts": n_consts + len(values), "name": name}
    return apply(custom_vjp_p, [*values, *args], **params), carried


def _batched_rule(rule: Rule, batched: Sequence[bool], size: int, n_outputs: int) -> Rule:
    """The rule over batches; an argument that all examples share gets the sum of its cotangents."""
    n_residuals = len(rule.fwd.outputs) - n_outputs
    fwd, carried = batching.batch(rule.fwd, batched, size, [True] * n_outputs + [False] * n_residuals)
    floats = sum(autodiff.is_float(a) for a in rule.fwd.outputs[:n_outputs])
    flags = [*batched[: rule.n_consts], *carried[n_outputs:], *[True] * floats]
    every, _ = batching.batch(rule.bwd, flags, size, [True] * len(rule.bwd.outputs))

    def summed(*values: Any) -> list[Any]:
        cts = inline(every, values)
        return [
            ct if batched[rule.n_consts + i] else reduce_sum_p(ct, axes=(0,))
            for i, ct in zip(rule.given, cts, strict=True)
        ]

    bwd = trace(summed, [v.aval for v in every.inputs], name=every.name)
    return replace(rule, fwd=fwd, bwd=bwd)


def _vjp(ct: Any, out: Any, *inputs: Any, graph: Graph, n_consts: int, **params: Any) -> Sequence[Any]:
    """For tensors, which record one op at a time."""
    wanted = [i >= n_consts for i in range(len(inputs))]
    cts = [ct] if len(graph.outputs) == 1 else ct
    return _pull(inputs, wanted, graph=graph, n_consts=n_consts, **params)[1](cts)


custom_vjp_p = Primitive(
    "custom_vjp",
    abstract=graph_avals,
    reference=reference,
    vjp=_vjp,
    jvp=None,
    batch=_batch,
    kernel=Call(),
    pull=_pull,
    push=_push,
)


class custom_vjp(CustomRule):
    """A function whose reverse-mode derivative is given by hand: a decorator, completed by `defvjp`.

    Args: ``f``, function of nestings of arrays. ``nondiff_argnums``: positions of arguments that are no arrays, or have no
    derivative; the rule gets them first.
    The rule serves `grad`, `vjp`, `jacrev` and, as it is differentiated itself, forward over reverse (`hvp`, `hessian`);
    forward mode alone raises `UnsupportedError`. `vmap` batches function and rule. Outside of a trace it is ``f``.
    ``f``, ``fwd`` and ``bwd`` may close over traced values, but not be differentiated by them.

    >>> @custom_vjp
    ... def clip_gradient(x, limit):
    ...     return x
    >>> clip_gradient.defvjp(lambda x, limit: (x, limit), lambda limit, ct: (np.clip(ct, -limit, limit), None))
    >>> grad(lambda x: (clip_gradient(x, 0.1) * 3.0).sum())(np.ones(2))
    array([0.1, 0.1])
    """

    kind = "custom_vjp"
    fwd: Callable | None = None
    bwd: Callable | None = None

    def defvjp(self, fwd: Callable, bwd: Callable) -> None:
        """Give the rule.

        ``fwd(*args) -> (out, residuals)`` takes the arguments of the function; ``residuals`` is any nesting of arrays.
        ``bwd(*nondiff, residuals, ct) -> (ct_arg, ...)`` takes the nondiff arguments first; ``ct`` nests like the output
        (None for outputs that are no floats). It returns a tuple with one cotangent for each other argument, nested,
        shaped and typed like it; None is zero, and the only cotangent of integers.
        Raises when the function is called in a trace: `ArgumentError`, `ShapeError`, `DTypeError` that say which output
        of which rule does not fit.
        """
        self.fwd, self.bwd = fwd, bwd

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.fwd is None or self.bwd is None:
            raise ArgumentError(
                f"custom_vjp {self.name}: has no rule yet",
                hint=f"{self.name}.defvjp(fwd, bwd)",
                at=user_line(),
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
            (graph, fwd, bwd), consts = close_together([graph, rule.fwd, rule.bwd])
            rule = replace(rule, fwd=fwd, bwd=bwd, n_consts=len(consts))
        params = {"graph": graph, "rule": rule, "n_consts": len(consts), "name": self.name}
        return pytree.unflatten(tree[0], apply(custom_vjp_p, [*consts, *call.values], **params))

    def _rule(self, call: Taken, out_tree: Any, outputs: Sequence[Aval]) -> Rule:
        """The graphs of ``fwd`` and ``bwd`` at this call."""
        parts: dict[str, Any] = {}
        fwd = trace(self._flat_fwd(call, out_tree, outputs, parts), call.avals, name=f"fwd({self.name})")
        residuals = [a.aval for a in fwd.outputs[len(outputs) :]]
        floats = [a for a in outputs if a.dtype.kind == "f"]
        bwd = trace(
            self._flat_bwd(call, out_tree, outputs, parts), [*residuals, *floats], name=f"bwd({self.name})"
        )
        return Rule(fwd, bwd, 0, tuple(parts["given"]))

    def _flat_fwd(
        self, call: Taken, out_tree: Any, outputs: Sequence[Aval], parts: dict[str, Any]
    ) -> Callable:
        what = f"custom_vjp {self.name}: "

        def flat(*values: Any) -> list[Any]:
            assert self.fwd is not None
            result = self.fwd(*call.call_with(values))
            if not isinstance(result, tuple) or len(result) != 2:
                raise ArgumentError(f"{what}fwd must return (output, residuals)", at=user_line())
            outs = flatten_like(f"{what}the output of fwd", out_tree, result[0])
            outs = [
                fitting(f"{what}output {i} of fwd", a, v)
                for i, (a, v) in enumerate(zip(outputs, outs, strict=True))
            ]
            leaves, parts["residuals"] = pytree.flatten(result[1])
            parts["leaves"] = leaves
            parts["dynamic"] = [
                i for i, x in enumerate(leaves) if isinstance(x, Tracer | np.ndarray | np.generic)
            ]
            return [*outs, *(leaves[i] for i in parts["dynamic"])]

        return flat

    def _flat_bwd(
        self, call: Taken, out_tree: Any, outputs: Sequence[Aval], parts: dict[str, Any]
    ) -> Callable:
        n, names = len(parts["dynamic"]), call.names()
        what = f"custom_vjp {self.name}: "

        def flat(*values: Any) -> list[Any]:
            assert self.bwd is not None
            residuals = list(parts["leaves"])
            for i, value in zip(parts["dynamic"], values[:n], strict=True):
                residuals[i] = value
            ct = iter(values[n:])
            cts = [next(ct) if a.dtype.kind == "f" else None for a in outputs]
            result = self.bwd(
                *call.nondiff(),
                pytree.unflatten(parts["residuals"], residuals),
                pytree.unflatten(out_tree, cts),
            )
            if not isinstance(result, tuple | list) or len(result) != len(call.chosen):
                got = f"{len(result)} values" if isinstance(result, tuple | list) else type(result).__name__
                raise ArgumentError(
                    f"{what}bwd must return a tuple of {len(call.chosen)} cotangents, one for each argument, got {got}",
                    at=user_line(),
                )
            found = flatten_like(f"{what}what bwd returns", call.structure, tuple(result), holes=True)
            kept = [i for i in range(len(found)) if found[i] is not None]
            for i in kept:
                found[i] = _cotangent(
                    f"{what}the cotangent of argument {names[i]} from bwd", call.leaves[i], found[i]
                )
            parts["given"] = [call.traced.index(i) for i in kept if i in call.traced]
            return [found[i] for i in kept if i in call.traced]

        return flat


def _cotangent(what: str, primal: Any, ct: Any) -> Any:
    want = aval(primal)
    if want.dtype.kind != "f":
        raise DTypeError(f"{what} must be None, as that is {want}", at=user_line())
    return fitting(what, want, ct)
