"""The second part of a training step: the optimizer's update as a graph over the flat buffers of the state."""

from __future__ import annotations

from typing import Any

import numpy as np

from .core.aval import Aval
from .core.graph import Graph
from .memory import Location
from .optimizer import Optimizer
from .state import COUNT, State
from .trace import trace


def trace_update(optimizer: Optimizer, state: State) -> Graph:
    """Parameters, gradients and slots of each dtype to new parameters and slots, then the scalars.

    After them the new model state, which takes the old one's place, and the count of steps, which grows by one.
    """
    dtypes, counted = state.dtypes("params"), [Aval((), np.dtype(np.int64))] * (COUNT in state)
    names = ("params", "grads", *optimizer.slots)

    def update(*values: Any) -> list[Any]:
        given = iter(values)
        buffers = {(name, d): next(given) for d in dtypes for name in names}
        scalars = optimizer.advance({name: next(given) for name in optimizer.scalars})
        outputs = []
        grads = optimizer.scaled([buffers["grads", d] for d in dtypes], scalars)
        for d, g in zip(dtypes, grads, strict=True):
            slots = {name: buffers[name, d] for name in optimizer.slots}
            p, new = optimizer.update(buffers["params", d], g, slots, scalars)
            outputs += [p, *(new[name] for name in optimizer.slots)]
        staged = [next(given) for _ in state.dtypes("staged")]
        return [*outputs, *(scalars[name] for name in optimizer.advances), *staged, *(n + 1 for n in given)]

    avals = [Aval((state.size("params", d),), d) for d in dtypes for _ in names]
    avals += [Aval((), np.dtype(np.float64))] * len(optimizer.scalars)
    avals += [Aval((state.size("staged", d),), d) for d in state.dtypes("staged")]
    return trace(update, avals + counted, name="update")


def update_places(optimizer: Optimizer, state: State) -> tuple[list[Location], list[Location]]:
    """Where the inputs and outputs of that graph lie."""
    scalars = [state.scalar_place(name) for name in optimizer.scalars]
    advanced = [state.scalar_place(name) for name in optimizer.advances]
    dtypes, kept = state.dtypes("params"), state.dtypes("model")
    inputs = [state.place(name, d) for d in dtypes for name in ("params", "grads", *optimizer.slots)]
    outputs = [state.place(name, d) for d in dtypes for name in ("params", *optimizer.slots)]
    count = [state.scalar_place(COUNT)] if COUNT in state else []
    return (
        [*inputs, *scalars, *(state.place("staged", d) for d in kept), *count],
        [*outputs, *advanced, *(state.place("model", d) for d in kept), *count],
    )
