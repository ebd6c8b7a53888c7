"""Training steps by name for races: the bench's models, and perceptrons of any shape, ``mlp 64-32-10 b32``.

The contestants are those of `fastgrad bench`; each case is ``MODEL | DTYPE``. Learning rates are at rest while time is
measured. This file is the program that their processes run.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from race import OURS, jax_on, serving, torch_on

from fastgrad.bench.contestant import CONTESTANTS as ENTRIES
from fastgrad.bench.models import MODELS, Model

BFLOAT16 = "fastgrad-bfloat16"
"""fastgrad with ``precision="bfloat16"``: products of rounded operands, everything else float32."""
FIRST_WITHIN = {"float32": 1e-4, "float64": 1e-9}


def model_of(name: str) -> Model:
    """One of the bench's models, or the perceptron that ``name`` describes."""
    if name in MODELS:
        return MODELS[name]
    kind, sizes, rows = name.split()
    assert kind == "mlp", name
    return Model(name, name, "mlp", tuple(map(int, sizes.split("-"))), int(rows.removeprefix("b")))


def _with(entry: str, threads: int, **options: Any) -> Callable[[str], tuple[Callable[[], Any], Any]]:
    found = ENTRIES[entry]
    if found.package == "torch":
        torch_on(threads)
    if found.package == "jax":
        jax_on()
    make = getattr(importlib.import_module(f"fastgrad.bench.{found.file}"), found.function)

    def setup(case: str) -> tuple[Callable[[], Any], Any]:
        name, dtype = case.split(" | ")
        contestant = make(model_of(name), np.dtype(dtype).type, threads, **options)
        first = contestant.step()  # at a real learning rate, as all others'
        contestant.rest()
        return contestant.step, first

    return setup


CONTESTANTS = {name: partial(_with, name) for name in (OURS, "torch", "torch-compile", "jax")}
CONTESTANTS[BFLOAT16] = partial(_with, OURS, precision="bfloat16")

if __name__ == "__main__":
    serving(CONTESTANTS)
