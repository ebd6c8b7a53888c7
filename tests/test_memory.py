"""The memory plan: live values never share bytes, but where a step writes over the operand that dies in it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import autodiff, memory, passes, pytree
from fastgrad.core.aval import aval_of
from fastgrad.core.graph import Graph
from fastgrad.memory import Location, MemoryPlan
from fastgrad.nn import functional as F
from fastgrad.placement import ALIGN, rounded
from fastgrad.schedule import Buffer, Gemm, Loop, Phases, schedule
from fastgrad.trace import trace


def f32(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def graph_of(fn: Callable, *arrays: np.ndarray) -> Graph:
    def flat(*xs):
        out = fn(*xs)
        return list(out) if isinstance(out, tuple) else [out]

    return trace(flat, [aval_of(a) for a in arrays], name=getattr(fn, "__name__", "f"))


def plan_of(graph: Graph) -> MemoryPlan:
    steps = schedule(passes.run(graph))
    inputs = [Location("input", i) for i in range(len(steps.inputs))]
    return memory.plan(steps, inputs, [Location("output", i) for i in range(len(steps.outputs))])


def mlp(x, w1, b1, w2, b2, y):
    return F.cross_entropy(F.relu(x @ w1 + b1) @ w2 + b2, y)


MLP = (f32(32, 64), f32(64, 32), f32(32), f32(32, 10), f32(10), np.zeros(32, np.int64))


def chain(x):
    for _ in range(12):
        x = np.tanh(x @ x)
    return x


def branches(x):
    parts = [np.exp(x.sum(i)) @ x.sum(1 - i).reshape(-1, 1) for i in (0, 1)]
    return np.concatenate([*parts, np.cos(x)[0]])


def recurrence(x):
    out = np.zeros_like(x)
    for i in range(len(x)):
        out[i] = np.tanh(x[i]) + (0.5 * out[i - 1] if i else 0.0)
    out[np.array([0, 0, 2])] *= 2.0
    return (out.T[1:] * x.T[1:]).sum()


def mlp_plan() -> MemoryPlan:
    return plan_of(autodiff.vjp(graph_of(mlp, *MLP), range(1, 5)))


def second_order() -> MemoryPlan:
    x = np.ones((6, 4))
    once = autodiff.vjp(graph_of(lambda x: F.softmax(x * x, -1).sum(0).max(), x), [0])
    return plan_of(autodiff.vjp(once, [0]))


def train_step_plans() -> list[MemoryPlan]:
    def loss(p, x, y):
        return mlp(x, p["w1"], p["b1"], p["w2"], p["b2"], y)

    x, w1, b1, w2, b2, y = MLP
    params = {"w1": w1, "b1": b1, "w2": w2, "b2": b2}
    step = fg.TrainStep(loss, params, fg.optim.Adam(1e-3), threads=1)
    step(x, y)
    return list(step.executable.plans)


PLANS: dict[str, Callable[[], list[MemoryPlan]]] = {
    "mlp": lambda: [mlp_plan()],
    "chain": lambda: [plan_of(autodiff.vjp(graph_of(chain, f32(8, 8)), [0]))],
    "branches": lambda: [plan_of(graph_of(branches, f32(5, 5)))],
    "second order": lambda: [second_order()],
    "empty": lambda: [plan_of(graph_of(lambda x: (np.exp(x).sum(0), x.sum()), f32(0, 3)))],
    "recurrence": lambda: [plan_of(autodiff.vjp(graph_of(recurrence, f32(6, 4)), [0]))],
    "train step": train_step_plans,
}
plans = pytest.mark.parametrize("plan", [pytest.param(make, id=name) for name, make in PLANS.items()])


def inheritance(plan: MemoryPlan) -> dict[Buffer, Buffer]:
    """Which buffer took the place of which, in the step where one is born and the other dies."""
    found = {}
    for old, new in itertools.permutations(plan.intervals, 2):
        meets = plan.intervals[old].last == plan.intervals[new].first
        if meets and plan.locations[old] == plan.locations[new] and old.size and new.size:
            found[new] = old
    return found


def assert_nothing_is_shared(plan: MemoryPlan) -> None:
    """Two buffers that are alive at one step lie apart, unless one inherits the other's place in that step."""
    heirs = inheritance(plan)
    for a, b in itertools.combinations(plan.intervals, 2):
        (first_a, last_a), (first_b, last_b) = plan.intervals[a], plan.intervals[b]
        alive_together = first_a <= last_b and first_b <= last_a
        if not alive_together or heirs.get(a) is b or heirs.get(b) is a:
            continue
        if plan.locations[a].space != plan.locations[b].space:
            continue
        start_a, start_b = plan.locations[a].offset, plan.locations[b].offset
        assert start_a + a.nbytes <= start_b or start_b + b.nbytes <= start_a


