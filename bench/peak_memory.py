"""Memory of a training step: what the plan takes, and by how much the resident size of a process grows for a step.

The plan: the bytes of every value in memory of its own ("apart": what fusion has left, parameters, gradients and optimizer
state not counted), the most that one arena for all of them needs ("peak"), the same without the panels that products pack
their operands into, and the arena as it is when gradients lend their memory ("arena").

The growth: each library trains in a process of its own. When code, threads, parameters and optimizer state are there and
free memory has gone back to the system, the resident size is read and its peak reset (``/proc/self/clear_refs``); then
come five steps, and the peak is read. So it holds activations, gradients, temporaries and whatever else a step takes. For
all alike there are no huge pages, and malloc takes arrays of 64 KB and more from the system and gives them back: else the
figure would depend on what lies around from before. PyTorch makes gradients anew in each step, as JAX does; fastgrad
keeps gradients and arena, and its step is therefore prepared but not run before the first reading. Medians over
processes; the system counts pages to about half a megabyte.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import Report, chosen, parser

from fastgrad.bench.contestant import CONTESTANTS
from fastgrad.bench.models import MODELS, Model
from fastgrad.bench.process import Failed, Remote
from fastgrad.bench.timing import private_stdout

NAMES = ("mlp-64-32-10", "mlp-64-128-64-10", "mlp-784-512-512-10", "mlp-1024x3", "vae")
OURS, PEERS = "fastgrad", ("torch", "jax")
STEPS = 5
LIMIT_PERCENT = 60.0
PR_SET_THP_DISABLE, M_MMAP_THRESHOLD = 41, -3
RESOLVED_MIB = 1.0
"""Growth below this is pages here and there (stacks, free lists): no verdict compares it."""


# -- a library's process -----------------------------------------------------------------------------------------------


def _serve(name: str, model: Model, threads: int) -> None:
    tell = private_stdout()
    try:
        _plain_memory()
        prepare = {OURS: _fastgrad, "torch": _torch, "jax": _jax}[name]
        small = replace(model, sizes=tuple(min(n, 16) for n in model.sizes), rows=4)
        for _ in range(2):
            prepare(small, threads)[0]()  # code and threads
        step, figures = prepare(model, threads)
        tell(numbers=[])
        sys.stdin.readline()
        tell(growth=_growth(step), **figures)
    except Exception as error:
        traceback.print_exc()
        tell(failed=f"{type(error).__name__}: {error}".splitlines()[0])


def _plain_memory() -> None:
    """No huge pages; a threshold of malloc that does not move."""
    libc = ctypes.CDLL(None)
    if sys.platform == "linux":
        libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 16)


def _growth(step: Callable[[], Any]) -> float:
    """MiB by which `STEPS` steps raise the resident size above what it was, at most."""
    gc.collect()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    for _ in range(STEPS):
        step()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    """A line of ``/proc/self/status``, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def _fastgrad(model: Model, threads: int) -> tuple[Callable[[], Any], dict[str, float]]:
    import fastgrad as fg
    from fastgrad.bench import with_fastgrad
    from fastgrad.bench.models import batch, parameters

    data = batch(model, np.float32)
    loss = with_fastgrad.vae_loss if model.kind == "vae" else with_fastgrad.mlp_loss
    train = fg.TrainStep(loss, parameters(model, np.float32), fg.optim.Adam(1e-3), threads=threads)
    # Compiled and planned, not run: arena and gradients are there to be touched by the first step.
    train._signature(fg.pytree.flatten(data)[1], data)
    for moments in train.state["optimizer"].values():
        for leaf in fg.pytree.flatten(moments)[0]:
            leaf += 0.0  # the system gives memory when it is written
    plan = train.executable.memory_plan()
    alone, activations = _planned(plan, plan.schedule.steps), _planned(plan, _without_panels(plan))
    gradients = sum(leaf.nbytes for leaf in fg.pytree.flatten(train.grads)[0])
    figures = {"apart": alone.naive_bytes, "peak": alone.arena_bytes}
    figures |= {"arena": plan.arena_bytes, "gradients": gradients}
    figures |= {"activations apart": activations.naive_bytes, "activations": activations.arena_bytes}
    return lambda: train(*data), figures


def _without_panels(plan: Any) -> list[Any]:
    """The steps of a plan when products read their operands where they lie."""
    from fastgrad.schedule import Gemm, Pack

    steps = [s for s in plan.schedule.steps if not isinstance(s, Pack)]
    return [replace(s, packed_a=None, packed_b=None) if isinstance(s, Gemm) else s for s in steps]


def _planned(plan: Any, steps: Sequence[Any]) -> Any:
    """A plan of ``steps`` with an arena that nobody lends to."""
    from fastgrad import memory

    schedule = replace(plan.schedule, steps=tuple(steps))
    places = ([plan.locations[b] for b in buffers] for buffers in (schedule.inputs, schedule.outputs))
    return memory.plan(schedule, *places)


