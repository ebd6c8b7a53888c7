"""`jit` and its kin as a caller sees them: nestings, options, any array NumPy can make, fresh results, no recompiling."""

from __future__ import annotations

import dataclasses
import functools
from collections import OrderedDict, namedtuple

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad.codegen import compile as compiler
from fastgrad.errors import ArgumentError, DTypeError, FastgradError, ShapeError
from fastgrad.nn import functional as F
from fastgrad.train import cross_entropy_loss, init_mlp

RNG = np.random.default_rng(0)


class Traced:
    """A function that counts how often Python runs it: once a trace."""

    def __init__(self, f):
        self.f, self.count = f, 0

    def __call__(self, *args, **kwargs):
        self.count += 1
        return self.f(*args, **kwargs)


def affine(x):
    return x * 2.0 + 1.0


# -- nestings ------------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", ["a", "b"])


@dataclasses.dataclass
class Layer:
    w: np.ndarray
    b: np.ndarray


def test_nestings_go_in_and_come_out():
    def f(tree):
        a, (b, c), d, e, layer = tree["a"], tree["p"], tree["d"][0], tree["none"], tree["layer"]
        assert e is None
        return {"sum": a + b, "pair": Pair(c * 2.0, [d, None]), "layer": Layer(layer.b, layer.w), "e": ()}

    tree = {
        "a": np.ones(3),
        "p": Pair(np.arange(3.0), np.full(3, 5.0)),
        "d": [np.zeros((2, 2), np.float32)],
        "none": None,
        "layer": Layer(np.eye(2), np.array([7, 8])),
    }
    out = fg.jit(f)(tree)
    assert set(out) == {"sum", "pair", "layer", "e"} and out["e"] == ()
    np.testing.assert_array_equal(out["sum"], [1.0, 2.0, 3.0])
    assert type(out["pair"]) is Pair and out["pair"].b[1] is None
    np.testing.assert_array_equal(out["pair"].a, [10.0, 10.0, 10.0])
    assert type(out["layer"]) is Layer and out["layer"].w.dtype == np.int64
    np.testing.assert_array_equal(out["layer"].b, np.eye(2))
    assert out["pair"].b[0].dtype == np.float32


def test_the_order_of_dict_keys_does_not_matter():
    f = Traced(lambda p: p["a"] - p["b"])
    jitted = fg.jit(f)
    one, two = np.full(3, 1.0), np.full(3, 2.0)
    np.testing.assert_array_equal(jitted({"a": one, "b": two}), -one)
    np.testing.assert_array_equal(jitted({"b": two, "a": one}), -one)
    np.testing.assert_array_equal(jitted(OrderedDict(b=two, a=one)), -one)


def test_one_array_none_and_nothing_as_results():
    assert isinstance(fg.jit(affine)(np.ones(3)), np.ndarray)
    assert fg.jit(lambda x: None)(np.ones(3)) is None
    assert fg.jit(lambda x: ())(np.ones(3)) == ()
    out = fg.jit(lambda x: (x, 3, 2.5, True, np.float32(4), np.arange(2)))(np.ones(3))
    assert [a.dtype.name for a in out] == ["float64", "int64", "float64", "bool", "float32", "int64"]
    assert [a.tolist() for a in out] == [[1.0, 1.0, 1.0], 3, 2.5, True, 4.0, [0, 1]]


def test_no_arguments():
    assert fg.jit(lambda: np.float32(3))() == 3
    assert fg.jit(lambda: fnp.ones(3).sum())() == 3
    assert fg.jit(lambda: 3)() == 3


def test_the_same_value_twice_and_inputs_as_outputs_are_separate_arrays():
    x = np.arange(3.0)
    a, b, c, d = fg.jit(lambda x, y: (x, x, x + y, x + y))(x, x)
    arrays = [x, a, b, c, d]
    assert not any(np.shares_memory(arrays[i], arrays[j]) for i in range(5) for j in range(i))
    a += 1
    np.testing.assert_array_equal(b, x)
    np.testing.assert_array_equal(d, x + x)


# -- arguments -----------------------------------------------------------------------------------------------


def test_keyword_arguments():
    f = Traced(lambda x, *, scale, shift=1.0: x * scale + shift)
    jitted = fg.jit(f)
    x = np.arange(3.0)
    np.testing.assert_array_equal(jitted(x, scale=np.array(3.0)), x * 3 + 1)
    np.testing.assert_array_equal(jitted(x, scale=np.array(4.0)), x * 4 + 1)
    assert f.count == 1
    np.testing.assert_array_equal(jitted(x, shift=np.array(5.0), scale=np.array(4.0)), x * 4 + 5)
    np.testing.assert_array_equal(jitted(x, scale=np.array(4.0), shift=np.array(5.0)), x * 4 + 5)
    assert f.count == 2


