"""while[cond, body, cond_consts, body_consts, bound]: a loop that runs as long as a condition holds.

    carry = init
    while cond(cond consts, carry):                        # at most ``bound`` times, where there is a bound
        carry = body(body consts, carry)
    -> carry

Operands ``cond consts..., body consts..., init...``. How often it runs is known at run time alone, so reverse mode, which
keeps something of every iteration, needs a bound: it is that of a scan of ``bound`` steps, each a switch between body
and standing still.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import autodiff, batching, pytree
from ..core.aval import Aval
from ..core.graph import Graph, Tracer
from ..core.loops import Region
from ..core.primitive import Primitive
from ..errors import ArgumentError, DTypeError, ShapeError, UnsupportedError, user_line
from ..interpreter import runner
from ..ops.comparison import logical_and
from ..ops.operands import operand, shape_of
from ..ops.pointwise import cast, cast_p, convert, select_p
from ..ops.reduce import any as any_
from ..ops.shaping import broadcast_to_p, reshape_p
from ..trace import close, current, inline
from .bodies import (
    Leaves,
    arranged,
    bind,
    check_callable,
    check_carry,
    check_operands,
    closed,
    initial,
    kept,
    nesting,
    number_aval,
    scalar_aval_of,
    zeros,
)
from .guard import guarded, may_be_refused
from .scan import scan, scan_p
from .switch import switch_p

# --- while[cond, body, cond_consts, body_consts, bound] ---------------------------------------------------------------


def _rule(
    *avals: Aval, cond: Graph, body: Graph, cond_consts: int, body_consts: int, bound: int | None
) -> tuple[Aval, ...]:
    first = cond_consts + body_consts
    init = avals[first:]
    check_operands("while, condition", [v.aval for v in cond.inputs], [*avals[:cond_consts], *init])
    check_operands("while", [v.aval for v in body.inputs], avals[cond_consts:])
    [pred] = [a.aval for a in cond.outputs]
    if pred.shape or pred.dtype != np.bool_:
        raise ShapeError(f"while: the condition must be a bool scalar, got {pred}")
    out = tuple(a.aval for a in body.outputs)
    check_carry("while", init, out)
    return out


def _reference(
    *arrays: Any, cond: Graph, body: Graph, cond_consts: int, body_consts: int, bound: int | None
) -> Any:
    test, step = runner(cond), runner(body)
    tested, fixed = arrays[:cond_consts], arrays[cond_consts : cond_consts + body_consts]
    values, count = list(arrays[cond_consts + body_consts :]), 0
    while (bound is None or count < bound) and test(*tested, *values)[0]:
        values = step(*fixed, *values)
        count += 1
    return values[0] if len(values) == 1 else tuple(values)


def _push(
    inputs: Sequence[Any], tangents: Sequence[Any], *, cond: Graph, body: Graph, **params: Any
) -> tuple:
    """Tangents ride along in the carry; the condition looks at values alone."""
    a, b = params["cond_consts"], params["body_consts"]
    n = len(inputs) - a - b
    given = [t is not None for t in tangents[a:]]
    while True:
        pushed, moved = autodiff.push(body, given, given[b:])
        if list(moved) == given[b:]:
            break
        given[b:] = moved
    pushed, extra = close(pushed)
    e = len(extra)
    mine = [i for i in range(b + n) if given[i]]
    dots = dict(zip(mine, pushed.inputs[e + b + n :], strict=True))
    fixed, moving = [i for i in mine if i < b], [i for i in mine if i >= b]
    order = [*pushed.inputs[: e + b], *(dots[i] for i in fixed)]
    order += [*pushed.inputs[e + b : e + b + n], *(dots[i] for i in moving)]
    values = inputs[a:]
    operands = [*inputs[:a], *extra, *values[:b], *(tangents[a + i] for i in fixed), *values[b:]]
    for i in moving:
        t, v = tangents[a + i], body.inputs[i].aval
        operands.append(zeros(v.shape, v.dtype) if t is None else t)
    tested = _with_more(cond, [body.inputs[i].aval for i in moving])
    results = bind(
        while_p, operands, cond=tested, body=arranged(pushed, order, pushed.outputs),
        **params | {"body_consts": e + b + len(fixed)},
    )  # fmt: skip
    rest = iter(results[n:])
    return results[:n], [next(rest) if given[b + i] else None for i in range(n)]


def _with_more(cond: Graph, avals: Sequence[Aval]) -> Graph:
    """The condition of a loop that carries more."""
    n = len(cond.inputs)
    return closed(lambda *args: inline(cond, args[:n]), [*(v.aval for v in cond.inputs), *avals], cond.name)[
        0
    ]


def _batch(args: Sequence[Any], batched: Sequence[bool], *, cond: Graph, body: Graph, **params: Any) -> tuple:
    """A condition for each element: the loop runs while one holds, and elements that are done stand still."""
    a, b = params["cond_consts"], params["body_consts"]
    size = next(shape_of(x)[0] for x, flag in zip(args, batched, strict=True) if flag)
    flags = list(batched[a + b :])
    while True:
        mapped, carried = batching.batch(body, [*batched[a : a + b], *flags], size, flags)
        tested, [each] = batching.batch(cond, [*batched[:a], *flags], size, [False])
        new = [each or c or f for c, f in zip(carried, flags, strict=True)]
        if new == flags:
            break
        flags = new
    guard = each and may_be_refused(body)
    if guard:
        inputs = [*batched[a : a + b], *flags]
        mapped = batching.batch(guarded(body, inputs), [True, False, *inputs], size, flags)[0]
    tested, cond_extra = close(tested)
    mapped, body_extra = close(mapped)
    init = [
        broadcast_to_p(x, shape=(size, *shape_of(x))) if flag and not was else x
        for x, flag, was in zip(args[a + b :], flags, batched[a + b :], strict=True)
    ]
    cond_consts, body_consts = [*cond_extra, *args[:a]], [*body_extra, *args[a : a + b]]
    if each:
        flags_at = len(body_extra) if guard else None
        return _batch_each(tested, mapped, cond_consts, body_consts, init, params["bound"], flags_at), flags
    results = bind(
        while_p, [*cond_consts, *body_consts, *init], cond=tested, body=mapped, cond_consts=len(cond_consts),
        body_consts=len(body_consts), bound=params["bound"],
    )  # fmt: skip
    return results, flags


def _batch_each(
    cond: Graph,
    body: Graph,
    cond_consts: list[Any],
    body_consts: list[Any],
    init: list[Any],
    bound: int | None,
    flags_at: int | None,
) -> list[Any]:
    """The conditions are part of the carry: computed once an iteration, and false for good where once false.

    A body that is guarded takes them, and whether any holds, from input ``flags_at`` on.
    """
    fixed = [*cond_consts, *body_consts]
    c, n = len(cond_consts), len(fixed)

    def step(*args: Any) -> list[Any]:
        alive, values = args[n], args[n + 1 :]
        given = [*args[c:n], *values]
        if flags_at is not None:  # that one of them holds is why it runs
            given[flags_at:flags_at] = [alive, operand(np.True_)]
        new = inline(body, given)
        new = [
            select_p(reshape_p(alive, shape=(*shape_of(alive), *(1,) * (len(shape_of(x)) - 1))), x, old)
            for x, old in zip(new, values, strict=True)
        ]
        [still] = inline(cond, [*args[:c], *new])
        return [logical_and(alive, still), *new]

    [alive] = inline(cond, [*cond_consts, *init])
    taken = [v.aval for v in body.inputs]
    if flags_at is not None:
        del taken[flags_at : flags_at + 2]
    kinds = [v.aval for v in cond.inputs[:c]] + taken[: n - c]
    state = [scalar_aval_of(alive), *taken[n - c :]]
    graph, extra = closed(step, [*kinds, *state], body.name)
    assert not extra
    test, _ = closed(lambda *args: [any_(args[0])], state, cond.name)
    return bind(
        while_p, [*fixed, alive, *init], cond=test, body=graph, cond_consts=0, body_consts=n, bound=bound
    )[1:]


def _pull(
    inputs: Sequence[Any], wanted: Sequence[bool], *, cond: Graph, body: Graph, cond_consts: int, body_consts: int,
    bound: int | None,
) -> tuple:  # fmt: skip
    if bound is None:
        builder = current()
        raise UnsupportedError(
            "while: reverse mode keeps something of every iteration, and needs to know how many there are at most",
            hint="bound=n, fg.fori_loop with Python integers, or fg.scan",
            at=builder.source if builder else None,
        )
    a, b = cond_consts, body_consts
    still = closed(lambda *args: args[b:], [v.aval for v in body.inputs], "still")[0]

    def step(*args: Any) -> list[Any]:
        [pred] = inline(cond, [*args[:a], *args[a + b :]])
        return bind(switch_p, [cast(pred, np.dtype(np.int64)), *args[a:]], branches=(still, body))

    avals = [*(v.aval for v in cond.inputs[:a]), *(v.aval for v in body.inputs)]
    graph, extra = closed(step, avals, body.name)
    assert not extra and scan_p.pull is not None
    return scan_p.pull(
        inputs, wanted, body=graph, consts=a + b, carry=len(body.outputs), length=bound, reverse=False
    )


while_p = Primitive(
    "while",
    abstract=_rule,
    reference=_reference,
    vjp=None,
    jvp=None,
    batch=_batch,
    kernel=Region("while"),
    pull=_pull,
    push=_push,
)


def while_loop(
    cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init_val: Any, *, bound: int | None = None
) -> Any:
    """``while cond_fun(val): val = body_fun(val)``, from ``init_val`` on; the last ``val``.

    Args: ``cond_fun`` gives a bool scalar; ``body_fun`` keeps structure, shapes and dtypes of its argument. ``bound``: at
    most that many iterations run, whatever the condition says; with it the loop has a reverse mode, which runs ``bound``
    cheap steps and keeps what each needs.
    Under `vmap` the loop runs while the condition of any element holds; elements that are done stand still.
    Raises: `ShapeError`, `DTypeError` for a carry that changes or a condition that is no bool scalar; `UnsupportedError` in
    reverse mode without a bound.

    >>> while_loop(lambda x: x < 100.0, lambda x: x * 2.0, 3.0)
    array(192.)
    """
    check_callable("while_loop", cond_fun=cond_fun, body_fun=body_fun)
    if bound is not None and (
        isinstance(bound, bool) or not isinstance(bound, int | np.integer) or bound < 0
    ):
        raise ArgumentError(f"while_loop: bound must be 0 or more, got {bound!r}", at=user_line())
    carry = Leaves("while_loop", "carry", init_val)
    if not carry.values:
        return init_val
    avals = list(carry.avals)
    promoted: dict[int, Aval] = {0: Aval((), np.dtype(bool))}

    def step(*args: Any) -> list[Any]:
        return kept("while_loop", carry, avals, body_fun(pytree.unflatten(carry.structure, args)), promoted)

    while promoted:
        promoted.clear()
        body, body_consts = closed(step, avals, getattr(body_fun, "__name__", "f"))
        for i, aval in promoted.items():
            avals[i] = aval
    cond, cond_consts = closed(
        lambda *args: [_condition(cond_fun(pytree.unflatten(carry.structure, args)))], avals,
        getattr(cond_fun, "__name__", "f"),
    )  # fmt: skip
    results = bind(
        while_p, [*cond_consts, *body_consts, *initial(carry, avals)], cond=cond, body=body,
        cond_consts=len(cond_consts), body_consts=len(body_consts), bound=None if bound is None else int(bound),
    )  # fmt: skip
    return pytree.unflatten(carry.structure, results)


def _condition(pred: Any) -> Any:
    leaves = Leaves("while_loop", "the condition", pred)
    got = str(leaves.avals[0]) if len(leaves.avals) == 1 else nesting(leaves)
    if len(leaves.avals) != 1 or leaves.avals[0].shape:
        raise ShapeError(
            f"while_loop: the condition must be a bool scalar, got {got}",
            hint="pred.all()" if len(leaves.avals) == 1 else None,
            at=user_line(),
        )
    if leaves.avals[0].dtype != np.bool_:
        raise DTypeError(
            f"while_loop: the condition must be a bool scalar, got {got}", hint="x != 0", at=user_line()
        )
    return leaves.values[0]


def fori_loop(lower: Any, upper: Any, body_fun: Callable[[Any, Any], Any], init_val: Any) -> Any:
    """``for i in range(lower, upper): val = body_fun(i, val)``, from ``init_val`` on; the last ``val``.

    Args: with Python integers as bounds it is a `scan`, and has a reverse mode; with a traced bound a `while_loop`, which
    has none. ``body_fun`` keeps structure, shapes and dtypes of ``val``; ``i`` is an integer that promotes as a Python one.
    Raises: as `scan`; `DTypeError` for bounds that are no integer scalars.

    >>> fori_loop(0, 5, lambda i, total: total + i, 0)
    array(10)
    """
    check_callable("fori_loop", body_fun=body_fun)
    for name, value in (("lower", lower), ("upper", upper)):
        kind = number_aval("fori_loop", name, value)
        if kind.shape or kind.dtype.kind not in "iu":
            raise DTypeError(f"fori_loop: {name} must be an integer, got {kind}", at=user_line())

    def body(state: tuple) -> tuple:
        i, val = state
        return i + 1, body_fun(_as_python(i), val)

    if not isinstance(lower, Tracer) and not isinstance(upper, Tracer):
        start, stop = operator.index(lower), operator.index(upper)
        if stop - start <= _LISTED:
            numbers = np.arange(start, stop, dtype=_INT)
            return scan(lambda val, i: (body_fun(_as_python(i), val), None), init_val, numbers)[0]
        return scan(lambda state, _: (body(state), None), (_INT.type(start), init_val), length=stop - start)[
            0
        ][1]
    first, last = (convert(v, _INT) if isinstance(v, Tracer) else operator.index(v) for v in (lower, upper))

    return while_loop(lambda state: state[0] < last, body, (first, init_val))[1]


_INT = np.dtype(np.int64)
_LISTED = 1 << 16
"""Numbers of a loop up to which they are slices, so that what depends on them alone can leave the loop; further on, where
they would fill megabytes, they are counted."""


def _as_python(i: Any) -> Any:
    """The count as a weak integer, as the Python one that it stands for."""
    return cast_p(i, dtype=_INT, weak=True)
