"""float32 products on bfloat16 operands, where the user asks for it: a mark on the equation, for whoever computes it.

    matmul x y    ->    matmul[precision=bfloat16] x y

It is the last pass, after derivatives are taken and products have moved out of loops, so forward and backward products are
marked alike. Nothing else changes: values, parameters, sums and optimizer state stay float32, float64 products float64
(Micikevicius et al. 2018, *Mixed Precision Training*; Kalamkar et al. 2019, *A Study of BFLOAT16 for Deep Learning
Training*: float32 master weights, no loss scaling, since bfloat16 has float32's range).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..core.graph import Eqn, Graph, subgraphs, verify
from ..errors import ArgumentError
from .rewrite import substitute

PRECISIONS = ("bfloat16",)
"""What ``precision=`` may be besides None."""


def check_precision(precision: Any) -> str | None:
    """``precision`` if there is one of that name."""
    if precision is None or (isinstance(precision, str) and precision in PRECISIONS):
        return precision
    choices = ", ".join(map(repr, (None, *PRECISIONS)))
    raise ArgumentError(f"unknown precision {precision!r}", hint=f"one of {choices}")


def lowered(graph: Graph, precision: str | None) -> Graph:
    """``graph`` with its float32 products in ``precision``, those of loop bodies and branches too; None changes nothing."""
    return graph if precision is None else verify(_marked(graph, precision))


def _marked(graph: Graph, precision: str) -> Graph:
    def mark(eqn: Eqn) -> Eqn:
        if eqn.prim.name == "matmul" and eqn.outputs[0].aval.dtype == np.float32:
            return replace(eqn, params={**eqn.params, "precision": precision})
        if subgraphs(eqn):
            return replace(eqn, params={name: inside(value) for name, value in eqn.params.items()})
        return eqn

    def inside(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(inside, value))
        return _marked(value, precision) if isinstance(value, Graph) else value

    return substitute(graph, mark)
