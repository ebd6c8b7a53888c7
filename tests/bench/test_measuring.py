"""Measuring one cell: contestants in processes, who fail one by one without harm to the others, and must agree."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from fastgrad.bench import models, quiet
from fastgrad.bench.campaign import Cell, Disagreement, Measurement, Plan
from fastgrad.bench.contestant import CONTESTANTS
from fastgrad.bench.process import CACHES, Failed, Local, Remote, compete, environment, in_turns
from fastgrad.bench.timing import timed

ACTING = str(Path(__file__).with_name("acting.py"))
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def acted(*contestants: str, limit_s: float = 60.0, **options):
    """The results of one cell whose contestants are acted."""
    plan = Plan(("softmax",), contestants, rounds=3, seconds=0.01, limit_s=limit_s, **options)
    return Measurement(plan.cells()[0], plan, program=ACTING).row()["results"]


def test_a_contestant_that_works():
    found = acted("interpreter", colds=2, warms=3)["interpreter"]
    assert len(found["cold_s"]) == 2 and len(found["warm_s"]) == 3
    assert min(found["cold_s"] + found["warm_s"]) > 0.001  # a process cannot start faster
    assert found["us"]["min"] <= found["us"]["median"] <= found["us"]["max"]
    assert found["us"]["min"] > 1000  # each step sleeps a millisecond
    assert found["first"] == [1.0] and found["note"] == "rested" and "failed" not in found
    if Path("/proc/self/status").exists():
        assert 1 < found["mib"] < 1000


@posix
def test_failures_are_cells():
    found = acted("interpreter", "torch", "torch-compile", "autograd")
    assert found["torch"]["failed"] == "ValueError: no such operator"
    assert found["torch-compile"]["failed"].startswith("died with SIGKILL")
    assert found["autograd"]["failed"] == "died with status 7: out of luck"
    assert "us" in found["interpreter"] and "failed" not in found["interpreter"]
    assert not any("us" in found[name] for name in ("torch", "torch-compile", "autograd"))
    assert found["autograd"]["cold_s"] and not found["torch"]["cold_s"]


@posix
def test_too_slow_is_timed_out():
    with pytest.raises(Failed, match=r"^timed out after 1.5 s$"):
        Remote([ACTING, "jax"], threads=1, limit_s=1.5)


def test_contestants_that_disagree_stop_the_run():
    with pytest.raises(Disagreement, match=r"softmax float32 1.*interpreter 1\.0, tensor 2\.0"):
        acted("interpreter", "tensor")


def test_compiled_and_interpreted_end_to_end():
    plan = Plan(("mlp-64-32-10",), ("fastgrad", "interpreter"), ("float64",), rounds=2, seconds=0.01, warms=1)
    row = Measurement(plan.cells()[0], plan).row()
    assert (row["model"], row["dtype"], row["threads"]) == ("mlp-64-32-10", "float64", 1)
    compiled, interpreted = row["results"].values()
    assert compiled["first"] == pytest.approx(interpreted["first"], rel=1e-12)
    for found in (compiled, interpreted):
        assert "failed" not in found and found["us"]["median"] > 0
        assert len(found["cold_s"]) == len(found["warm_s"]) == 1


def test_only_the_largest_thread_count_gets_all_warm_starts():
    plan = Plan(("softmax",), ("fastgrad",), threads=(1, 2), warms=4)
    assert [plan.warm_starts(Cell("softmax", "float32", n)) for n in plan.threads] == [1, 4]


def test_the_estimate_grows_with_what_is_asked():
    small = Plan(("softmax",), ("fastgrad",))
    assert small.estimate_s() > 0
    for more in (
        Plan(("softmax", "vae"), ("fastgrad",)),
        Plan(("softmax",), ("fastgrad", "jax")),
        Plan(("softmax",), ("fastgrad",), rounds=50),
        Plan(("mlp-1024x3",), ("fastgrad",), rounds=50),
    ):
        assert more.estimate_s() > small.estimate_s()


def test_turns_alternate():
    assert "".join(in_turns("abc", 4)) == "abcbcacababc"
    order = []
    contestants = {name: Local(lambda name=name: order.append(name)) for name in "ab"}
    times = compete(contestants, 4, 1e-4)
    assert set(times) == {"a", "b"} and all(t["min"] <= t["median"] <= t["max"] for t in times.values())
    seen = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert seen == ["a", "b", "a", "b", "a"]  # ab, ba, ab, ba


def test_timed_counts_microseconds():
    import time

    assert 2000 <= timed(lambda: time.sleep(0.002), 0.02) < 100_000


def test_the_environment_of_a_contestant(monkeypatch, tmp_path):
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "FASTGRAD_BACKEND"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    found = environment(2, tmp_path)
    assert not {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "FASTGRAD_BACKEND"} & set(found)
    assert found["OMP_NUM_THREADS"] == found["FASTGRAD_NUM_THREADS"] == "2"
    assert {Path(found[name]).parent for name in CACHES} == {tmp_path}
    assert len({found[name] for name in CACHES}) == len(CACHES)
    assert os.environ["OMP_NUM_THREADS"] == "64"


def test_busy_is_load_or_others(monkeypatch):
    monkeypatch.setattr(quiet, "LOOK_S", 0.0)
    monkeypatch.setattr(quiet, "load", lambda: 0.0)
    monkeypatch.setattr(quiet.Watch, "others", lambda self: 0.0)
    assert quiet.busy_reason() is None
    monkeypatch.setattr(quiet.Watch, "others", lambda self: 0.7)
    assert quiet.busy_reason() == "other processes are using 0.70 cores"
    monkeypatch.setattr(quiet, "load", lambda: 99.0)
    assert quiet.busy_reason() == "the load average of the last minute is 99.00"


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_models_are_the_same_numbers_at_each_call(name, dtype):
    model = models.MODELS[name]
    first, again = (models.batch(model, dtype) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(a.dtype in (dtype, np.int64) and a.shape for a in first)
    leaves = [array for layer in _layers(models.parameters(model, dtype)) for array in layer.values()]
    assert all(array.dtype == dtype for array in leaves) and model.flops > 0
    assert bool(leaves) == (model.optimizer is not None)


def _layers(params):
    return list(params.values()) if isinstance(params, dict) else params


def test_every_contestant_is_where_its_entry_says():
    here = Path(models.__file__).parent
    for entry in CONTESTANTS.values():
        assert f"def {entry.function}(" in (here / f"{entry.file}.py").read_text(encoding="utf-8")
