"""`fastgrad train`: its JSON line, its report, and one line with exit code 2 for each bad input."""

import json
import struct

import numpy as np
import pytest

from fastgrad.cli import main

KEYS = {
    "test_accuracy": float,
    "steps_per_s": float,
    "interpreted_steps_per_s": float,
    "compile_s": float,
    "wall_s": float,
    "train_s": float,
    "loss": float,
    "steps": int,
}


def train_json(capsys, *arguments):
    """The JSON object that `fastgrad train ... --json` ends with."""
    assert main(["train", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.fixture
def mnist(tmp_path):
    """Images of 4x4 pixels in two classes that differ in brightness: 60 to train, 20 to test."""
    rng = np.random.default_rng(0)
    for part, n in [("train", 60), ("t10k", 20)]:
        y = (np.arange(n) % 2).astype(np.uint8)
        x = (rng.integers(0, 50, (n, 4, 4)) + 200 * y[:, None, None]).astype(np.uint8)
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", x)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", y)
    return tmp_path


def test_two_epochs_on_the_digits_end_with_one_json_object(capsys):
    found = train_json(capsys, "--epochs", "2", "--seed", "3")
    for key, kind in KEYS.items():
        assert isinstance(found[key], kind), key
    assert found["test_accuracy"] > 0.7
    assert found["steps"] == 90 and found["epochs"] == 2 and found["seed"] == 3
    assert found["batch_size"] == 32 and found["hidden"] == [128, 64] and found["dtype"] == "float32"
    assert (
        found["steps_per_s"] > 0
        and found["interpreted_steps_per_s"] > 0
        and found["wall_s"] > found["train_s"]
    )


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_compiled_and_interpreted_training_agree(capsys, optimizer):
    arguments = [
        "--epochs",
        "2",
        "--hidden",
        "8",
        "--dtype",
        "float64",
        "--optimizer",
        optimizer,
        "--backend",
    ]
    compiled, interpreted = (train_json(capsys, *arguments, backend) for backend in ("numba", "numpy"))
    assert compiled["loss"] == pytest.approx(interpreted["loss"], rel=1e-10)
    assert compiled["test_accuracy"] == interpreted["test_accuracy"]


def test_the_same_seed_gives_the_same_run(capsys):
    first, again = (train_json(capsys, "--epochs", "1", "--hidden", "8", "--seed", "5") for _ in range(2))
    assert first["loss"] == again["loss"]


def test_the_report_shows_accuracy_confusion_and_speed(capsys):
    assert main(["train", "--epochs", "1", "--hidden", "8"]) == 0
    out = capsys.readouterr().out
    for text in ("confusion matrix", "test accuracy", "interpreted", "to trace and compile"):
        assert text in out


def test_idx_files(capsys, mnist):
    found = train_json(capsys, "--data", str(mnist), "--hidden", "8", "--epochs", "20", "--batch-size", "8")
    assert found["test_accuracy"] == 1.0


BAD = {
    "no command": ([], "COMMAND"),
    "unknown command": (["trian"], "invalid choice: 'trian'"),
    "unknown option": (["train", "--epoch", "3"], "unrecognized arguments: --epoch"),
    "hidden no integers": (
        ["train", "--hidden", "64,x"],
        "must be positive integers such as 128,64, got '64,x'",
    ),
    "hidden zero": (["train", "--hidden", "64,0"], "must be positive integers"),
    "hidden empty": (["train", "--hidden", ""], "must be positive integers"),
    "batch size zero": (["train", "--batch-size", "0"], "must be an integer of at least 1, got '0'"),
    "batch size negative": (["train", "--batch-size", "-4"], "must be an integer of at least 1"),
    "epochs zero": (["train", "--epochs", "0"], "must be an integer of at least 1"),
    "epochs a fraction": (["train", "--epochs", "1.5"], "must be an integer of at least 1, got '1.5'"),
    "lr zero": (["train", "--lr", "0"], "must be a finite number above 0, got '0'"),
    "lr no number": (["train", "--lr", "fast"], "must be a finite number above 0, got 'fast'"),
    "lr nan": (["train", "--lr", "nan"], "must be a finite number above 0"),
    "seed negative": (["train", "--seed", "-1"], "must be an integer of at least 0"),
    "threads zero": (["train", "--threads", "0"], "must be an integer of at least 1"),
    "dtype": (["train", "--dtype", "float16"], "invalid choice: 'float16'"),
    "optimizer": (["train", "--optimizer", "lbfgs"], "invalid choice: 'lbfgs'"),
    "backend": (["train", "--backend", "cuda"], "invalid choice: 'cuda'"),
    "no such directory": (["train", "--data", "no/such/dir"], "no such directory"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_arguments_are_one_line_and_exit_code_2(capsys, arguments, message):
    assert main(arguments) == 2
    assert_one_line(capsys, message)


def test_a_missing_data_file(capsys, mnist):
    (mnist / "t10k-labels-idx1-ubyte").unlink()
    assert main(["train", "--data", str(mnist)]) == 2
    assert_one_line(capsys, "none of t10k-labels-idx1-ubyte")


def test_a_truncated_data_file(capsys, mnist):
    path = mnist / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["train", "--data", str(mnist)]) == 2
    assert_one_line(capsys, "truncated, expected 976 bytes for shape (60, 4, 4), got 975")


def test_a_label_outside_the_classes(capsys, mnist):
    write_idx(mnist / "t10k-labels-idx1-ubyte", np.full(20, 7, np.uint8))
    assert main(["train", "--data", str(mnist)]) == 2
    assert_one_line(capsys, "label 7 does not occur in training (0..1)")


def test_help(capsys):
    assert main(["train", "--help"]) == 0
    assert "--batch-size" in capsys.readouterr().out


def assert_one_line(capsys, message):
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and captured.err.startswith("fastgrad") and message in captured.err
