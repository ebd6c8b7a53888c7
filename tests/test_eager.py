"""`fg.Tensor`: define-by-run on the op table."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from cases import CASES, Case
from fastgrad.core.loops import Library
from fastgrad.core.primitive import Primitive
from fastgrad.eager import rule
from fastgrad.errors import (
    ArgumentError,
    DTypeError,
    FastgradError,
    OutOfBoundsError,
    ShapeError,
    TraceError,
    UnsupportedError,
)
from fastgrad.nn import functional as F

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
smooth = pytest.mark.parametrize(
    "case", [c for c in CASES if c.order and not c.ties], ids=lambda case: case.name
)


@pytest.fixture(autouse=True)
def soon_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules are traced the second time that they run, so that three runs in a test go both ways."""
    monkeypatch.setattr(rule, "TRACE_AFTER", 1)


def leaf(data: Any, **options: Any) -> fg.Tensor:
    return fg.Tensor(data, requires_grad=True, **options)


def tensors(arrays: list[np.ndarray]) -> list[fg.Tensor]:
    """Tensors of ``arrays``, the floats among them leaves that require a gradient."""
    return [fg.Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]


def array(value: Any) -> np.ndarray:
    assert isinstance(value, fg.Tensor), type(value)
    return value.numpy()


def cotangent(shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    return np.cos(np.arange(1.0, 1.0 + int(np.prod(shape)))).reshape(shape).astype(dtype)


# --- every op of the table --------------------------------------------------------------------------------------------


@every
def test_every_op_computes_what_numpy_does(case: Case):
    arrays = case.inputs()
    given = tensors(arrays)
    got, expected = array(case.fn(*given)), case.oracle(*arrays)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    single = expected.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=2e-6 if single else 1e-12, atol=1e-6 if single else 1e-12)
    for t, a in zip(given, arrays, strict=True):
        np.testing.assert_array_equal(t.numpy(), a)


@every
def test_every_op_has_the_gradients_of_the_traced_function(case: Case):
    arrays = case.inputs()
    floats = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    out = case.oracle(*arrays)
    if out.dtype.kind != "f" or not floats:
        assert not case.fn(*tensors(arrays)).requires_grad
        return
    ct = cotangent(out.shape, out.dtype)
    expected = fg.vjp(case.fn, *arrays, backend="numpy")[1](ct)
    tolerance = 1e-5 if any(a.dtype == np.float32 for a in (*arrays, out)) else 1e-12
    for _ in range(3):
        given = tensors(arrays)
        result = case.fn(*given)
        if not result.requires_grad:  # no float among the inputs reaches the result
            assert all(not np.any(expected[i]) for i in floats)
            return
        result.backward(ct)
        for i, (t, a) in enumerate(zip(given, arrays, strict=True)):
            if i not in floats:
                assert t.grad is None
                continue
            got = np.zeros_like(a) if t.grad is None else t.grad.numpy()
            assert (got.shape, got.dtype) == (a.shape, a.dtype)
            np.testing.assert_allclose(got, expected[i], rtol=tolerance, atol=tolerance)


@smooth
def test_every_smooth_op_has_the_gradients_of_differences(case: Case):
    arrays = case.inputs()
    rng = np.random.default_rng(0)
    directions = [rng.standard_normal(a.shape) if a.dtype.kind == "f" else None for a in arrays]

    def shifted(step: float) -> np.ndarray:
        moved = [a if d is None else a + step * d for a, d in zip(arrays, directions, strict=True)]
        return case.oracle(*moved)

    slope = (shifted(1e-5) - shifted(-1e-5)) / 2e-5
    ct = cotangent(slope.shape)
    given = tensors(arrays)
    result = case.fn(*given)
    if result.requires_grad:  # x**0 does not depend on x
        result.backward(ct)
    got = sum(
        np.vdot(t.grad.numpy(), d)
        for t, d in zip(given, directions, strict=True)
        if d is not None and t.grad is not None
    )
    tolerance = max(case.tolerance, 1e-6)
    np.testing.assert_allclose(got, np.vdot(ct, slope), rtol=tolerance, atol=tolerance * (1 + ct.size))


def test_a_rule_is_traced_once_it_is_met_again():
    x, c = leaf(np.ones((11, 3))), np.ones((7, 11))
    for run in range(3):
        out = c @ x
        node = out._node
        traced = node.op.rule(node.wanted)
        assert (traced.run is not None) == (run > 1)
        out.sum().backward()
    assert traced.reads == {1}  # of the output and the two inputs: the constant alone
    assert len(traced.run(np.ones((7, 3)), None, c, None)) == 1  # and only the leaf gets a cotangent


