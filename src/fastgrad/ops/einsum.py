"""``np.einsum``: sums of products in index notation, as transposes, matrix products and sums.

Several operands are contracted two at a time, in the order that ``np.einsum_path`` finds greedily from the shapes alone
(D. G. A. Smith and J. Gray, "opt_einsum", 2018); each pair is one stack of matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError, UnsupportedError, user_line
from .arrangement import diagonal
from .elementwise import mul_p
from .linalg import matmul
from .movement import transpose_p
from .operands import aval, operand, shape_of
from .pointwise import promote
from .reduce import sum
from .shaping import broadcast_to_p, reshape_p

_ELLIPSIS_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def einsum(subscripts: str, *operands: Any, optimize: Any = True) -> Any:
    """Sum of products by Einstein's convention: ``einsum("ij,jk->ik", x, y)`` is ``x @ y``.

    An index that is missing from the output is summed; one that stands twice in an operand takes its diagonal; ``...``
    stands for the axes that broadcast. Without ``->`` the output holds the indices that appear once, in order.
    Raises: `ShapeError` for subscripts that do not fit the operands, `UnsupportedError` for lists of axis numbers.

    >>> einsum("ij,ij->i", np.ones((2, 3)), np.ones((2, 3)))
    array([3., 3.])
    """
    if not isinstance(subscripts, str):
        raise UnsupportedError(
            "einsum: wants its subscripts as a string", hint='np.einsum("ij,jk->ik", x, y)', at=user_line()
        )
    values = promote(*map(operand, operands))
    inputs, output = _parse(subscripts, [len(shape_of(v)) for v in values])
    terms = [_without_repeats(*term) for term in zip(inputs, values, strict=True)]
    sizes = _sizes(subscripts, terms)
    for pair in _path(terms, output, sizes):
        chosen = [terms[i] for i in pair]
        terms = [t for i, t in enumerate(terms) if i not in pair]
        kept = set(output).union(*(letters for letters, _ in terms))
        terms.append(_contract(chosen, kept, sizes) if len(chosen) == 2 else chosen[0])
    letters, value = _summed(terms[0], set(output))
    return transpose_p(value, perm=tuple(letters.index(c) for c in output))


Term = tuple[str, Any]
"""An operand with the letter of each of its axes."""


def _parse(subscripts: str, ndims: Sequence[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the output, the ellipsis written out in letters of its own."""
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(ndims):
        raise _bad(subscripts, f"{len(inputs)} terms for {len(ndims)} operands")
    free = [c for c in _ELLIPSIS_LETTERS if c not in subscripts]
    widest, written = 0, []
    for term, ndim in zip(inputs, ndims, strict=True):
        named = term.replace("...", "", 1)
        if not all(c.isascii() and c.isalpha() for c in named):
            raise _bad(subscripts, f"the term {term!r} holds more than letters and one ellipsis")
        extra = ndim - len(named) if "..." in term else 0
        if extra < 0 or len(named) + extra != ndim:
            raise _bad(subscripts, f"the term {term!r} names {len(named)} axes of an operand of {ndim}")
        widest = max(widest, extra)
        written.append((term, extra))
    dots = "".join(free[:widest])
    inputs = [term.replace("...", dots[widest - extra :]) for term, extra in written]
    if arrow:
        output = output.replace("...", dots)
    else:
        once = "".join(inputs)
        output = dots + "".join(sorted(c for c in set(once) - set(dots) if once.count(c) == 1))
    if len(set(output)) < len(output) or not set(output) <= set("".join(inputs)):
        raise _bad(subscripts, f"the output {output!r} must hold letters of the operands, each once")
    return inputs, output


def _bad(subscripts: str, why: str) -> ShapeError:
    return ShapeError(f"einsum: {subscripts!r}: {why}", at=user_line())


def _without_repeats(letters: str, value: Any) -> Term:
    """Diagonals in place of axes that share a letter."""
    for c in dict.fromkeys(letters):
        while letters.count(c) > 1:
            i, j = letters.index(c), letters.rindex(c)
            if shape_of(value)[i] != shape_of(value)[j]:
                raise _bad(letters, f"the axes {c!r} of {aval(value)} must be equal")
            value = diagonal(value, 0, i, j)
            letters = letters[:i] + letters[i + 1 : j] + letters[j + 1 :] + c
    return letters, value


