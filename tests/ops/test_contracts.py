"""What holds of every op, over every row of `tests/cases.py`."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cases import CASES, Case
from fastgrad import autodiff, batching, passes
from fastgrad.core import counter, error_function, quantile
from fastgrad.core.aval import aval_of
from fastgrad.core.expr import LIBM, MapBuilder
from fastgrad.core.graph import Graph, Literal
from fastgrad.core.loops import Layout, Pointwise, View
from fastgrad.nn import functional as F
from fastgrad.trace import trace

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
differentiable = pytest.mark.parametrize("case", [c for c in CASES if c.order], ids=lambda case: case.name)
smooth = pytest.mark.parametrize(
    "case", [c for c in CASES if c.order and not c.ties], ids=lambda case: case.name
)


SIZE = 3  # of batches


def graph_of(case: Case, arrays) -> Graph:
    return trace(lambda *xs: [case.fn(*xs)], [aval_of(a) for a in arrays], name=case.name)


def evaluate(graph: Graph, arrays) -> list[np.ndarray]:
    """The graph by its ops' references, checking each result against its aval."""
    env = dict(zip(graph.inputs, arrays, strict=True)) | dict(graph.captured)
    read = lambda atom: atom.value if isinstance(atom, Literal) else env[atom]  # noqa: E731
    with np.errstate(all="ignore"):
        for eqn in graph.eqns:
            out = np.asarray(eqn.prim.reference(*(read(a) for a in eqn.inputs), **eqn.params))
            aval = eqn.outputs[0].aval
            assert (out.shape, out.dtype) == (aval.shape, aval.dtype), eqn.prim.name
            env[eqn.outputs[0]] = out
    return [np.asarray(read(a)) for a in graph.outputs]


def close(got, expected, tolerance=1e-12) -> None:
    single = np.asarray(expected).dtype == np.float32
    np.testing.assert_allclose(
        got, expected, rtol=2e-6 if single else tolerance, atol=1e-6 if single else tolerance
    )


@every
def test_reference_is_numpy(case: Case):
    arrays = case.inputs()
    expected = case.oracle(*arrays)
    [got] = evaluate(graph_of(case, arrays), arrays)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    close(got, expected)


@every
def test_inputs_stay_as_they_are(case: Case):
    arrays = case.inputs()
    graph = graph_of(case, arrays)
    before = [a.copy() for a in arrays]
    for array in arrays:
        array.flags.writeable = False
    evaluate(graph, arrays)
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)


@every
def test_batch_is_a_loop(case: Case):
    size = 3
    graph = graph_of(case, case.inputs())
    samples = [case.inputs(seed) for seed in range(size)]
    n = len(case.shapes)
    for batched in itertools.product((True, False), repeat=n):
        if not any(batched):
            continue
        rows = [[samples[i][k] if b else samples[0][k] for k, b in enumerate(batched)] for i in range(size)]
        expected = np.stack([evaluate(graph, row)[0] for row in rows])
        arrays = [np.stack([s[k] for s in samples]) if b else samples[0][k] for k, b in enumerate(batched)]
        [got] = evaluate(batching.vmap(graph, batched, size), arrays)
        assert got.dtype == expected.dtype
        close(got, expected)


def difference(graph: Graph, arrays, directions, step: float) -> list[np.ndarray]:
    """Central differences of the float outputs along one direction of the float inputs."""
    shifted = [
        evaluate(
            graph, [a + s * step * d if d is not None else a for a, d in zip(arrays, directions, strict=True)]
        )
        for s in (1, -1)
    ]
    return [(p - m) / (2 * step) for p, m in zip(*shifted, strict=True) if p.dtype.kind == "f"]


def check_derivatives(graph: Graph, arrays, order: int, tolerance: float, rng) -> None:
    """VJP and JVP against a random-direction difference, then the same of the VJP graph itself."""
    floats = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    directions = [rng.standard_normal(a.shape) if a.dtype.kind == "f" else None for a in arrays]
    expected = difference(graph, arrays, directions, 1e-5)

    pushed = evaluate(autodiff.jvp(graph), [*arrays, *(directions[i] for i in floats)])[len(graph.outputs) :]
    for got, want in zip(pushed, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)

    cts = [rng.standard_normal(e.shape) for e in expected]
    joint = autodiff.vjp(graph, floats)
    pulled = evaluate(joint, [*arrays, *cts])[len(graph.outputs) :]
    left = sum(np.vdot(ct, e) for ct, e in zip(cts, expected, strict=True))
    right = sum(np.vdot(g, directions[i]) for g, i in zip(pulled, floats, strict=True))
    np.testing.assert_allclose(right, left, rtol=tolerance, atol=tolerance * (1 + sum(c.size for c in cts)))
    for g, i in zip(pulled, floats, strict=True):
        assert (g.shape, g.dtype) == (arrays[i].shape, arrays[i].dtype)

    if order > 1:
        check_derivatives(joint, [*arrays, *cts], order - 1, tolerance * 10, rng)


