"""Adam (Kingma & Ba 2015, algorithm 1)."""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentError
from ..ops.elementwise import sqrt
from ..ops.pointwise import cast
from ..optimizer import Optimizer, State, check, check_norm


class Adam(Optimizer):
    """Adaptive moments with bias correction; ``eps`` stands outside the root and ``weight_decay`` is L2, as in PyTorch.

    Args: `fg.Tensor` parameters come first where it is to update those (see `Optimizer`).
    ``lr`` learning rate; ``betas`` decay rates of the two moments, each in [0, 1); ``eps``; ``weight_decay``;
    ``clip_norm`` bounds the norm of all gradients together, before anything else is done with them (None: no bound).
    Raises `ArgumentError` for values outside.

    >>> Adam(lr=2e-3)
    Adam(lr=0.002, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)
    """

    slots = ("exp_avg", "exp_avg_sq")
    advances = ("step",)

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
    ):
        self.lr = check("Adam: lr", lr)
        self.eps = check("Adam: eps", eps, 1e-37)  # not 0 in float32 either: a gradient of 0 would be 0 / 0
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ArgumentError(f"Adam: betas is a pair, got {betas!r}", hint="betas=(0.9, 0.999)")
        self.betas = (
            check("Adam: betas[0]", betas[0], 0.0, 1.0),
            check("Adam: betas[1]", betas[1], 0.0, 1.0),
        )
        self.weight_decay = check("Adam: weight_decay", weight_decay)
        self.clip_norm = check_norm("Adam: clip_norm", clip_norm)

    @property
    def scalars(self) -> dict[str, float]:
        """Hyper-parameters and the step count."""
        optional = {"weight_decay": self.weight_decay} if self.weight_decay else {}
        if self.clip_norm is not None:
            optional["clip_norm"] = self.clip_norm
        return {
            "lr": self.lr,
            "beta1": self.betas[0],
            "beta2": self.betas[1],
            "eps": self.eps,
            "step": 0.0,
        } | optional

    def advance(self, scalars: State) -> State:
        """The step count grows by one."""
        return scalars | {"step": scalars["step"] + 1.0}

    def update(self, p: Any, g: Any, slots: State, scalars: State) -> tuple[Any, State]:
        """One step; the bias corrections are scalars in float64, the rest is one pass over the parameters."""
        t, b1, b2 = scalars["step"], scalars["beta1"], scalars["beta2"]
        size = cast(scalars["lr"] / (1.0 - b1**t), p.dtype)
        root = cast(1.0 / sqrt(1.0 - b2**t), p.dtype)
        b1, keep1, b2, keep2, eps = (cast(x, p.dtype) for x in (b1, 1.0 - b1, b2, 1.0 - b2, scalars["eps"]))
        if "weight_decay" in scalars:
            g = g + cast(scalars["weight_decay"], p.dtype) * p
        m = b1 * slots["exp_avg"] + keep1 * g
        v = b2 * slots["exp_avg_sq"] + keep2 * (g * g)
        return p - size * m / (sqrt(v) * root + eps), {"exp_avg": m, "exp_avg_sq": v}

    def __repr__(self) -> str:
        clip = "" if self.clip_norm is None else f", clip_norm={self.clip_norm}"
        return (
            f"Adam(lr={self.lr}, betas={self.betas}, eps={self.eps}, weight_decay={self.weight_decay}{clip})"
        )
