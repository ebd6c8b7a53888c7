"""Tracing: a Python function runs once on handles that record every op -> `Graph`.

`trace` runs the function on `Array`s; `inline` replays a graph into the trace at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from .array import Array
from .core.aval import Aval, check_dtype
from .core.graph import Atom, Builder, Graph, Literal, Var, current, under_way, verify
from .errors import TraceError
from .views import handle

__all__ = ["Array", "close", "current", "inline", "lift", "own", "trace"]


def trace(fn: Callable[..., Sequence[Any]], avals: Sequence[Aval], name: str | None = None) -> Graph:
    """Run ``fn`` once on traced arrays of ``avals``; it returns a flat sequence of traced arrays, arrays and numbers.

    Arrays that ``fn`` closes over, tracers of an outer trace among them, become captured inputs; numbers literals.
    """
    outer = under_way.get()
    level = 0 if outer is None else outer.level + 1
    builder = Builder(Array, level, name or str(getattr(fn, "__name__", "f")))
    token = under_way.set(builder)
    try:
        for aval in avals:
            check_dtype(aval.dtype)
        outputs = fn(*[builder.input(aval) for aval in avals])
        return verify(builder.build(outputs), typed=builder.eqns)
    except ValueError as error:
        if isinstance(error.__cause__, TraceError):  # NumPy's "setting an array element with a sequence"
            raise error.__cause__ from None
        raise
    finally:
        builder.closed = True
        under_way.reset(token)


def close(graph: Graph) -> tuple[Graph, list[Any]]:
    """``graph`` with what it closes over as its first inputs, and those values: a graph that can be a parameter."""
    variables = tuple(v for v, _ in graph.captured)
    closed = replace(graph, inputs=(*variables, *graph.inputs), captured=())
    return verify(closed, typed=graph.eqns), [value for _, value in graph.captured]


def inline(graph: Graph, args: Sequence[Any]) -> list[Any]:
    """The outputs of ``graph`` on ``args``: its equations join the trace under way, each keeping its source line.

    Outside a trace the equations are computed by their references, one after the other.
    """
    builder = under_way.get()
    env: dict[Var, Any] = {v: lift(builder, value) for v, value in graph.captured}
    env.update(zip(graph.inputs, args, strict=True))

    def read(atom: Atom) -> Any:
        return atom if isinstance(atom, Literal) else env[atom]

    source = builder.source if builder else None
    try:
        for eqn in graph.eqns:
            inputs = [read(a) for a in eqn.inputs]
            if builder is not None:
                builder.source = eqn.source
                env.update(zip(eqn.outputs, builder.emit(eqn.prim, inputs, eqn.params), strict=True))
            else:
                out = eqn.prim(*inputs, **eqn.params)
                env.update(zip(eqn.outputs, out if len(eqn.outputs) > 1 else (out,), strict=True))
    finally:
        if builder is not None:
            builder.source = source
    return [_number(a) if isinstance(a, Literal) else own(env[a]) for a in graph.outputs]


def own(value: Any) -> Any:
    """A traced value under a handle of its own: an argument that a function writes to stays as it is for the caller."""
    return handle(value) if isinstance(value, Array) and value.view_type is not None else value


def lift(builder: Builder | None, value: Any) -> Any:
    """A captured array as a value of the trace under way, so that nothing is computed from it while tracing."""
    if builder is None:
        return value
    atom = builder.atom(value)
    return atom if isinstance(atom, Literal) else builder.tracer(builder, atom)


def _number(literal: Literal) -> Any:
    """The scalar itself; a weak one as the Python number that it was."""
    return literal.value.item() if literal.weak else literal.value
