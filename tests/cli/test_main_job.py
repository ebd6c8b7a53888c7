"""The command line as a user starts it: a process of its own, its exit code, and what it prints where."""

from __future__ import annotations

import gzip
import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest

STAGES = ("trace", "autodiff", "passes", "schedule", "memory", "codegen")
MODEL = """
import numpy as np

def loss(w, x):
    return np.sum(np.tanh(x @ w), axis=0).mean()

def branch(x):
    return x if x > 0 else -x

def median(x):
    return np.median(x)
"""


def fastgrad(*arguments, **options):
    """The finished process of ``python -m fastgrad arguments``."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FASTGRAD_")}
    return subprocess.run(
        [sys.executable, "-m", "fastgrad", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, env=environment, **options,
    )  # fmt: skip


def bad(done, *parts):
    """Exit code 2, nothing on stdout, one line on stderr that holds ``parts``, and no traceback."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("fastgrad"), done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr, (part, done.stderr)


def write_idx(path, array, open_=open):
    with open_(path, "wb") as file:
        file.write(
            bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
        )


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(0)
    for part, n in (("train", 40), ("t10k", 10)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", rng.integers(0, 255, (n, 3, 3)).astype(np.uint8))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", (np.arange(n) % 2).astype(np.uint8))
    return tmp_path


