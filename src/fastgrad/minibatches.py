"""What a training step is fed: arrays of examples, checked before the first update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import pytree
from .core.aval import aval_of
from .core.graph import Graph, Literal, Var
from .errors import ArgumentError, OutOfBoundsError, ShapeError
from .interpreter import interpret
from .ops.index import INDEX_OPERAND
from .passes.dce import dce
from .passes.inline import inline


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


def batch_item(item: Any) -> Any:
    """A list of numbers is an array, as in NumPy; any other nesting stays one."""
    numbers = isinstance(item, list) and all(
        isinstance(leaf, int | float) for leaf in pytree.flatten(item)[0]
    )
    return np.asarray(item) if numbers else item


def batch_leaves(batch: tuple) -> list[np.ndarray]:
    """The arrays of a batch, flat, as one step takes them."""
    return [batch_array(leaf) for leaf in pytree.flatten(tuple(batch_item(b) for b in batch))[0]]


def check_options(count: int, batch_size: Any, epochs: Any, shuffle: Any, drop_last: bool) -> None:
    """Refuse options of `TrainStep.run` that mean nothing for ``count`` rows."""
    for name, value, low in (
        ("batch_size", batch_size, 1),
        ("epochs", epochs, 1),
        ("shuffle", shuffle or 0, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
            kind = "a positive integer" if low else "a seed (an integer of at least 0) or None"
            raise ArgumentError(f"TrainStep.run: {name} must be {kind}, got {value!r}")
    if drop_last and count < batch_size:
        raise ArgumentError(f"TrainStep.run: drop_last leaves no batch of {batch_size} in {count} rows")


IndexCheck = Callable[..., None]


def index_check(graph: Graph, n_params: int) -> IndexCheck:
    """``check(*arrays)`` of the graph's inputs after its parameters: raises for an index that a run would refuse.

    Every index operand that depends on data alone is computed as the graph computes it (casts and arithmetic included),
    in the interpreter; all else is left out. An index that depends on parameters can only be checked by the run itself.
    """
    graph = inline(graph)
    inputs = graph.inputs[n_params:]
    known: set[Var] = {*inputs, *(v for v, _ in graph.captured)}
    eqns, checks = [], []
    for eqn in graph.eqns:
        if eqn.prim.name in INDEX_OPERAND:
            index = eqn.inputs[INDEX_OPERAND[eqn.prim.name]]
            if index in known:
                size = (
                    eqn.params["size"]
                    if "size" in eqn.params
                    else eqn.inputs[0].aval.shape[eqn.params["axis"]]
                )
                checks.append((eqn, 0 if eqn.prim.name == "check_index" else -size, size, index))
        if all(isinstance(a, Literal) or a in known for a in eqn.inputs):
            eqns.append(eqn)
            known.update(eqn.outputs)
    indices = tuple(index for *_, index in checks)
    run = interpret(dce(Graph(inputs, tuple(eqns), indices, graph.captured, graph.name)))

    def check(*arrays: np.ndarray, first_row: int = 0) -> None:
        for values, (eqn, low, size, _) in zip(run(*arrays), checks, strict=True):
            outside = (values < low) | (values >= size)
            if outside.any():
                place = np.argwhere(outside)[0]
                row = first_row + int(place[0]) if place.size else first_row
                raise OutOfBoundsError(
                    f"{eqn.prim.name}: row {row}: index {values[tuple(place)]} is out of bounds for an axis of size {size}",
                    at=eqn.source,
                )

    return check
