"""Loops over common rows are one step: what joins, what does not, and that numbers stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import autodiff, passes
from fastgrad.codegen import cpu
from fastgrad.core.aval import aval_of
from fastgrad.core.graph import Graph
from fastgrad.executor.executable import Executable
from fastgrad.interpreter import evaluate
from fastgrad.nn import functional as F
from fastgrad.schedule import Local, Loop, Phases, Schedule, schedule
from fastgrad.schedule.phases import BLOCK_BYTES
from fastgrad.trace import trace


def graph_of(fn: Callable, *arrays: np.ndarray) -> Graph:
    return trace(lambda *xs: [fn(*xs)], [aval_of(a) for a in arrays], name="f")


def gradient_of(fn: Callable, *arrays: np.ndarray) -> Graph:
    """Value and gradients by all float arrays; the cotangent is one more input."""
    return autodiff.vjp(graph_of(fn, *arrays), [i for i, a in enumerate(arrays) if a.dtype.kind == "f"])


def steps_of(graph: Graph) -> Schedule:
    return schedule(passes.run(graph))


def layer_norm(x, gain, bias):
    deviation = x - x.mean(-1, keepdims=True)
    return deviation / np.sqrt((deviation**2).mean(-1, keepdims=True) + 1e-5) * gain + bias


def rows(*shape: int, dtype: str = "f4") -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def labels(n: int, classes: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, classes, n)


def agrees(graph: Graph, *arrays: np.ndarray) -> None:
    more = [np.ones(v.aval.shape, v.aval.dtype) for v in graph.inputs[len(arrays) :]]
    for a, b in zip(Executable(graph)(*arrays, *more), evaluate(graph, [*arrays, *more]), strict=True):
        scale = max(1.0, float(np.abs(b).max(initial=0.0)))
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6 * scale)


def softmax(x):
    return F.softmax(x)


def normed(x):
    return layer_norm(x, x[0], x[0])


@pytest.mark.parametrize("fn", [softmax, F.log_softmax, F.logsumexp, normed], ids=lambda f: f.__name__)
def test_forward_is_one_step_that_reads_and_writes_each_once(fn):
    if fn is F.logsumexp:
        fn = lambda x: F.logsumexp(x, -1)  # noqa: E731
    [step] = steps_of(graph_of(fn, rows(8, 50))).steps
    assert isinstance(step, Phases)
    assert len({r.buffer for r in step.reads}) == 1 and len(step.writes) == 1


def test_cross_entropy_and_its_gradient_are_one_pass_over_the_logits():
    x, y = rows(16, 40), labels(16, 40)
    step = fg.TrainStep(lambda p, y: F.cross_entropy(p, y), x, fg.optim.SGD(0.1))
    step(y)
    wide = [
        s
        for s in step.executable.plans[0].steps
        if any(r.buffer.size == x.size for r in (*s.reads, *s.writes))
    ]
    [phases] = wide
    assert isinstance(phases, Phases)
    assert [r.buffer.size for r in phases.writes].count(x.size) == 1, "the gradient alone"


def test_backward_of_layer_norm_is_one_step_and_two_column_sums():
    arrays = rows(32, 24), rows(24), rows(24), rows(32, 24)
    graph = gradient_of(lambda x, g, b, y: (layer_norm(x, g, b) * y).sum(), *arrays)
    graph = replace(graph, outputs=graph.outputs[1:4])  # gradients by x, gain and bias
    found = steps_of(graph).steps
    assert [isinstance(s, Phases) for s in found].count(True) == 1
    assert [s.reduced for s in found if isinstance(s, Loop) and s.shape] == [(0,), (0,)]


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 7), (7, 1), (300, 3), (5, 64), (3, 5000), (2, 3, 33), (0, 4)], ids=str
)
@pytest.mark.parametrize("fn", [softmax, normed], ids=lambda f: f.__name__)
def test_numbers(fn, shape: tuple[int, ...]):
    if fn is normed and shape[0] == 0:
        return
    x = rows(*shape)
    agrees(graph_of(fn, x), x)
    agrees(gradient_of(lambda x: (fn(x) * x).sum(), x), x)


def test_long_rows_stay_in_memory():
    long = BLOCK_BYTES // 4 + 1
    for n, local in ((long - 1, True), (long, False)):
        [step] = steps_of(graph_of(softmax, rows(3, n))).steps
        assert isinstance(step, Phases)
        wide = [
            r
            for part in step.parts
            for r in part.loads
            if isinstance(r.buffer, Local) and len(r.layout.shape) == 2
        ]
        assert any(r.buffer.size == n for r in wide) == local
        x = rows(3, n)
        agrees(graph_of(softmax, x), x)


@pytest.mark.parametrize(
    "fn", [softmax, F.log_softmax, lambda x: layer_norm(x, np.float32(2.0), np.float32(1.0))]
)
def test_the_number_of_rows_changes_no_kernel(fn):
    def texts(n: int) -> list[str]:
        x = rows(n, 20)
        return [cpu.emit(s).text for s in steps_of(gradient_of(lambda x: (fn(x) * x).sum(), x)).steps]

    assert texts(1) == texts(2) == texts(64) == texts(1000)


def test_rows_of_another_order_stay_apart():
    """A sum over all rows, and a transposed reader, see rows that are not their own."""
    x = rows(12, 12)
    for fn in (
        lambda x: x / x.sum(1).sum() + x,
        lambda x: x / x.sum(1),
        lambda x: (x - x.max(1, keepdims=True)).T @ x,
    ):
        agrees(graph_of(fn, x), x)
    found = steps_of(graph_of(lambda x: x / np.tanh(x.sum(1)), x)).steps
    assert not any(isinstance(s, Phases) and len(s.parts) > 2 for s in found)


def test_the_same_bits_on_any_number_of_threads():
    x, y = rows(3000, 70), labels(3000, 70)
    both = [
        fg.value_and_grad(lambda x: F.cross_entropy(x, y) + (F.softmax(x) * x).sum(), threads=n)(x)
        for n in (1, 2)
    ]
    for a, b in zip(*both, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_an_input_that_dies_is_written_over_only_by_a_phase_after_its_last_reader():
    w, x = rows(20, 20), rows(30, 20)
    for fn in (lambda w, x: F.softmax(np.tanh(x @ w)) @ w, lambda w, x: layer_norm(x @ w, w[0], w[1]) @ w):
        agrees(gradient_of(lambda w, x, fn=fn: (fn(w, x) ** 2).sum(), w, x), w, x)


def test_few_long_rows_are_enough_blocks_to_share():
    """Little is written of each, so the bytes read bound the block."""
    [step] = steps_of(graph_of(lambda x: x.mean(1), rows(64, 65536))).steps
    assert isinstance(step, Phases) and step.block == 1
    [step] = steps_of(graph_of(lambda x: x.mean(1), rows(4096, 64))).steps
    assert isinstance(step, Phases) and step.block == 256
