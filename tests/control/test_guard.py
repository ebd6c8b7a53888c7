"""Under `vmap`, branches and bodies that run for elements which did not choose them take no index that would raise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from programs import BACKENDS

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad.errors import OutOfBoundsError

T = np.array([1.0, 2.0, 3.0, 4.0])
backends = pytest.mark.parametrize("backend", BACKENDS)


def looked_up(table: Any, k: Any) -> Any:
    return fg.cond(k < 4, lambda: fnp.take(table, k) ** 2, lambda: -1.0)


def summed(table: Any, k: Any) -> Any:
    """The rest of ``table`` from k on: elements that are done stand at 4, where there is nothing."""
    return fg.while_loop(
        lambda s: s[0] < 4, lambda s: (s[0] + 1, s[1] + fnp.take(table, s[0])), (k, 0.0), bound=9
    )[1]


def deep(table: Any, k: Any) -> Any:
    """Through every kind of graph within a graph."""

    @fg.custom_jvp
    def last(x, i):
        return fnp.take(x, i)

    last.defjvps(lambda t, out, x, i: fnp.take(t, i), None)

    @fg.checkpoint
    def inner(x, k):
        def step(c, i):
            here = fg.switch(i, [lambda: fnp.take(x, k), lambda: last(x, k + 1)])
            return c + here, fg.while_loop(lambda v: v < fnp.take(x, k), lambda v: v + fnp.take(x, k), 0.0)

        total, ys = fg.scan(step, 0.0, np.arange(2))
        return total + ys.sum()

    return fg.cond(k < 3, inner, lambda x, k: -1.0, table, k)


def written(table: Any, k: Any) -> Any:
    def write(x):
        y = x + 0
        y[k] = 9.0
        return y

    return fg.cond(k < 4, write, lambda x: -x, table)


@backends
@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (looked_up, [4.0, -1.0, 16.0]),
        (lambda t, k: fg.switch(k // 4, [lambda: fnp.take(t, k), lambda: 0.0, lambda: 1.0]), [2.0, 1.0, 4.0]),
        (summed, [9.0, 0.0, 4.0]),
        (deep, [2 + 3 + 2 + 2, -1.0, -1.0]),
        (written, [[1.0, 9.0, 3.0, 4.0], [-1.0, -2.0, -3.0, -4.0], [1.0, 2.0, 3.0, 9.0]]),
    ],
)
def test_elements_that_do_not_choose_a_branch_may_have_any_index(f, expected, backend):
    run = fg.vmap(f, in_axes=(None, 0), backend=backend)
    np.testing.assert_allclose(run(T, np.array([1, 9, 3])), expected)


@backends
@pytest.mark.parametrize("f", [looked_up, summed])
def test_their_derivatives(f, backend):
    ks = np.array([1, 9, 3])
    rows = np.stack([fg.grad(f, backend=backend)(T, k) for k in ks])
    each = fg.vmap(fg.grad(f), in_axes=(None, 0), backend=backend)
    np.testing.assert_allclose(each(T, ks), rows)
    total = fg.grad(lambda t: fg.vmap(f, in_axes=(None, 0))(t, ks).sum(), backend=backend)
    np.testing.assert_allclose(total(T), rows.sum(0))


@backends
def test_elements_that_do_choose_it_may_not(backend):
    run = fg.vmap(lambda p, k: fg.cond(p, lambda: fnp.take(T, k), lambda: 0.0), backend=backend)
    assert run(np.array([True, False]), np.array([3, 4])).tolist() == [4.0, 0.0]
    with pytest.raises(OutOfBoundsError, match=r"take: index 4 is out of bounds(.|\n)*test_guard.py"):
        run(np.array([True, True]), np.array([3, 4]))


@backends
def test_an_index_that_elements_share(backend):
    """It counts where any element chooses the branch, and stays one read for all."""
    f = fg.vmap(
        lambda p, k: fg.cond(p, lambda: fnp.take(T, k), lambda: 0.0), in_axes=(0, None), backend=backend
    )
    assert f(np.array([False, False]), 9).tolist() == [0.0, 0.0]
    with pytest.raises(OutOfBoundsError, match="index 9"):
        f(np.array([False, True]), 9)
    takes = [e for e in f.lower(np.array([False, True]), 1).eqns if e.prim.name == "take"]
    assert [e.outputs[0].aval.shape for e in takes] == [()]


@backends
def test_a_loop_whose_elements_are_done_at_different_times(backend):
    run = fg.vmap(summed, in_axes=(None, 0), backend=backend)
    assert run(T, np.array([0, 3, 4])).tolist() == [10.0, 4.0, 0.0]
    with pytest.raises(OutOfBoundsError, match="index -7"):
        run(T, np.array([0, -7, 4]))
