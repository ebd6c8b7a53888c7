"""The embedded digits: their content, their fixed split."""

import hashlib
from importlib.resources import files

import numpy as np
import pytest

from fastgrad.data import digits

# scikit-learn's load_digits: images, then labels, as uint8 in the file's order.
SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


@pytest.fixture
def scans():
    with np.load(files("fastgrad.data") / "digits.npz") as archive:
        return archive["images"], archive["labels"]


def test_shapes_dtypes_and_ranges():
    data = digits()
    assert data.x_train.shape == (1438, 64) and data.x_test.shape == (359, 64)
    assert data.y_train.shape == (1438,) and data.y_test.shape == (359,)
    assert data.x_train.dtype == data.x_test.dtype == np.float32
    assert data.y_train.dtype == data.y_test.dtype == np.int64
    assert data.classes == 10 and data.image_shape == (8, 8)
    assert data.x_train.min() == 0 and data.x_train.max() == 1
    assert data.x_train.flags.c_contiguous and data.x_train.flags.writeable


def test_the_file_is_the_published_data(scans):
    images, labels = scans
    assert images.shape == (1797, 8, 8) and images.dtype == labels.dtype == np.uint8
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() == SHA256


def test_the_third_of_every_five_scans_of_a_class_is_held_out(scans):
    images, labels = scans
    seen = [0] * 10
    parts = {False: [], True: []}
    for image, label in zip(images, labels, strict=True):
        parts[seen[label] % 5 == 2].append((image, label))
        seen[label] += 1
    data = digits()
    for held_out, x, y in [(False, data.x_train, data.y_train), (True, data.x_test, data.y_test)]:
        assert np.array_equal(x * 16, [image.ravel() for image, _ in parts[held_out]])
        assert np.array_equal(y, [label for _, label in parts[held_out]])
    assert np.bincount(data.y_test).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]


def test_each_call_gives_fresh_arrays():
    digits().x_train[:] = -1
    assert digits().x_train.min() == 0
