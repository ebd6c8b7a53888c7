"""Array expressions written once for all libraries, raced as values or as gradients.

An expression takes a library's `Names` and arrays: ``lambda lib, x: lib.exp(x)``. Names are NumPy's where it has one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import peaks
from race import COPY, OURS, Setup, jax_on, torch_on


class Missing(Exception):
    """The library has no such function."""


class Names:
    """Functions of a library by name: first those given here, then those of its modules that are there."""

    def __init__(self, modules: Sequence[str], **own: Callable[..., Any]):
        self._own, self._modules = own, []
        for name in modules:
            try:
                self._modules.append(importlib.import_module(name))
            except ModuleNotFoundError:  # scipy is optional, and not all of fastgrad's rooms may be built
                continue

    def __getattr__(self, name: str) -> Any:
        if name in self._own:
            return self._own[name]
        for module in self._modules:
            if hasattr(module, name):
                return getattr(module, name)
        raise Missing(f"no {name}")


@dataclass(frozen=True)
class Expression:
    """``f(lib, *arrays)`` at the arrays that ``make()`` draws; with ``wrt`` the gradient of its sum by those arrays.

    ``work``: what its rate counts (elements, bytes) in a call. ``within``: the distance allowed between results.
    """

    f: Callable[..., Any]
    make: Callable[[], tuple[np.ndarray, ...]]
    work: float
    within: float
    wrt: tuple[int, ...] = ()


Table = Mapping[str, Expression]


def _with_fastgrad(table: Table, threads: int) -> Callable[[str], Callable[[], Any]]:
    import fastgrad as fg

    lib = Names(
        ["fastgrad.numpy", "fastgrad.nn.functional", "fastgrad.scipy.special"],
        rsqrt=lambda x: 1.0 / np.sqrt(x),
    )

    def setup(case: str) -> Callable[[], Any]:
        it = table[case]
        if it.wrt:
            call = fg.grad(lambda *arrays: np.sum(it.f(lib, *arrays)), it.wrt, threads=threads)
        else:
            call = fg.jit(partial(it.f, lib), threads=threads)
        return partial(call, *it.make())

    return setup


def _with_numpy(table: Table, threads: int) -> Callable[[str], Callable[[], Any]]:
    lib = Names(
        ["numpy", "scipy.special"],
        sigmoid=lambda x: 1.0 / (1.0 + np.exp(-x)),
        softplus=lambda x: np.logaddexp(x, x.dtype.type(0)),
        rsqrt=lambda x: 1.0 / np.sqrt(x),
    )

    def setup(case: str) -> Callable[[], Any]:
        return partial(table[case].f, lib, *table[case].make())

    return setup


def _with_torch(table: Table, threads: int, compiled: bool = False) -> Callable[[str], Callable[[], Any]]:
    torch = torch_on(threads)
    lib = Names(["torch", "torch.special", "torch.nn.functional"])

    def setup(case: str) -> Callable[[], Any]:
        it = table[case]
        arrays = [torch.from_numpy(a) for a in it.make()]
        if not it.wrt:
            f = torch.compile(partial(it.f, lib)) if compiled else partial(it.f, lib)
            return partial(torch.no_grad()(f), *arrays)
        leaves = [arrays[i].requires_grad_() for i in it.wrt]

        def total(*arrays: Any) -> Any:
            return torch.sum(it.f(lib, *arrays))

        total = torch.compile(total) if compiled else total
        return lambda: torch.autograd.grad(total(*arrays), leaves)

    return setup


def _with_jax(table: Table, threads: int) -> Callable[[str], Callable[[], Any]]:
    jax = jax_on()
    lib = Names(
        ["jax.numpy", "jax.nn", "jax.scipy.special", "jax.lax"], gelu=partial(jax.nn.gelu, approximate=False)
    )

    def setup(case: str) -> Callable[[], Any]:
        it = table[case]
        f = partial(it.f, lib)
        compiled = jax.jit(jax.grad(lambda *arrays: f(*arrays).sum(), it.wrt) if it.wrt else f)
        arrays = jax.device_put(it.make())
        return lambda: jax.block_until_ready(compiled(*arrays))

    return setup


def _with_copy(table: Table, threads: int) -> Callable[[str], tuple[Callable[[], Any], Any]]:
    """No library: a copy that moves as many bytes as the expression must, the measure of the machine in the same race."""
    return lambda case: (peaks.copier(int(table[case].work), threads), ())


def contestants(table: Table) -> dict[str, Setup]:
    """Everybody, on the expressions of ``table``."""
    return {
        OURS: partial(_with_fastgrad, table),
        "numpy": partial(_with_numpy, table),
        "torch": partial(_with_torch, table),
        "torch-compile": partial(_with_torch, table, compiled=True),
        "jax": partial(_with_jax, table),
        COPY: partial(_with_copy, table),
    }


def drawn(
    *shapes: tuple[int, ...], dtype: str = "float32", low: float = -1.0, high: float = 1.0
) -> Callable[..., Any]:
    """``make()`` of an expression: uniform numbers of these shapes."""

    def make() -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng(0)
        kind = np.float64 if dtype == "float64" else np.float32
        return tuple(np.asarray(low + (high - low) * rng.random(shape, kind), dtype) for shape in shapes)

    return make


def tolerance(dtype: str) -> float:
    """How far results of one dtype may lie apart, relative to the sum of their magnitudes."""
    return 1e-10 if dtype == "float64" else 1e-4
