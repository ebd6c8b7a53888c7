"""Reverse and forward mode, graph -> graph.

Rules are written in ops, so a derivative is only more graph: the same passes, fusion, planner and kernels serve it, and
differentiating twice is differentiating a graph that happens to come from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .core.aval import Aval
from .core.graph import Atom, Eqn, Graph, Literal, Var, verify
from .errors import UnsupportedError
from .ops.shaping import broadcast_to_p, filled
from .trace import current, lift, trace


def is_float(atom: Atom) -> bool:
    """Whether the atom carries derivatives."""
    return atom.aval.dtype.kind == "f"


class _Environment(dict):
    """Values of the graph being replayed, by Var; literals stand for themselves."""

    def read(self, atom: Atom) -> Any:
        return atom if isinstance(atom, Literal) else self[atom]


def active(graph: Graph, wrt: Sequence[int]) -> set[Var]:
    """The float values that depend on the inputs ``wrt``."""
    found = {graph.inputs[i] for i in wrt}
    for eqn in graph.eqns:
        if any(a in found for a in eqn.inputs if isinstance(a, Var)):
            found.update(v for v in eqn.outputs if is_float(v))
    return found


def vjp(graph: Graph, wrt: Sequence[int]) -> Graph:
    """The joint graph of forward and backward pass.

    Inputs: those of ``graph``, then a cotangent for each float output. Outputs: those of ``graph``, then the cotangents
    of the inputs ``wrt``. Forward equations come first. Backward is one sweep over the equations in reverse, each
    reached once (Speelpenning 1980; Griewank & Walther, *Evaluating Derivatives*, §3.2); cotangents of a value that is
    used several times add up.
    """
    wrt, n = tuple(wrt), len(graph.inputs)
    live = active(graph, wrt)
    float_outputs = [a for a in graph.outputs if is_float(a)]

    def joint(*args: Any) -> list[Any]:
        builder = current()
        assert builder is not None
        env = _Environment(zip(graph.inputs, args[:n], strict=True))
        env.update({v: lift(builder, value) for v, value in graph.captured})
        backs: dict[Eqn, Callable[..., Sequence[Any]]] = {}
        for eqn in graph.eqns:
            if eqn.prim.pull is not None and any(v in live for v in eqn.outputs):
                backs[eqn] = _pull(builder, eqn, env, live)
            else:
                _replay(builder, eqn, env)
        cts: dict[Var, Any] = {}

        def accumulate(atom: Atom, ct: Any) -> None:
            if ct is not None and isinstance(atom, Var) and atom in live:
                cts[atom] = cts[atom] + ct if atom in cts else ct

        for atom, ct in zip(float_outputs, args[n:], strict=True):
            accumulate(atom, ct)
        for eqn in reversed(graph.eqns):
            if any(v in cts for v in eqn.outputs):
                builder.source = eqn.source
                found = _backward(eqn, env, [cts.pop(v, None) for v in eqn.outputs], backs.get(eqn))
                for atom, ct in zip(eqn.inputs, found, strict=True):
                    accumulate(atom, ct)
        builder.source = None
        primal_outputs = [env.read(a) for a in graph.outputs]
        return primal_outputs + [
            cts[v] if v in cts else filled(args[0], v.aval.shape, 0, v.aval.dtype)
            for v in (graph.inputs[i] for i in wrt)
        ]

    avals = [v.aval for v in graph.inputs] + [Aval(a.aval.shape, a.aval.dtype) for a in float_outputs]
    return trace(joint, avals, name=f"vjp({graph.name})")


def _replay(builder: Any, eqn: Eqn, env: _Environment) -> None:
    builder.source = eqn.source
    outputs = builder.emit(eqn.prim, [env.read(a) for a in eqn.inputs], eqn.params)
    env.update(zip(eqn.outputs, outputs, strict=True))


def _pull(builder: Any, eqn: Eqn, env: _Environment, live: set[Var]) -> Callable[..., Sequence[Any]]:
    """Forward of an op that brings its own backward."""
    builder.source = eqn.source
    wanted = tuple(isinstance(a, Var) and a in live for a in eqn.inputs)
    assert eqn.prim.pull is not None
    outputs, back = eqn.prim.pull([env.read(a) for a in eqn.inputs], wanted, **eqn.params)
    env.update(zip(eqn.outputs, outputs, strict=True))
    return back


def _backward(
    eqn: Eqn, env: _Environment, cts: Sequence[Any], back: Callable[..., Sequence[Any]] | None
) -> Sequence[Any]:
    """The cotangents that one equation gives to its inputs."""
    if back is not None:
        return back(cts)
    if eqn.prim.vjp is None:
        raise UnsupportedError(
            f"{eqn.prim.name}: has no reverse-mode derivative", at=eqn.source, hint="fg.stop_gradient"
        )
    outs = [env[v] for v in eqn.outputs]
    one = len(outs) == 1
    inputs = [env.read(a) for a in eqn.inputs]
    return eqn.prim.vjp(cts[0] if one else cts, outs[0] if one else outs, *inputs, **eqn.params)


def jvp(graph: Graph) -> Graph:
    """Forward mode: tangents ride along with the values.

    Inputs: those of ``graph``, then a tangent for each float input. Outputs: those of ``graph``, then a tangent for each
    float output. Tangents that are zero by construction are never computed (Wengert 1964).
    """
    given = [is_float(v) for v in graph.inputs]
    return push(graph, given, [is_float(a) for a in graph.outputs])[0]


def push(graph: Graph, given: Sequence[bool], wanted: Sequence[bool]) -> tuple[Graph, tuple[bool, ...]]:
    """`jvp`, where tangents may be zero: inputs without a ``given`` one have none, and an output that is not ``wanted``
    gets one only where it is not zero by construction. Returns too which outputs have one.
    """
    n = len(graph.inputs)
    moving = [v for v, g in zip(graph.inputs, given, strict=True) if g]
    tangents: dict[Atom, Any] = {}

    def pushed(*args: Any) -> list[Any]:
        builder = current()
        assert builder is not None
        env = _Environment(zip(graph.inputs, args[:n], strict=True))
        env.update({v: lift(builder, value) for v, value in graph.captured})
        tangents.update(zip(moving, args[n:], strict=True))
        for eqn in graph.eqns:
            mine = tuple(tangents.get(a) if isinstance(a, Var) else None for a in eqn.inputs)
            if all(t is None for t in mine) or not any(is_float(v) for v in eqn.outputs):
                _replay(builder, eqn, env)
                continue
            for var, tangent in zip(eqn.outputs, _forward(builder, eqn, env, mine), strict=True):
                if tangent is not None:
                    tangents[var] = tangent
        builder.source = None
        results = [env.read(a) for a in graph.outputs]
        for atom, want in zip(graph.outputs, wanted, strict=True):
            if atom in tangents:
                results.append(tangents[atom])
            elif want:
                zero = Literal(atom.aval.dtype.type(0))
                results += builder.emit(broadcast_to_p, [zero], {"shape": atom.aval.shape})
        return results

    avals = [v.aval for v in graph.inputs] + [Aval(v.aval.shape, v.aval.dtype) for v in moving]
    joint = trace(pushed, avals, name=f"jvp({graph.name})")
    return joint, tuple(a in tangents or want for a, want in zip(graph.outputs, wanted, strict=True))


def _forward(builder: Any, eqn: Eqn, env: _Environment, tangents: tuple[Any, ...]) -> Sequence[Any]:
    """One equation, value and tangent: the values go into ``env``, the tangents of its outputs are returned."""
    if eqn.prim.push is not None:
        builder.source = eqn.source
        inputs = [env.read(a) for a in eqn.inputs]
        outputs, pushed = eqn.prim.push(inputs, tangents, **eqn.params)
        env.update(zip(eqn.outputs, outputs, strict=True))
        return pushed
    if eqn.prim.jvp is None:
        raise UnsupportedError(f"{eqn.prim.name}: has no forward-mode derivative", at=eqn.source)
    _replay(builder, eqn, env)
    outs = [env[v] for v in eqn.outputs]
    one = len(outs) == 1
    inputs = [env.read(a) for a in eqn.inputs]
    out = eqn.prim.jvp(tangents, outs[0] if one else outs, *inputs, **eqn.params)
    return (out,) if one else out


def split(joint: Graph, n_inputs: int, n_outputs: int) -> tuple[Graph, Graph]:
    """A joint graph as two: forward ``inputs -> outputs + residuals``, backward ``residuals + cotangents -> cotangents``.

    Forward holds what the outputs need; a residual is what backward reads of it (inputs and captured arrays included, so
    that a later change to an array does not change the pullback).
    """
    needed = {a for a in joint.outputs[:n_outputs] if isinstance(a, Var)}
    first: list[Eqn] = []
    for eqn in reversed(joint.eqns):
        if any(v in needed for v in eqn.outputs):
            needed.update(a for a in eqn.inputs if isinstance(a, Var))
            first.append(eqn)
    first.reverse()
    chosen = set(first)
    second = [eqn for eqn in joint.eqns if eqn not in chosen]
    made = {v for eqn in second for v in eqn.outputs} | set(joint.inputs[n_inputs:])
    read = [a for eqn in second for a in eqn.inputs] + list(joint.outputs[n_outputs:])
    residuals = [v for v in dict.fromkeys(a for a in read if isinstance(a, Var)) if v not in made]
    forward = Graph(
        joint.inputs[:n_inputs],
        tuple(first),
        (*joint.outputs[:n_outputs], *residuals),
        joint.captured,
        joint.name,
    )
    backward = Graph(
        (*residuals, *joint.inputs[n_inputs:]), tuple(second), joint.outputs[n_outputs:], (), joint.name
    )
    return verify(forward, typed=joint.eqns), verify(backward, typed=joint.eqns)
