"""Functions written for NumPy alone (`tests/numpy_only`) trace, differentiate and batch unchanged."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "numpy_only"))

from table import PROBLEMS, Problem

import fastgrad as fg
from fastgrad import pytree, testing

HERE = Path(__file__).resolve().parent / "numpy_only"
BOTH = ("numpy", "numba")
every = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
backends = pytest.mark.parametrize("backend", BOTH)


def compiled_too(problem: Problem) -> tuple[str, ...]:
    """A third of the functions also compile forward mode and batching, which costs a kernel or more each."""
    return BOTH if PROBLEMS.index(problem) % 3 == 0 else ("numpy",)


def by_wrt(problem: Problem) -> tuple[Callable, tuple]:
    """The function of the arguments that it is differentiated by, and those."""
    args = problem.args()

    def f(*chosen):
        new = list(args)
        for n, value in zip(problem.wrt, chosen, strict=True):
            new[n] = value
        return problem.f(*new)

    return f, tuple(args[n] for n in problem.wrt)


def test_nothing_here_knows_of_fastgrad():
    assert len(PROBLEMS) >= 36
    assert len({p.name for p in PROBLEMS}) == len(PROBLEMS)
    for path in HERE.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "fastgrad" not in text and "fnp" not in text and "np.zeros(" not in text, path.name


@every
@backends
def test_values_are_numpys(problem: Problem, backend: str):
    args = problem.args()
    expected = problem.f(*args)
    assert np.all(np.isfinite(expected))
    got = fg.jit(problem.f, backend=backend)(*args)
    assert (got.shape, got.dtype) == (np.shape(expected), np.asarray(expected).dtype)
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


@every
def test_reverse_mode_is_differences(problem: Problem):
    testing.check_vjp(*by_wrt(problem), backends=BOTH)


@every
def test_forward_mode_is_differences(problem: Problem):
    testing.check_jvp(*by_wrt(problem), backends=compiled_too(problem))


@every
def test_second_order_is_differences(problem: Problem):
    testing.check_grads(*by_wrt(problem), order=2, modes=("rev",), backends=("numpy",))


@every
def test_grad_is_the_cotangent(problem: Problem):
    args = problem.args()
    if np.ndim(problem.f(*args)):
        pytest.skip("no scalar: fg.grad takes none")
    gradients = fg.grad(problem.f, problem.wrt, backend="numpy")(*args)
    _, pullback = fg.vjp(problem.f, *args, backend="numpy")
    for mine, theirs in zip(gradients, (pullback(np.ones(()))[n] for n in problem.wrt), strict=True):
        for a, b in zip(pytree.flatten(mine)[0], pytree.flatten(theirs)[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@every
def test_batches_are_loops(problem: Problem):
    args = list(problem.args())
    samples = [pytree.flatten(problem.args(seed)[problem.mapped]) for seed in range(3)]
    columns = zip(*(leaves for leaves, _ in samples), strict=True)
    args[problem.mapped] = pytree.unflatten(samples[0][1], [np.stack(column) for column in columns])
    axes = tuple(0 if n == problem.mapped else None for n in range(len(args)))
    testing.check_vmap(problem.f, tuple(args), axes, backends=compiled_too(problem))