def test_a_constant_operand_gets_no_cotangent_and_a_number_serves_as_any_other():
    x = leaf([1.0, 2.0])
    for power in (2.5, 3.5, -0.5, 4.0, 1.5):
        x.grad = None
        (x**power).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), power * x.numpy() ** (power - 1), rtol=1e-15)


def _sincos_vjp(cts: Any, outs: Any, x: Any, *, scale: Any) -> tuple:
    terms = [ct * d for ct, d in zip(cts, (outs[1], -outs[0]), strict=True) if ct is not None]
    return (sum(terms[1:], start=terms[0]),)


sincos_p = Primitive(
    "sincos",
    abstract=lambda x, *, scale: (x, x),
    reference=lambda x, *, scale: (np.sin(x), np.cos(x)),
    vjp=_sincos_vjp,
    jvp=None,
    batch=None,
    kernel=Library("sincos"),
)


@pytest.mark.parametrize("scale", [1, [1]], ids=["hashable", "unhashable"])
def test_ops_of_several_results_and_of_any_parameters(scale: Any):
    x = leaf([0.5, 1.0])
    sin, cos = np.sin(x.numpy()), np.cos(x.numpy())
    for _ in range(3):
        for pick, expected in (
            (lambda s, c: s, cos),
            (lambda s, c: c, -sin),
            (lambda s, c: s * c, cos * cos - sin * sin),
        ):
            x.grad = None
            s, c = sincos_p(x, scale=scale)
            c.retain_grad()
            pick(s, c).sum().backward()
            np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-14)
            assert (c.grad is None) == (pick(1, 0) == 1)
    s, c = sincos_p(x, scale=scale)
    with fg.no_grad():
        c.zero_()
    with pytest.raises(ArgumentError, match="sincos needs"):
        s.sum().backward()


# --- values -----------------------------------------------------------------------------------------------------------


def test_a_tensor_copies_what_it_is_given():
    given = np.array([1.0, 2.0])
    t = fg.Tensor(given)
    given[0] = 9
    assert t.tolist() == [1.0, 2.0]
    u = fg.Tensor(t)
    u += 1
    assert t.tolist() == [1.0, 2.0]
    assert fg.Tensor([1, 2]).dtype == np.int64
    assert fg.Tensor([1, 2], dtype=np.float32).dtype == np.float32
    assert fg.Tensor(3.0).shape == ()
    assert fg.Tensor(np.zeros(2, ">f8")).dtype == np.dtype(np.float64)


def test_values_are_known():
    t = fg.Tensor(2.5)
    assert float(t) == 2.5 and int(t) == 2 and complex(t) == 2.5 and t.item() == 2.5 and bool(t)
    assert f"{t:.2f}" == "2.50" and f"{t}" == "Tensor(2.5)"
    assert not fg.Tensor(0)
    assert [10, 20, 30][fg.Tensor(1)] == 20
    np.testing.assert_array_equal(np.arange(5)[fg.Tensor([3, 1])], [3, 1])
    assert list(range(fg.Tensor(3))) == [0, 1, 2]
    m = fg.Tensor([[1.0, 2.0], [3.0, 4.0]])
    assert len(m) == 2 and m.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert [row.tolist() for row in m] == m.tolist()
    assert m.item(1, 0) == 3.0
    assert m[fg.Tensor(1)].tolist() == [3.0, 4.0]
    if (m > 0).all():
        m = -m
    assert m.max() == -1.0
    assert (2 * fg.Tensor(3.0) + np.float64(1)).item() == 7.0


def test_values_that_are_no_number_say_so():
    with pytest.raises(ValueError):
        bool(fg.Tensor([1.0, 2.0]))
    with pytest.raises(ValueError):
        float(fg.Tensor([1.0, 2.0]))
    with pytest.raises(TypeError):
        range(fg.Tensor(1.5))
    with pytest.raises(TypeError):
        len(fg.Tensor(1.0))


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (fg.Tensor([1.0, 2.0]), "Tensor([1., 2.])"),
        (leaf([1.0]), "Tensor([1.], requires_grad=True)"),
        (fg.Tensor([1], dtype=np.float32), "Tensor([1.], dtype=float32)"),
        (leaf([1.0]) * 2, "Tensor([2.], from mul)"),
        (fg.Tensor(True), "Tensor(True)"),
    ],
)
def test_repr(tensor: fg.Tensor, text: str):
    assert repr(tensor) == text


