"""After its first call nothing allocates: memory stays flat over thousands of steps and calls."""

from __future__ import annotations

import gc
import os
import tracemalloc

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import nn
from fastgrad.executor import tape
from fastgrad.optim import Adam
from fastgrad.train import cross_entropy_loss, init_mlp

BATCH = 8


def resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def new_step(**options):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((BATCH, 16)).astype(np.float32), rng.integers(0, 5, BATCH)
    step = fg.TrainStep(cross_entropy_loss, init_mlp([16, 24, 5], 0), Adam(1e-3), **options)
    return step, x, y


def a_step():
    step, x, y = new_step()
    return lambda: step(x, y)


def a_parallel_step():
    step, x, y = new_step(threads=2)
    return lambda: step(x, y)


def a_step_on_strided_arrays():
    step, x, y = new_step()
    x = np.asfortranarray(x)
    return lambda: step(x, y)


def a_step_with_a_key_and_a_state():
    def loss(params, seen, key, x, y):
        dropped = nn.functional.dropout(x, 0.25, key=key)
        return cross_entropy_loss(params, dropped, y), seen + 1

    _, x, y = new_step()
    step = fg.TrainStep(
        loss, init_mlp([16, 24, 5], 0), Adam(1e-3), model_state=np.int64(0), key=fg.random.key(0)
    )
    return lambda: step(x, y)


def a_run():
    step, x, y = new_step()
    many = np.tile(x, (3, 1)), np.tile(y, 3)
    return lambda: step.run(*many, batch_size=7, shuffle=0)


def a_function():
    f = fg.jit(lambda x: np.tanh(x).sum(axis=0))
    x = np.ones((8, 16))
    return lambda: f(x)


def a_function_of_a_nesting():
    f = fg.value_and_grad(cross_entropy_loss)
    _, x, y = new_step()
    params = init_mlp([16, 24, 5], 0)
    return lambda: f(params, x, y)


def a_function_into_out():
    run = fg.jit(lambda x: (np.tanh(x).sum(axis=0), x * 2.0)).compile(np.ones((64, 16)))
    x, out = np.ones((64, 16)), [np.empty(16), np.empty((64, 16))]
    return lambda: run(x, out=out)


def a_function_of_a_number():
    f = fg.jit(lambda x, a: x * a)
    x = np.ones(16)
    return lambda: f(x, 0.5)


def a_pullback():
    x = np.ones((8, 16))

    def f(x):
        return np.tanh(x)

    def once():
        out, pullback = fg.vjp(f, x)
        return pullback(out)

    return once


def a_failing_step():
    step, x, y = new_step()

    def once():
        try:
            step(x, y + 5)
        except IndexError:
            return
        raise AssertionError("a label outside the classes went through")

    return once


JOBS = [
    a_step, a_parallel_step, a_step_on_strided_arrays, a_step_with_a_key_and_a_state, a_run, a_function,
    a_function_of_a_nesting,
    a_function_into_out, a_function_of_a_number, a_pullback, a_failing_step,
]  # fmt: skip


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.__name__)
def test_traced_memory_is_flat_over_2000_calls(job, monkeypatch):
    if job is a_parallel_step:
        monkeypatch.setattr(tape, "PARALLEL_NS", -1.0)
        monkeypatch.setattr(tape, "REGION_NS", -1.0)
    once = job()
    calls = 2000
    for _ in range(5):
        once()
    tracemalloc.start()
    try:
        for _ in range(100):
            once()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(calls - 100):
            once()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        # Python's own free lists take some 35 kB before they are full; one object of 32 bytes lost a call were 60 kB.
        assert after - before < 48_000, f"{after - before} bytes more after {calls - 100} calls"
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
@pytest.mark.parametrize(
    "job",
    [a_step, a_step_with_a_key_and_a_state, a_run, a_function_into_out, a_pullback],
    ids=lambda job: job.__name__,
)
def test_resident_memory_is_flat_over_5000_calls(job):
    once = job()
    for _ in range(300):
        once()
    gc.collect()
    before = resident()
    for _ in range(5000):
        once()
    gc.collect()
    assert resident() - before < 2**20


def test_a_call_with_out_allocates_no_arrays():
    once = a_function_into_out()
    once()
    tracemalloc.start()
    try:
        once()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        once()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 4096  # the larger result alone has 8192 bytes


def test_a_step_allocates_its_loss_alone():
    step, x, y = new_step()
    step(x, y)
    tracemalloc.start()
    try:
        step(x, y)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        loss = step(x, y)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert loss.nbytes == 4
    assert peak - before < 1024


def test_workspaces_and_blocks_are_used_again():
    f = fg.jit(lambda x: np.tanh(x).sum(axis=0))
    x = np.ones((8, 16))
    for _ in range(50):
        f(x)
    executable = f.compile(x)
    assert len(executable._pool.free) == 1


def test_many_signatures_of_one_function_are_kept_small():
    """Each new shape keeps a plan and a workspace; a hundred of a small function must not cost megabytes."""
    f = fg.jit(lambda x: np.tanh(x) * 2.0)
    f(np.ones(5))
    tracemalloc.start()
    try:
        f(np.ones(6))
        before, _ = tracemalloc.get_traced_memory()
        for n in range(7, 107):
            f(np.ones(n))
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / 100 < 100_000
