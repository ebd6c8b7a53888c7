"""What training programs share: building, running and judging a classifier."""

from .classifier import accuracy, confusion_matrix, cross_entropy_loss, evaluate, init_mlp, mlp
from .throughput import Throughput, throughput

__all__ = [
    "Throughput",
    "accuracy",
    "confusion_matrix",
    "cross_entropy_loss",
    "evaluate",
    "init_mlp",
    "mlp",
    "throughput",
]
