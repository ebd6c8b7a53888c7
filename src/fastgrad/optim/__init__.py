"""Optimizers: each is one update over the flat parameter buffer, written in ops, and so one kernel."""

from ..optimizer import Optimizer
from .adam import Adam
from .sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer"]
