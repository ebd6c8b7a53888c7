"""Rows as a run would have found them, for tests of what is written about them."""

from __future__ import annotations

import random
from typing import Any

from fastgrad.bench.campaign import Plan
from fastgrad.bench.contestant import CONTESTANTS
from fastgrad.bench.models import MODELS
from fastgrad.bench.store import Store, header

FACTORS = {
    "fastgrad": 1.0,
    "interpreter": 9.0,
    "tensor": 15.0,
    "torch": 20.0,
    "torch-compile": 7.0,
    "jax": 4.0,
    "autograd": 30.0,
}


def result(us: float, cold: float = 3.0, warm: float = 2.0, mib: float = 200.0) -> dict[str, Any]:
    """What one contestant took: its rounds 5% to both sides of ``us``."""
    spread = {"median": us, "min": 0.95 * us, "max": 1.05 * us}
    return {"cold_s": [cold], "warm_s": [warm], "us": spread, "mib": mib, "note": None, "first": [1.0]}


def full_store(missing: dict[str, str] | None = None) -> Store:
    """Every model, both dtypes, 1 and 2 threads, all contestants; the same numbers at each call."""
    rng = random.Random(0)
    plan = Plan(tuple(MODELS), tuple(CONTESTANTS), ("float32", "float64"), (1, 2))
    store = Store(None, header(plan, "fastgrad bench --full", None, missing or {}))
    for i, cell in enumerate(plan.cells()):
        base = 10.0 * 2 ** (i / 3)
        results = {
            name: result(
                base * factor ** rng.uniform(-0.1, 1.0),
                cold=CONTESTANTS[name].cold_s * rng.uniform(0.8, 1.5),
                warm=CONTESTANTS[name].warm_s * rng.uniform(0.8, 1.2),
                mib=rng.uniform(40, 400),
            )
            for name, factor in FACTORS.items()
        }
        store.add({**cell._asdict(), "others_cores": 0.01, "results": results})
    return store
