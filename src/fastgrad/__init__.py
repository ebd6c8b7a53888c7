"""fastgrad: NumPy functions traced once, differentiated, compiled to CPU kernels and replayed as one native call."""

from . import data, nn, numpy, optim, train
from .api import grad, jit, value_and_grad
from .eager import Tensor, no_grad
from .graph_builder import Graph
from .inspection import explain
from .ops.pointwise import stop_gradient
from .pullback import vjp
from .train_step import TrainStep

__version__ = "0.1.0"

__all__ = [
    "Graph",
    "Tensor",
    "TrainStep",
    "data",
    "explain",
    "grad",
    "jit",
    "nn",
    "no_grad",
    "numpy",
    "optim",
    "stop_gradient",
    "train",
    "value_and_grad",
    "vjp",
]