def test_python_numbers_are_weak_inputs_that_do_not_retrace():
    f = Traced(lambda x, a: x * a)
    jitted = fg.jit(f)
    x = np.arange(4, dtype=np.float32)
    for a in (0.1, 2.5, -3.0, float("inf"), 1e-300):
        with np.errstate(invalid="ignore"):
            expected = x * a
        got = jitted(x, a)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, expected)
    assert f.count == 1
    assert jitted(x, 2).dtype == np.float32 and jitted(x, 3).tolist() == [0, 3, 6, 9]
    assert f.count == 2  # an int is another kind than a float
    assert jitted(x, np.float64(3)).dtype == np.float64
    assert jitted(np.arange(4, dtype=np.int8), 3).dtype == np.int8


def test_bools_and_large_ints():
    f = fg.jit(lambda x, a: np.where(a, x, -x))
    x = np.arange(3.0)
    np.testing.assert_array_equal(f(x, True), x)
    np.testing.assert_array_equal(f(x, False), -x)
    with pytest.raises((FastgradError, OverflowError)):
        fg.jit(lambda x, n: x * n)(x, 2**70)


def test_static_arguments_are_python_values():
    f = Traced(lambda x, n, flag: x * 2.0 if flag else x.reshape(n, -1))
    jitted = fg.jit(f, static_argnums=(1, 2))
    x = np.arange(6.0)
    assert jitted(x, 2, False).shape == (2, 3)
    assert jitted(x, 3, False).shape == (3, 2)
    assert jitted(x, 3, True).shape == (6,)
    jitted(x, 2, False)
    assert f.count == 3
    last = fg.jit(f, static_argnums=[-1, -2])
    assert last(x, 3, False).shape == (3, 2)


def test_static_arguments_by_name():
    f = Traced(lambda x, axis=0, *, keep=False: x.sum(axis=axis, keepdims=keep))
    jitted = fg.jit(f, static_argnames=("axis", "keep"))
    x = np.ones((2, 3))
    assert jitted(x, axis=1).shape == (2,)
    assert jitted(x, axis=0).shape == (3,)
    assert jitted(x, axis=0, keep=True).shape == (1, 3)
    jitted(x, axis=1)
    assert f.count == 3
    assert fg.jit(f, static_argnames="axis")(x, axis=1).shape == (2,)


def test_a_static_argument_given_by_position_though_named():
    """As in JAX: ``static_argnames`` holds however the argument is passed."""
    jitted = fg.jit(lambda x, axis: x.sum(axis=axis), static_argnames="axis")
    assert jitted(np.ones((2, 3)), 1).shape == (2,)


def test_static_values_of_equal_hash_are_told_apart():
    """1, 1.0 and True are equal and hash alike; they trace differently."""
    jitted = fg.jit(lambda x, n: x * n, static_argnums=1)
    x = np.arange(3)
    assert jitted(x, 1).dtype == np.int64
    assert jitted(x, 1.0).dtype == np.float64
    assert jitted(x, True).dtype == np.int64
    signs = fg.jit(lambda x, n: x * n, static_argnums=1)
    assert not np.signbit(signs(np.ones(1), 0.0)) and np.signbit(signs(np.ones(1), -0.0))


def test_strings_and_callables_are_static():
    f = Traced(lambda x, how, g: g(x) if how == "apply" else x)
    jitted = fg.jit(f)
    x = np.arange(3.0)
    np.testing.assert_array_equal(jitted(x, "apply", affine), affine(x))
    np.testing.assert_array_equal(jitted(x, "apply", affine), affine(x))
    assert f.count == 1
    np.testing.assert_array_equal(jitted(x, "no", affine), x)
    assert f.count == 2
    nested = fg.jit(lambda p: p["x"] * 3.0 if p["how"] == "triple" else p["x"])
    np.testing.assert_array_equal(nested({"x": x, "how": "triple"}), x * 3)
    np.testing.assert_array_equal(nested({"x": x, "how": "other"}), x)


def test_an_unhashable_static_argument_is_an_error():
    with pytest.raises(ArgumentError, match="static argument must be hashable, got list"):
        fg.jit(lambda x, n: x, static_argnums=1)(np.ones(3), [1])


# -- memoisation and options ---------------------------------------------------------------------------------


