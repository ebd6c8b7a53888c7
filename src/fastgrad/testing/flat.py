"""A function at a point as the checks see it: float64 arrays in, a list of float arrays out, every one with a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import numpy as fnp
from .. import pytree
from ..arguments import aval
from ..errors import ArgumentError, CheckError, user_line
from ..forward import jvp
from ..pullback import vjp


@dataclass(frozen=True)
class Flat:
    """``f(*arrays) -> list of float arrays``, the point ``arrays``, and how all of them are called in messages."""

    check: str  # the public function at work
    f: Callable[..., list[Any]]
    arrays: list[np.ndarray]
    names: list[str]
    out_names: list[str]
    derivative: str = ""  # "rev of fwd" where f is itself a derivative of the user's function
    narrow: bool = False  # whether an output is float32: too coarse for steps that suit float64

    def values(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs, by calling the function as it is: no derivative rule of it is looked at."""
        with np.errstate(all="ignore"):
            return [np.array(o, np.float64) for o in self.f(*(np.array(a) for a in arrays))]

    def outputs(self) -> list[np.ndarray]:
        """The values at the point. Raises `CheckError` where they are not finite."""
        outputs = self.values(self.arrays)
        for name, value in zip(self.out_names, outputs, strict=True):
            if not np.isfinite(value).all():
                raise CheckError(
                    f"{self.check}: {name} is not finite at these arguments", hint="another point"
                )
        return outputs

    def how(self, mode: str) -> str:
        """The derivative that ``mode`` takes here: "fwd of rev"."""
        return f"{mode} of {self.derivative}" if self.derivative else mode


def flatten(check: str, f: Callable, args: Sequence[Any]) -> Flat:
    """``f`` at ``args`` as a function of its float leaves alone, taken to float64; other leaves stay as they are."""
    if not isinstance(args, tuple | list):
        raise ArgumentError(
            f"{check}: args is a tuple of arguments, got {type(args).__name__}",
            hint=f"{check}(f, (x,))",
            at=user_line(),
        )
    leaves, structure = pytree.flatten(tuple(args))
    moving = [i for i, leaf in enumerate(leaves) if _is_float(leaf)]
    if not moving:
        raise ArgumentError(
            f"{check}: no argument holds floats to differentiate by", hint="x.astype(np.float64)"
        )

    def named(*values: Any) -> list[tuple[str, Any]]:
        new = list(leaves)
        for i, value in zip(moving, values, strict=True):
            new[i] = value
        out = f(*pytree.unflatten(structure, new))
        pairs = zip(pytree.paths(out), pytree.flatten(out)[0], strict=True)
        return [(name, leaf) for name, leaf in pairs if _is_float(leaf)]

    def flat(*values: Any) -> list[Any]:
        return [fnp.asarray(leaf, np.float64) for _, leaf in named(*values)]

    arrays = [np.array(leaves[i], np.float64) for i in moving]
    with np.errstate(all="ignore"):
        found = named(*(a.copy() for a in arrays))
    out_names = [f"output{name}" for name, _ in found]
    narrow = any(aval(leaf).dtype.itemsize < 8 for _, leaf in found)
    if not out_names:
        raise ArgumentError(f"{check}: the function returns no floats")
    paths = pytree.paths(tuple(args))
    return Flat(check, flat, arrays, [f"args{paths[i]}" for i in moving], out_names, "", narrow)


def _is_float(leaf: Any) -> bool:
    """Whether a leaf is differentiated; strings and functions stay as they are, as under `fastgrad.jit`."""
    static = isinstance(leaf, str | bytes) or callable(leaf)
    return not static and aval(leaf).dtype.kind == "f"


# The derivatives that are checked, as traceable functions of flat arguments.


def pushed(flat: Flat) -> Callable[..., list[Any]]:
    """``(*arrays, *tangents) -> [*outputs, *their tangents]``: forward mode."""

    def push(*values: Any) -> list[Any]:
        n = len(flat.arrays)
        outputs, tangents = jvp(flat.f, values[:n], values[n:])
        return [*outputs, *tangents]

    return push


def pulled(flat: Flat) -> Callable[..., list[Any]]:
    """``(*arrays, *cotangents) -> [*outputs, *cotangents of the arrays]``: reverse mode."""

    def pull(*values: Any) -> list[Any]:
        outputs, pullback = vjp(flat.f, *values[: len(flat.arrays)])
        return [*outputs, *pullback(list(values[len(flat.arrays) :]))]

    return pull
