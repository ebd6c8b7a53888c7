"""The static graph: our word for a jaxpr. Single assignment, typed, immutable, printable, verified.

    atom  ::= %i (a Var) | 2.0:f32 (a Literal)
    eqn   ::= %i:f32[3,4] = op[param=value] atom...        # user's file:line
    graph ::= { inputs ; captured ; eqns ; outputs }

``captured`` are the arrays (and outer tracers) that the traced function closed over: inputs whose value is known,
held by reference, read anew at every run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FastgradError, GraphError, TraceError, user_line
from .aval import Aval, aval_of, scalar_aval

if TYPE_CHECKING:
    from .primitive import Primitive


class Var:
    """A value assigned once. Compared by identity; printed by its number in the graph at hand."""

    __slots__ = ("aval",)

    def __init__(self, aval: Aval):
        self.aval = aval


@dataclass(frozen=True, slots=True)
class Literal:
    """A scalar written in the program. It reaches kernels as a descriptor scalar, never as text."""

    value: np.generic
    weak: bool = False

    @property
    def aval(self) -> Aval:
        """Aval of the scalar."""
        return scalar_aval(self.value.dtype, self.weak)

    def key(self) -> tuple:
        """Equal for literals with the same bits (NaN equals NaN, -0.0 differs from 0.0)."""
        return (self.value.dtype.name, self.value.tobytes(), self.weak)


Atom = Var | Literal


@dataclass(frozen=True, slots=True, eq=False)
class Eqn:
    """``outputs = prim[params](inputs)``, written at ``source`` (the user's file:line)."""

    prim: Primitive
    inputs: tuple[Atom, ...]
    outputs: tuple[Var, ...]
    params: Mapping[str, Any]
    source: str = "<unknown>"


@dataclass(frozen=True, eq=False)
class Graph:
    """A traced function. `verify` holds for every Graph that a stage returns."""

    inputs: tuple[Var, ...]
    eqns: tuple[Eqn, ...]
    outputs: tuple[Atom, ...]
    captured: tuple[tuple[Var, Any], ...] = ()
    name: str = "f"

    def __str__(self) -> str:
        names: dict[Var, str] = {}
        numbers = itertools.count()

        def show(atom: Atom, typed: bool = False) -> str:
            if isinstance(atom, Literal):
                return f"{atom.value!s}:{str(atom.aval)[:-2]}"
            if atom not in names:
                names[atom] = f"%{next(numbers)}"
            return f"{names[atom]}:{atom.aval}" if typed else names[atom]

        lines = [f"graph {self.name}({', '.join(show(v, True) for v in self.inputs)})"]
        lines += [f"  captured {show(v, True)}" for v, _ in self.captured]
        for eqn in self.eqns:
            params = ", ".join(f"{k}={_show_param(v)}" for k, v in eqn.params.items())
            args = " ".join(show(a) for a in eqn.inputs)
            outs = ", ".join(show(v, True) for v in eqn.outputs)
            lines.append(
                f"  {outs} = {eqn.prim.name}{f'[{params}]' if params else ''} {args}".ljust(68)
                + f"  # {eqn.source}"
            )
            lines += ["    " + line for graph in subgraphs(eqn) for line in str(graph).split("\n")]
        lines.append(f"  return {', '.join(show(a) for a in self.outputs)}")
        return "\n".join(lines)


def subgraphs(eqn: Eqn) -> list[Graph]:
    """The graphs among an equation's parameters (a loop's body, branches)."""
    values = [v for p in eqn.params.values() for v in (p if isinstance(p, tuple) else (p,))]
    return [v for v in values if isinstance(v, Graph)]


def _show_param(value: Any) -> str:
    if isinstance(value, Graph):
        return value.name
    if isinstance(value, tuple) and any(isinstance(v, Graph) for v in value):
        return f"({','.join(map(_show_param, value))})"
    return value.name if isinstance(value, np.dtype) else str(value).replace(" ", "")


def verify(graph: Graph, typed: Iterable[Eqn] = ()) -> Graph:
    """Return ``graph`` if it is well formed, else raise `GraphError`: assigned once, before use, avals as the rules say.

    An equation never changes, so its rule need not run twice: ``typed`` are those known to follow theirs (just emitted, or
    taken over from a verified graph). Their place among the others is checked all the same.
    """
    known: set[Var] = set()
    typed = set(typed)
    for var in itertools.chain(graph.inputs, (v for v, _ in graph.captured)):
        if var in known:
            raise GraphError(f"{graph.name}: an input appears twice")
        known.add(var)
    for eqn in graph.eqns:
        for atom in eqn.inputs:
            if isinstance(atom, Var) and atom not in known:
                raise GraphError(f"{graph.name}: {eqn.prim.name} reads a value that is not assigned yet")
        if eqn not in typed:
            _check_types(graph, eqn)
        for var in eqn.outputs:
            if var in known:
                raise GraphError(f"{graph.name}: {eqn.prim.name} assigns a value twice")
            known.add(var)
    for atom in graph.outputs:
        if isinstance(atom, Var) and atom not in known:
            raise GraphError(f"{graph.name}: an output is never assigned")
    return graph


def _check_types(graph: Graph, eqn: Eqn) -> None:
    expected = eqn.prim.abstract_outputs([a.aval for a in eqn.inputs], eqn.params)
    for var, aval in zip(eqn.outputs, expected, strict=True):
        if (var.aval.shape, var.aval.dtype) != (aval.shape, aval.dtype):
            raise GraphError(f"{graph.name}: {eqn.prim.name} is {var.aval}, its rule says {aval}")


class Tracer:
    """A handle on a value of a graph under construction. `trace.Array` adds NumPy's operators and protocols."""

    __slots__ = ("__weakref__", "atom", "builder")

    def __init__(self, builder: Builder, atom: Var):
        self.builder, self.atom = builder, atom

    @property
    def aval(self) -> Aval:
        """Shape, dtype and weakness."""
        return self.atom.aval


class Builder:
    """Grows a Graph, one equation at a time. ``level`` orders nested traces: the innermost one emits."""

    def __init__(self, tracer: type[Tracer], level: int = 0, name: str = "f"):
        self.tracer, self.level, self.name = tracer, level, name
        self.inputs: list[Var] = []
        self.eqns: list[Eqn] = []
        self.closed = False
        self.source: str | None = None  # the line that the next equations stem from; None: the user's frame
        self._captured: dict[int, tuple[Var, Any]] = {}

    def input(self, aval: Aval) -> Tracer:
        """A new input of the graph."""
        var = Var(aval)
        self.inputs.append(var)
        return self.tracer(self, var)

    def atom(self, value: Any) -> Atom:
        """The atom that stands for ``value`` here: its own Var, a Literal, or a captured input."""
        if isinstance(value, Tracer):
            if value.builder is self:
                return value.atom
            if value.builder.closed:
                raise leaked(value)
        elif isinstance(value, Literal):
            return value
        elif not isinstance(value, np.ndarray):
            aval = aval_of(value)
            return Literal(aval.dtype.type(value), aval.weak)
        if id(value) not in self._captured:
            aval = value.aval if isinstance(value, Tracer) else aval_of(value)
            self._captured[id(value)] = (Var(aval), value)
        return self._captured[id(value)][0]

    def emit(self, prim: Primitive, args: Sequence[Any], params: Mapping[str, Any]) -> list[Tracer]:
        """Append ``prim[params](args)``; rule errors get the user's line."""
        if self.closed:
            raise leaked(next(a for a in args if isinstance(a, Tracer) and a.builder is self))
        atoms = tuple(self.atom(a) for a in args)
        source = self.source or user_line()
        try:
            avals = prim.abstract_outputs([a.aval for a in atoms], params)
        except FastgradError as error:
            error.at = error.at or source
            raise
        outputs = tuple(Var(aval) for aval in avals)
        self.eqns.append(Eqn(prim, atoms, outputs, params, source))
        return [self.tracer(self, var) for var in outputs]

    def build(self, outputs: Sequence[Any]) -> Graph:
        """Close the trace and return its graph."""
        atoms = tuple(self.atom(o) for o in outputs)
        self.closed = True
        return Graph(tuple(self.inputs), tuple(self.eqns), atoms, tuple(self._captured.values()), self.name)


under_way: ContextVar[Builder | None] = ContextVar("fastgrad_trace", default=None)
"""The builder of the innermost trace under way, if any."""


def current() -> Builder | None:
    """The builder of the innermost trace under way, if any."""
    return under_way.get()


def joined(args: Iterable[Any]) -> Builder | None:
    """The trace that an op on ``args`` joins: the innermost, if a traced value is among them; None for arrays alone.

    Ops on values of outer traces alone are its too: what a branch does with values that it closes over happens only when
    it is taken.
    """
    deepest = None
    for arg in args:
        if isinstance(arg, Tracer) and (deepest is None or arg.builder.level > deepest.level):
            deepest = arg.builder
    now = under_way.get()
    return now if deepest is not None and now is not None and now.level > deepest.level else deepest


def leaked(tracer: Tracer) -> TraceError:
    """The error for a tracer that outlived its trace."""
    return TraceError(
        f"a traced value {tracer.aval} was used after its function had been traced",
        hint="return it from the function instead of storing it outside",
        at=user_line(),
    )
