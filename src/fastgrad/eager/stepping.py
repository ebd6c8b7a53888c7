"""Tensors bound to an optimizer: its update over all of them, traced once and run in NumPy, in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .. import passes, pytree
from ..core.aval import Aval
from ..errors import ArgumentError, DTypeError, user_line
from ..interpreter import interpret
from ..trace import trace
from .tensor import Tensor


def tensors_in(value: Any) -> tuple[bool, Any]:
    """Whether ``value`` (a tensor, nesting or iterator) holds tensors, and the value (an iterator as the list it gave)."""
    if isinstance(value, Iterator):
        value = list(value)
    return any(isinstance(leaf, Tensor) for leaf in pytree.flatten(value)[0]), value


def _share(a: Tensor, b: Tensor) -> bool:
    """Whether a change of one would be seen in the other (what is read-only is written out before it changes)."""
    one, other = a._array(), b._array()
    return one.flags.writeable and other.flags.writeable and np.shares_memory(one, other)


class Bound:
    """The tensors of one optimizer, and its state: slots nested as the tensors were given, ``scalars`` as 0-d arrays."""

    def __init__(self, optimizer: Any, params: Any):
        self._optimizer = optimizer
        self.tensors, structure = pytree.flatten(params)
        self._check(type(optimizer).__name__, pytree.paths(params))
        self._slots = {name: [np.zeros(t.shape, t.dtype) for t in self.tensors] for name in optimizer.slots}
        self.state: dict[str, Any] = {
            name: pytree.unflatten(structure, arrays) for name, arrays in self._slots.items()
        }
        self.scalars = {name: np.array(float(v)) for name, v in optimizer.scalars.items()}
        self.state |= self.scalars
        self._updates: dict[tuple[int, ...], Callable[..., list[Any]]] = {}

    def _check(self, name: str, paths: Sequence[str]) -> None:
        seen: set[int] = set()
        memories: dict[
            int, list[tuple[Tensor, str]]
        ] = {}  # by the counter that those that share memory share
        for t, path in zip(self.tensors, paths, strict=True):
            if not isinstance(t, Tensor):
                raise ArgumentError(
                    f"{name}: parameter {path} is no fg.Tensor, got {type(t).__name__}",
                    hint="fg.Tensor(w, requires_grad=True)",
                    at=user_line(),
                )
            if t.dtype.kind != "f":
                raise DTypeError(
                    f"{name}: parameter {path} is {t.aval}, parameters are floats", at=user_line()
                )
            if not t.is_leaf:
                raise ArgumentError(
                    f"{name}: parameter {path} is the result of an op, only leaves can be updated",
                    hint="t.detach().requires_grad_()",
                    at=user_line(),
                )
            if id(t) in seen:
                raise ArgumentError(f"{name}: parameter {path} is given twice", at=user_line())
            seen.add(id(t))
            for other, where in memories.setdefault(id(t._version), []):
                if _share(t, other):
                    raise ArgumentError(
                        f"{name}: parameters {where} and {path} share memory: each step would change it twice",
                        hint="one of them, or .clone().detach().requires_grad_() of one",
                        at=user_line(),
                    )
            memories[id(t._version)].append((t, path))

    def write(self, scalars: Mapping[str, float]) -> None:
        """Set scalars of the state."""
        for name, value in scalars.items():
            self.scalars[name][...] = value
            self.state[name] = self.scalars[name]

    def forget(self) -> None:
        """Trace the update anew at the next step."""
        self._updates.clear()

    def __getstate__(self) -> dict[str, Any]:
        """Pickled and copied without the traced updates."""
        return vars(self) | {"_updates": {}}

    def step(self) -> None:
        """One update of all tensors that have a gradient; those without keep their slots as well."""
        chosen = tuple(i for i, t in enumerate(self.tensors) if t._grad is not None)
        if not chosen:
            return
        opt = self._optimizer
        update = self._updates.get(chosen)
        if update is None:
            update = self._updates[chosen] = self._traced(chosen)
        tensors = [self.tensors[i] for i in chosen]
        slots = [self._slots[name][i] for name in opt.slots for i in chosen]
        for name, scalar in self.scalars.items():
            if self.state[name] is not scalar:  # assigned, not written: its value counts, the array stays
                scalar[...] = self.state[name]
                self.state[name] = scalar
        scalars = self.scalars.values()
        with np.errstate(all="ignore"):
            new = iter(
                update(*(t._value for t in tensors), *(t._grad._value for t in tensors), *slots, *scalars)
            )
        for tensor in tensors:
            tensor._write(next(new))
        for slot in slots:
            slot[...] = next(new)
        for name in opt.advances:
            self.scalars[name][...] = next(new)

    def _traced(self, chosen: Sequence[int]) -> Callable[..., list[Any]]:
        """The optimizer's own rules over the tensors ``chosen``, as straight-line NumPy."""
        opt, n = self._optimizer, len(chosen)

        def update(*values: Any) -> list[Any]:
            rows = [values[i * n : (i + 1) * n] for i in range(2 + len(opt.slots))]
            scalars: Mapping[str, Any] = opt.advance(
                dict(zip(self.scalars, values[n * len(rows) :], strict=True))
            )
            params, slots = [], []
            rows[1] = opt.scaled(rows[1], scalars)
            for p, g, *mine in zip(*rows, strict=True):
                new, moved = opt.update(p, g, dict(zip(opt.slots, mine, strict=True)), dict(scalars))
                params.append(new)
                slots.append([moved[name] for name in opt.slots])
            by_slot = [row[i] for i in range(len(opt.slots)) for row in slots]
            return [*params, *by_slot, *(scalars[name] for name in opt.advances)]

        avals = [Aval(self.tensors[i].shape, self.tensors[i].dtype) for i in chosen] * (2 + len(opt.slots))
        avals += [Aval((), np.dtype(np.float64))] * len(self.scalars)
        # Copies: a result that is an operand (a slot that stays as it is) must not change while others are written.
        return interpret(passes.run(trace(update, avals, name="update")))

    def zero_grad(self, set_to_none: bool) -> None:
        """Forget the gradients, or set them to 0 in place."""
        for t in self.tensors:
            if set_to_none:
                t._grad = None
            elif t._grad is not None:
                t._grad.zero_()
