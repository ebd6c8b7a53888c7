"""Traced arrays behave as NumPy arrays: operators, np.* functions, methods, promotion; a trace is a graph."""

from __future__ import annotations

import itertools
import operator

import numpy as np
import pytest

import fastgrad.numpy as fnp
from fastgrad.core.aval import DTYPES, Aval, aval_of
from fastgrad.core.graph import Literal, verify
from fastgrad.errors import DTypeError, FastgradError, ShapeError, TraceError
from fastgrad.trace import Array, current, inline, trace

F32, F64, I64 = (np.dtype(name) for name in ("float32", "float64", "int64"))


def run(fn, *arrays):
    """``fn`` traced on ``arrays`` and replayed on them by the ops' references."""
    graph = verify(trace(lambda *xs: [fn(*xs)], [aval_of(a) for a in arrays]))
    with np.errstate(all="ignore"):
        [out] = inline(graph, arrays)
    return out.value if isinstance(out, Literal) else np.asarray(out)


def same(fn, *arrays) -> None:
    with np.errstate(all="ignore"):
        expected = np.asarray(fn(*arrays))
    got = run(fn, *arrays)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


X = np.array([[1.5, -2.0, 0.25], [3.0, 0.5, -1.0]])
Y = np.array([2.0, -3.0, 0.5])
I = np.array([[5, 2, 7], [1, 0, 3]])
J = np.array([2, 3, 5])

ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod]
COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]
BITS = [operator.and_, operator.or_, operator.xor]


@pytest.mark.parametrize("op", ARITHMETIC + COMPARISONS, ids=lambda op: op.__name__)
@pytest.mark.parametrize("pair", [(X, Y), (I, J), (X, J)], ids=["floats", "integers", "mixed"])
def test_operators(op, pair):
    x, y = pair
    same(op, x, y)
    for number in (2, 0.5, np.float32(2), np.int8(3)):
        same(lambda v, n=number: op(v, n), x)
        same(lambda v, n=number: op(n, v), x)
    same(lambda v: op(v, y), x)  # a NumPy array on the right, then on the left
    same(lambda v: op(x, v), y)


@pytest.mark.parametrize("op", BITS, ids=lambda op: op.__name__)
def test_bit_operators(op):
    same(op, I, J)
    same(op, I > 2, J > 2)
    same(lambda v: op(v, 3), I)
    same(lambda v: op(3, v), I)


def test_other_operators():
    same(lambda x: -x + +x, X)
    same(lambda x: abs(x), X)
    same(lambda i: ~i, I)
    same(lambda x, y: x @ y, X, Y)
    same(lambda y: X @ y, Y)
    same(lambda x: x @ Y, X)
    same(lambda x: 2.0**x, X)
    same(lambda x: np.float32(2) ** x, X)
    same(lambda x: abs(x) ** Y, X)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("sum", (0,)), ("mean", (1,)), ("max", (0,)), ("min", ()), ("var", ()), ("std", (1,)), ("argmax", (1,)),
        ("argmin", ()), ("all", ()), ("any", (1,)), ("reshape", (3, 2)), ("reshape", ((3, 2),)), ("reshape", (-1,)),
        ("transpose", ()), ("transpose", (1, 0)), ("transpose", ((1, 0),)), ("astype", (np.float32,)), ("ravel", ()),
        ("flatten", ()), ("dot", (Y,)), ("copy", ()), ("squeeze", ()), ("swapaxes", (0, 1)), ("take", ([0, -1],)),
        ("take", ([0, -1], 1)), ("clip", (-1, 1)),
    ],
)  # fmt: skip
def test_methods(name, args):
    same(lambda x: getattr(x, name)(*args), X)


def test_attributes():
    def fn(x):
        assert (x.shape, x.dtype, x.ndim, x.size, x.itemsize, x.nbytes, len(x)) == (
            (2, 3),
            F64,
            2,
            6,
            8,
            48,
            2,
        )
        assert (np.shape(x), np.ndim(x), np.size(x), np.result_type(x, np.float32)) == ((2, 3), 2, 6, F64)
        assert isinstance(x, Array) and hash(x) == hash(x) and repr(x) == "Array(f64[2,3])"
        assert sum(1 for _ in x) == 2
        return [x.T, x.mT]

    assert [a.aval.shape for a in trace(fn, [Aval((2, 3), F64)]).outputs] == [(3, 2), (3, 2)]


def test_reduce_of_ufuncs():
    same(np.add.reduce, X)
    same(lambda x: np.maximum.reduce(x, axis=1), X)
    same(lambda x: np.minimum.reduce(x, axis=None), X)


def test_numpy_calls_with_numpy_arguments():
    same(lambda x: np.sum(x, axis=(0, 1), keepdims=True), X)
    same(lambda x: np.sum(x, 0, np.float32), X)
    same(lambda x: np.clip(x, a_min=-1, a_max=None), X)
    same(lambda x: np.reshape(x, (3, 2), order="C"), X)
    same(lambda x: np.stack([x, X, x]), X)
    same(lambda x: np.where(x > 0, x, 0), X)
    same(lambda x: np.concatenate([x, X], axis=-1), X)
    same(lambda x: np.array_equal(x, X), X)


SCALARS = [True, 2, 2.5]


