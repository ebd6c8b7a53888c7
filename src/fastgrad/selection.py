"""Which arguments of a call are differentiated, and the flat graph of the function in those alone.

Everything else that the function is given (other arguments, keywords, what it closes over) stays as it is: a value of the
trace under way becomes a captured input of the graph, and is a constant to its derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from . import pytree
from .arguments import DYNAMIC, aval
from .core.aval import Aval
from .core.graph import Graph
from .errors import ArgumentError, DTypeError, ShapeError, user_line
from .trace import own, trace


class Flat(NamedTuple):
    """A graph of flat arrays: first the ``n_out`` outputs that nest as ``out``, then those of the auxiliary ``aux``."""

    graph: Graph
    out: Any
    aux: Any
    n_out: int

    @property
    def outputs(self) -> list[Aval]:
        """Shapes and dtypes of the outputs, auxiliary ones left out."""
        return [a.aval for a in self.graph.outputs[: self.n_out]]

    def nest_aux(self, values: Sequence[Any]) -> Any:
        """The auxiliary outputs among all ``values`` of the graph."""
        return pytree.unflatten(self.aux, values[self.n_out : len(self.graph.outputs)])


class Selection:
    """The positional arguments ``argnums`` of a call of ``f``, flattened: its ``leaves`` are what is differentiated.

    Raises: `ArgumentError` for numbers that name no argument, `DTypeError` for a leaf that is no float.
    """

    def __init__(self, op: str, args: tuple, argnums: Any):
        self.op, self.args = op, args
        self.single = not isinstance(argnums, tuple)
        self.chosen = _chosen(op, args, (argnums,) if self.single else argnums)
        self.leaves, self.structure = pytree.flatten([args[n] for n in self.chosen])
        for i, leaf in enumerate(self.leaves):
            if not isinstance(leaf, DYNAMIC) or aval(leaf).dtype.kind != "f":
                got = aval(leaf) if isinstance(leaf, DYNAMIC) else type(leaf).__name__
                raise DTypeError(
                    f"{op}: differentiates by float arguments, got {got} as argument {self.name(i)}",
                    hint=".astype(np.float64)",
                    at=user_line(),
                )
        self.avals = [aval(leaf) for leaf in self.leaves]

    def name(self, i: int) -> str:
        """How a message names leaf ``i``: ``[0]['w']``."""
        trees = {n: self.args[n] for n in self.chosen}
        return [f"[{n}]{path}" for n, tree in trees.items() for path in pytree.paths(tree)][i]

    def nest(self, values: Sequence[Any]) -> Any:
        """``values``, one a leaf, nested as the arguments: bare for one number, else a tuple."""
        nested = pytree.unflatten(self.structure, values)
        return nested[0] if self.single else tuple(nested)

    def replaced(self, values: Sequence[Any]) -> list[Any]:
        """All arguments, with ``values`` in place of the leaves and the others under handles of their own."""
        new = [None if n in self.chosen else pytree.map(own, arg) for n, arg in enumerate(self.args)]
        for n, value in zip(self.chosen, pytree.unflatten(self.structure, values), strict=True):
            new[n] = value
        return new

    def graph(
        self, f: Callable, kwargs: dict, has_aux: bool, check: Callable[[str, list[Any]], None] | None = None
    ) -> Flat:
        """``f`` as a function of the leaves. ``check(op, outputs)`` may refuse what it returns."""
        parts: dict[str, Any] = {}

        def flat(*values: Any) -> list[Any]:
            result = f(*self.replaced(values), **pytree.map(own, kwargs))
            out, aux = split_aux(self.op, result, has_aux)
            outs, parts["out"] = pytree.flatten(out)
            auxs, parts["aux"] = pytree.flatten(aux)
            parts["n_out"] = len(outs)
            for value in (*outs, *auxs):
                check_output(self.op, value)
            if check is not None:
                check(self.op, outs)
            return [*outs, *auxs]

        graph = trace(flat, self.avals, name=getattr(f, "__name__", "f"))
        return Flat(graph, parts["out"], parts["aux"], parts["n_out"])


def split_aux(op: str, result: Any, has_aux: bool) -> tuple[Any, Any]:
    """The output of a function and what it returns beside it."""
    if not has_aux:
        return result, None
    if not (isinstance(result, tuple) and len(result) == 2):
        raise ArgumentError(f"{op}: with has_aux the function must return (value, aux)", at=user_line())
    return result


def check_output(op: str, value: Any) -> None:
    """Refuse what no trace can return."""
    if not isinstance(value, DYNAMIC):
        raise DTypeError(
            f"{op}: the function must return arrays or numbers, got {type(value).__name__}", at=user_line()
        )


def check_scalar(op: str, outs: list[Any]) -> None:
    """Refuse all but one float scalar."""
    shown = aval(outs[0]) if len(outs) == 1 else f"{len(outs)} values"
    if not isinstance(shown, Aval) or shown.shape:
        raise ShapeError(
            f"{op}: the function must return a scalar, got {shown}",
            hint="fg.jacrev, or fg.vjp with a cotangent",
            at=user_line(),
        )
    if shown.dtype.kind != "f":
        raise DTypeError(
            f"{op}: the function must return a float, got {shown}",
            hint=".astype(np.float64)",
            at=user_line(),
        )


def check_floats(op: str, outs: list[Any]) -> None:
    """Refuse outputs that have no derivative."""
    for value in outs:
        if aval(value).dtype.kind != "f":
            raise DTypeError(
                f"{op}: the function must return floats, got {aval(value)}",
                hint=".astype(np.float64), or return it as aux with has_aux=True",
                at=user_line(),
            )


def _chosen(op: str, args: tuple, numbers: tuple[int, ...]) -> list[int]:
    for n in numbers:
        if isinstance(n, bool) or not isinstance(n, int) or not -len(args) <= n < len(args):
            raise ArgumentError(f"{op}: argnums {n!r} with {len(args)} positional arguments", at=user_line())
    chosen = [n % len(args) for n in numbers]
    if len(set(chosen)) < len(chosen):
        raise ArgumentError(f"{op}: argnums names an argument twice, got {numbers}", at=user_line())
    return chosen
