"""Handles that share elements: what NumPy gives for ``x[1:]``, ``x.T``, ``x.reshape(2, 3)`` is a view, and so it is here.

A traced array is a handle on a value; to write to it gives it another value. A `View` is a handle on a part of a *base*
handle: it knows the path of ops from the base to that part (`ops.subscript.Step`). A write goes through to the base; a
read after the base has changed goes down the path again. Views of views have the same base and a longer path.

What an op computes is new, so it is a base of its own, laid out in C order: which reshapes of views are views follows
from that (`shares`), as in NumPy, where a reshape that strides cannot say is a copy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from .core.graph import Builder, Eqn, Tracer, Var, current, joined, leaked
from .errors import TraceError, user_line
from .ops.assign import write
from .ops.index import take_p
from .ops.movement import flip_p, slice_p, transpose_p
from .ops.shaping import reshape_p
from .ops.subscript import Step, read, shape_after, subscript

_NO_KEY = object()


class View(Tracer):
    """A handle on the part of ``base`` to which ``steps`` lead.

    ``parent`` and ``key`` tell ``x[i] += v`` apart: Python assigns the view that it has just written to back to ``x[i]``.
    """

    __slots__ = ("_latest", "_seen", "_where", "base", "key", "parent", "steps")

    base: Tracer
    steps: tuple[Step, ...]

    def __init__(self, value: Tracer, parent: Tracer, steps: Sequence[Step], key: Any = _NO_KEY):
        """``value``: what the steps gave just now."""
        self.parent, self.key = parent, key
        self.base = parent.base if isinstance(parent, View) else parent
        self.steps = (*parent.steps, *steps) if isinstance(parent, View) else tuple(steps)
        self._latest, self._seen, self._where = value.atom, self.base.atom, value.builder

    @property
    def builder(self) -> Builder:  # type: ignore[override]
        """The trace that sliced it: that of the base, or one inside, which may read the base but not write to it."""
        return self._where

    @property
    def atom(self) -> Var:  # type: ignore[override]
        """The value now: sliced anew if the base has changed since."""
        if self._seen is not self.base.atom:
            fresh = self.base
            for step in self.steps:  # in the trace of the base, whichever is under way: that may go on longer
                [fresh] = self._where.emit(step.prim, (fresh, *step.extra), step.params)
            self._latest, self._seen = fresh.atom, self.base.atom
        return self._latest


def viewing(op: Callable[..., Any]) -> Callable[..., Any]:
    """``op``, whose results on a traced array are views of it wherever NumPy's are."""

    @functools.wraps(op)
    def viewed(x: Any, *args: Any, **kwargs: Any) -> Any:
        kind = getattr(type(x), "view_type", None)
        if kind is None:
            return op(x, *args, **kwargs)
        x.atom  # noqa: B018 - a view is sliced anew here, not among the equations of ``op``
        builder = joined([x])
        assert builder is not None
        eqns = builder.eqns
        count = len(eqns)
        return _view(kind, x, op(x, *args, **kwargs), eqns[count:])

    return viewed


def _view(kind: type[View], x: Tracer, out: Any, eqns: Sequence[Eqn]) -> Any:
    steps = []
    if out is not x:
        at = out.atom
        for eqn in reversed(eqns):
            if eqn.outputs[0] is at:
                steps.append(Step(eqn.prim, dict(eqn.params)))
                at = eqn.inputs[0]
        steps.reverse()
    return kind(out, x, steps) if shares(x, steps) else out


def index(x: Any, key: Any) -> Any:
    """``x[key]``, a view where NumPy's is one."""
    path = subscript(x, key)
    out = read(x, path.steps)
    kind = getattr(type(x), "view_type", None)
    if kind is None:
        return out
    if path.is_view:
        return kind(out, x, path.steps, key)
    return handle(x) if out is x else out


def handle(x: Tracer) -> Tracer:
    """A handle of its own on the value of ``x``: what is written to one is not seen by the other.

    It belongs to the trace under way, be it one inside that of ``x``.
    """
    builder = joined([x])
    assert builder is not None
    return builder.tracer(builder, builder.atom(x))  # type: ignore[arg-type]