@plans
def test_live_values_lie_apart(plan):
    for p in plan():
        assert_nothing_is_shared(p)


@plans
def test_offsets_are_cache_lines_inside_the_arena(plan):
    for p in plan():
        for buffer in p.intervals:
            where = p.locations[buffer]
            assert where.space in ("arena", "state") and where.offset % ALIGN == 0
            if where.space == "arena":
                assert 0 <= where.offset <= p.arena_bytes - buffer.nbytes


@plans
def test_intervals_run_from_the_first_write_to_the_last_use(plan):
    for p in plan():
        for buffer, interval in p.intervals.items():
            writes = [i for i, s in enumerate(p.steps) if any(r.buffer is buffer for r in s.writes)]
            reads = [i for i, s in enumerate(p.steps) if any(r.buffer is buffer for r in s.reads)]
            assert interval == (min(writes), max(writes + reads))
            assert not reads or min(reads) >= min(writes)


@plans
def test_in_place_only_where_the_last_reader_is_the_writer(plan):
    for p in plan():
        for new, old in inheritance(p).items():
            step = p.steps[p.intervals[new].first]
            assert isinstance(step, Loop | Phases | Gemm), "these read each element before they write it"
            assert new.size == old.size and new.dtype.itemsize == old.dtype.itemsize
            if isinstance(step, Gemm):
                [store] = [r for r in step.stores if r.buffer is new]
                [load] = [r for r in step.reads if r.buffer is old]
                assert load in step.loads, "an element of A or B serves many of C"
                assert store.layout == load.layout
                continue
            parts = step.parts if isinstance(step, Phases) else (step,)
            [(last, store)] = [(p, r) for p, part in enumerate(parts) for r in part.stores if r.buffer is new]
            loads = [(p, r) for p, part in enumerate(parts) for r in part.loads if r.buffer is old]
            assert store.layout.is_contiguous
            assert loads and all(p <= last and r.layout == store.layout for p, r in loads)
            assert len([p for p, _ in loads if p == last]) <= 1, (
                "later loads of an element would follow its store"
            )


@plans
def test_everything_has_one_place(plan):
    for p in plan():
        used = {r.buffer for s in p.steps for r in (*s.reads, *s.writes)}
        assert used <= set(p.locations)
        given = {*p.schedule.inputs, *p.schedule.outputs}
        assert used - given == set(p.intervals) & used


def test_state_is_updated_in_place_or_after_its_last_reader():
    for p in train_step_plans():
        places: dict[Location, list[Buffer]] = {}
        for buffer, where in p.locations.items():
            if where.space == "state" and buffer not in p.intervals:
                places.setdefault(where, []).append(buffer)
        for buffers in places.values():
            for new in buffers:
                writers = [i for i, s in enumerate(p.steps) if any(r.buffer is new for r in s.writes)]
                others = [b for b in buffers if b is not new]
                readers = [i for i, s in enumerate(p.steps) if any(r.buffer in others for r in s.reads)]
                assert not writers or not readers or max(readers) <= min(writers)


def lent(plan: MemoryPlan) -> list[Buffer]:
    """The values that lie in memory of the state."""
    return [b for b in plan.intervals if plan.locations[b].space == "state"]


