"""Races over many cases: a library has one process, which sets up case after case; rounds alternate within each.

A script names for each library a function ``setup(threads)`` that imports it and returns ``case -> call``, or
``case -> (call, result)`` where the first result is another than later ones. Run with
``--contestant LIBRARY THREADS`` the script serves that library, pinned to as many cores as threads; run without, it starts
one such process a library. Results of first calls must agree before anything is timed.
"""

from __future__ import annotations

import gc
import importlib.util
import math
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from fastgrad.bench.process import Failed, Remote, compete
from fastgrad.bench.timing import private_stdout, timed

Setup = Callable[[int], Callable[[str], Any]]
OURS = "fastgrad"
COPY = "copy"
"""Who takes part to show what the machine can do, under the same conditions."""
TITLES = {
    "fastgrad": "fastgrad",
    "fastgrad-bfloat16": "fastgrad bfloat16",
    "numpy": "NumPy",
    "torch": "PyTorch",
    "torch-compile": "torch.compile",
    "jax": "JAX",
    COPY: "a copy",
}
LIMIT_S = 300.0
SAMPLES = 2**18
"""Elements of each result that are compared at least, where it has so many."""


class Disagreement(SystemExit):
    """Libraries compute different numbers: nothing that was timed means anything."""


# -- the contestant's side ---------------------------------------------------------------------------------------------


def serving(contestants: Mapping[str, Setup]) -> bool:
    """Whether this process was started to serve one of the contestants; if so, it has done so when this returns."""
    if "--contestant" not in sys.argv:
        return False
    name, threads = sys.argv[-2:]
    _serve(contestants[name], int(threads))
    return True


