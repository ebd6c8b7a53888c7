"""`jit`, `grad`, `value_and_grad`, `vjp`: functions of functions over the pipeline.

A transformed function called with traced values joins the trace at hand; called with arrays it compiles, once for each
signature (structure, shapes, dtypes, static values), and replays.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from . import autodiff, machine, pytree
from .core.aval import Aval, aval_of
from .core.graph import Graph, Tracer
from .errors import ArgumentError, DTypeError, ShapeError, user_line
from .executor.executable import Executable, check_backend
from .trace import inline, trace

T = TypeVar("T")
_OPTIONS = {"backend", "precision", "static_argnames", "static_argnums", "threads"}
_DYNAMIC = (np.ndarray, np.generic, bool, int, float, complex, Tracer)


def default_backend() -> str:
    """``FASTGRAD_BACKEND``, or "numba"."""
    return os.environ.get("FASTGRAD_BACKEND", "numba")


def _threads(threads: int | None) -> int:
    if threads is None:
        return machine.available_threads()
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ArgumentError(f"threads must be a positive integer, got {threads!r}")
    return min(threads, machine.available_threads())


class Signature:
    """One compiled signature of a function: how its arguments flatten, and the executable."""

    __slots__ = ("executable", "flat", "structure", "tree")

    def __init__(self, executable: Executable, structure: Any, tree: Any, flat: bool):
        self.executable, self.structure, self.tree, self.flat = executable, structure, tree, flat

    def pack(self, outputs: list[np.ndarray]) -> Any:
        """The outputs as the function nested them."""
        return outputs[0] if self.tree is None else pytree.unflatten(self.tree, outputs)


class Jitted:
    """A function compiled at its first call with each signature. Made by `jit`, `grad`, `value_and_grad`."""

    def __init__(self, f: Callable, options: dict[str, Any]):
        if not callable(f):
            raise ArgumentError(f"expected a function, got {type(f).__name__}")
        functools.update_wrapper(self, f, updated=())
        self._f = f
        unknown = sorted(set(options) - _OPTIONS)
        if unknown:
            raise ArgumentError(
                f"unknown option {unknown[0]!r}", hint=f"one of {', '.join(sorted(_OPTIONS))}"
            )
        self._backend = check_backend(options.get("backend") or default_backend())
        if options.get("precision") is not None:
            raise ArgumentError(f"precision={options['precision']!r} is not built yet", hint="precision=None")
        self._threads = _threads(options.get("threads"))
        self._static_argnums = _as_tuple(options.get("static_argnums", ()))
        self._static_argnames = _as_tuple(options.get("static_argnames", ()))
        self._static_argnums += _positions(f, self._static_argnames)
        self._signatures: dict[Any, Signature] = {}
        self._hot: Signature | None = None
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        hot = self._hot
        if hot is not None and not kwargs:
            if hot.flat:
                leaves: Any = args
            else:
                leaves, structure = pytree.flatten((args, kwargs))
                if structure != hot.structure:
                    return self._cold(args, kwargs)
            outputs = hot.executable.try_call(leaves)
            if outputs is not None:
                return hot.pack(outputs)
        return self._cold(args, kwargs)

    def _cold(self, args: tuple, kwargs: dict) -> Any:
        """Any call but the commonest: find or make the signature, convert the arrays, run."""
        static, leaves, structure = self._split(args, kwargs)
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            return self._f(*args, **kwargs)
        try:
            signature, arrays = self._signature(static, leaves, structure)
        except _ClosesOverTrace:
            return self._f(*args, **kwargs)  # part of the outer trace, as if it were written there
        outputs = signature.executable(*arrays)
        plain = (
            not kwargs
            and not static
            and self._backend == "numba"
            and all(type(x) is np.ndarray for x in leaves)
        )
        if plain:
            self._hot = signature
        return signature.pack(outputs)

    def _split(self, args: tuple, kwargs: dict) -> tuple[tuple, list[Any], Any]:
        """Static arguments by key, and the leaves and structure of the others."""
        numbers = {n % len(args) for n in self._static_argnums if -len(args) <= n < len(args)}
        static: list[tuple[Any, Any]] = [(n, args[n]) for n in sorted(numbers)]
        static += [(k, kwargs[k]) for k in sorted(kwargs) if k in self._static_argnames]
        dynamic = tuple(a for n, a in enumerate(args) if n not in numbers)
        named = {k: v for k, v in kwargs.items() if k not in self._static_argnames}
        leaves, structure = pytree.flatten((dynamic, named))
        # Strings, callables and other non-numbers inside the arguments are static too: they decide what is traced.
        static += [(("leaf", i), leaf) for i, leaf in enumerate(leaves) if not isinstance(leaf, _DYNAMIC)]
        return tuple(static), leaves, structure

    def _signature(self, static: tuple, leaves: list[Any], structure: Any) -> tuple[Signature, list[Any]]:
        fixed, avals, arrays = _dynamic(static, leaves)
        key = (
            structure,
            avals,
            tuple((k, type(v), v) for k, v in static),
        )  # 1, 1.0 and True trace differently
        try:
            found = self._signatures.get(key)
        except TypeError:
            bad = next(v for _, v in static if not _hashable(v))
            raise ArgumentError(
                f"a static argument must be hashable, got {type(bad).__name__}", at=user_line()
            ) from None
        if found is None:
            with self._lock:
                found = self._signatures.get(key) or self._build(static, leaves, structure, avals, fixed)
                self._signatures[key] = found
        return found, arrays

    def _build(
        self, static: tuple, leaves: list[Any], structure: Any, avals: tuple[Aval, ...], fixed: set[int]
    ) -> Signature:
        graph, tree = self._trace(static, leaves, structure, avals, fixed)
        if any(isinstance(value, Tracer) for _, value in graph.captured):
            raise _ClosesOverTrace
        executable = Executable(graph, backend=self._backend, threads=self._threads)
        args_are_leaves = structure == pytree.flatten((tuple(range(len(avals))), {}))[1] and not fixed
        return Signature(executable, structure, None if tree == pytree.LEAF else tree, args_are_leaves)

    def _trace(
        self, static: tuple, leaves: list[Any], structure: Any, avals: tuple[Aval, ...], fixed: set[int]
    ) -> tuple[Graph, Any]:
        """The graph of the flat function, and how its outputs nest."""
        tree: list[Any] = []

        def flat(*arrays: Any) -> list[Any]:
            given = iter(arrays)
            values = [leaf if i in fixed else next(given) for i, leaf in enumerate(leaves)]
            dynamic, named = pytree.unflatten(structure, values)
            args, kwargs = _merge(static, dynamic, named)
            outputs, out_structure = pytree.flatten(self._f(*args, **kwargs))
            tree.append(out_structure)
            return [_output(o) for o in outputs]

        return trace(flat, avals, name=getattr(self._f, "__name__", "f")), tree[0]

    def lower(self, *args: Any, **kwargs: Any) -> Graph:
        """The traced graph for these arguments, nothing compiled."""
        static, leaves, structure = self._split(args, kwargs)
        fixed, avals, _ = _dynamic(static, leaves)
        return self._trace(static, leaves, structure, avals, fixed)[0]

    def compile(self, *args: Any, **kwargs: Any) -> Executable:
        """The `Executable` for these arguments (arrays of the right shapes and dtypes), compiled but not run."""
        static, leaves, structure = self._split(args, kwargs)
        return self._signature(static, leaves, structure)[0].executable

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        return f"<compiled {getattr(self._f, '__name__', self._f)!s}, {len(self._signatures)} signatures>"


def _dynamic(static: tuple, leaves: list[Any]) -> tuple[set[int], tuple[Aval, ...], list[Any]]:
    """Which leaves are static; avals and arrays of the others."""
    fixed = {key[1] for key, _ in static if isinstance(key, tuple)}
    dynamic = [leaf for i, leaf in enumerate(leaves) if i not in fixed]
    avals = tuple(_aval(leaf) for leaf in dynamic)
    arrays = [
        a if isinstance(a, np.ndarray) else np.asarray(a, v.dtype)
        for a, v in zip(dynamic, avals, strict=True)
    ]
    return fixed, avals, arrays


class _ClosesOverTrace(Exception):
    """The function reads values of a trace under way: it cannot be compiled apart from it."""


def _merge(static: tuple, dynamic: tuple, named: dict) -> tuple[tuple, dict]:
    positions = {key: value for key, value in static if isinstance(key, int)}
    rest = iter(dynamic)
    args = tuple(positions[n] if n in positions else next(rest) for n in range(len(positions) + len(dynamic)))
    return args, named | {key: value for key, value in static if isinstance(key, str)}


def _positions(f: Callable, names: Sequence[str]) -> tuple[int, ...]:
    """Where in the argument list the parameters ``names`` stand: they are static however they are passed."""
    try:
        parameters = list(inspect.signature(f).parameters)
    except (TypeError, ValueError):
        return ()
    return tuple(parameters.index(name) for name in names if name in parameters)


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _as_tuple(value: Any) -> tuple:
    return value if isinstance(value, tuple) else tuple(value) if isinstance(value, list) else (value,)


def _aval(leaf: Any) -> Aval:
    return leaf.aval if isinstance(leaf, Tracer) else aval_of(leaf)


def _output(value: Any) -> Any:
    if not isinstance(value, _DYNAMIC):
        raise DTypeError(
            f"a traced function must return arrays or numbers, got {type(value).__name__}", at=user_line()
        )
    return value


# -- the public functions ----------------------------------------------------------------------------------------------


def jit(
    f: Callable,
    *,
    backend: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
) -> Jitted:
    """Compile ``f``: traced at the first call with each signature, then replayed as one native call.

    Args: ``f`` takes and returns any nesting of arrays and numbers. ``backend`` "numba" (compiled) or "numpy" (the
    interpreter). ``threads`` at most; by default all that the process may use. ``static_argnums`` and
    ``static_argnames`` name arguments that are traced as Python values.
    Returns: a function that returns fresh NumPy arrays in the nesting of ``f``'s result.

    >>> f = jit(lambda x: (x * x).sum())
    >>> f(np.array([1.0, 2.0]))
    array(5.)
    """
    options = {"backend": backend, "threads": threads, "precision": precision}
    options |= {"static_argnums": _freeze(static_argnums), "static_argnames": _freeze(static_argnames)}
    return _memoised(f, "jit", options, lambda: Jitted(f, options))


def value_and_grad(
    f: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False, **options: Any
) -> Jitted:
    """``(f(*args), gradient)`` in one pass each way.

    Args: ``f`` returns a float scalar, or ``(scalar, aux)`` with ``has_aux``. ``argnums``: which arguments to
    differentiate by (an int gives one gradient, a sequence a tuple). ``options`` as in `jit`.
    Returns: ``(value, grad)``, or ``((value, aux), grad)``; the gradient has the nesting, shapes and dtypes of the argument.
    Raises: `ShapeError` where ``f`` is no scalar; `DTypeError` for an argument of integers.

    >>> value_and_grad(lambda x: (x * x).sum())(np.array([1.0, 2.0]))
    (array(5.), array([2., 4.]))
    """
    argnums = _freeze(argnums)
    key = {"argnums": argnums, "has_aux": has_aux, **options}

    def make() -> Jitted:
        return Jitted(_renamed(f, "value_and_grad", _value_and_grad(f, argnums, has_aux)), options)

    return _memoised(f, "value_and_grad", key, make)


def grad(f: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False, **options: Any) -> Jitted:
    """The gradient of a scalar function. Arguments and errors as `value_and_grad`.

    Returns: the gradient, or ``(gradient, aux)`` with ``has_aux``. ``grad(grad(f))`` works.

    >>> grad(lambda x: x**3)(2.0)
    array(12.)
    """
    argnums = _freeze(argnums)
    key = {"argnums": argnums, "has_aux": has_aux, **options}

    def make() -> Jitted:
        both = _value_and_grad(f, argnums, has_aux)

        def gradient(*args: Any, **kwargs: Any) -> Any:
            value, gradients = both(*args, **kwargs)
            return (gradients, value[1]) if has_aux else gradients

        return Jitted(_renamed(f, "grad", gradient), options)

    return _memoised(f, "grad", key, make)


def _value_and_grad(f: Callable, argnums: Any, has_aux: bool) -> Callable:
    """The function to trace: it differentiates ``f``'s graph and replays the joint graph into the trace at hand."""
    numbers = argnums if isinstance(argnums, tuple) else (argnums,)

    def both(*args: Any, **kwargs: Any) -> Any:
        chosen = _chosen(args, numbers)
        leaves, structure = pytree.flatten([args[n] for n in chosen])
        for leaf in leaves:
            if _aval(leaf).dtype.kind != "f":
                raise DTypeError(
                    f"grad: differentiates by float arguments, got {_aval(leaf)}",
                    hint=".astype(np.float64)",
                    at=user_line(),
                )
        parts: dict[str, Any] = {}

        def flat(*values: Any) -> list[Any]:
            new = list(args)
            for n, value in zip(chosen, pytree.unflatten(structure, values), strict=True):
                new[n] = value
            result = f(*new, **kwargs)
            value, aux = result if has_aux else (result, None)
            parts["aux"] = pytree.flatten(aux)
            outs = pytree.flatten(value)[0]
            shown = (
                _aval(outs[0]) if len(outs) == 1 and isinstance(outs[0], _DYNAMIC) else f"{len(outs)} values"
            )
            if not isinstance(shown, Aval) or shown.shape:
                raise ShapeError(
                    f"grad: the function must return a scalar, got {shown}",
                    hint="fg.jacrev, or fg.vjp with a cotangent",
                )
            if shown.dtype.kind != "f":
                raise DTypeError(
                    f"grad: the function must return a float, got {shown}", hint=".astype(np.float64)"
                )
            return [outs[0], *parts["aux"][0]]

        graph = trace(flat, [_aval(leaf) for leaf in leaves], name=getattr(f, "__name__", "f"))
        joint = autodiff.vjp(graph, range(len(leaves)))
        seeds = [np.ones((), a.aval.dtype)[()] for a in graph.outputs[:1]]
        seeds += [_zero(a.aval) for a in graph.outputs[1:] if autodiff.is_float(a)]
        results = inline(joint, [*leaves, *seeds])
        n = len(graph.outputs)
        gradients = pytree.unflatten(structure, results[n:])
        aux = pytree.unflatten(parts["aux"][1], results[1:n])
        value = (results[0], aux) if has_aux else results[0]
        return value, tuple(gradients) if isinstance(argnums, tuple) else gradients[0]

    return both


def _zero(aval: Aval) -> np.ndarray:
    return np.zeros(aval.shape, aval.dtype)


def _chosen(args: tuple, numbers: tuple[int, ...]) -> list[int]:
    for n in numbers:
        if not isinstance(n, int) or not -len(args) <= n < len(args):
            raise ArgumentError(f"grad: argnums {n!r} with {len(args)} positional arguments", at=user_line())
    return [n % len(args) for n in numbers]


def _renamed(f: Callable, how: str, new: Callable) -> Callable:
    new.__name__ = new.__qualname__ = f"{how}({getattr(f, '__name__', 'f')})"
    new.__doc__ = f.__doc__
    return new


def _freeze(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple | range) else value


_memo_lock = threading.Lock()


def _memoised(f: Callable, how: str, options: dict[str, Any], make: Callable[[], T]) -> T:
    """One transformed function per (f, options). It is kept on ``f`` itself, and so lives and dies with it."""
    if not inspect.isfunction(f):
        return make()
    key = (how, tuple(sorted((k, v) for k, v in options.items() if v is not None)))
    with _memo_lock:
        memo = f.__dict__.setdefault("__fastgrad__", {})
        if key not in memo:
            memo[key] = make()
        return memo[key]
