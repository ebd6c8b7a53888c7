"""Constant folding: ``%2 = mul 2.0 3.0`` -> the literal 6.0 wherever %2 stood. Scalars only: arrays are never text."""

from __future__ import annotations

import numpy as np

from ..core.graph import Atom, Eqn, Graph, Literal
from ..core.loops import Region
from .rewrite import substitute


def fold(graph: Graph) -> Graph:
    """Run the reference of each equation whose inputs are all literals and whose output is a scalar."""
    return substitute(graph, _fold)


def _fold(eqn: Eqn) -> Eqn | Atom:
    if (
        isinstance(eqn.prim.kernel, Region)
        or len(eqn.outputs) != 1
        or eqn.outputs[0].aval.shape
        or not all(isinstance(a, Literal) for a in eqn.inputs)
    ):
        return eqn
    aval = eqn.outputs[0].aval
    with np.errstate(all="ignore"):
        value = eqn.prim.reference(*(a.value for a in eqn.inputs if isinstance(a, Literal)), **eqn.params)
    return Literal(aval.dtype.type(value), aval.weak)
