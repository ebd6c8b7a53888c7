"""The 1,797 handwritten digits that ship with the package.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository
(1998), doi:10.24432/C50P49, licensed CC BY 4.0. `digits.npz` holds the scans as scikit-learn's `load_digits`
gives them (UCI's test file: 13 writers), with the pixels stored as uint8; nothing else was changed.

The split is fixed: of every five scans of one class, in the file's order, the third is held out. That gives

* 1,438 training and 359 test scans, as near to one fifth (359.4) as taking every fifth of each class can come;
* the classes in the test part as in the whole set (35 to 37 scans each);
* no random generator, so the split is the same under every NumPy version.

Scans of one writer stand together in the file, so each writer is in both parts: the test accuracy says how well the
model reads new scans of known hands, not of unknown ones (which is harder).
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np

from .dataset import Dataset

CLASSES = 10
_EVERY, _THIRD = 5, 2


def digits() -> Dataset:
    """Load the embedded digits with their fixed split, as fresh arrays.

    Returns x_train float32[1438, 64], y_train int64[1438], x_test float32[359, 64], y_test int64[359], 10 classes,
    image shape (8, 8). Pixels are k/16 for k in 0..16, exact in float32.

    >>> data = digits()
    >>> data.x_train.shape, data.x_test.shape
    ((1438, 64), (359, 64))
    """
    with (files("fastgrad.data") / "digits.npz").open("rb") as file, np.load(file) as archive:
        images, labels = archive["images"], archive["labels"].astype(np.int64)
    x = images.reshape(len(images), -1).astype(np.float32) / np.float32(16)
    test = _held_out(labels)
    return Dataset(x[~test], labels[~test], x[test], labels[test], CLASSES, images.shape[1:])


def _held_out(labels: np.ndarray) -> np.ndarray:
    """bool[n]: true for the third of every five scans of each class, in the given order."""
    test = np.zeros(labels.shape, dtype=bool)
    for label in range(CLASSES):
        test[np.flatnonzero(labels == label)[_THIRD::_EVERY]] = True
    return test
