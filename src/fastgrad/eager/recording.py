"""An op on tensors: it runs by its reference at once and, where a gradient is wanted, leaves a `Node`.

What depends on the kinds of the operands alone (their shapes and dtypes, never their values) is found once and kept: the
avals of the results, and the backward rules (`Op`). In a loop an op therefore costs a look-up, the NumPy call and a node.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from functools import partial
from typing import Any

import numpy as np

from ..core.aval import Aval, aval_of
from ..core.graph import Builder, Literal, Tracer
from ..core.primitive import Primitive
from ..errors import FastgradError, user_line
from ..ops.pointwise import stop_gradient_p
from .mode import recording
from .rule import Rule

_KINDS = 4096
"""Kinds of ops that are remembered; beyond them all are forgotten and found again."""


class Op:
    """A primitive with parameters on operands of one kind."""

    __slots__ = ("avals", "call", "differentiable", "outs", "params", "prim", "rules", "single")

    def __init__(self, prim: Primitive, params: Mapping[str, Any], avals: Sequence[Aval]):
        self.prim, self.params, self.avals = prim, params, tuple(avals)
        # Values that are there are never weak: weakness is for numbers that are still to choose a dtype.
        self.outs = tuple(Aval(a.shape, a.dtype) for a in prim.abstract_outputs(avals, params))
        self.single = len(self.outs) == 1
        self.call: Callable[..., Any] = partial(prim.reference, **params) if params else prim.reference
        self.differentiable = prim is not stop_gradient_p and any(a.dtype.kind == "f" for a in self.outs)
        self.rules: dict[tuple[int, ...], Rule] = {}

    def rule(self, wanted: tuple[int, ...]) -> Rule:
        """The backward rule that gives cotangents to the inputs ``wanted``."""
        rule = self.rules.get(wanted)
        if rule is None:
            rule = self.rules[wanted] = Rule(self.prim, self.params, self.avals, self.outs, wanted)
        return rule


class Node:
    """One recorded op. ``args`` as given (None once freed), ``values`` their arrays, ``stamps`` their versions then."""

    __slots__ = (
        "__weakref__", "args", "number", "op", "outs", "retained", "stamps", "values", "versions", "wanted",
    )  # fmt: skip

    numbers = itertools.count()

    def __init__(self, op: Op, wanted: tuple[int, ...], args: Sequence[Any], values: list[Any]):
        self.op, self.wanted, self.values = op, wanted, values
        self.args: Sequence[Any] | None = args
        self.number = next(Node.numbers)  # a topological order: an op's operands were made before it
        self.stamps = [a._version[0] for a in args if isinstance(a, Tracer)]  # type: ignore[attr-defined]
        self.outs: tuple[Any, ...] = ()
        self.versions: tuple[tuple[list[int], int], ...] = ()  # of the outputs: the counter, and what it said
        self.retained: dict[int, weakref.ref] | None = None

    def changed(self) -> list[int]:
        """Positions among ``outs`` then ``args`` whose values were changed in place since."""
        assert self.args is not None
        found = [i for i, (version, stamp) in enumerate(self.versions) if version[0] != stamp]
        stamps = iter(self.stamps)
        for i, arg in enumerate(self.args, len(self.outs)):
            if isinstance(arg, Tracer) and arg._version[0] != next(stamps):  # type: ignore[attr-defined]
                found.append(i)
        return found

    def free(self) -> None:
        """Drop what backward would need."""
        self.args, self.values, self.outs, self.stamps, self.versions = None, [], (), [], ()


class Recorder(Builder):
    """The builder of all tensors. It never grows a graph; its level is below that of every trace, so that those win."""

    def __init__(self, tracer: type[Tracer]):
        super().__init__(tracer, level=-1, name="eager")
        self._ops: dict[tuple, Op] = {}

    def emit(self, prim: Primitive, args: Sequence[Any], params: Mapping[str, Any]) -> list[Any]:
        """Run ``prim[params](args)``; errors are those of a trace, with the user's line."""
        key: list[Any] = [prim]
        values: list[Any] = []
        wanted: tuple[int, ...] = ()
        for i, arg in enumerate(args):
            if isinstance(arg, Tracer):
                aval = arg.aval
                key += (aval.shape, aval.dtype)
                values.append(arg._value)  # type: ignore[attr-defined]
                if arg._requires:  # type: ignore[attr-defined]
                    wanted += (i,)
            elif isinstance(arg, Literal):
                key += (arg.value.dtype, arg.weak)
                values.append(arg.value)
            elif isinstance(arg, np.ndarray):
                key += (arg.shape, arg.dtype)
                values.append(arg)
            else:
                aval = self._located(aval_of, arg)
                key += (aval.dtype, aval.weak)
                values.append(aval.dtype.type(arg))
        if params:
            key += params.items()
        op = self._op(tuple(key), prim, args, params)
        try:
            out = _quietly(op.call, values)
        except FastgradError as error:
            error.at = error.at or user_line()
            raise
        node = None
        if wanted and op.differentiable and recording():
            node = Node(op, wanted, args, _own(args, values))
        return self._results(op, node, args, values, (out,) if op.single else out)

    def _op(self, key: tuple, prim: Primitive, args: Sequence[Any], params: Mapping[str, Any]) -> Op:
        try:
            op = self._ops.get(key)
        except TypeError:  # a parameter that cannot be hashed
            return self._located(Op, prim, params, [_aval(a) for a in args])
        if op is None:
            op = self._located(lambda: Op(prim, params, [_aval(a) for a in args]))
            if len(self._ops) >= _KINDS:
                self._ops.clear()
            self._ops[key] = op
        return op

    def _located(self, f: Callable[..., Any], *args: Any) -> Any:
        try:
            return f(*args)
        except FastgradError as error:
            error.at = error.at or user_line()
            raise

    def _results(
        self, op: Op, node: Node | None, args: Sequence[Any], values: Sequence[Any], outs: Sequence[Any]
    ) -> list[Any]:
        results = []
        for i, (value, aval) in enumerate(zip(outs, op.outs, strict=True)):
            tensor: Any = self.tracer.__new__(self.tracer)
            tensor._value, tensor.aval, tensor._grad, tensor._index = value, aval, None, i
            tensor._version = _version(value, args, values)
            mine = node if aval.dtype.kind == "f" else None
            tensor._node, tensor._requires = mine, mine is not None
            results.append(tensor)
        if node is not None:
            node.outs = tuple(outs)
            node.versions = tuple((t._version, t._version[0]) for t in results)
        return results


