"""fastgrad: NumPy functions traced once, differentiated, compiled to CPU kernels and replayed as one native call.

A name is imported when it is first used, so that `import fastgrad` costs little more than NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from . import data as data
    from . import errors as errors
    from . import nn as nn
    from . import numpy as numpy
    from . import optim as optim
    from . import random as random
    from . import scipy as scipy
    from . import testing as testing
    from . import train as train
    from .api import grad as grad
    from .api import jit as jit
    from .api import value_and_grad as value_and_grad
    from .calls.checkpoint import checkpoint as checkpoint
    from .calls.custom_jvp import custom_jvp as custom_jvp
    from .calls.custom_vjp import custom_vjp as custom_vjp
    from .control_flow import cond as cond
    from .control_flow import fori_loop as fori_loop
    from .control_flow import scan as scan
    from .control_flow import switch as switch
    from .control_flow import while_loop as while_loop
    from .eager import Tensor as Tensor
    from .eager import no_grad as no_grad
    from .forward import hvp as hvp
    from .forward import jvp as jvp
    from .graph_builder import Graph as Graph
    from .inspection import explain as explain
    from .jacobians import hessian as hessian
    from .jacobians import jacfwd as jacfwd
    from .jacobians import jacrev as jacrev
    from .mapped import vmap as vmap
    from .ops.pointwise import stop_gradient as stop_gradient
    from .pullback import vjp as vjp
    from .train_step import TrainStep as TrainStep

_HOMES = {
    "Graph": "graph_builder",
    "Tensor": "eager",
    "TrainStep": "train_step",
    "checkpoint": "calls.checkpoint",
    "custom_jvp": "calls.custom_jvp",
    "custom_vjp": "calls.custom_vjp",
    "cond": "control_flow",
    "data": "",
    "errors": "",
    "explain": "inspection",
    "fori_loop": "control_flow",
    "grad": "api",
    "hessian": "jacobians",
    "hvp": "forward",
    "jacfwd": "jacobians",
    "jacrev": "jacobians",
    "jit": "api",
    "jvp": "forward",
    "nn": "",
    "no_grad": "eager",
    "numpy": "",
    "optim": "",
    "random": "",
    "scipy": "",
    "scan": "control_flow",
    "stop_gradient": "ops.pointwise",
    "switch": "control_flow",
    "testing": "",
    "train": "",
    "value_and_grad": "api",
    "vjp": "pullback",
    "vmap": "mapped",
    "while_loop": "control_flow",
}
"""The module of each public name; "" for a module that is one itself."""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastgrad' has no attribute {name!r}")
    home = _HOMES[name]
    module = importlib.import_module(f".{home or name}", __name__)
    value = getattr(module, name) if home else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