def test_transformed_functions_are_memoised_on_the_function():
    def f(x):
        counts.append(1)
        return (x * x).sum()

    counts = []
    for _ in range(3):
        fg.grad(f)(np.ones(3))
        fg.value_and_grad(f)(np.ones(3))
        fg.jit(f)(np.ones(3))
    assert len(counts) == 3
    assert fg.jit(f) is fg.jit(f) and fg.grad(f, argnums=[0]) is fg.grad(f, argnums=(0,))
    assert fg.jit(f) is not fg.jit(f, backend="numpy") and fg.grad(f) is not fg.grad(f, argnums=(0,))
    assert fg.jit(lambda x: x) is not fg.jit(lambda x: x)


def test_a_memoised_function_dies_with_its_function():
    import gc
    import weakref

    def f(x):
        return x * 2.0

    fg.jit(f)(np.ones(3))
    ref = weakref.ref(f)
    del f
    gc.collect()
    assert ref() is None


def test_a_wrapper_is_another_function():
    """``functools.wraps`` copies ``__dict__``: what is memoised on the inner function must not stand for the outer."""

    def inner(x):
        return (x * 2.0).sum()

    x = np.arange(3.0)
    fg.jit(inner)(x), fg.grad(inner)(x), fg.value_and_grad(inner)(x), fg.vjp(inner, x)

    @functools.wraps(inner)
    def outer(x):
        return inner(x) * 100.0

    assert fg.jit(outer)(x) == 600.0
    assert fg.grad(outer)(x).tolist() == [200.0] * 3
    assert fg.value_and_grad(outer)(x)[0] == 600.0
    assert fg.vjp(outer, x)[0] == 600.0
    assert fg.jit(inner)(x) == 6.0


def test_methods_and_callable_objects():
    class Model:
        scale = 3.0

        @fg.jit
        def run(self, x):
            return x * self.scale

        def plain(self, x):
            return x * self.scale

        def __call__(self, x):
            return x * self.scale

    model = Model()
    x = np.arange(3.0)
    for call in (model.run, fg.jit(model.plain), fg.jit(model)):
        np.testing.assert_array_equal(call(x), x * 3)
    assert fg.grad(lambda x: model.run(x).sum())(x).tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tpu"}, "unknown backend 'tpu'"),
        ({"backend": "cuda"}, "not built yet"),
        ({"precision": "float16"}, "unknown precision 'float16'.*None, 'bfloat16'"),
        ({"precision": np.float32}, "unknown precision"),
        ({"threads": 0}, "threads must be a positive integer, got 0"),
        ({"threads": True}, "threads must be a positive integer, got True"),
        ({"threads": 1.5}, "threads must be a positive integer, got 1.5"),
    ],
)
@pytest.mark.parametrize("transform", [fg.jit, fg.grad, fg.value_and_grad], ids=lambda t: t.__name__)
def test_bad_options(transform, options, message):
    with pytest.raises(ArgumentError, match=f"(?s){message}"):
        transform(affine, **options)


@pytest.mark.parametrize("transform", [fg.grad, fg.value_and_grad], ids=lambda t: t.__name__)
def test_an_option_that_does_not_exist(transform):
    with pytest.raises((ArgumentError, TypeError), match="bakend"):
        transform(affine, bakend="numpy")


@pytest.mark.parametrize(
    "options",
    [
        {"static_argnums": 7},
        {"static_argnames": "no_such_name"},
        {"static_argnums": 1.0},
        {"static_argnums": {0}},
    ],
    ids=str,
)
def test_static_arguments_that_do_not_exist(options):
    with pytest.raises(ArgumentError, match="static_arg"):
        fg.jit(lambda x, n: x * n, **options)(np.ones(3), 2.0)


def test_has_aux_of_a_function_that_returns_none():
    with pytest.raises(FastgradError, match="has_aux"):
        fg.grad(lambda x: (x * x).sum(), has_aux=True)(np.ones(3))


def test_what_is_no_function():
    with pytest.raises(ArgumentError, match="expected a function, got int"):
        fg.jit(3)
    with pytest.raises(ArgumentError, match=r"argnums 3 with 1 positional"):
        fg.grad(lambda x: x.sum(), argnums=3)(np.ones(2))
    with pytest.raises(ShapeError, match=r"must return a scalar, got f64\[2\]"):
        fg.grad(lambda x: x)(np.ones(2))
    with pytest.raises(DTypeError, match=r"differentiates by float arguments, got i64\[2\]"):
        fg.grad(lambda x: x.sum())(np.arange(2))
    with pytest.raises(DTypeError, match="must return arrays or numbers, got str"):
        fg.jit(lambda x: "no")(np.ones(2))


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_aux_and_values_that_are_numbers(backend):
    """What does not depend on the arguments comes back as an array too, never as a part of the graph."""
    x = np.arange(3.0)
    (value, aux), gradient = fg.value_and_grad(
        lambda x: ((x * x).sum(), {"n": 3, "half": 0.5, "flag": True, "table": np.arange(2)}),
        has_aux=True, backend=backend,
    )(x)  # fmt: skip
    assert value == 5 and gradient.tolist() == [0, 2, 4]
    assert [type(v) for v in leaves_of(aux)] == [np.ndarray] * 4
    assert aux["n"] == 3 and aux["half"] == 0.5 and aux["flag"] and aux["table"].tolist() == [0, 1]
    value, gradient = fg.value_and_grad(lambda x: 1.0, backend=backend)(x)
    assert isinstance(value, np.ndarray) and value == 1.0 and gradient.tolist() == [0, 0, 0]
    gradient, aux = fg.grad(lambda x: (x.sum(), None), has_aux=True, backend=backend)(x)
    assert aux is None and gradient.tolist() == [1, 1, 1]


