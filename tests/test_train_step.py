"""`TrainStep`: equal to the interpreter and to optimizers by hand; state that is live, whole and the caller's to read."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided, sliding_window_view

import fastgrad as fg
from fastgrad.errors import ArgumentError, DTypeError, FastgradError, OutOfBoundsError, ShapeError
from fastgrad.executor import tape
from fastgrad.nn import functional as F
from fastgrad.optim import SGD, Adam
from fastgrad.train import cross_entropy_loss, init_mlp

SIZES = [16, 12, 5]


def data(n, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, SIZES[0])).astype(dtype), rng.integers(0, SIZES[-1], n)


def squares(p, x, y):
    """A loss with a gradient that is easy by hand."""
    error = x @ p["w"] + p["b"] - y
    return (error * error).mean()


def linear_params(dtype=np.float64, seed=1):
    rng = np.random.default_rng(seed)
    return {"w": rng.standard_normal((4, 3)).astype(dtype), "b": rng.standard_normal(3).astype(dtype)}


def linear_data(n=6, seed=2):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4)), rng.standard_normal((n, 3))


def by_hand(p, x, y):
    error = x @ p["w"] + p["b"] - y
    scaled = 2.0 * error / error.size
    return (error * error).mean(), {"w": x.T @ scaled, "b": scaled.sum(axis=0)}


def leaves(tree):
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
    if isinstance(tree, list | tuple):
        return [leaf for part in tree for leaf in leaves(part)]
    return [tree]


def frozen(step):
    """All that a step could change, as bytes."""
    return [a.tobytes() for a in leaves([step.params, step.state])]


def parallel(monkeypatch):
    """Send every row that can be shared to all threads, however small."""
    monkeypatch.setattr(tape, "PARALLEL_NS", -1.0)
    monkeypatch.setattr(tape, "REGION_NS", -1.0)


OPTIMIZERS = {
    "adam": lambda: Adam(1e-2),
    "adam with decay": lambda: Adam(3e-3, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1),
    "sgd": lambda: SGD(0.1),
    "momentum": lambda: SGD(0.05, momentum=0.9),
    "nesterov": lambda: SGD(0.05, momentum=0.9, nesterov=True),
    "decay": lambda: SGD(0.1, weight_decay=0.01),
    "nesterov and decay": lambda: SGD(0.05, momentum=0.8, nesterov=True, weight_decay=0.01),
}


# -- numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_compiled_loss_curve_is_the_interpreted_one(optimizer):
    steps = [
        fg.TrainStep(cross_entropy_loss, init_mlp(SIZES, 0, np.float64), optimizer(), backend=backend)
        for backend in ("numba", "numpy")
    ]
    compiled, interpreted = np.array(
        [[step(*data(8, seed=i % 10)) for i in range(100)] for step in steps], np.float64
    )
    np.testing.assert_allclose(compiled, interpreted, rtol=1e-10)
    assert compiled[-10:].mean() < compiled[:10].mean()
    for a, b in zip(leaves(steps[0].params), leaves(steps[1].params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def sgd_by_hand(p, g, memory, o):
    for k in p:
        d = g[k] + o.weight_decay * p[k]
        if o.momentum:
            memory[k] = o.momentum * memory.get(k, 0.0) + d
            d = d + o.momentum * memory[k] if o.nesterov else memory[k]
        p[k] = p[k] - o.lr * d


def adam_by_hand(p, g, memory, o):
    memory["t"] = t = memory.get("t", 0) + 1
    b1, b2 = o.betas
    for k in p:
        d = g[k] + o.weight_decay * p[k]
        m, v = memory.get(k, (0.0, 0.0))
        m, v = memory[k] = b1 * m + (1 - b1) * d, b2 * v + (1 - b2) * d**2
        p[k] = p[k] - o.lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + o.eps)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_optimizers_against_plain_numpy(optimizer, backend):
    o = optimizer()
    update = adam_by_hand if isinstance(o, Adam) else sgd_by_hand
    p, memory = linear_params(), {}
    step = fg.TrainStep(squares, p, o, backend=backend)
    for i in range(30):
        x, y = linear_data(seed=i)
        value, g = by_hand(p, x, y)
        np.testing.assert_allclose(step(x, y), value, rtol=1e-11)
        for k in p:
            np.testing.assert_allclose(step.grads[k], g[k], rtol=1e-9, atol=1e-13)
        update(p, g, memory, o)
        for k in p:
            np.testing.assert_allclose(step.params[k], p[k], rtol=1e-9, atol=1e-12)


def test_one_thread_and_two_give_the_same_bits(monkeypatch):
    parallel(monkeypatch)
    steps = [
        fg.TrainStep(cross_entropy_loss, init_mlp([40, 70, 10], 0), Adam(1e-2), threads=n) for n in (1, 2)
    ]
    rng = np.random.default_rng(0)
    for _ in range(50):
        x, y = rng.standard_normal((33, 40)).astype(np.float32), rng.integers(0, 10, 33)
        assert steps[0](x, y).tobytes() == steps[1](x, y).tobytes()
    assert frozen(steps[0]) == frozen(steps[1])
    x, y = rng.standard_normal((330, 40)).astype(np.float32), rng.integers(0, 10, 330)
    runs = [step.run(x, y, batch_size=32, epochs=2, shuffle=1) for step in steps]
    assert runs[0].tobytes() == runs[1].tobytes() and frozen(steps[0]) == frozen(steps[1])


def test_mixed_precision_of_parameters():
    def loss(p, x, y):
        return squares({"w": p["w"], "b": p["b"]}, x, y) + (p["extra"] ** 2).sum()

    def params():
        return {
            "w": linear_params()["w"].astype(np.float32),
            "b": linear_params()["b"],
            "extra": np.ones((), np.float32),
        }

    compiled = fg.TrainStep(loss, params(), Adam(1e-2))
    interpreted = fg.TrainStep(loss, params(), Adam(1e-2), backend="numpy")
    for i in range(30):
        np.testing.assert_allclose(
            compiled(*linear_data(seed=i)), interpreted(*linear_data(seed=i)), rtol=1e-5
        )
    for k, dtype in (("w", np.float32), ("b", np.float64), ("extra", np.float32)):
        assert compiled.params[k].dtype == compiled.grads[k].dtype == dtype
        assert compiled.state["optimizer"]["exp_avg"][k].dtype == dtype
        np.testing.assert_allclose(compiled.params[k], interpreted.params[k], rtol=1e-4, atol=1e-6)


def test_a_parameter_that_the_loss_does_not_read():
    params = linear_params() | {"unused": np.ones(5)}
    step = fg.TrainStep(squares, params, SGD(0.1, momentum=0.9))
    step(*linear_data())
    assert step.grads["unused"].tolist() == [0] * 5 and step.params["unused"].tolist() == [1] * 5


# -- nestings ------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Affine:
    w: np.ndarray
    b: np.ndarray


def test_parameters_of_any_nesting():
    x, y = linear_data()
    w, b = linear_params()["w"], linear_params()["b"]
    expected = fg.TrainStep(squares, {"w": w, "b": b}, SGD(0.1))
    losses = [float(expected(x, y)) for _ in range(5)]
    nestings = [
        ([w, b], lambda p: {"w": p[0], "b": p[1]}),
        ((w, (b, None)), lambda p: {"w": p[0], "b": p[1][0]}),
        (Affine(w, b), lambda p: {"w": p.w, "b": p.b}),
        (
            {"deep": [{"w": w}, Affine(b, np.ones(2))]},
            lambda p: {"w": p["deep"][0]["w"], "b": p["deep"][1].w},
        ),
    ]
    for params, pick in nestings:
        step = fg.TrainStep(lambda p, x, y, pick=pick: squares(pick(p), x, y), params, SGD(0.1))
        assert [float(step(x, y)) for _ in range(5)] == losses
        assert type(step.params) is type(params) is type(step.grads)
        np.testing.assert_array_equal(pick(step.params)["w"], expected.params["w"])
    bare = fg.TrainStep(lambda w, x: ((x @ w) ** 2).mean(), w, SGD(0.1))
    bare(x)
    assert isinstance(bare.params, np.ndarray) and bare.params.shape == (4, 3)


def test_the_given_parameters_stay_as_they_are():
    params = linear_params()
    kept = {k: v.copy() for k, v in params.items()}
    step = fg.TrainStep(squares, params, SGD(0.1))
    step(*linear_data())
    for k in params:
        np.testing.assert_array_equal(params[k], kept[k])
        assert not np.shares_memory(params[k], step.params[k])


def test_batches_of_any_nesting_and_layout():
    x, y = linear_data()
    plain = fg.TrainStep(squares, linear_params(), SGD(0.1))
    odd = fg.TrainStep(squares, linear_params(), SGD(0.1))
    nested = fg.TrainStep(lambda p, b: squares(p, b["x"], b["y"][0]), linear_params(), SGD(0.1))
    readonly = y.copy()
    readonly.flags.writeable = False
    for _ in range(3):
        loss = plain(x, y)
        assert odd(np.asfortranarray(x), readonly).tobytes() == loss.tobytes()
        assert nested({"x": x[::-1][::-1], "y": [y.astype(">f8")]}).tobytes() == loss.tobytes()
    assert frozen(plain) == frozen(odd) == frozen(nested)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_has_aux(backend):
    def loss(p, x, y):
        return squares(p, x, y), {"error": x @ p["w"] + p["b"] - y, "params": p["b"]}

    step = fg.TrainStep(loss, linear_params(), SGD(0.1), has_aux=True, backend=backend)
    plain = fg.TrainStep(squares, linear_params(), SGD(0.1), backend=backend)
    x, y = linear_data()
    for _ in range(3):
        p = {k: v.copy() for k, v in step.params.items()}
        value, aux = step(x, y)
        np.testing.assert_allclose(value, plain(x, y), rtol=1e-12)
        np.testing.assert_allclose(aux["error"], x @ p["w"] + p["b"] - y, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(aux["params"], p["b"])  # as before the update
        assert not np.shares_memory(aux["params"], step.params["b"])
    np.testing.assert_allclose(
        step.run(x, y, batch_size=3, epochs=2), plain.run(x, y, batch_size=3, epochs=2), rtol=1e-12
    )


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_aux_of_numbers_inputs_and_constants(backend):
    step = fg.TrainStep(
        lambda p, x, y: (squares(p, x, y), {"n": x.shape[0], "x": x, "table": np.arange(3), "half": 0.5}),
        linear_params(), SGD(0.1), has_aux=True, backend=backend,
    )  # fmt: skip
    x, y = linear_data()
    _, aux = step(x, y)
    assert aux["n"] == 6 and aux["half"] == 0.5 and aux["table"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(aux["x"], x)
    assert not np.shares_memory(aux["x"], x)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_losses_are_fresh(backend):
    step = fg.TrainStep(squares, linear_params(), SGD(0.1), backend=backend)
    first = step(*linear_data())
    kept = float(first)
    second = step(*linear_data())
    assert float(first) == kept and second != first and first.shape == ()
    first[...] = -1
    assert float(second) > 0
    losses = step.run(*linear_data(), batch_size=2)
    kept = losses.copy()
    step.run(*linear_data(), batch_size=2)
    np.testing.assert_array_equal(losses, kept)


# -- views ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_params_grads_and_state_are_live_views(backend):
    step = fg.TrainStep(squares, linear_params(), Adam(1e-2), backend=backend)
    arrays = leaves([step.params, step.grads, step.state])
    held = [(id(a), a.ctypes.data) for a in arrays]
    values = [a.copy() for a in arrays]
    step(*linear_data())
    step.run(*linear_data(), batch_size=2)
    again = leaves([step.params, step.grads, step.state])
    assert [(id(a), a.ctypes.data) for a in again] == held
    assert all(a.flags.c_contiguous and a.flags.writeable and not a.flags.owndata for a in again)
    changed = [a.tobytes() != v.tobytes() for a, v in zip(again, values, strict=True)]
    assert sum(changed) == len(changed) - 4  # all but lr, eps and the betas
    assert step.state["optimizer"]["step"] == 4


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_writing_into_the_views_takes_effect(backend):
    x, y = linear_data()
    step = fg.TrainStep(squares, linear_params(), SGD(0.1), backend=backend)
    step(x, y)
    step.params["w"][...] = 0.0
    step.params["b"][1] = 5.0
    p = {k: v.copy() for k, v in step.params.items()}
    value, g = by_hand(p, x, y)
    np.testing.assert_allclose(step(x, y), value, rtol=1e-12)
    np.testing.assert_allclose(step.params["w"], -0.1 * g["w"], rtol=1e-10)
    step.state["optimizer"]["lr"][...] = 0.0
    before = frozen(step)
    step(x, y)
    step.run(x, y, batch_size=2)
    assert frozen(step) == before
    step.state["optimizer"]["lr"][...] = 0.5
    p = {k: v.copy() for k, v in step.params.items()}
    step(x, y)
    np.testing.assert_allclose(step.params["b"], p["b"] - 0.5 * by_hand(p, x, y)[1]["b"], rtol=1e-10)


def test_gaps_stay_zero():
    step = fg.TrainStep(
        lambda p, x: sum((v * v).sum() for v in leaves(p)) * x.sum(),
        {
            "a": np.ones(3),
            "b": np.ones((5, 7)),
            "c": np.ones(()),
            "d": np.ones(9, np.float32),
            "e": np.ones(0),
        },
        Adam(1e-2, weight_decay=0.3),
    )
    for _ in range(20):
        step(np.ones(2))
    for name in ("params", "grads", "exp_avg", "exp_avg_sq"):
        for dtype in (np.dtype(np.float64), np.dtype(np.float32)):
            flat = step._state.flat(name, dtype)
            gap = np.ones(flat.size, bool)
            for leaf in step._state.leaves(name):
                if leaf.dtype == dtype:
                    assert leaf.start * dtype.itemsize % 64 == 0
                    gap[leaf.start : leaf.start + leaf.size] = False
            assert gap.any() and not flat[gap].any(), (name, dtype)
            assert flat[~gap].all()


def test_a_snapshot_is_a_copy():
    step = fg.TrainStep(squares, linear_params(), Adam(1e-2))
    step(*linear_data())
    snapshot = step.snapshot()
    kept = [a.copy() for a in leaves(snapshot)]
    assert set(snapshot) == {"params", "optimizer"}
    step(*linear_data())
    for a, b in zip(leaves(snapshot), kept, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(snapshot["params"]["w"], step.params["w"])
    for k, v in snapshot["params"].items():  # and back again
        step.params[k][...] = v
    for k, v in snapshot["optimizer"].items():
        for target, source in zip(leaves(step.state["optimizer"][k]), leaves(v), strict=True):
            target[...] = source
    other = fg.TrainStep(squares, linear_params(), Adam(1e-2))
    other(*linear_data())
    assert frozen(step) == frozen(other)


# -- run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("shuffle", [None, 0, 7])
@pytest.mark.parametrize(
    ("n", "batch", "drop_last"),
    [(40, 8, False), (43, 8, False), (43, 8, True), (5, 8, False), (8, 8, False), (7, 1, False)],
)
def test_run_is_the_same_steps_by_hand(backend, shuffle, n, batch, drop_last):
    x, y = data(n)
    kept = x.copy(), y.copy()
    looped, single = (
        fg.TrainStep(cross_entropy_loss, init_mlp(SIZES, 0, np.float64), Adam(1e-2), backend=backend)
        for _ in range(2)
    )
    losses = looped.run(x, y, batch_size=batch, epochs=2, shuffle=shuffle, drop_last=drop_last)
    rng = np.random.default_rng(shuffle)
    expected = []
    for _ in range(2):
        order = np.arange(n) if shuffle is None else rng.permutation(n)
        for start in range(0, n, batch):
            rows = order[start : start + batch]
            if len(rows) == batch or not drop_last:
                expected.append(single(x[rows], y[rows]))
    assert losses.dtype == np.float64 and losses.shape == (len(expected),)
    assert losses.tobytes() == np.array(expected).tobytes()
    assert frozen(looped) == frozen(single)
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(y, kept[1])


def test_run_takes_any_layout():
    x, y = data(20, np.float32)
    plain, odd = (fg.TrainStep(cross_entropy_loss, init_mlp(SIZES, 0), Adam(1e-2)) for _ in range(2))
    plain.run(x, y, batch_size=6, shuffle=0)
    odd.run(np.asfortranarray(x), np.repeat(y, 2)[::2].astype(">i8"), batch_size=np.int64(6), shuffle=0)
    assert frozen(plain) == frozen(odd)


def test_labels_of_every_integer_type():
    x, y = data(12)
    expected = None
    for dtype in ("int8", "uint8", "uint64"):
        step = fg.TrainStep(cross_entropy_loss, init_mlp(SIZES, 0, np.float64), SGD(0.1))
        step(x, y.astype(dtype))
        step.run(x, y.astype(dtype), batch_size=5)
        expected = expected or frozen(step)
        assert frozen(step) == expected, dtype


def test_equal_dtypes_that_are_other_objects():
    x, y = data(8)
    plain, odd = good_step(), good_step()
    plain(x, y)
    odd(x.view(np.dtype(np.float64, metadata={"unit": "m"})), y.astype(np.longlong))
    plain.run(x, y, batch_size=4)
    odd.run(x.view(np.dtype(np.float64, metadata={"unit": "m"})), y.astype(np.longlong), batch_size=4)
    assert frozen(plain) == frozen(odd)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("n", [4, 64])
def test_data_that_overlaps_the_state_is_copied_first(backend, n):
    """A step may be fed its own parameters or gradients: it sees them as they were when it was called."""

    def loss(p, x):
        return ((x @ p["w"] - 1.0) ** 2).mean()

    params = {"w": np.arange(float(n * n)).reshape(n, n) / n**3}
    live, copied = (fg.TrainStep(loss, params, SGD(0.05), backend=backend) for _ in range(2))
    for _ in range(3):
        assert live(live.params["w"]) == copied(copied.params["w"].copy())
        assert live(live.grads["w"]) == copied(copied.grads["w"].copy())
    a = live.run(live.params["w"], batch_size=2, epochs=3)
    b = copied.run(copied.params["w"].copy(), batch_size=2, epochs=3)
    np.testing.assert_array_equal(a, b)
    assert frozen(live) == frozen(copied)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: as_strided(a, a.shape, a.strides),
        lambda a: as_strided(a, a.shape, a.strides)[::1],
        lambda a: sliding_window_view(a, a.shape)[0, 0],
        lambda a: np.asarray(memoryview(a)),
    ],
    ids=["as_strided", "slice of as_strided", "sliding_window_view", "memoryview"],
)
def test_views_of_the_state_behind_other_objects_are_copied_first(view):
    """Gradients lend their memory to the forward pass, so a batch that is one of them must not be read in place."""

    def loss(p, x):
        return ((np.tanh(x @ p["w"]) @ p["w"] - 1.0) ** 2).mean()

    live, copied = (fg.TrainStep(loss, {"w": np.eye(64) / 2}, SGD(0.05)) for _ in range(2))
    for step in (live, copied):
        step(np.ones((64, 64)))
    for _ in range(3):
        assert live(view(live.grads["w"])) == copied(copied.grads["w"].copy())
        np.testing.assert_array_equal(live.grads["w"], copied.grads["w"])


def test_a_loss_that_closes_over_arrays():
    """Held by reference and read at every step, whatever their layout."""
    for make in (np.array, lambda a: np.repeat(a, 2)[::2], lambda a: a.astype(">f8")):
        captured = make(np.arange(1.0, 4.0))
        step = fg.TrainStep(lambda p, c=captured: ((p * c) ** 2).sum(), np.ones(3), SGD(0.0))
        assert step() == 14.0
        captured *= 2.0
        assert step() == 56.0


# -- bad input -----------------------------------------------------------------------------------------------


def good_step(backend="numba", **options):
    step = fg.TrainStep(
        cross_entropy_loss, init_mlp(SIZES, 0, np.float64), Adam(1e-2), backend=backend, **options
    )
    step(*data(8))
    return step


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("dtype", ["int64", "int8", "uint8"])
@pytest.mark.parametrize("label", [5, 100, -1, -100])
@pytest.mark.parametrize("row", [0, 7])
def test_a_label_outside_the_classes_changes_nothing(backend, dtype, label, row):
    if label < 0 and dtype == "uint8":
        return
    step = good_step(backend)
    before, grads = frozen(step), [g.tobytes() for g in leaves(step.grads)]
    x, y = data(8)
    bad = y.astype(dtype)
    bad[row] = label
    with pytest.raises(OutOfBoundsError) as caught:
        step(x, bad)
    assert "5" in str(caught.value) and "check_index" in str(caught.value)
    assert frozen(step) == before
    assert [g.tobytes() for g in leaves(step.grads)] == grads
    with pytest.raises(OutOfBoundsError, match=f"row {row}"):
        step.run(x, bad, batch_size=3, epochs=2, shuffle=0)
    assert frozen(step) == before
    step(x, y)  # and goes on as if nothing had been
    other = good_step(backend)
    other(x, y)
    assert frozen(step) == frozen(other)


def test_a_label_outside_the_classes_with_threads(monkeypatch):
    parallel(monkeypatch)
    step = good_step(threads=2)
    before = frozen(step)
    x, y = data(64)
    for row in (0, 31, 63):
        bad = y.copy()
        bad[row] = 5
        with pytest.raises(OutOfBoundsError):
            step(x, bad)
        with pytest.raises(OutOfBoundsError):
            step.run(x, bad, batch_size=16)
        assert frozen(step) == before
    step(x, y)


def test_a_label_that_only_run_can_see_through_arithmetic():
    """Labels that the loss computes cannot be checked ahead; the step that meets a bad one must still be undone whole."""
    params = init_mlp(SIZES, 0, np.float64)

    def loss(p, x, y):
        return cross_entropy_loss(p, x, y + 1)

    step = fg.TrainStep(loss, params, SGD(0.1))
    x, y = data(12)
    y = y % 4
    step(x[:4], y[:4])
    y[9] = 4
    before = frozen(step)
    twin = fg.TrainStep(loss, params, SGD(0.1))
    twin(x[:4], y[:4])
    with pytest.raises(OutOfBoundsError):
        step.run(x, y, batch_size=4)
    twin(x[:4], y[:4])
    twin(x[4:8], y[4:8])
    # Whole steps: either none at all, or the two before the bad one.
    assert frozen(step) in (before, frozen(twin))


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_bad_batches(backend):
    step = good_step(backend)
    before = frozen(step)
    x, y = data(8)
    calls = [
        (lambda: step(x[:0], y[:0]), ShapeError, "empty batch"),
        (lambda: step(x, y[:7]), ShapeError, r"f64\[8,5\] and i64\[7\]"),
        (lambda: step(x[:, :9], y), ShapeError, r"matmul.*f64\[8,9\] @ f64\[16,12\]"),
        (lambda: step(x, y * 1.0), DTypeError, "labels must be integers, got f64"),
        (lambda: step(x.astype(object), y), DTypeError, "dtype object is not supported"),
        (lambda: step(x + 0j, y), DTypeError, "dtype complex128 is not supported"),
        (lambda: step(x.astype(np.float16), y), DTypeError, "dtype float16 is not supported"),
        (lambda: step(x, y.astype("datetime64[s]")), DTypeError, "datetime64"),
        (lambda: step(x, np.array(["a"] * 8)), DTypeError, "is not supported"),
        (lambda: step(x), (TypeError, FastgradError), "y"),
        (lambda: step(x, y, y), (TypeError, FastgradError), "positional|argument"),
        (lambda: step.run(x, y[:7], batch_size=4), ShapeError, r"differ in their number of examples.*8, 7"),
        (lambda: step.run(x[:0], y[:0], batch_size=4), ShapeError, "0 examples"),
        (lambda: step.run(x, np.int64(3), batch_size=4), ShapeError, "first axis"),
        (lambda: step.run(batch_size=4), ShapeError, "at least one array"),
        (lambda: step.run(x, y.astype(object), batch_size=4), DTypeError, "object"),
        (lambda: step.run(x, y * 1.0, batch_size=4), DTypeError, "labels must be integers"),
        (lambda: step.run(x, y, batch_size=0), ArgumentError, "batch_size must be a positive integer, got 0"),
        (lambda: step.run(x, y, batch_size=2.0), ArgumentError, "batch_size must be a positive integer"),
        (lambda: step.run(x, y, batch_size=True), ArgumentError, "batch_size must be a positive integer"),
        (lambda: step.run(x, y, batch_size=4, epochs=0), ArgumentError, "epochs must be a positive integer"),
        (
            lambda: step.run(x, y, batch_size=9, drop_last=True),
            ArgumentError,
            "leaves no batch of 9 in 8 rows",
        ),
    ]
    for i, (call, error, message) in enumerate(calls):
        with pytest.raises(error, match=message):
            call()
            pytest.fail(f"case {i} raised nothing")
        assert frozen(step) == before, i
    step(x, y)


def test_an_empty_batch_of_a_loss_that_could_take_it():
    step = fg.TrainStep(lambda p, x: (p * x.sum()).sum(), np.ones(3), SGD(0.1))
    step(np.ones(4))
    with pytest.raises(ShapeError, match="empty batch"):
        step(np.ones(0))
    np.testing.assert_array_equal(step.params, np.ones(3) - 0.4)


def test_bad_arguments():
    def make(loss=squares, params=None, optimizer=None, **options):
        return fg.TrainStep(
            loss, linear_params() if params is None else params, optimizer or SGD(0.1), **options
        )

    calls = [
        (lambda: make(loss=3), ArgumentError, "loss must be a function, got int"),
        (lambda: make(optimizer="adam"), ArgumentError, "optimizer must be one of fg.optim, got str"),
        (lambda: make(params={}), ArgumentError, "holds no arrays"),
        (lambda: make(params={"w": np.arange(3)}), DTypeError, r"\['w'\].*i64\[3\]"),
        (lambda: make(params={"w": np.ones(3, np.float16)}), DTypeError, "float16"),
        (lambda: make(params={"w": np.ones(3) + 0j}), DTypeError, "complex"),
        (lambda: make(params={"w": np.array([None])}), DTypeError, "object"),
        (lambda: make(params={"w": "text"}), DTypeError, "not supported"),
        (lambda: make(precision="half"), ArgumentError, "unknown precision 'half'"),
        (lambda: make(backend="tpu"), ArgumentError, "unknown backend"),
        (lambda: make(threads=0), ArgumentError, "threads"),
        (lambda: SGD(-0.1), ArgumentError, "lr"),
        (lambda: SGD(float("nan")), ArgumentError, "lr"),
        (lambda: SGD(0.1, momentum=1.0), ArgumentError, "momentum"),
        (lambda: SGD(0.1, nesterov=True), ArgumentError, "nesterov needs a momentum"),
        (lambda: Adam(betas=(0.9, 1.0)), ArgumentError, r"betas\[1\]"),
        (lambda: make().executable, ArgumentError, r"nothing is compiled yet\n  try: call the step once"),
        (lambda: make(backend="numpy").executable, ArgumentError, "interpreted.*\n  try: .*backend='numba'"),
    ]
    for i, (call, error, message) in enumerate(calls):
        with pytest.raises(error, match=message):
            call()
            pytest.fail(f"case {i} raised nothing")


def test_a_loss_that_is_no_scalar_float():
    x, y = linear_data()
    for loss, error, message in (
        (lambda p, x, y: x @ p["w"], ShapeError, "must return a scalar, got f64"),
        (lambda p, x, y: (p["w"] > 0).sum(), DTypeError, "float"),
        (lambda p, x, y: None, (ShapeError, DTypeError), "must return"),
    ):
        step = fg.TrainStep(loss, linear_params(), SGD(0.1))
        with pytest.raises(error, match=message):
            step(x, y)


def test_an_error_while_tracing_leaves_the_step_usable():
    def loss(p, x, y):
        if x.shape[0] == 3:
            raise RuntimeError("three")
        return squares(p, x, y)

    step = fg.TrainStep(loss, linear_params(), SGD(0.1))
    step(*linear_data())
    before = frozen(step)
    with pytest.raises(RuntimeError, match="three"):
        step(*linear_data(3))
    assert frozen(step) == before
    step(*linear_data())


# -- several at once -----------------------------------------------------------------------------------------


def test_two_steps_take_turns():
    x, y = data(8)
    alone = good_step()
    for _ in range(10):
        alone(x, y)
    one, two = good_step(), good_step()
    for _ in range(10):
        one(x, y)
        two(x, y)
    assert frozen(one) == frozen(two) == frozen(alone)


def together(*jobs):
    """Run the jobs in threads of their own; raise what any of them raised."""
    errors = []

    def guarded(job):
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
        assert not t.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


def test_one_step_called_from_several_threads():
    """Equal batches: whatever the order, so many whole steps were done."""
    x, y = data(8)
    step, alone = good_step(), good_step()
    losses = []

    def job():
        for _ in range(50):
            losses.append(float(step(x, y)))
        losses.extend(map(float, step.run(x, y, batch_size=8, epochs=25)))

    together(*[job] * 4)
    expected = [float(alone(x, y)) for _ in range(300)]
    assert frozen(step) == frozen(alone)
    np.testing.assert_allclose(sorted(losses), sorted(expected), rtol=1e-12)


def test_functions_called_at_once_from_many_threads(monkeypatch):
    parallel(monkeypatch)
    f = fg.jit(lambda x, w: np.tanh(x @ w).sum(axis=0), threads=2)
    g = fg.value_and_grad(lambda p, x, y: cross_entropy_loss(p, x, y), threads=2)
    rng = np.random.default_rng(0)
    xs = [rng.standard_normal((n, 16)) for n in (3, 64, 200)]
    w = rng.standard_normal((16, 40))
    params = init_mlp(SIZES, 0, np.float64)
    batches = [data(n) for n in (4, 50, 130)]
    wanted_f = [f(x, w).copy() for x in xs]
    wanted_g = [g(params, *b) for b in batches]
    for x, want in zip(xs, wanted_f, strict=True):
        np.testing.assert_allclose(want, np.tanh(x @ w).sum(axis=0), rtol=1e-10, atol=1e-10)
    step_data, step_errors = data(32), []
    step = fg.TrainStep(cross_entropy_loss, params, SGD(0.01), threads=2)
    end = time.perf_counter() + 4.0
    counts = [0, 0, 0]

    def call_f():
        while time.perf_counter() < end:
            i = counts[0] % 3
            assert f(xs[i], w).tobytes() == wanted_f[i].tobytes()
            counts[0] += 1

    def call_g():
        while time.perf_counter() < end:
            i = counts[1] % 3
            value, grads = g(params, *batches[i])
            assert value.tobytes() == wanted_g[i][0].tobytes()
            for a, b in zip(leaves(grads), leaves(wanted_g[i][1]), strict=True):
                assert a.tobytes() == b.tobytes()
            counts[1] += 1

    def call_step():
        while time.perf_counter() < end:
            step(*step_data)
            counts[2] += 1

    together(call_f, call_g, call_step, call_f)
    assert min(counts) > 10 and not step_errors
    alone = fg.TrainStep(cross_entropy_loss, params, SGD(0.01), threads=1)
    for _ in range(counts[2]):
        alone(*step_data)
    assert frozen(step) == frozen(alone)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_goes_on_after_a_parallel_run(monkeypatch):
    parallel(monkeypatch)
    x, y = data(64)
    f = fg.jit(lambda x: np.tanh(x).sum(axis=1), threads=2)
    step, twin = good_step(threads=2), good_step(threads=1)
    step(x, y)
    twin(x, y)
    expected = f(x)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            same = f(x).tobytes() == expected.tobytes()
            new = np.allclose(fg.jit(lambda x: np.exp(x).sum(axis=1), threads=2)(x), np.exp(x).sum(axis=1))
            step(x, y)
            step.run(x, y, batch_size=16, shuffle=3)
            twin(x, y)
            twin.run(x, y, batch_size=16, shuffle=3)
            code = 0 if same and new and frozen(step) == frozen(twin) else 2
        finally:
            os._exit(code)
    end = time.monotonic() + 30
    done = 0
    while not done and time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)
    if not done:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 0
    assert f(x).tobytes() == expected.tobytes()  # and so does the parent


INTERRUPTED = """
import sys, time
import numpy as np
import fastgrad as fg
from fastgrad.executor import tape
from fastgrad.train import cross_entropy_loss, init_mlp

