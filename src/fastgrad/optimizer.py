"""What `TrainStep` and `fg.Tensor` ask of an optimizer."""

from __future__ import annotations

import inspect
import math
from typing import Any

from .eager.stepping import Bound, tensors_in
from .errors import ArgumentError, user_line

State = dict[str, Any]


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
            if bind or not isinstance(first, list | tuple | dict):
                raise
            raise ArgumentError(
                f"{cls.__name__}: to update needs fg.Tensor, none in {type(first).__name__} ({error})",
                hint="fg.Tensor(w, requires_grad=True)",
                at=user_line(),
            ) from error
        if bind:
            optimizer._bound = Bound(optimizer, params)
            optimizer.state = optimizer._bound.state
        return optimizer

    @property
    def __signature__(cls) -> inspect.Signature:
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class Optimizer(metaclass=_Binds):
    """``update`` maps flat parameters, gradient and state to new ones; every hyper-parameter is a scalar of the state.

    ``slots`` names arrays shaped like the parameters (zeros at first); ``scalars`` gives float64 scalars and their first
    values, to be read and set while training (``step.state["optimizer"]["lr"][...] = 1e-4``).

    Made with hyper-parameters alone it is for `TrainStep`. With `fg.Tensor` parameters first (or as ``params=``: a
    nesting or an iterator of leaves, each once) it is bound to them: `step` then applies the same rules to each from its
    ``.grad``, `zero_grad` forgets those, and ``state`` holds slots and scalars
    (``opt.state["lr"] = 1e-4`` or ``opt.state["lr"][...] = 1e-4`` between steps). `TrainStep` refuses a bound one.

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

    def _tensors(self, what: str) -> Bound:
        if self._bound is None:
            name = type(self).__name__
            raise ArgumentError(
                f"{name}.{what}: the optimizer is bound to no tensors",
                hint=f"fg.optim.{name}([w, b], ...) of fg.Tensor; an fg.TrainStep updates by itself",
                at=user_line(),
            )
        return self._bound


def check(name: str, value: Any, low: float = 0.0, high: float = math.inf) -> float:
    """``value`` as a float if it lies in ``[low, high)``."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number < high:
        raise ArgumentError(f"{name} must lie in [{low}, {high}), got {value!r}")
    return number
