"""Every program with loops against the same written out, under every transformation."""

from __future__ import annotations

import numpy as np
import pytest
from programs import BACKENDS, PROGRAMS, TRANSFORMATIONS, Program, equal, random_inputs, run, transformed

from fastgrad.interpreter import evaluate

backends = pytest.mark.parametrize("backend", BACKENDS)


@backends
@pytest.mark.parametrize("name", TRANSFORMATIONS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_a_loop_is_its_steps_written_out(program: Program, name: str, backend: str):
    graph, twin = transformed(program.graph(), name), transformed(program.graph(twin=True), name)
    arrays = random_inputs(twin)
    expected = evaluate(twin, arrays)
    equal(run(graph, arrays, backend), expected)
    equal(evaluate(graph, arrays), expected)  # before the passes


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_derivatives_are_differences(program: Program):
    arrays, rng = program.inputs(), np.random.default_rng(2)
    graph, step = program.graph(), 1e-6
    directions = [rng.standard_normal(a.shape) for a in arrays]
    high, low = (
        evaluate(graph, [a + s * step * d for a, d in zip(arrays, directions, strict=True)]) for s in (1, -1)
    )
    expected = [(h - l) / (2 * step) for h, l in zip(high, low, strict=True)]
    pushed = run(transformed(graph, "jvp"), [*arrays, *directions])[len(expected) :]
    equal(pushed, expected, 1e-7)
    cts = [rng.standard_normal(np.shape(e)) for e in expected]
    pulled = run(transformed(graph, "vjp"), [*arrays, *cts])[len(expected) :]
    left = sum(np.vdot(c, e) for c, e in zip(cts, expected, strict=True))
    np.testing.assert_allclose(sum(map(np.vdot, pulled, directions)), left, rtol=1e-7, atol=1e-8)
