"""`fastgrad bench`: a small run end to end, resuming, and one line with exit code 2 for whatever cannot be run."""

from __future__ import annotations

import json
import os

import pytest

from fastgrad.bench.campaign import Measurement
from fastgrad.bench.quiet import cores
from fastgrad.cli import bench, main

TINY = ["--quick", "--models", "softmax", "--rounds", "2", "--seconds", "0.01", "--threads", "1"]
OURS = ["--contestants", "fastgrad", "interpreter"]


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Whatever else runs here, the machine counts as quiet."""
    monkeypatch.setattr(bench, "busy_reason", lambda: None)


@pytest.fixture
def acted(monkeypatch):
    """No process is started; returns the cells that would have been measured."""
    cells = []

    def row(self: Measurement):
        cells.append(tuple(self._cell))
        spread = {"median": 2.0, "min": 1.0, "max": 3.0}
        found = {"cold_s": [1.0], "warm_s": [1.0], "us": spread, "mib": 9.0, "note": None, "first": [1.0]}
        results = {name: dict(found) for name in self._plan.contestants}
        return {**self._cell._asdict(), "others_cores": 0.0, "results": results}

    monkeypatch.setattr(Measurement, "row", row)
    monkeypatch.setattr(bench, "touch", lambda plan, say: None)
    return cells


def test_compiled_against_interpreted(capsys, tmp_path):
    assert main(["bench", *TINY, *OURS, "--out", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert "softmax regression" in printed.err and "fastgrad interpreter" in printed.err
    (row,) = found["rows"]
    assert (row["model"], row["dtype"], row["threads"]) == ("softmax", "float32", 1)
    for result in row["results"].values():
        assert result["us"]["median"] > 0 and result["cold_s"][0] > 0 and result["warm_s"][0] > 0
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "## Where fastgrad is behind" in text and found["machine"] in text
    assert len((tmp_path / "results" / "rows.jsonl").read_text().splitlines()) == 2


def test_without_peers_it_compares_with_the_interpreter(capsys, monkeypatch, acted):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    assert main(["bench", "--quick"]) == 0
    out = capsys.readouterr().out
    assert acted == [("mlp-64-32-10", "float32", cores())]
    assert "fastgrad interpreter" in out
    for line in ("PyTorch eager", "torch.compile", "JAX jit", "HIPS autograd"):
        assert f"{line} does not take part: " in out


def test_full_is_every_model_in_both_dtypes(acted, capsys):
    assert main(["bench", "--full", *OURS]) == 0
    threads = sorted({1, min(2, cores())})
    assert len(acted) == len(set(acted)) == 7 * 2 * len(threads)
    assert "about" in capsys.readouterr().out


def test_resume_measures_only_what_is_left(tmp_path, capsys, acted):
    arguments = ["bench", "--models", "softmax", "chain", *OURS, "--threads", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert acted == [("softmax", "float32", 1), ("chain", "float32", 1)]
    rows = tmp_path / "results" / "rows.jsonl"
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join(lines[:2]))
    acted.clear()
    assert main([*arguments, "--resume"]) == 0
    assert acted == [("chain", "float32", 1)]
    assert len(rows.read_text().splitlines()) == 3
    assert "incomplete" not in (tmp_path / "RESULTS.md").read_text()
    acted.clear()
    assert main(arguments) == 0  # without --resume it starts anew
    assert len(acted) == 2


def test_an_interrupted_run_keeps_its_rows(tmp_path, capsys, acted, monkeypatch):
    whole = Measurement.row

    def row(self):
        if self._cell.model == "chain":
            raise KeyboardInterrupt
        return whole(self)

    monkeypatch.setattr(Measurement, "row", row)
    assert main(["bench", "--models", "softmax", "chain", *OURS, "--out", str(tmp_path)]) == 130
    assert len((tmp_path / "results" / "rows.jsonl").read_text().splitlines()) == 2


def test_disagreement_is_exit_code_1(capsys, acted, monkeypatch):
    def row(self):
        raise bench.Disagreement("softmax: contestants disagree: fastgrad 1.0, jax 2.0")

    monkeypatch.setattr(Measurement, "row", row)
    assert main(["bench", *TINY, *OURS]) == 1
    assert "contestants disagree: fastgrad 1.0, jax 2.0" in capsys.readouterr().err


def test_a_busy_machine_is_refused(capsys, monkeypatch, acted, tmp_path):
    monkeypatch.setattr(bench, "busy_reason", lambda: "the load average of the last minute is 7.00")
    assert main(["bench", *TINY, *OURS]) == 2
    assert_one_line(capsys, "the machine is busy: the load average of the last minute is 7.00")
    assert acted == []
    assert main(["bench", *TINY, *OURS, "--force", "--out", str(tmp_path)]) == 0
    assert "not quiet: the load average of the last minute is 7.00" in capsys.readouterr().out
    assert "**The machine was busy when the run began**" in (tmp_path / "RESULTS.md").read_text()


BAD = {
    "model": (["--models", "resnet"], "invalid choice: 'resnet'"),
    "contestant": (["--contestants", "tensorflow"], "invalid choice: 'tensorflow'"),
    "dtype": (["--dtypes", "float16"], "invalid choice: 'float16'"),
    "rounds zero": (["--rounds", "0"], "must be an integer of at least 1, got '0'"),
    "seconds zero": (["--seconds", "0"], "must be a finite number above 0"),
    "limit negative": (["--limit", "-1"], "must be a finite number above 0"),
    "threads zero": (["--threads", "0"], "must be an integer of at least 1"),
    "too many threads": (["--threads", "4096"], "--threads 4096: this process may use"),
    "quick and full": (["--quick", "--full"], "not allowed with argument --quick"),
    "resume of nothing": (["--resume"], "--resume continues a run in --out DIR"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_arguments_are_one_line_and_exit_code_2(capsys, acted, arguments, message):
    assert main(["bench", *arguments]) == 2
    assert_one_line(capsys, message)
    assert acted == []


def test_a_peer_that_is_asked_for_but_missing(capsys, monkeypatch, acted):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    assert main(["bench", "--contestants", "fastgrad", "jax"]) == 2
    assert_one_line(capsys, "jax cannot take part: jax is not installed")


def test_an_out_that_is_a_file(capsys, tmp_path, acted):
    (tmp_path / "file").write_text("")
    assert main(["bench", *TINY, *OURS, "--out", str(tmp_path / "file")]) == 2
    assert_one_line(capsys, "--out")
    assert acted == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_an_out_that_is_read_only(capsys, tmp_path, acted):
    tmp_path.chmod(0o500)
    assert main(["bench", *TINY, *OURS, "--out", str(tmp_path / "new")]) == 2
    assert_one_line(capsys, "--out")


def test_results_of_something_else(capsys, tmp_path, acted):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "rows.jsonl").write_text("notes\n")
    assert main(["bench", *TINY, *OURS, "--out", str(tmp_path), "--resume"]) == 2
    assert_one_line(capsys, "holds no results of fastgrad bench")


def assert_one_line(capsys, message):
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and captured.err.startswith("fastgrad bench"), captured.err
    assert message in captured.err


def test_profiles_are_printed_and_written_beside_the_results(capsys, tmp_path, acted):
    options = ["--quick", "--models", "softmax", "chain", "--threads", "1", *OURS, "--profile"]
    assert main(["bench", *options, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "matmul" in printed and "% peak" in printed and "overhead" in printed and "sin" in printed
    names = sorted(path.name for path in (tmp_path / "profiles").iterdir())
    stems = ("chain-float32-1", "softmax-float32-1")
    assert names == [f"{stem}{suffix}" for stem in stems for suffix in (".html", ".txt")]
    assert "<svg" in (tmp_path / "profiles" / names[0]).read_text(encoding="utf-8")


def test_profiles_leave_stdout_to_the_json(capsys, acted):
    assert (
        main(["bench", "--quick", "--models", "softmax", "--threads", "1", *OURS, "--profile", "--json"]) == 0
    )
    printed = capsys.readouterr()
    assert json.loads(printed.out)["rows"] and "% peak" in printed.err