def test_numpy_sees_the_memory_and_cannot_write_it():
    t = leaf([1.0, 2.0])
    view, converted = t.numpy(), np.asarray(t)
    for seen in (view, converted):
        assert type(seen) is np.ndarray and np.shares_memory(seen, t.numpy())
        with pytest.raises(ValueError, match="read-only"):
            seen[0] = 3
    own = np.array(t)
    own[0] = 3
    with fg.no_grad():
        t += 1
    assert view.tolist() == [2.0, 3.0] and own.tolist() == [3.0, 2.0]
    assert np.asarray(t, np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(t, np.float32, copy=False)
    assert np.asarray(fg.Tensor(1.0) * 2).shape == ()


def test_what_numpy_copies_is_a_copy():
    t = fg.Tensor([1.0, 2.0])
    copies = [t.copy(), t.clone(), t.flatten(), t.astype(np.float64), +t, np.copy(t), fnp.array(t)]
    t += 1
    assert all(c.tolist() == [1.0, 2.0] for c in copies)
    assert t.astype(np.float64, copy=False) is t
    buffer = np.zeros_like(t)
    buffer += 2
    buffer[0] = 5
    assert buffer.tolist() == [5.0, 2.0]


def test_nan_and_infinity_flow_without_warnings():
    x = leaf([0.0, 1.0, -1.0, np.nan])
    y = np.log(x) / x
    np.testing.assert_array_equal(y.numpy()[:2], [-np.inf, 0.0])
    assert np.isnan(y.numpy()[2:]).all()
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [np.inf, 1.0, np.nan, np.nan])
    big = leaf(np.float32(3e38)) * 10
    assert np.isinf(big.item())


def test_leaves_are_pickled_and_copied():
    t = leaf([1.0, 2.0], dtype=np.float32)
    for twin in (pickle.loads(pickle.dumps(t)), copy.deepcopy(t), copy.deepcopy({"w": t})["w"]):
        assert twin.requires_grad and twin.dtype == np.float32 and twin.tolist() == [1.0, 2.0]
        assert not np.shares_memory(twin.numpy(), t.numpy())
    with pytest.raises(ArgumentError, match="only leaves"):
        copy.deepcopy(t * 2)


# --- backward ---------------------------------------------------------------------------------------------------------


def test_gradients_add_up_over_calls_and_over_uses():
    x = leaf([1.0, 2.0])
    assert x.grad is None
    (x * x).sum().backward()
    first = x.grad
    assert isinstance(first, fg.Tensor) and not first.requires_grad
    (3 * x + x).sum().backward()
    assert x.grad.tolist() == [6.0, 8.0] and x.grad is first
    x.grad.zero_()
    assert x.grad.tolist() == [0.0, 0.0]
    x.grad = None
    (x[0] * x[1]).backward()
    assert x.grad.tolist() == [2.0, 1.0]


def test_gradients_of_several_leaves_share_no_memory():
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    seed = np.array([1.0, 10.0])
    for _ in range(3):
        a.grad = b.grad = None
        (a + b).backward(seed)
        a.grad.zero_()
        assert b.grad.tolist() == [1.0, 10.0] and seed.tolist() == [1.0, 10.0]


def test_grad_may_be_set():
    x = leaf([1.0, 2.0])
    x.grad = np.array([1.0, 1.0])
    (x * 2).sum().backward()
    grad = x.grad
    x.grad *= 2
    assert x.grad is grad and grad.tolist() == [6.0, 6.0]
    with pytest.raises(ShapeError, match="grad"):
        x.grad = np.zeros(3)
    with pytest.raises(DTypeError, match="grad"):
        x.grad = np.zeros(2, np.float32)


def test_a_leaf_is_its_own_root_and_0d_works():
    x = leaf(3.0)
    x.backward()
    x.backward()
    assert x.grad.item() == 2.0
    x.grad = None
    (x * x * x).backward()
    assert x.grad.item() == 27.0 and x.grad.shape == ()
    one = leaf([[4.0]])
    np.sqrt(one).backward()
    assert one.grad.tolist() == [[0.25]]


def test_zero_by_rule_is_zero_and_unreached_is_none():
    x, y = leaf([1.5]), leaf([1.0])
    (np.floor(x) + 0 * fg.stop_gradient(y)).sum().backward()
    assert x.grad.tolist() == [0.0] and y.grad is None
    assert not fg.stop_gradient(y * 2).requires_grad


def test_retain_grad_keeps_that_of_a_result():
    x = leaf([1.0, 2.0])
    h = x * x
    h.retain_grad()
    out = (3 * h).sum()
    out.backward()
    assert h.grad.tolist() == [3.0, 3.0] and out.grad is None
    root = x.sum()
    root.retain_grad()
    root.backward()
    assert root.grad.item() == 1.0
    with pytest.raises(ArgumentError, match="retain_grad"):
        fg.Tensor(1.0).retain_grad()


def test_the_recording_is_freed_unless_it_is_retained():
    x = leaf([1.0, 2.0])
    out = (x * x).sum()
    out.backward(retain_graph=True)
    out.backward()
    assert x.grad.tolist() == [4.0, 8.0]
    with pytest.raises(ArgumentError, match="freed") as error:
        out.backward()
    assert "retain_graph=True" in str(error.value) and "test_eager.py" in str(error.value)
    assert x.grad.tolist() == [4.0, 8.0]


