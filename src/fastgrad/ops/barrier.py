"""barrier[count](*values, *after): ``values`` themselves, but not before all of ``after`` is known.

Passes see new values, so what is computed from them is not merged with what was computed from the old ones; the schedule
puts it on a higher level. Nothing is moved or copied. `fg.checkpoint` recomputes behind one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.aval import Aval
from ..core.graph import Tracer
from ..core.loops import Library
from ..core.primitive import Primitive

# --- barrier[count] -------------------------------------------------------------------------------------------------


def _pass(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else tuple(values)


def _apply(inputs: Sequence[Any], count: int) -> list[Any]:
    out = barrier_p(*inputs, count=count)
    return [out] if count == 1 else list(out)


def _vjp(ct: Any, out: Any, *inputs: Any, count: int) -> list[Any]:
    return [*([ct] if count == 1 else ct), *[None] * (len(inputs) - count)]


def _pull(inputs: Sequence[Any], wanted: Sequence[bool], *, count: int) -> tuple[list[Any], Any]:
    return _apply(inputs, count), lambda cts: [*cts, *[None] * (len(inputs) - count)]


def _push(inputs: Sequence[Any], tangents: Sequence[Any], *, count: int) -> tuple[list[Any], list[Any]]:
    return _apply(inputs, count), list(tangents[:count])


def _batch(args: Sequence[Any], batched: Sequence[bool], *, count: int) -> tuple[list[Any], Sequence[bool]]:
    return _apply(args, count), batched[:count]


def _rule(*avals: Aval, count: int) -> tuple[Aval, ...]:
    return avals[:count]


barrier_p = Primitive(
    "barrier",
    abstract=_rule,
    reference=lambda *values, count: _pass(values[:count]),
    vjp=_vjp,
    jvp=None,
    batch=_batch,
    kernel=Library("barrier"),
    pull=_pull,
    push=_push,
)


def barrier(values: Sequence[Any], after: Sequence[Any]) -> list[Any]:
    """``values``, which from here on wait for ``after``. What is no traced value is known already, and stays as it is."""
    traced = [v for v in values if isinstance(v, Tracer)]
    if not traced:
        return list(values)
    held = iter(_apply([*traced, *(a for a in after if isinstance(a, Tracer))], len(traced)))
    return [next(held) if isinstance(v, Tracer) else v for v in values]
