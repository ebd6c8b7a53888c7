"""Why a function is traced again, what the report says of its kernels, and how many signatures are kept."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import signatures


def report(jitted, *args, **kwargs) -> str:
    return jitted.compile(*args, **kwargs).compile_report()


def test_first_call_then_what_differs():
    f = fg.jit(lambda p, x: np.tanh(x @ p["w"] + p["b"]))
    p = {"w": np.ones((4, 3)), "b": np.ones(3)}
    assert "traced: first call, (f64[3], f64[4,3], f64[2,4])" in report(f, p, np.ones((2, 4)))
    assert "is f64[7,4], was f64[2,4]" in report(f, p, np.ones((7, 4)))
    single = {k: v.astype("f4") for k, v in p.items()}
    text = report(f, single, np.ones((7, 4), "f4"))
    assert "['b'] is f32[3], was f64[3]" in text and "['w'] is f32[4,3], was f64[4,3]" in text
    assert "['w']" not in report(f, p, np.ones((1, 4))).splitlines()[0]


def test_a_call_seen_before_is_not_traced_again():
    traced = []
    f = fg.jit(lambda x: traced.append(1) or x * 2)
    first = f.compile(np.ones(3))
    assert f.compile(np.zeros(3)) is first and len(traced) == 1


def test_other_nesting_and_static_arguments():
    f = fg.jit(lambda x, n=1: x * n if not isinstance(x, list) else x[0] * n, static_argnames=("n",))
    report(f, np.ones(3), n=1)
    assert "static n=2, was n=1" in report(f, np.ones(3), n=2)
    assert "first call with arguments nested so" in report(f, [np.ones(3), np.ones(3)], n=1)


def test_training_step_says_why():
    rng = np.random.default_rng(0)
    step = fg.TrainStep(lambda w, x: ((x @ w) ** 2).sum(), rng.standard_normal((3, 2)), fg.optim.SGD(0.01))
    step(np.ones((4, 3)))
    assert "traced: first call, (f64[4,3])" in step.executable.compile_report()
    step(np.ones((5, 3)))
    assert "is f64[5,3], was f64[4,3]" in step.executable.compile_report()
    step.run(np.ones((8, 3)), batch_size=4)
    assert "traced: " in step.executable.compile_report()
    step.run(np.ones((8, 3)), batch_size=2)
    assert "batch_size=2" in step.executable.compile_report()


def test_report_has_a_row_a_kernel_with_seconds_and_origin():
    text = report(fg.jit(lambda x: np.exp(x).sum(axis=1) + 0.625), np.ones((3, 5)))
    executable = fg.jit(lambda x: np.exp(x).sum(axis=1) + 0.625).compile(np.ones((3, 5)))
    rows = [line for line in text.splitlines() if "kernel_" in line]
    assert len(rows) == len(executable.program.native.kernels)
    assert all(any(word in row for word in ("compiled, ", "from disk", "in memory")) for row in rows)
    assert all("in memory" in row for row in executable.compile_report().splitlines() if "kernel_" in row)


def test_the_number_of_signatures_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(signatures, "LIMIT", 4)
    f = fg.jit(lambda x: x + 1)
    refs = [weakref.ref(f.compile(np.ones(n))) for n in range(1, 10)]
    gc.collect()
    assert [r() is not None for r in refs] == [False] * 5 + [True] * 4
    f.compile(np.ones(6))  # used again: stays when the next comes
    f.compile(np.ones(20))
    gc.collect()
    assert refs[5]() is not None and refs[6]() is None
    np.testing.assert_array_equal(f(np.ones(1)), [2.0])  # a dropped one comes back
    assert "signatures dropped" in report(f, np.ones(2))


def test_a_dropped_signature_in_use_still_works(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(signatures, "LIMIT", 2)
    f = fg.jit(lambda x: np.tanh(x))
    held = f.compile(np.ones(3))
    for n in range(4, 9):
        f(np.ones(n))
    np.testing.assert_allclose(held(np.ones(3))[0], np.tanh(np.ones(3)), rtol=1e-15)