def leaves_of(tree):
    return list(tree.values())


def test_the_same_argument_twice_in_argnums():
    x = np.arange(3.0)
    try:
        first, second = fg.grad(lambda x, y: (x * y).sum(), argnums=(0, 0))(x, x + 1.0)
    except ArgumentError:
        return
    np.testing.assert_array_equal(first, x + 1.0)
    np.testing.assert_array_equal(second, x + 1.0)


def test_docs_and_name_stay():
    def f(x):
        """Says something."""
        return x

    assert fg.jit(f).__doc__ == "Says something." and fg.jit(f).__name__ == "f"
    assert fg.jit(f).__wrapped__ is f
    assert "f" in repr(fg.jit(f))


# -- results are fresh ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_results_are_fresh_arrays(backend):
    jitted = fg.jit(
        lambda x: (x, x.T, x.reshape(-1), x[0], affine(x), np.broadcast_to(x[0], (3, 4)), fnp.zeros(4)),
        backend=backend,
    )
    x = np.arange(12.0).reshape(3, 4)
    kept = x.copy()
    first = jitted(x)
    copies = [a.copy() for a in first]
    second = jitted(x)
    for i, a in enumerate(first):
        assert a.flags.writeable and type(a) is np.ndarray
        assert not np.shares_memory(a, x)
        assert not any(np.shares_memory(a, b) for b in [*second, *first[:i]])
        a[...] = -7.0
    np.testing.assert_array_equal(x, kept)
    for expected, again, third in zip(copies, second, jitted(x), strict=True):
        np.testing.assert_array_equal(again, expected)
        np.testing.assert_array_equal(third, expected)
    x += 100.0  # a change of the input shows in the next call alone
    np.testing.assert_array_equal(second[0], kept)
    np.testing.assert_array_equal(jitted(x)[4], affine(kept + 100.0))


@pytest.mark.parametrize(
    "captured",
    [np.arange(3.0), np.arange(6.0)[::2] / 2.0, np.arange(3.0).astype(">f8")],
    ids=["contiguous", "strided", "byte-swapped"],
)
def test_a_captured_array_is_read_at_each_call_and_never_written(captured):
    jitted = fg.jit(lambda x: (x + captured, fnp.asarray(captured)))
    np.testing.assert_array_equal(jitted(np.ones(3))[0], [1, 2, 3])
    captured += 10.0
    total, same = jitted(np.ones(3))
    np.testing.assert_array_equal(total, [11, 12, 13])
    assert not np.shares_memory(same, captured)
    same[...] = -1.0
    np.testing.assert_array_equal(captured, [10, 11, 12])


# -- any array -----------------------------------------------------------------------------------------------


def misaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    assert not a.size or not view.flags.aligned
    return view


def readonly(a):
    a = a.copy()
    a.flags.writeable = False
    return a


class Sub(np.ndarray):
    """Answers every operator wrongly: it must be taken as the plain array it holds."""

    def __mul__(self, other):
        raise AssertionError("the subclass was asked")


def field(a):
    record = np.zeros(a.shape, [("pad", np.uint8), ("value", a.dtype)])
    record["value"] = a
    return record["value"]


LAYOUTS = {
    "contiguous": lambda a: a,
    "fortran": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "every other": lambda a: np.repeat(np.repeat(a, 2, 0), 2, 1)[::2, ::2],
    "negative strides": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
    "negative inner": lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1],
    "read-only": readonly,
    "misaligned": misaligned,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "a field of records": field,
    "a subclass": lambda a: a.view(Sub),
    "a matrix in the middle": lambda a: np.pad(a, 3)[3:-3, 3:-3],
}


@pytest.fixture(scope="module")
def reader():
    """Elementwise, reduction and product of one input: each reads it in its own way."""
    return fg.jit(lambda x, w: (affine(x), x.sum(axis=0), x.max(axis=1), x @ w, x.T * 2.0))


