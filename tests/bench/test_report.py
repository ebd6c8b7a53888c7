"""What is written about a run: tables, remarks, and where fastgrad is behind, all from the rows."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest

from fastgrad.bench import charts, report, store
from fastgrad.bench.behind import behind, section
from fastgrad.bench.campaign import Plan
from synthetic_results import full_store, result


def row(model: str = "softmax", dtype: str = "float32", threads: int = 2, others: float = 0.0, **results):
    return {"model": model, "dtype": dtype, "threads": threads, "others_cores": others, "results": results}


def small_store(*rows, contestants=("fastgrad", "interpreter", "jax"), busy=None) -> store.Store:
    plan = Plan(("softmax", "chain"), contestants, threads=(2,))
    made = store.Store(None, store.header(plan, "fastgrad bench", busy, {"torch": "torch is not installed"}))
    made.rows = list(rows)
    return made


def text_of(made: store.Store) -> str:
    return "\n".join(report.markdown(made.header, store.in_order(made.rows, made.header["plan"])))


def test_behind_is_every_smaller_figure_of_another():
    rows = [
        row(
            fastgrad=result(100, cold=4, warm=1, mib=200),
            jax=result(80, cold=5, warm=2, mib=100),
            interpreter=result(98, cold=6, warm=1, mib=300),
        ),
        row("chain", fastgrad=result(100, cold=4, warm=1, mib=200), jax=result(25, cold=2, warm=1, mib=200)),
    ]
    found = [(b.measure, b.model, b.contestant, round(b.ratio, 3), b.clear) for b in behind(rows)]
    assert found == [
        ("step", "chain", "jax", 4.0, True),
        ("step", "softmax", "jax", 1.25, True),
        ("step", "softmax", "interpreter", 1.02, False),
        ("cold", "chain", "jax", 2.0, True),
        ("memory", "softmax", "jax", 2.0, True),
    ]
    text = "\n".join(section(rows))
    assert "| faster | JAX jit | 2 of 2 | 2.62 | 4.00 | 1,000 elementwise ops on 4,096, float32" in text
    assert "| faster | fastgrad interpreter | 1 of 1 | 1.02 |" in text
    assert "| needs less memory | JAX jit | 1 of 2 | 2.00 |" in text
    assert "starts faster (warm)" not in text
    assert text.count("within the spread |") == 1


def test_behind_nowhere():
    rows = [row(fastgrad=result(10, 1, 1, 10), jax=result(20, 2, 2, 20))]
    assert behind(rows) == [] and "Nowhere among these figures." in section(rows)


def test_behind_says_where_fastgrad_failed():
    text = "\n".join(section([row(fastgrad={"cold_s": [], "warm_s": [], "failed": "died"}, jax=result(20))]))
    assert (
        "**fastgrad itself failed**: softmax regression 784-10, batch 128, float32, threads: 2: died" in text
    )


def test_the_report_names_machine_versions_and_who_is_missing():
    made = small_store(row(fastgrad=result(10), interpreter=result(90), jax=result(1234)))
    text = text_of(made)
    assert made.header["machine"] in text and f"numpy {made.header['versions']['numpy']}" in text
    assert "PyTorch eager did not take part: torch is not installed" in text
    assert "**incomplete**: 1 of 2 places were measured" in text
    assert "The machine was quiet" in text
    assert "| softmax regression 784-10, batch 128 | **10** | 90 | 1,234 |" in text
    assert "| float32 | 2 | JAX jit | 1,234 (1,172–1,296) | 123.40 | 3 | 2 | 200 |" in text


def test_the_report_says_what_was_not_quiet():
    made = small_store(
        row(fastgrad=result(10)), row("chain", others=0.4, fastgrad=result(10)), busy="the load average is 3"
    )
    text = text_of(made)
    assert "**The machine was busy when the run began** (the load average is 3)" in text
    assert "up to 0.40 cores** during the rounds of 1 of 2 places" in text
    assert "| 1,000 elementwise ops on 4,096 † |" in text
    assert "| softmax regression 784-10, batch 128 |" in text and "The machine was quiet" not in text


def test_failed_cells_and_their_reasons():
    late = {"cold_s": [], "warm_s": [], "failed": "timed out after 180 s"}
    died = {"cold_s": [2.5], "warm_s": [], "failed": "died with SIGKILL"}
    text = text_of(small_store(row(fastgrad=result(10), interpreter=died, jax=late)))
    assert "| float32 | 2 | JAX jit | timed out | – | – | – | – |" in text
    assert "| float32 | 2 | fastgrad interpreter | failed | – | 2.5 | – | – |" in text
    assert "| softmax regression 784-10, batch 128 | **10** | – | – |" in text
    assert (
        "- JAX jit: timed out after 180 s (softmax regression 784-10, batch 128 float32 threads: 2)" in text
    )
    assert "- fastgrad interpreter: died with SIGKILL (" in text


def test_a_whole_report(tmp_path):
    made = full_store()
    files = report.write(tmp_path, made)
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert files[0] == tmp_path / "RESULTS.md"
    assert text.count("\n### ") == 7 and text.count("| model | fastgrad |") == 4
    assert len(re.findall(r"^\| float\d\d", text, re.MULTILINE)) == 28 * 7
    for path in files[1:]:
        assert f"({path.relative_to(tmp_path).as_posix()})" in text


def test_every_table_is_rectangular(tmp_path):
    report.write(tmp_path, full_store())
    lines = (tmp_path / "RESULTS.md").read_text(encoding="utf-8").splitlines()
    for above, line in pairwise(lines):
        if above.startswith("|") and line.startswith("|"):
            assert above.count("|") == line.count("|"), (above, line)


def test_charts_are_drawn_and_the_same_again(tmp_path):
    pytest.importorskip("matplotlib")
    made = full_store()
    first, again = (charts.draw(tmp_path / folder, made.rows) for folder in "ab")
    assert [path.name for path in first] == ["step_time.svg", "first_step.svg", "peak_memory.svg"]
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_charts_of_rows_without_figures(tmp_path):
    failed = {"cold_s": [], "warm_s": [], "failed": "died"}
    assert charts.draw(tmp_path, [row(fastgrad=failed)]) == []
    assert charts.draw(tmp_path, []) == []


def test_no_charts_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setattr(charts, "available", lambda: False)
    assert report.write(tmp_path, full_store()) == [tmp_path / "RESULTS.md"]


class TestStore:
    """The file of JSON lines."""

    def fresh(self, folder, **changes) -> store.Store:
        plan = Plan(("softmax", "chain"), ("fastgrad",), **changes)
        return store.Store(folder, store.header(plan, "fastgrad bench", None, {}))

    def begun(self, folder) -> store.Store:
        made = self.fresh(folder)
        made.begin()
        made.add(row(fastgrad=result(10)))
        return made

    def test_resume_continues(self, tmp_path):
        self.begun(tmp_path)
        again = self.fresh(tmp_path)
        again.resume()
        assert [store.cell_of(r) for r in again.rows] == [("softmax", "float32", 2)]
        again.add(row("chain", fastgrad=result(10)))
        lines = [json.loads(line) for line in (tmp_path / store.FILE).read_text().splitlines()]
        assert len(lines) == 3 and lines[0]["plan"]["models"] == ["softmax", "chain"]

    def test_a_line_cut_off_is_measured_again(self, tmp_path):
        self.begun(tmp_path)
        path = tmp_path / store.FILE
        path.write_text(path.read_text() + '{"model": "ch')
        again = self.fresh(tmp_path)
        again.resume()
        assert len(again.rows) == 1 and len(path.read_text().splitlines()) == 2

    def test_resume_without_a_file_begins(self, tmp_path):
        made = self.fresh(tmp_path / "new")
        made.resume()
        assert made.rows == [] and (tmp_path / "new" / store.FILE).exists()

    def test_another_plan_is_refused(self, tmp_path):
        self.begun(tmp_path)
        with pytest.raises(store.Unusable, match="was made with another plan"):
            self.fresh(tmp_path, rounds=99).resume()

    @pytest.mark.parametrize("text", ["", "{}\n", "[1]\n", "no json\n", '{"plan": {}}\n{"model": 1}\n{}\n'])
    def test_a_file_of_something_else_is_refused(self, tmp_path, text):
        (tmp_path / store.FILE).write_text(text)
        with pytest.raises(store.Unusable, match="holds no results"):
            self.fresh(tmp_path).resume()
