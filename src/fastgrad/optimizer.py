"""What `TrainStep` and `fg.Tensor` ask of an optimizer."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .eager.stepping import Bound, tensors_in
from .errors import ArgumentError, user_line
from .ops.elementwise import divide, minimum, sqrt
from .ops.pointwise import cast
from .ops.reduce import sum as total

State = dict[str, Any]

_HINTS = {
    "param_groups": "; all tensors share the hyper-parameters: opt.lr = 1e-4, and an optimizer for each group",
    "state_dict": "; what is to be kept is opt.state (and pickle takes the optimizer)",
    "load_state_dict": "; write into opt.state (and pickle takes the optimizer)",
    "add_param_group": "; an optimizer for each group",
}


class _Binds(type):
    """Lets every optimizer be called with tensors to update before its own arguments, or as ``params=``."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        first = kwargs.get("params", args[0] if args else None)
        bind, params = tensors_in(first)
        if bind:
            if "params" in kwargs:
                del kwargs["params"]
            else:
                args = args[1:]
        elif params is not first:
            args = (
                iter(params),
                *args[1:],
            )  # an iterator over something else: an argument of the optimizer's own
        try:
            optimizer = super().__call__(*args, **kwargs)
        except (TypeError, ArgumentError) as error:
            if bind or not isinstance(params, list | tuple | dict):
                raise
            what = f"none in {type(first).__name__} ({error})" if params else "no tensors were given"
            raise ArgumentError(
                f"{cls.__name__}: to update needs fg.Tensor, {what}",
                hint="fg.Tensor(w, requires_grad=True)",
                at=user_line(),
            ) from error
        if bind:
            optimizer._bind(params)
        return optimizer

    @property
    def __signature__(cls) -> inspect.Signature:
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class Optimizer(metaclass=_Binds):
    """``update`` maps flat parameters, gradient and state to new ones; every hyper-parameter is a scalar of the state.

    ``slots`` names arrays shaped like the parameters (zeros at first); ``scalars`` gives float64 scalars and their first
    values, to be read and set while training (``step.state["optimizer"]["lr"][...] = 1e-4``). One called ``clip_norm``
    bounds the Euclidean norm of all gradients together (see `scaled`).

    Made with hyper-parameters alone it is for `TrainStep`. With `fg.Tensor` parameters first (or as ``params=``: a
    nesting or an iterator of leaves, each once) it is bound to them: `step` then applies the same rules to each from its
    ``.grad``, `zero_grad` forgets those, and ``state`` holds slots and scalars
    (``opt.lr = 1e-4``, ``opt.state["lr"] = 1e-4`` or ``opt.state["lr"][...] = 1e-4`` between steps, all the same).
    Pickled and deep-copied with the tensors (less their ``.grad``). `TrainStep` refuses a bound one.

    >>> w = fg.Tensor([1.0, 2.0], requires_grad=True)
    >>> opt = fg.optim.SGD([w], lr=0.5)
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> w
    Tensor([0., 0.], requires_grad=True)
    """

    slots: tuple[str, ...] = ()
    advances: tuple[str, ...] = ()
    """Scalars that `advance` changes; the others are written by the user alone."""
    _bound: Bound | None = None

    @property
    def scalars(self) -> dict[str, float]:
        """Names and first values of the scalars."""
        raise TypeError(f"{type(self).__name__} defines no scalars")

    def advance(self, scalars: State) -> State:
        """Once a step, before ``update``: the scalars of this step (a step count grows here); names in ``advances``."""
        return scalars

    def scaled(self, grads: Sequence[Any], scalars: State) -> list[Any]:
        """The gradients that ``update`` is handed: scaled down together where their norm exceeds ``clip_norm``.

        By ``min(1, clip_norm / (norm + 1e-6))``, as PyTorch's `clip_grad_norm_` (Pascanu, Mikolov, Bengio 2013, *On the
        difficulty of training recurrent neural networks*, algorithm 1). The norm is one more pass over the flat gradients;
        to scale is part of the update. A gradient that is NaN makes all of them NaN.
        """
        if "clip_norm" not in scalars:
            return list(grads)
        norm = sqrt(sum(cast(total(g * g), np.dtype(np.float64)) for g in grads))
        scale = minimum(1.0, divide(scalars["clip_norm"], norm + 1e-6))
        return [g * cast(scale, g.dtype) for g in grads]

    def update(self, p: Any, g: Any, slots: State, scalars: State) -> tuple[Any, State]:
        """New parameters and slots from flat ``p`` and ``g`` of one dtype; ``scalars`` as `advance` left them."""
        raise TypeError(f"{type(self).__name__} defines no update")

    def step(self) -> None:
        """Update the bound tensors in place from their ``.grad``; tensors whose ``.grad`` is None are left alone.

        One step count serves all tensors; it stands still where none has a gradient. `ArgumentError` when unbound.
        """
        self._tensors("step").step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set ``.grad`` of the bound tensors to None, or to zeros in place. `ArgumentError` when unbound."""
        self._tensors("zero_grad").zero_grad(set_to_none)

    def _bind(self, params: Any) -> None:
        bound = Bound(self, params)
        for name in bound.scalars:
            if name in vars(self) and not hasattr(type(self), name):
                del vars(self)[name]  # read from the state from now on, by `__getattr__`
        self.state = bound.state
        self._bound = bound

    def __getattr__(self, name: str) -> Any:
        bound = self._bound
        if bound is not None and name in bound.scalars:
            return float(bound.state[name])
        raise AttributeError(
            f"{type(self).__name__} has no {name!r}{_HINTS.get(name, '')}", name=name, obj=self
        )

    def __setattr__(self, name: str, value: Any) -> None:
        """On a bound optimizer hyper-parameters go on to the state, as if it were made with them."""
        bound = self._bound
        if bound is None:
            object.__setattr__(self, name, value)
            return
        if name == "state":
            raise self._settled(name)
        twin = self._twin(name, value, bound)
        if name in bound.scalars:
            bound.write({name: check(f"{type(self).__name__}: {name}", value, -math.inf)})
            if name not in vars(self):
                return
        else:
            old, new = self.scalars, twin.scalars
            if new.keys() != old.keys():
                raise self._settled(name)
            bound.write({k: v for k, v in new.items() if v != old[k]})
            bound.forget()  # the update may read the attribute
        object.__setattr__(self, name, getattr(twin, name))

    def _twin(self, name: str, value: Any, bound: Bound) -> Any:
        """An optimizer like this one, unbound, with another hyper-parameter; errors are those of its constructor."""
        kind = type(self)
        names = inspect.signature(kind).parameters
        if name in names and all(hasattr(self, n) for n in names):
            return kind(**({n: getattr(self, n) for n in names} | {name: value}))
        twin = object.__new__(kind)
        own = {k: v for k, v in vars(self).items() if k != "_bound"}
        vars(twin).update(own | {n: float(bound.state[n]) for n in bound.scalars} | {name: value})
        return twin

    def _settled(self, name: str) -> ArgumentError:
        kind = type(self).__name__
        return ArgumentError(
            f"{kind}.{name}: cannot be assigned once the optimizer is bound to tensors",
            hint='opt.state["lr"] = ...' if name == "state" else f"a new {kind}(tensors, {name}=...)",
            at=user_line(),
        )

    def _tensors(self, what: str) -> Bound:
        if self._bound is None:
            name = type(self).__name__
            raise ArgumentError(
                f"{name}.{what}: the optimizer is bound to no tensors",
                hint=f"fg.optim.{name}([w, b], ...) of fg.Tensor; an fg.TrainStep updates by itself",
                at=user_line(),
            )
        return self._bound


def check_norm(name: str, value: Any) -> float | None:
    """A bound of a norm, or None for none."""
    return None if value is None else check(name, value)


def check(name: str, value: Any, low: float = 0.0, high: float = math.inf) -> float:
    """``value`` as a float if it lies in ``[low, high)``."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number < high:
        raise ArgumentError(f"{name} must lie in [{low}, {high}), got {value!r}")
    return number