def _torch(model: Model, threads: int) -> tuple[Callable[[], Any], dict[str, float]]:
    import torch

    contestant = _peer("torch", model, threads)
    contestant.rest()  # the fastest optimizer, as where time is measured
    contestant.step()
    gc.collect()
    for found in gc.get_objects():
        if isinstance(found, torch.nn.Parameter):
            found.grad = None
    return contestant.step, {}


def _jax(model: Model, threads: int) -> tuple[Callable[[], Any], dict[str, float]]:
    contestant = _peer("jax", model, threads)
    for _ in range(2):
        contestant.step()  # after the first, parameters and state lie in memory of JAX's own
    return contestant.step, {}


def _peer(name: str, model: Model, threads: int) -> Any:
    entry = CONTESTANTS[name]
    make = getattr(importlib.import_module(f"fastgrad.bench.{entry.file}"), entry.function)
    contestant = make(model, np.float32, threads)
    contestant.step()
    return contestant


# -- all of them -------------------------------------------------------------------------------------------------------


def measure(library: str, model: str, options: Any, failed: dict[str, str]) -> dict[str, float]:
    """The figures of one library, medians over ``--rounds`` processes; empty where it failed."""
    found = []
    for _ in range(options.rounds):
        try:
            arguments = [__file__, "--contestant", library, model, str(options.threads)]
            remote = Remote(arguments, threads=options.threads)
            with_it = remote.ask("measure")
            remote.close()
        except Failed as error:
            failed[f"{CONTESTANTS[library].title}, {model}"] = str(error)
            return {}
        found.append(with_it)
    return {key: median(f[key] for f in found) for key in found[0]}


def row(model: str, libraries: list[str], options: Any, failed: dict[str, str]) -> dict[str, Any]:
    """One model as cells of a table: bytes in KiB, growth in MiB."""
    grown = {name: measure(name, model, options, failed) for name in libraries}
    ours = grown[OURS]
    cells: dict[str, Any] = {"model": MODELS[model].title}
    for head, peak, apart in (("", "peak", "apart"), ("activations ", "activations", "activations apart")):
        cells[f"{head}apart KiB"] = ours[apart] / 1024
        cells[f"{head}peak KiB"] = ours[peak] / 1024
        cells[f"{head}%"] = 100 * ours[peak] / ours[apart]
    cells["arena KiB"] = ours["arena"] / 1024
    cells["gradients KiB"] = ours["gradients"] / 1024
    return cells | {f"{CONTESTANTS[n].title} grows MiB": grown[n].get("growth") for n in libraries}


def main() -> None:
    """Measure and print."""
    it = parser(__doc__, threads=2, rounds=3)
    it.add_argument("--quick", action="store_true", help="one small model, once")
    it.add_argument("--only", nargs="+", metavar="WORD", help="only models whose name holds one of these")
    it.add_argument("--without", nargs="+", default=[], metavar="LIBRARY", help="leave out peers: torch, jax")
    options = it.parse_args()
    if options.quick:
        options.rounds, options.only = 1, options.only or ["mlp-64-32-10"]
    here = [n for n in PEERS if n not in options.without and importlib.util.find_spec(n)]
    libraries = [OURS, *here]
    with Report("memory of a training step, Adam", options, dtype="float32", packages=PEERS) as report:
        failed: dict[str, str] = {}
        rows = [row(name, libraries, options, failed) for name in chosen(NAMES, options)]
        report.table("bytes", rows, "peak / apart in %; activations: without the panels of packed operands")
        for place, why in failed.items():
            print(f"  {place}: failed: {why}")
        for found in rows:
            report.verdict(found["model"], found["%"], LIMIT_PERCENT, "%")
        for found in rows:
            for name in here:
                _compare(report, found, name)


def _compare(report: Report, found: dict[str, Any], name: str) -> None:
    """Our peak, then our growth with gradients and all, against the growth of a peer."""
    theirs, ours = (found[f"{CONTESTANTS[n].title} grows MiB"] for n in (name, OURS))
    if theirs is None or max(theirs, ours) < RESOLVED_MIB:
        return
    title = CONTESTANTS[name].title
    report.verdict(
        f"{found['model']}: peak against growth of {title}", found["peak KiB"] / 1024, theirs, " MiB"
    )
    report.verdict(f"{found['model']}: growth against growth of {title}", ours, theirs, " MiB")


if __name__ == "__main__":
    if "--contestant" in sys.argv:
        with suppress(BrokenPipeError):
            library, network, count = sys.argv[-3:]
            _serve(library, MODELS[network], int(count))
    else:
        main()
