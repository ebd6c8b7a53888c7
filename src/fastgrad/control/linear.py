"""The backward graph of a body is linear in its cotangents: those that are zero are left out, with all that they feed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.graph import Atom, Eqn, Graph, Literal, Var
from ..ops.barrier import barrier, barrier_p
from ..trace import current, lift
from .bodies import closed, zeros


def without_zeros(graph: Graph, first: int, given: Sequence[bool]) -> tuple[Graph, tuple[bool, ...]]:
    """``graph``, linear in ``inputs[first:]``, where only those ``given`` are not zero; and which outputs are not zero.

    Inputs: the first ones, then the given ones. Outputs: those that are not zero. An equation all of whose linear inputs
    are zero gives zero, whatever its op; a sum with one zero term is the other term.
    """
    linear: set[Var] = set(graph.inputs[first:])
    zero: set[Var] = {v for v, g in zip(graph.inputs[first:], given, strict=True) if not g}
    taken = [*graph.inputs[:first], *(v for v, g in zip(graph.inputs[first:], given, strict=True) if g)]
    flags: list[bool] = []

    def reduced(*args: Any) -> list[Any]:
        builder = current()
        assert builder is not None
        env: dict[Var, Any] = dict(zip(taken, args, strict=True))
        env.update({v: lift(builder, value) for v, value in graph.captured})

        def read(atom: Atom) -> Any:
            if isinstance(atom, Literal):
                return atom
            return zeros(atom.aval.shape, atom.aval.dtype) if atom in zero else env[atom]

        for eqn in graph.eqns:
            if eqn.prim is barrier_p:
                _pass(eqn, env, linear, zero, read)
                continue
            mine = [a for a in eqn.inputs if isinstance(a, Var) and a in linear]
            linear.update(eqn.outputs if mine else ())
            if mine and all(a in zero for a in mine):
                zero.update(eqn.outputs)
                continue
            builder.source = eqn.source
            alive = [a for a in mine if a not in zero]
            out = eqn.outputs[0].aval
            if (
                eqn.prim.name == "add"
                and len(alive) == 1
                and len(mine) == len(eqn.inputs) == 2
                and alive[0].aval.shape == out.shape
            ):
                env[eqn.outputs[0]] = env[alive[0]]
                continue
            results = builder.emit(eqn.prim, [read(a) for a in eqn.inputs], eqn.params)
            env.update(zip(eqn.outputs, results, strict=True))
        builder.source = None
        flags[:] = [isinstance(a, Var) and a in linear and a not in zero for a in graph.outputs]
        return [read(a) for a, flag in zip(graph.outputs, flags, strict=True) if flag]

    result, extra = closed(reduced, [v.aval for v in taken], graph.name)
    assert not extra, "a backward graph closes over nothing"
    return result, tuple(flags)


def _pass(
    eqn: Eqn, env: dict[Var, Any], linear: set[Var], zero: set[Var], read: Callable[[Atom], Any]
) -> None:
    """A barrier: values pass, each linear or zero as it was, and wait for those that are not zero."""
    count = eqn.params["count"]
    waiting = [read(a) for a in eqn.inputs[count:] if a not in zero]
    passing = [a for a in eqn.inputs[:count] if a not in zero]
    values = barrier(list(map(read, passing)), waiting) if waiting else list(map(read, passing))
    passed = dict(zip(passing, values, strict=True))
    for a, out in zip(eqn.inputs[:count], eqn.outputs, strict=True):
        if a in zero:
            zero.add(out)
        else:
            env[out] = passed[a]
        if a in linear:
            linear.add(out)
