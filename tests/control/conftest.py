"""Loops on arrays run where `programs.BACKENDS` says first."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from programs import BACKENDS


@pytest.fixture(autouse=True)
def backend_of_loops(monkeypatch):
    """The default backend of every compiled function in these tests."""
    monkeypatch.setenv("FASTGRAD_BACKEND", BACKENDS[0])
