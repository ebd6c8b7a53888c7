"""`jit`, `grad`, `value_and_grad`, `vjp`: functions of functions over the pipeline.

A transformed function called with traced values joins the trace at hand; called with arrays it compiles, once for each
signature (structure, shapes, dtypes, static values), and replays.
"""

from __future__ import annotations

import functools
import inspect
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from . import autodiff, machine, pytree
from .arguments import DYNAMIC, Call, Splitter
from .calls.rule import CustomRule
from .core.aval import Aval
from .core.graph import Graph, Tracer
from .errors import ArgumentError, DTypeError, user_line
from .executor.executable import Executable, check_backend
from .locks import Lock
from .passes.precision import check_precision
from .selection import Selection, check_scalar
from .signatures import Signatures
from .trace import inline, own, trace

T = TypeVar("T")
_OPTIONS = {"backend", "precision", "static_argnames", "static_argnums", "threads"}


def default_backend() -> str:
    """``FASTGRAD_BACKEND``, or "numba"."""
    return os.environ.get("FASTGRAD_BACKEND", "numba")


def _threads(threads: int | None) -> int:
    if threads is None:
        return machine.available_threads()
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1:
        raise ArgumentError(f"threads must be a positive integer, got {threads!r}")
    return min(int(threads), machine.available_threads())


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
        self.precision = check_precision(options.get("precision"))
        self._threads = _threads(options.get("threads"))
        self._splitter = Splitter(f, options.get("static_argnums", ()), options.get("static_argnames", ()))
        self._signatures: Signatures[Signature] = Signatures()
        self._hot: Signature | None = None
        self._lock = Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        hot = self._hot
        if hot is not None and not kwargs:
            try:
                leaves = args if hot.flat else hot.structure.flatten_up_to((args, kwargs))
            except ValueError:  # another nesting
                return self._cold(args, kwargs)
            outputs = hot.executable.try_call(leaves)
            if outputs is not None:
                return outputs[0] if hot.tree is None else hot.pack(outputs)
        return self._cold(args, kwargs)

    def _cold(self, args: tuple, kwargs: dict) -> Any:
        """Any call but the commonest: find or make the signature, convert the arrays, run."""
        call = self._splitter.split(args, kwargs)
        if any(isinstance(leaf, Tracer) for leaf in call.leaves):
            given, named = call.rebuild([own(x) for i, x in enumerate(call.leaves) if i not in call.fixed])
            return pytree.map(own, self._f(*given, **named))
        try:
            signature, arrays = self._signature(call)
        except _ClosesOverTrace:
            # Part of the outer trace, as if it were written there.
            return pytree.map(own, self._f(*args, **kwargs))
        outputs = signature.executable(*arrays)
        plain = not kwargs and not call.static and all(type(x) is np.ndarray for x in call.leaves)
        if plain and self._backend == "numba":
            self._hot = signature
        return signature.pack(outputs)

    def _signature(self, call: Call) -> tuple[Signature, list[Any]]:
        avals, arrays = call.dynamic()
        key = call.key(avals)
        found = self._signatures.get(key)
        if found is None:
            with self._lock.current:
                found = self._signatures.get(key)
                if found is None:
                    found = self._signatures.add(key, self._build(call, avals, self._signatures.why(key)))
        return found, arrays

    def _build(self, call: Call, avals: tuple[Aval, ...], why: str) -> Signature:
        graph, tree = self._trace(call, avals)
        if any(isinstance(value, Tracer) for _, value in graph.captured):
            raise _ClosesOverTrace
        executable = Executable(
            graph, backend=self._backend, threads=self._threads, precision=self.precision, why=why
        )
        args_are_leaves = (
            call.structure == pytree.flatten((tuple(range(len(avals))), {}))[1] and not call.fixed
        )
        return Signature(executable, call.structure, None if tree == pytree.LEAF else tree, args_are_leaves)

    def _trace(self, call: Call, avals: tuple[Aval, ...]) -> tuple[Graph, Any]:
        """The graph of the flat function, and how its outputs nest."""
        tree: list[Any] = []

        def flat(*arrays: Any) -> list[Any]:
            args, kwargs = call.rebuild(arrays)
            outputs, structure = pytree.flatten(self._f(*args, **kwargs))
            tree.append(structure)
            return [_output(o) for o in outputs]

        return trace(flat, avals, name=getattr(self._f, "__name__", "f")), tree[0]

    def lower(self, *args: Any, **kwargs: Any) -> Graph:
        """The traced graph for these arguments, nothing compiled."""
        call = self._splitter.split(args, kwargs)
        return self._trace(call, call.dynamic()[0])[0]

    def compile(self, *args: Any, **kwargs: Any) -> Executable:
        """The `Executable` for these arguments (arrays of the right shapes and dtypes), compiled but not run."""
        return self._signature(self._splitter.split(args, kwargs))[0].executable

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        return f"<compiled {getattr(self._f, '__name__', self._f)!s}, {len(self._signatures)} signatures>"


