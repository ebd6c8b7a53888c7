"""The thread pool: Numba's threading layer, taken from its extension module without an import of Numba.

The layers are C extensions that need nothing of Numba's Python; each exposes the addresses of ``launch_threads`` and
``parallel_for``. They are tried in Numba's own order and by its own environment variables, so that a program which
imports Numba as well gets one pool, not two. Where Numba has been imported already, or its files are not as expected,
Numba loads the layer itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import NamedTuple

from ..machine import cores
from .target import numba_version

_LAYERS = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}
_POOL_SPINS = "10000"
"""Turns that GNU OpenMP's own threads spin between regions (its default is up to 300,000: milliseconds of a core that
another process may want; measured under load, a step of 70 microseconds then takes 280 to 8,000)."""


TRIED = ("0.62", "0.63", "0.64", "0.65", "0.66", "0.67", "0.68")
"""Releases of Numba whose ``parallel_for`` takes (worker, args, dims, steps, data, inner ndim, arrays, threads). It is not
public: with any other release the region is a `prange`. (Tested with the first and the last.)"""


class ThreadPool(NamedTuple):
    """A launched layer: its name, the address of its ``parallel_for``, and how many threads it has."""

    layer: str
    parallel_for: int
    threads: int


@cache
def launched() -> ThreadPool:
    """The pool of this process, its threads launched."""
    with _short_spins():
        known = numba_version().startswith(tuple(f"{release}." for release in TRIED))
        found = None if "numba" in sys.modules or not known else _alone()
        return found or _by_numba(known)


def _alone() -> ThreadPool | None:
    """A layer loaded from its file; None where that does not work, or Numba is told something special."""
    asked = os.environ.get("NUMBA_THREADING_LAYER", "default").lower()
    order = os.environ.get("NUMBA_THREADING_LAYER_PRIORITY", "tbb omp workqueue").split()
    names = [asked] if asked in _LAYERS else order if asked == "default" else []
    threads = os.environ.get("NUMBA_NUM_THREADS", "")
    count = int(threads) if threads.isdigit() and int(threads) else cores()
    for layer in names:
        try:
            module = _load(_LAYERS[layer])
            ctypes.CFUNCTYPE(None, ctypes.c_int)(module.launch_threads)(count)
            return ThreadPool(layer, int(module.parallel_for), count)
        except (ImportError, AttributeError, KeyError, OSError):
            continue
    return None


def _load(name: str):  # type: ignore[no-untyped-def]
    spec = importlib.util.find_spec("numba")
    if spec is None or spec.origin is None:
        raise ImportError("no Numba")
    folder = Path(spec.origin).parent / "np" / "ufunc"
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        for path in glob.glob(str(folder / (name + suffix))):
            loader = ExtensionFileLoader(name, path)
            found = importlib.util.spec_from_file_location(name, path, loader=loader)
            assert found is not None
            module = importlib.util.module_from_spec(found)
            loader.exec_module(module)
            return module
    raise ImportError(f"no {name}")


def _by_numba(known: bool) -> ThreadPool:
    """The layer as Numba itself chooses and loads it; with ``known`` its own way in, else the public one."""
    from numba import config, threading_layer
    from numba.np.ufunc import parallel

    try:
        parallel._launch_threads()
    except ValueError as error:  # no layer that would do can be loaded: one thread is right, if slow
        warnings.warn(f"fastgrad: runs on one thread: {error}", RuntimeWarning, stacklevel=2)
        return ThreadPool("none", 0, 1)
    if known:
        module = importlib.import_module(f"numba.np.ufunc.{_LAYERS[threading_layer()]}")
        return ThreadPool(threading_layer(), int(module.parallel_for), config.NUMBA_NUM_THREADS)
    from .prange import parallel_for

    return ThreadPool(f"{threading_layer()} by prange", parallel_for().address, config.NUMBA_NUM_THREADS)


@contextlib.contextmanager
def _short_spins() -> Iterator[None]:
    """libgomp reads its environment once, when the layer loads it."""
    ours = not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys()
    if ours:
        os.environ["GOMP_SPINCOUNT"] = _POOL_SPINS
    try:
        yield
    finally:
        if ours:
            del os.environ["GOMP_SPINCOUNT"]
