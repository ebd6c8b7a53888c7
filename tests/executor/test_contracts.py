"""What holds of every compiled graph, over every row of `tests/cases.py`: its numbers, its memory, its threads.

Values are compiled for every row; VJP graphs for up to seven rows of each op, JVP and batched graphs for its richest one:
their rules are checked on every row by `tests/ops/test_contracts.py`, and a kernel of their own costs 0.1 s to compile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest

from cases import CASES, Case
from fastgrad import autodiff, batching
from fastgrad.codegen import abi
from fastgrad.core.aval import DTYPES, aval_of
from fastgrad.core.graph import Graph
from fastgrad.executor import cpu, tape
from fastgrad.executor.executable import Executable
from fastgrad.interpreter import evaluate
from fastgrad.nn import functional as F
from fastgrad.ops import index
from fastgrad.trace import trace

GUARD = 264  # bytes before and after: what lies between is aligned to 8 bytes, not to a vector


def _rows_of_ops(cases: Sequence[Case]) -> list[list[Case]]:
    """The rows of each op."""
    rows: dict[str, list[Case]] = {}
    for case in cases:
        rows.setdefault(case.name.split("-")[0], []).append(case)
    return list(rows.values())


def _richest(cases: Sequence[Case]) -> list[Case]:
    """The row of each op with the most axes."""
    return [max(rows, key=lambda case: sum(map(len, case.shapes))) for rows in _rows_of_ops(cases)]


def _spread(cases: Sequence[Case], count: int) -> list[Case]:
    """At most ``count`` rows of each op, evenly over its rows."""
    return [case for rows in _rows_of_ops(cases) for case in rows[:: -(-len(rows) // count)]]


DIFFERENTIABLE = [c for c in CASES if c.order]
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
richest = pytest.mark.parametrize("case", _richest(CASES), ids=lambda case: case.name)
differentiable = pytest.mark.parametrize("case", _spread(DIFFERENTIABLE, 7), ids=lambda case: case.name)
richest_differentiable = pytest.mark.parametrize("case", _richest(DIFFERENTIABLE), ids=lambda case: case.name)


def graph_of(fn: Callable, arrays: Sequence[np.ndarray], name: str = "f") -> Graph:
    def flat(*xs):
        out = fn(*xs)
        return list(out) if isinstance(out, tuple | list) else [out]

    return trace(flat, [aval_of(a) for a in arrays], name=name)


@cache
def value_graph(case: Case) -> Graph:
    return graph_of(case.fn, case.inputs(), case.name)


def with_directions(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """``arrays``, then random ones for the inputs of ``graph`` that are left: cotangents or tangents."""
    rng = np.random.default_rng(1)
    more = [v.aval for v in graph.inputs[len(arrays) :]]
    return [*arrays, *(np.asarray(rng.standard_normal(a.shape), a.dtype) for a in more)]


def vjp_example(case: Case) -> tuple[Graph, list[np.ndarray]]:
    graph = value_graph(case)
    joint = autodiff.vjp(graph, [i for i, v in enumerate(graph.inputs) if autodiff.is_float(v)])
    return joint, with_directions(joint, case.inputs())


def close(got: np.ndarray, expected: np.ndarray, tolerance: float = 1e-12) -> None:
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected)
        return
    single = expected.dtype == np.float32
    np.testing.assert_allclose(
        got, expected, rtol=2e-6 if single else tolerance, atol=1e-6 if single else tolerance
    )


def same_bits(got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert a.tobytes() == b.tobytes(), f"output {i} differs by up to {np.max(np.abs(a - b))}"


def compiled_is_interpreted(graph: Graph, arrays: Sequence[np.ndarray], tolerance: float = 1e-12) -> None:
    got, expected = Executable(graph)(*arrays), evaluate(graph, arrays)
    for a, b, aval in zip(got, expected, [o.aval for o in graph.outputs], strict=True):
        assert (a.shape, a.dtype) == (aval.shape, aval.dtype)
        close(a, np.asarray(b), tolerance)


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_the_rows_hold_every_dtype():
    dtypes = {a.dtype for case in CASES for a in case.inputs()}
    assert dtypes == set(DTYPES)


@every
def test_compiled_is_interpreted_is_numpy(case: Case):
    arrays = case.inputs()
    [got] = Executable(value_graph(case))(*arrays)
    [interpreted] = Executable(value_graph(case), backend="numpy")(*arrays)
    close(got, case.oracle(*arrays))
    close(got, interpreted)


def with_special_values(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """About half of the float elements replaced by NaN, infinities and zeros of both signs."""
    rng = np.random.default_rng(2)
    found = []
    for array in arrays:
        if array.dtype.kind == "f":
            special = rng.choice(np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], array.dtype), array.shape)
            array = np.where(rng.random(array.shape) < 0.5, special, array)
        found.append(array)
    return found


def _has_special_values(case: Case) -> bool:
    """Not the casts of floats to integers: what they make of NaN is undefined, in C as in NumPy."""
    name, *dtypes = case.name.split("-")
    floats = any(np.dtype(d).kind == "f" for d in case.dtypes) or len(case.dtypes) < len(case.shapes)
    return floats and not (name == "astype" and dtypes[1][0] in "iu")


@pytest.mark.parametrize("case", [c for c in CASES if _has_special_values(c)], ids=lambda case: case.name)
def test_special_values_are_numpys(case: Case):
    arrays = with_special_values(case.inputs())
    compiled_is_interpreted(value_graph(case), arrays)


@differentiable
def test_vjp_compiled_is_interpreted(case: Case):
    compiled_is_interpreted(*vjp_example(case), tolerance=1e-11)


@richest_differentiable
def test_jvp_compiled_is_interpreted(case: Case):
    pushed = autodiff.jvp(value_graph(case))
    compiled_is_interpreted(pushed, with_directions(pushed, case.inputs()), tolerance=1e-11)


@richest
def test_batched_compiled_is_interpreted(case: Case):
    size = 3
    samples = [case.inputs(seed) for seed in range(size)]
    batched = batching.vmap(value_graph(case), [True] * len(case.shapes), size)
    compiled_is_interpreted(batched, [np.stack(column) for column in zip(*samples, strict=True)])


def awkward(array: np.ndarray) -> list[np.ndarray]:
    """The same values in Fortran order, with negative strides, off their alignment, in the other byte order."""
    misaligned = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    misaligned[...] = array
    return [
        np.array(array, order="F"),
        np.flip(np.flip(array).copy()),
        misaligned,
        array.astype(array.dtype.newbyteorder()),
    ]


@richest
def test_awkward_arrays_give_the_same_bits(case: Case):
    arrays = case.inputs()
    run = Executable(value_graph(case))
    expected = run(*arrays)
    for variant in zip(*map(awkward, arrays), strict=True):
        same_bits(run(*variant), expected)


# -- memory ------------------------------------------------------------------------------------------------------------


class Zones:
    """Arrays inside larger buffers, everything filled with one byte; `check` says that the margins still are."""

    def __init__(self, byte: int):
        self.byte = byte
        self.buffers: list[tuple[np.ndarray, int, int]] = []

    def take(self, nbytes: int, align: int = 0) -> np.ndarray:
        raw = np.full(nbytes + 2 * GUARD + align, self.byte, np.uint8)
        start = GUARD + (-(raw.ctypes.data + GUARD) % align if align else 0)
        self.buffers.append((raw, start, start + nbytes))
        return raw[start : start + nbytes]

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        size = int(np.prod(shape, dtype=np.int64))
        return self.take(size * dtype.itemsize).view(dtype).reshape(shape)

    def copy(self, array: np.ndarray) -> np.ndarray:
        inside = self.array(array.shape, array.dtype)
        inside[...] = array
        return inside

    def check(self) -> None:
        for raw, start, stop in self.buffers:
            assert (raw[:start] == self.byte).all() and (raw[stop:] == self.byte).all()


def nothing_outside_is_touched(graph: Graph, arrays: Sequence[np.ndarray], monkeypatch) -> None:
    """Inputs, outputs, arena and descriptors between guard zones; whatever the zones hold, the bits are the same."""
    results = []
    for byte in (0x00, 0xA5, 0xFF):  # as floats: zero, small, NaN
        zones = Zones(byte)
        monkeypatch.setattr(cpu, "aligned", lambda nbytes, zones=zones: zones.take(nbytes, cpu.ALIGN))
        inside = [zones.copy(a) for a in arrays]
        for array in inside:
            array.flags.writeable = False
        out = [zones.array(a.aval.shape, a.aval.dtype) for a in graph.outputs]
        results.append(Executable(graph)(*inside, out=out))
        assert all(a is b for a, b in zip(results[-1], out, strict=True))
        zones.check()
        same_bits(inside, arrays)
    same_bits(results[1], results[0])
    same_bits(results[2], results[0])


@every
def test_guard_zones(case: Case, monkeypatch):
    nothing_outside_is_touched(value_graph(case), case.inputs(), monkeypatch)


@differentiable
def test_guard_zones_of_the_vjp(case: Case, monkeypatch):
    nothing_outside_is_touched(*vjp_example(case), monkeypatch)


# -- threads -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def all_parallel(monkeypatch):
    """Every row of more than one tile goes to all threads, however small."""
    monkeypatch.setattr(tape, "PARALLEL_NS", 0.0)
    monkeypatch.setattr(tape, "REGION_NS", 0.0)


def parallel_rows(run: Executable) -> int:
    return int(run.program.native.tape.words[abi.N_PARALLEL])


@every
def test_two_threads_give_the_bits_of_one(case: Case, all_parallel):
    arrays = case.inputs()
    graph = value_graph(case)
    same_bits(Executable(graph, threads=2)(*arrays), Executable(graph, threads=1)(*arrays))


@differentiable
def test_two_threads_give_the_bits_of_one_in_the_vjp(case: Case, all_parallel):
    graph, arrays = vjp_example(case)
    same_bits(Executable(graph, threads=2)(*arrays), Executable(graph, threads=1)(*arrays))


def _reduce(op: Callable, axis: int | None) -> Callable:
    return lambda x: op(np.tanh(x) * x, axis=axis)


def _mlp(x, w1, b1, w2, y):
    return F.cross_entropy(np.maximum(x @ w1 + b1, 0) @ w2, y)


CUBE = (33, 65, 17)
LARGE: dict[str, tuple[Callable, tuple[tuple[int, ...], ...]]] = {
    "map": (lambda x, y: np.exp(x) * y + x, ((300, 70), (70,))),
    "map-one-row": (lambda x, y: np.exp(x) * y + x, ((1, 100_003), (1, 1))),
    "sum-0": (_reduce(np.sum, 0), (CUBE,)),
    "sum-1": (_reduce(np.sum, 1), (CUBE,)),
    "sum-2": (_reduce(np.sum, 2), (CUBE,)),
    "sum-all": (_reduce(np.sum, None), ((100_000,),)),
    "max-0": (_reduce(np.max, 0), (CUBE,)),
    "max-all": (_reduce(np.max, None), ((100_000,),)),
    "softmax": (lambda x: F.softmax(x, -1), ((150, 101),)),
    "matmul": (lambda x, y: x @ y, ((131, 70), (70, 97))),
    "matmul-long": (lambda x, y: x @ y, ((20, 1500), (1500, 97))),
    "matmul-batch-T": (lambda x, y: x @ y.mT, ((7, 40, 30), (7, 50, 30))),
}
precisions = pytest.mark.parametrize("dtype", ["f4", "f8"])


def stays_the_same(graph: Graph, arrays: Sequence[np.ndarray], tolerance: float) -> None:
    """One thread and several, again and again: the same bits; and the interpreter's numbers."""
    expected = Executable(graph, threads=1)(*arrays)
    for threads in (2, 3):
        run = Executable(graph, threads=threads)
        assert parallel_rows(run) > 0
        for _ in range(15):
            same_bits(run(*arrays), expected)
    for a, b in zip(expected, evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@precisions
@pytest.mark.parametrize("name", LARGE)
def test_large_arrays_at_any_number_of_threads(name: str, dtype: str, all_parallel):
    fn, shapes = LARGE[name]
    rng = np.random.default_rng(3)
    arrays = [np.asarray(rng.standard_normal(s), dtype) for s in shapes]
    stays_the_same(graph_of(fn, arrays), arrays, 1e-4 if dtype == "f4" else 1e-11)


@precisions
def test_rows_by_index_at_any_number_of_threads(dtype: str, all_parallel):
    rng = np.random.default_rng(4)
    x, rows = np.asarray(rng.standard_normal((50, 3001)), dtype), rng.integers(0, 50, 200)

    def fn(x, rows):
        taken = np.take(x, rows, axis=0)
        return taken, index.scatter_add(taken, rows, 50, 0)

    stays_the_same(graph_of(fn, [x, rows]), [x, rows], 1e-4 if dtype == "f4" else 1e-11)


@precisions
def test_a_network_at_any_number_of_threads(dtype: str, all_parallel):
    rng = np.random.default_rng(5)
    shapes = ((64, 70), (70, 130), (130,), (130, 10))
    arrays = [np.asarray(rng.standard_normal(s) / 4, dtype) for s in shapes] + [rng.integers(0, 10, 64)]
    joint = autodiff.vjp(graph_of(_mlp, arrays), range(4))
    arrays.append(np.ones((), dtype))
    stays_the_same(joint, arrays, 1e-4 if dtype == "f4" else 1e-11)
