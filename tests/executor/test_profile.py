"""Profiles: a row a kernel, work that is right by hand, calls that are counted, and nothing changed by looking."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import passes
from fastgrad.codegen import bfloat16, packing
from fastgrad.core.aval import aval_of
from fastgrad.errors import ArgumentError, DTypeError, OutOfBoundsError, ShapeError
from fastgrad.executor import cpu, measure, tape
from fastgrad.executor.profile import Profile
from fastgrad.executor.row import KINDS
from fastgrad.executor.work import work_of
from fastgrad.machine import shipped
from fastgrad.nn import functional as F
from fastgrad.passes.precision import lowered
from fastgrad.schedule import Gemm, schedule
from fastgrad.trace import trace

THREADS = [1, 2]


def network(params, x, labels):
    hidden = np.tanh(x @ params["w"] + params["b"])
    return F.cross_entropy(hidden @ params["v"], labels)


def parameters(dtype=np.float32):
    rng = np.random.default_rng(0)
    shapes = {"w": (16, 96), "b": (96,), "v": (96, 5)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def batch(n=64, dtype=np.float32):
    rng = np.random.default_rng(1)
    return rng.standard_normal((n, 16)).astype(dtype), rng.integers(0, 5, n)


def step_of(threads=1, optimizer=None, **options):
    return fg.TrainStep(network, parameters(), optimizer or fg.optim.Adam(1e-2), threads=threads, **options)


def leaves(tree):
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
    return [np.array(tree)]


@pytest.fixture
def shared(monkeypatch):
    """Every row that has tiles enough is shared among threads."""
    monkeypatch.setattr(tape, "PARALLEL_NS", -1.0)
    monkeypatch.setattr(tape, "REGION_NS", -1.0)


@pytest.mark.parametrize("threads", THREADS)
def test_every_kernel_of_the_plan_is_a_row(threads, shared):
    step = step_of(threads)
    step(*batch())
    program = step.executable
    profile = program.profile(*batch(), runs=3)
    assert [row.number for row in profile.rows] == list(range(len(program.native.tape.sources)))
    assert [row.kernel for row in profile.rows] == [str(s.step) for s in program.native.tape.sources]
    assert all(row.calls == 1 and row.ns >= 0 and row.kind in KINDS for row in profile.rows)
    assert {row.kind for row in profile.rows} >= {"product", "fold", "update", "library"}
    assert profile.threads == min(threads, program.native.runtime.pool_threads) and profile.runs == 3
    assert {row.threads for row in profile.rows} == ({1, 2} if profile.threads == 2 else {1})
    assert "test_profile.py" in profile.rows[0].lines[0]


@pytest.mark.parametrize("threads", THREADS)
def test_the_whole_is_its_rows_and_the_overhead(threads):
    step = step_of(threads)
    step(*batch())
    profile = step.executable.profile(*batch(), runs=20)
    assert profile.step_ns > 0 and profile.kernels_ns > 0 and profile.control_ns == 0
    whole = (
        sum(row.ns for row in profile.rows) + profile.control_ns + profile.unsteady_ns + profile.overhead_ns
    )
    assert whole == pytest.approx(profile.step_ns)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_work_of_a_product(threads, dtype):
    x, y = np.ones((48, 20), dtype), np.ones((20, 30), dtype)
    profile = fg.jit(lambda x, y: x @ y, threads=threads).compile(x, y).profile(x, y, runs=2)
    (row,) = profile.rows
    assert (row.kind, row.ops, row.dtype) == ("product", "matmul", np.dtype(dtype).name)
    assert row.flops == profile.flops == 2 * 48 * 20 * 30
    assert (row.read, row.written) == (x.nbytes + y.nbytes, 48 * 30 * x.itemsize)
    assert row.compute_ns == pytest.approx(row.flops / profile.rates.peak(row.dtype, row.threads))


def test_an_epilogue_counts_and_a_broadcast_operand_is_read_once():
    x, w, b = np.ones((8, 4), np.float32), np.ones((4, 6), np.float32), np.ones(6, np.float32)
    (row,) = fg.jit(lambda x, w, b: np.maximum(x @ w + b, 0.0)).compile(x, w, b).profile(x, w, b, runs=1).rows
    assert row.flops == 2 * 8 * 4 * 6 + 2 * 8 * 6
    assert row.read == x.nbytes + w.nbytes + b.nbytes and row.written == 8 * 6 * 4


def test_work_of_a_map_and_a_fold():
    x, y = np.ones((10, 30)), np.ones(30)
    (row,) = fg.jit(lambda x, y: x * y + 1.0).compile(x, y).profile(x, y, runs=1).rows
    assert (row.kind, row.flops, row.read, row.written) == ("map", 600, x.nbytes + y.nbytes, x.nbytes)
    (row,) = fg.jit(lambda x: (x * x).sum(axis=1)).compile(x).profile(x, runs=1).rows
    assert (row.kind, row.flops, row.read, row.written) == ("fold", 600, x.nbytes, 80)


def test_a_routine_reads_what_it_picks():
    x, i = np.ones((1000, 8)), np.array([3, 5])
    rows = fg.jit(lambda x, i: x[i] * 2.0).compile(x, i).profile(x, i, runs=1).rows
    (take,) = [row for row in rows if row.kind == "library"]
    assert take.read == 2 * 8 * 8 + i.nbytes and take.written == 2 * 8 * 8


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize(
    "optimizer", [fg.optim.Adam(1e-2), fg.optim.SGD(0.1, momentum=0.9)], ids=["adam", "sgd"]
)
def test_nothing_changes(threads, optimizer, shared):
    step = step_of(threads, optimizer)
    for _ in range(3):
        step(*batch())
    x, labels = batch()
    before, given = step.snapshot(), (x.copy(), labels.copy())
    grads = [g.copy() for g in leaves(step.grads)]
    step.executable.profile(x, labels, runs=70)  # more than after which the copy begins anew
    after = step.snapshot()
    assert all(a.tobytes() == b.tobytes() for a, b in zip(leaves(before), leaves(after), strict=True))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(grads, leaves(step.grads), strict=True))
    assert x.tobytes() == given[0].tobytes() and labels.tobytes() == given[1].tobytes()


def test_the_next_step_is_what_it_would_have_been():
    one, other = step_of(), step_of()
    first = one(*batch()), other(*batch())
    one.executable.profile(*batch(), runs=5)
    assert first[0] == first[1] and one(*batch()) == other(*batch())


def test_a_label_out_of_bounds_raises_and_changes_nothing():
    step = step_of()
    x, labels = batch()
    step(x, labels)
    before = step.snapshot()
    labels[7] = 5
    with pytest.raises(OutOfBoundsError, match="index 5 is out of bounds for an axis of size 5"):
        step.executable.profile(x, labels)
    assert all(
        a.tobytes() == b.tobytes() for a, b in zip(leaves(before), leaves(step.snapshot()), strict=True)
    )
    assert np.isfinite(step.executable.profile(*batch(), runs=1).step_ns)


@pytest.mark.parametrize("threads", THREADS)
def test_rows_of_a_loop_are_counted(threads, shared):
    def f(x, w):
        return fg.scan(lambda h, _: (np.tanh(h @ w), h.sum()), x, None, 7)

    x, w = np.ones((4, 4)), np.eye(4)
    profile = fg.jit(f, threads=threads).compile(x, w).profile(x, w, runs=3)
    (product,) = [row for row in profile.rows if row.kind == "product"]
    assert product.calls == 7
    assert profile.control_ns > 0
    events = [e for e in profile.events if e.row == product.number]
    assert len(events) == 7 and all(e.begin <= e.end for e in events)
    assert "loops and branches" in str(profile)


def test_a_while_loop_and_a_branch_that_is_not_taken():
    def f(x):
        x = fg.while_loop(lambda x: x.sum() < 100.0, lambda x: x * 2.0, x)
        return fg.cond(x[0] > 0.0, lambda x: np.exp(-x), lambda x: np.sin(x) + 1.0, x)

    x = np.ones(4)
    rows = fg.jit(f).compile(x).profile(x, runs=2).rows
    calls = {row.ops: row.calls for row in rows}
    assert calls["mul"] == 5
    assert 0 in calls.values() and all(row.ns == 0 for row in rows if row.calls == 0)
    assert all(row.gflops == row.of_limit == 0.0 for row in rows if row.calls == 0)


def test_a_run_that_pauses(monkeypatch):
    """Longer than its allowance, it returns to Python on the way: results live on, and every row is counted once."""
    monkeypatch.setattr(cpu, "ALLOWANCE_NS", 50_000)
    x = np.full(4096, 0.5)
    f = fg.jit(lambda x: fg.fori_loop(0, 3000, lambda i, x: np.tanh(x) * 1.5, x), threads=1)
    profile = f.compile(x).profile(x, runs=2)
    (row,) = [row for row in profile.rows if row.calls > 1]
    assert row.calls == 3000 and profile.unseen > 0


def test_many_steps_in_one_call():
    step, (x, labels) = step_of(), batch(96)
    step.run(x, labels, batch_size=32)
    before = step.snapshot()
    profile = step.executable.profile(x, labels, np.arange(96), runs=2)
    assert {row.calls for row in profile.rows} == {3}
    assert all(
        a.tobytes() == b.tobytes() for a, b in zip(leaves(before), leaves(step.snapshot()), strict=True)
    )


def test_captured_arrays_are_seen_anew():
    table = np.arange(12.0).reshape(3, 4).T  # no kernel reads it as it lies: it is copied for each run
    executable = fg.jit(lambda x: x @ table).compile(np.ones((2, 4)))
    executable.profile(np.ones((2, 4)), runs=1)
    table[:] = 1.0
    assert executable(np.ones((2, 4)))[0].tolist() == [[4.0] * 3] * 2


def test_an_interpreted_graph_has_a_row_an_equation():
    x = np.ones((6, 5), np.float32)
    executable = fg.jit(lambda x: np.tanh(x @ x.T).sum(axis=0) * 2.0, backend="numpy").compile(x)
    profile = executable.profile(x, runs=2)
    assert profile.backend == "numpy"
    assert [row.ops for row in profile.rows] == [e.prim.name for e in executable.graph.eqns]
    (product,) = [row for row in profile.rows if row.ops == "matmul"]
    assert product.flops == 2 * 6 * 6 * 5 and product.written == 6 * 6 * 4


def test_interpreted_loops_and_constants():
    table = np.arange(3.0)

    def f(x):
        carry, ys = fg.scan(lambda c, y: (c + y, c * table), x, np.ones((4, 3)))
        return carry, ys.sum()

    profile = fg.jit(f, backend="numpy").compile(np.zeros(3)).profile(np.zeros(3), runs=1)
    assert "scan" in [row.ops for row in profile.rows] and profile.step_ns > 0


def test_a_profile_is_a_record():
    x = np.ones(8)
    profile = fg.jit(lambda x: x + 1.0).compile(x).profile(x, runs=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.runs = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.rows[0].ns = 0.0
    assert isinstance(profile.rows, tuple) and dataclasses.asdict(profile.rows[0])["flops"] == 8


def test_the_table_names_rows_limits_and_the_machine():
    step = step_of()
    step(*batch())
    text = str(step.executable.profile(*batch(), runs=2))
    for word in (
        "row",
        "% peak",
        "GB/s",
        "limit",
        "matmul",
        "test_profile.py",
        "kernels",
        "overhead",
        "machine",
    ):
        assert word in text
    lines = text.split("\n")
    assert len({len(line.rstrip()) > 0 for line in lines}) == 1


def test_a_program_without_kernels():
    profile = fg.jit(lambda x: x).compile(np.ones(0)).profile(np.ones(0), runs=1)
    assert profile.flops == 0 and "overhead" in str(profile)


@pytest.mark.parametrize("runs", [0, -1, 2.5, True, "3"])
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_runs_that_are_no_count(runs, backend):
    x = np.ones(3)
    with pytest.raises(ArgumentError, match="profile: runs must be a positive integer, got"):
        fg.jit(lambda x: x + 1.0, backend=backend).compile(x).profile(x, runs=runs)


def test_arguments_that_do_not_fit():
    executable = fg.jit(lambda x: x + 1.0).compile(np.ones(3))
    with pytest.raises(ArgumentError, match="profile takes 1 arrays, got 2"):
        executable.profile(np.ones(3), np.ones(3))
    with pytest.raises(ShapeError, match=r"expected f64\[3\], got shape \[4\]"):
        executable.profile(np.ones(4))
    with pytest.raises(DTypeError, match="got dtype float32"):
        executable.profile(np.ones(3, np.float32))
    step = step_of()
    step(*batch())
    with pytest.raises(ArgumentError, match="step: profile takes 2 arrays, got 1"):
        step.executable.profile(batch()[0])
    with pytest.raises(ShapeError, match="argument 0: expected"):
        step.executable.profile(*batch(63))


def test_a_packed_operand_is_a_copy():
    x, y = np.ones((384, 384), np.float32), np.ones((384, 384), np.float32)
    rows = fg.jit(lambda x, y: x @ y.T).compile(x, y).profile(x, y, runs=1).rows
    (product,) = [row for row in rows if row.kind == "product"]
    assert product.flops == 2 * 384**3
    for row in rows:
        if row is not product:
            assert row.kind == "copy" and row.flops == 0 and row.ops.startswith("pack")
            assert row.read == y.nbytes and row.written >= y.nbytes


@pytest.mark.parametrize(("family", "pace"), [("tiles", 16), ("pairs", 2), ("rounded", 1)])
def test_a_product_in_bfloat16_is_held_against_its_own_instructions(family, pace, monkeypatch):
    monkeypatch.setattr(bfloat16, "amx", lambda: family == "tiles")
    monkeypatch.setattr(bfloat16, "cpu_features", lambda: {"avx512bf16": family == "pairs"})
    monkeypatch.setattr(bfloat16, "cpu", lambda: ("znver4", ""))
    a, b = np.ones((64, 96), np.float32), np.ones((96, 64), np.float32)
    graph = trace(lambda a, b: [a @ b], [aval_of(a), aval_of(b)])
    steps = packing.packed(schedule(lowered(passes.run(graph), "bfloat16"))).steps
    (product,) = [step for step in steps if isinstance(step, Gemm)]
    rates = shipped(64, 2)
    work = work_of(product)
    assert (work.flops, work.dtype, work.pace) == (2 * 64 * 96 * 64, "float32", pace)
    row = measure._row(0, str(product), "matmul", (), "product", 1, 1000.0, work, 1, 10.0, rates)
    assert row.peak == pytest.approx(pace * rates.peak("float32", 1))
    assert row.of_peak == pytest.approx(row.gflops / row.peak)
    profile = Profile("f", "numba", 2, 1, 1000.0, 0.0, 0.0, (row,), rates)
    assert profile.peak == pytest.approx(pace * rates.peak("float32", 2))
    assert f"% of {profile.peak:.0f})" in str(profile)
    assert f">{rates.peak('float32', 1) * pace:.0f} GFLOP/s<" in profile.to_html()
    assert (">bfloat16 operands<" in profile.to_html()) == (pace > 1)


def test_the_peak_of_a_program_that_computes_nothing():
    rates = shipped(64, 2)
    empty = Profile("f", "numba", 2, 1, 1000.0, 0.0, 0.0, (), rates)
    assert empty.peak == rates.peak("float32", 2)
