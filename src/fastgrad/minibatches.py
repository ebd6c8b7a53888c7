"""What a training step is fed: arrays of examples, checked before the first update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .core.aval import aval_of
from .core.graph import Graph, Var
from .errors import OutOfBoundsError, ShapeError


def batch_array(value: Any) -> np.ndarray:
    array = np.asarray(value)
    aval_of(array)
    return array


def common_length(data: Sequence[np.ndarray]) -> int:
    if not data or any(a.ndim == 0 for a in data):
        raise ShapeError("TrainStep.run: takes at least one array, each with a first axis of examples")
    lengths = [len(a) for a in data]
    if len(set(lengths)) > 1:
        raise ShapeError(f"TrainStep.run: arrays differ in their number of examples, got {lengths}")
    if not lengths[0]:
        raise ShapeError("TrainStep.run: empty data, got 0 examples")
    return lengths[0]


def check_rows(graph: Graph, data: Sequence[np.ndarray]) -> None:
    """Check every row of ``data`` that the steps will check batch by batch, so that nothing is half trained."""
    for source, size, place in _checked_inputs(graph, len(data)):
        values = data[source]
        if values.size and (values.min() < 0 or values.max() >= size):
            row = int(np.flatnonzero(((values < 0) | (values >= size)).reshape(len(values), -1).any(1))[0])
            raise OutOfBoundsError(
                f"check_index: array {source}, row {row}: {values[row]} is outside [0, {size})", at=place
            )


def _checked_inputs(graph: Graph, count: int) -> Iterator[tuple[int, int, str]]:
    first = len(graph.inputs) - 1 - count
    numbers = {v: i - first for i, v in enumerate(graph.inputs)}
    picked: dict[Var, int] = {}
    for eqn in graph.eqns:
        source = eqn.inputs[0] if eqn.inputs else None
        if eqn.prim.name == "take" and source in numbers and eqn.inputs[1] is graph.inputs[-1]:
            picked[eqn.outputs[0]] = numbers[source]
        elif eqn.prim.name in ("reshape", "cast") and source in picked:
            picked[eqn.outputs[0]] = picked[source]
        elif eqn.prim.name == "check_index" and source in picked:
            yield picked[source], eqn.params["size"], eqn.source
