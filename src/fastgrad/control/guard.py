"""Branches and bodies that run for elements which did not choose them: their indices must not raise.

Under `vmap` a branch runs for every element and a select chooses afterwards, and the body of a while loop runs on for
elements that are done. ``x[i]`` behind ``i < n`` would then be asked for an ``i`` that nobody wants:

    take x i                 ->     take x where(alive, i, 0)        the result is thrown away where not alive

0 is an index of every axis that can be indexed at all. What is batched afterwards keeps its errors for those alive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.aval import Aval
from ..core.graph import Eqn, Graph, Literal, Var, subgraphs
from ..ops.comparison import where
from ..ops.index import INDEX_OPERAND
from ..passes.loops import dependent
from ..trace import current
from .bodies import closed

_FLAG = Aval((), np.dtype(np.bool_))


def may_be_refused(graph: Graph) -> bool:
    """Whether something in ``graph`` takes an index that is known only when it runs."""
    return any(
        (eqn.prim.name in INDEX_OPERAND and not isinstance(eqn.inputs[INDEX_OPERAND[eqn.prim.name]], Literal))
        or any(map(may_be_refused, subgraphs(eqn)))
        for eqn in graph.eqns
    )


def guarded(graph: Graph, batched: Sequence[bool]) -> Graph:
    """``graph``, closed, after two more inputs, bool scalars: whether this element is ``alive``, and whether any is.

    What does not depend on an input that is ``batched`` looks at the second, and so stays one for all elements.
    """
    varying = dependent(graph.eqns, {v for v, b in zip(graph.inputs, batched, strict=True) if b})

    def run(alive: Any, some: Any, *args: Any) -> list[Any]:
        return _replayed(graph, args, lambda eqn: alive if any(a in varying for a in eqn.inputs) else some)

    return closed(run, [_FLAG, _FLAG, *(v.aval for v in graph.inputs)], graph.name)[0]


def _replayed(graph: Graph, args: Sequence[Any], flag: Callable[[Eqn], Any]) -> list[Any]:
    """The outputs of ``graph`` in the trace under way, every index in it good where ``flag`` is false."""
    builder = current()
    assert builder is not None and not graph.captured
    env: dict[Var, Any] = dict(zip(graph.inputs, args, strict=True))

    def read(atom: Any) -> Any:
        return atom if isinstance(atom, Literal) else env[atom]

    for eqn in graph.eqns:
        builder.source = eqn.source
        inputs, params = [read(a) for a in eqn.inputs], eqn.params
        at = INDEX_OPERAND.get(eqn.prim.name)
        if at is not None and not isinstance(inputs[at], Literal):
            inputs[at] = where(flag(eqn), inputs[at], 0)
        elif any(map(may_be_refused, subgraphs(eqn))):
            inputs, params = _inside(eqn, inputs, flag(eqn))
        env.update(zip(eqn.outputs, builder.emit(eqn.prim, inputs, params), strict=True))
    builder.source = None
    return [read(a) for a in graph.outputs]


def _inside(eqn: Eqn, inputs: list[Any], flag: Any) -> tuple[list[Any], dict[str, Any]]:
    """Operands and parameters of an equation all of whose graphs take ``flag`` first."""
    params = dict(eqn.params)
    if eqn.prim.name == "switch":
        params["branches"] = tuple(map(_flagged, params["branches"]))
        return [inputs[0], flag, *inputs[1:]], params
    if eqn.prim.name == "while":
        a = params["cond_consts"]
        params |= {"cond": _flagged(params["cond"]), "body": _flagged(params["body"])}
        params |= {"cond_consts": a + 1, "body_consts": params["body_consts"] + 1}
        return [flag, *inputs[:a], flag, *inputs[a:]], params
    # A scan or a call: what its graph closes over comes first (a custom rule takes the last of that, and knows no flag).
    name, count = ("body", "consts") if eqn.prim.name == "scan" else ("graph", "n_consts")
    params[name] = _flagged(params[name])
    if count in params:
        params[count] += 1
    return [flag, *inputs], params


def _flagged(graph: Graph) -> Graph:
    def run(flag: Any, *args: Any) -> list[Any]:
        return _replayed(graph, args, lambda eqn: flag)

    return closed(run, [_FLAG, *(v.aval for v in graph.inputs)], graph.name)[0]