tape.PARALLEL_NS = tape.REGION_NS = -1.0
rng = np.random.default_rng(0)
x, y = rng.standard_normal((200_000, 16)).astype(np.float32), rng.integers(0, 10, 200_000)

def everything(step):
    flat = lambda tree: [a.tobytes() for layer in tree for a in layer.values()]
    return [flat(t) for t in (step.params, step.state["optimizer"]["exp_avg"], step.state["optimizer"]["exp_avg_sq"])]

for threads in (1, 2):
    step, twin = (
        fg.TrainStep(cross_entropy_loss, init_mlp([16, 32, 10], 0), fg.optim.Adam(1e-3), threads=threads) for _ in range(2)
    )
    step.run(x[:100], y[:100], batch_size=10)
    twin.run(x[:100], y[:100], batch_size=10)
    print("ready", flush=True)
    try:
        while True:
            step.run(x, y, batch_size=10)
    except KeyboardInterrupt:
        caught = time.time()
    done = int(step.state["optimizer"]["step"])
    epochs, steps = divmod(done - 10, 20_000)
    for n in [20_000] * epochs + [steps] * (steps > 0):
        twin.run(x[: 10 * n], y[: 10 * n], batch_size=10)
    print(done, "whole" if everything(step) == everything(twin) else "torn", caught, flush=True)
    step.run(x[:100], y[:100], batch_size=10)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
