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
from fastgrad import autodiff, pytree
from fastgrad.core.aval import aval_of
from fastgrad.core.graph import Graph
from fastgrad.interpreter import evaluate, interpret
from fastgrad.trace import trace

pytestmark = [pytest.mark.filterwarnings(f"ignore:::{name}(\\..*)?") for name in ("jax", "jaxlib")]

RELATIVE = 1e-10
WAITING = {"softmax_regression", "tensor_train"}
"""Functions that index by several arrays at once, which is not built yet."""
every = pytest.mark.parametrize(
    "problem", [p for p in PROBLEMS if p.name not in WAITING], ids=lambda problem: problem.name
)


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


def hessian(joint: Graph, arrays: Sequence[np.ndarray], ct: np.ndarray) -> np.ndarray:
    """Of ``<ct, f>``, by columns: forward mode over the graph of reverse mode."""
    run = interpret(autodiff.jvp(joint))
    n, size = len(arrays), sum(a.size for a in arrays)
    columns = []
    for i in range(size):
        basis = np.zeros(size)
        basis[i] = 1.0
        parts = np.split(basis, np.cumsum([a.size for a in arrays])[:-1])
        tangents = [p.reshape(a.shape) for p, a in zip(parts, arrays, strict=True)]
        out = run(*arrays, ct, *tangents, np.zeros_like(ct))
        columns.append(np.concatenate([np.ravel(o) for o in out[-n:]]))
    return np.stack(columns, axis=1)


@every
def test_values_and_derivatives_are_jaxs(jax: ModuleType, problem: Problem) -> None:
    args = problem.args()
    ours, arrays = of_floats(problem.f, args, problem.wrt)
    theirs, _ = of_floats(in_jax(problem.f.__module__)[problem.name], args, problem.wrt)
    rng = np.random.default_rng(1)
    tangents = [rng.standard_normal(a.shape) for a in arrays]
    ct = rng.standard_normal(np.shape(ours(*arrays)))
    sizes = np.cumsum([a.size for a in arrays])

    def derivatives(arrays: list, tangents: list, ct: Any) -> tuple:
        def scalar(vector: Any) -> Any:
            parts = [
                p.reshape(a.shape) for p, a in zip(jax.numpy.split(vector, sizes[:-1]), arrays, strict=True)
            ]
            return jax.numpy.vdot(ct, theirs(*parts))

        value, pullback = jax.vjp(theirs, *arrays)
        tangent = jax.jvp(theirs, arrays, tangents)[1]
        vector = jax.numpy.concatenate([a.ravel() for a in arrays])
        return value, pullback(ct), tangent, jax.hessian(scalar)(vector)

    value, cotangents, tangent, second = jax.jit(derivatives)(arrays, tangents, ct)
    graph = trace(lambda *xs: [ours(*xs)], [aval_of(a) for a in arrays], name=problem.name)
    joint = autodiff.vjp(graph, range(len(arrays)))
    got = evaluate(joint, [*arrays, ct])
    close(got[0], value)
    for mine, theirs_ in zip(got[1:], cotangents, strict=True):
        close(mine, theirs_)
    close(evaluate(autodiff.jvp(graph), [*arrays, *tangents])[1], tangent)
    close(hessian(joint, arrays, ct), second)


def jvp(f: Callable, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """``(f(*primals), tangent)``: stands in for the public ``fg.jvp``."""
    graph = trace(lambda *xs: [f(*xs)], [aval_of(np.asarray(p)) for p in primals])
    value, tangent = evaluate(autodiff.jvp(graph), [*map(np.asarray, primals), *map(np.asarray, tangents)])
    return value, tangent


SOME = [p for p in PROBLEMS if p.name not in WAITING][::4]


@pytest.mark.parametrize("problem", SOME, ids=lambda problem: problem.name)
def test_the_checkers_of_jax_accept_ours(jax: ModuleType, problem: Problem) -> None:
    test_util = pytest.importorskip("jax.test_util")
    f, arrays = of_floats(problem.f, problem.args(), problem.wrt)
    test_util.check_vjp(f, functools.partial(fg.vjp, f), tuple(arrays), rtol=1e-4, atol=1e-4)
    test_util.check_jvp(f, functools.partial(jvp, f), tuple(arrays), rtol=1e-4, atol=1e-4)
