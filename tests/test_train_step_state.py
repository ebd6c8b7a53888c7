"""`TrainStep` with a key and a model state: dropout and batch norm in a compiled step, whole or not at all."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import pytree
from fastgrad.data import digits
from fastgrad.errors import ArgumentError, DTypeError, OutOfBoundsError, ShapeError
from fastgrad.executor import tape
from fastgrad.nn import functional as F
from fastgrad.optim import SGD, Adam

KEY = fg.random.key(17)
both = pytest.mark.parametrize("backend", ["numba", "numpy"])


def data(n: int = 48, seed: int = 0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 6)).astype(np.float32), rng.integers(0, 4, n)


def params(hidden: int = 8):
    rng = np.random.default_rng(1)
    return {
        "w1": (rng.standard_normal((6, hidden)) / 2).astype(np.float32),
        "scale": np.ones(hidden, np.float32),
        "shift": np.zeros(hidden, np.float32),
        "w2": (rng.standard_normal((hidden, 4)) / 3).astype(np.float32),
    }


def model_state(hidden: int = 8):
    return {"mean": np.zeros(hidden, np.float32), "var": np.ones(hidden, np.float32), "seen": np.int32(0)}


def forward(p, state, key, x, training):
    h = x @ p["w1"]
    h, mean, var = F.batch_norm(h, state["mean"], state["var"], p["scale"], p["shift"], training)
    h = F.dropout(F.relu(h), 0.25, training, key=key)
    return h @ p["w2"], {"mean": mean, "var": var, "seen": state["seen"] + x.shape[0]}


def loss(p, state, key, x, y):
    logits, new = forward(p, state, key, x, True)
    return F.cross_entropy(logits, y), new


def new_step(backend="numba", optimizer=None, **options):
    options = {"model_state": model_state(), "key": KEY} | options
    return fg.TrainStep(loss, params(), optimizer or SGD(0.1, momentum=0.9), backend=backend, **options)


def frozen(step):
    """All that a step could change, as bytes."""
    return [np.asarray(a).tobytes() for a in pytree.flatten([step.params, step.state])[0]]


def close(a, b, tolerance=1e-5) -> None:
    for x, y in zip(pytree.flatten(a)[0], pytree.flatten(b)[0], strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


# -- numbers -----------------------------------------------------------------------------------------------------------


@both
def test_a_step_is_the_loss_with_the_key_of_its_number(backend):
    """By hand: value and gradient of the loss, SGD, and the state handed on."""
    step, x, y = new_step(backend, SGD(0.1)), *data()
    p, state = params(), model_state()
    gradient = fg.value_and_grad(loss, has_aux=True)
    for i in range(5):
        (value, state), grads = gradient(p, state, fg.random.fold_in(KEY, i), x, y)
        np.testing.assert_allclose(step(x, y), value, rtol=1e-5)
        p = {name: p[name] - np.float32(0.1) * grads[name] for name in p}
    close(step.params, p)
    close(step.state["model"], state)
    assert step.state["model"]["seen"] == 5 * 48 and step.state["model"]["seen"].dtype == np.int32
    assert step.state["random"]["count"] == 5
    np.testing.assert_array_equal(step.state["random"]["key"], KEY)


def test_compiled_is_interpreted():
    steps, (x, y) = [new_step(b) for b in ("numba", "numpy")], data()
    for i in range(0, 48, 12):
        a, b = (step(x[i : i + 12], y[i : i + 12]) for step in steps)
        np.testing.assert_allclose(a, b, rtol=1e-5)
    close(steps[0].params, steps[1].params)
    close(steps[0].state, steps[1].state)
    runs = [step.run(x, y, batch_size=10, epochs=2, shuffle=3) for step in steps]
    np.testing.assert_allclose(*runs, rtol=1e-4)
    close(steps[0].state, steps[1].state, 1e-4)


@both
@pytest.mark.parametrize(("batch", "drop_last"), [(16, False), (20, False), (20, True)])
def test_run_is_the_same_steps_by_hand(backend, batch, drop_last):
    x, y = data()
    step, other = new_step(backend), new_step(backend)
    losses = step.run(x, y, batch_size=batch, epochs=3, shuffle=5, drop_last=drop_last)
    rng, expected = np.random.default_rng(5), []
    for _ in range(3):
        order = rng.permutation(len(x))
        starts = range(0, len(x) - drop_last * (batch - 1), batch)
        expected += [other(x[order[i : i + batch]], y[order[i : i + batch]]) for i in starts]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    close(step.params, other.params)
    close(step.state, other.state)
    assert step.state["random"]["count"] == len(losses)


def test_one_thread_and_two_give_the_same_bits(monkeypatch):
    monkeypatch.setattr(tape, "PARALLEL_NS", -1.0)
    monkeypatch.setattr(tape, "REGION_NS", -1.0)
    results = []
    for threads in (1, 2):
        step = new_step(threads=threads)
        step.run(*data(), batch_size=16, epochs=2, shuffle=0)
        results.append(frozen(step))
    assert results[0] == results[1]


@both
def test_each_step_drops_others_and_as_many(backend):
    def share(p, key, x):
        dropped = F.dropout(x, 0.3, key=key) == 0
        return (p * 0.0).sum(), (dropped.mean(), dropped)

    step = fg.TrainStep(share, np.ones(1), SGD(0.0), key=KEY, has_aux=True, backend=backend)
    x = np.ones((100, 50))
    results = [step(x)[1] for _ in range(4)]
    for i, (mean, mask) in enumerate(results):
        assert abs(mean - 0.3) < 4 * np.sqrt(0.3 * 0.7 / x.size)
        assert mean == mask.mean()
        np.testing.assert_array_equal(mask, F.dropout(x, 0.3, key=fg.random.fold_in(KEY, i)) == 0)
        assert all((mask != other).any() for _, other in results[:i])


@both
def test_a_small_network_learns_the_digits(backend):
    images, labels = digits()[:2]
    x, y = images.reshape(len(images), -1)[:600].astype(np.float32), labels[:600].astype(np.int64)
    x = (x - x.mean()) / x.std()
    rng = np.random.default_rng(0)
    p = {
        "w1": (rng.standard_normal((x.shape[1], 48)) / 8).astype(np.float32),
        "scale": np.ones(48, np.float32),
        "shift": np.zeros(48, np.float32),
        "w2": (rng.standard_normal((48, 10)) / 7).astype(np.float32),
    }
    step = fg.TrainStep(loss, p, Adam(5e-3), model_state=model_state(48), key=KEY, backend=backend)
    losses = step.run(x, y, batch_size=50, epochs=12, shuffle=0)
    assert losses[:12].mean() > 2 * losses[-12:].mean()
    logits, kept = forward(step.params, step.state["model"], None, x, False)
    assert (logits.argmax(1) == y).mean() > 0.95
    np.testing.assert_array_equal(kept["mean"], step.state["model"]["mean"])
    assert step.state["model"]["seen"] == 12 * 600


# -- which of them there are -------------------------------------------------------------------------------------------


@both
def test_a_key_alone_and_a_state_alone(backend):
    def noisy(p, key, x):
        return ((p - x - fg.random.normal(key, x.shape)) ** 2).sum()

    keyed = fg.TrainStep(noisy, np.zeros(3), SGD(0.1), key=KEY, backend=backend)
    x = np.ones(3)
    expected = [((-x - fg.random.normal(fg.random.fold_in(KEY, 0), (3,))) ** 2).sum()]
    np.testing.assert_allclose(keyed(x), expected[0])
    assert set(keyed.state) == {"optimizer", "random"}

    def counted(p, n, x):
        return ((p - x) ** 2).sum(), n + 1

    stated = fg.TrainStep(counted, np.zeros(3), SGD(0.1), model_state=np.int64(0), backend=backend)
    for _ in range(3):
        stated(x)
    assert set(stated.state) == {"optimizer", "model"} and stated.state["model"] == 3


@both
def test_aux_stands_beside_the_new_state(backend):
    def f(p, state, x):
        error = p - x
        return (error * error).sum(), ({"n": state["n"] + 1}, {"error": error, "old": state["n"]})

    step = fg.TrainStep(f, np.zeros(2), SGD(0.5), model_state={"n": 0}, has_aux=True, backend=backend)
    value, aux = step(np.array([1.0, 2.0]))
    assert value == 5.0 and aux["old"] == 0 and step.state["model"]["n"] == 1
    np.testing.assert_array_equal(aux["error"], [-1.0, -2.0])
    losses = step.run(np.ones((4, 2)), batch_size=1)
    assert losses.shape == (4,) and step.state["model"]["n"] == 5


@both
def test_states_of_every_dtype_and_nesting(backend):
    def f(p, s, x):
        flag, (byte, wide), rows = s
        new = (np.logical_not(flag), [byte + np.uint8(1), wide * 2.0], {"r": np.flip(rows["r"], 0)})
        return ((p - x) ** 2).sum(), new

    state = (
        np.array(False),
        [np.array([254, 255], np.uint8), np.ones((2, 0))],
        {"r": np.arange(6.0).reshape(3, 2)},
    )
    step = fg.TrainStep(f, np.zeros(2), SGD(0.1), model_state=state, backend=backend)
    step(np.ones(2))
    flag, (byte, wide), rows = step.state["model"]
    assert bool(flag) and byte.tolist() == [255, 0] and wide.shape == (2, 0)
    np.testing.assert_array_equal(rows["r"], np.arange(6.0).reshape(3, 2)[::-1])
    step(np.ones(2))
    assert not step.state["model"][0] and rows["r"][0, 0] == 0
    assert state[1][0].tolist() == [254, 255]  # the given state stays as it is


@both
def test_a_state_that_comes_back_as_it_is_or_as_a_constant(backend):
    def f(p, s, x):
        return ((p - x) ** 2).sum(), {
            "same": s["same"],
            "seven": 7,
            "ones": np.ones(2),
            "swapped": s["other"],
            "other": s["swapped"],
        }

    first = {"same": np.arange(3), "seven": 0.0, "ones": np.zeros(2), "swapped": 1.0, "other": 2.0}
    step = fg.TrainStep(f, np.zeros(2), SGD(0.1), model_state=first, backend=backend)
    step(np.ones(2))
    state = step.state["model"]
    assert (
        state["same"].tolist() == [0, 1, 2] and state["seven"] == 7.0 and state["ones"].tolist() == [1.0, 1.0]
    )
    assert (state["swapped"], state["other"]) == (2.0, 1.0)


# -- state: live, copied, resumed --------------------------------------------------------------------------------------


@both
def test_views_are_live_and_writable(backend):
    step, (x, y) = new_step(backend), data()
    mean, count = step.state["model"]["mean"], step.state["random"]["count"]
    step(x, y)
    assert mean.any() and count == 1
    mean[...] = 0.0
    step.state["model"]["seen"][...] = 100
    step(x, y)
    assert step.state["model"]["seen"] == 148 and abs(mean).max() < 0.5


@both
def test_a_step_goes_on_from_a_snapshot(backend):
    step, (x, y) = new_step(backend), data()
    step.run(x, y, batch_size=12, shuffle=0)
    kept = step.snapshot()
    assert kept["random"]["count"] == 4
    again = new_step(backend)
    expected = step.run(x, y, batch_size=12, shuffle=1)
    assert kept["random"]["count"] == 4  # a copy
    for view, value in zip(
        pytree.flatten([again.params, again.state])[0],
        pytree.flatten([kept["params"], {name: kept[name] for name in again.state}])[0],
        strict=True,
    ):
        view[...] = value
    np.testing.assert_array_equal(again.run(x, y, batch_size=12, shuffle=1), expected)
    assert frozen(again) == frozen(step)


@both
def test_an_error_leaves_everything_as_it_was(backend):
    step, (x, y) = new_step(backend), data()
    step(x, y)
    before = frozen(step)
    bad = y.copy()
    bad[30] = 9
    with pytest.raises(OutOfBoundsError):
        step(x, bad)
    with pytest.raises(OutOfBoundsError):
        step.run(x, bad, batch_size=8, shuffle=0)
    assert frozen(step) == before
    with pytest.raises(ShapeError):
        step(x[:, :3], y)
    assert frozen(step) == before
    other = new_step(backend)
    other(x, y)
    assert step(x, y) == other(x, y)
    assert frozen(step) == frozen(other)


def test_a_run_is_one_call_and_a_step_allocates_its_loss_alone():
    step, (x, y) = new_step(), data()
    for _ in range(3):
        step(x, y)
    tracemalloc.start()
    try:
        step(x, y)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        step(x, y)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 1024
    runs = step.executable.native.tape
    step.run(x, y, batch_size=8)
    assert step.executable.native.tape is not runs and step.executable.native.tape.words[0] > 0


# -- bad input ---------------------------------------------------------------------------------------------------------


def _with(new):
    return lambda: new_fails(lambda p, s, x: ((p * x).sum(), new(s)))


def new_fails(f, **options):
    state = {"m": np.zeros(3, np.float32), "n": np.int64(0)}
    options = {"model_state": state} | options
    return fg.TrainStep(f, np.ones(2), SGD(0.1), **options)(np.ones(2))


BAD = [
    (_with(lambda s: {"m": s["m"]}), ArgumentError, r"must nest as the old one, got \{'m': \*\} for \{'m': \*, 'n': \*\}"),
    (_with(lambda s: [s["m"], s["n"]]), ArgumentError, "must nest as the old one"),
    (_with(lambda s: {"m": s["m"][:2], "n": s["n"]}), ShapeError, r"\['m'\] must stay f32\[3\], the loss returned f32\[2\]"),
    (_with(lambda s: {"m": s["m"].sum(), "n": s["n"]}), ShapeError, r"must stay f32\[3\], the loss returned f32\[\]"),
    (
        _with(lambda s: {"m": s["m"] * np.ones(3), "n": s["n"]}),
        DTypeError,
        r"model_state\['m'\] must stay f32\[3\], the loss returned f64\[3\]\n.*try: .astype\(np.float32\)",
    ),
    (_with(lambda s: {"m": s["m"], "n": 0.5}), DTypeError, r"\['n'\] must stay i64\[\], the loss returned f64\*\[\]"),
    (_with(lambda s: {"m": s["m"], "n": "text"}), DTypeError, r"must stay i64\[\], the loss returned str"),
    (lambda: new_fails(lambda p, s, x: (p * x).sum()), ArgumentError, r"returns \(loss, new model_state\), got f64\[\]"),
    (lambda: new_fails(lambda p, s, x: ((p * x).sum(), s, 1)), ArgumentError, r"got \(f64\[\], dict, i64\*\[\]\)"),
    (
        lambda: new_fails(lambda p, s, x: ((p * x).sum(), s), has_aux=True),
        ArgumentError,
        r"with model_state and has_aux the loss returns \(loss, \(new model_state, aux\)\), got \(f64\[\], dict\)",
    ),
    (
        lambda: new_fails(lambda p, key, x: (p * x).sum(), model_state=None),
        ArgumentError,
        r"the loss takes \(p, key, x\), the step calls it with \(params, batch\[0\]\)\n.*try: TrainStep\(..., key=fg.random",
    ),
    (
        lambda: new_fails(lambda p, model_state, x: (p * x).sum(), model_state=None),
        ArgumentError,
        r"calls it with \(params, batch\[0\]\)\n.*try: TrainStep\(..., model_state=...\)",
    ),
    (
        lambda: new_fails(lambda p, x: (p * x).sum(), model_state=None, key=KEY),
        ArgumentError,
        r"the loss takes \(p, x\), the step calls it with \(params, key, batch\[0\]\)",
    ),
    (lambda: new_fails(loss, key=0), DTypeError, r"TrainStep: a key is u32\[2\], got i64\*\[\]\n.*fg.random.key\(0\)"),
    (lambda: new_fails(loss, key=np.zeros(2)), DTypeError, r"TrainStep: a key is u32\[2\], got f64\[2\]"),
    (lambda: new_fails(loss, key=fg.random.split(KEY)), ShapeError, r"TrainStep: takes one key u32\[2\], got u32\[2,2\]"),
    (lambda: new_fails(loss, model_state={"a": "text"}), DTypeError, r"model_state\['a'\]: dtype str"),
    (lambda: new_fails(loss, model_state=[np.ones(2) + 0j]), DTypeError, r"model_state\[0\]: dtype complex128"),
]  # fmt: skip


@pytest.mark.parametrize("i", range(len(BAD)))
def test_bad_steps(i):
    call, error, message = BAD[i]
    with pytest.raises(error) as caught:
        call()
    assert re.search(message, str(caught.value)), str(caught.value)
