"""The contestant's side of a measurement: what a contestant is, how its calls are timed, how it answers its parent."""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

MORE_STEPS = 3
"""Steps after the first whose losses are told as well, at a real learning rate."""


@dataclass
class Contestant:
    """``step()`` is one step: it returns the loss, or value and gradient. ``rest()`` is called before rounds begin: it
    sets the learning rate to `models.RESTING_RATE`, may choose the faster of variants, and says what it chose."""

    step: Callable[[], Any]
    rest: Callable[[], str | None] = lambda: None


def timed(call: Callable[[], Any], seconds: float) -> float:
    """Microseconds a call: the mean over about ``seconds``, after a tenth of that unmeasured."""
    count, start = 0, perf_counter()
    while (spent := perf_counter() - start) < seconds / 10:
        call()
        count += 1
    trips = max(1, round(seconds * count / spent))
    start = perf_counter()
    for _ in repeat(None, trips):
        call()
    return (perf_counter() - start) / trips * 1e6


def numbers(result: Any) -> list[float]:
    """What must agree among contestants: a loss, or a value and the sum of the gradient's magnitudes."""
    value, *gradient = result if isinstance(result, tuple) else (result,)
    return [float(value), *(float(np.abs(np.asarray(g, np.float64)).sum()) for g in gradient)]


def peak_mib() -> float | None:
    """Largest resident size of this process so far, in MiB; None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent had when it started this process
        found = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(found[0]) / 2**10 if found else None
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def private_stdout() -> Callable[..., None]:
    """``tell(**what)``, one JSON line each to the parent; whatever else is printed, from C as well, goes to stderr."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    def tell(**what: Any) -> None:
        print(json.dumps(what), file=pipe, flush=True)

    return tell


def serve(make: Callable[[], Contestant]) -> None:
    """The contestant's side of `process.Remote`: ``make()`` imports and sets up, then its first step is taken.

    Tells the first step's numbers as soon as they are there (the parent's clock stops then), and answers to the words
    ``more`` (numbers of further steps), ``rest``, ``round SECONDS`` (microseconds a step) and ``peak`` (MiB).
    """
    tell = private_stdout()
    try:
        contestant = make()
        tell(numbers=numbers(contestant.step()))
        for line in sys.stdin:
            tell(**_answer(contestant, *line.split()))
    except Exception as error:  # whatever a library raises is its cell in the report, not the end of the run
        traceback.print_exc()
        tell(failed=f"{type(error).__name__}: {error}".splitlines()[0])


def _answer(contestant: Contestant, word: str, argument: str = "") -> dict[str, Any]:
    if word == "more":
        return {"numbers": [x for _ in range(MORE_STEPS) for x in numbers(contestant.step())]}
    if word == "rest":
        note = contestant.rest()
        gc.collect()
        return {"note": note}
    if word == "round":
        return {"us": timed(contestant.step, float(argument))}
    return {"mib": peak_mib()}