@smooth
def test_derivatives_are_differences(case: Case):
    arrays = case.inputs()
    rng = np.random.default_rng(1)
    check_derivatives(graph_of(case, arrays), arrays, case.order, case.tolerance, rng)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.order == 1 and not c.ties], ids=lambda case: case.name
)
def test_derivatives_of_vjps_are_differences(case: Case):
    """vjp of vjp and jvp of vjp, also of rows that are differentiated once above: linear ops, for the most part."""
    arrays = case.inputs()
    rng = np.random.default_rng(2)
    check_derivatives(graph_of(case, arrays), arrays, 2, case.tolerance, rng)


def some_batched(n: int) -> list[tuple[bool, ...]]:
    """All inputs batched, and each one alone."""
    return list(dict.fromkeys([(True,) * n, *(tuple(i == k for i in range(n)) for k in range(n))]))


@differentiable
def test_vmap_of_vjp_is_a_loop(case: Case):
    """Each example has its own cotangent."""
    samples = [case.inputs(seed) for seed in range(SIZE)]
    n, rng = len(case.shapes), np.random.default_rng(3)
    joint = autodiff.vjp(graph_of(case, samples[0]), floats(samples[0]))
    cts = [[rng.standard_normal(v.aval.shape) for v in joint.inputs[n:]] for _ in range(SIZE)]
    for batched in some_batched(n):
        rows = [pick(samples, i, batched) + cts[i] for i in range(SIZE)]
        expected = [evaluate(joint, row) for row in rows]
        flags = (*batched, *(True for _ in joint.inputs[n:]))
        got = evaluate(batching.vmap(joint, flags, SIZE), stacked(rows, flags))
        for mine, theirs in zip(got, zip(*expected, strict=True), strict=True):
            close(mine, np.stack(theirs))


@differentiable
def test_vjp_of_vmap_is_a_loop(case: Case):
    """A batched input gets the cotangents of its examples, one that all examples share gets their sum."""
    samples = [case.inputs(seed) for seed in range(SIZE)]
    n, rng, wrt = len(case.shapes), np.random.default_rng(4), floats(samples[0])
    graph = graph_of(case, samples[0])
    joint = autodiff.vjp(graph, wrt)
    cts = [[rng.standard_normal(v.aval.shape) for v in joint.inputs[n:]] for _ in range(SIZE)]
    for batched in some_batched(n):
        rows = [pick(samples, i, batched) + cts[i] for i in range(SIZE)]
        expected = [evaluate(joint, row)[len(graph.outputs) :] for row in rows]
        flags = (*batched, *(True for _ in joint.inputs[n:]))
        outer = autodiff.vjp(batching.vmap(graph, batched, SIZE), wrt)
        got = evaluate(outer, stacked(rows, flags))[len(graph.outputs) :]
        for i, mine, theirs in zip(wrt, got, zip(*expected, strict=True), strict=True):
            close(mine, np.stack(theirs) if batched[i] else np.sum(theirs, axis=0))


def floats(arrays) -> list[int]:
    return [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]


def pick(samples, i: int, batched) -> list:
    """The inputs of example i: its own where they are batched, else those of the first."""
    return [samples[i if b else 0][k] for k, b in enumerate(batched)]


def stacked(rows, flags) -> list:
    """One array an input: the examples' side by side, or the one that they share."""
    return [np.stack([row[k] for row in rows]) if b else rows[0][k] for k, b in enumerate(flags)]


def run_lines(eqn, values) -> np.ndarray:
    """A pointwise equation by its scalar lines, each done by NumPy."""
    k = MapBuilder()
    inputs = [k.input(a.aval.dtype) for a in eqn.inputs]
    value = eqn.prim.kernel.lines(k, eqn.outputs[0].aval.dtype, *inputs, **eqn.params)
    lines = k.build([value], inputs)
    env = list(values)
    for line in lines.lines:
        args = line.args if line.op == "const" else [env[a] for a in line.args]
        env.append(np.asarray(_SCALAR_OPS[line.op](*args)).astype(line.dtype))
    return np.broadcast_to(env[lines.outputs[0]], eqn.outputs[0].aval.shape)


_SCALAR_OPS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative, "abs": np.absolute,
    "sign": np.sign, "floor_divide": np.floor_divide, "remainder": np.remainder, "pow": np.power, "max": np.maximum,
    "min": np.minimum, "exp": np.exp, "log": np.log, "tanh": np.tanh, "sqrt": np.sqrt, "expm1": np.expm1,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "log1p": np.log1p, "sin": np.sin, "cos": np.cos, "floor": np.floor,
    "ceil": np.ceil, "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
    "select": np.where, "cast": np.asarray, "const": np.asarray, "shl": np.left_shift, "shr": np.right_shift,
    "ndtri": quantile.ndtri, "plain_log": quantile.log, "threefry32": counter.mixed, "threefry64": counter.both,
    "rsqrt": lambda x: 1 / np.sqrt(x), "log2": np.log2, "log10": np.log10, "exp2": np.exp2, "cbrt": np.cbrt,
    **{name: getattr(error_function, name) for name in ("erf", "ndtr", "gelu", "gelu_tanh")},
    **{name: getattr(np, name) for name in LIBM},
}  # fmt: skip