def _aval(arg: Any) -> Aval:
    return arg.aval if isinstance(arg, Tracer | Literal) else aval_of(arg)


def _version(value: Any, args: Sequence[Any], values: Sequence[Any]) -> list[int]:
    """The counter of changes in place: that of an operand with which ``value`` shares its memory, else a new one."""
    if isinstance(value, np.ndarray):
        view = value.base is not None
        for arg, given in zip(args, values, strict=True):
            if (given is value or (view and np.may_share_memory(given, value))) and isinstance(arg, Tracer):
                return arg._version  # type: ignore[attr-defined]
    return [0]


def _own(args: Sequence[Any], values: list[Any]) -> list[Any]:
    """``values`` as backward may keep them: NumPy has no counter of changes, so that its arrays are copied."""
    for i, arg in enumerate(args):
        if isinstance(arg, np.ndarray) and arg.flags.writeable:
            values[i] = arg.copy()
    return values


_quiet: list[Context] = []
"""Contexts in which NumPy does not warn. To enter one costs a tenth of ``np.errstate``; each serves one call at a time."""


def _quietly(f: Callable[..., Any], values: Sequence[Any]) -> Any:
    try:
        context = _quiet.pop()
    except IndexError:
        context = Context()
        context.run(partial(np.seterr, all="ignore"))
    try:
        return context.run(f, *values)
    finally:
        _quiet.append(context)