def read(x, w):
    return affine(x), x.sum(axis=0), x.max(axis=1), x @ w, x.T * 2.0


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("shape", [(5, 7), (1, 9), (9, 1), (0, 4), (4, 0), (33, 65)], ids=str)
def test_any_layout_gives_the_bits_of_a_contiguous_array(reader, make, shape):
    x, w = RNG.standard_normal(shape), RNG.standard_normal((shape[1], 3))
    if not shape[1]:
        return  # the maximum of an empty axis is an error
    given = make(x)
    before = np.array(given)
    expected = reader(x, w)
    hot = reader(x, w)
    cold = reader(given, np.asfortranarray(w))
    for plain, a, b, c in zip(read(x, w), expected, hot, cold, strict=True):
        np.testing.assert_allclose(a, plain, rtol=1e-12, atol=1e-12)
        assert a.tobytes() == b.tobytes() == c.tobytes()
        assert a.dtype == c.dtype == np.float64 and type(c) is np.ndarray
    np.testing.assert_array_equal(np.array(given), before)


def test_broadcast_arrays_with_stride_0(reader):
    row, w = RNG.standard_normal(7), RNG.standard_normal((7, 3))
    x = np.broadcast_to(row, (5, 7))
    for a, b in zip(reader(x, w), reader(x.copy(), w), strict=True):
        assert a.tobytes() == b.tobytes()
    scalar = np.broadcast_to(3.0, (5, 7))
    np.testing.assert_array_equal(reader(scalar, w)[0], np.full((5, 7), 7.0))


def test_memory_mapped_arrays(reader, tmp_path):
    x, w = RNG.standard_normal((5, 7)), RNG.standard_normal((7, 3))
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for a, b in zip(reader(mapped, w), reader(x, w), strict=True):
        assert type(a) is np.ndarray and a.tobytes() == b.tobytes()


def test_lists_are_nestings_and_matrices_are_arrays():
    x = np.arange(6.0).reshape(2, 3)
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix(x)
    got = fg.jit(lambda m: m * m)(matrix)  # elementwise, though a matrix would multiply
    assert type(got) is np.ndarray
    np.testing.assert_array_equal(got, x * x)
    assert fg.jit(lambda xs: xs[0] + xs[1])([1.0, 2.0]) == 3.0


def test_0_d_and_numpy_scalars():
    f = fg.jit(affine)
    for x in (np.array(3.0), np.float64(3.0), 3.0, np.broadcast_to(np.array(3.0), ())):
        got = f(x)
        assert type(got) is np.ndarray and got.shape == () and got == 7.0
    assert f(np.float32(3)).dtype == np.float32
    assert f(np.int8(3)).dtype == np.float64


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 3)], ids=str)
def test_zero_size_arrays(shape):
    f = fg.jit(lambda x: (affine(x), x.sum(), x.sum(axis=0), x.sum(axis=-1), x.T))
    x = np.zeros(shape)
    for got, expected in zip(f(x), (x, x.sum(), x.sum(axis=0), x.sum(axis=-1), x.T), strict=True):
        assert got.shape == expected.shape
        np.testing.assert_array_equal(got, expected)


TYPES = {
    "longlong": (np.dtype(np.longlong), np.dtype(np.int64)),
    "with metadata": (np.dtype(np.float64, metadata={"unit": "m"}), np.dtype(np.float64)),
}


@pytest.mark.parametrize(("other", "plain"), TYPES.values(), ids=TYPES)
def test_equal_dtypes_that_are_other_objects(other, plain):
    """NumPy has several dtype objects for one type: they are equal, but not the same."""
    if np.dtype(other).itemsize != plain.itemsize:
        return
    x, odd = np.arange(3).astype(plain), np.arange(3).astype(plain).view(other)
    assert other == plain and odd.dtype is not x.dtype
    f = fg.jit(lambda x: x * 2)
    np.testing.assert_array_equal(f(odd), [0, 2, 4])
    np.testing.assert_array_equal(f(x), [0, 2, 4])
    np.testing.assert_array_equal(f(odd), [0, 2, 4])
    executable = f.compile(x)
    np.testing.assert_array_equal(executable(odd)[0], [0, 2, 4])
    np.testing.assert_array_equal(executable(odd, out=[np.empty(3, plain)])[0], [0, 2, 4])


@pytest.mark.parametrize(("other", "plain"), TYPES.values(), ids=TYPES)
def test_out_of_an_equal_dtype_that_is_another_object(other, plain):
    """It is filled or refused, but never left as it was without a word."""
    if np.dtype(other).itemsize != plain.itemsize:
        return
    x, out = np.arange(3).astype(plain), np.full(3, -1).astype(plain).view(other)
    try:
        fg.jit(lambda x: x * 2).compile(x)(x, out=[out])
    except ArgumentError:
        return
    np.testing.assert_array_equal(out, [0, 2, 4])


