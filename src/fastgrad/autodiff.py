"""Reverse and forward mode, graph -> graph.

Rules are written in ops, so a derivative is only more graph: the same passes, fusion, planner and kernels serve it, and
differentiating twice is differentiating a graph that happens to come from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from .core.aval import Aval
from .core.graph import Atom, Builder, Eqn, Graph, Literal, Var, verify
from .errors import UnsupportedError
from .ops.shaping import broadcast_to_p
from .passes.dce import dce
from .trace import current, lift, trace

Back = Callable[[Sequence[Any]], Sequence[Any]]
"""Cotangents of outputs to cotangents of inputs."""


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


def vjp(graph: Graph, wrt: Sequence[int], of: Sequence[int] | None = None) -> Graph:
    """The joint graph of forward and backward pass.

    Inputs: those of ``graph``, then a cotangent for each of the outputs ``of`` (default: for each float output). Outputs:
    those of ``graph``, then the cotangents of the inputs ``wrt``. Forward equations come first.
    """
    n = len(graph.inputs)
    wrt = tuple(wrt)
    of = tuple(i for i, a in enumerate(graph.outputs) if is_float(a)) if of is None else tuple(of)

    def joint(*args: Any) -> list[Any]:
        wanted = [i in wrt for i in range(n)]
        outputs, back = pull(graph, args[:n], wanted)
        cts: list[Any] = [None] * len(outputs)
        for i, ct in zip(of, args[n:], strict=True):
            cts[i] = ct
        found = back(cts)
        return [*outputs, *(zeros(graph.inputs[i].aval) if found[i] is None else found[i] for i in wrt)]

    avals = [v.aval for v in graph.inputs] + [_plain(graph.outputs[i].aval) for i in of]
    return trace(joint, avals, name=f"vjp({graph.name})")


def pull(
    graph: Graph, inputs: Sequence[Any], wanted: Sequence[bool], known: Mapping[Var, Any] | None = None
) -> tuple[list[Any], Back]:
    """The outputs of ``graph`` in the trace under way, and ``back(cts)``: a cotangent for each input, None where zero.

    ``wanted`` says which inputs have one; ``cts`` are those of the outputs, None where zero. Values that are ``known``
    already are read, not computed again. Backward is one sweep over the equations in reverse, each reached once
    (Speelpenning 1980; Griewank & Walther, *Evaluating Derivatives*, §3.2); cotangents of a value that is used several
    times add up.
    """
    builder = current()
    assert builder is not None, "derivatives are written into a trace"
    graph = dce(graph)  # the derivative of what nobody reads is never computed, nor asked for
    live = active(graph, [i for i, w in enumerate(wanted) if w])
    env = _Environment(zip(graph.inputs, inputs, strict=True))
    env.update({v: lift(builder, value) for v, value in graph.captured})
    known = known or {}
    backs: dict[Eqn, Back] = {}
    with _sources(builder):
        for eqn in graph.eqns:
            if all(v in known for v in eqn.outputs):
                env.update({v: known[v] for v in eqn.outputs})
            elif eqn.prim.pull is not None and any(v in live for v in eqn.outputs):
                backs[eqn] = _pull(builder, eqn, env, live)
            else:
                _replay(builder, eqn, env)

    def back(cotangents: Sequence[Any]) -> list[Any]:
        cts: dict[Var, Any] = {}

        def accumulate(atom: Atom, ct: Any) -> None:
            if ct is not None and isinstance(atom, Var) and atom in live:
                cts[atom] = cts[atom] + ct if atom in cts else ct

        for atom, ct in zip(graph.outputs, cotangents, strict=True):
            accumulate(atom, ct)
        with _sources(builder):
            for eqn in reversed(graph.eqns):
                if any(v in cts for v in eqn.outputs):
                    builder.source = eqn.source
                    found = _backward(eqn, env, [cts.pop(v, None) for v in eqn.outputs], backs.get(eqn))
                    for atom, ct in zip(eqn.inputs, found, strict=True):
                        accumulate(atom, ct)
        return [cts.get(v) if w else None for v, w in zip(graph.inputs, wanted, strict=True)]

    return [env.read(a) for a in graph.outputs], back


def _plain(aval: Aval) -> Aval:
    """A derivative's aval: that of its value, never weak."""
    return Aval(aval.shape, aval.dtype)


