"""What every call shares: the shape rule and the NumPy reference of a graph, and how one is emitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..core.aval import Aval
from ..core.graph import Graph, Literal, Tracer, Var, verify
from ..core.primitive import Primitive
from ..trace import current


def graph_avals(*avals: Aval, graph: Graph, **params: Any) -> tuple[Aval, ...]:
    """The avals of the graph's outputs."""
    return tuple(a.aval for a in graph.outputs)


def reference(*arrays: Any, graph: Graph, **params: Any) -> Any:
    """The graph on arrays, each equation by its reference."""
    env: dict[Var, Any] = dict(zip(graph.inputs, arrays, strict=True))

    def read(atom: Any) -> Any:
        return atom.value if isinstance(atom, Literal) else env[atom]

    for eqn in graph.eqns:
        out = eqn.prim.reference(*map(read, eqn.inputs), **eqn.params)
        env.update(zip(eqn.outputs, out if len(eqn.outputs) > 1 else (out,), strict=True))
    outputs = tuple(map(read, graph.outputs))
    return outputs if len(outputs) > 1 else outputs[0]


def apply(prim: Primitive, args: Sequence[Any], **params: Any) -> list[Any]:
    """The outputs of a call of ``prim``, always as a list."""
    count = len(params["graph"].outputs)
    if not count:
        return []
    out = prim(*args, **params)
    return list(out) if count > 1 else [out]


def close_together(graphs: Sequence[Graph]) -> tuple[list[Graph], list[Any]]:
    """``graphs`` with all that any of them closes over as the first inputs of each, and those values."""
    values = {id(value): value for graph in graphs for _, value in graph.captured}
    closed = []
    for graph in graphs:
        mine = {id(value): var for var, value in graph.captured}
        first = tuple(mine.get(key) or Var(_aval(value)) for key, value in values.items())
        made = replace(graph, inputs=(*first, *graph.inputs), captured=())
        closed.append(verify(made, typed=graph.eqns))
    return closed, list(values.values())


def _aval(value: Any) -> Aval:
    return value.aval if isinstance(value, Tracer) else Aval(value.shape, value.dtype)


def in_trace(leaves: Sequence[Any]) -> bool:
    """Whether a call on ``leaves`` becomes part of a graph: a trace is under way, or one is built by hand."""
    return current() is not None or any(isinstance(x, Tracer) and x.builder.level >= 0 for x in leaves)
