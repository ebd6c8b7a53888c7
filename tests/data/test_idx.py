"""MNIST-style IDX files: what loads, and the error for each way a file or directory can be wrong."""

import gzip
import struct

import numpy as np
import pytest

from fastgrad.data import load_idx
from fastgrad.data.idx import read_idx

TRAIN_X, TRAIN_Y = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_X, TEST_Y = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def idx(array, code=0x08):
    """The IDX bytes of an array; `code` is its type."""
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def images(n, shape=(4, 3)):
    return np.random.default_rng(n).integers(0, 256, (n, *shape), dtype=np.uint8)


def labels(n, classes=3):
    return (np.arange(n) % classes).astype(np.uint8)


@pytest.fixture
def mnist(tmp_path):
    """A good directory: 7 training and 5 test images of 4x3 pixels in 3 classes."""
    for name, array in [(TRAIN_X, images(7)), (TRAIN_Y, labels(7)), (TEST_X, images(5)), (TEST_Y, labels(5))]:
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path


def test_loads_flattened_scaled_images(mnist):
    data = load_idx(mnist)
    assert data.x_train.dtype == data.x_test.dtype == np.float32
    assert data.y_train.dtype == data.y_test.dtype == np.int64
    assert data.classes == 3 and data.image_shape == (4, 3)
    np.testing.assert_allclose(data.x_train, images(7).reshape(7, 12) / 255, rtol=1e-6)
    np.testing.assert_allclose(data.x_test, images(5).reshape(5, 12) / 255, rtol=1e-6)
    assert data.y_train.tolist() == [0, 1, 2, 0, 1, 2, 0] and data.y_test.tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_names_with_a_dot_and_gzip(mnist, dotted, packed):
    expected = load_idx(str(mnist))
    for path in list(mnist.iterdir()):
        name = path.name.replace("-idx", ".idx") if dotted else path.name
        data = path.read_bytes()
        path.unlink()
        (mnist / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)
    for got, want in zip(load_idx(mnist), expected, strict=True):
        assert np.array_equal(got, want)


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, ">u1"), (9, ">i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")]
)
def test_read_idx_gives_native_arrays_of_every_type(tmp_path, code, dtype):
    values = np.arange(6).reshape(2, 3).astype(dtype)
    (tmp_path / "a").write_bytes(idx(values, code))
    got = read_idx(tmp_path / "a")
    assert (
        np.array_equal(got, values) and got.dtype == np.dtype(dtype).newbyteorder("=") and got.flags.writeable
    )


BAD_FILES = {
    "no magic": (TRAIN_X, b"", "magic is missing"),
    "text": (TRAIN_X, b"<html>", "not an IDX file, its magic is 3c 68 74 6d"),
    "unknown type": (TRAIN_X, b"\0\0\x07\x03", "not an IDX file, its magic is 00 00 07 03"),
    "header cut": (TRAIN_X, idx(images(7))[:10], "truncated, expected a header of 16 bytes, got 10"),
    "pixels cut": (
        TRAIN_X,
        idx(images(7))[:-3],
        r"truncated, expected 100 bytes for shape \(7, 4, 3\), got 97",
    ),
    "trailing bytes": (TRAIN_X, idx(images(7)) + b"!", "too long, expected 100 bytes for shape .*, got 101"),
    "gzip cut": (TRAIN_X, gzip.compress(idx(images(7)))[:-20], "truncated or damaged gzip file"),
    "gzip damaged": (TRAIN_X, b"\x1f\x8b" + bytes(range(40)), "truncated or damaged gzip file"),
    "labels for images": (
        TRAIN_X,
        idx(labels(7)),
        r"expected images as uint8\[n, rows, columns\], got uint8\[7\]",
    ),
    "images for labels": (TRAIN_Y, idx(images(7)), r"expected labels as integers\[n\], got uint8\[7, 4, 3\]"),
    "counts differ": (TRAIN_Y, idx(labels(6)), f"6 labels for 7 images in {TRAIN_X}"),
    "float labels": (
        TRAIN_Y,
        idx(labels(7).astype(">f4"), 0x0D),
        r"expected labels as integers\[n\], got float32\[7\]",
    ),
    "negative label": (
        TRAIN_Y,
        idx(np.arange(-1, 6, dtype=np.int8), 9),
        "labels must be integers from 0 up, got -1",
    ),
    "unknown class": (TEST_Y, idx(labels(5, 5)), r"label 4 does not occur in training \(0..2\)"),
    "other image size": (
        TEST_X,
        idx(images(5, (3, 4))),
        r"images are \(3, 4\), but those for training are \(4, 3\)",
    ),
    "no pixels": (TRAIN_X, idx(images(7, (0, 3))), "holds no pixels"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_a_value_error_that_names_it(mnist, name, content, message):
    (mnist / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_idx(mnist)
    assert str(mnist / name) in str(caught.value)


def test_no_images_at_all(mnist):
    (mnist / TRAIN_X).write_bytes(idx(images(0)))
    (mnist / TRAIN_Y).write_bytes(idx(labels(0)))
    with pytest.raises(ValueError, match="holds no pixels"):
        load_idx(mnist)


def test_a_missing_file_names_what_was_looked_for_and_what_is_there(mnist):
    (mnist / TEST_Y).rename(mnist / "labels.bin")
    with pytest.raises(FileNotFoundError) as caught:
        load_idx(mnist)
    for name in (TEST_Y, f"{TEST_Y}.gz", "t10k-labels.idx1-ubyte", "labels.bin", TRAIN_X):
        assert name in str(caught.value)


def test_an_empty_directory_says_that_it_holds_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="the directory holds nothing"):
        load_idx(tmp_path)


def test_a_missing_directory_and_a_file_in_its_place(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such directory"):
        load_idx(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="is not a directory"):
        load_idx(tmp_path / "file")
