"""What `custom_vjp` and `custom_jvp` share: how a call is taken apart, and when the user's rule is traced.

A rule is traced where its function is called, so that it may close over values of any trace under way there. Only inside
the tracing of its own rule (forward rules call their function) is it left for later, or tracing would never end.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from .. import pytree
from ..core.aval import Aval
from ..core.graph import Tracer
from ..errors import ArgumentError, DTypeError, ShapeError, TraceError, user_line
from ..ops.operands import aval
from ..ops.pointwise import convert
from ..trace import current

T = TypeVar("T")
_under_way: ContextVar[frozenset[int]] = ContextVar("fastgrad_custom_rules", default=frozenset())
_NUMBERS = (np.ndarray, np.generic, bool, int, float, Tracer)


class Later(Generic[T]):
    """A value made when it is first asked for."""

    def __init__(self, make: Callable[[], T]):
        self._make: Callable[[], T] | None = make
        self._value: T | None = None

    def get(self) -> T:
        """The value."""
        if self._make is not None:
            self._value, self._make = self._make(), None
        return self._value  # type: ignore[return-value]


class Taken(NamedTuple):
    """A call taken apart: arguments by position, which of them are differentiated, and the traced leaves of those."""

    args: tuple
    chosen: tuple[int, ...]
    leaves: list[Any]
    structure: Any
    traced: tuple[int, ...]

    @property
    def values(self) -> list[Any]:
        """The traced leaves."""
        return [self.leaves[i] for i in self.traced]

    @property
    def avals(self) -> list[Aval]:
        """Their shapes and dtypes."""
        return [v.aval for v in self.values]

    def nest(self, values: Sequence[Any]) -> tuple:
        """The differentiated arguments, with ``values`` for the traced leaves."""
        new = list(self.leaves)
        for i, value in zip(self.traced, values, strict=True):
            new[i] = value
        return tuple(pytree.unflatten(self.structure, new))

    def call_with(self, values: Sequence[Any]) -> list[Any]:
        """All arguments, with ``values`` for the traced leaves."""
        new = list(self.args)
        for n, arg in zip(self.chosen, self.nest(values), strict=True):
            new[n] = arg
        return new

    def nondiff(self) -> list[Any]:
        """The arguments that are not differentiated, in order."""
        return [a for n, a in enumerate(self.args) if n not in self.chosen]

    def names(self) -> list[str]:
        """``[0]['w']`` for each leaf, by the position of its argument in the call."""
        parts = zip(self.chosen, pytree.unflatten(self.structure, self.leaves), strict=True)
        return [f"[{n}]{path}" for n, part in parts for path in pytree.paths(part)]


class CustomRule:
    """A function with a derivative rule of the user's own; called like the function itself."""

    kind = "custom rule"

    def __init__(self, f: Callable, nondiff_argnums: int | Sequence[int] = ()):
        if not callable(f):
            raise ArgumentError(f"{self.kind}: expected a function, got {type(f).__name__}", at=user_line())
        functools.update_wrapper(self, f, updated=())
        self.f = f
        given = (nondiff_argnums,) if isinstance(nondiff_argnums, int) else tuple(nondiff_argnums)
        self.nondiff_argnums = given
        self.name = getattr(f, "__name__", "f")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"

    def take(self, args: tuple, kwargs: dict) -> Taken:
        """A call taken apart; keyword arguments and defaults are put in their positions."""
        if kwargs or self._has_defaults():
            bound = inspect.signature(self.f).bind(*args, **kwargs)
            bound.apply_defaults()
            if bound.kwargs:
                raise ArgumentError(
                    f"{self.kind} {self.name}: takes no keyword-only arguments, got {sorted(bound.kwargs)}",
                    at=user_line(),
                )
            args = bound.args
        for n in self.nondiff_argnums:
            if not -len(args) <= n < len(args):
                raise ArgumentError(
                    f"{self.kind} {self.name}: nondiff_argnums {n} with {len(args)} arguments", at=user_line()
                )
        nondiff = {n % len(args) for n in self.nondiff_argnums}
        chosen = tuple(n for n in range(len(args)) if n not in nondiff)
        leaves, structure = pytree.flatten(tuple(args[n] for n in chosen))
        traced = tuple(i for i, leaf in enumerate(leaves) if isinstance(leaf, Tracer))
        return Taken(args, chosen, leaves, structure, traced)

    def _has_defaults(self) -> bool:
        try:
            parameters = inspect.signature(self.f).parameters.values()
        except (TypeError, ValueError):
            return False
        return any(p.default is not p.empty for p in parameters)

    def rule_now_or_later(self, make: Callable[[], T]) -> T | Later[T]:
        """``make()``, which traces this function's rule; later, where that is what is under way."""

        def under_way() -> T:
            with self._tracing():
                return make()

        return Later(under_way) if id(self) in _under_way.get() else under_way()

    @contextmanager
    def _tracing(self) -> Iterator[None]:
        token = _under_way.set(_under_way.get() | {id(self)})
        try:
            yield
        finally:
            _under_way.reset(token)


def flatten_like(what: str, structure: Any, tree: Any, holes: bool = False) -> list[Any]:
    """The leaves of ``tree``, which must nest as ``structure`` (with ``holes`` None may stand for any part of it)."""
    if not holes:
        leaves, got = pytree.flatten(tree)
        if got == structure:
            return leaves
    else:
        try:
            return _up_to(structure, tree)
        except ValueError:
            got = pytree.flatten(tree)[1]
    raise ArgumentError(f"{what} nests as {got}, expected {structure}", at=user_line())


def _up_to(structure: Any, tree: Any) -> list[Any]:
    if tree is None:
        return [None] * structure.num_leaves
    if structure == pytree.LEAF:
        return [tree]
    subtrees = structure.one_level().flatten_up_to(tree)
    return [
        leaf
        for child, part in zip(structure.children(), subtrees, strict=True)
        for leaf in _up_to(child, part)
    ]


def fitting(what: str, want: Aval, got: Any) -> Any:
    """``got`` as a value of ``want``'s shape and dtype; an error says ``what`` it is where it cannot be one."""
    if not isinstance(got, _NUMBERS):
        raise DTypeError(f"{what} must be {_plain(want)}, got {type(got).__name__}", at=user_line())
    have = aval(got)
    if have.shape != want.shape:
        raise ShapeError(f"{what} must be {_plain(want)}, got {have}", at=user_line())
    if have.dtype != want.dtype and not have.weak:
        raise DTypeError(
            f"{what} must be {_plain(want)}, got {have}",
            hint=f".astype(np.{want.dtype.name})",
            at=user_line(),
        )
    if have.dtype == want.dtype:
        return got
    return convert(got, want.dtype)


def _plain(aval: Aval) -> Aval:
    return Aval(aval.shape, aval.dtype)


def closed_over(kind: str, name: str) -> TraceError:
    """The error where a derivative is asked by what a function with a rule of its own closes over."""
    builder = current()
    return TraceError(
        f"{kind} {name}: its rule says nothing of the derivative by a value that it closes over",
        hint="pass the value as an argument",
        at=builder.source if builder and builder.source else user_line(),
    )
