"""The scripts in bench/ run: each in its shortest form, without peers, and leaves figures that a program can read."""

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
RACES = {
    "products": "numpy/ours",
    "vector_math": "fastgrad G/s",
    "reductions": "% of copy",
    "broadcasting": "numpy/ours",
    "elementwise_gradients": "% of copy",
    "scaling": "fastgrad us",
    "other_models": "fastgrad us",
    "bars": "fastgrad us",
}


def run(script: str, *arguments: str, target: Path) -> dict:
    """What a script writes with ``--json``."""
    command = [sys.executable, str(BENCH / f"{script}.py"), "--quick", "--json", str(target), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(target.read_text())


@pytest.mark.parametrize("script", RACES)
def test_races_without_peers(script, tmp_path):
    figures = run(
        script, "--threads", "1", "--without", "torch", "torch-compile", "jax", target=tmp_path / "found"
    )
    assert figures["threads"] == 1 and figures["versions"]["fastgrad"] and figures["machine"]
    rows = next(iter(figures["tables"].values()))
    assert all(row[RACES[script]] > 0 for row in rows)


def test_call_overhead(tmp_path):
    tables = run("call_overhead", target=tmp_path / "found")["tables"]
    rows = tables["a run against the rows of its tape (float64[4], kernels included)"]
    assert rows[-1]["rows"] > 100 * rows[0]["rows"] and rows[-1]["kernels us"] > rows[0]["kernels us"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory(tmp_path):
    figures = run("peak_memory", "--threads", "1", "--without", "torch", "jax", target=tmp_path / "found")
    (row,) = figures["tables"]["bytes"]
    assert 0 < row["arena KiB"] <= row["peak KiB"] <= 0.6 * row["apart KiB"]
    assert row["fastgrad grows MiB"] < 2


def test_libraries_that_disagree_stop_a_race(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import race

    race.agree("case", {"a": [2.0, 1.0], "b": [2.0, 1.0 + 1e-9]}, 1e-6)
    with pytest.raises(race.Disagreement, match=r"case: a has 1\.0 and b 1\.1"):
        race.agree("case", {"a": [2.0, 1.0], "b": [2.0, 1.1]}, 1e-3)
    with pytest.raises(race.Disagreement):
        race.agree("case", {"a": [2.0, 1.0], "b": [2.0, float("nan")]}, 1e-3)
