"""Every stage takes time linear in the graph: counted in function calls, never in seconds; and depth has no limit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import autodiff, memory, passes
from fastgrad.codegen import cpu
from fastgrad.core import graph as graphs
from fastgrad.core.aval import aval_of
from fastgrad.core.expr import MapBuilder
from fastgrad.core.graph import Graph
from fastgrad.core.loops import Layout
from fastgrad.errors import GraphError
from fastgrad.executor import tape
from fastgrad.interpreter import evaluate
from fastgrad.memory import Location, MemoryPlan
from fastgrad.ops.elementwise import exp
from fastgrad.passes.rewrite import substitute
from fastgrad.schedule import Buffer, Loop, Ref, schedule
from fastgrad.trace import inline, trace

DEEP = 20_000
SIZES = 300, 1200
GROWTH = 1.25
"""Calls an equation may grow by so much from 300 to 1,200 (kernels fill up); a scan of all others for each one brings 4."""

Made = tuple[Callable[..., Any], list[np.ndarray]]


def f32(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def chain(n: int) -> Made:
    def f(x):
        y = x
        for i in range(n):
            y = np.tanh(y) if i % 2 else y + x
        return y.sum()

    return f, [f32(16)]


def mlp(n: int) -> Made:
    def f(*params):
        h = np.ones((4, 8), np.float32)
        for w, b in zip(params[::2], params[1::2], strict=True):
            h = fg.nn.functional.relu(h @ w + b)
        return h.sum()

    return f, [f32(8, 8), f32(8)] * (n // 3)


def wide(n: int) -> Made:
    def f(*params):
        total = 0.0
        for p in params:
            total = total + (p * p).sum()
        return total

    return f, [f32(8)] * (n // 3)


def fan_out(n: int) -> Made:
    def f(x):
        h = np.exp(x)
        return sum(np.tanh(h * (1 + i / n)) for i in range(n // 3)).sum()

    return f, [f32(16)]


def rnn(n: int) -> Made:
    xs = f32(n // 6, 4, 8)

    def f(w, u, b):
        h = np.zeros((4, 8), np.float32)
        for x in xs:
            h = np.tanh(x @ w + h @ u + b)
        return h.sum()

    return f, [f32(8, 8), f32(8, 8), f32(8)]


def moves(n: int) -> Made:
    def f(x):
        for i in range(n // 6):
            a, b = x[:4], x[4:]
            x = np.concatenate([b, np.tanh(a)] if i % 2 else [a * 1.5, b]).reshape(4, 16).T.reshape(8, 8)
        return x.sum()

    return f, [f32(8, 8)]


SHAPES: dict[str, Callable[[int], Made]] = {f.__name__: f for f in (chain, mlp, wide, fan_out, rnn, moves)}
shapes = pytest.mark.parametrize("shape", SHAPES)


def joint_graph(f: Callable, arrays: list[np.ndarray]) -> Graph:
    """Value and gradient of ``f`` as `fg.value_and_grad` makes them, before the passes."""
    avals = [aval_of(a) for a in arrays]
    joint = autodiff.vjp(trace(lambda *xs: [f(*xs)], avals), range(len(arrays)))
    return trace(lambda *xs: inline(joint, [*xs, np.float32(1)]), avals)


def planned(graph: Graph) -> MemoryPlan:
    steps = schedule(graph)
    params = [Location("state", 0, 4096 * i) for i in range(len(steps.inputs))]
    outputs = [Location("state", 1, 4096 * i) for i in range(len(steps.outputs))]
    return memory.plan(steps, params, outputs)


def calls(work: Callable[[], Any]) -> tuple[int, Any]:
    """How many functions ``work`` calls (steps of generators and functions in C among them), and its result."""
    count = 0

    def seen(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        result = work()
    finally:
        sys.setprofile(before)
    return count, result


def counts(shape: str, n: int) -> dict[str, float]:
    """Calls an equation of each stage."""
    f, arrays = SHAPES[shape](n)
    found: dict[str, int] = {}
    found["trace"], joint = calls(lambda: joint_graph(f, arrays))
    found["passes"], small = calls(lambda: passes.run(joint))
    found["schedule"], _ = calls(lambda: schedule(small))
    found["plan"], plan = calls(lambda: planned(small))
    found["emit"], _ = calls(lambda: tape.build([tape.Segment(plan)], threads=2))
    found["interpret"], _ = calls(lambda: evaluate(small, arrays))
    return {stage: count / len(joint.eqns) for stage, count in found.items()}


@shapes
def test_calls_grow_as_the_graph_does(shape: str):
    for n in SIZES:
        counts(shape, n)  # what is remembered by shape and structure is there from now on
    few, many = (counts(shape, n) for n in SIZES)
    assert {stage: many[stage] / few[stage] for stage in few if many[stage] > GROWTH * few[stage]} == {}


def test_a_chain_of_any_depth_passes_through_every_stage():
    def f(x):
        y = x
        for _ in range(DEEP // 2):
            y = 0.5 * y + x
        return y.sum()

    x = np.arange(4, dtype=np.float64)
    for backend in ("numba", "numpy"):
        value, gradient = fg.value_and_grad(f, backend=backend)(x)
        np.testing.assert_allclose(value, 2 * x.sum())
        np.testing.assert_allclose(gradient, np.full(4, 2.0))


def test_cotangents_of_a_value_read_20_000_times_add_up():
    def f(x):
        h = np.exp(x)
        total = h
        for _ in range(DEEP // 2):
            total = total + h
        return total.sum()

    value, gradient = fg.value_and_grad(f, backend="numpy")(np.zeros(3))
    np.testing.assert_allclose(value, 3 * (DEEP // 2 + 1))
    np.testing.assert_allclose(gradient, np.full(3, DEEP // 2 + 1.0))


# -- rules run once an equation --------------------------------------------------------------------------------------


@shapes
def test_passes_check_only_the_equations_they_made(shape: str, monkeypatch):
    joint = joint_graph(*SHAPES[shape](120))
    checked: list[graphs.Eqn] = []
    monkeypatch.setattr(graphs, "_check_types", lambda graph, eqn: checked.append(eqn))
    small = passes.run(joint)
    assert {e for e in small.eqns if e not in set(joint.eqns)} <= set(checked)
    assert not set(checked) & set(joint.eqns)
    assert len(checked) <= len(joint.eqns)


def test_a_pass_that_breaks_a_type_is_caught(monkeypatch):
    graph = trace(lambda x: [np.exp(np.tanh(x)), exp(x)], [aval_of(f32(3))])

    def widened(eqn):
        wide = graphs.Var(aval_of(np.zeros(3)))
        return graphs.Eqn(eqn.prim, eqn.inputs, (wide,), eqn.params)

    monkeypatch.setattr(passes, "PASSES", (lambda g: substitute(g, widened),))
    with pytest.raises(GraphError, match="its rule says"):
        passes.run(graph)


def test_an_equation_taken_over_is_still_checked_for_its_place():
    graph = trace(lambda x: [np.exp(np.tanh(x))], [aval_of(f32(3))])
    backwards = Graph(graph.inputs, graph.eqns[::-1], graph.outputs)
    with pytest.raises(GraphError, match="not assigned yet"):
        graphs.verify(backwards, typed=graph.eqns)


# -- kernel text by structure ----------------------------------------------------------------------------------------


def loop_with(constant: float) -> Loop:
    """``y = x + constant``, the constant a part of the Map."""
    dtype = np.dtype(np.float32)
    k = MapBuilder()
    x = k.input(dtype)
    out = k.line("add", x, k.const(constant, dtype), dtype=dtype)
    load, store = (Ref(Buffer(8, dtype), Layout.contiguous((8,))) for _ in range(2))
    return Loop((8,), k.build([out], [x]), (load,), (), (store,))


def test_equal_structure_is_one_text_and_constants_are_told_apart():
    assert cpu.emit(loop_with(2.0)).text is cpu.emit(loop_with(2.0)).text
    texts = {cpu.emit(loop_with(c)).text for c in (0.0, -0.0, 1.0, float("nan"))}
    assert len(texts) == 4