def test_the_main_job_ends_with_one_json_object():
    done = fastgrad("train", "--epochs", 3, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for key in ("test_accuracy", "steps_per_s", "interpreted_steps_per_s", "compile_s", "wall_s"):
        assert isinstance(found[key], float) and found[key] > 0, key
    assert 0.85 < found["test_accuracy"] <= 1.0
    assert found["epochs"] == 3 and found["steps"] == 3 * 45 and found["backend"] == "numba"
    assert found["compile_s"] < found["wall_s"] and found["train_s"] < found["wall_s"]
    assert len(done.stdout.splitlines()) == 1  # the report went to stderr
    assert "confusion matrix" in done.stderr and "test accuracy" in done.stderr
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("stage", STAGES)
def test_explain_prints_each_stage(tmp_path, capsys, stage):
    from fastgrad.cli import main

    (tmp_path / "model.py").write_text(MODEL)
    target = f"{tmp_path / 'model.py'}:loss"
    assert main(["explain", target, "--stage", stage, "--shape", "f32[16,4]", "f32[8,16]"]) == 0
    out = capsys.readouterr().out
    expected = {
        "trace": ["graph loss(", "f32[16,4]", "matmul", "tanh", "reduce_sum"],
        "autodiff": ["graph", "matmul", "f32[16,4]"],
        "passes": ["graph", "matmul"],
        "schedule": ["matmul"],
        "memory": ["arena"],
        "codegen": ["def kernel(desc, lo, hi):"],
    }
    for text in expected[stage]:
        assert text in out, (stage, text, out)


def test_explain_as_a_process(tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    done = fastgrad("explain", "model:loss", "--shape", "f32[16,4] f32[8,16]", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "" and "tanh" in done.stdout
    assert "model.py:5" in done.stdout


@pytest.mark.parametrize(
    ("function", "shape", "parts"),
    [
        ("loss", "f32[16,4] f32[8,15]", ["matmul: inner dimensions", "f32[8,15] @ f32[16,4]", "model.py:5"]),
        ("branch", "f32[]", ["TraceError", "a Python `if`", "model.py:8", "np.where"]),
        ("median", "f32[3]", ["UnsupportedError", "np.median", "model.py:11"]),
    ],
)
@pytest.mark.parametrize("stage", ["trace", "codegen"])
def test_a_function_that_cannot_be_traced(tmp_path, capsys, function, shape, parts, stage):
    from fastgrad.cli import main

    (tmp_path / "model.py").write_text(MODEL)
    assert main(["explain", f"{tmp_path / 'model.py'}:{function}", "--stage", stage, "--shape", shape]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    for part in parts:
        assert part in captured.err, (part, captured.err)


def test_no_data(tmp_path):
    bad(fastgrad("train", "--data", tmp_path / "nowhere", "--json"), "nowhere", "no such directory")


def test_missing_and_truncated_files(mnist, capsys):
    """Each in this process: only the files differ, and what is read is read before anything is traced."""
    from fastgrad.cli import main
    from fastgrad.codegen import compile as compiler

    before = compiler.fetched()

    def fails(*parts):
        assert main(["train", "--data", str(mnist), "--epochs", "1"]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1, captured.err
        for part in parts:
            assert part in captured.err, (part, captured.err)
        assert compiler.fetched() == before

    images = mnist / "train-images-idx3-ubyte"
    whole = images.read_bytes()
    for size in (0, 1, 3, 4, 10, 16, len(whole) - 1):
        images.write_bytes(whole[:size])
        fails("train-images-idx3-ubyte", "truncated" if size >= 4 else "not an IDX file")
    images.write_bytes(whole + b"x")
    fails("train-images-idx3-ubyte", "too long")
    images.write_bytes(b"\x01" + whole[1:])
    fails("train-images-idx3-ubyte", "not an IDX file")
    images.write_bytes(gzip.compress(whole)[:-20])
    fails("train-images-idx3-ubyte", "gzip")
    write_idx(images, np.zeros((0, 3, 3), np.uint8))
    fails("labels for 0 images")
    write_idx(images, np.zeros((40, 3, 4), np.uint8))
    fails("images are")
    images.unlink()
    fails("none of train-images-idx3-ubyte")
    images.mkdir()
    fails("none of train-images-idx3-ubyte")
    images.rmdir()
    write_idx(f"{images}.gz", np.zeros((40, 3, 3), np.uint8), gzip.open)
    write_idx(mnist / "t10k-labels-idx1-ubyte", np.full(10, 2, np.uint8))
    fails("label 2 does not occur in training (0..1)")
    write_idx(mnist / "t10k-labels-idx1-ubyte", np.zeros(10, np.uint8))
    (mnist / "t10k-images-idx3-ubyte").chmod(0)
    if os.geteuid() != 0:
        fails("t10k-images-idx3-ubyte")
    (mnist / "t10k-images-idx3-ubyte").chmod(0o600)
    assert main(["train", "--data", str(mnist), "--epochs", "1", "--hidden", "4", "--backend", "numpy"]) == 0


def test_a_data_directory_that_is_a_file(mnist):
    bad(fastgrad("train", "--data", mnist / "train-images-idx3-ubyte"), "is not a directory")


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("FASTGRAD_NUM_THREADS", "many", "FASTGRAD_NUM_THREADS must be a positive integer"),
        ("FASTGRAD_NUM_THREADS", "\u00b2", "FASTGRAD_NUM_THREADS must be a positive integer"),
        ("FASTGRAD_BACKEND", "tpu", "unknown backend 'tpu'"),
    ],
)
def test_a_bad_environment(tmp_path, monkeypatch, capsys, name, value, part):
    from fastgrad.cli import main

    (tmp_path / "model.py").write_text(MODEL)
    monkeypatch.setenv(name, value)
    assert main(["explain", f"{tmp_path / 'model.py'}:loss", "--shape", "f32[16,4] f32[8,16]"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and part in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["explain", "model.py:loss", "--shape", "f32[16,4]", "f32[8,16]"],
        ["calibrate", "--kept"],
        ["cache", "info"],
        ["bench", "--help"],
        ["train", "--epochs", "1", "--json"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_reader_that_has_read_enough(tmp_path, arguments):
    """As in ``fastgrad explain ... | head -1``: no traceback, nothing on stderr but what belongs there."""
    (tmp_path / "model.py").write_text(MODEL)
    there, here = os.pipe()
    os.close(there)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fastgrad", *arguments], stdout=here, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
            timeout=120,
        )  # fmt: skip
    finally:
        os.close(here)
    assert done.returncode in (0, 1, 141), done.stderr  # argparse and rich have ways of their own
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