def test_gradients_lend_their_memory_until_they_are_written():
    first, second = train_step_plans()
    assert lent(first) and not lent(second)
    known = {first.locations[b] for b in first.schedule.inputs}
    outputs = [b for b in first.schedule.outputs if first.locations[b].space == "state"]
    assert not known & {first.locations[b] for b in outputs}
    written = {
        b: min(i for i, s in enumerate(first.steps) if b in {r.buffer for r in s.writes}) for b in outputs
    }
    for buffer in lent(first):
        start = first.locations[buffer].offset
        (lender,) = [
            b for b in outputs
            if first.locations[b].offset <= start and start + buffer.nbytes <= first.locations[b].offset + b.nbytes
        ]  # fmt: skip
        assert first.intervals[buffer].last < written[lender]


def test_training_with_lent_memory_gives_the_same_bits(monkeypatch):
    def loss(p, x, y):
        h = np.tanh(x @ p["w1"] + p["b1"])
        h = F.relu(h @ p["w2"] + p["b2"]) + h
        return F.cross_entropy(h @ p["w3"] + p["b3"], y)

    rng = np.random.default_rng(0)
    sizes = {"w1": (20, 37), "w2": (37, 37), "w3": (37, 5), "b1": (37,), "b2": (37,), "b3": (5,)}
    params = {name: (rng.standard_normal(s) / 6).astype(np.float32) for name, s in sizes.items()}
    x, y = rng.standard_normal((24, 20)).astype(np.float32), rng.integers(0, 5, 24)

    def train():
        step = fg.TrainStep(loss, params, fg.optim.Adam(1e-2), threads=2)
        losses = [step(x, y) for _ in range(5)] + list(step.run(x, y, batch_size=7, shuffle=0))
        flat = step._state.flat("grads", np.dtype(np.float32))
        used = sum(-(-g.size // 16) * 16 for g in step.grads.values())
        gaps = flat.copy()
        for g in step.grads.values():
            at = (g.ctypes.data - flat.ctypes.data) // 4
            gaps[at : at + g.size] = 0
        assert used == flat.size and not gaps.any(), "gaps between leaves stay zero"
        return losses, step.snapshot(), len(lent(step.executable.plans[0]))

    losses, snapshot, count = train()
    monkeypatch.setattr(memory, "lend", lambda blocks, rooms: {})
    others, other, none = train()
    assert count and not none
    np.testing.assert_array_equal(losses, others)
    for a, b in zip(pytree.flatten(snapshot)[0], pytree.flatten(other)[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_results_and_inputs_lend_nothing():
    assert not lent(mlp_plan())
    graph = autodiff.vjp(graph_of(mlp, *MLP), range(1, 5))
    steps = schedule(passes.run(graph))
    inputs = [Location("state", 0, 65536 * i) for i in range(len(steps.inputs))]
    outputs = inputs[: len(steps.outputs)]
    assert not lent(memory.plan(steps, inputs, outputs, borrow=True))


def test_in_place_happens():
    chained = graph_of(lambda x: np.exp(np.tanh(x).reshape(-1)[::1]).sum(0), f32(8, 8))
    kept = graph_of(lambda x, y: (np.tanh(x.sum(0)) @ y, np.exp(y)), f32(4, 4), f32(4, 4))
    assert any(inheritance(plan_of(g)) for g in (chained, kept, autodiff.vjp(graph_of(mlp, *MLP), [1, 3])))


def test_the_arena_is_smaller_than_the_sum():
    plan = mlp_plan()
    heirs = inheritance(plan)
    live = [
        sum(
            rounded(b.nbytes)
            for b, (first, last) in plan.intervals.items()
            if first + (b in heirs) <= i <= last
        )
        for i in range(len(plan.steps))
    ]
    assert plan.naive_bytes >= sum(b.nbytes for b in plan.intervals)
    assert max(live) <= plan.arena_bytes <= 0.6 * plan.naive_bytes


def test_a_long_chain_takes_the_memory_of_a_short_one():
    def longer(n):
        def power(x):
            for _ in range(n):
                x = x @ x
            return x

        return plan_of(graph_of(power, f32(16, 16))).arena_bytes

    assert longer(30) == longer(3)


def test_the_plan_prints_its_sizes():
    plan = mlp_plan()
    text = str(plan)
    assert f"arena {plan.arena_bytes} bytes" in text and str(plan.naive_bytes) in text
    assert len(text.splitlines()) == 2 + len(plan.intervals)
