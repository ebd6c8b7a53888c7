"""Every kind of bad input through the public functions: one clear error each, with op, short types, line, and a way out.

The functions of the table are lambdas on one line, so that the line which an error must name is the lambda's own.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad.codegen import compile as compiler
from fastgrad.errors import (
    ArgumentError,
    DTypeError,
    FastgradError,
    OutOfBoundsError,
    ShapeError,
    TraceError,
    UnsupportedError,
)
from fastgrad.executor.executable import Executable
from fastgrad.nn import functional as F

A, B, V = np.ones((3, 4), np.float32), np.ones((5, 6), np.float32), np.ones(3, np.float32)
I, MASK = np.arange(3), np.array([True, False, True])
LOGITS, LABELS = np.zeros((5, 3), np.float32), np.zeros(5, np.int64)
S = np.float64(2.0)

ROWS = {
    # name: function, arguments, error, parts of the message, the way out (None: not asked for)
    "matmul": (lambda x, w: x @ w, [A, B], ShapeError,
               ["matmul: inner dimensions must match, got f32[3,4] @ f32[5,6]"], None),
    "matmul, transposed fits": (lambda x, w: x @ w, [A, A], ShapeError, ["matmul", "f32[3,4] @ f32[3,4]"], ".T"),
    "np.matmul": (lambda x, w: np.matmul(x, w), [A, B], ShapeError, ["matmul", "f32[3,4] @ f32[5,6]"], None),
    "np.dot": (lambda x, w: np.dot(x, w), [A, B], ShapeError, ["f32[3,4]", "f32[5,6]"], None),
    "array @ traced": (lambda w: A @ w, [B], ShapeError, ["matmul", "f32[3,4] @ f32[5,6]"], None),
    "add": (lambda x, y: x + y, [A, B], ShapeError, ["add", "do not broadcast", "f32[3,4], f32[5,6]"], None),
    "add a column": (lambda x, y: x + y, [A, V], ShapeError, ["add", "f32[3,4], f32[3]"], "[:, None]"),
    "where": (lambda x, y: np.where(x > 0, x, y), [A, B], ShapeError, ["f32[3,4]", "f32[5,6]"], None),
    "in place": (lambda x, y: x.__iadd__(y), [V, A], (ShapeError, TraceError), ["f32[3]"], None),
    "reshape": (lambda x: x.reshape(5, 2), [A], ShapeError, ["reshape", "f32[3,4]", "[5, 2]"], None),
    "concatenate": (lambda x, y: np.concatenate([x, y]), [A, B], ShapeError, ["concatenate", "f32[3,4], f32[5,6]"], None),
    "an axis too many": (lambda x: x.sum(axis=2), [A], ShapeError, ["sum: axis 2 is out of bounds"], None),
    "maximum of nothing": (lambda x: x.max(), [np.ones(0)], ShapeError, ["max", "f64[0]"], None),
    "object array": (lambda x: x + 1, [np.array([1, None])], DTypeError, ["dtype object is not supported"], "numeric"),
    "object array inside": (lambda x: x + np.array([1, None, 2]), [V], DTypeError, ["dtype object"], "numeric"),
    "complex": (lambda x: x, [np.ones(3) + 0j], DTypeError, ["complex128 is not supported"], "real and imaginary"),
    "a complex number": (lambda x: x * 1j, [V], DTypeError, ["complex"], "real and imaginary"),
    "float16": (lambda x: x, [np.ones(3, np.float16)], DTypeError, ["float16 is not supported"], "astype(np.float32)"),
    "longdouble": (lambda x: x, [np.ones(3, np.longdouble)], DTypeError, ["is not supported"], None),
    "strings": (lambda x: x, [np.array(["a"])], DTypeError, ["is not supported"], None),
    "dates": (lambda x: x, [np.array(["2020"], "datetime64[Y]")], DTypeError, ["datetime64", "not supported"], None),
    "records": (lambda x: x, [np.zeros(3, [("a", float)])], DTypeError, ["not supported"], None),
    "None as an operand": (lambda x: x + None, [V], TypeError, ["NoneType"], None),
    "a string as an operand": (lambda x: x + "a", [V], TypeError, ["str"], None),
    "a list of lists": (lambda x: fnp.add(x, [[1, 2], [3]]), [V], (DTypeError, ShapeError, ValueError), [], None),
    "if": (lambda x: x if x > 0 else -x, [S], TraceError, ["Python `if`", "bool[]"], "np.where(condition, x, y)"),
    "if on many": (lambda x: x if (x > 0).all() else -x, [V], TraceError, ["Python `if`", "bool[]"], "np.where"),
    "if on an array": (lambda x: x if x > 0 else -x, [V], TraceError, ["Python `if`", "bool[3]"], "np.where"),
    "and": (lambda x: (x > 0) and (x < 1), [S], TraceError, ["bool[]"], "np.where"),
    "while": (lambda x: [0 for _ in iter(lambda: bool(x > 0), False)], [S], TraceError, ["bool[]"], None),
    "max of Python": (lambda x: max(x, 0.0), [S], TraceError, ["bool[]"], None),
    "float()": (lambda x: float(x), [S], TraceError, ["float() of a traced value f64[]"], None),
    "int()": (lambda x: int(x), [S], TraceError, ["int() of a traced value f64[]"], None),
    "range": (lambda n: fnp.zeros(n), [np.int64(3)], TraceError, ["i64[]"], None),
    "formatting": (lambda x: format(x, ".3f"), [S], (TraceError, TypeError), [], None),
    "np.asarray": (lambda x: np.asarray(x), [V], TraceError, ["NumPy array"], "np.stack"),
    "np.array of traced": (lambda x: np.array([x, x]), [V], TraceError, ["NumPy array"], "np.stack"),
    "math.sin": (lambda x: __import__("math").sin(x), [S], TraceError, ["f64[]"], None),
    "np.median": (lambda x: np.median(x), [V], UnsupportedError, ["np.median is not supported"], "fastgrad.numpy"),
    "np.linalg": (lambda x: np.linalg.svd(x), [A], UnsupportedError, ["np.linalg.svd"], None),
    "np.fft": (lambda x: np.fft.fft(x), [V], UnsupportedError, ["fft"], None),
    "a ufunc": (lambda x: np.nextafter(x, 1), [V], UnsupportedError, ["np.nextafter is not supported"], None),
    "ufunc.reduce": (lambda x: np.hypot.reduce(x), [V], UnsupportedError, ["np.hypot.reduce"], None),
    "out=": (lambda x: np.exp(x, out=np.zeros(3)), [V], (UnsupportedError, TraceError), ["np.exp"], None),
    "a mask": (lambda x: x[x > 0], [V], UnsupportedError, ["boolean mask", "f32[3]"], "np.where"),
    "a boolean array": (lambda x: x[MASK[:2]], [V], OutOfBoundsError, ["boolean mask", "f32[3]"], None),
    "x[i] = v": (lambda x: x.__setitem__(0, np.ones(2)), [V], ShapeError, ["x[i] = v", "f32[3]"], "v.reshape"),
    "an index too large": (lambda x: x[3], [V], OutOfBoundsError, ["index 3 is out of bounds for axis 0", "f32[3]"], None),
    "a float index": (lambda x: x[1.5], [V], (DTypeError, TraceError, OutOfBoundsError), [], None),
    "a string index": (lambda x: x["a"], [V], (DTypeError, TraceError, OutOfBoundsError), [], None),
    "labels of floats": (lambda x, y: F.cross_entropy(x, y), [LOGITS, LABELS * 1.0], DTypeError,
                         ["cross_entropy: labels must be integers, got f64[5]"], "astype(np.int64)"),
    "labels too few": (lambda x, y: F.cross_entropy(x, y), [LOGITS, LABELS[:4]], ShapeError,
                       ["cross_entropy", "f32[5,3] and i64[4]"], None),
    "one-hot labels": (lambda x, y: F.cross_entropy(x, y), [LOGITS, LOGITS], ShapeError,
                       ["cross_entropy", "f32[5,3] and f32[5,3]"], "argmax(-1)"),
    "empty batch": (lambda x, y: F.cross_entropy(x, y), [LOGITS[:0], LABELS[:0]], ShapeError,
                    ["cross_entropy: empty batch, got f32[0,3]"], None),
}  # fmt: skip

TRANSFORMS = {
    "jit": lambda f: fg.jit(f),
    "jit numpy": lambda f: fg.jit(f, backend="numpy"),
    "grad": lambda f: fg.grad(lambda *xs: _total(f(*xs))),
    "nested": lambda f: fg.jit(lambda *xs: fg.jit(f)(*xs)),
    "vjp": lambda f: lambda *xs: fg.vjp(f, *xs),
}


def _total(value):
    return value.sum() if hasattr(value, "sum") else value


def line(f):
    return f"at test_bad_input.py:{f.__code__.co_firstlineno}"


@pytest.mark.parametrize(("f", "arrays", "error", "parts", "hint"), ROWS.values(), ids=ROWS)
def test_what_jit_says(f, arrays, error, parts, hint):
    before = compiler.fetched()
    with pytest.raises(error) as caught:
        fg.jit(f)(*arrays)
    text = str(caught.value)
    for part in parts:
        assert part in text, text
    if isinstance(caught.value, FastgradError):
        dtypes = {np.asarray(a).dtype.name for a in arrays}
        if dtypes <= {
            "float32",
            "float64",
            "int64",
        }:  # else the argument is at fault, and no line of the function
            assert line(f) in text, text
        if hint:
            assert "try: " in text and hint in text.split("try: ")[1], text
        assert len(text.splitlines()) <= 2
    assert compiler.fetched() == before


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize(
    "name", ["matmul", "add a column", "if", "if on an array", "np.median", "x[i] = v", "labels too few"]
)
def test_what_every_transformation_says(transform, name):
    f, arrays, error, parts, hint = ROWS[name]
    arrays = [a if i or name == "if" else np.asarray(a) for i, a in enumerate(arrays)]
    with pytest.raises(error) as caught:
        transform(f)(*arrays)
    text = str(caught.value)
    assert line(f) in text, text
    for part in parts:
        assert part in text, text
    if hint:
        assert hint in text


def test_a_bad_argument_names_itself():
    """Which of many arguments is at fault must be in the message."""
    with pytest.raises(DTypeError) as caught:
        fg.jit(lambda p, x: p["w"] * x)({"w": np.ones(3, np.float16), "b": np.ones(3)}, np.ones(3))
    assert "w" in str(caught.value).splitlines()[0] or "['w']" in str(caught.value)


def test_the_line_is_the_users_and_not_a_librarys():
    def model(w, x):
        hidden = np.tanh(x)
        return np.matmul(hidden, w)  # the error is here

    first = model.__code__.co_firstlineno
    with pytest.raises(ShapeError, match=rf"at test_bad_input\.py:{first + 2}$"):
        fg.grad(lambda w, x: model(w, x).sum())(np.ones((5, 6)), np.ones((3, 4)))
    with pytest.raises(ShapeError, match=rf"at test_bad_input\.py:{first + 2}$"):
        fg.TrainStep(lambda w, x: model(w, x).sum(), np.ones((5, 6)), fg.optim.SGD(0.1))(np.ones((3, 4)))


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("label", [3, -1, 2**40, -(2**62)])
def test_a_label_outside_the_classes(backend, label):
    loss = lambda x, y: F.cross_entropy(x, y)  # noqa: E731
    labels = LABELS.copy()
    labels[4] = label
    for f in (fg.jit(loss, backend=backend), fg.value_and_grad(loss, backend=backend)):
        f(LOGITS, LABELS)
        with pytest.raises(OutOfBoundsError) as caught:
            f(LOGITS, labels)
        assert "check_index" in str(caught.value) and line(loss) in str(caught.value)
        assert "3" in str(caught.value)
        assert np.isfinite(np.asarray(f(LOGITS, LABELS)[0] if isinstance(f(LOGITS, LABELS), tuple) else 0))


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_the_bad_label_and_the_op_of_the_user_are_in_the_message(backend):
    """The user wrote cross_entropy with the label 7: both words must be in what is raised."""
    labels = LABELS.copy()
    labels[2] = 7
    with pytest.raises(OutOfBoundsError) as caught:
        fg.jit(lambda x, y: F.cross_entropy(x, y), backend=backend)(LOGITS, labels)
    assert "7" in str(caught.value).splitlines()[0]


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("bad", [3, -4, 2**40])
def test_an_index_outside_its_axis(backend, bad):
    take = lambda x, i: np.take(x, i, axis=0)  # noqa: E731
    f = fg.jit(take, backend=backend)
    np.testing.assert_array_equal(f(np.arange(3.0), np.array([-1, 0])), [2, 0])
    with pytest.raises(OutOfBoundsError, match="take") as caught:
        f(np.arange(3.0), np.array([0, bad]))
    assert line(take) in str(caught.value)
    with pytest.raises(OutOfBoundsError):
        f(np.zeros(0), np.array([0, 0]))


def test_an_error_leaves_the_function_usable():
    f = fg.jit(lambda x, w: x @ w)
    x = np.ones((2, 3))
    for _ in range(3):
        with pytest.raises(ShapeError):
            f(x, np.ones((4, 5)))
        with pytest.raises(DTypeError):
            f(x, np.ones((3, 2), object))
        np.testing.assert_array_equal(f(x, np.ones((3, 2))), np.full((2, 2), 3.0))


def test_a_leaked_tracer():
    leaked = []
    fg.jit(lambda x: (leaked.append(x), x * 2)[1])(np.ones(3))
    with pytest.raises(TraceError):
        leaked[0] + 1
    with pytest.raises(TraceError):
        fg.jit(lambda y: leaked[0] + y)(np.ones(3))
    with pytest.raises(TraceError):
        fg.jit(lambda y: y * 2)(leaked[0])
    assert isinstance(repr(leaked[0]), str)


def test_an_exception_of_the_users_own_comes_through():
    def f(x):
        raise KeyError("mine")

    for transform in (fg.jit, fg.grad, fg.value_and_grad):
        with pytest.raises(KeyError, match="mine"):
            transform(f)(np.ones(3))
    np.testing.assert_array_equal(fg.jit(lambda x: x * 2)(np.ones(3)), 2.0)  # no trace is left open


def test_the_static_graph():
    g = fg.Graph()
    x, y = g.input("x", (3, 4)), g.input("y", (5, 6))
    with pytest.raises(ShapeError, match=r"matmul.*f32\[3,4\] @ f32\[5,6\]"):
        x @ y
    with pytest.raises(TraceError, match="Python `if`"):
        bool(x.sum() > 0)
    with pytest.raises(ArgumentError, match="'x' exists already"):
        g.input("x", (3,))
    with pytest.raises(ArgumentError, match="no output"):
        g.compile()
    with pytest.raises(DTypeError, match="float16"):
        g.input("h", (3,), np.float16)
    g.output((x * 2).sum())
    with pytest.raises(ArgumentError, match=r"wrt names no input: \['z'\]"):
        g.compile(wrt=["z"])
    run = g.compile(wrt=["x"])
    assert isinstance(run, Executable)
    value, gradient = run(np.ones((3, 4), np.float32), np.ones((5, 6), np.float32))
    assert value == 24 and (gradient == 2).all()
    with pytest.raises(ArgumentError, match="takes no more inputs"):
        g.input("late", (3,))


def test_an_input_of_a_negative_size():
    with pytest.raises(ShapeError):
        fg.Graph().input("n", (-1,))


def test_pullbacks():
    out, pullback = fg.vjp(lambda x: np.tanh(x), np.ones(3))
    for bad, error in (
        (np.ones(4), ShapeError),
        (np.ones(3, np.float32), DTypeError),
        (np.ones(3, complex), DTypeError),
        (np.array([None] * 3), DTypeError),
        ((out, out), (ArgumentError, ShapeError)),
        (None, (ArgumentError, ShapeError, DTypeError)),
    ):
        with pytest.raises(error):
            pullback(bad)
    assert pullback(out)[0].shape == (3,)
