"""Values, VJPs, JVPs and Hessians of the functions in `tests/numpy_only` against JAX in float64, to 1e-10.

JAX runs the same source with ``jax.numpy`` under the name ``np``. Its own checkers, ``jax.test_util.check_vjp`` and
``check_jvp``, accept our transformations in place of JAX's.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "numpy_only"))

from table import PROBLEMS, Problem

import fastgrad as fg
from fastgrad import pytree

pytestmark = [pytest.mark.filterwarnings(f"ignore:::{name}(\\..*)?") for name in ("jax", "jaxlib")]

RELATIVE = 1e-10
every = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)


@pytest.fixture(scope="module")
def jax() -> Iterator[ModuleType]:
    """JAX in float64."""
    module = pytest.importorskip("jax")
    before = module.config.read("jax_enable_x64")
    module.config.update("jax_enable_x64", True)
    yield module
    module.config.update("jax_enable_x64", before)


@functools.cache
def in_jax(module: str) -> dict[str, Any]:
    """The names of a module of functions whose ``np`` is ``jax.numpy``."""
    path = importlib.import_module(module).__file__
    assert path is not None
    source = Path(path).read_text(encoding="utf-8")
    assert source.count("import numpy as np") == 1
    names: dict[str, Any] = {"__name__": f"{module}_in_jax"}
    exec(compile(source.replace("import numpy as np", "import jax.numpy as np"), path, "exec"), names)
    return names


def of_floats(f: Callable, args: tuple, wrt: Sequence[int]) -> tuple[Callable, list[np.ndarray]]:
    """``f`` as a function of the leaves of its arguments ``wrt``, and those; the other arguments are held."""
    leaves, structure = pytree.flatten([args[n] for n in wrt])

    def flat(*values: Any) -> Any:
        new = list(args)
        for n, value in zip(wrt, pytree.unflatten(structure, values), strict=True):
            new[n] = value
        return f(*new)

    return flat, [np.asarray(leaf) for leaf in leaves]


def close(ours: Any, theirs: Any) -> None:
    """Equal in shape and dtype, and to `RELATIVE` of the largest element."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    assert np.isfinite(theirs).all()
    np.testing.assert_allclose(
        ours, theirs, rtol=0, atol=RELATIVE * float(np.abs(theirs).max(initial=1e-300))
    )


@every
def test_values_and_derivatives_are_jaxs(jax: ModuleType, problem: Problem) -> None:
    if problem.writes:
        pytest.skip("JAX's arrays are not written to")
    args = problem.args()
    ours, arrays = of_floats(problem.f, args, problem.wrt)
    theirs, _ = of_floats(in_jax(problem.f.__module__)[problem.name], args, problem.wrt)
    rng = np.random.default_rng(1)
    tangents = [rng.standard_normal(a.shape) for a in arrays]
    ct = rng.standard_normal(np.shape(ours(*arrays)))
    cuts = np.cumsum([a.size for a in arrays])[:-1]

    def derivatives(
        lib: Any, np: Any, f: Callable, options: dict, arrays: list, tangents: list, ct: Any
    ) -> tuple:
        """The same words of either library: value, cotangents, tangent, and the Hessian of ``<ct, f>``."""

        def scalar(vector: Any) -> Any:
            parts = [p.reshape(a.shape) for p, a in zip(np.split(vector, cuts), arrays, strict=True)]
            return np.vdot(ct, f(*parts))

        value, pullback = lib.vjp(f, *arrays, **options)
        tangent = lib.jvp(f, tuple(arrays), tuple(tangents), **options)[1]
        vector = np.concatenate([a.ravel() for a in arrays])
        return value, tuple(pullback(ct)), tangent, lib.hessian(scalar, **options)(vector)

    of_jax = functools.partial(derivatives, jax, jax.numpy, theirs, {})
    expected = jax.jit(of_jax)(arrays, tangents, ct)
    got = derivatives(fg, np, ours, {"backend": "numpy"}, arrays, tangents, ct)
    for mine, other in zip(pytree.flatten(got)[0], pytree.flatten(expected)[0], strict=True):
        close(mine, other)


SOME = PROBLEMS[::4]


@pytest.mark.parametrize("problem", SOME, ids=lambda problem: problem.name)
def test_the_checkers_of_jax_accept_ours(jax: ModuleType, problem: Problem) -> None:
    test_util = pytest.importorskip("jax.test_util")
    f, arrays = of_floats(problem.f, problem.args(), problem.wrt)
    test_util.check_vjp(f, functools.partial(fg.vjp, f), tuple(arrays), rtol=1e-4, atol=1e-4)
    test_util.check_jvp(f, functools.partial(fg.jvp, f), tuple(arrays), rtol=1e-4, atol=1e-4)
