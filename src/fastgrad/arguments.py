"""A call's arguments: which are traced, which are static, and how the traced ones nest."""

from __future__ import annotations

import enum
import inspect
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import pytree
from .core.aval import Aval, aval_of
from .core.graph import Tracer
from .errors import ArgumentError, DTypeError, user_line
from .signatures import Key

DYNAMIC = (np.ndarray, np.generic, bool, int, float, complex, Tracer)


class Call(NamedTuple):
    """The arguments of one call, taken apart.

    ``static`` pairs (position, name or ``("leaf", i)``) with values; ``leaves`` are all leaves of the others, static ones
    among them (``fixed``); ``structure`` says how they nest as ``(positional, named)``.
    """

    static: tuple
    leaves: list[Any]
    structure: Any
    fixed: frozenset[int]

    def dynamic(self) -> tuple[tuple[Aval, ...], list[Any]]:
        """Avals and values of the leaves that are traced; numbers become 0-d arrays."""
        avals, arrays = [], []
        for i, leaf in enumerate(self.leaves):
            if i not in self.fixed:
                try:
                    avals.append(aval(leaf))
                except DTypeError as error:
                    name = pytree.paths(pytree.unflatten(self.structure, self.leaves))[i]
                    raise DTypeError(
                        f"argument {name}: {error.message}", hint=error.hint, at=user_line()
                    ) from None
                arrays.append(leaf if isinstance(leaf, np.ndarray) else np.asarray(leaf, avals[-1].dtype))
        return tuple(avals), arrays

    def key(self, avals: tuple[Aval, ...]) -> Key:
        """What a signature is known by. 1, 1.0 and True trace differently, and so do 0.0 and -0.0."""
        static = tuple((k, type(v), v, isinstance(v, float) and math.copysign(1, v)) for k, v in self.static)
        try:
            hash(static)
        except TypeError:
            bad = next(v for _, v in self.static if not _hashable(v))
            raise ArgumentError(
                f"a static argument must be hashable, got {type(bad).__name__}", at=user_line()
            ) from None
        return Key(self.structure, avals, static)

    def rebuild(self, values: Sequence[Any]) -> tuple[tuple, dict]:
        """Positional and named arguments again, with ``values`` in place of the traced leaves."""
        given = iter(values)
        leaves = [leaf if i in self.fixed else next(given) for i, leaf in enumerate(self.leaves)]
        dynamic, named = pytree.unflatten(self.structure, leaves)
        positions = {key: value for key, value in self.static if isinstance(key, int)}
        rest = iter(dynamic)
        count = len(positions) + len(dynamic)
        args = tuple(positions[n] if n in positions else next(rest) for n in range(count))
        return args, named | {key: value for key, value in self.static if isinstance(key, str)}


class Splitter:
    """Takes calls of ``f`` apart by its ``static_argnums`` and ``static_argnames``."""

    def __init__(self, f: Callable, static_argnums: Any = (), static_argnames: Any = ()):
        names = (static_argnames,) if isinstance(static_argnames, str) else tuple(static_argnames)
        numbers = _integers("static_argnums", static_argnums)
        parameters = _parameters(f)
        if parameters is not None:
            open_ended = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
            for n in numbers:
                if not open_ended and not -len(parameters) <= n < len(parameters):
                    raise ArgumentError(f"static_argnums: {n} with {len(parameters)} parameters")
            for name in names:
                if name in parameters:
                    numbers += (list(parameters).index(name),)
                elif not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                    raise ArgumentError(
                        f"static_argnames: no parameter {name!r}", hint=f"one of {list(parameters)}"
                    )
        self.numbers, self.names = numbers, names

    def split(self, args: tuple, kwargs: dict) -> Call:
        """One call, taken apart. Objects that offer ``__array__`` become arrays; other non-numbers are static."""
        numbers = {n % len(args) for n in self.numbers if -len(args) <= n < len(args)}
        static: list[tuple[Any, Any]] = [(n, args[n]) for n in sorted(numbers)]
        static += [(k, kwargs[k]) for k in sorted(kwargs) if k in self.names]
        dynamic = tuple(a for n, a in enumerate(args) if n not in numbers)
        named = {k: v for k, v in kwargs.items() if k not in self.names}
        leaves, structure = pytree.flatten((dynamic, named))
        leaves = [_leaf(leaf) for leaf in leaves]
        fixed = frozenset(i for i, leaf in enumerate(leaves) if not isinstance(leaf, DYNAMIC))
        static += [(("leaf", i), leaves[i]) for i in sorted(fixed)]
        return Call(tuple(static), leaves, structure, fixed)


def _leaf(leaf: Any) -> Any:
    if isinstance(leaf, DYNAMIC):
        return leaf
    if hasattr(leaf, "__array__") and not isinstance(leaf, type):
        return np.asarray(leaf)
    if isinstance(leaf, str | bytes | type | enum.Enum | np.dtype) or callable(leaf):
        return leaf
    raise DTypeError(
        f"expected arrays, numbers, strings or functions, got {type(leaf).__name__}",
        hint="np.asarray, or static_argnums",
        at=user_line(),
    )


def aval(leaf: Any) -> Aval:
    """Shape and dtype of a leaf, traced or not."""
    return leaf.aval if isinstance(leaf, Tracer) else aval_of(leaf)


def _integers(name: str, value: Any) -> tuple[int, ...]:
    try:
        return tuple(
            operator.index(n) for n in (value if isinstance(value, tuple | list | range) else (value,))
        )
    except TypeError:
        raise ArgumentError(f"{name}: takes an integer or a sequence of integers, got {value!r}") from None


def _parameters(f: Callable) -> dict[str, inspect.Parameter] | None:
    try:
        return dict(inspect.signature(f).parameters)
    except (TypeError, ValueError):
        return None


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
