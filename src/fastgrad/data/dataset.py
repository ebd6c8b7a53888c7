"""The one record that every loader returns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Labelled images, split into a training and a test part; one flattened image a row.

    x_train, x_test  float32[n, prod(image_shape)], values in [0, 1], C-contiguous
    y_train, y_test  int64[n], values in 0..classes-1
    classes          number of classes
    image_shape      shape of one image before flattening, e.g. (8, 8)
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    image_shape: tuple[int, ...]