def test_memory_goes_after_backward_and_without_it():
    x = leaf(np.ones(1000))
    h = np.exp(x)
    held = weakref.ref(h)
    out = (h * h).sum()
    del h
    assert held() is not None  # the product's node holds it
    out.backward()
    assert held() is None  # freed while ``out`` lives, by counting alone
    h = np.exp(x)
    held = weakref.ref(h)
    gc.disable()
    try:
        del h
        assert held() is None
    finally:
        gc.enable()


def test_a_chain_of_100_000_ops():
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y + x
    y.backward()
    assert x.grad.item() == 100_001.0
    z = x
    for _ in range(100_000):
        z = z * 1.0
    del z  # never run backwards: it must not recurse either when it is dropped


def test_a_diamond_counts_each_path():
    x = leaf(2.0)
    y = x
    for _ in range(60):
        y = y + y
    y.backward()
    assert x.grad.item() == 2.0**60


def test_backward_says_what_is_wrong():
    x = leaf([1.0, 2.0])
    with pytest.raises(ArgumentError, match="one element, got") as error:
        (x * 2).backward()
    assert "sum().backward()" in str(error.value) and "test_eager.py" in str(error.value)
    with pytest.raises(ArgumentError, match="requires no gradient"):
        fg.Tensor(1.0).backward()
    with pytest.raises(ArgumentError, match="requires no gradient"):
        x.detach().sum().backward()
    with pytest.raises(ShapeError, match="gradient must be"):
        (x * 2).backward(np.ones(3))
    with pytest.raises(DTypeError, match="gradient must be"):
        (x * 2).backward(np.ones(2, np.float32))
    x.sum().backward(2)
    (x * 2).backward(fg.Tensor([1.0, 0.0]))
    assert x.grad.tolist() == [4.0, 2.0]


def test_integers_require_no_gradient():
    for data in (1, True, [1, 2]):
        with pytest.raises(DTypeError, match="only floats"):
            leaf(data)
    t = fg.Tensor([1, 2])
    with pytest.raises(DTypeError, match="only floats"):
        t.requires_grad = True
    x = leaf([1.0, 2.0])
    assert not (x > 1).requires_grad and not x.astype(np.int32).requires_grad
    assert (x * t).requires_grad


def test_leaves_and_flags():
    x = fg.Tensor([1.0]).requires_grad_()
    y = x * 2
    assert x.is_leaf and x.requires_grad and not y.is_leaf and y.requires_grad
    assert x.requires_grad_(False) is x and not (x * 2).requires_grad and (x * 2).is_leaf
    with pytest.raises(ArgumentError, match="leaf"):
        y.requires_grad = False


def test_detach_shares_memory_without_the_history():
    x = leaf([1.0, 2.0])
    h = x * 2
    d = h.detach()
    assert d.is_leaf and not d.requires_grad and np.shares_memory(d.numpy(), h.numpy())
    (h * d).sum().backward()
    assert x.grad.tolist() == [4.0, 8.0]
    w = leaf([1.0, 2.0])
    w.detach()[0] = 7
    w.data += 1
    assert w.tolist() == [8.0, 3.0] and w.is_leaf and w.requires_grad
    for s in (leaf(1.0) * 2, np.zeros_like(w)):  # a NumPy scalar, one element repeated by strides
        s.detach().fill_(9)
        assert (s == 9.0).all()


def test_clone_is_recorded():
    x = leaf([1.0, 2.0])
    c = x.clone()
    assert not np.shares_memory(c.numpy(), x.numpy())
    (c * c).sum().backward()
    assert x.grad.tolist() == [2.0, 4.0]


# --- no_grad ----------------------------------------------------------------------------------------------------------


