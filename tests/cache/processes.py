"""Small programs that the cache's tests run in processes of their own, and how to run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

GRADIENT = """
import json, sys, warnings
import numpy as np
import fastgrad as fg

def loss(w, b, x):
    return np.tanh(x @ w + b).sum()

rng = np.random.default_rng(0)
w, b, x = rng.standard_normal((5, 3)), rng.standard_normal(3), rng.standard_normal((4, 5))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    gradient = fg.grad(loss, argnums=(0, 1))
    gw, gb = gradient(w, b, x)
t = 1 - np.tanh(x @ w + b) ** 2
from fastgrad.codegen.compile import counts
print(json.dumps({
    "right": bool(np.allclose(gw, x.T @ t, rtol=1e-12) and np.allclose(gb, t.sum(0), rtol=1e-12)),
    "compiled": counts["compiled"], "disk": counts["disk"],
    "warnings": [str(c.message) for c in caught],
    "imported": [m for m in ("numba", "llvmlite", "filelock") if m in sys.modules],
    "report": gradient.compile(w, b, x).compile_report(),
}))
"""
"""Print whether the gradient of a one-layer network is right, and how its kernels were come by."""


def environment(folder: Path | str, **more: str) -> dict[str, str]:
    """The environment with the cache at ``folder``."""
    return {**os.environ, "FASTGRAD_CACHE_DIR": str(folder), **more}


def start(folder: Path | str, program: str = GRADIENT, **more: str) -> subprocess.Popen[str]:
    """A process of its own that runs ``program``."""
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment(folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )


def outcome(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What it printed; it must end well, in time, and with nothing on stderr."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert not err, err
    return json.loads(out)


def gradient(folder: Path | str, **more: str) -> dict[str, Any]:
    """The outcome of `GRADIENT`; the gradient must be right."""
    found = outcome(start(folder, **more))
    assert found["right"]
    return found
