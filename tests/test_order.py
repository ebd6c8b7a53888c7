"""The order of steps: what depends on what stays so, and values die sooner."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import memory
from fastgrad.core.loops import Layout
from fastgrad.nn import functional as F
from fastgrad.schedule import Buffer, Gemm, Pack, Ref, Routine, Step
from fastgrad.schedule.order import ordered


def step(reads: Sequence[Buffer], writes: Sequence[Buffer], kind: str = "routine") -> Step:
    def refs(buffers: Sequence[Buffer]) -> tuple[Ref, ...]:
        return tuple(Ref(b, Layout.contiguous((b.size,))) for b in buffers)

    if kind == "pack":
        return Pack(*refs(reads), *refs(writes), 1)
    return (
        _Plain(refs(reads), refs(writes)) if kind == "loop" else Routine("r", refs(reads), refs(writes), ())
    )  # type: ignore[return-value]


class _Plain:
    """A step of no kind that the order treats in a way of its own."""

    def __init__(self, reads: tuple[Ref, ...], writes: tuple[Ref, ...]):
        self.reads, self.writes = reads, writes


def buffer(size: int = 64) -> Buffer:
    return Buffer(size, np.dtype(np.uint8))


def test_gradients_of_weights_come_before_those_of_inputs() -> None:
    x, dy, dx, dw = (buffer() for _ in range(4))
    steps = [
        step([], [x], "loop"),
        step([], [dy], "loop"),
        step([dy, x], [dx], "loop"),
        step([x, dy], [dw], "loop"),
    ]
    steps.append(step([dx], [dw2 := buffer()], "loop"))
    got = ordered(steps, {dw, dw2}, {})
    assert got == (steps[0], steps[1], steps[3], steps[2], steps[4])


@pytest.mark.parametrize("seed", range(30))
def test_every_step_finds_what_it_found_before(seed: int) -> None:
    """Random programs that write buffers again and again: each read meets the same write as in the order given."""
    rng = random.Random(seed)
    buffers = [buffer(rng.choice([64, 640, 6400])) for _ in range(12)]
    steps = []
    for _ in range(60):
        reads, writes = rng.sample(buffers, rng.randrange(3)), rng.sample(buffers, 1 + rng.randrange(2))
        steps.append(step(reads, writes, rng.choice(["loop", "loop", "routine"])))
    replaced = {buffers[0]: buffers[1]}
    got = ordered(steps, set(buffers[:3]), replaced)
    assert sorted(map(id, got)) == sorted(map(id, steps))

    def meets(program: Sequence[Step]) -> dict[Step, list[Step | None]]:
        latest: dict[Buffer, Step | None] = {}
        found: dict[Step, list[Step | None]] = {}
        for s in program:
            # A write that another follows is seen by nobody else: both the value and what it writes over count.
            found[s] = [latest.get(ref.buffer) for ref in (*s.reads, *s.writes)]
            latest.update((ref.buffer, s) for ref in s.writes)
        return found

    assert meets(got) == meets(steps)
    failing = [s for s in got if isinstance(s, Routine)]
    assert failing == [s for s in steps if isinstance(s, Routine)]
    place = {s: i for i, s in enumerate(got)}
    for i, writer in enumerate(steps):
        if any(ref.buffer is buffers[0] for ref in writer.writes):
            for reader in steps[:i]:
                if any(ref.buffer is buffers[1] for ref in reader.reads):
                    assert place[reader] < place[writer]
    assert ordered(steps, set(buffers[:3]), replaced) == got


def test_what_only_looks_whether_to_go_on_comes_first() -> None:
    labels, x, checked, result = (buffer() for _ in range(4))
    check = Routine("check_index", step([labels], [], "loop").reads, step([], [checked], "loop").writes, ())
    steps = [step([], [x], "loop"), check, step([x, checked], [result], "loop")]
    assert ordered(steps, {labels, result}, {}) == (check, steps[0], steps[2])
    before = step([], [labels])
    assert ordered([before, *steps], {result}, {})[:2] == (before, check)


def test_what_packs_an_operand_stays_before_its_product() -> None:
    a, panel, other, c = (buffer() for _ in range(4))
    steps = [
        step([], [a], "loop"),
        step([a], [panel], "pack"),
        step([panel], [c], "loop"),
        step([a], [other], "loop"),
    ]
    got = ordered(steps, {c, other}, {})
    assert got.index(steps[2]) == got.index(steps[1]) + 1
    assert ordered([], set(), {}) == ()


def most_alive(steps: Sequence[Step], placed: set[Buffer]) -> int:
    uses: dict[Buffer, list[int]] = {}
    for i, s in enumerate(steps):
        for ref in (*s.reads, *s.writes):
            uses.setdefault(ref.buffer, []).append(i)
    lives = [(min(u), max(u), b.nbytes) for b, u in uses.items() if b not in placed]
    return max(sum(n for first, last, n in lives if first <= i <= last) for i in range(len(steps)))


@pytest.mark.parametrize("seed", range(30))
def test_no_more_is_alive_than_before(seed: int) -> None:
    rng = random.Random(seed)
    made, results = [buffer()], set()
    steps = [step([], made, "loop")]
    for _ in range(60):
        out = buffer(rng.choice([64, 640, 6400]))
        steps.append(step(rng.sample(made, min(len(made), 1 + rng.randrange(3))), [out], "loop"))
        if rng.random() < 0.4:
            results.add(out)
        else:
            made.append(out)
    got = ordered(steps, results, {})
    assert most_alive(got, results) <= most_alive(steps, results)
    assert got != tuple(steps)


# -- products in place -------------------------------------------------------------------------------------------------

SIZES = [(64, 96, 40), (1, 7, 5), (33, 65, 130), (128, 1, 9), (257, 130, 64)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products_written_over_an_operand_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int, int], dtype: str
) -> None:
    m, k, n = size
    rng = np.random.default_rng(0)
    x, w, v = (rng.standard_normal(s).astype(dtype) for s in ((m, k), (k, n), (n, k)))

    def f(x: np.ndarray, w: np.ndarray, v: np.ndarray) -> np.ndarray:
        h = np.tanh(x * 2.0)  # is born here and dies in the second product's epilogue
        return np.tanh((h @ w) @ v * h) @ w

    def run(threads: int) -> tuple[np.ndarray, bool]:
        it = fg.jit(lambda *arrays: f(*arrays), threads=threads)
        plan = it.compile(x, w, v).memory_plan()
        places = [
            ({plan.locations[r.buffer] for r in s.loads} & {plan.locations[r.buffer] for r in s.stores})
            for s in plan.steps
            if isinstance(s, Gemm)
        ]
        return it(x, w, v), any(places)

    got, in_place = zip(*(run(threads) for threads in (1, 2)), strict=True)
    monkeypatch.setattr(memory, "_product_in_place", lambda *_: False)
    apart, separate = run(2)
    assert all(in_place) and not separate
    for result in got:
        np.testing.assert_array_equal(result, apart)


def test_a_product_is_not_written_over_its_own_factor() -> None:
    x = np.random.default_rng(0).standard_normal((48, 48)).astype(np.float32)

    def f(x: np.ndarray) -> np.ndarray:
        h = np.tanh(x)
        return (h @ h) * h

    h = np.tanh(x.astype(np.float64))
    np.testing.assert_allclose(fg.jit(f)(x), h @ h * h, atol=1e-4)


def test_layers_of_a_network_take_their_activations_and_little_more() -> None:
    """In backward each gradient takes the place of the activation that it belongs to."""
    rng = np.random.default_rng(0)
    width, rows, layers = 64, 32, 5
    params = [rng.standard_normal((width, width)).astype(np.float32) / 8 for _ in range(layers)]
    x, labels = rng.standard_normal((rows, width)).astype(np.float32), rng.integers(0, width, rows)

    def loss(params: list, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
        for w in params[:-1]:
            x = F.relu(x @ w)
        return F.cross_entropy(x @ params[-1], labels)

    train = fg.TrainStep(loss, params, fg.optim.SGD(1e-3), threads=1)
    train(x, labels)
    plan = train.executable.memory_plan()
    assert plan.arena_bytes <= (layers + 1.5) * x.nbytes
    assert plan.arena_bytes <= 0.6 * plan.naive_bytes
