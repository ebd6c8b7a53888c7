"""The interpreter: a graph op by op in NumPy. The reference of every kernel, and an honest opponent.

The graph is printed once as straight-line Python, one call an equation, so that what remains per op is NumPy's own
cost: no dispatch on ops, no environment to look things up in. Values are dropped after their last use.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .core.graph import Atom, Eqn, Graph, Var
from .core.loops import Library, Region, View
from .errors import FastgradError


def interpret(graph: Graph, *, copies: bool = True) -> Callable[..., list[Any]]:
    """``run(*inputs) -> outputs`` for flat arrays.

    With ``copies`` outputs are arrays in memory of their own and NumPy's warnings are off. Without, outputs are what the
    last op gave (a scalar, an input, a view of one; see `may_alias`) and warnings are the caller's affair.
    """
    scope: dict[str, Any] = {**_SCOPE, "copy": _own}
    names: dict[Var, str] = {v: f"v{i}" for i, v in enumerate(graph.inputs)}
    for i, (var, value) in enumerate(graph.captured):
        names[var] = f"c{i}"
        scope[f"c{i}"] = value

    def read(atom: Atom) -> str:
        if isinstance(atom, Var):
            return names[atom]
        name = f"k{len(scope)}"
        scope[name] = atom.value
        return name

    last: dict[Var, int] = {
        a: i for i, eqn in enumerate(graph.eqns) for a in eqn.inputs if isinstance(a, Var)
    }
    kept = set(graph.outputs) | set(graph.inputs) | {v for v, _ in graph.captured}
    # A 0-d array becomes the scalar that it holds: arithmetic on those costs a tenth.
    numbers = [names[v] for v in graph.inputs if not v.aval.shape and v.aval.dtype.kind == "f"]
    body = [f"    {name} = {name}[()]" for name in numbers]
    for i, eqn in enumerate(graph.eqns):
        args = [read(a) for a in eqn.inputs]
        for var in eqn.outputs:
            names[var] = f"v{len(names)}"
        call = f"op{i}({', '.join(args)})"
        floats = bool(eqn.inputs) and eqn.inputs[0].aval.dtype.kind == "f"
        if floats and eqn.prim.name in _INFIX:
            call = f" {_INFIX[eqn.prim.name]} ".join(args)
        elif floats and eqn.prim.name in _DIRECT:
            call = _DIRECT[eqn.prim.name].format(x=args[0], **eqn.params)
        else:
            scope[f"op{i}"] = reference(eqn)
        dying = [
            names[v]
            for v in dict.fromkeys(eqn.inputs)
            if isinstance(v, Var) and last[v] == i and v not in kept
        ]
        body.append(f"    {', '.join(names[v] for v in eqn.outputs)} = {call}")
        if dying:
            body.append(f"    del {', '.join(dying)}")
    own = {v for eqn in graph.eqns if not may_alias(eqn) for v in eqn.outputs}
    results = []
    for atom in graph.outputs:
        fresh = atom in own
        if not copies:
            results.append(read(atom))
            continue
        if isinstance(atom, Var):
            own.discard(atom)  # a second output of the same value is a copy
        results.append(f"asarray({read(atom)})" if fresh else f"copy({read(atom)})")
    head = f"def run({', '.join(names[v] for v in graph.inputs)}):"
    source = "\n".join([head, *body, f"    return [{', '.join(results)}]"])
    exec(compile(source, f"<fastgrad interpreter {graph.name}>", "exec"), scope)
    return _quiet(scope["run"]) if copies else scope["run"]


_INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "pow": "**",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
}
"""Ops of floats that are a Python operator: on NumPy scalars that is a tenth of a ufunc's time."""
_DIRECT = {
    "reshape": "{x}.reshape({shape})",
    "transpose": "{x}.transpose({perm})",
    "reduce_sum": "add({x}, {axes})",
    "reduce_max": "maximum({x}, {axes})",
    "reduce_min": "minimum({x}, {axes})",
}
"""What a reference does to an array of floats, without a Python function around it."""
_SCOPE = {
    "asarray": np.asarray,
    "add": np.add.reduce,
    "maximum": np.maximum.reduce,
    "minimum": np.minimum.reduce,
}


def may_alias(eqn: Eqn) -> bool:
    """Whether the reference may return its operand or a view of it."""
    return isinstance(eqn.prim.kernel, View | Region) or eqn.prim.name in (
        "barrier",
        "check_index",
        "stop_gradient",
        "cast",
    )


def _own(value: Any) -> np.ndarray:
    return np.array(value)


def _floats(eqn: Eqn) -> bool:
    return {a.aval.dtype.kind for a in (*eqn.inputs[:1], *eqn.outputs[:1])} == {"f"}


def reference(eqn: Eqn) -> Callable[..., Any]:
    """The reference with its parameters; a routine that may refuse its operands says at which line of the user's."""
    if eqn.prim.name == "cast" and not eqn.outputs[0].aval.shape and _floats(eqn):
        return eqn.params["dtype"].type
    call = partial(eqn.prim.reference, **eqn.params) if eqn.params else eqn.prim.reference
    if not isinstance(eqn.prim.kernel, Library):
        return call

    def located(*args: Any) -> Any:
        try:
            return call(*args)
        except FastgradError as error:
            error.at = error.at or eqn.source
            raise

    return located


def _quiet(run: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Infinities and NaN flow without warnings, as in compiled code."""

    def quiet(*inputs: Any) -> list[Any]:
        with np.errstate(all="ignore"):
            return run(*inputs)

    return quiet


def evaluate(graph: Graph, inputs: Sequence[Any]) -> list[Any]:
    """Run a graph once."""
    return interpret(graph)(*inputs)


_bodies: weakref.WeakKeyDictionary[Graph, Callable[..., list[Any]]] = weakref.WeakKeyDictionary()


def runner(body: Graph) -> Callable[..., list[Any]]:
    """`interpret` of a graph that an op carries, printed once and kept as long as the graph: for references of loops."""
    run = _bodies.get(body)
    if run is None:
        run = _bodies[body] = interpret(body, copies=False)
    return run
