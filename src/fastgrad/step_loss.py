"""How a training step calls its loss: what stands before the batch, and what comes back.

    loss(params, [model_state], [key], *batch) -> value | (value, aux) | (value, new) | (value, (new, aux))

The graphs of a step take the same in this order, flat: the leaves of the parameters, those of the model state, the key
and the count of steps that the step's own key is made of, then the batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import pytree, random
from .api import _value_and_grad
from .arguments import DYNAMIC, aval
from .core.aval import Aval
from .core.graph import Tracer
from .errors import ArgumentError, DTypeError, ShapeError, user_line
from .ops.pointwise import cast, literal


class ModelState(NamedTuple):
    """What is known of the model state: how it nests, its leaves, their names."""

    structure: Any
    avals: list[Aval]
    names: list[str]


class StepResult(NamedTuple):
    """What one pass gives: the loss (and aux) nested for the caller, gradients and new model state as leaves."""

    value: Any
    grads: list[Any]
    staged: list[Any]


class StepLoss:
    """The loss of a training step, on flat values."""

    def __init__(
        self,
        loss: Callable,
        params: tuple[Any, list[Aval]],
        model: ModelState | None,
        keyed: bool,
        has_aux: bool,
    ):
        self._loss, self._has_aux, self._model, self._keyed = loss, has_aux, model, keyed
        self._structure, avals = params
        key = [Aval((2,), np.dtype(np.uint32)), Aval((), np.dtype(np.int64))] if keyed else []
        self.avals: list[Aval] = [*avals, *(model.avals if model else ()), *key]
        """The avals of all that stands before the batch."""
        self._n_params = len(avals)
        self._both = _value_and_grad(self._called, 0, has_aux or model is not None)

    def value(self, values: Sequence[Any], batch: Sequence[Any]) -> Any:
        """The loss alone, a scalar."""
        result = self._called(*self._arguments(values), *batch)
        return result[0] if self._has_aux or self._model else result

    def step(self, values: Sequence[Any], batch: Sequence[Any]) -> StepResult:
        """The loss, its gradients by the parameters, and the new model state, checked against the old."""
        value, grads = self._both(*self._arguments(values), *batch)
        flat = pytree.flatten(grads)[0]
        if self._model is None:
            return StepResult(value, flat, [])
        loss, rest = value
        new, value = (rest[0], (loss, rest[1])) if self._has_aux else (rest, loss)
        return StepResult(value, flat, pytree.flatten(new)[0])

    def _arguments(self, values: Sequence[Any]) -> list[Any]:
        n = self._n_params
        found = [pytree.unflatten(self._structure, values[:n])]
        if self._model is not None:
            m = n + len(self._model.avals)
            found.append(pytree.unflatten(self._model.structure, values[n:m]))
            n = m
        if self._keyed:
            found.append(random.fold_in(values[n], values[n + 1]))
        return found

    def _called(self, *args: Any) -> Any:
        self._check_signature(len(args))
        result = self._loss(*args)
        if self._model is None:
            return result
        pair = isinstance(result, tuple) and len(result) == 2
        if not pair or (self._has_aux and not (isinstance(result[1], tuple) and len(result[1]) == 2)):
            wanted = "(loss, (new model_state, aux))" if self._has_aux else "(loss, new model_state)"
            with_aux = " and has_aux" if self._has_aux else ""
            raise ArgumentError(
                f"TrainStep: with model_state{with_aux} the loss returns {wanted}, got {_shown(result)}",
                at=user_line(),
            )
        value, rest = result
        if self._has_aux:
            return value, (_checked(self._model, rest[0]), rest[1])
        return value, _checked(self._model, rest)

    def _check_signature(self, count: int) -> None:
        """Where Python would refuse a call for a key or model state, say what the step calls the loss with."""
        try:
            signature = inspect.signature(self._loss)
        except (TypeError, ValueError):
            return
        try:
            signature.bind(*[None] * count)
        except TypeError:
            names = list(signature.parameters)
            hint = self._missing(names)
            if hint is None and not self._keyed and self._model is None:
                return  # Python says it as well
            head = ["params"] + ["model_state"] * (self._model is not None) + ["key"] * self._keyed
            given = ", ".join([*head, *(f"batch[{i}]" for i in range(count - len(head)))])
            raise ArgumentError(
                f"TrainStep: the loss takes ({', '.join(names)}), the step calls it with ({given})",
                hint=hint,
                at=user_line(),
            ) from None

    def _missing(self, names: list[str]) -> str | None:
        if not self._keyed and {"key", "rng", "rng_key"} & set(names):
            return "TrainStep(..., key=fg.random.key(0))"
        if self._model is None and {"model_state", "state"} & set(names):
            return "TrainStep(..., model_state=...)"
        return None


def _shown(result: Any) -> str:
    if isinstance(result, tuple):
        return f"({', '.join(map(_shown, result))})"
    return str(aval(result)) if isinstance(result, DYNAMIC) else type(result).__name__


def _checked(model: ModelState, new: Any) -> Any:
    """The new model state in the dtypes of the old; an error where it differs in nesting, shape or dtype."""
    leaves, structure = pytree.flatten(new)
    if structure != model.structure:
        old, got = (
            str(pytree.unflatten(s, ["*"] * n)).replace("'*'", "*")
            for s, n in ((model.structure, len(model.avals)), (structure, len(leaves)))
        )
        raise ArgumentError(
            f"TrainStep: the new model_state must nest as the old one, got {got} for {old}", at=user_line()
        )
    checked = zip(leaves, model.avals, model.names, strict=True)
    return pytree.unflatten(structure, [_checked_leaf(*each) for each in checked])


def _checked_leaf(leaf: Any, old: Aval, name: str) -> Any:
    kind = aval(leaf) if isinstance(leaf, DYNAMIC) else None
    if kind is None:
        raise DTypeError(
            f"TrainStep: model_state{name} must stay {old}, the loss returned {type(leaf).__name__}",
            at=user_line(),
        )
    if kind.shape != old.shape:
        raise ShapeError(
            f"TrainStep: model_state{name} must stay {old}, the loss returned {kind}", at=user_line()
        )
    if kind.dtype != old.dtype and not (kind.weak and np.can_cast(kind.dtype, old.dtype, "same_kind")):
        raise DTypeError(
            f"TrainStep: model_state{name} must stay {old}, the loss returned {kind}",
            hint=f".astype(np.{old.dtype.name})",
            at=user_line(),
        )
    if isinstance(leaf, Tracer):
        return cast(leaf, old.dtype)
    return leaf if isinstance(leaf, np.ndarray) else literal(leaf, old.dtype).value