def test_objects_that_offer_an_array_are_arrays():
    class Wrapped:
        def __array__(self, dtype=None, copy=None):
            return np.arange(3.0)

    np.testing.assert_array_equal(fg.jit(lambda x: x * 2.0)(Wrapped()), [0, 2, 4])


def test_mean_of_nothing_is_nan():
    assert np.isnan(fg.jit(lambda x: x.mean())(np.zeros(0)))


# -- signatures ----------------------------------------------------------------------------------------------


def test_new_shapes_and_dtypes_trace_again_and_old_ones_do_not():
    f = Traced(affine)
    jitted = fg.jit(f)
    arrays = [np.ones(3), np.ones(4), np.ones((3, 1)), np.ones(3, np.float32), np.ones(3, np.int32)]
    for _ in range(3):
        for x in arrays:
            got = jitted(x)
            assert got.dtype == affine(x).dtype and got.shape == x.shape
            np.testing.assert_array_equal(got, affine(x))
    assert f.count == 5
    assert "5 signatures" in repr(jitted)


def test_an_executable_checks_its_arguments():
    executable = fg.jit(lambda x, y: x @ y).compile(np.ones((2, 3)), np.ones((3, 4)))
    x, y = np.ones((2, 3)), np.ones((3, 4))
    np.testing.assert_array_equal(executable(x, y)[0], x @ y)
    np.testing.assert_array_equal(executable(np.asfortranarray(x), y.astype(">f8"))[0], x @ y)
    with pytest.raises(ShapeError, match=r"argument 0: expected f64\[2,3\], got shape \[3, 2\]"):
        executable(x.T, y)
    with pytest.raises(ShapeError, match=r"argument 1: expected f64\[3,4\], got shape \[12\]"):
        executable(x, y.reshape(-1))
    with pytest.raises(DTypeError, match=r"argument 0: expected f64\[2,3\], got dtype float32"):
        executable(x.astype(np.float32), y)
    with pytest.raises(DTypeError, match=r"argument 1: expected .* got dtype object"):
        executable(x, y.astype(object))
    with pytest.raises(ArgumentError, match="takes 2 arrays, got 1"):
        executable(x)
    with pytest.raises(ArgumentError, match="takes 2 arrays, got 3"):
        executable(x, y, y)
    np.testing.assert_array_equal(executable(x, y)[0], x @ y)


def test_an_interpreted_executable_checks_its_arguments_too():
    executable = fg.jit(affine, backend="numpy").compile(np.ones(3))
    np.testing.assert_array_equal(executable(np.ones(3))[0], [3, 3, 3])
    with pytest.raises(ShapeError, match="argument 0"):
        executable(np.ones(4))
    with pytest.raises(DTypeError, match="argument 0"):
        executable(np.ones(3, np.float32))


# -- out= ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_out_takes_the_results(backend):
    executable = fg.jit(lambda x: (affine(x), x.sum()), backend=backend).compile(np.ones(5))
    out = [np.full(5, -1.0), np.array(-1.0)]
    got = executable(np.arange(5.0), out=out)
    assert got[0] is out[0] and got[1] is out[1]
    np.testing.assert_array_equal(out[0], affine(np.arange(5.0)))
    assert out[1] == 10.0


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_inputs_may_overlap_out(backend):
    executable = fg.jit(lambda x, y: (x + y, x - y, x[::-1] * 1.0), backend=backend).compile(
        np.ones(6), np.ones(6)
    )
    memory = np.arange(24.0)
    x, y = memory[0:6], memory[3:9]
    expected = [x + y, x - y, x[::-1].copy()]
    out = [memory[2:8], memory[12:18], memory[18:24]]
    for got, want in zip(executable(x, y, out=out), expected, strict=True):
        np.testing.assert_array_equal(got, want)
    z = np.arange(6.0)
    executable(z, z, out=[z, np.empty(6), np.empty(6)])
    np.testing.assert_array_equal(z, 2 * np.arange(6.0))


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_out_that_does_not_fit(backend):
    executable = fg.jit(lambda x: (affine(x), x * x), backend=backend).compile(np.ones(6))
    x, good, other = np.ones(6), np.full(6, -1.0), np.full(6, -1.0)
    locked = np.ones(6)
    locked.flags.writeable = False
    for bad, error in (
        (np.ones(5), ShapeError),
        (np.ones(6, np.float32), DTypeError),
        (np.ones(12)[::2], ArgumentError),
        (misaligned(np.ones(6)), ArgumentError),
        (np.ones(6).astype(">f8"), ArgumentError),
        (locked, ArgumentError),
        ([0.0] * 6, ArgumentError),
        (None, (ArgumentError, DTypeError)),
        (good, ArgumentError),
    ):
        with pytest.raises(error, match=r"out\[1\]"):
            executable(x, out=[good, bad])
    with pytest.raises(ArgumentError, match="out takes 2 arrays, got 1"):
        executable(x, out=[good])
    with pytest.raises(ShapeError):
        executable(np.ones(7), out=[good, other])
    np.testing.assert_array_equal(good, -1.0)
    np.testing.assert_array_equal(other, -1.0)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_out_may_be_the_array_of_a_lone_output(backend):
    one = fg.jit(affine, backend=backend).compile(np.ones(6))
    out = np.empty(6)
    assert one(np.arange(6.0), out=out)[0] is out
    np.testing.assert_array_equal(out, affine(np.arange(6.0)))
    with pytest.raises(ShapeError, match=r"out\[0\]: expected f64\[6\], got shape \[2, 3\]"):
        one(np.ones(6), out=np.empty((2, 3)))
    two = fg.jit(lambda x: (x, x * x), backend=backend).compile(np.ones(6))
    for bad in (np.empty(6), np.empty((2, 6)), np.array(1.0)):
        with pytest.raises(ArgumentError, match=r"out takes 2 arrays, got one of shape .*\n.*out=\[a, b"):
            two(np.ones(6), out=bad)


