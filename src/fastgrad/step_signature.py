"""One shape of batch of a training step: what was built for it, and how it runs, compiled or interpreted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import pytree
from .core.aval import Aval
from .core.graph import Graph
from .executor.cpu import Captured, Native, Workspace, conform
from .executor.executable import Program


@dataclass(eq=False)
class StepSignature:
    """One shape of batch: the graph, and how to run it (compiled in ``workspace``, or interpreted)."""

    graph: Graph
    avals: Sequence[Aval]
    tree: Any
    interpreted: Callable[..., list[np.ndarray]] | None
    program: Program | None
    workspace: Workspace | None
    captured: Captured | None = None
    owner: np.ndarray | None = None  # whose memory the state is

    @property
    def native(self) -> Native | None:
        return self.program.native if self.program is not None else None

    def __post_init__(self) -> None:
        n = self.native.n_inputs if self.native else 0
        self._fresh = [(a.shape, a.dtype) for a in self.avals[n:]] if self.native else []
        self._scalar = self.tree is None or self.tree == pytree.LEAF

    def pack(self, results: list[np.ndarray]) -> Any:
        return results[0] if self._scalar else pytree.unflatten(self.tree, results)

    def try_step(self, batch: Sequence[Any]) -> list[np.ndarray] | None:
        """The hot path; None when an array is not exactly as planned, or a view of the state, which is written over."""
        if self.interpreted is not None:
            planned = len(batch) == len(self.avals) and all(
                type(a) is np.ndarray and a.shape == v.shape and a.dtype == v.dtype
                for a, v in zip(batch, self.avals, strict=True)
            )
            return self.interpreted(*batch) if planned else None
        workspace, owner = self.workspace, self.owner
        assert workspace is not None and self.captured is not None
        try:
            for array in batch:
                base = array.base
                # A view's base is the array that owns the memory, or what stands between them: as_strided, memoryview.
                if base is not None and (
                    base is owner
                    or ((type(base) is not np.ndarray or base.base is not None) and self._overlaps(array))
                ):
                    return None
        except AttributeError:  # no array
            return None
        self.captured.refresh()
        results = [np.empty(shape, dtype) for shape, dtype in self._fresh]
        answer = workspace.entry(*batch, *results)
        if answer is None:
            return results
        if answer is False:
            return None
        workspace.finish()
        return results

    def _overlaps(self, array: np.ndarray) -> bool:
        return self.owner is not None and np.may_share_memory(array, self.owner)

    def step(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """As `try_step`, arrays converted where needed."""
        if self.interpreted is not None:
            return self.interpreted(*arrays)
        held = [conform(a, v, "TrainStep") for a, v in zip(arrays, self.avals, strict=False)]
        results = self.try_step(held)
        assert results is not None, "the entry takes conforming arrays"
        return results

    def repeat(self, data: Sequence[np.ndarray], order: np.ndarray, trips: int, size: int) -> np.ndarray:
        """``trips`` steps on the rows that ``order`` lists."""
        if self.interpreted is None:
            return self.step([*data, order])[0]
        rows = order.reshape(trips, size)
        return np.array(
            [self.interpreted(*data, index)[0] for index in rows], self.graph.outputs[0].aval.dtype
        )