def test_ctrl_c_stops_a_long_run_between_steps():
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )
    try:
        for threads in (1, 2):
            assert child.stdout.readline() == "ready\n", child.communicate()
            time.sleep(0.3)
            sent = time.time()
            child.send_signal(signal.SIGINT)
            done, state, caught = child.stdout.readline().split()
            assert int(done) > 10 and state == "whole", threads
            assert float(caught) - sent < 1.0, threads
        _, err = child.communicate(timeout=30)
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    assert child.returncode == 0, err


def test_relu_and_other_losses_train():
    """Not only the digits' MLP: a regression with softmax attention over rows ends near its minimum."""
    rng = np.random.default_rng(0)
    keys, x = rng.standard_normal((9, 4)), rng.standard_normal((30, 4))
    truth = F.softmax(x @ keys.T, axis=1) @ rng.standard_normal(9)

    def loss(p, x, y):
        return F.mse_loss(F.softmax(x @ p["k"].T, axis=1) @ p["v"], y)

    params = {"k": rng.standard_normal((9, 4)), "v": np.zeros(9)}
    curves = []
    for backend in ("numba", "numpy"):
        step = fg.TrainStep(loss, params, Adam(2e-2), backend=backend)
        curves.append(step.run(x, truth, batch_size=10, epochs=60, shuffle=0))
    assert curves[0][-1] < 0.1 * curves[0][0]
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-7)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize(
    ("loss", "rows"),
    [
        (lambda p, y: (np.take(p, y, axis=0) ** 2).sum(), [0, 1, 2, 2, 1, 3]),
        (lambda p, y: fg.nn.functional.cross_entropy(p[np.array([0, 0])] * 1.0, y + 1), [0, 1, 1, 0, 0, 2]),
    ],
    ids=["an embedding's row", "labels computed from the data"],
)
def test_run_checks_every_index_of_the_data_first(loss, rows, backend):
    step = fg.TrainStep(loss, np.ones((3, 3)), SGD(0.1), backend=backend)
    with pytest.raises(OutOfBoundsError, match="index 3"):
        step.run(np.array(rows), batch_size=2)
    np.testing.assert_array_equal(step.params, np.ones((3, 3)))


def test_run_checks_labels_as_the_step_sees_them():
    """257 is class 1 once it is cast to uint8."""
    step = fg.TrainStep(
        lambda p, y: fg.nn.functional.cross_entropy(p[: y.shape[0]], y.astype(np.uint8)),
        np.zeros((2, 3)),
        SGD(0.1),
    )
    assert step.run(np.array([0, 1, 2, 257]), batch_size=2).shape == (2,)


def test_a_list_of_numbers_is_a_batch():
    step = fg.TrainStep(lambda p, x: (p * x).sum(), np.ones(3), SGD(0.0))
    assert step([1.0, 2.0, 3.0]) == 6.0
