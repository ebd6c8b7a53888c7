"""A scan equation taken apart and put together again: what the passes over loops share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..core.aval import Aval
from ..core.graph import Atom, Eqn, Graph, Literal, Var, verify
from ..core.loops import Library, Region, View
from .rewrite import Substitution


@dataclass(slots=True)
class Loop:
    """The parts of a scan: operands and the body's inputs beside them, the body's outputs and the results beside them.

    Passes change the lists; `equation` is the scan that they then describe.
    """

    eqn: Eqn
    eqns: list[Eqn]
    consts: list[tuple[Atom, Var]]  # operand, what the body calls it
    carries: list[tuple[Atom, Var, Atom, Var]]  # init, in the body, new value in the body, result
    xs: list[tuple[Atom, Var]]
    ys: list[tuple[Atom, Var]]  # value in the body, stacked result
    known: Substitution = field(default_factory=dict)  # replacements in the body

    @staticmethod
    def of(eqn: Eqn) -> Loop:
        """A scan equation in parts."""
        body, c, k = eqn.params["body"], eqn.params["consts"], eqn.params["carry"]
        pairs = list(zip(eqn.inputs, body.inputs, strict=True))
        results = list(zip(body.outputs, eqn.outputs, strict=True))
        carries = [(*a, *b) for a, b in zip(pairs[c : c + k], results[:k], strict=True)]
        return Loop(eqn, list(body.eqns), pairs[:c], carries, pairs[c + k :], results[k:])

    @property
    def length(self) -> int:
        """How often it runs."""
        return self.eqn.params["length"]

    def stack_of(self, value: Var) -> Var:
        """The stacked values of ``value``: a result that is there, or a new one."""
        for inner, outer in self.ys:
            if inner is value:
                return outer
        outer = Var(Aval((self.length, *value.aval.shape), value.aval.dtype, value.aval.weak))
        self.ys.append((value, outer))
        return outer

    def read(self, atom: Atom) -> Atom:
        """``atom`` after the replacements."""
        while isinstance(atom, Var) and atom in self.known:
            atom = self.known[atom]
        return atom

    def equation(self) -> Eqn:
        """The scan again."""
        eqns = [
            replace(e, inputs=tuple(map(self.read, e.inputs)))
            if any(isinstance(a, Var) and a in self.known for a in e.inputs)
            else e
            for e in self.eqns
        ]
        old = self.eqn.params["body"]
        inputs = (*(v for _, v in self.consts), *(c[1] for c in self.carries), *(v for _, v in self.xs))
        outputs = (*(self.read(c[2]) for c in self.carries), *(self.read(a) for a, _ in self.ys))
        body = verify(Graph(inputs, tuple(eqns), outputs, (), old.name), typed=old.eqns)
        return replace(
            self.eqn,
            inputs=(*(a for a, _ in self.consts), *(c[0] for c in self.carries), *(a for a, _ in self.xs)),
            outputs=(*(c[3] for c in self.carries), *(v for _, v in self.ys)),
            params={**self.eqn.params, "body": body, "consts": len(self.consts), "carry": len(self.carries)},
        )


def dependent(eqns: Sequence[Eqn], sources: set[Var]) -> set[Var]:
    """``sources`` and every value that is computed from one of them."""
    found = set(sources)
    for eqn in eqns:
        if any(a in found for a in eqn.inputs if isinstance(a, Var)):
            found.update(eqn.outputs)
    return found


def counts(eqns: Sequence[Eqn], outputs: Sequence[Atom]) -> dict[Var, int]:
    """How often each value is read."""
    found: dict[Var, int] = {}
    for atom in [*(a for e in eqns for a in e.inputs), *outputs]:
        if isinstance(atom, Var):
            found[atom] = found.get(atom, 0) + 1
    return found


def is_view(eqn: Eqn) -> bool:
    """Whether an equation does no work."""
    return isinstance(eqn.prim.kernel, View)


def may_fail(eqn: Eqn) -> bool:
    """Whether an equation may raise at run time (an index out of bounds), or holds one that may."""
    kernel = eqn.prim.kernel
    if isinstance(kernel, Region):
        return True
    return isinstance(kernel, Library) and kernel.name not in ("matmul", "pad", "concatenate")


def literals(atoms: Sequence[Atom]) -> bool:
    """Whether none of ``atoms`` is a variable."""
    return all(isinstance(a, Literal) for a in atoms)
