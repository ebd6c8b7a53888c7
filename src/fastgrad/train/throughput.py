"""Steps per second of a TrainStep, with the time of its first run told apart."""

from __future__ import annotations

from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

_MAX_STEPS_A_RUN = 50
_MIN_RUNS = 3


class Throughput(NamedTuple):
    """`steps_per_s` is that of the median run; `compile_s` what the first run took beyond it (tracing, compiling)."""

    steps_per_s: float
    compile_s: float


def throughput(
    step: Any, x: np.ndarray, y: np.ndarray, batch_size: int, seed: int, seconds: float
) -> Throughput:
    """Measure `step.run`, one epoch a run over at most 50 batches of x[n, ...], y[n], for about `seconds`.

    Pass a step that was not run yet; it is trained by the measurement. The first run holds all the tracing and
    compiling, also that of a shorter last batch; at least three more follow.
    """
    part = (
        len(x)
        if len(x) <= _MAX_STEPS_A_RUN * batch_size
        else (_MAX_STEPS_A_RUN - 1) * batch_size + len(x) % batch_size
    )
    x, y = x[:part], y[:part]
    first, steps = _timed_run(step, x, y, batch_size, seed)
    times: list[float] = []
    while len(times) < _MIN_RUNS or sum(times) < seconds:
        times.append(_timed_run(step, x, y, batch_size, seed + 1 + len(times))[0])
    typical = float(np.median(times))
    return Throughput(steps / typical, max(first - typical, 0.0))


def _timed_run(step: Any, x: np.ndarray, y: np.ndarray, batch_size: int, seed: int) -> tuple[float, int]:
    start = perf_counter()
    losses = step.run(x, y, batch_size=batch_size, epochs=1, shuffle=seed)
    return perf_counter() - start, len(losses)
