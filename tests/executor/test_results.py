"""Results are the caller's alone for as long as anything of theirs lives; then their memory serves again."""

from __future__ import annotations

import gc
import pickle
import threading

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.executor.results import LARGE, SPARE

N = LARGE // 8


@pytest.fixture
def doubled():
    return fg.jit(lambda x: x * 2.0)


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_memory_of_a_dropped_result_serves_again(doubled):
    x = np.ones(N)
    first = doubled(x)
    at = address(first)
    del first
    assert address(doubled(x)) == at
    assert at % 64 == 0


@pytest.mark.parametrize(
    "holder",
    [
        lambda a: a,
        lambda a: a[10:20],
        lambda a: a[10:20][1:],
        lambda a: a.reshape(2, -1).T,
        lambda a: a.view(np.int64),
        lambda a: a.view(np.recarray),
        lambda a: np.asarray(memoryview(a)),
        lambda a: np.from_dlpack(a),
        lambda a: a.real,
        lambda a: np.lib.stride_tricks.as_strided(a, (3,), (8,)),
        lambda a: a.flat,
    ],
)
def test_whoever_holds_a_part_keeps_it(doubled, holder):
    x = np.ones(N)
    part = holder(doubled(x))
    before = np.array(part).tobytes()
    for k in range(1, 4):
        other = doubled(x * (k + 1))
        assert np.array(part).tobytes() == before, "written over"
        assert other[0] == 2.0 * (k + 1)
        del other


def test_results_of_one_call_and_of_several_never_meet():
    f = fg.jit(lambda x: (x + 1.0, x + 2.0, x.reshape(2, -1)))
    x = np.arange(float(N))
    held = [out for k in range(5) for out in f(x * k)]
    for i, a in enumerate(held):
        assert not any(np.shares_memory(a, b) for b in held[i + 1 :])
    np.testing.assert_array_equal(held[-3], 4 * x + 1)
    assert held[0].flags.writeable and held[0].flags.c_contiguous


def test_what_waits_is_bounded(doubled):
    x = np.ones(N)
    held = [doubled(x) for _ in range(10)]
    executable = doubled.compile(x)
    del held
    gc.collect()
    [blocks] = executable._results._blocks.values()
    assert len(blocks._free) == SPARE and not blocks._held


def test_results_outlive_the_function():
    f = fg.jit(lambda x: x * 3.0)
    out = f(np.ones(N))
    del f
    gc.collect()
    assert (out == 3.0).all()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(out)), out)


def test_threads_get_memory_of_their_own(doubled):
    doubled(np.ones(N))
    wrong = []

    def work(k: int) -> None:
        x = np.full(N, float(k))
        for _ in range(50):
            kept = doubled(x)
            again = doubled(kept)
            if kept[0] != 2.0 * k or again[-1] != 4.0 * k or not (kept == 2.0 * k).all():
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