@every
def test_kernels_as_data_say_what_references_do(case: Case):
    """Scalar lines of maps, and strides of views, against the reference of each equation."""
    arrays = case.inputs()
    graph = graph_of(case, arrays)
    env = dict(zip(graph.inputs, arrays, strict=True)) | dict(graph.captured)
    for eqn in graph.eqns:
        values = [a.value if isinstance(a, Literal) else env[a] for a in eqn.inputs]
        with np.errstate(all="ignore"):
            expected = env[eqn.outputs[0]] = np.asarray(eqn.prim.reference(*values, **eqn.params))
            if isinstance(eqn.prim.kernel, Pointwise):
                np.testing.assert_array_equal(run_lines(eqn, values), expected)
        if isinstance(eqn.prim.kernel, View):
            source = np.ascontiguousarray(values[0]).reshape(-1)
            layout = eqn.prim.kernel.layout(
                Layout.contiguous(np.shape(values[0])), expected.shape, **eqn.params
            )
            strides = [a.stride * source.itemsize for a in layout.axes]
            assert layout.shape == expected.shape
            if expected.size:
                got = np.lib.stride_tricks.as_strided(source[layout.offset :], expected.shape, strides)
                np.testing.assert_array_equal(got, expected)


def test_winners_share_the_cotangent_evenly():
    case = Case("max", lambda x: np.max(x, axis=1), ((2, 3),))
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    joint = autodiff.vjp(graph_of(case, [x]), [0])
    np.testing.assert_array_equal(evaluate(joint, [x, np.ones(2)])[1], [[0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]])


@pytest.mark.parametrize(
    ("fn", "at", "slope"),
    [
        (np.absolute, 0.0, 0.0),
        (lambda x: np.maximum(x, 1.0), 1.0, 0.5),
        (lambda x: np.clip(x, 1.0, 2.0), 1.0, 1.0),
        (lambda x: np.clip(x, 1.0, 2.0), 2.0, 1.0),
        (lambda x: x**0, 0.0, 0.0),
        (lambda x: x**2.5, 0.0, 0.0),
        (lambda x: np.power(x, np.array(0.0)), 0.0, 0.0),
    ],
)
def test_kinks(fn, at, slope):
    x = np.array(at)
    joint = autodiff.vjp(trace(lambda x: [fn(x)], [aval_of(x)]), [0])
    assert evaluate(joint, [x, np.ones(())])[1] == slope


INF, NAN = np.inf, np.nan


def run(fn, *arrays) -> np.ndarray:
    return evaluate(trace(lambda *xs: [fn(*xs)], [aval_of(a) for a in arrays]), arrays)[0]


def test_logsumexp_of_infinite_rows_is_scipys():
    x = np.array([[-INF, -INF], [INF, 1.0], [-INF, 3.0], [1e300, 1e300], [NAN, 0.0]])
    np.testing.assert_array_equal(run(lambda x: F.logsumexp(x, 1), x), [-INF, INF, 3.0, 1e300, NAN])


def test_logsumexp_pulls_back_without_a_second_exponential():
    graph = trace(lambda x: [F.logsumexp(x, -1)], [aval_of(np.zeros((4, 3)))])
    joint = passes.run(autodiff.vjp(graph, [0]))
    names = [eqn.prim.name for eqn in joint.eqns]
    forward = len(passes.run(graph).eqns)
    assert names.count("exp") == 1
    assert sorted(names[forward:]) == ["div", "mul", "reshape"]


def test_cross_entropies_of_equal_classes_share_their_captured_numbers():
    def fn(x, y):
        return [F.cross_entropy(x, y), F.cross_entropy(x * 2, y)]

    assert len(trace(fn, [aval_of(np.zeros((4, 3))), aval_of(np.zeros(4, int))]).captured) == 1


@pytest.mark.parametrize(
    "fn",
    [
        np.exp, np.log, np.sqrt, np.tanh, np.sin, np.floor, np.ceil, np.sign, np.absolute, np.isnan, np.isinf,
        np.isfinite, lambda x: np.clip(x, -1, 1), lambda x: np.clip(x, x, 0.5), lambda x: np.maximum(x, 0),
        lambda x: np.minimum(0, x), lambda x: np.max(x), lambda x: np.argmax(x), lambda x: np.argmin(x),
        lambda x: x**2, lambda x: x**-1, lambda x: x**0, lambda x: x // 0.0, lambda x: x % 2.0, lambda x: 1 / x,
        lambda x: x > 0, lambda x: x != x, lambda x: x.astype(bool),
    ],
)  # fmt: skip
def test_special_values_are_numpys(fn):
    for x in (np.array([INF, -INF, 0.0, -0.0, 1.0, 1e308]), np.array([1.0, NAN, 3.0])):
        with np.errstate(all="ignore"):
            expected = fn(x)
        np.testing.assert_array_equal(run(fn, x), expected)


def test_relu_lets_nan_through():
    np.testing.assert_array_equal(run(F.relu, np.array([NAN, -1.0, INF])), [NAN, 0.0, INF])
