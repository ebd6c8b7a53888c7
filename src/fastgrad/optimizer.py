"""What `TrainStep` asks of an optimizer."""

from __future__ import annotations

import math
from typing import Any

from .errors import ArgumentError

State = dict[str, Any]


class Optimizer:
    """``update`` maps flat parameters, gradient and state to new ones; every hyper-parameter is a scalar of the state.

    ``slots`` names arrays shaped like the parameters (zeros at first); ``scalars`` gives float64 scalars and their first
    values, to be read and set while training (``step.state["optimizer"]["lr"][...] = 1e-4``).
    """

    slots: tuple[str, ...] = ()
    advances: tuple[str, ...] = ()
    """Scalars that `advance` changes; the others are written by the user alone."""

    @property
    def scalars(self) -> dict[str, float]:
        """Names and first values of the scalars."""
        raise TypeError(f"{type(self).__name__} defines no scalars")

    def advance(self, scalars: State) -> State:
        """Once a step, before ``update``: the scalars of this step (a step count grows here); names in ``advances``."""
        return scalars

    def update(self, p: Any, g: Any, slots: State, scalars: State) -> tuple[Any, State]:
        """New parameters and slots from flat ``p`` and ``g`` of one dtype; ``scalars`` as `advance` left them."""
        raise TypeError(f"{type(self).__name__} defines no update")


def check(name: str, value: Any, low: float = 0.0, high: float = math.inf) -> float:
    """``value`` as a float if it lies in ``[low, high)``."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number < high:
        raise ArgumentError(f"{name} must lie in [{low}, {high}), got {value!r}")
    return number
