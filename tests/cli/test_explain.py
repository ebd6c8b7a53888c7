"""`fastgrad explain`: stages of a function from a file or a module, and one line with exit code 2 for bad input."""

import numpy as np
import pytest

from fastgrad.cli import main
from fastgrad.cli.bad_input import BadInput
from fastgrad.cli.explain import STAGES, find_function, zeros

MODEL = """
import numpy as np

constant = 3

def product(x, w):
    return np.sum(np.tanh(x @ w))

def scaled(x, factor=2.0):
    return x * factor
"""


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return str(path)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_prints(capsys, model, stage):
    assert main(["explain", f"{model}:product", "--stage", stage, "--shape", "f32[32,64] f32[64,10]"]) == 0
    assert capsys.readouterr().out.strip()


def test_shapes_may_be_separate_words(capsys, model):
    assert main(["explain", f"{model}:product", "--shape", "f32[2,3]", "f32[3,4]"]) == 0
    assert "f32[3,4]" in capsys.readouterr().out


def test_a_module_in_the_working_directory(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_function("model:product").__name__ == "product"


@pytest.mark.parametrize(
    ("short", "shape", "dtype"),
    [
        ("f32[2,3]", (2, 3), np.float32),
        ("f64[]", (), np.float64),
        ("f64", (), np.float64),
        ("i64[5]", (5,), np.int64),
        ("u8[0,4]", (0, 4), np.uint8),
        ("bool[1]", (1,), np.bool_),
    ],
)
def test_short_types(short, shape, dtype):
    array = zeros(short)
    assert array.shape == shape and array.dtype == dtype and not array.any()


@pytest.mark.parametrize(
    "short", ["float32[2]", "f16[2]", "f32[2", "f32[-1]", "f32[a]", "f32[1,,2]", "", "f32[2]x"]
)
def test_what_is_no_short_type(short):
    with pytest.raises(BadInput):
        zeros(short)


BAD = {
    "no colon": ("{model}", [], "target must be module:function or file.py:function"),
    "no such file": ("nowhere.py:f", [], "no such file: nowhere.py"),
    "no such module": ("no_such_module:f", [], "cannot import no_such_module: ModuleNotFoundError"),
    "no such function": ("{model}:f", [], "'f' not found in"),
    "no function": ("{model}:constant", [], "'constant' is not callable"),
    "too few shapes": ("{model}:product", ["f32[2,3]"], "does not fit 1 arguments"),
    "too many shapes": ("{model}:scaled", ["f32[2] f32[] f32[]"], "does not fit 3 arguments"),
    "unknown dtype": ("{model}:scaled", ["q7[2]"], "'q7[2]' is no type such as f32[32,64]"),
    "shapes that do not fit": ("{model}:product", ["f32[2,3] f32[4,5]"], "ShapeError"),
}


@pytest.mark.parametrize(("target", "shapes", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2(capsys, model, target, shapes, message):
    assert main(["explain", target.format(model=model), *(["--shape", *shapes] if shapes else [])]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err


def test_an_unknown_stage(capsys, model):
    assert main(["explain", f"{model}:scaled", "--stage", "magic"]) == 2
    assert "invalid choice: 'magic'" in capsys.readouterr().err