# --- writes ---------------------------------------------------------------------------------------------------------


def store(x: Tracer, steps: Sequence[Step], value: Any) -> None:
    """Write ``value`` where ``steps`` lead from ``x``: through to its base, if it is a view."""
    base, path = (x.base, (*x.steps, *steps)) if isinstance(x, View) else (x, steps)
    check_own(base)
    replace(base, write(base, path, value))


def replace(base: Tracer, value: Tracer) -> None:
    """Give a base the value that it has from now on."""
    base.atom = base.builder.atom(value)  # type: ignore[assignment]


def check_own(base: Tracer) -> None:
    """Check that ``base`` may be written to by the trace under way.

    A value of an outer trace may not: the write would happen once, while the function is traced, not each time it runs.
    """
    if base.builder.closed:
        raise leaked(base)
    now = current()
    if now is not None and base.builder is not now:
        raise TraceError(
            f"a write to {base.aval}, which belongs to the function around the one being traced",
            hint="x = x.copy(), or hand it over as an argument and return it",
            at=user_line(),
        )


# --- which reshapes share memory ------------------------------------------------------------------------------------


_BY_STRIDES = (slice_p, flip_p, transpose_p, reshape_p)


def shares(x: Tracer, steps: Sequence[Step]) -> bool:
    """Whether the elements that ``steps`` lead to, from ``x``, lie by strides in the memory of its base."""
    if not all(s.prim in _BY_STRIDES for s in steps):
        return False
    return not any(s.prim is reshape_p for s in steps) or _strides(x, steps) is not None


def contiguous(x: Tracer) -> bool:
    """Whether the elements of ``x`` lie in its base one after the other, in C order."""
    strides, sizes = _strides(x, ()), x.aval.shape
    if strides is None or 0 in sizes:
        return True
    return all(n == 1 or s == t for n, s, t in zip(sizes, strides, _contiguous(sizes), strict=True))


def _strides(x: Tracer, steps: Sequence[Step]) -> tuple[int, ...] | None:
    """By which strides the elements that ``steps`` lead to lie in the base of ``x``; None where there are none."""
    base, path = (x.base, (*x.steps, *steps)) if isinstance(x, View) else (x, tuple(steps))
    shape = base.aval.shape
    strides: tuple[int, ...] | None = _contiguous(shape)
    for step in path:
        assert strides is not None
        new = shape_after(step, shape)
        strides = _strides_after(step, shape, strides, new)
        if strides is None:
            return None
        shape = new
    return strides


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, stride = [], 1
    for n in reversed(shape):
        strides.append(stride)
        stride *= n
    return tuple(reversed(strides))


def _strides_after(
    step: Step, shape: tuple[int, ...], strides: tuple[int, ...], new: tuple[int, ...]
) -> tuple[int, ...] | None:
    if step.prim is slice_p:
        return tuple(s * t for s, t in zip(strides, step.params["steps"], strict=True))
    if step.prim is flip_p:
        return tuple(-s if i in step.params["axes"] else s for i, s in enumerate(strides))
    if step.prim is transpose_p:
        return tuple(strides[i] for i in step.params["perm"])
    if step.prim is take_p:
        axis = step.params["axis"]
        return strides[:axis] + strides[axis + 1 :]
    return _reshaped(shape, strides, new)


def _reshaped(
    shape: tuple[int, ...], strides: tuple[int, ...], new: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Strides of the same elements under the shape ``new``; None where there are none (axes that do not merge)."""
    if 0 in shape:
        return _contiguous(new)
    old = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    result: list[int] = []
    todo = list(new)
    while old:
        size, stride = old.pop(0)
        group, mine = [(size, stride)], todo.pop(0)
        sizes = [mine]
        while size != mine:
            if size < mine:
                n, s = old.pop(0)
                size *= n
                group.append((n, s))
            else:
                n = todo.pop(0)
                mine *= n
                sizes.append(n)
        if any(a[1] != b[0] * b[1] for a, b in pairwise(group)):
            return None
        inner, steps = group[-1][1], []
        for n in reversed(sizes):
            steps.append(inner)
            inner *= n
        result += reversed(steps)
    return (*result, *(1 for _ in todo))
