"""Data sets: the digits that ship with the package, and MNIST-style IDX files from a directory."""

from .dataset import Dataset
from .digits import digits
from .idx import load_idx

__all__ = ["Dataset", "digits", "load_idx"]
