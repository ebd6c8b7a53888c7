"""Graphs that were transformed twice, compiled and interpreted: the same numbers. The rules themselves are checked on every
row by `tests/ops/test_contracts.py`; here each op, by its row with the most axes, goes through the compiler in each way.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cases import CASES, Case
from fastgrad import autodiff, batching
from fastgrad.core.aval import aval_of
from fastgrad.core.graph import Graph
from fastgrad.executor.executable import Executable
from fastgrad.interpreter import evaluate
from fastgrad.trace import trace

SIZE = 3  # of batches


def vjp(graph: Graph) -> Graph:
    return autodiff.vjp(graph, [i for i, v in enumerate(graph.inputs) if autodiff.is_float(v)])


def vmap(graph: Graph) -> Graph:
    return batching.vmap(graph, [True] * len(graph.inputs), SIZE)


WAYS: dict[str, Callable[[Graph], Graph]] = {
    "vjp of vjp": lambda graph: vjp(vjp(graph)),
    "jvp of vjp": lambda graph: autodiff.jvp(vjp(graph)),
    "vmap of vjp": lambda graph: vmap(vjp(graph)),
    "vjp of vmap": lambda graph: vjp(vmap(graph)),
}


def rows() -> list[Case]:
    """The row of each op with the most axes."""
    of_op: dict[str, list[Case]] = {}
    for case in CASES:
        if case.order:
            of_op.setdefault(case.name.split("-")[0], []).append(case)
    return [max(cases, key=lambda case: sum(map(len, case.shapes))) for cases in of_op.values()]


def values(graph: Graph, arrays: Sequence[np.ndarray], batched: bool) -> list[np.ndarray]:
    """``arrays``, repeated where the graph is batched, then random ones for its further inputs."""
    rng = np.random.default_rng(5)
    given = [np.stack([a] * SIZE) if batched else a for a in arrays]
    more = [v.aval for v in graph.inputs[len(given) :]]
    return [*given, *(np.asarray(rng.standard_normal(a.shape), a.dtype) for a in more)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", rows(), ids=lambda case: case.name)
def test_compiled_is_interpreted(case: Case, way: str):
    arrays = case.inputs()
    graph = WAYS[way](trace(lambda *xs: [case.fn(*xs)], [aval_of(a) for a in arrays], name=case.name))
    inputs = values(graph, arrays, batched="vmap" in way)
    for got, expected in zip(Executable(graph)(*inputs), evaluate(graph, inputs), strict=True):
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)