@pytest.mark.parametrize(
    "op", [np.add, np.multiply, np.divide, np.maximum, np.less, np.floor_divide], ids=lambda f: f.__name__
)
def test_promotion_is_numpys(op):
    """Every pair of dtypes, every dtype with every Python number on either side, and with NumPy scalars."""
    for a, b in itertools.product(DTYPES, DTYPES):
        x, y = np.ones(2, a), np.ones(2, b)
        graph = trace(lambda x, y: [op(x, y), op(x, y.dtype.type(1))], [aval_of(x), aval_of(y)])
        assert [o.aval.dtype for o in graph.outputs] == [op(x, y).dtype] * 2, (a, b)
    for a, number in itertools.product(DTYPES, SCALARS):
        x = np.ones(2, a)
        graph = trace(lambda x, n=number: [op(x, n), op(n, x)], [aval_of(x)])
        assert [o.aval.dtype for o in graph.outputs] == [op(x, number).dtype] * 2, (a, number)


def test_functions_of_integers_give_float64():
    for dtype in DTYPES:
        [out] = trace(lambda x: [np.exp(x)], [Aval((2,), dtype)]).outputs
        assert out.aval.dtype == (dtype if dtype.kind == "f" else F64)


def test_weak_inputs_adopt_the_dtype_they_meet():
    weak = Aval((), F64, weak=True)
    graph = trace(lambda n, x: [n * x, n + 1, n * 2.0 + n], [weak, Aval((3,), F32)])
    assert [str(a.aval) for a in graph.outputs] == ["f32[3]", "f64*[]", "f64*[]"]
    graph = trace(
        lambda n, x: [(n + 0.5) * x, n.astype(np.float64) * x], [Aval((), I64, weak=True), Aval((3,), F32)]
    )
    assert [str(a.aval) for a in graph.outputs] == ["f32[3]", "f64[3]"]


def test_python_numbers_make_no_equation():
    graph = trace(lambda x: [x * 2 + 1.0], [Aval((3,), F32)])
    assert [eqn.prim.name for eqn in graph.eqns] == ["mul", "add"]
    assert all(a.aval.dtype == F32 for eqn in graph.eqns for a in eqn.inputs)


def test_comparison_with_an_integer_outside_the_dtype():
    same(lambda x: x < 300, np.arange(3, dtype=np.uint8))
    same(lambda x: x > -1, np.arange(3, dtype=np.uint8))
    with pytest.raises(DTypeError, match="300 is out of bounds for uint8"):
        trace(lambda x: [x + 300], [Aval((3,), np.dtype(np.uint8))])


def test_in_place_operators_keep_dtype_and_shape():
    def fn(x, y):
        x += y
        x *= 2
        return [x]

    graph = trace(fn, [Aval((3,), F32), Aval((3,), F64)])
    assert graph.outputs[0].aval == Aval((3,), F32)
    with pytest.raises(ShapeError, match=r"a \+= b: keeps the shape of a"):
        trace(fn, [Aval((3,), F32), Aval((2, 3), F32)])
    with pytest.raises(DTypeError, match=r"i64\[3\] cannot hold f64\[3\]"):
        trace(fn, [Aval((3,), I64), Aval((3,), F64)])


def test_creation():
    same(lambda x: fnp.zeros_like(x) + fnp.ones_like(x) + fnp.full_like(x, 3), X)
    same(lambda x: np.zeros_like(x, dtype=np.int8), X)
    graph = trace(lambda x: [fnp.zeros_like(x)], [Aval((2, 3), F32)])
    assert not graph.captured and graph.eqns[0].prim.name == "broadcast_to"
    assert fnp.zeros((2, 3), np.float32).dtype == F32 and fnp.full((2,), 1.5).dtype == F64
    with pytest.raises(DTypeError, match="complex128 is not supported"):
        fnp.asarray(np.ones(2, complex))


def test_numbers_and_arrays_come_back_as_literals_and_captures():
    array = np.arange(3.0)
    graph = trace(lambda x: [2.0, array, x], [Aval((), F32)])
    assert isinstance(graph.outputs[0], Literal) and graph.captured[0][1] is array


def test_sources_name_the_users_line():
    graph = trace(lambda x: [np.exp(x) * 2], [Aval((), F32)])
    assert all(eqn.source.startswith("test_trace.py:") for eqn in graph.eqns)
    outer = trace(lambda x: inline(graph, [x]), [Aval((), F32)])
    assert [e.source for e in outer.eqns] == [e.source for e in graph.eqns]


def test_nested_traces_capture_outer_values():
    inner = []

    def fn(x):
        inner.append(trace(lambda y: [x * y], [Aval((), F32)]))
        assert current().level == 0
        return inline(inner[0], [x + 1])

    graph = trace(fn, [Aval((), F32)])
    assert isinstance(inner[0].captured[0][1], Array) and not graph.captured
    assert inline(graph, [np.float32(3)])[0] == 12
    assert current() is None


def test_captured_arrays_are_read_anew_after_inlining():
    array = np.ones(3)
    graph = trace(lambda x: [x + np.zeros(()), fnp.exp(x)], [Aval((3,), F64)])
    outer = trace(lambda x: inline(graph, [array]), [Aval((), F64)])
    array[:] = 2
    np.testing.assert_array_equal(inline(outer, [np.array(0.0)])[1], np.exp(array))


def test_long_chains_need_no_recursion():
    def fn(x):
        for _ in range(5000):
            x = x + 1
        return [x]

    graph = trace(fn, [Aval((), F64)])
    assert inline(graph, [np.array(0.0)])[0] == 5000


def test_a_tracer_that_outlives_its_trace():
    kept = []
    trace(lambda x: kept.append(x) or [x], [Aval((), F32)])
    with pytest.raises(TraceError, match="used after its function had been traced"):
        kept[0] + 1


def test_an_error_leaves_no_trace_open():
    with pytest.raises(FastgradError):
        trace(lambda x: [x @ x], [Aval((2, 3), F32)])
    assert current() is None
