"""Define-by-run on the op table of the traces: `Tensor` computes at once, records, and differentiates backwards.

mode       whether ops are recorded: `no_grad`
recording  an op runs by its reference and leaves a `Node`
backward   from a node to its leaves, each node's rule compiled once for each kind of operands
tensor     `Tensor`: the handle, its methods and what may change in place
stepping   tensors bound to an optimizer
pytorch_names  PyTorch's method names, so that textbook loops run as written
"""

from .mode import no_grad
from .tensor import Tensor

__all__ = ["Tensor", "no_grad"]
