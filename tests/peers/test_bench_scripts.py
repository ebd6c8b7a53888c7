"""The races in bench/ agree with PyTorch and JAX: a race stops where first results differ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastgrad

BENCH = Path(__file__).parents[2] / "bench"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(fastgrad.__file__).parents[1])}
PEERS = ("torch", "jax")
CASES = {
    "products": ("63x65x67", "8x8x8"),
    "vector_math": ("32 KB",),
    "other_models": (),
}


@pytest.mark.parametrize("script", CASES)
def test_results_agree(script, tmp_path):
    for name in PEERS:
        pytest.importorskip(name)
    target = tmp_path / "found"
    only = ["--only", *CASES[script]] if CASES[script] else []
    command = [
        sys.executable,
        str(BENCH / f"{script}.py"),
        "--quick",
        "--threads",
        "1",
        "--json",
        str(target),
    ]
    done = subprocess.run([*command, *only], capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed in" not in done.stdout and "does not take part" not in done.stdout
    head = "{}/ours" if script != "other_models" else "{} us"
    titles = dict(zip(PEERS, PEERS if script != "other_models" else ("PyTorch", "JAX"), strict=True))
    for rows in json.loads(target.read_text())["tables"].values():
        for row in rows:
            assert "against" in row or all(row[head.format(titles[name])] > 0 for name in PEERS)