def zeros(aval: Aval) -> Any:
    """Zeros all over, a broadcast literal in the trace under way."""
    builder = current()
    assert builder is not None
    return builder.emit(broadcast_to_p, (Literal(aval.dtype.type(0)),), {"shape": aval.shape})[0]


@contextmanager
def _sources(builder: Builder) -> Iterator[None]:
    """Lets equations keep the lines they stem from, and puts the builder's own back."""
    before = builder.source
    try:
        yield
    finally:
        builder.source = before


def _replay(builder: Builder, eqn: Eqn, env: _Environment) -> None:
    builder.source = eqn.source
    outputs = builder.emit(eqn.prim, [env.read(a) for a in eqn.inputs], eqn.params)
    env.update(zip(eqn.outputs, outputs, strict=True))


def _pull(builder: Builder, eqn: Eqn, env: _Environment, live: set[Var]) -> Back:
    """Forward of an op that brings its own backward."""
    builder.source = eqn.source
    wanted = tuple(isinstance(a, Var) and a in live for a in eqn.inputs)
    assert eqn.prim.pull is not None
    outputs, back = eqn.prim.pull([env.read(a) for a in eqn.inputs], wanted, **eqn.params)
    env.update(zip(eqn.outputs, outputs, strict=True))
    return back


def _backward(eqn: Eqn, env: _Environment, cts: Sequence[Any], back: Back | None) -> Sequence[Any]:
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


def jvp(graph: Graph, wrt: Sequence[int] | None = None) -> Graph:
    """Forward mode: tangents ride along with the values.

    Inputs: those of ``graph``, then a tangent for each of the inputs ``wrt`` (default: for each float input). Outputs:
    those of ``graph``, then a tangent for each float output. Tangents that are zero by construction are never computed
    (Wengert 1964).
    """
    given = [is_float(v) if wrt is None else i in wrt for i, v in enumerate(graph.inputs)]
    return push(graph, given, [is_float(a) for a in graph.outputs])[0]


def push(graph: Graph, given: Sequence[bool], wanted: Sequence[bool]) -> tuple[Graph, tuple[bool, ...]]:
    """`jvp`, where tangents may be zero: inputs without a ``given`` one have none, and an output that is not ``wanted``
    gets one only where it is not zero by construction. Returns too which outputs have one.
    """
    n = len(graph.inputs)
    graph = dce(graph)
    moving = [v for v, g in zip(graph.inputs, given, strict=True) if g]
    tangents: dict[Atom, Any] = {}

    def pushed(*args: Any) -> list[Any]:
        builder = current()
        assert builder is not None
        env = _Environment(zip(graph.inputs, args[:n], strict=True))
        env.update({v: lift(builder, value) for v, value in graph.captured})
        tangents.update(zip(moving, args[n:], strict=True))
        with _sources(builder):
            for eqn in graph.eqns:
                mine = tuple(tangents.get(a) if isinstance(a, Var) else None for a in eqn.inputs)
                if all(t is None for t in mine) or not any(is_float(v) for v in eqn.outputs):
                    _replay(builder, eqn, env)
                    continue
                for var, tangent in zip(eqn.outputs, _forward(builder, eqn, env, mine), strict=True):
                    if tangent is not None:
                        tangents[var] = tangent
        results = [env.read(a) for a in graph.outputs]
        for atom, want in zip(graph.outputs, wanted, strict=True):
            if atom in tangents:
                results.append(tangents[atom])
            elif want:
                results.append(zeros(atom.aval))
        return results

    joint = trace(
        pushed, [v.aval for v in graph.inputs] + [_plain(v.aval) for v in moving], f"jvp({graph.name})"
    )
    return joint, tuple(a in tangents or want for a, want in zip(graph.outputs, wanted, strict=True))


def _forward(builder: Builder, eqn: Eqn, env: _Environment, tangents: tuple[Any, ...]) -> Sequence[Any]:
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