def test_the_entry_sees_itself_whether_outputs_can_be_given():
    """The native entry and its twin refuse the same calls; nothing is written then."""
    executable = fg.jit(lambda x, y: (x + y, x - y)).compile(np.ones(6), np.ones(6))
    workspace = executable.program.native.workspace()
    memory = np.arange(40.0)
    x, y, out = memory[0:6], memory[6:12], [memory[12:18], memory[18:24]]
    locked = np.ones(6)
    locked.flags.writeable = False
    before = memory.copy()
    for entry in (workspace.native_entry, workspace.python_entry):
        for a, b, c, d in (
            (x, y, x, out[0]),
            (x, y, memory[5:11], out[0]),
            (x, y, out[0], memory[11:17]),
            (x, y, out[0], out[0]),
            (x, y, memory[12:18], memory[17:23]),
            (x, y, memory[17:23], memory[12:18]),
            (x, y, out[0], locked),
            (x, y, out[0], memory[0:12:2]),
        ):
            assert entry(a, b, c, d, True) is False
        assert entry(x, y, *out, False) is False
        assert entry(x, y, y, *out) is False
        assert entry(x, y, out[0], True) is False
        np.testing.assert_array_equal(memory, before)
        assert entry(x, x, *out, True) is None
        np.testing.assert_array_equal(out, [x + x, x - x])
        memory[...] = before


def test_out_that_overlaps_a_captured_array():
    captured = np.arange(6.0)
    executable = fg.jit(lambda x: (x * 2.0, x + captured)).compile(np.ones(6))
    expected = np.ones(6) + captured
    with pytest.raises(ArgumentError, match=r"out\[1\]"):
        executable(np.ones(6), out=[np.empty(6), None])
    out = [captured, np.empty(6)]
    executable(np.ones(6), out=out)
    np.testing.assert_array_equal(out[1], expected)


# -- a new batch size compiles nothing -----------------------------------------------------------------------

BATCHES = (32, 1, 2, 7, 128, 1000)
PARAMS = init_mlp([16, 24, 10], 0, np.float32)
WEIGHT, SQUARE = RNG.standard_normal((16, 12)), RNG.standard_normal((12, 16))


def norm(x):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5)


def batch32(n):
    return RNG.random((n, 16), np.float32), RNG.integers(0, 10, n)


def batch64(n):
    return (RNG.standard_normal((n, 16)),)


def blocks(n):
    return RNG.standard_normal((n, 6, 16)), RNG.standard_normal((n, 16, 6))


def trained(n):
    return _STEP(*batch32(n))


_STEP = fg.TrainStep(cross_entropy_loss, PARAMS, fg.optim.Adam(1e-3))

