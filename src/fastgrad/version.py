"""The version, in a file that anything may import (pyproject.toml reads it from here)."""

__version__ = "0.1.0"
