"""Whole Jacobians: the pushforward (columns) or the pullback (rows) mapped over a basis, inside one graph.

The basis is never an array of its own: it is a comparison of row and column numbers, which fuses with whatever reads it.
What does not depend on the basis, the forward pass above all, is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from . import autodiff, batching, pytree
from .api import Jitted, _freeze, _memoised, _renamed
from .core.aval import Aval
from .ops.comparison import eq_p
from .ops.movement import slice_axis, transpose_p
from .ops.pointwise import cast_p
from .ops.shaping import reshape_p
from .selection import Flat, Selection, check_floats
from .trace import current, inline, lift


def jacfwd(f: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False, **options: Any) -> Jitted:
    """The Jacobian of ``f``, column by column: forward mode over all elements of the arguments at once.

    The better choice where ``f`` has fewer inputs than outputs, or about as many.

    Args: ``f`` returns a nesting of float arrays, or ``(out, aux)`` with ``has_aux``. ``argnums``: which arguments to
    differentiate by (an int gives one, a sequence a tuple). ``options`` as in `jit`.
    Returns: a function with the arguments of ``f`` that returns the nesting of ``f``'s output in which each leaf is
    replaced by the nesting of the argument (a tuple of them for a sequence of ``argnums``), with leaves of shape
    ``output.shape + argument.shape``; ``(jacobian, aux)`` with ``has_aux``.
    Raises: `DTypeError` for arguments or outputs that are no floats, naming them.

    >>> jacfwd(lambda x: x * x)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """
    return _transformed(f, "jacfwd", _jacfwd, argnums, has_aux, options)


def jacrev(f: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False, **options: Any) -> Jitted:
    """The Jacobian of ``f``, row by row: reverse mode over all elements of the output at once.

    The better choice where ``f`` has fewer outputs than inputs. Arguments, result and errors as `jacfwd`.

    >>> jacrev(lambda x: np.outer(x, x))(np.ones(3)).shape
    (3, 3, 3)
    """
    return _transformed(f, "jacrev", _jacrev, argnums, has_aux, options)


def hessian(f: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False, **options: Any) -> Jitted:
    """All second derivatives of ``f``: `jacfwd` of `jacrev`, forward over reverse.

    Args and errors as `jacfwd`. Returns: a function whose result nests as ``f``'s output, each leaf replaced by the nesting
    of the arguments, each leaf of that replaced by it again; shape ``output.shape + first.shape + second.shape``. For
    products with vectors use `hvp`, which never forms it.

    >>> hessian(lambda x: (x**3).sum())(np.array([1.0, 2.0]))
    array([[ 6.,  0.],
           [ 0., 12.]])
    """

    def made(f: Callable, argnums: Any, has_aux: bool) -> Callable:
        return _jacfwd(_jacrev(f, argnums, has_aux, "hessian"), argnums, has_aux, "hessian")

    return _transformed(f, "hessian", made, argnums, has_aux, options)


def _transformed(
    f: Callable, how: str, make: Callable, argnums: Any, has_aux: bool, options: dict[str, Any]
) -> Jitted:
    argnums = _freeze(argnums)
    key = {"argnums": argnums, "has_aux": has_aux, **options}
    return _memoised(f, how, key, lambda: Jitted(_renamed(f, how, make(f, argnums, has_aux)), options))


def _jacfwd(f: Callable, argnums: Any, has_aux: bool, op: str = "jacfwd") -> Callable:
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        chosen = Selection(op, args, argnums)
        flat = chosen.graph(f, kwargs, has_aux, check_floats)
        n = len(flat.graph.outputs)
        results, count = _over_basis(autodiff.jvp(flat.graph), chosen.leaves, chosen.avals, n)
        columns = []
        for out, tangents in zip(flat.outputs, results[n : n + flat.n_out], strict=True):
            blocks = _blocks(tangents, [a.shape for a in chosen.avals], count)
            columns.append([_last(block, len(out.shape)) for block in blocks])
        return _nested(flat, chosen, columns, results, has_aux)

    return jacobian


def _jacrev(f: Callable, argnums: Any, has_aux: bool, op: str = "jacrev") -> Callable:
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        chosen = Selection(op, args, argnums)
        flat = chosen.graph(f, kwargs, has_aux, check_floats)
        n = len(flat.graph.outputs)
        joint = autodiff.vjp(flat.graph, range(len(chosen.leaves)), of=range(flat.n_out))
        results, count = _over_basis(joint, chosen.leaves, flat.outputs, n)
        blocks = [_blocks(ct, [a.shape for a in flat.outputs], count) for ct in results[n:]]
        rows = [[of_leaf[i] for of_leaf in blocks] for i in range(flat.n_out)]
        return _nested(flat, chosen, rows, results, has_aux)

    return jacobian


def _over_basis(
    graph: Any, leaves: Sequence[Any], avals: Sequence[Aval], n: int
) -> tuple[list[Any], int | None]:
    """The outputs of ``graph`` on ``leaves`` and, one after the other, on every unit vector of what ``avals`` describe.

    The first ``n`` outputs do not depend on those; the others get a leading axis over the unit vectors, whose number is
    returned too. Of a single scalar the one unit vector is 1, and nothing is mapped: the number is None.
    """
    if len(avals) == 1 and not avals[0].shape:
        return inline(graph, [*leaves, avals[0].dtype.type(1)]), None
    count = sum(a.size for a in avals)
    batched = [False] * len(leaves) + [True] * len(avals)
    wanted = [i >= n for i in range(len(graph.outputs))]
    mapped, _ = batching.batch(graph, batched, count, wanted)
    return inline(mapped, [*leaves, *_basis(avals, count)]), count


def _basis(avals: Sequence[Aval], count: int) -> list[Any]:
    """The unit vectors of the concatenation of ``avals``, one array ``[count, *shape]`` for each of them."""
    builder, vectors, start = current(), [], 0
    for each in avals:
        rows = np.arange(count).reshape(count, *(1,) * each.ndim)
        columns = np.arange(start, start + each.size).reshape(each.shape)
        start += each.size
        vectors.append(cast_p(eq_p(lift(builder, rows), lift(builder, columns)), dtype=each.dtype))
    return vectors


def _blocks(stacked: Any, shapes: Sequence[tuple[int, ...]], count: int | None) -> list[Any]:
    """``[count, *rest]`` cut along its first axis into one ``[*shape, *rest]`` for each shape."""
    if count is None:
        return [stacked]
    ends = [0, *accumulate(math.prod(shape) for shape in shapes)]
    rest = stacked.shape[1:]
    return [
        reshape_p(slice_axis(stacked, 0, start, stop) if len(shapes) > 1 else stacked, shape=(*shape, *rest))
        for shape, (start, stop) in zip(shapes, pairwise(ends), strict=True)
    ]


def _last(block: Any, trailing: int) -> Any:
    """``[*leading, *trailing]`` -> ``[*trailing, *leading]``."""
    ndim = len(block.shape)
    split = ndim - trailing
    return transpose_p(block, perm=(*range(split, ndim), *range(split))) if split and trailing else block


def _nested(
    flat: Flat, chosen: Selection, rows: Sequence[Sequence[Any]], results: list[Any], has_aux: bool
) -> Any:
    """Outputs outside, arguments inside."""
    jacobian = pytree.unflatten(flat.out, [chosen.nest(row) for row in rows])
    return (jacobian, flat.nest_aux(results)) if has_aux else jacobian