KEPT_OVER_THE_BATCH = [
    lambda x: F.softmax(x, axis=0),
    lambda x: (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5),
    lambda x: np.tanh(x) * WEIGHT[:, :1].T,
]
"""At a batch of one NumPy itself sees no broadcast here: another program (docs/decisions.md, 2)."""
BATCHED = {
    "mlp loss": (lambda x, y: cross_entropy_loss(PARAMS, x, y), batch32),
    "mlp value_and_grad": (
        fg.value_and_grad(lambda p, x, y: cross_entropy_loss(p, x, y)),
        lambda n: (PARAMS, *batch32(n)),
    ),
    "elementwise": (lambda x: np.tanh(x) * 3.0 + x, batch64),
    "bias": (lambda x: np.maximum(x + WEIGHT[:, 0], 0.0), batch64),
    "outer": (lambda x: x[:, :1] * x[0], batch64),
    "sum of all": (lambda x: x.sum(), batch64),
    "sum over the batch": (lambda x: x.sum(axis=0), batch64),
    "sum over features": (lambda x: x.sum(axis=1), batch64),
    "mean and max over the batch": (lambda x: (x.mean(axis=0), x.max(axis=0)), batch64),
    "argmax": (lambda x: (x.argmax(axis=1), x.argmax(axis=0)), batch64),
    "softmax": (lambda x: F.softmax(x, axis=1), batch64),
    "softmax over the batch": (KEPT_OVER_THE_BATCH[0], batch64),
    "log-softmax gradient": (fg.grad(lambda x: (F.log_softmax(x) * x).sum()), batch64),
    "batch norm": (KEPT_OVER_THE_BATCH[1], batch64),
    "one row for all": (KEPT_OVER_THE_BATCH[2], batch64),
    "layer norm": (norm, batch64),
    "layer norm gradient": (fg.grad(lambda x: (norm(x) * x).sum()), batch64),
    "x @ w": (lambda x: x @ WEIGHT, batch64),
    "x @ w.T": (lambda x: x @ SQUARE.T, batch64),
    "w.T @ x.T": (lambda x: WEIGHT.T @ x.T, batch64),
    "x @ vector": (lambda x: x @ WEIGHT[:, 0], batch64),
    "x.T @ x": (lambda x: x.T @ x, batch64),
    "x @ x.T": (lambda x: x @ x.T, lambda n: (RNG.standard_normal((min(n, 200), 16)),)),
    "batched": (lambda x, y: x @ y, blocks),
    "batched by broadcasting": (lambda x, y: x[:, None] @ y[:1], blocks),
    "batched, one matrix": (lambda x, y: x @ WEIGHT, blocks),
    "rows by index": (lambda x: x[np.array([0, 0])], batch64),
    "concatenate": (lambda x: np.concatenate([x, x * 2.0], axis=1), batch64),
    "concatenate rows": (lambda x: np.concatenate([x, x * 2.0], axis=0), batch64),
    "transpose": (lambda x: x.T * 1.5, batch64),
    "slices": (lambda x: x[:, 1:] - x[:, :-1], batch64),
}


@pytest.mark.parametrize(("f", "batch"), BATCHED.values(), ids=BATCHED)
def test_a_new_batch_size_compiles_nothing(f, batch):
    jitted = f if hasattr(f, "lower") else fg.jit(f)
    jitted(*batch(BATCHES[0]))
    before = compiler.fetched()
    fresh = {}
    for n in BATCHES[1:]:
        if n == 1 and f in KEPT_OVER_THE_BATCH:
            continue
        jitted(*batch(n))
        fresh[n] = compiler.fetched() - before
    assert not any(fresh.values()), f"kernels compiled by batch size: {fresh}"


def test_a_new_batch_size_of_a_training_step_compiles_nothing():
    trained(BATCHES[0])
    before = compiler.fetched()
    for n in BATCHES[1:]:
        trained(n)
        assert compiler.fetched() == before, f"batch size {n}"


def test_a_new_batch_size_of_run_compiles_nothing():
    x, y = batch32(1000)
    _STEP.run(x, y, batch_size=32)
    before = compiler.fetched()
    for n in (1, 2, 7, 128, 1000):
        _STEP.run(x[: 4 * n], y[: 4 * n], batch_size=n)
        assert compiler.fetched() == before, f"batch size {n}"


def test_the_batch_size_of_one_gives_the_right_numbers():
    for name in ("layer norm", "softmax", "x.T @ x", "bias", "outer", "argmax"):
        f, _ = BATCHED[name]
        for n in (1, 2, 7):
            (x,) = batch64(n)
            expected = fg.jit(f, backend="numpy")(x)
            got = fg.jit(f)(x)
            for a, b in zip(
                got if isinstance(got, tuple) else [got],
                expected if isinstance(expected, tuple) else [expected],
                strict=True,
            ):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def test_out_may_overlap_what_the_function_closed_over():
    a = RNG.standard_normal((16, 16))
    before, x = a.copy(), np.ones((16, 16))
    fg.jit(lambda v: a @ v + a.T).compile(x)(x, out=[a])
    np.testing.assert_allclose(a, before @ x + before.T)


def test_transforms_of_transforms_are_remembered():
    f = Traced(lambda x: x**4)

    def g(x):
        return f(x)

    for _ in range(3):
        assert fg.grad(fg.grad(g))(2.0) == 48.0
    assert f.count == 1