def _serve(setup: Setup, threads: int) -> None:
    """Answers ``case NAME`` (what its first call gave, and seconds to set up and call) and ``round SECONDS``."""
    tell = private_stdout()
    try:
        make = setup(threads)
    except Exception as error:  # whatever a library raises is said in the report, not the end of the run
        traceback.print_exc()
        tell(failed=_line(error))
        return
    tell(numbers=[])
    call: Callable[[], Any] | None = None
    for line in sys.stdin:
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "round":
            assert call is not None
            tell(us=timed(call, float(rest)))
            continue
        call = None
        gc.collect()
        try:
            start = perf_counter()
            made = make(rest)
            call, result = made if isinstance(made, tuple) else (made, made())
            tell(s=perf_counter() - start, numbers=fingerprint(result))
        except Exception as error:
            traceback.print_exc()
            tell(failed=_line(error))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def fingerprint(result: Any) -> list[float]:
    """For each array of a result the sum of magnitudes and a sum with weights in [-1, 1], which tells places, of samples."""
    found = []
    for leaf in _leaves(result):
        array = leaf.detach().float() if str(getattr(leaf, "dtype", "")) == "torch.bfloat16" else leaf
        array = array.detach() if hasattr(array, "detach") else array
        flat = np.asarray(array).ravel()
        flat = flat[:: max(1, flat.size // SAMPLES)].astype(np.float64)
        found += [float(np.abs(flat).sum()), float(np.sin(np.arange(flat.size)) @ flat)]
    return found


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in _leaves(tree[key])]
    return [leaf for part in tree for leaf in _leaves(part)] if isinstance(tree, list | tuple) else [tree]


def torch_on(threads: int) -> Any:
    """PyTorch with so many threads."""
    import torch

    torch.set_num_threads(threads)
    return torch


def jax_on() -> Any:
    """JAX; arrays keep the dtype that they have, float64 included."""
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


# -- the race ----------------------------------------------------------------------------------------------------------


class Race:
    """The libraries that are here, each in its process; a context manager. ``absent`` says who is not, and why."""

    def __init__(self, script: str, libraries: Sequence[str], threads: int, options: Namespace):
        self.threads, self.options = threads, options
        self.failed: dict[str, str] = {}
        self.absent: dict[str, str] = {}
        self._remotes: dict[str, Remote] = {}
        for name in libraries:
            package = name.partition("-")[0]
            if name in (getattr(options, "without", None) or ()):
                continue
            if name != COPY and importlib.util.find_spec(package) is None:
                self.absent[name] = f"{package} is not installed"
                continue
            try:
                self._remotes[name] = Remote(
                    [script, "--contestant", name, str(threads)], threads=threads, limit_s=LIMIT_S
                )
            except Failed as error:
                self.absent[name] = str(error)
        for name, why in self.absent.items():
            print(f"{TITLES[name]} does not take part: {why}", flush=True)

    @property
    def libraries(self) -> list[str]:
        """Who takes part."""
        return list(self._remotes)

    def __enter__(self) -> Race:
        return self

    def __exit__(self, *_: Any) -> None:
        for remote in self._remotes.values():
            remote.close()

    def run(self, case: str, within: float) -> tuple[dict[str, float], dict[str, float]]:
        """Median microseconds a call (``--best``: the fastest round's), and seconds of set-up and first call, by library.

        ``within`` is the distance allowed between results, relative to the sum of their magnitudes. A library that fails
        is left out, its reason in ``failed``. Raises `Disagreement`.
        """
        numbers, setup = {}, {}
        for name, remote in self._remotes.items():
            try:
                answer = remote.ask(f"case {case}")
            except Failed as error:
                self.failed[f"{TITLES[name]}, {case}"] = str(error)
                continue
            numbers[name], setup[name] = answer["numbers"], answer["s"]
        agree(case, numbers, within)
        alive = {name: self._remotes[name] for name in numbers}
        failed: dict[str, str] = {}
        times = compete(alive, self.options.rounds, self.options.seconds, failed)
        self.failed |= {f"{TITLES[name]}, {case}": why for name, why in failed.items()}
        which = "min" if self.options.best else "median"
        return {name: t[which] for name, t in times.items()}, setup

    def print_failures(self) -> None:
        """One line for each reason, with the cases that have it counted."""
        reasons: dict[tuple[str, str], int] = {}
        for place, why in self.failed.items():
            key = place.partition(",")[0], why
            reasons[key] = reasons.get(key, 0) + 1
        for (name, why), count in reasons.items():
            print(f"  {name} failed in {count} case{'s' * (count > 1)}: {why}")


def agree(case: str, numbers: Mapping[str, list[float]], within: float) -> None:
    """Compare the `fingerprint` of everybody with that of the first. Raises `Disagreement`."""
    first, *others = [name for name in numbers if name != COPY] or [None]
    if first is None:
        return
    for other in others:
        pairs = list(zip(numbers[first], numbers[other], strict=True))
        for i in range(0, len(pairs), 2):
            scale = abs(pairs[i][0])
            for a, b in pairs[i : i + 2]:
                if not abs(a - b) <= within * scale + 1e-30:  # a NaN disagrees as well
                    raise Disagreement(f"{case}: {first} has {a!r} and {other} {b!r}")


def row(
    race: Race, case: str, within: float, work: float, unit: str, most: float | None = None
) -> dict[str, Any]:
    """One case as cells of a table: ``work / us / 1000`` of each library (its ``unit`` a second), fastgrad's in percent
    of ``most`` and of a copy that takes part, and how many times as long as fastgrad each peer takes."""
    times, setup = race.run(case, within)
    rates = {name: work / us / 1e3 for name, us in times.items()}
    found: dict[str, Any] = {f"{name} {unit}": rates.get(name) for name in race.libraries}
    if most is not None:
        found["% of bound"] = 100 * rates[OURS] / most if OURS in rates else None
    if COPY in race.libraries:
        found["% of copy"] = 100 * rates[OURS] / rates[COPY] if {OURS, COPY} <= rates.keys() else None
    for name in race.libraries:
        if name not in (OURS, COPY):
            both = name in times and OURS in times
            found[f"{name}/ours"] = times[name] / times[OURS] if both else None
    return found | {"compile s": setup.get(OURS)}


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers; NaN of none."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def standing(report: Any, rows: Mapping[str, Mapping[str, Any]], worst: int = 6) -> dict[str, float]:
    """Against each peer the cases where fastgrad is ahead, the geometric mean of ``peer / fastgrad``, the worst cases.

    Returns the percentage of cases that fastgrad is ahead in, by peer.
    """
    heads = dict.fromkeys(head for found in rows.values() for head in found if head.endswith("/ours"))
    lines, ahead = [], {}
    for head in heads:
        ratios = {case: found[head] for case, found in rows.items() if found.get(head) is not None}
        if not ratios:
            continue
        name, values = head.removesuffix("/ours"), list(ratios.values())
        low = sorted(ratios, key=lambda case: ratios[case])[:worst]
        ahead[name] = 100 * sum(v >= 1 for v in values) / len(values)
        lines.append(
            {
                "against": TITLES[name],
                "cases": len(values),
                "ahead": f"{ahead[name]:.0f}%",
                "mean ratio": geometric_mean(values),
                "worst (peer's time / fastgrad's)": ", ".join(f"{case}: {ratios[case]:.2f}" for case in low),
            }
        )
    if lines:
        report.table("where fastgrad stands", lines)
    return ahead