def test_no_grad_records_nothing_and_nests():
    x = leaf([1.0])
    with fg.no_grad():
        with fg.no_grad():
            assert not (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad
    block = fg.no_grad()
    with block, block:
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad
    with pytest.raises(ZeroDivisionError), fg.no_grad():
        _ = 1 / 0
    assert (x * 2).requires_grad


def test_no_grad_decorates_functions_generators_and_coroutines():
    x = leaf([1.0])

    @fg.no_grad()
    def function(n: int) -> fg.Tensor:
        """Its words."""
        return x * 2 if n == 0 else function(n - 1)

    @fg.no_grad()
    def generator():
        got = yield x * 2
        yield x * got

    @fg.no_grad()
    async def coroutine() -> fg.Tensor:
        await asyncio.sleep(0)
        return x * 2

    async def both() -> list[bool]:
        async def plain() -> fg.Tensor:
            await asyncio.sleep(0)
            return x * 2

        return [t.requires_grad for t in await asyncio.gather(coroutine(), plain(), coroutine())]

    assert not function(3).requires_grad and function.__doc__ == "Its words."
    steps = generator()
    assert not next(steps).requires_grad
    assert (x * 2).requires_grad  # the consumer records
    assert not steps.send(3.0).requires_grad
    assert asyncio.run(both()) == [False, True, False]


def test_no_grad_is_each_threads_own():
    x, seen = leaf([1.0]), []
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        inside.wait(10)
        seen.append((x * 2).requires_grad)
        with fg.no_grad():
            done.set()
            seen.append((x * 2).requires_grad)

    thread = threading.Thread(target=other)
    thread.start()
    with fg.no_grad():
        inside.set()
        assert done.wait(10)
    thread.join()
    assert seen == [True, False] and (x * 2).requires_grad


def test_threads_record_side_by_side():
    rng = np.random.default_rng(0)
    data = rng.standard_normal((8, 5, 4))
    results: list[Any] = [None] * 8

    def work(i: int) -> None:
        for _ in range(20):
            w = leaf(data[i])
            np.tanh(w @ w.T).sum().backward()
            results[i] = w.grad.numpy()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        expected = fg.grad(lambda w: np.tanh(w @ w.T).sum(), backend="numpy")(data[i])
        np.testing.assert_allclose(results[i], expected, rtol=1e-13)


# --- in place ---------------------------------------------------------------------------------------------------------


def test_a_leaf_changes_in_place_under_no_grad():
    w = leaf([1.0, 2.0])
    same, memory = w, w.numpy()
    (w * w).sum().backward()
    with fg.no_grad():
        w -= 0.5 * w.grad
    assert w is same and w.is_leaf and w.requires_grad and memory.tolist() == [0.0, 0.0]
    with fg.no_grad():
        w[1] = 4
        w += fg.Tensor([1.0, 1.0])
        w[fg.Tensor([0])] = 6.0
    assert w.tolist() == [6.0, 5.0]


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.__isub__(1.0),
        lambda w: w.__imul__(2.0),
        lambda w: w.zero_(),
        lambda w: w.fill_(1),
        lambda w: w.copy_([1.0, 2.0]),
        lambda w: w.__setitem__(0, 1.0),
    ],
)
def test_a_leaf_does_not_change_in_place_while_it_is_recorded(change: Any):
    w = leaf([1.0, 2.0])
    with pytest.raises(ArgumentError, match="leaf that requires a gradient") as error:
        change(w)
    assert "fg.no_grad()" in str(error.value)
    assert w.tolist() == [1.0, 2.0]


def test_in_place_on_results_is_recorded_or_refused():
    x = leaf([1.0, 2.0])
    h = np.exp(x)
    before = h
    h *= x
    assert before is not h and h.requires_grad
    total = fg.Tensor(0.0)
    for _ in range(3):
        total += (x * x).sum()
    (total + h.sum()).backward()
    e = np.exp(x.numpy())
    np.testing.assert_allclose(x.grad.numpy(), 6 * x.numpy() + e * x.numpy() + e, rtol=1e-14)
    with pytest.raises(ArgumentError, match="recorded value"):
        (x * 2).zero_()
    with pytest.raises(ArgumentError, match="recorded value"):
        fg.Tensor([0.0, 0.0])[0] = x[0]


def test_in_place_keeps_shape_and_dtype_or_raises():
    t, f = fg.Tensor([1, 2]), fg.Tensor([1.0, 2.0], dtype=np.float32)
    memory = t.numpy()
    t += 1
    t *= np.int64(3)
    assert memory.tolist() == [6, 9]
    with pytest.raises(DTypeError, match="cannot hold"):
        t += 0.5
    with pytest.raises(ShapeError, match="keeps the shape"):
        f += np.zeros((2, 2), np.float32)
    with pytest.raises(DTypeError, match="cannot hold"):
        t[0] = np.float64(1.5)
    with pytest.raises(ShapeError, match="does not fit"):
        f.copy_(np.zeros(3))
    f += np.float64(1)  # same kind
    f.copy_(np.array([3.0, 4.0]))
    assert f.dtype == np.float32 and f.tolist() == [3.0, 4.0] and t.tolist() == [6, 9]


