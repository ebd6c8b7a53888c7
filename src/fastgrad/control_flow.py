"""`scan`, `fori_loop`, `while_loop`, `cond`, `switch` as users call them: in a trace they join it, on arrays they compile.

On arrays each is the jitted function of its operands: compiled once for each signature and kept on the user's function
(`FASTGRAD_BACKEND` says with what), so that a loop called again and again is traced once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import pytree
from .api import Jitted, _memoised
from .control.scan import scan as _scan
from .control.switch import cond as _cond
from .control.switch import switch as _switch
from .control.while_ import fori_loop as _fori_loop
from .control.while_ import while_loop as _while_loop
from .core.graph import Tracer
from .trace import current


def _compiled(owner: Any, how: str, options: dict[str, Any], fn: Callable, operands: Sequence[Any]) -> Any:
    """``fn(*operands)``, in the trace under way or compiled; ``options`` are all that ``fn`` depends on besides."""
    traced = current() is not None or any(isinstance(v, Tracer) for v in pytree.flatten(list(operands))[0])
    if traced or not callable(owner):
        return fn(*operands)
    return _memoised(owner, how, options, lambda: Jitted(fn, {}))(*operands)


@functools.wraps(_scan)
def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
    *,
    checkpoint_every: int | None = None,
) -> tuple[Any, Any]:
    options: dict[str, Any] = {"length": length, "reverse": reverse, "unroll": unroll}
    options["checkpoint_every"] = checkpoint_every
    return _compiled(f, "scan", options, lambda init, xs: _scan(f, init, xs, **options), (init, xs))


@functools.wraps(_fori_loop)
def fori_loop(lower: Any, upper: Any, body_fun: Callable[[Any, Any], Any], init_val: Any) -> Any:
    options = {"lower": lower, "upper": upper}
    return _compiled(
        body_fun, "fori_loop", options, lambda init: _fori_loop(lower, upper, body_fun, init), (init_val,)
    )


@functools.wraps(_while_loop)
def while_loop(
    cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init_val: Any, *, bound: int | None = None
) -> Any:
    def run(init: Any) -> Any:
        return _while_loop(cond_fun, body_fun, init, bound=bound)

    return _compiled(body_fun, "while_loop", {"cond_fun": cond_fun, "bound": bound}, run, (init_val,))


@functools.wraps(_cond)
def cond(pred: Any, true_fun: Callable, false_fun: Callable, *operands: Any) -> Any:
    def run(pred: Any, *operands: Any) -> Any:
        return _cond(pred, true_fun, false_fun, *operands)

    return _compiled(true_fun, "cond", {"false_fun": false_fun}, run, (pred, *operands))


@functools.wraps(_switch)
def switch(index: Any, branches: Sequence[Callable], *operands: Any) -> Any:
    branches = tuple(branches) if isinstance(branches, Iterable) else branches

    def run(index: Any, *operands: Any) -> Any:
        return _switch(index, branches, *operands)

    owner = branches[0] if isinstance(branches, tuple) and branches else None
    return _compiled(owner, "switch", {"branches": branches}, run, (index, *operands))
