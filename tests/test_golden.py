"""Every stage of three small functions, as text in `tests/golden/`: a change of the compiler shows as a diff there.

``pytest tests/test_golden.py --update-golden`` writes the texts anew. Line numbers of this file are masked.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastgrad import autodiff, memory, passes
from fastgrad.codegen import cpu
from fastgrad.core.aval import aval_of
from fastgrad.core.graph import Graph
from fastgrad.memory import Location, MemoryPlan
from fastgrad.nn import functional as F
from fastgrad.schedule import schedule
from fastgrad.trace import trace

GOLDEN = Path(__file__).parent / "golden"


def mlp_loss(w1, b1, w2, b2, x, y):
    hidden = F.relu(F.linear(x, w1, b1))
    return F.cross_entropy(F.linear(hidden, w2, b2), y)


def broadcast_softmax(x, row, column):
    scores = np.exp(x * row) + column
    return np.sum(F.softmax(scores, axis=-1) * x, axis=0)


def running_columns(decay, x):
    out = np.zeros_like(x)
    out[:, 0] = x[:, 0]
    for j in (1, 2):
        out[:, j] = out[:, j - 1] * decay[j] + x[:, j]
    return np.tanh(out)


def dropout_layer(w, key, x, y):
    return np.sum(F.dropout(np.tanh(x @ w), 0.5, key=key) * y)


def f32(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


EXAMPLES: dict[
    str, tuple[Callable, list[np.ndarray], int]
] = {  # the function, its inputs, how many are parameters
    "mlp_loss": (mlp_loss, [f32(8, 16), f32(16), f32(16, 4), f32(4), f32(32, 8), np.zeros(32, np.int64)], 4),
    "dropout_layer": (dropout_layer, [f32(8, 16), np.zeros(2, np.uint32), f32(32, 8), f32(32, 16)], 1),
    "broadcast_softmax": (broadcast_softmax, [f32(6, 5), f32(5), f32(6, 1)], 3),
    "running_columns": (running_columns, [f32(3), f32(6, 3)], 2),
}
STAGES = ("trace", "autodiff", "passes", "schedule", "memory", "codegen")


def traced(name: str) -> Graph:
    fn, arrays, _ = EXAMPLES[name]
    return trace(lambda *xs: [fn(*xs)], [aval_of(a) for a in arrays], name=name)


def planned(graph: Graph) -> MemoryPlan:
    steps = schedule(graph)
    inputs = [Location("input", i) for i in range(len(steps.inputs))]
    return memory.plan(steps, inputs, [Location("output", i) for i in range(len(steps.outputs))])


def kernels(plan: MemoryPlan) -> str:
    rows: dict[str, list[int]] = {}
    for i, step in enumerate(plan.steps):
        rows.setdefault(cpu.emit(step).text, []).append(i)
    return "\n".join(f"# steps {', '.join(map(str, steps))}\n{text}" for text, steps in rows.items())


def stage_text(name: str, stage: str) -> str:
    graph = traced(name)
    if stage == "trace":
        return str(graph)
    joint = autodiff.vjp(graph, range(EXAMPLES[name][2]))
    if stage == "autodiff":
        return str(joint)
    simplified = passes.run(joint)
    if stage == "passes":
        return str(simplified)
    plan = planned(simplified)
    return {"schedule": str(plan.schedule), "memory": str(plan)}.get(stage) or kernels(plan)


def masked(text: str) -> str:
    """``text`` without the line numbers of this file and without trailing blanks."""
    text = re.sub(rf"{re.escape(Path(__file__).name)}:\d+", "test_golden.py:N", text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@pytest.fixture(autouse=True)
def one_machine(monkeypatch):
    """The register tile of a machine with AVX2: kernel text holds it, wherever the tests run."""
    monkeypatch.setattr(cpu, "cpu_features", lambda: {"avx2": True, "fma": True})


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_text_is_golden(name: str, stage: str, update_golden: bool):
    path, text = GOLDEN / f"{name}.{stage}.txt", masked(stage_text(name, stage))
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, (
        f"{path.name} changed: --update-golden, then read its diff"
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_same_function_gives_the_same_text(name: str):
    for stage in STAGES:
        assert stage_text(name, stage) == stage_text(name, stage)


@pytest.mark.parametrize("name", EXAMPLES)
def test_another_batch_size_gives_the_same_kernels(name: str, monkeypatch):
    before = stage_text(name, "codegen")
    fn, arrays, n = EXAMPLES[name]
    for rows in (1, 7, 33):
        batch = max(a.shape[0] for a in arrays[-2:])
        resized = [np.zeros((rows, *a.shape[1:]), a.dtype) if a.shape[0] == batch else a for a in arrays]
        monkeypatch.setitem(EXAMPLES, name, (fn, resized, n))
        assert stage_text(name, "codegen") == before