def _sizes(subscripts: str, terms: Sequence[Term]) -> dict[str, int]:
    """The size of each letter; 1 stretches."""
    sizes: dict[str, int] = {}
    for letters, value in terms:
        for c, n in zip(letters, shape_of(value), strict=True):
            if sizes.setdefault(c, n) != n:
                if 1 not in (n, sizes[c]):
                    got = ", ".join(str(aval(v)) for _, v in terms)
                    raise _bad(subscripts, f"the sizes of {c!r} differ, got {got}")
                sizes[c] = n if sizes[c] == 1 else sizes[c]  # 0 too
    return sizes


def _path(terms: Sequence[Term], output: str, sizes: dict[str, int]) -> list[tuple[int, ...]]:
    """Which operands to contract in turn, by their places; the result of each step stands last."""
    count = len(terms)
    if count <= 2:
        return [tuple(range(count))]
    equation = ",".join(letters for letters, _ in terms) + "->" + output
    stand_ins = [np.broadcast_to(0.0, [sizes[c] for c in letters]) for letters, _ in terms]
    path: list[tuple[int, ...]] = []
    for step in np.einsum_path(equation, *stand_ins, optimize=("greedy", 2**62))[0][1:]:
        places = sorted(step)
        while len(places) > 1:  # where nothing is summed the path is one step of all operands
            path.append((places[0], places[1]))
            places = [i - 2 for i in places[2:]] + [count - 2] if len(places) > 2 else []
            count -= 1
    return path


def _summed(term: Term, kept: set[str]) -> Term:
    """The term added up over the letters that nobody needs any more."""
    letters, value = term
    axes = tuple(i for i, c in enumerate(letters) if c not in kept)
    if not axes:
        return term
    dtype = aval(value).dtype
    return "".join(c for c in letters if c in kept), sum(value, axes, dtype=dtype)


def _stretched(term: Term, sizes: dict[str, int], letters: set[str]) -> Any:
    """The value with the axes of ``letters`` at their full size."""
    shape = tuple(sizes[c] if c in letters else n for c, n in zip(term[0], shape_of(term[1]), strict=True))
    return broadcast_to_p(term[1], shape=shape) if shape != shape_of(term[1]) else term[1]


def _contract(pair: Sequence[Term], kept: set[str], sizes: dict[str, int]) -> Term:
    """Two operands into one: indices of both that are kept are batch axes, those that are not are summed in the product."""
    (a, _), (b, _) = pair
    x, y = (_summed(t, kept | set(other)) for t, other in zip(pair, (b, a), strict=True))
    common = set(x[0]) & set(y[0])
    xs, ys = (_stretched(t, sizes, common) for t in (x, y))
    size = dict(zip(x[0] + y[0], shape_of(xs) + shape_of(ys), strict=True))
    batch = [c for c in x[0] if c in common and c in kept]
    inner = [c for c in x[0] if c in common and c not in kept]
    left, right = ([c for c in letters if c not in common] for letters in (x[0], y[0]))
    rows, middle, columns = (math.prod(size[c] for c in group) for group in (left, inner, right))
    lead = tuple(size[c] for c in batch)
    xs = transpose_p(xs, perm=tuple(x[0].index(c) for c in (*batch, *left, *inner)))
    ys = transpose_p(ys, perm=tuple(y[0].index(c) for c in (*batch, *inner, *right)))
    if not inner:  # nothing to add up: an outer product
        out = mul_p(reshape_p(xs, shape=(*lead, rows, 1)), reshape_p(ys, shape=(*lead, 1, columns)))
    elif not left and not right:  # vectors: a sum of products, no matrices
        out = _summed(("".join((*batch, *inner)), mul_p(xs, ys)), set(batch))[1]
    else:
        out = matmul(
            reshape_p(xs, shape=(*lead, rows, middle)), reshape_p(ys, shape=(*lead, middle, columns))
        )
    letters = (*batch, *left, *right)
    return "".join(letters), reshape_p(out, shape=tuple(size[c] for c in letters))
