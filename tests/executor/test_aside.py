"""Threads that the system has put on one core part, and may run afterwards where they might before."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.codegen import abi
from fastgrad.codegen.runtime import runtime

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="cores are asked of Linux")


def masks() -> set[frozenset[int]]:
    """The sets of cores on which this process's threads may run."""
    return {frozenset(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")}


def test_every_thread_may_run_where_it_might_before():
    x = np.ones((512, 4096), np.float32)
    step = fg.jit(lambda x: np.sum(np.tanh(x), axis=1), threads=2)
    first = step(x)
    before = masks()
    for _ in range(20):
        time.sleep(0.005)  # the helper sleeps, and is woken again
        np.testing.assert_array_equal(step(x), first)
    assert masks() == before


def test_without_the_systems_functions_runs_are_the_same(monkeypatch: pytest.MonkeyPatch):
    x = np.ones((512, 4096), np.float32)
    expected = fg.jit(lambda x: np.sum(np.exp(x), axis=1), threads=2)(x)
    alone = runtime()._replace(cores=(0, 0, 0, 0))
    monkeypatch.setattr("fastgrad.executor.cpu.runtime", lambda: alone)
    np.testing.assert_array_equal(fg.jit(lambda x: np.sum(np.exp(x), axis=1), threads=2)(x), expected)


def test_the_words_are_apart():
    """What threads fight over shares no line with what they only read."""
    assert abi.ARRIVED // 8 == abi.CLAIMED // 8
    assert abi.SET_CORES < abi.CONTROL and abi.CALLER_CORE < abi.TOGETHER
