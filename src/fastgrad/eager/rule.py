"""The backward rule of an op on operands of one kind.

A rule is written in ops, so it can be traced. The first times it simply runs, on NumPy values. When it is met again and
again it is traced, what nobody asked for is dropped (the cotangent of a constant), and the graph is printed as
straight-line NumPy: from then on a rule costs little more than its NumPy calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import passes
from ..core.aval import Aval
from ..core.graph import Graph, Var
from ..core.primitive import Primitive
from ..errors import UnsupportedError, user_line
from ..interpreter import interpret, may_alias
from ..trace import trace

TRACE_AFTER = 8
"""Runs before a rule is traced, which costs some 0.5 ms and then saves some 20 us a run."""


class Rule:
    """``rule(cts, outs, args, values) -> cotangents`` of the inputs ``wanted``; None where one is zero.

    ``fresh`` says of each whether it is memory that nobody else holds (unknown, so False, until compiled).
    """

    __slots__ = ("avals", "fresh", "outs", "params", "prim", "reads", "run", "uses", "wanted")

    def __init__(
        self,
        prim: Primitive,
        params: Mapping[str, Any],
        avals: tuple[Aval, ...],
        outs: tuple[Aval, ...],
        wanted: tuple[int, ...],
    ):
        self.prim, self.params, self.avals, self.outs, self.wanted = prim, params, avals, outs, wanted
        self.run: Callable[..., list[Any]] | None = None
        self.fresh = (False,) * len(wanted)
        self.reads: frozenset[int] = frozenset()
        self.uses = 0

    def __call__(
        self, cts: Sequence[Any], outs: Sequence[Any], args: Sequence[Any], values: Sequence[Any]
    ) -> list[Any]:
        if self.run is not None:
            return self.run(*cts, *outs, *values)
        if len(outs) == 1 and self.uses >= TRACE_AFTER:
            self.compile()
            return self(cts, outs, args, values)
        self.uses += 1
        given = self._apply(cts, outs, args)
        return [given[i] for i in self.wanted]

    def _apply(self, cts: Sequence[Any], outs: Sequence[Any], args: Sequence[Any]) -> Sequence[Any]:
        if self.prim.vjp is None:
            raise UnsupportedError(
                f"{self.prim.name}: has no reverse-mode derivative", at=user_line(), hint="fg.stop_gradient"
            )
        if len(outs) == 1:
            return self.prim.vjp(cts[0], outs[0], *args, **self.params)
        return self.prim.vjp(list(cts), list(outs), *args, **self.params)

    def needs(self, positions: Sequence[int]) -> bool:
        """Whether the rule reads a value at one of ``positions`` among the outputs, then the inputs."""
        if len(self.outs) > 1:
            return True  # which it reads depends on which outputs have cotangents: say yes
        self.compile()
        return any(p in self.reads for p in positions)

    def compile(self) -> None:
        """Trace the rule and print it as Python."""
        if self.run is not None:
            return
        given: list[Any] = []

        def flat(ct: Any, out: Any, *args: Any) -> list[Any]:
            all_cts = self._apply([ct], [out], args)
            given[:] = [all_cts[i] for i in self.wanted]
            return [ct for ct in given if ct is not None]

        # Operands come as arrays of their kind, numbers too: a rule that would look at a number serves all numbers.
        avals = [Aval(a.shape, a.dtype) for a in (*self.outs, *self.outs, *self.avals)]
        graph = passes.run(trace(flat, avals, name=f"vjp({self.prim.name})"))
        present = [ct is not None for ct in given]
        used = {a for eqn in graph.eqns for a in eqn.inputs if isinstance(a, Var)}
        used.update(a for a in graph.outputs if isinstance(a, Var))
        self.reads = frozenset(i - 1 for i, v in enumerate(graph.inputs) if i and v in used)
        own = iter(_fresh(graph))
        self.fresh = tuple(there and next(own) for there in present)
        run = interpret(graph, copies=False)
        if all(present):
            self.run = run
            return

        def spread(*values: Any) -> list[Any]:
            cts = iter(run(*values))
            return [next(cts) if there else None for there in present]

        self.run = spread


def _fresh(graph: Graph) -> list[bool]:
    """Which outputs are memory of their own."""
    own = {v for eqn in graph.eqns if not may_alias(eqn) for v in eqn.outputs}
    return [a in own and graph.outputs.count(a) == 1 for a in graph.outputs]