CHANGES = {
    "-=": lambda w: w.__isub__(1.0),
    "zero_": lambda w: w.zero_(),
    "copy_": lambda w: w.copy_(0.5 * w.numpy()),
    "[...] =": lambda w: w.__setitem__(..., 3.0),
    "a view": lambda w: w[1:].zero_(),
    "detach": lambda w: w.detach().fill_(2),
    "data": lambda w: setattr(w, "data", np.zeros(w.shape)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_value_that_backward_needs_may_not_change_before(name: str):
    for _ in range(3):
        w, v = leaf([1.0, 2.0]), leaf([3.0, 4.0])
        out = (w * v).sum()
        with fg.no_grad():
            CHANGES[name](w)
        with pytest.raises(ArgumentError, match="mul needs a value that was changed in place") as error:
            out.backward()
        assert "clone()" in str(error.value)
        assert w.grad is None and v.grad is None  # nothing is half done


def test_a_value_that_backward_does_not_need_may_change():
    for _ in range(3):
        w, v = leaf([1.0, 2.0]), fg.Tensor([3.0, 4.0])
        out = ((w + v) * v).sum()
        with fg.no_grad():
            w -= 1
        out.backward()  # w * constant, w + constant: neither reads w
        assert w.grad.tolist() == [3.0, 4.0]
        y = np.exp(w)
        out = y.sum()
        with fg.no_grad():
            w += 1  # exp reads its own result
        out.backward()
        with fg.no_grad():
            y = np.exp(w)
        y = np.exp(w)
        out = y.sum()
        with fg.no_grad():
            y.zero_()
        with pytest.raises(ArgumentError, match="exp needs"):
            out.backward()


def test_views_count_changes_together():
    w = leaf([[1.0, 2.0], [3.0, 4.0]])
    t = w.T
    out = (t * t).sum()
    with fg.no_grad():
        w += 1
    with pytest.raises(ArgumentError, match="changed in place"):
        out.backward()


def test_an_optimizer_step_between_forward_and_backward_is_noticed():
    w = leaf([1.0, 2.0])
    opt = fg.optim.SGD([w], lr=0.1)
    (w * w).sum().backward()
    out = (w * w).sum()
    opt.step()
    with pytest.raises(ArgumentError, match="changed in place"):
        out.backward()


def test_numpy_operands_may_change_after_they_were_used():
    w, x = leaf([1.0, 2.0]), np.array([3.0, 4.0])
    for _ in range(3):
        x[:] = [3.0, 4.0]
        w.grad = None
        out = (w * x).sum()
        x[:] = 0
        out.backward()
        assert w.grad.tolist() == [3.0, 4.0]


# --- errors are those of a trace --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (ShapeError, lambda t: t @ np.ones((3, 2))),
        (ShapeError, lambda t: t + np.ones(3)),
        (DTypeError, lambda t: t & t),
        (DTypeError, lambda t: t + "a"),
        (UnsupportedError, lambda t: np.sort(t)),
        (UnsupportedError, lambda t: t[t > 0]),
        (OutOfBoundsError, lambda t: np.take(t, [5], axis=0)),
        (OutOfBoundsError, lambda t: F.cross_entropy(t, np.array([0, 9]))),
        (OutOfBoundsError, lambda t: t[7]),
        (DTypeError, lambda t: t * np.ones(2, complex)),
    ],
)
def test_errors_name_the_users_line(kind: type[FastgradError], wrong: Any):
    t = leaf(np.ones((2, 2)))
    with pytest.raises(TypeError if kind is DTypeError else kind) as error:
        wrong(t)
    if isinstance(error.value, FastgradError):
        assert "at test_eager.py:" in str(error.value)


def test_data_that_is_no_array_is_refused():
    for data in (None, "text", {"a": 1}, np.zeros(2, complex), np.zeros(2, np.float16)):
        with pytest.raises(DTypeError) as error:
            fg.Tensor(data)
        assert "at test_eager.py:" in str(error.value)


# --- optimizers -------------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": lambda *p: fg.optim.SGD(*p, lr=0.1),
    "decay": lambda *p: fg.optim.SGD(*p, lr=0.1, weight_decay=0.03),
    "momentum": lambda *p: fg.optim.SGD(*p, lr=0.1, momentum=0.9),
    "nesterov": lambda *p: fg.optim.SGD(*p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda *p: fg.optim.Adam(*p, lr=0.01),
    "adam-decay": lambda *p: fg.optim.Adam(*p, lr=0.01, weight_decay=0.1),
}


def problem() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    params = {"w": rng.standard_normal((6, 4)), "b": rng.standard_normal(4), "s": np.array(1.5)}
    return params, rng.standard_normal((9, 6)), rng.integers(0, 4, 9)


def loss_of(p: Any, x: Any, y: Any) -> Any:
    return F.cross_entropy(np.tanh(x @ p["w"] + p["b"]) * p["s"], y)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_loop_is_a_train_step(name: str):
    params, x, y = problem()
    step = fg.TrainStep(loss_of, params, OPTIMIZERS[name](), backend="numpy")
    p = {k: leaf(v) for k, v in params.items()}
    opt = OPTIMIZERS[name](p)
    for _ in range(6):
        opt.zero_grad()
        loss = loss_of(p, x, y)
        loss.backward()
        opt.step()
        np.testing.assert_allclose(loss.item(), step(x, y), rtol=1e-13)
    for k, t in p.items():
        np.testing.assert_allclose(t.numpy(), step.params[k], rtol=1e-12)
        assert t.is_leaf and t.requires_grad
    assert set(opt.state) == set(step.state["optimizer"])
    for slot in opt.slots:
        np.testing.assert_allclose(opt.state[slot]["w"], step.state["optimizer"][slot]["w"], rtol=1e-12)


