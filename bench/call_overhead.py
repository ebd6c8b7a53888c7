"""What a call of a compiled function costs beyond its kernels, what a row of its tape costs, what a new batch size compiles.

Kernels alone: the same workspace run again and again by its C entry from a compiled loop, with no Python in between.
The function adds up its arrays of four elements, so that the kernels are as small as kernels get. For the rows, four
elements are divided by their sum again and again: two rows each time.
"""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import Callable, Sequence
from functools import cache, partial
from operator import itemgetter
from typing import Any

import numpy as np
from common import NETWORKS, Report, batch, loss, parameters, parser
from numba import njit

import fastgrad as fg
from fastgrad.bench.process import Local, compete
from fastgrad.bench.timing import timed
from fastgrad.codegen import compile as compiler
from fastgrad.codegen.abi import DONE
from fastgrad.codegen.runtime import runtime
from fastgrad.executor.cpu import ALLOWANCE_NS, Workspace

COUNTS = (1, 2, 4, 8, 16, 32, 64)
TRIPS = (1, 4, 16, 64, 256)
BATCHES = (32, 1, 7, 128)
CALL_LIMIT, ARRAY_LIMIT, ROW_LIMIT = 3.0, 0.1, 20.0


def total(*arrays: Any) -> Any:
    """The sum of all arrays, twice."""
    out = arrays[0]
    for array in arrays[1:]:
        out = out + array
    return out * 2.0


def total_of_tree(tree: dict[str, Any]) -> Any:
    """The same for arrays in a dict."""
    return total(*tree.values())


def doubles(*arrays: Any) -> tuple:
    """As many results as arguments."""
    return tuple(array * 2.0 for array in arrays)


@cache
def native_loop() -> Callable[..., int]:
    """``loop(trips, pc, *arguments)`` runs a workspace ``trips`` times from its start; the sum of what it answered."""
    run = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 6)(runtime().run)

    @njit
    def loop(trips, pc, plan, words, inputs, outputs, pc_at, allowance):  # type: ignore[no-untyped-def]
        status = 0
        for _ in range(trips):
            pc[0] = 0
            status += run(plan, words, inputs, outputs, pc_at, allowance)
        return status

    return loop


def kernels_us(workspace: Workspace, seconds: float) -> float:
    """Microseconds of one native run of a workspace whose pointer tables are filled."""
    loop, trips = native_loop(), 100
    arguments = (trips, workspace.pc, *workspace.arguments, ALLOWANCE_NS)
    assert loop(*arguments) == DONE, "the run fails or pauses"
    return timed(lambda: loop(*arguments), seconds) / trips


def overhead(
    call: Callable[[], Any], kernels: Callable[[], float], options: argparse.Namespace
) -> dict[str, Any]:
    """Medians of the whole call and of its kernels, taken in turns."""
    pairs = [(timed(call, options.seconds), kernels()) for _ in range(options.rounds)]
    whole, alone = (float(np.median(side)) for side in zip(*pairs, strict=True))
    return {"call us": whole, "kernels us": alone, "beyond us": whole - alone}


def of_jitted(f: Callable, arguments: Sequence[Any], options: argparse.Namespace) -> dict[str, Any]:
    """`overhead` of ``fg.jit(f)(*arguments)``; ``f`` may be jitted already."""
    jitted = f if hasattr(f, "compile") else fg.jit(f, threads=1)
    result = jitted(*arguments)
    leaves = [leaf for a in arguments for leaf in (a.values() if isinstance(a, dict) else [a])]
    executable = jitted.compile(*arguments)
    workspace = executable._pool.take()
    outputs = [np.empty(aval.shape, aval.dtype) for aval in executable.outputs]
    assert (
        workspace.entry(*leaves, *outputs) is None
    )  # fills the tables of pointers; the arrays stay alive here
    assert np.array_equal(outputs[0], result[0] if isinstance(result, tuple) else result)
    return overhead(lambda: jitted(*arguments), lambda: kernels_us(workspace, options.seconds), options)


def of_step(options: argparse.Namespace) -> dict[str, Any]:
    """`overhead` of a training step of the smallest network."""
    sizes, rows = NETWORKS["64-32-10 b32"]
    x, labels = batch(sizes, rows)
    step = fg.TrainStep(loss, parameters(sizes), fg.optim.Adam(1e-8), threads=1)
    step(x, labels)
    signature = step._hot
    assert signature is not None and signature.workspace is not None
    held = [np.empty(shape, dtype) for shape, dtype in signature._fresh]
    assert signature.workspace.entry(x, labels, *held) is None
    workspace = signature.workspace
    # Each step hands over a fresh array for the loss: the table is filled again before the kernels run alone.
    return overhead(
        lambda: step(x, labels),
        lambda: (workspace.entry(x, labels, *held), kernels_us(workspace, options.seconds))[1],
        options,
    )