class _ClosesOverTrace(Exception):
    """The function reads values of a trace under way: it cannot be compiled apart from it."""


def _output(value: Any) -> Any:
    if not isinstance(value, DYNAMIC):
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
    ``precision`` "bfloat16": every float32 matrix product, forward and backward, takes its operands rounded to bfloat16
    (each off by up to 2^-8 of its value) and adds up in float32; all else stays float32, and so do parameters. Where the
    processor's own bfloat16 instructions multiply, operands, products and sums below 2^-126 in magnitude count as 0. Within
    a function that is itself compiled the outer one's ``precision`` holds.
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


def _value_and_grad(f: Callable, argnums: Any, has_aux: bool, op: str = "grad") -> Callable:
    """The function to trace: it differentiates ``f``'s graph and replays the joint graph into the trace at hand."""

    def both(*args: Any, **kwargs: Any) -> Any:
        chosen = Selection(op, args, argnums)
        flat = chosen.graph(f, kwargs, has_aux, check_scalar)
        joint = autodiff.vjp(flat.graph, range(len(chosen.leaves)), of=[0])
        results = inline(joint, [*chosen.leaves, flat.outputs[0].dtype.type(1)])
        gradients = chosen.nest(results[len(flat.graph.outputs) :])
        value = pytree.unflatten(flat.out, results[:1])
        return (value, flat.nest_aux(results)) if has_aux else value, gradients

    return both


def _renamed(f: Callable, how: str, new: Callable) -> Callable:
    if not callable(f):
        raise ArgumentError(f"{how}: expected a function, got {type(f).__name__}", at=user_line())
    new.__name__ = new.__qualname__ = f"{how}({getattr(f, '__name__', 'f')})"
    new.__doc__ = f.__doc__
    return new


def _freeze(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple | range) else value


_memo_lock = Lock()


def _memoised(f: Callable, how: str, options: dict[str, Any], make: Callable[[], T]) -> T:
    """One transformed function per (f, options). It is kept on ``f`` itself, and so lives and dies with it."""
    if not (inspect.isfunction(f) or isinstance(f, Jitted | CustomRule)):
        return make()
    given = {
        k: (type(v), v) for k, v in options.items() if v is not None
    }  # 1, 1.0 and True are three options
    key = (how, default_backend(), tuple(sorted(given.items(), key=lambda item: item[0])))
    try:
        hash(key)
    except TypeError:  # an option that no signature can be: the constructor says which
        return make()
    with _memo_lock.current:
        owner, memo = f.__dict__.get("__fastgrad__", (None, {}))
        if owner is None or owner() is not f:  # none yet, or functools.wraps copied that of another function
            memo = {}
            f.__dict__["__fastgrad__"] = (weakref.ref(f), memo)
        if key not in memo:
            memo[key] = make()
        return memo[key]
