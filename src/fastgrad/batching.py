"""Batching, graph -> graph: the same function of arrays that carry one more leading axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .core.aval import Aval
from .core.graph import Atom, Graph, Literal, Var
from .errors import UnsupportedError
from .ops.reduce import broadcast_to
from .trace import current, lift, trace


def vmap(graph: Graph, batched: Sequence[bool], size: int) -> Graph:
    """``graph`` with a leading axis of length ``size`` on each input that is ``batched``, and on every output.

    Each op's batch rule answers for itself; what does not depend on a batched input is computed once.
    """
    return batch(graph, batched, size, [True] * len(graph.outputs))[0]


def batch(
    graph: Graph, batched: Sequence[bool], size: int, wanted: Sequence[bool]
) -> tuple[Graph, tuple[bool, ...]]:
    """`vmap`, where an output need not carry the axis: ``wanted`` says which must. Returns too which of them do."""
    carries = {v for v, b in zip(graph.inputs, batched, strict=True) if b}

    def mapped(*args: Any) -> list[Any]:
        builder = current()
        assert builder is not None
        env: dict[Var, Any] = dict(zip(graph.inputs, args, strict=True))
        env.update({v: lift(builder, value) for v, value in graph.captured})

        def read(atom: Atom) -> Any:
            return atom if isinstance(atom, Literal) else env[atom]

        for eqn in graph.eqns:
            builder.source = eqn.source
            inputs = [read(a) for a in eqn.inputs]
            flags = tuple(isinstance(a, Var) and a in carries for a in eqn.inputs)
            if not any(flags):
                outputs = builder.emit(eqn.prim, inputs, eqn.params)
            elif eqn.prim.batch is None:
                raise UnsupportedError(f"{eqn.prim.name}: has no batch rule", at=eqn.source)
            elif len(eqn.outputs) == 1 and eqn.prim.pull is None:
                outputs = [eqn.prim.batch(inputs, flags, **eqn.params)]
                carries.update(eqn.outputs)
            else:
                outputs, carried = eqn.prim.batch(inputs, flags, **eqn.params)
                carries.update(v for v, c in zip(eqn.outputs, carried, strict=True) if c)
            env.update(zip(eqn.outputs, outputs, strict=True))
        builder.source = None
        return [
            broadcast_to(read(a), (size, *a.aval.shape)) if want and a not in carries else read(a)
            for a, want in zip(graph.outputs, wanted, strict=True)
        ]

    avals = [
        Aval((size, *v.aval.shape), v.aval.dtype, v.aval.weak) if b else v.aval
        for v, b in zip(graph.inputs, batched, strict=True)
    ]
    mapped_graph = trace(mapped, avals, name=f"vmap({graph.name})")
    flags = tuple(want or a in carries for a, want in zip(graph.outputs, wanted, strict=True))
    return mapped_graph, flags