@dataclass
class Layer:
    w: Any


@pytest.mark.parametrize(
    "nest", [list, tuple, iter, lambda ts: (t for t in ts), lambda ts: {"a": ts[0], "b": [Layer(ts[1])]}]
)
def test_parameters_come_as_any_nesting(nest: Any):
    a, b = leaf([1.0]), leaf([[2.0]])
    opts = [
        fg.optim.SGD(nest([a, b]), lr=0.5),
        fg.optim.SGD(nest([a, b]), 0.5),
        fg.optim.SGD(0.5, params=nest([a, b])),
    ]
    for opt in opts:
        opt.zero_grad()
        (a * b).sum().backward()
        opt.step()
    assert repr(opts[0]) == repr(opts[1]) == repr(opts[2]) == repr(fg.optim.SGD(0.5))
    one = leaf([3.0])
    opt = fg.optim.Adam(one)
    one.sum().backward()
    opt.step()
    np.testing.assert_allclose(one.numpy(), 3.0 - 1e-3, rtol=1e-9)


def test_hyper_parameters_are_read_at_each_step():
    w = leaf([1.0])
    opt = fg.optim.SGD([w], lr=1.0)
    w.sum().backward()
    opt.step()
    opt.state["lr"] = 0.25
    opt.step()
    opt.state["lr"][...] = 0.5
    opt.step()
    assert w.item() == 1 - 1 - 0.25 - 0.5
    adam = fg.optim.Adam([w])
    adam.step()
    assert float(adam.state["step"]) == 1.0


def test_parameters_without_a_gradient_are_left_alone():
    a, b = leaf([1.0]), leaf([1.0])
    opt = fg.optim.Adam([a, b], lr=0.1, weight_decay=0.5)
    opt.step()
    assert float(opt.state["step"]) == 0.0
    a.sum().backward()
    opt.step()
    assert a.item() != 1.0 and b.item() == 1.0 and not opt.state["exp_avg"][1].any()
    b.sum().backward()
    opt.step()
    assert b.item() != 1.0


def test_zero_grad_forgets_or_zeroes():
    w, other = leaf([1.0]), leaf([1.0])
    opt = fg.optim.SGD([w, other], lr=0.1)
    w.sum().backward()
    grad = w.grad
    opt.zero_grad(set_to_none=False)
    assert w.grad is grad and grad.tolist() == [0.0] and other.grad is None
    opt.zero_grad()
    assert w.grad is None


def test_optimizers_say_what_they_cannot_update():
    w = leaf([1.0])
    with pytest.raises(ArgumentError, match="bound to no tensors"):
        fg.optim.SGD(0.1).step()
    with pytest.raises(ArgumentError, match="bound to no tensors"):
        fg.optim.Adam().zero_grad()
    with pytest.raises(ArgumentError, match="twice"):
        fg.optim.SGD([w, w], lr=0.1)
    with pytest.raises(ArgumentError, match="leaves"):
        fg.optim.SGD([w * 2], lr=0.1)
    with pytest.raises(ArgumentError, match=r"\[1\] is no fg.Tensor, got ndarray"):
        fg.optim.SGD([w, np.zeros(2)], lr=0.1)
    with pytest.raises(DTypeError, match="floats"):
        fg.optim.SGD([fg.Tensor([1])], lr=0.1)
    for nothing in ([], [np.zeros(2)], {}):
        with pytest.raises(ArgumentError, match=r"needs fg\.Tensor"):
            fg.optim.SGD(nothing, lr=0.1)
        with pytest.raises(ArgumentError, match=r"needs fg\.Tensor"):
            fg.optim.SGD(nothing)
    with pytest.raises(ArgumentError, match="lr must"):
        fg.optim.SGD([w], lr=-1)
    with pytest.raises(TypeError):
        fg.optim.SGD([w])


class Signs(fg.optim.Optimizer):
    """A user's own: its first argument is no number, and it has attributes named like ours."""

    slots = ("last",)

    def __init__(self, rates: tuple[float, float], params: str = ""):
        self.rates, self.state, self.params = rates, {"mine": 1}, params

    @property
    def scalars(self) -> dict[str, float]:
        return {"lr": self.rates[0]}

    def update(self, p: Any, g: Any, slots: Any, scalars: Any) -> Any:
        return p - scalars["lr"] * np.sign(g), {"last": g}


