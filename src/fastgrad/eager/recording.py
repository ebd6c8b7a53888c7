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
    """One recorded op. ``args`` as given (None once freed), ``values`` their arrays, ``outs`` those of the results.

    ``counters`` are those of changes in place, of the tensors among ``args`` and then of the results; ``stamps`` is what
    they said when the op ran.
    """

    __slots__ = (
        "__weakref__", "args", "counters", "number", "op", "outs", "retained", "stamps", "values", "wanted",
    )  # fmt: skip

    numbers = itertools.count()

    def __init__(
        self,
        op: Op,
        wanted: tuple[int, ...],
        args: Sequence[Any],
        values: list[Any],
        outs: Sequence[Any],
        counters: list[list[int]],
    ):
        for i, arg in enumerate(args):
            # NumPy counts no changes, and that an array is read-only says nothing of other views of its memory.
            if isinstance(arg, np.ndarray):
                values[i] = arg.copy()
        self.op, self.wanted, self.values, self.outs = op, wanted, values, outs
        self.args: Sequence[Any] | None = args
        self.number = next(Node.numbers)  # a topological order: an op's operands were made before it
        self.counters, self.stamps = counters, [c[0] for c in counters]
        self.retained: dict[int, weakref.ref] | None = None

    def changed(self) -> list[int]:
        """Positions among ``outs`` then ``args`` whose values were changed in place since."""
        if [c[0] for c in self.counters] == self.stamps:
            return []
        assert self.args is not None
        n = len(self.outs)
        places = [n + i for i, arg in enumerate(self.args) if isinstance(arg, Tracer)] + list(range(n))
        pairs = zip(places, self.counters, self.stamps, strict=True)
        return [place for place, counter, stamp in pairs if counter[0] != stamp]

    def free(self) -> None:
        """Drop what backward would need."""
        self.args, self.values, self.outs, self.counters, self.stamps = None, [], (), [], []


class Recorder(Builder):
    """The builder of all tensors. It never grows a graph; its level is below that of every trace, so that those win."""

    def __init__(self, tracer: type[Tracer]):
        super().__init__(tracer, level=-1, name="eager")
        self._ops: dict[tuple, Op] = {}

    def emit(self, prim: Primitive, args: Sequence[Any], params: Mapping[str, Any]) -> list[Any]:
        """Run ``prim[params](args)``; errors are those of a trace, with the user's line."""
        key: list[Any] = [prim]
        values: list[Any] = []
        counters: list[list[int]] = []
        wanted: tuple[int, ...] = ()
        for i, arg in enumerate(args):
            if isinstance(arg, Tracer):
                aval = arg.aval
                key += (aval.shape, aval.dtype)
                values.append(arg._value)  # type: ignore[attr-defined]
                counters.append(arg._version)  # type: ignore[attr-defined]
                if arg._requires:  # type: ignore[attr-defined]
                    wanted += (i,)
            elif isinstance(arg, Literal):
                key += (arg.value.dtype, arg.weak)
                values.append(arg.value)
            elif isinstance(arg, np.ndarray):
                key += (arg.shape, arg.dtype)
                values.append(arg)
            else:
                aval = _located(aval_of, arg)
                key += (aval.dtype, aval.weak)
                values.append(aval.dtype.type(arg))
        if params:
            key += params.items()
        op = self._op(tuple(key), prim, args, params)
        out = _located(_quietly, op.call, values)
        # Straight on for one result: this is the path of nearly every op, and its overhead is what users measure.
        outs = (out,) if op.single else out
        versions = [_version(out, args, values)] if op.single else [_version(o, args, values) for o in outs]
        node = None
        if wanted and op.differentiable and recording():
            node = Node(op, wanted, args, values, outs, counters + versions)
        if op.single:
            return [self._tensor(out, op.outs[0], node, 0, versions[0])]
        parts = zip(outs, op.outs, versions, strict=True)
        return [self._tensor(o, aval, node, i, version) for i, (o, aval, version) in enumerate(parts)]

    def _tensor(self, value: Any, aval: Aval, node: Node | None, index: int, version: list[int]) -> Any:
        tensor: Any = self.tracer.__new__(self.tracer)
        tensor._value, tensor.aval, tensor._version, tensor._index = value, aval, version, index
        if node is not None and aval.dtype.kind != "f":
            node = None
        tensor._grad, tensor._node, tensor._requires = None, node, node is not None
        return tensor

    def _op(self, key: tuple, prim: Primitive, args: Sequence[Any], params: Mapping[str, Any]) -> Op:
        try:
            op = self._ops.get(key)
        except TypeError:  # a parameter that cannot be hashed
            return _located(lambda: Op(prim, params, [_aval(a) for a in args]))
        if op is None:
            op = _located(lambda: Op(prim, params, [_aval(a) for a in args]))
            if len(self._ops) >= _KINDS:
                self._ops.clear()
            self._ops[key] = op
        return op


def _located(f: Callable[..., Any], *args: Any) -> Any:
    """``f(*args)``; errors say at which line of the user's."""
    try:
        return f(*args)
    except FastgradError as error:
        error.at = error.at or user_line()
        raise


def _aval(arg: Any) -> Aval:
    return arg.aval if isinstance(arg, Tracer | Literal) else aval_of(arg)


def _version(value: Any, args: Sequence[Any], values: Sequence[Any]) -> list[int]:
    """The counter of changes in place: that of an operand with which ``value`` shares its memory, else a new one."""
    if type(value) is np.ndarray:
        view = value.base is not None
        for i, given in enumerate(values):
            if given is value or (view and np.may_share_memory(given, value)):
                return args[i]._version if isinstance(args[i], Tracer) else [0]
    return [0]


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
