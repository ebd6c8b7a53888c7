"""``x[i] = v`` on traced arrays: NumPy itself is the oracle, the same function run on arrays that it may change."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from cases import CASES, Case
from fastgrad import autodiff, passes
from fastgrad.array import Array, ArrayView
from fastgrad.core.aval import aval_of
from fastgrad.core.graph import Tracer
from fastgrad.errors import (
    DTypeError,
    FastgradError,
    OutOfBoundsError,
    ShapeError,
    TraceError,
    UnsupportedError,
)
from fastgrad.interpreter import evaluate
from fastgrad.trace import trace

BACKENDS = ("numpy", "numba")
X, V, I = np.arange(12.0).reshape(3, 4), np.array([1.0, -2.0, 3.0, 5.0]), np.array([2, 0, 2])


def by_numpy(fn: Callable, arrays: Sequence[Any]) -> list[np.ndarray]:
    """``fn`` on copies, which it may write to."""
    with np.errstate(all="ignore"):
        out = fn(*(np.array(a) for a in arrays))
    return [np.array(o) for o in (out if isinstance(out, tuple) else (out,))]


def graph_of(fn: Callable, arrays: Sequence[Any]) -> Any:
    def flat(*xs: Any) -> list[Any]:
        out = fn(*xs)
        return list(out) if isinstance(out, tuple) else [out]

    return trace(flat, [aval_of(a) for a in arrays])


def same(got: Sequence[Any], expected: Sequence[Any], tolerance: float = 1e-12) -> None:
    for a, b in zip(got, expected, strict=True):
        assert (np.shape(a), a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# -- functions written for NumPy ---------------------------------------------------------------------------------------


def fill_by_loop(x, v):
    out = np.zeros_like(x)
    for i in range(len(x)):
        for j in range(x.shape[1]):
            out[i, j] = np.sin(x[i, j]) * v[j]
    return out


def recurrence(x, v):
    out = np.empty_like(x)
    out[0] = x[0]
    for i in range(1, len(x)):
        out[i] = 0.5 * out[i - 1] + np.tanh(x[i] * v)
    return out


def cumulative(x, v):
    x[1:] += x[:-1]  # reads as if copied first
    x[:, ::-1] -= x * v
    return x


def through_views(x, v):
    row, column = x[1], x.T[2]
    row[1:3] = v[:2]
    column += 1.0
    x[0] = row
    return x, row, column


def views_of_views(x, v):
    a = x[::-1, 1:]
    b = a.T[1:, ::-1]
    b[0] = v[:3] * 2.0
    b[:, 1] *= 3.0
    c = np.expand_dims(b, 1)
    c[0, 0, 0] = 7.0
    return x, a, b, c


def reshaped(x, v):
    flat = x.reshape(-1)
    flat[1:9:3] = v[:3]
    folded = x.reshape(2, 3, 2)
    folded[:, 1] = v.reshape(2, 2)
    copied = x.T.reshape(-1)  # no strides say this: a copy
    copied[0] = 100.0
    np.ravel(x)[-1] = -1.0
    x.flatten()[0] = 100.0
    return x, flat, folded, copied


def aliases(x, v):
    y, z = x, x + 0.0
    y += 1.0
    w = x.copy()
    x *= 2.0
    w[0] = 0.0
    return x, y, z, w


def numbers_do_not_change(x, v):
    total = x[0, 0]
    total += v[0]
    best = x.sum()
    first = best
    best += total
    return x, total, first, best


def arrays_without_axes_do(x, v):
    corner = x[0, 0, ...]
    corner += 5.0
    x[...] = x * corner
    whole = v[()]
    whole[...] = 3.0
    return x, corner, v, whole


def rows_in_a_for(x, v):
    for row in x:
        row /= np.sqrt(row @ row) + 1.0
    for part in np.split(x, 2, axis=1):
        part[0] = part[1]
    return x


def fancy(x, v):
    x[np.array([2, 0]), 1:] = v[1:]
    x[[0, 0, 2], [1, 1, 3]] += v[:3]  # adds once, as NumPy
    x[np.array([True, False, True])] *= 2.0
    x[:, np.array([1, 1])] = np.stack([v[:3], v[1:]], 1)  # the last wins
    return x


def at_ufuncs(x, v):
    np.add.at(x, np.array([1, 1, 0]), v)
    np.multiply.at(x, (slice(None), np.array([0, 0])), 3.0)
    np.maximum.at(x[1], np.array([3, 3]), v[:2])
    return x


def out_arguments(x, v):
    np.add(x, v, out=x)
    row = x[1]
    np.exp(row * 0.1, out=row)
    np.copyto(x[2], v)
    x[0].fill(2.0)
    return x, row


def masks(x, v):
    y = x.copy()
    y[y > 4.0] = 0.0
    y[1:][x[1:] < 6.0] = -1.0
    y[v < 0 if v.ndim != 1 else np.array([True, False, True])] += 1.0
    return y


def cholesky(x, v):
    a = x[:, :3] @ x[:, :3].T + np.eye(3) * 20.0
    n = 3
    low = np.zeros_like(a)
    for j in range(n):
        low[j, j] = np.sqrt(a[j, j] - low[j, :j] @ low[j, :j])
        for i in range(j + 1, n):
            low[i, j] = (a[i, j] - low[i, :j] @ low[j, :j]) / low[j, j]
    return low


def swap(x, v):
    x[[0, 2]] = x[[2, 0]]
    a, b = x[0].copy(), x[1].copy()
    x[0], x[1] = b, a
    x[:, 0], x[:, 1] = x[:, 1].copy(), x[:, 0].copy()
    return x


def empty_windows(x, v):
    x[2:1] = 5.0
    x[:, 4:] += 1.0
    x[np.zeros(0, int)] = v
    return x, x[1:1]


def lists_and_casts(x, v):
    x[0, :2] = [v[0], 2]
    x[1] = [1, 2, 3, 4]
    x[2] = True
    x[:1, :] = v[None, None, :]
    return x


PROGRAMS = [
    fill_by_loop, recurrence, cumulative, through_views, views_of_views, reshaped, aliases, numbers_do_not_change,
    arrays_without_axes_do, rows_in_a_for, fancy, at_ufuncs, out_arguments, masks, cholesky, swap, empty_windows,
    lists_and_casts,
]  # fmt: skip
programs = pytest.mark.parametrize("fn", PROGRAMS, ids=lambda fn: fn.__name__)


@programs
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_function_written_for_numpy_runs_unchanged(fn, backend):
    x, v = X.copy(), V.copy()
    got = fg.jit(fn, backend=backend)(x, v)
    same(got if isinstance(got, tuple) else (got,), by_numpy(fn, (X, V)))
    np.testing.assert_array_equal(x, X)  # arguments stay as they are
    np.testing.assert_array_equal(v, V)


@programs
@pytest.mark.parametrize("backend", BACKENDS)
def test_its_gradient_is_a_difference(fn, backend):
    def loss(x, v):
        out = fn(x, v)
        parts = out if isinstance(out, tuple) else (out,)
        return sum(np.sum(np.sin(p + i)) for i, p in enumerate(parts))

    rng = np.random.default_rng(0)
    arrays = [X + rng.uniform(0.1, 0.4, X.shape), V + rng.uniform(0.1, 0.4, V.shape)]
    directions = [rng.standard_normal(a.shape) for a in arrays]
    gradients = fg.grad(loss, argnums=(0, 1), backend=backend)(*arrays)
    got = sum(np.vdot(g, d) for g, d in zip(gradients, directions, strict=True))
    high, low = (loss(*(a + s * 1e-6 * d for a, d in zip(arrays, directions, strict=True))) for s in (1, -1))
    np.testing.assert_allclose(got, (high - low) / 2e-6, rtol=1e-6, atol=1e-6)


@programs
def test_forward_mode_agrees_with_reverse(fn):
    graph = graph_of(fn, (X, V))
    rng = np.random.default_rng(1)
    arrays = [X + rng.uniform(0.1, 0.4, X.shape), V + rng.uniform(0.1, 0.4, V.shape)]
    directions = [rng.standard_normal(a.shape) for a in arrays]
    n = len(graph.outputs)
    pushed = evaluate(autodiff.jvp(graph), [*arrays, *directions])[n:]
    cts = [rng.standard_normal(p.shape) for p in pushed]
    pulled = evaluate(autodiff.vjp(graph, [0, 1]), [*arrays, *cts])[n:]
    left = sum(np.vdot(c, p) for c, p in zip(cts, pushed, strict=True))
    right = sum(np.vdot(g, d) for g, d in zip(pulled, directions, strict=True))
    np.testing.assert_allclose(left, right, rtol=1e-9)


# -- keys against NumPy ------------------------------------------------------------------------------------------------


def random_key(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple:
    """Integers, slices, None, Ellipsis, arrays and masks; the arrays broadcast to one shape."""
    key: list[Any] = []
    common = tuple(int(n) for n in rng.integers(1, 4, rng.integers(0, 3)))
    axis = 0
    while axis < len(shape):
        n, choice = shape[axis], rng.random()
        if choice < 0.1:
            key.append(None)
            continue
        if choice < 0.2 and Ellipsis not in [k for k in key if not isinstance(k, np.ndarray)]:
            key.append(Ellipsis)
            axis += int(rng.integers(0, len(shape) - axis + 1))
            continue
        if choice < 0.25:
            break
        if choice < 0.55 or not n:
            start, stop = (None if rng.random() < 0.3 else int(rng.integers(-n - 2, n + 3)) for _ in range(2))
            key.append(slice(start, stop, (None, 1, 2, -1, -2, 3, -3)[rng.integers(7)]))
        elif choice < 0.75:
            key.append(int(rng.integers(-n, n)))
        elif choice < 0.8:
            key.append(rng.random(n) < 0.5)
        else:
            size = tuple(1 if rng.random() < 0.2 else m for m in common)
            key.append(rng.integers(-n, n, size[int(rng.integers(0, len(size) + 1)) :]))
        axis += 1
    return tuple(key)


def indexings(count: int, seed: int) -> list[tuple[np.ndarray, tuple, np.ndarray]]:
    """Arrays, keys that NumPy takes, and values that broadcast to what they select."""
    rng = np.random.default_rng(seed)
    found: list[tuple[np.ndarray, tuple, np.ndarray]] = []
    while len(found) < count:
        low = 0 if rng.random() < 0.1 else 1
        x = rng.standard_normal(tuple(int(n) for n in rng.integers(low, 5, rng.integers(0, 5))))
        key = random_key(rng, x.shape)
        try:
            value = rng.standard_normal(x[key].shape)
        except IndexError:
            continue
        found.append((x, key, value[..., :1] if value.ndim and rng.random() < 0.4 else value))
    return found


@pytest.mark.parametrize("traced", [False, True], ids=["static", "traced"])
def test_keys_mean_what_they_mean_to_numpy(traced):
    for x, key, value in indexings(400, seed=int(traced)):
        dynamic = [k for k in key if isinstance(k, np.ndarray) and k.dtype.kind == "i"] if traced else []

        def fn(x, v, *indices, key=key):
            given = iter(indices)
            if indices:
                key = tuple(
                    next(given) if isinstance(k, np.ndarray) and k.dtype.kind == "i" else k for k in key
                )
            written = x.copy()
            written[key] = v
            return x[key], written, x.at[key].add(v), x.at[key].max(v), x.at[key].multiply(v)

        expected = [x[key], *(x.copy() for _ in range(4))]
        expected[1][key] = value
        for ufunc, array in zip((np.add, np.maximum, np.multiply), expected[2:], strict=True):
            ufunc.at(array, key, value)
        arrays = [x, value, *dynamic]
        same(evaluate(passes.run(graph_of(fn, arrays)), arrays), expected)


@pytest.mark.parametrize("start", range(0, 24, 6))
def test_keys_compiled(start):
    for x, key, value in indexings(24, seed=7)[start : start + 6]:

        def fn(x, v, key=key):
            written = x.copy()
            written[key] = v
            return x[key], written, x.at[key].add(v)

        graph = graph_of(fn, [x, value])
        expected = evaluate(graph, [x, value])
        same(fg.jit(fn, backend="numba")(x, value), expected)


# -- random programs of views and writes -------------------------------------------------------------------------------


def random_program(seed: int) -> Callable:
    """A function that takes views (of views), writes and adds to them, and returns all it has; plain NumPy."""

    def program(x: Any, y: Any) -> tuple:
        rng = np.random.default_rng(seed)
        known: list[Any] = [x, y]
        for _ in range(int(rng.integers(4, 14))):
            a = known[int(rng.integers(len(known)))]
            step = int(rng.integers(8))
            key = _basic(rng, a.shape)
            if step < 2:
                known.append(a[key])
            elif step == 2 and a.ndim:
                known.append(_renamed(rng, a))
            elif step == 3:
                a[key] = float(rng.integers(-3, 4))
            elif step == 4:
                a[key] += float(rng.integers(1, 4))
            elif step == 5:
                b = known[int(rng.integers(len(known)))]
                picked = a[key]
                flat = np.sum(b) if b.size else 0.0
                a[key] = picked * 0.5 + flat
            elif step == 6 and a.ndim:
                a *= 0.5
            elif step == 7 and a.ndim and a.shape[0]:
                index = rng.integers(0, a.shape[0], 3)
                a[index] = a[index[::-1]] + 1.0
        return tuple(known)

    return program


def _basic(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    items: list[Any] = []
    for n in shape:
        if rng.random() < 0.35 and n:
            items.append(int(rng.integers(-n, n)))
        else:
            start, stop = sorted(int(i) for i in rng.integers(0, n + 1, 2))
            step = int(rng.choice([1, 1, 2, -1]))
            whole = rng.random() < 0.4
            items.append(slice(None, None, step) if whole else slice(start, stop, abs(step)))
    cut = int(rng.integers(0, len(items) + 1))
    return (*items[:cut], ...)


def _renamed(rng: np.random.Generator, a: Any) -> Any:
    kind = int(rng.integers(5))
    if kind == 0:
        return a.T
    if kind == 1:
        return a.reshape(-1)
    if kind == 2:
        return np.expand_dims(a, int(rng.integers(a.ndim)))
    if kind == 3:
        return np.flip(a, int(rng.integers(a.ndim)))
    return a.reshape(a.shape[0], -1) if a.size else a.copy()


@pytest.mark.parametrize("block", range(10))
def test_random_programs_of_views_and_writes(block):
    arrays = [np.arange(12.0).reshape(3, 4), np.arange(6.0) - 3.0]
    for seed in range(40 * block, 40 * block + 40):
        program = random_program(seed)
        graph = graph_of(program, arrays)
        expected = by_numpy(program, arrays)
        same(evaluate(graph, arrays), expected)
        same(evaluate(passes.run(graph), arrays), expected)


@pytest.mark.parametrize("seed", range(12))
def test_random_programs_compiled(seed):
    arrays = [np.arange(12.0).reshape(3, 4), np.arange(6.0) - 3.0]
    program = random_program(seed)
    same(fg.jit(program, backend="numba")(*arrays), by_numpy(program, arrays))


# -- what shares elements ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_results_share_elements_where_numpys_do(case: Case):
    arrays = case.inputs()
    if any(a.dtype == bool for a in arrays) or not case.shapes or case.twin is not None:
        pytest.skip("written to below with a number; twins are no views")
    if any(not a.shape and a.dtype.kind in "iu" for a in arrays):
        pytest.skip("as an index, NumPy's array without axes copies; ours stands for an integer")
    kept = [np.array(a) for a in arrays]
    with np.errstate(all="ignore"):
        out = case.fn(*kept)
    shared = [isinstance(out, np.ndarray) and np.shares_memory(out, a) for a in kept]
    if any(shared) and not out.flags.writeable:
        pytest.skip("NumPy's result is read-only")

    def fn(*xs: Any) -> list[Any]:
        before = [x.atom for x in xs]
        result = case.fn(*xs)
        if isinstance(result, Tracer) and result.aval.size:
            result[...] = result * 0
            assert [x.atom is not b for x, b in zip(xs, before, strict=True)] == shared
        return [result]

    trace(fn, [aval_of(a) for a in arrays])


def test_views_are_known_by_their_base():
    def fn(x):
        a = x[1:]
        assert isinstance(a, ArrayView) and a.base is x and a[0].base is x and type(a.T.reshape(-1)) is Array
        assert not isinstance(x[0, 0], ArrayView) and not isinstance(x[np.array([0])], ArrayView)
        assert isinstance(x[0, 0, ...], ArrayView) and type(a.copy()) is Array
        return a

    fg.jit(fn, backend="numpy")(X)


# -- the pure form -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("set", lambda a, v: v), ("add", lambda a, v: a + v), ("subtract", lambda a, v: a - v),
        ("multiply", lambda a, v: a * v), ("divide", lambda a, v: a / v), ("power", lambda a, v: a**v),
        ("max", np.maximum), ("min", np.minimum),
    ],
)  # fmt: skip
def test_at_gives_a_new_array(method, change):
    x = X + 1
    expected = x.copy()
    expected[1:, 2] = change(x[1:, 2], 3.0)

    def fn(x):
        return getattr(x.at[1:, 2], method)(3.0), x, x.at[0].get()

    same(fg.jit(fn, backend="numpy")(x), [expected, x, x[0]])
    np.testing.assert_allclose(getattr(fnp.at(x)[1:, 2], method)(3.0), expected)


def test_at_adds_up_repeated_indices_and_keeps_the_last_set():
    i, v = np.array([1, 1, 0]), np.array([1.0, 2.0, 4.0])

    def fn(x, i, v):
        return x.at[i].add(v), x.at[i].set(v), x.at[i].multiply(v)

    for backend in BACKENDS:
        added, written, product = fg.jit(fn, backend=backend)(np.ones(3), i, v)
        assert added.tolist() == [5.0, 4.0, 1.0]
        assert written.tolist() == [4.0, 2.0, 1.0]
        assert product.tolist() == [4.0, 2.0, 1.0]


def test_what_is_overwritten_has_no_derivative():
    i = np.array([1, 1, 0])

    def loss(x, v, i):
        return (x.at[i].set(v) * np.array([1.0, 10.0, 100.0])).sum()

    for given in (i, np.array([-1, -1, 0]) - 1):  # from the front, and counted from the end
        gx, gv = fg.grad(loss, (0, 1), backend="numpy")(np.zeros(3), np.ones(3), given)
        assert gx.tolist() == ([0.0, 0.0, 100.0] if given is i else [1.0, 0.0, 0.0])
        assert gv.tolist() == ([0.0, 10.0, 1.0] if given is i else [0.0, 10.0, 100.0])


def test_equal_winners_share():
    def loss(x, v):
        return x.at[np.array([0, 0])].max(v).sum()

    gx, gv = fg.grad(loss, (0, 1), backend="numpy")(np.array([2.0, 5.0]), np.array([2.0, 2.0]))
    np.testing.assert_allclose(gx, [1 / 3, 1.0])
    np.testing.assert_allclose(gv, [1 / 3, 1 / 3])


def test_a_zero_among_factors_leaves_the_others_out():
    def loss(x, v):
        return x.at[np.array([0, 0, 1])].multiply(v).sum()

    gx, gv = fg.grad(loss, (0, 1), backend="numpy")(np.array([2.0, 5.0]), np.array([0.0, 3.0, 4.0]))
    assert gx.tolist() == [0.0, 4.0] and gv.tolist() == [6.0, 0.0, 5.0]


# -- arrays to fill ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [fnp.zeros, fnp.ones, fnp.empty, lambda s: fnp.full(s, 2.0)])
def test_new_arrays_take_traced_values_inside_a_trace_alone(make):
    def fn(v):
        out = make((2, 4))
        out[0] = v
        return out

    expected = make((2, 4))
    assert type(expected) is np.ndarray and expected.flags.writeable
    if make is not fnp.empty:
        expected[0] = V
        same([fg.jit(fn, backend="numpy")(V)], [expected])
    assert len(graph_of(fn, [V]).captured) == 0  # a broadcast number, no array


def test_a_new_array_without_axes_is_an_array():
    def fn(x):
        total = np.zeros_like(x)
        also = total
        total += x
        return also

    assert fg.jit(fn, backend="numpy")(3.0) == 3.0


# -- functions inside functions ----------------------------------------------------------------------------------------


def test_arguments_of_inner_functions_stay_as_they_are():
    @fg.jit
    def inner(x):
        x[0] = 0.0
        return x

    def outer(x):
        y = inner(x)
        y[1] = 5.0
        return x, y

    x = np.ones(3)
    for got in (outer(x), fg.jit(outer, backend="numpy")(x)):
        same(got, [np.ones(3), np.array([0.0, 5.0, 1.0])])


def test_what_a_differentiated_function_does_to_its_arguments_stays_inside():
    def loss(w, x):
        x -= x.mean()
        w[0] *= 2.0
        return (w * x).sum()

    def outer(w, x):
        gradient = fg.grad(loss)(w, x)
        value, pullback = fg.vjp(loss, w, x)
        return gradient, w, x, value, pullback(1.0)[1]

    w, x = np.array([1.0, 2.0]), np.array([3.0, 7.0])
    expected = [np.array([-4.0, 2.0]), w, x, np.array(0.0), np.array([0.0, 0.0])]
    same(fg.jit(outer, backend="numpy")(w, x), expected)
    np.testing.assert_allclose(fg.grad(loss)(w, x), [-4.0, 2.0])


def test_aux_and_outputs_are_handles_of_their_own():
    def outer(x):
        gradient, aux = fg.grad(lambda x: (x.sum(), x), has_aux=True)(x)
        aux += 1.0
        a, b = fg.jit(lambda x: (x, x))(x)
        a += 10.0
        return x, gradient, aux, a, b

    same(fg.jit(outer, backend="numpy")(np.zeros(2)), [np.full(2, n) for n in (0.0, 1.0, 1.0, 10.0, 0.0)])


@pytest.mark.parametrize(
    "write",
    [
        lambda outer, x: outer.__setitem__(0, x.sum()),
        lambda outer, x: outer.__setitem__(0, 1.0),
        lambda outer, x: outer.__iadd__(1.0),
        lambda outer, x: outer[1:].__setitem__(0, 1.0),
        lambda outer, x: np.add.at(outer, 0, 1.0),
    ],
)
def test_a_write_to_a_value_of_the_function_around_raises(write):
    def fn(x):
        y = x * 2.0

        def loss(x):
            write(y, x)
            return x.sum()

        return fg.grad(loss)(x)

    with pytest.raises(TraceError, match="belongs to the function around the one being traced") as error:
        fg.jit(fn, backend="numpy")(np.ones(3))
    assert "x.copy()" in error.value.hint and error.value.at.startswith("test_assignment.py")


def test_what_an_inner_function_makes_of_outer_values_is_its_own():
    def fn(x):
        y = x * 2.0

        def loss(x):
            a, b, c = y.copy(), np.zeros_like(y), y + 1.0
            a[0] = x[0] * 3.0
            b[1:] = x[1:] * 5.0
            view = c[::-1]
            c[0] = x[2]
            view[0] = x[0]
            return a.sum() + b.sum() + (c * np.array([7.0, 1.0, 11.0])).sum()

        return fg.grad(loss)(x), y

    got, y = fg.jit(fn, backend="numpy")(np.ones(3))
    assert got.tolist() == [14.0, 5.0, 12.0] and y.tolist() == [2.0] * 3


def test_a_training_step_may_write_to_its_arguments():
    def loss(w, x):
        x -= 1.0
        w[0] = 0.0
        return ((w * x) ** 2).sum()

    step = fg.TrainStep(loss, np.ones(2), fg.optim.SGD(0.1), backend="numpy")
    data = np.array([3.0, 2.0])
    step(data)
    np.testing.assert_allclose(step.params, [1.0, 0.8])
    assert data.tolist() == [3.0, 2.0]


def test_graphs_built_by_hand_take_writes():
    graph = fg.Graph()
    x = graph.input("x", (3,), np.float64)
    y = x * 2.0
    y[1] = 5.0
    graph.output(y)
    np.testing.assert_array_equal(graph.compile(backend="numpy")(np.ones(3))[0], [2.0, 5.0, 2.0])


# -- cost --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("differentiated", [False, True])
def test_filling_row_by_row_moves_rows_not_arrays(differentiated):
    def fill(x):
        out = np.zeros_like(x)
        for i in range(len(x)):
            out[i] = np.tanh(x[i]) + (0.5 * out[i - 1] if i else 0.0)
        return (out * out).sum()

    x = np.ones((16, 32))
    run = fg.jit(fg.grad(fill) if differentiated else fill).compile(x)
    whole = [s for s in run.memory_plan().steps if any(r.layout.shape == x.shape for r in s.writes)]
    assert len(whole) <= 6  # zeros, seeds and copies out, however many rows there are
    assert run.memory_plan().arena_bytes < 6 * x.nbytes


def test_x_at_i_plus_equals_writes_once():
    def fn(x):
        x[1] += 1.0
        x[0, 1:] *= 2.0
        return x

    names = [eqn.prim.name for eqn in passes.run(graph_of(fn, [X])).eqns]
    assert names.count("update_slice") == 2


def test_a_view_without_a_key_is_written_back():
    def fn(x):
        x[None] = x.T
        return x

    square = X[:, :3]
    same([fg.jit(fn, backend="numpy")(square)], [square.T.copy()])


def test_reads_of_a_view_slice_anew_only_after_a_write():
    def fn(x):
        row = x[0]
        a = row + row
        x[0, 0] = 1.0
        return a + row + row

    names = [eqn.prim.name for eqn in graph_of(fn, [X]).eqns]
    assert names.count("slice") == 2


def test_repeated_indices_add_up_in_one_order_at_any_number_of_threads(monkeypatch):
    from fastgrad.executor import tape

    monkeypatch.setattr(tape, "PARALLEL_NS", 0.0)
    monkeypatch.setattr(tape, "REGION_NS", 0.0)
    rng = np.random.default_rng(0)
    x, i, v = (
        rng.standard_normal((20, 3000)),
        rng.integers(0, 20, 300),
        rng.standard_normal((300, 3000)),
    )

    def fn(x, i, v):
        return x.at[i].add(v), x.at[i].set(v), x.at[i].multiply(v), x.at[:, i % 7].add(v[:20, :300])

    expected = evaluate(graph_of(fn, [x, i, v]), [x, i, v])
    for threads in (1, 2):
        for got, want in zip(fg.jit(fn, threads=threads, backend="numba")(x, i, v), expected, strict=True):
            assert got.tobytes() == want.tobytes()


# -- special values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_and_infinities_go_where_they_are_written(backend):
    x = np.array([np.nan, 1.0, np.inf, -0.0])

    def fn(x, i):
        y = x.copy()
        y[i] = x[::-1][:2]
        z = x.at[i].max(np.array([np.nan, 2.0]))
        y[y != y] = 7.0
        return y, z, x.at[i].multiply(0.0)

    i = np.array([3, 1])
    y, z, p = fg.jit(fn, backend=backend)(x, i)
    np.testing.assert_array_equal(y, [7.0, np.inf, np.inf, -0.0])
    np.testing.assert_array_equal(z, [np.nan, 2.0, np.inf, np.nan])
    np.testing.assert_array_equal(p, [np.nan, 0.0, np.inf, -0.0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["?", "i1", "u4", "i8", "f4"])
def test_writes_keep_the_dtype(dtype, backend):
    x = np.array([0, 1, 1, 0]).astype(dtype)

    def fn(x, v):
        x[0] = 1.7
        x[1:3] = v
        x[np.array([3])] = True
        return x

    v = np.array([0.0, 5.6])
    same([fg.jit(fn, backend=backend)(x, v)], by_numpy(fn, (x, v)))


# -- traced integers as indices ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_traced_integer_indexes_like_a_number(backend):
    def fn(x, i, j):
        row = x[i]
        row += 1.0
        row[1:] *= 2.0
        x[i, j] = 50.0
        x[0, j] += 3.0
        k = np.argmax(x[1])
        x[:, k] = 0.5
        return x, row, x[i, j], x[j, ::-1]

    for i, j in itertools.product((0, 2, -1), (1, -2)):
        arrays = (X, np.int64(i), np.int32(j))
        got = fg.jit(fn, backend=backend)(*arrays)
        same(got, [np.array(o) for o in fn(X.copy(), i, j)])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("read", [True, False])
def test_a_traced_index_out_of_bounds_is_found_by_the_run(backend, read):
    def fn(x, i):
        if read:
            return x[i, 0]
        x[i] = 1.0
        return x

    with pytest.raises(OutOfBoundsError, match="index 3 is out of bounds for an axis of size 3") as error:
        fg.jit(fn, backend=backend)(X, np.array([0, 3]))
    assert "test_assignment.py" in str(error.value)


# -- bad input ---------------------------------------------------------------------------------------------------------

BAD: list[tuple[Callable, Sequence[Any], type[FastgradError], str, str | None]] = [
    (lambda x: x.__setitem__(3, 0.0), [X], OutOfBoundsError, "index 3 is out of bounds for axis 0 of f64[3,4]", None),
    (lambda x: x.__setitem__((0, -5), 0.0), [X], OutOfBoundsError, "index -5 is out of bounds for axis 1", None),
    (lambda x: x[np.array([0, 7])], [X], OutOfBoundsError, "index 7 is out of bounds for an axis of size 3", None),
    (lambda x: x.__setitem__([0, -4], 0.0), [X], OutOfBoundsError, "index -4 is out of bounds", None),
    (lambda x: np.take(x, np.array([4]), 1), [X], OutOfBoundsError, "take: index 4 is out of bounds", None),
    (lambda x: x[np.ones(2, bool)], [X], OutOfBoundsError, "a boolean mask must have the shape of the axes", None),
    (lambda x: x[0, 0, 0], [X], OutOfBoundsError, "too many indices: 3 for f64[3,4]", None),
    (lambda x: x[::0], [X], OutOfBoundsError, "the step of a slice cannot be 0", None),
    (lambda x: x[np.array([0, 1]), np.array([0, 1, 2])], [X], ShapeError, "shapes do not broadcast", None),
    (lambda x: x.__setitem__(0, np.ones(3)), [X],
     ShapeError, "x[i] = v: f64[3] does not broadcast to the window f64[4] of f64[3,4]", "v.reshape"),
    (lambda x, v: x.__setitem__((slice(None), 0), v), [X, V], ShapeError, "f64[4] does not broadcast", None),
    (lambda x, v: x.at[:2].add(v[:3]), [X, V], ShapeError, "f64[3] does not broadcast to the window f64[2,4]", None),
    (lambda x: x[x > 0], [X], UnsupportedError, "a boolean mask on f64[3,4]", "np.where(mask, x, 0)"),
    (lambda x: x.__setitem__(x > 0, V), [X], UnsupportedError, "how many values f64[4] must hold", "np.where(mask, v, x)"),
    (lambda x: x.__setitem__((x[0] > 0, np.array([0])), 1.0), [X], UnsupportedError, "the mask stands alone", "np.where"),
    (lambda x: x.__setitem__(x[:, :2] > 0, 1.0), [X], ShapeError, "a mask must have the shape of the axes", None),
    (lambda x: x.__setitem__(V, 1.0), [X], DTypeError, "indices must be integers, got f64[4]", "astype(np.int64)"),
    (lambda x, i: x.__setitem__(slice(0, i[0]), 1.0), [X, I], UnsupportedError, "bounds of a slice", None),
    (lambda x: x.__setitem__(0, "a"), [X], DTypeError, "expected an array or a number, got str", None),
    (lambda x: x.__setitem__(0, np.ones(4, complex)), [X], DTypeError, "complex128 is not supported", None),
    (lambda i: i.__setitem__(0, 2**70), [I], DTypeError, "", None),
    (lambda i: i.__iadd__(0.5), [I], DTypeError, "a += b: keeps the dtype of a, i64[3] cannot hold f64[3]", "a = a + b"),
    (lambda x: x[0].__iadd__(X), [X], ShapeError, "a += b: keeps the shape of a, got f64[4]", "a = a + b"),
    (lambda x: x[0].__iadd__([[1.0] * 4] * 3), [X], ShapeError, "got f64[4] and f64[3,4]", "a = a + b"),
    (lambda i: i.__setitem__(0, np.nan), [np.arange(3)], DTypeError, "the number nan is out of bounds for int64", None),
    (lambda x: np.add(x, x, out=x[0]), [X], ShapeError, "np.add with out=a: keeps the shape of a", "out="),
    (lambda x: np.add(x, 1, out=X.copy()), [X], TraceError, "a traced value cannot be stored in a NumPy array", "a = a + b"),
    (lambda x: np.add.at(X.copy(), 0, x[0]), [X], TraceError, "cannot be stored in a NumPy array", None),
    (lambda x: np.subtract.at(x, 0, 1.0), [X], UnsupportedError, "np.subtract.at is not supported", None),
    (lambda x: X.copy().__setitem__(0, x[0]), [X], TraceError, "cannot be stored in a NumPy array", "fnp.zeros"),
    (lambda i, x: np.copyto(i, x[0, :3]), [I, X], DTypeError, "copyto: i64[3] cannot hold f64[3]", None),
]  # fmt: skip


@pytest.mark.parametrize("row", BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_writes_say_what_and_where(row):
    fn, arrays, kind, message, hint = row
    with pytest.raises(kind) as error:
        fg.jit(lambda *xs: (fn(*xs), xs[0])[1], backend="numpy")(*arrays)
    assert message in str(error.value)
    if hint is not None:
        assert hint in (error.value.hint or "")
    assert "test_assignment.py" in str(error.value)


def test_a_leaked_view_raises():
    kept: list[Any] = []
    fg.jit(lambda x: kept.append(x[1:]) or x, backend="numpy")(X)
    for use in (lambda v: v + 1, lambda v: v.__setitem__(0, 1.0), lambda v: v.__iadd__(1.0)):
        with pytest.raises(TraceError, match="was used after its function had been traced"):
            use(kept[0])