def test_a_users_optimizer_needs_nothing_to_be_bound():
    plain = Signs((0.5, 0.1), params="text")
    assert plain.rates == (0.5, 0.1) and plain.params == "text" and plain.state == {"mine": 1}
    step = fg.TrainStep(lambda p, x: (p * x).sum(), np.ones(2), plain, backend="numpy")
    step(np.array([2.0, -3.0]))
    w = leaf(np.ones(2))
    opt = Signs([w], (0.5, 0.1))
    (w * np.array([2.0, -3.0])).sum().backward()
    opt.step()
    assert w.tolist() == step.params.tolist() == [0.5, 1.5]
    assert opt.state["last"][0].tolist() == [2.0, -3.0]
    w.grad.zero_()
    assert opt.state["last"][0].tolist() == [2.0, -3.0]


# --- among the transformations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_compiled_functions_take_tensors_into_the_recording(backend: str):
    x = leaf([1.0, 2.0])
    square = fg.jit(lambda a: (a * a).sum(), backend=backend)
    assert square(x.numpy()) == 5.0  # compiled
    out = square(x)
    assert isinstance(out, fg.Tensor)
    out.backward()
    assert x.grad.tolist() == [2.0, 4.0]
    assert square(x.numpy()) == 5.0

    x.grad = None
    slope = fg.grad(lambda a: (a**3).sum(), backend=backend)(x)
    slope.sum().backward()  # the second derivative
    assert slope.tolist() == [3.0, 12.0] and x.grad.tolist() == [6.0, 12.0]

    value, pullback = fg.vjp(lambda a: a * x, x, backend=backend)
    assert value.tolist() == [1.0, 4.0]
    assert [t.tolist() for t in pullback(np.ones(2))] == [[1.0, 2.0]]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_compiled_functions_may_close_over_a_tensor(backend: str):
    w, x = leaf([1.0, 2.0]), np.array([3.0, 4.0])
    product = fg.jit(lambda a: (a * w).sum(), backend=backend)
    for _ in range(2):
        w.grad = None
        out = product(x)
        out.backward()
        assert out.item() == 11.0 and w.grad.tolist() == [3.0, 4.0]
    with fg.no_grad():
        w += 1
    assert product(x).item() == 18.0  # read anew at each call
    with fg.no_grad():
        w -= 1
    gradient = fg.grad(lambda a: (a * a * w).sum(), backend=backend)(x)
    assert gradient.tolist() == [6.0, 16.0]
    w.grad = None
    gradient.sum().backward()
    assert w.grad.tolist() == [6.0, 8.0]


def test_a_trace_wins_over_tensors():
    w = fg.Tensor([1.0, 2.0])

    def f(a: Any) -> Any:
        t = fg.Tensor(w)
        t += a  # a traced value: the name now holds one
        return (t * w).sum()

    np.testing.assert_array_equal(fg.grad(f, backend="numpy")(np.array([1.0, 1.0])), [1.0, 2.0])
    with pytest.raises(TraceError):
        fg.jit(lambda a: fg.Tensor(a))(np.ones(2))
    graph = fg.Graph()
    graph.output(graph.input("a", (2,), np.float64) * w)
    with pytest.raises(TraceError):
        graph.compile()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_train_step_takes_tensors_as_arrays(backend: str):
    params, x, y = problem()
    plain = fg.TrainStep(loss_of, params, fg.optim.SGD(0.1), backend=backend)
    given = {k: leaf(v) for k, v in params.items()}
    step = fg.TrainStep(loss_of, given, fg.optim.SGD(0.1), backend=backend)
    for _ in range(2):
        assert step(fg.Tensor(x), fg.Tensor(y)) == plain(x, y)
    np.testing.assert_array_equal(given["w"].numpy(), params["w"])
    np.testing.assert_array_equal(
        step.run(fg.Tensor(x), fg.Tensor(y), batch_size=3), plain.run(x, y, batch_size=3)
    )


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_train_step_refuses_bound_optimizers_and_tensors_closed_over(backend: str):
    w = leaf([1.0, 2.0])
    with pytest.raises(ArgumentError, match="bound to tensors"):
        fg.TrainStep(lambda p, x: (p * x).sum(), w, fg.optim.SGD([w], lr=0.1), backend=backend)
    step = fg.TrainStep(lambda p, x: (p * x * w).sum(), np.ones(2), fg.optim.SGD(0.1), backend=backend)
    with pytest.raises(TraceError, match="closes over"):
        step(np.ones(2))


def test_the_docstrings_speak_the_truth():
    import doctest

    from fastgrad import optimizer
    from fastgrad.eager import mode, tensor

    for module, names in ((mode, {"Tensor": fg.Tensor}), (tensor, {}), (optimizer, {"fg": fg})):
        failed, tried = doctest.testmod(module, extraglobs=names)
        assert tried and not failed
