"""What `explain` says about this machine: the table's row, the rates, each product's kernel, what is shared."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import inspection, machine
from fastgrad.codegen import rates as kept
from fastgrad.executor.choices import machine_text


def explained(f, *arrays, **options):
    return fg.explain(f, *arrays, stage="schedule", **options).split("products\n")[-1].splitlines()


@pytest.fixture(autouse=True)
def one_machine(monkeypatch):
    rates = dataclasses.replace(machine.shipped(64, 2), measured=True)
    monkeypatch.setattr(kept, "measured", lambda: rates)
    monkeypatch.setattr(inspection, "available_threads", lambda: 2)


def test_the_machine_is_told(monkeypatch):
    first, table, rates = machine_text().splitlines()
    assert machine.cpu().model in first and machine.processors().name in table
    assert "rates (measured here): 180 GFLOP/s float32 a core" in rates and "8 lines a store" in rates
    monkeypatch.setattr(kept, "measured", lambda: None)
    assert "shipped; `fastgrad calibrate` measures them" in machine_text()
    monkeypatch.setattr(machine, "cpu", lambda: machine.Cpu("GenuineIntel-6-94", "A Core", (1,), 32))
    assert "A Core (GenuineIntel-6-94)" in machine_text() and "128 KB of an operand" in machine_text()


def test_a_product_in_place_and_one_that_is_packed():
    a, b = np.ones((128, 784), np.float32), np.ones((784, 512), np.float32)
    (line, rows, *_) = explained(lambda a, b: a @ b, a, b)
    assert "A in place, 392 KB; B packed in passing, 1568 KB" in line and "shared by 2 threads" in line
    assert rows.startswith("rows: 1 of 1 shared by 2 threads")
    (line, *_) = explained(lambda a, b: a.T @ b, a, np.ones((128, 512), np.float32))
    assert "  1 registers" in line, "step 0 packs"
    assert "A packed for 512 columns, being spread over 392 KB; B in place" in line


def test_a_vector_an_empty_product_and_a_rounded_one():
    a, v = np.ones((40, 30), np.float32), np.ones((30, 1), np.float32)
    assert "matvec; A in place, 4 KB; B in place, 120 bytes" in explained(lambda a, v: a @ v, a, v)[0]
    assert "serial" in explained(lambda a, v: a @ v, a, v)[0]
    assert "empty" in explained(lambda a, v: a @ v, a[:, :0], v[:0])[0]
    (line, *_) = explained(lambda a, b: a @ b, a, a.T.copy(), precision="bfloat16")
    assert "A packed to be rounded" in line and "B packed to be rounded" in line


def test_products_in_loops_are_numbered_by_their_place():
    x = np.ones((8, 8), np.float32)
    lines = explained(lambda x: fg.fori_loop(0, 3, lambda i, y: np.tanh(y @ x), x), x)
    assert lines[0].startswith("  0.0.0 ")


def test_a_program_without_products_tells_rows_and_the_machine():
    lines = explained(lambda x: x + 1.0, np.ones(5))
    assert lines[-4].startswith("rows: 0 of 1") and lines[-3].startswith("machine ")
