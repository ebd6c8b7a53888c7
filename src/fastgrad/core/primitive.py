"""What an op is: one record with all its rules, and `bind`, which emits it into a trace or runs its reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import FastgradError, user_line
from .aval import Aval, aval_of
from .graph import Literal, joined
from .loops import Kernel


@dataclass(frozen=True, eq=False, slots=True)
class Primitive:
    """An op with its rules, in the order in which they stand in ``ops/``.

    abstract(*avals, **params) -> Aval | tuple[Aval, ...]     shape and dtype rule; raises the user's error
    reference(*arrays, **params) -> array                     NumPy twin: obvious, slow, the oracle of every kernel
    vjp(ct, out, *inputs, **params) -> one cotangent or None per input, written in ops
    jvp(tangents, out, *inputs, **params) -> tangent of out; a tangent that is zero is None
    batch(args, batched, **params) -> out                     batched args carry the batch axis first; so does out
                                                               (several outputs: a list, and which of them carry it)
    kernel                                                     what the schedule makes of it (`core.loops`)

    An op whose parameters hold graphs (a loop, a branch, a call) computes its outputs anew together with the derivative.
    Where they are given, these rules stand in for ``vjp`` and ``jvp``:

    pull(inputs, wanted, **params) -> outputs, back           back(cts) -> one cotangent or None per input; ``wanted`` says
                                                               which are asked for; a cotangent that is zero is None
    push(inputs, tangents, **params) -> outputs, tangents out  a tangent that is zero is None
    """

    name: str
    abstract: Callable[..., Any]
    reference: Callable[..., Any]
    vjp: Callable[..., Sequence[Any]] | None
    jvp: Callable[..., Any] | None
    batch: Callable[..., Any] | None
    kernel: Kernel
    pull: Callable[..., Any] | None = None
    push: Callable[..., Any] | None = None

    def abstract_outputs(self, avals: Sequence[Aval], params: Mapping[str, Any]) -> tuple[Aval, ...]:
        """The avals of all outputs."""
        out = self.abstract(*avals, **params)
        return out if isinstance(out, tuple) else (out,)

    def __call__(self, *args: Any, **params: Any) -> Any:
        """Emit into the trace that `joined` says; with arrays alone, compute by the reference."""
        builder = joined(args)
        if builder is None:
            return self._eager(args, params)
        out = builder.emit(self, args, params)
        return out[0] if len(out) == 1 else tuple(out)

    def _eager(self, args: Sequence[Any], params: Mapping[str, Any]) -> Any:
        values = [a.value if isinstance(a, Literal) else a for a in args]
        try:
            self.abstract_outputs([aval_of(v) for v in values], params)
            with np.errstate(all="ignore"):
                return self.reference(*values, **params)
        except FastgradError as error:
            error.at = error.at or user_line()
            raise

    def __repr__(self) -> str:
        return self.name
