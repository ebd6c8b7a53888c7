"""`fg.Graph`: the static graph built by hand, with the same handles that tracing gives a function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import autodiff
from .api import _threads, default_backend
from .array import Array
from .core.aval import Aval, check_dtype
from .core.graph import Builder, Tracer, verify
from .core.graph import Graph as StaticGraph
from .errors import ArgumentError, ShapeError
from .executor.executable import Executable
from .ops.operands import normalize_shape
from .passes.precision import check_precision
from .trace import inline, trace


class Graph:
    """Inputs, ops on them, outputs; then `compile`.

    >>> g = Graph()
    >>> x = g.input("x", (3,), np.float64)
    >>> g.output((x * x).sum())
    >>> g.compile(wrt=["x"])(np.array([1.0, 2.0, 3.0]))
    [array(14.), array([2., 4., 6.])]
    """

    def __init__(self, name: str = "graph"):
        self.name = name
        self._builder = Builder(Array, -1, name)  # outside of every trace
        self._inputs: dict[str, Tracer] = {}
        self._outputs: list[Any] = []
        self._built: StaticGraph | None = None

    def input(self, name: str, shape: Sequence[int], dtype: Any = "float32") -> Any:
        """A named input: a traced array on which operators, ``np.*`` and ``fnp.*`` work."""
        if self._built is not None:
            raise ArgumentError("Graph: already compiled, it takes no more inputs", hint="a new fg.Graph()")
        if name in self._inputs:
            raise ArgumentError(f"Graph: input {name!r} exists already")
        sizes = normalize_shape("input", shape)
        if any(n < 0 for n in sizes):
            raise ShapeError(f"Graph: input {name!r} has a negative size, got {list(sizes)}")
        self._inputs[name] = self._builder.input(Aval(sizes, check_dtype(dtype)))
        return self._inputs[name]

    def output(self, *values: Any) -> None:
        """Add outputs, in order."""
        if self._built is not None:
            raise ArgumentError("Graph: already compiled, it takes no more outputs", hint="a new fg.Graph()")
        self._outputs += values

    def build(self) -> StaticGraph:
        """The immutable graph; it prints as text. The builder is closed from then on."""
        if self._built is None:
            if not self._outputs:
                raise ArgumentError("Graph: has no output", hint="g.output(value)")
            self._built = verify(self._builder.build(self._outputs))
        return self._built

    def compile(
        self,
        wrt: Sequence[str] = (),
        *,
        backend: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
    ) -> Executable:
        """``Executable(*inputs)`` that returns the outputs, then the gradient of the first (a scalar) by each of ``wrt``.

        Args: ``backend``, ``threads`` and ``precision`` as in `jit`.
        """
        graph = self.build()
        unknown = [name for name in wrt if name not in self._inputs]
        if unknown:
            raise ArgumentError(
                f"Graph: wrt names no input: {unknown}", hint=f"inputs are {list(self._inputs)}"
            )
        if wrt:
            graph = self._with_gradient(graph, [list(self._inputs).index(name) for name in wrt])
        return Executable(
            graph,
            backend=backend or default_backend(),
            threads=_threads(threads),
            precision=check_precision(precision),
        )

    def _with_gradient(self, graph: StaticGraph, wrt: Sequence[int]) -> StaticGraph:
        first = graph.outputs[0].aval
        if first.shape or first.dtype.kind != "f":
            raise ShapeError(
                f"Graph: the gradient is of a float scalar, the first output is {first}",
                hint="g.output(x.sum())",
            )
        joint = autodiff.vjp(graph, wrt)

        def seeded(*inputs: Any) -> list[Any]:
            floats = [a.aval for a in graph.outputs if autodiff.is_float(a)]
            seeds = [a.dtype.type(1) if i == 0 else np.zeros(a.shape, a.dtype) for i, a in enumerate(floats)]
            return inline(joint, [*inputs, *seeds])

        return trace(seeded, [v.aval for v in graph.inputs], name=self.name)

    def __str__(self) -> str:
        return (
            str(self._built)
            if self._built is not None
            else f"graph {self.name}, {len(self._builder.eqns)} equations so far"
        )