def normalised(x: Any, trips: int) -> Any:
    """x over its sum, ``trips`` times: nothing of it fuses into one loop."""
    for _ in range(trips):
        x = x / np.sum(x)
    return x


def tape_rows(report: Report, options: argparse.Namespace) -> None:
    """The run alone, without Python, against the rows of its tape."""
    rows, x = [], np.ones(4)
    for trips in TRIPS:
        jitted = fg.jit(partial(normalised, trips=trips), threads=1)
        found = of_jitted(jitted, [x], options)
        count = len(jitted.compile(x).program.native.tape.sources)
        rows.append({"rows": count} | found | {"ns a row": found["kernels us"] * 1e3 / count})
    report.table("a run against the rows of its tape (float64[4], kernels included)", rows)
    slope = np.polyfit([row["rows"] for row in rows], [row["kernels us"] for row in rows], 1)[0]
    report.verdict("each row more", 1e3 * float(slope), ROW_LIMIT, " ns")
    print()


def into_arrays(report: Report, options: argparse.Namespace) -> None:
    """``jitted(x)``, its executable, and the executable with ``out=``."""
    rows = []
    for n in (4, 4096):
        x = np.ones(n)
        jitted, out = fg.jit(doubles, threads=1), [np.empty(n)]
        executable = jitted.compile(x)
        contestants = {
            "jitted(x)": lambda f=jitted, x=x: f(x),
            "executable(x)": lambda f=executable, x=x: f(x),
            "executable(x, out=)": lambda f=executable, x=x, out=out: f(x, out=out),
            "np.multiply(x, 2, out=)": lambda x=x, out=out: np.multiply(x, 2.0, out=out[0]),
        }
        times = compete(
            {name: Local(call) for name, call in contestants.items()}, options.rounds, options.seconds
        )
        rows.append({"elements": n} | {f"{name} us": t["median"] for name, t in times.items()})
    report.table("results fresh and given (float64)", rows)


def calls(report: Report, options: argparse.Namespace) -> None:
    """The table of overheads."""
    rows = []
    for count in COUNTS:
        arrays = [np.full(4, float(i)) for i in range(count)]
        tree = {f"x{i}": array for i, array in enumerate(arrays)}
        rows.append({"call": "f(x, ...)", "in": count, "out": 1} | of_jitted(total, arrays, options))
        rows.append({"call": "f({...})", "in": count, "out": 1} | of_jitted(total_of_tree, [tree], options))
        rows.append({"call": "as many out", "in": count, "out": count} | of_jitted(doubles, arrays, options))
    rows.sort(key=itemgetter("call"), reverse=True)
    rows.append({"call": "TrainStep 64-32-10", "in": 2, "out": 1} | of_step(options))
    report.table("a call beyond its kernels (float64[4] each)", rows)
    for kind in ("f(x, ...)", "f({...})", "as many out"):
        mine = [(row["in"] + row["out"] - 1, row["beyond us"]) for row in rows if row["call"] == kind]
        report.verdict(f"{kind}: up to 4 arrays", max(us for n, us in mine if n <= 4), CALL_LIMIT, " us")
        slope = np.polyfit(*zip(*[pair for pair in mine if pair[0] >= 4], strict=True), 1)[0]
        report.verdict(f"{kind}: each array more", float(slope), ARRAY_LIMIT, " us")
    report.verdict("TrainStep", rows[-1]["beyond us"], CALL_LIMIT, " us")
    print()


def new_batches(report: Report) -> None:
    """How many kernels each batch size adds to those that the process knows."""
    rows = []
    for network, (sizes, _) in NETWORKS.items():
        params = parameters(sizes)
        for name, f in {
            "jit(loss)": lambda x, labels, p=params: fg.jit(loss)(p, x, labels),
            "value_and_grad(loss)": lambda x, labels, p=params: fg.value_and_grad(loss)(p, x, labels),
            "TrainStep": fg.TrainStep(loss, params, fg.optim.Adam(1e-8)),
        }.items():
            row: dict[str, Any] = {"function": f"{name} {network.split()[0]}"}
            for size in BATCHES:
                before = compiler.fetched()
                f(*batch(sizes, size))
                row[f"batch {size}"] = compiler.fetched() - before
            rows.append(row)
    report.table(
        "kernels compiled at each batch size, in this order", rows, "after the first column: only zeros"
    )
    more = sum(row[f"batch {size}"] for row in rows for size in BATCHES[1:])
    report.verdict(f"kernels compiled for new batch sizes (of {compiler.fetched()})", more, 0)


def main() -> None:
    """Measure and print."""
    it = parser(__doc__, rounds=5, seconds=0.03)
    it.add_argument("--quick", action="store_true", help="short rounds and no networks: seconds in all")
    options = it.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 0.002
    with Report("cost of a call", options, dtype="float64 (calls), float32 (networks)") as report:
        calls(report, options)
        tape_rows(report, options)
        into_arrays(report, options)
        if not options.quick:
            new_batches(report)


if __name__ == "__main__":
    main()
