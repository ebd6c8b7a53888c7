"""The examples in the docstrings of the ops are run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

from fastgrad import ops

MODULES = [m.name for m in pkgutil.iter_modules(ops.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str):
    failed, _ = doctest.testmod(importlib.import_module(f"fastgrad.ops.{name}"), extraglobs={"np": np})
    assert not failed
