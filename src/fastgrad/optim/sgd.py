"""Stochastic gradient descent with momentum (Polyak 1964; Nesterov 1983 as in Sutskever et al. 2013)."""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentError
from ..ops.pointwise import cast
from ..optimizer import Optimizer, State, check, check_norm


class SGD(Optimizer):
    """``p -= lr * d`` with ``d = g + weight_decay * p``, or its momentum ``b = momentum * b + d``; as PyTorch's.

    Args: `fg.Tensor` parameters come first where it is to update those (see `Optimizer`).
    ``lr`` learning rate; ``momentum`` in [0, 1); ``nesterov`` looks ahead (``d + momentum * b``); ``weight_decay``
    is L2, added to the gradient; ``clip_norm`` bounds the norm of all gradients together, before anything else is done
    with them (None: no bound). Raises `ArgumentError` for values outside.

    >>> SGD(0.1, momentum=0.9, nesterov=True)
    SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.0)
    """

    def __init__(
        self,
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
    ):
        self.lr, self.momentum = check("SGD: lr", lr), check("SGD: momentum", momentum, 0.0, 1.0)
        self.nesterov, self.weight_decay = bool(nesterov), check("SGD: weight_decay", weight_decay)
        self.clip_norm = check_norm("SGD: clip_norm", clip_norm)
        if self.nesterov and not self.momentum:
            raise ArgumentError("SGD: nesterov needs a momentum", hint="momentum=0.9")
        self.slots = ("momentum_buffer",) if self.momentum else ()

    @property
    def scalars(self) -> dict[str, float]:
        """Learning rate; momentum, weight decay and the bound of the norm where they are on."""
        optional = {"momentum": self.momentum, "weight_decay": self.weight_decay}
        clip = {} if self.clip_norm is None else {"clip_norm": self.clip_norm}
        return {"lr": self.lr} | {name: value for name, value in optional.items() if value} | clip

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
        clip = "" if self.clip_norm is None else f", clip_norm={self.clip_norm}"
        head = f"SGD(lr={self.lr}, momentum={self.momentum}, nesterov={self.nesterov}"
        return f"{head}, weight_decay={self.weight_decay}{clip})"
