"""The check of batching against a Python loop: `check_vmap`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import pytree
from ..core.aval import Aval
from ..errors import ArgumentError, CheckError
from ..mapped import vmap
from .differences import worst


def check_vmap(
    f: Callable, args: Sequence[Any], in_axes: Any = 0, out_axes: int = 0, *, rtol: float = 1e-9,
    atol: float = 1e-9, backends: Sequence[str | None] = (None,),
) -> None:  # fmt: skip
    """``f`` batched over ``in_axes`` against a Python loop that calls it on one example after the other.

    Args:
        f: a function of nestings of arrays to a nesting of arrays, written for one example.
        args: tuple of its positional arguments with the axis of examples; dtypes stay as they are.
        in_axes: an axis for all arguments, or one for each in a tuple, None for those that all examples share; within the
            tuple any nesting that is a prefix of the argument's.
        out_axes: where the outputs have the axis.
        rtol, atol: how far elements may differ.
        backends: where the batched function runs, e.g. ``("numpy", "numba")``; None is the default backend.
    Raises: `errors.CheckError` that names the output, the example and the element that differs most, and dtypes or shapes
    that differ; `errors.ArgumentError` where ``in_axes`` does not nest like the arguments or gives no one batch size.

    >>> check_vmap(lambda x, w: np.tanh(x @ w), (np.ones((4, 3)), np.ones((3, 2))), in_axes=(0, None))
    """
    args = tuple(args)
    leaves, structure = pytree.flatten(args)
    axes = _spread(tuple(in_axes) if isinstance(in_axes, list) else in_axes, args)
    for leaf, axis in zip(leaves, axes, strict=True):
        if axis is not None and not -np.ndim(leaf) <= axis < np.ndim(leaf):
            kind = Aval(np.shape(leaf), np.asarray(leaf).dtype)
            raise ArgumentError(
                f"check_vmap: {kind} has no axis {axis} of examples", hint="in_axes=(0, None)"
            )
    sizes = {np.shape(leaf)[axis] for leaf, axis in zip(leaves, axes, strict=True) if axis is not None}
    if len(sizes) != 1 or 0 in sizes:
        raise ArgumentError(
            f"check_vmap: wants one batch size of 1 or more over in_axes={in_axes}, got {sorted(sizes)}"
        )
    (size,) = sizes
    examples = []
    for i in range(size):
        row = [x if a is None else np.take(x, i, a) for x, a in zip(leaves, axes, strict=True)]
        examples.append(f(*pytree.unflatten(structure, row)))
    names = [f"output{path}" for path in pytree.paths(examples[0])]
    wanted = [
        np.stack([np.asarray(o) for o in column]) for column in zip(*map(_leaves, examples), strict=True)
    ]
    for backend in backends:
        batched = _leaves(vmap(f, in_axes, out_axes, backend=backend)(*args))
        head = f"check_vmap{f' (backend {backend!r})' if backend else ''}"
        for name, got, want in zip(names, batched, wanted, strict=True):
            _compare(f"{head}: {name}", np.moveaxis(np.asarray(got), out_axes, 0), want, rtol, atol)


def _leaves(tree: Any) -> list[Any]:
    return pytree.flatten(tree)[0]


def _spread(axes: Any, tree: Any) -> list[int | None]:
    """One axis for each leaf of ``tree``, of which the nesting of ``axes`` is a prefix."""
    if axes is None or isinstance(axes, int):
        return [axes] * len(_leaves(tree))
    if type(axes) is not type(tree) or len(axes) != len(tree):
        raise ArgumentError(f"check_vmap: in_axes={axes} does not nest like the arguments")
    keys = sorted(tree) if isinstance(tree, dict) else range(len(tree))
    return [axis for key in keys for axis in _spread(axes[key], tree[key])]


def _compare(head: str, got: np.ndarray, want: np.ndarray, rtol: float, atol: float) -> None:
    if got.shape != want.shape or got.dtype != want.dtype:
        mine, theirs = Aval(got.shape[1:], got.dtype), Aval(want.shape[1:], want.dtype)
        raise CheckError(f"{head}: an example is {mine} batched, {theirs} alone")
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        where = worst(a, b, rtol, atol, "the loop gives")
        if where is not None:
            raise CheckError(f"{head}, example {i}, {where}")
