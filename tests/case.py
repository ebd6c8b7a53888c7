"""A row of the tables of ops: a function of arrays, inputs for it, and its twin in plain NumPy.

``fn`` is written in NumPy where NumPy has the op, so that on arrays it is the oracle and on traced values our op; where
NumPy has none, ``twin`` is the oracle. Inputs: floats are uniform in ``domain``, integers in ``[0, below)``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """One op at one choice of shapes and dtypes."""

    name: str
    fn: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...] = ()  # one a shape; float64 where missing
    domain: tuple[float, float] = (-2.0, 2.0)
    below: int = 3
    twin: Callable[..., Any] | None = None
    order: int = 2  # how often it is differentiated in the tests; 0 where it has no derivative
    tolerance: float = 1e-6
    ties: bool = False  # inputs rounded to few values: checked for value and batching, not by differences

    def inputs(self, seed: int = 0) -> list[np.ndarray]:
        """Random inputs of this row, the same for the same seed."""
        rng = np.random.default_rng([seed, *self.name.encode()])
        arrays = []
        for shape, dtype in itertools.zip_longest(
            self.shapes, self.dtypes[: len(self.shapes)], fillvalue="f8"
        ):
            kind = np.dtype(dtype).kind
            if kind == "f":
                array = rng.uniform(*self.domain, shape)
                array = np.round(array) if self.ties else array
            else:
                array = rng.integers(0, 2 if kind == "b" else self.below, shape)
            arrays.append(np.asarray(array).astype(dtype))
        return arrays

    def oracle(self, *arrays: Any) -> np.ndarray:
        """The result in plain NumPy."""
        with np.errstate(all="ignore"):
            return np.asarray((self.twin or self.fn)(*arrays))


def label(*parts: Any) -> str:
    """The name of a row: its op, then what tells it from the op's other rows."""
    return "-".join(str(p).replace(" ", "") for p in parts if p is not None)
