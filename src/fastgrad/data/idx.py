"""MNIST-style IDX files: a big-endian header (magic, then one uint32 per dimension), then the raw values.

The magic is two zero bytes, a type code and the number of dimensions: 00 00 08 03 for images
(uint8[n, rows, columns]), 00 00 08 01 for labels (uint8[n]). The page of the MNIST database (LeCun, Cortes, Burges)
describes the format.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from .dataset import Dataset

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"


def load_idx(directory: str | Path) -> Dataset:
    """Load a training and a test set from the four IDX files of MNIST, Fashion-MNIST, EMNIST and the like.

    Looks for `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
    `t10k-labels-idx1-ubyte`; each may be spelt with a dot (`train-images.idx3-ubyte`) and end in `.gz`.
    Pixels become float32 in [0, 1] (k/255), images are flattened; classes = greatest training label + 1.

    FileNotFoundError: the directory or one of the files is missing (says what was looked for and what is there).
    ValueError: a wrong magic, a file too short or too long, counts of images and labels that differ, no images, image
    sizes that differ between the two parts, labels that are no integers in 0..classes-1.

    >>> data = load_idx("mnist/")                                        # doctest: +SKIP
    >>> data.x_train.shape, data.image_shape                             # doctest: +SKIP
    ((60000, 784), (28, 28))
    """
    directory = Path(directory)
    if not directory.is_dir():
        reason = "is not a directory" if directory.exists() else "no such directory"
        raise FileNotFoundError(f"{directory}: {reason}")
    parts = [
        _find(directory, f"{part}-{kind}")
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    ]
    x_train, y_train, train_shape = _load_part(parts[0], parts[1])
    x_test, y_test, test_shape = _load_part(parts[2], parts[3])
    if train_shape != test_shape:
        raise ValueError(f"{parts[2]}: images are {test_shape}, but those for training are {train_shape}")
    classes = int(y_train.max()) + 1
    if y_test.max() >= classes:
        raise ValueError(f"{parts[3]}: label {y_test.max()} does not occur in training (0..{classes - 1})")
    return Dataset(x_train, y_train, x_test, y_test, classes, train_shape)


def read_idx(path: str | Path) -> np.ndarray:
    """Read one IDX file, gzipped or not, as an array in the machine's byte order.

    ValueError: not an IDX file, or the bytes after the header are fewer or more than it announces.
    """
    path = Path(path)
    data = _read_bytes(path)
    code, rank = (data[2], data[3]) if len(data) >= 4 else (0, 0)
    if data[:2] != b"\0\0" or code not in _TYPES or rank == 0:
        raise ValueError(
            f"{path}: not an IDX file, its magic is {data[:4].hex(' ') or 'missing'} "
            "(images: 00 00 08 03, labels: 00 00 08 01)"
        )
    header = 4 + 4 * rank
    if len(data) < header:
        raise ValueError(f"{path}: truncated, expected a header of {header} bytes, got {len(data)}")
    shape = struct.unpack(f">{rank}I", data[4:header])
    dtype = np.dtype(_TYPES[code])
    expected, got = header + math.prod(shape) * dtype.itemsize, len(data)
    if got != expected:
        what = "truncated" if got < expected else "too long"
        raise ValueError(f"{path}: {what}, expected {expected} bytes for shape {shape}, got {got}")
    values = np.frombuffer(data, dtype, offset=header).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


def _load_part(images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.dtype != np.uint8:
        raise ValueError(f"{images_path}: expected images as uint8[n, rows, columns], got {_short(images)}")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(f"{labels_path}: expected labels as integers[n], got {_short(labels)}")
    if len(images) != len(labels):
        raise ValueError(
            f"{labels_path}: {len(labels)} labels for {len(images)} images in {images_path.name}"
        )
    if images.size == 0:
        raise ValueError(f"{images_path}: holds no pixels, its shape is {images.shape}")
    if labels.min() < 0:
        raise ValueError(f"{labels_path}: labels must be integers from 0 up, got {labels.min()}")
    x = images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
    return x, labels.astype(np.int64), images.shape[1:]


def _find(directory: Path, stem: str) -> Path:
    """The file of that stem (`train-images-idx3`) under any of its spellings, plain before gzipped."""
    plain = [f"{stem}-ubyte", f"{stem.replace('-idx', '.idx')}-ubyte"]
    names = plain + [f"{name}.gz" for name in plain]
    for name in names:
        if (directory / name).is_file():
            return directory / name
    there = sorted(entry.name for entry in directory.iterdir())
    listing = ", ".join(there[:12]) + (f" and {len(there) - 12} more" if len(there) > 12 else "")
    raise FileNotFoundError(
        f"{directory}: none of {', '.join(names)} found; the directory holds {listing or 'nothing'}"
    )


def _read_bytes(path: Path) -> bytes:
    """The file's bytes, unpacked where its first two say gzip, whatever its name says."""
    data = path.read_bytes()
    if not data.startswith(_GZIP):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: truncated or damaged gzip file of {len(data)} bytes ({error})") from error


def _short(array: np.ndarray) -> str:
    return f"{array.dtype.name}{list(array.shape)}"
