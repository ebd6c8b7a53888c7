"""Stochastic gradient descent with momentum (Polyak 1964; Nesterov 1983 as in Sutskever et al. 2013)."""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentError
from ..ops.pointwise import cast
from ..optimizer import Optimizer, State, check


class SGD(Optimizer):
    """``p -= lr * d`` with ``d = g + weight_decay * p``, or its momentum ``b = momentum * b + d``; as PyTorch's.

    Args: `fg.Tensor` parameters come first where it is to update those (see `Optimizer`).
    ``lr`` learning rate; ``momentum`` in [0, 1); ``nesterov`` looks ahead (``d + momentum * b``); ``weight_decay``
    is L2, added to the gradient. Raises `ArgumentError` for values outside.

    >>> SGD(0.1, momentum=0.9, nesterov=True)
    SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.0)
    """

    def __init__(self, lr: float, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0):
        self.lr, self.momentum = check("SGD: lr", lr), check("SGD: momentum", momentum, 0.0, 1.0)
        self.nesterov, self.weight_decay = bool(nesterov), check("SGD: weight_decay", weight_decay)
        if self.nesterov and not self.momentum:
            raise ArgumentError("SGD: nesterov needs a momentum", hint="momentum=0.9")
        self.slots = ("momentum_buffer",) if self.momentum else ()

    @property
    def scalars(self) -> dict[str, float]:
        """Learning rate, and momentum and weight decay where they are on."""
        optional = {"momentum": self.momentum, "weight_decay": self.weight_decay}
        return {"lr": self.lr} | {name: value for name, value in optional.items() if value}

    def update(self, p: Any, g: Any, slots: State, scalars: State) -> tuple[Any, State]:
        """One step; see the class."""
        s = {name: cast(value, p.dtype) for name, value in scalars.items()}
        d = g + s["weight_decay"] * p if "weight_decay" in s else g
        if not slots:
            return p - s["lr"] * d, {}
        b = s["momentum"] * slots["momentum_buffer"] + d
        direction = d + s["momentum"] * b if self.nesterov else b
        return p - s["lr"] * direction, {"momentum_buffer": b}

    def __repr__(self) -> str:
        return f"SGD(lr={self.lr}, momentum={self.momentum}, nesterov={self.nesterov}, weight_decay={self.weight_decay})"
