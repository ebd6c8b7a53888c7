"""Kernel text as plain Python: each tape runs on the twins of the intrinsics and gives what NumPy and machine code give."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import pytest

from cases import CASES, Case
from fastgrad import autodiff, memory, passes
from fastgrad.codegen import abi, past, toolchain
from fastgrad.codegen.packing import packed
from fastgrad.core.aval import aval_of
from fastgrad.core.graph import Graph
from fastgrad.executor import tape
from fastgrad.executor.cpu import aligned
from fastgrad.executor.executable import Executable
from fastgrad.memory import Location
from fastgrad.nn import functional as F
from fastgrad.schedule import schedule
from fastgrad.trace import trace


def tape_of(graph: Graph) -> tape.Tape:
    """The tape of ``graph``, nothing compiled."""
    steps = packed(schedule(graph))
    inputs = [Location("input", i) for i in range(len(steps.inputs))]
    outputs = [Location("output", i) for i in range(len(steps.outputs))]
    return tape.build([tape.Segment(memory.plan(steps, inputs, outputs))], threads=1)


def descriptors(
    built: tape.Tape, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], arena
) -> np.ndarray:
    """The descriptor words with every address in place, as a workspace and `run` put them there."""
    plan = built.words
    words = plan[plan[abi.WORDS_AT] :][: plan[abi.N_WORDS]].copy()
    bases = {
        abi.ARENA: [arena.ctypes.data],
        abi.INPUT: [a.ctypes.data for a in inputs],
        abi.OUTPUT: [a.ctypes.data for a in outputs],
    }
    relocs = plan[plan[abi.RELOCS_AT] :][: abi.RELOC * plan[abi.N_RELOCS]].reshape(-1, abi.RELOC)
    for word, space, number, offset in relocs:
        words[word] = bases[int(space)][number] + offset
    return words


def turn(plan: np.ndarray, words: np.ndarray, row: np.ndarray, i: int) -> int:
    """The row after row ``i``, which is no kernel: `abi` in Python."""
    kind, target, word, trips = (int(row[k]) for k in (abi.KIND, abi.TARGET, abi.COUNTER, abi.TRIPS))
    block = plan[plan[abi.BLOCKS_AT] + row[abi.BLOCK] :]
    if kind == abi.LOOP:
        words[word] = 0
        return i + 1 if trips > 0 else target
    if kind == abi.NEXT:
        words[word] += 1
        count = int(words[word])
        for moved, by, in_turn in block[1 : 1 + abi.MOVE * block[0]].reshape(-1, abi.MOVE):
            if in_turn:
                step = 1 if count % 2 else -1
                back = -((trips - 1) % 2)
            else:
                step, back = 1, 1 - trips
            words[moved] += by * (step if count < trips else back)
        return target if count < trips else i + 1
    if kind == abi.BRANCH:
        number = ctypes.c_int64 if row[abi.TILES] == 8 else ctypes.c_bool
        chosen = int(number.from_address(int(words[word])).value)
        return int(block[1 + min(max(chosen, 0), int(block[0]) - 1)])
    return target


def run_in_python(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """``graph`` (after the passes) row by row with the JIT off; each row in two pieces, the later tiles first."""
    built = tape_of(graph)
    inputs = [np.ascontiguousarray(a) for a in (*arrays, *(value for _, value in graph.captured))]
    outputs = [np.empty(a.aval.shape, a.aval.dtype) for a in graph.outputs]
    arena = aligned(built.arena_bytes)
    words = descriptors(built, inputs, outputs, arena)
    rows = built.words[abi.HEADER :][: abi.ROW * built.words[abi.N_ROWS]].reshape(-1, abi.ROW)
    with np.errstate(all="ignore"):
        i = 0
        while i < len(rows):
            row = rows[i]
            if row[abi.KIND] >= abi.LOOP:
                i = turn(built.words, words, row, i)
                continue
            i += 1
            kernel = toolchain.define(built.texts[row[abi.KERNEL]], jit=False)
            desc, tiles = words.ctypes.data + 8 * int(row[abi.DESC]), int(row[abi.TILES])
            assert kernel(desc, tiles // 2, tiles) == 0
            assert kernel(desc, 0, tiles // 2) == 0
    return outputs


def graph_of(case: Case) -> Graph:
    arrays = case.inputs()
    return passes.run(trace(lambda *xs: [case.fn(*xs)], [aval_of(a) for a in arrays], name=case.name))


def close(got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    for a, b in zip(got, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        tolerance = 1e-6 if b.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_python_kernels_are_numpy(case: Case):
    arrays = case.inputs()
    close(run_in_python(graph_of(case), arrays), [case.oracle(*arrays)])


def test_results_past_the_cache(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(past, "STREAM_BYTES", 1)
    monkeypatch.setattr(past, "STRETCH_BYTES", 1)
    x = np.arange(3 * 70.0).reshape(3, 70)
    graph = passes.run(trace(lambda x: [x + x[0], x > 5.0], [aval_of(x)]))
    assert any("stream1(" in text for text in tape_of(graph).texts)
    close(run_in_python(graph, [x]), [x + x[0], x > 5.0])


def _first_rows() -> list[Case]:
    """The first row of each op."""
    rows: dict[str, Case] = {}
    for case in CASES:
        rows.setdefault(case.name.split("-")[0], case)
    return list(rows.values())


@pytest.mark.parametrize("case", _first_rows(), ids=lambda case: case.name)
def test_python_kernels_are_the_compiled_kernels(case: Case):
    graph, arrays = graph_of(case), case.inputs()
    close(run_in_python(graph, arrays), Executable(graph)(*arrays))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_network_forward_and_backward(dtype: str):
    rng = np.random.default_rng(0)
    shapes = ((5, 4), (4, 6), (6,), (6, 3))
    arrays = [np.asarray(rng.standard_normal(s), dtype) for s in shapes] + [rng.integers(0, 3, 5)]

    def loss(x, w1, b1, w2, y):
        return [F.cross_entropy(np.tanh(x @ w1 + b1) @ w2, y)]

    joint = passes.run(autodiff.vjp(trace(loss, [aval_of(a) for a in arrays]), range(4)))
    arrays.append(np.ones((), dtype))
    close(run_in_python(joint, arrays), Executable(joint)(*arrays))


def test_an_index_out_of_bounds_is_a_status():
    case = next(c for c in CASES if c.name == "check_index")
    with pytest.raises(AssertionError, match="1 == 0"):
        run_in_python(graph_of(case), [np.array([0, 1, 2, 3])])
