"""`vjp`: the value of a function now, its pullback whenever wanted.

The joint graph is split at the border between forward and backward. Forward writes its residuals into one block of
memory that the pullback owns until it is dropped; the block then serves the next forward pass. Two live pullbacks of
one function therefore never share memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import autodiff, passes, pytree
from .api import _memoised, _threads, default_backend
from .arguments import aval
from .core.aval import Aval
from .core.graph import Graph, Tracer
from .errors import ArgumentError, DTypeError, ShapeError, user_line
from .executor.cpu import aligned
from .executor.executable import Executable, check_backend
from .locks import Lock
from .passes.precision import check_precision
from .placement import ALIGN
from .signatures import Key, Signatures
from .trace import inline, trace


def vjp(
    f: Callable,
    *primals: Any,
    backend: str | None = None,
    precision: str | None = None,
    has_aux: bool = False,
) -> tuple:
    """``(f(*primals), pullback)``; ``pullback(ct)`` gives one cotangent for each primal (Jacobian transposed times ct).

    Args: primals, nestings of arrays; cotangents of integer arrays come back as None. ``ct`` nests like the output, its
    leaves with the output's shapes and dtypes. With ``has_aux`` ``f`` returns ``(out, aux)``: ``(out, pullback, aux)``.
    ``backend`` and ``precision`` as in `jit`.
    The pullback may be called any number of times, also inside a traced function, and is not changed by later changes to
    the primals. Raises `ShapeError`, `DTypeError` for a cotangent that does not fit.

    >>> out, pullback = vjp(lambda x, y: x * y, np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    >>> pullback(np.array([1.0, 1.0]))
    (array([3., 4.]), array([1., 2.]))
    """
    options = {"backend": backend, "precision": precision, "has_aux": has_aux}

    def make() -> _Vjp:
        return _Vjp(f, check_backend(backend or default_backend()), has_aux, check_precision(precision))

    return _memoised(f, "vjp", options, make)(*primals)


class _Vjp:
    """The compiled halves of one function, by signature."""

    def __init__(self, f: Callable, backend: str, has_aux: bool, precision: str | None = None):
        self.f, self.backend, self.has_aux, self.precision = f, backend, has_aux, precision
        self.signatures: Signatures[_Halves] = Signatures()
        self.lock = Lock()

    def __call__(self, *primals: Any) -> tuple:
        leaves, structure = pytree.flatten(primals)
        avals = tuple(aval(leaf) for leaf in leaves)
        traced = any(isinstance(leaf, Tracer) for leaf in leaves)
        key = Key(structure, avals)
        with self.lock.current:
            halves = self.signatures.get(key)
            if halves is None or traced:
                halves = self.halves(structure, avals, traced)
                if any(isinstance(value, Tracer) for _, value in halves.forward.captured):
                    traced = True  # it closes over a trace under way, and joins that
                elif not traced:
                    self.signatures.add(key, halves)
        if traced:
            outputs = inline(halves.forward, leaves)
            return halves.result(outputs, _traced_pullback(halves, outputs[halves.n_outputs :]))
        arrays = [
            a if isinstance(a, np.ndarray) else np.asarray(a, v.dtype)
            for a, v in zip(leaves, avals, strict=True)
        ]
        block, outputs = halves.run_forward(arrays, self.backend)
        return halves.result(outputs, Pullback(halves, block, self.backend))

    def halves(self, structure: Any, avals: tuple[Aval, ...], traced: bool) -> _Halves:
        trees: dict[str, Any] = {}

        def flat(*values: Any) -> list[Any]:
            result = self.f(*pytree.unflatten(structure, values))
            out, aux = result if self.has_aux else (result, None)
            outs, trees["out"] = pytree.flatten(out)
            auxs, trees["aux"] = pytree.flatten(aux)
            trees["n_out"] = len(outs)
            return [*outs, *auxs]

        graph = trace(flat, avals, name=getattr(self.f, "__name__", "f"))
        wrt = [i for i, v in enumerate(graph.inputs) if autodiff.is_float(v)]
        joint = passes.tidy(autodiff.vjp(graph, wrt))
        n = len(graph.outputs)
        forward, backward = autodiff.split(joint, len(graph.inputs), n)
        floats = [autodiff.is_float(a) for a in graph.outputs]
        halves = _Halves(forward, backward, structure, trees, n, tuple(wrt), len(avals), floats)
        halves.precision = self.precision
        return halves


class _Halves:
    """Forward and backward graph of one signature, compiled when first run."""

    precision: str | None = None

    def __init__(
        self, forward: Graph, backward: Graph, structure: Any, trees: dict[str, Any], n_outputs: int,
        wrt: tuple[int, ...], n_primals: int, floats: Sequence[bool],
    ):  # fmt: skip
        self.forward, self.backward, self.structure, self.trees = forward, backward, structure, trees
        self.n_outputs, self.wrt, self.n_primals, self.floats = n_outputs, wrt, n_primals, floats
        self.residuals = [a.aval for a in forward.outputs[n_outputs:]]
        self.outputs = [a.aval for a in forward.outputs[:n_outputs]]
        self.offsets, self.block_bytes = _offsets(self.residuals)
        self.pool: list[np.ndarray] = []
        self._runs: dict[tuple[str, str], Executable] = {}

    def executable(self, half: str, backend: str) -> Executable:
        if (half, backend) not in self._runs:
            graph = self.forward if half == "forward" else self.backward
            self._runs[half, backend] = Executable(
                graph, backend=backend, threads=_threads(None), precision=self.precision
            )
        return self._runs[half, backend]

    def views(self, block: np.ndarray) -> list[np.ndarray]:
        """The residuals in their block."""
        return [
            block[at : at + a.nbytes].view(a.dtype).reshape(a.shape)
            for at, a in zip(self.offsets, self.residuals, strict=True)
        ]

    def run_forward(self, arrays: Sequence[np.ndarray], backend: str) -> tuple[np.ndarray, list[np.ndarray]]:
        try:
            block = self.pool.pop()
        except IndexError:
            block = aligned(self.block_bytes)
        outputs = [np.empty(a.shape, a.dtype) for a in self.outputs]
        self.executable("forward", backend)(*arrays, out=[*outputs, *self.views(block)])
        return block, outputs

    def result(self, outputs: Sequence[Any], pullback: Any) -> tuple:
        n = self.trees["n_out"]
        out = pytree.unflatten(self.trees["out"], outputs[:n])
        if self.trees["aux"].num_leaves:
            return out, pullback, pytree.unflatten(self.trees["aux"], outputs[n : self.n_outputs])
        return out, pullback

    def cotangents(self, ct: Any) -> list[Any]:
        """Flat cotangents, checked: one for each float output, zeros for aux."""
        leaves, structure = pytree.flatten(ct)
        if structure != self.trees["out"]:
            raise ArgumentError(
                f"pullback: the cotangent nests as {structure}, the output as {self.trees['out']}",
                at=user_line(),
            )
        checked = []
        for i, (want, is_float) in enumerate(zip(self.outputs, self.floats, strict=True)):
            if not is_float:
                continue
            if i >= len(leaves):
                checked.append(np.zeros(want.shape, want.dtype))
                continue
            got = aval(leaves[i])
            if got.shape != want.shape:
                raise ShapeError(
                    f"pullback: the cotangent of output {i} must be {want}, got {got}", at=user_line()
                )
            if got.dtype != want.dtype and not got.weak:
                raise DTypeError(
                    f"pullback: the cotangent of output {i} must be {want}, got {got}",
                    hint=f".astype(np.{want.dtype.name})", at=user_line(),
                )  # fmt: skip
            checked.append(leaves[i] if isinstance(leaves[i], Tracer) else np.asarray(leaves[i], want.dtype))
        return checked

    def nest(self, cotangents: Sequence[Any]) -> tuple:
        """One nested cotangent for each primal; None stands for integers."""
        full: list[Any] = [None] * self.n_primals
        for i, ct in zip(self.wrt, cotangents, strict=True):
            full[i] = ct
        return pytree.unflatten(self.structure, full)


def _offsets(avals: Sequence[Aval]) -> tuple[list[int], int]:
    offsets, end = [], 0
    for each in avals:
        offsets.append(end)
        end += -(-each.nbytes // ALIGN) * ALIGN
    return offsets, end


def _traced_pullback(halves: _Halves, residuals: Sequence[Any]) -> Callable[[Any], tuple]:
    def pullback(ct: Any) -> tuple:
        return halves.nest(inline(halves.backward, [*residuals, *halves.cotangents(ct)]))

    return pullback


class Pullback:
    """``pullback(ct)``: owns the block with the residuals of its forward pass until it is dropped."""

    def __init__(self, halves: _Halves, block: np.ndarray, backend: str):
        self._halves, self._backend = halves, backend
        self._residuals = halves.views(block)
        weakref.finalize(self, halves.pool.append, block)

    def __call__(self, ct: Any) -> tuple:
        cts = self._halves.cotangents(ct)
        if any(isinstance(c, Tracer) for c in cts):
            # The trace may outlive this pullback and its block: it captures copies.
            return self._halves.nest(inline(self._halves.backward, [*map(np.array, self._residuals), *cts]))
        return self._halves.nest(self._halves.executable("backward", self._backend)(*self._residuals, *cts))
