"""A folder of compiled code, filled once, copied for whoever damages it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cache.processes import gradient


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled folder, not to be touched."""
    folder = tmp_path_factory.mktemp("cache") / "pristine"
    assert gradient(folder)["compiled"] > 0
    return folder


@pytest.fixture
def filled(pristine: Path, tmp_path: Path) -> Path:
    """A filled folder of one's own."""
    return shutil.copytree(pristine, tmp_path / "filled")
