"""fastgrad: NumPy functions traced once, differentiated, compiled to CPU kernels and replayed as one native call."""

from . import nn, numpy, optim
from .api import grad, jit, value_and_grad
from .train_step import TrainStep

__version__ = "0.1.0"

__all__ = ["TrainStep", "grad", "jit", "nn", "numpy", "optim", "value_and_grad"]
