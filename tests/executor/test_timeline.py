"""The timeline: well-formed, self-contained, a box for each row, nothing of the user's text taken for markup."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.errors import ArgumentError
from fastgrad.executor.row import KINDS, Event
from fastgrad.executor.timeline import COLOURS, MEANINGS

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def profile():
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((64, 32)), rng.standard_normal((32, 16)), np.zeros(16)
    f = fg.grad(lambda w, b, x: (np.tanh(x @ w + b) ** 2).sum(), argnums=(0, 1))
    return f.compile(w, b, x).profile(w, b, x, runs=3)


@pytest.fixture(scope="module")
def looped():
    f = fg.jit(lambda x: fg.fori_loop(0, 3000, lambda i, x: x * 0.5 + 1.0, x))
    return f.compile(np.ones(8)).profile(np.ones(8), runs=2)


def titles(root):
    return [e.text for e in root.iter(f"{SVG}title")]


class Balanced(HTMLParser):
    """Checks that every element is closed, as a browser reads it."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], set()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.add(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_svg_is_well_formed_and_alone(profile):
    text = profile.to_svg()
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "") and "<script" not in text
    tips = titles(root)
    assert any("GFLOP/s" in t and "limit:" in t and "test_timeline.py" in t for t in tips)
    words = " ".join(e.text or "" for e in root.iter(f"{SVG}text"))
    assert "matrix product" in words and "overhead" in words and "us" in words


def test_the_page_is_well_formed_and_alone(profile):
    text = profile.to_html()
    assert text.startswith("<!DOCTYPE html>")
    ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    reader = Balanced()
    reader.feed(text)
    assert not reader.open and {"svg", "table", "style", "title"} <= reader.seen
    assert "script" not in reader.seen and "link" not in reader.seen and "src=" not in text
    for row in profile.rows:
        assert row.kernel in text
    assert "machine" in text and "roofline" in text


def test_boxes_stay_inside(profile):
    root = ET.fromstring(profile.to_svg())
    width = float(root.get("width"))
    for rect in root.iter(f"{SVG}rect"):
        x, w = float(rect.get("x", 0)), float(rect.get("width"))
        assert x >= 0 and w >= 0 and x + w <= width + 1


def test_many_short_rows_are_drawn_together(looped):
    assert len(looped.events) < 4096 and looped.unseen > 0
    text = looped.to_svg()
    assert len(titles(ET.fromstring(text))) < 3000
    assert "more rows of the run are not drawn" in text
    ET.fromstring(looped.to_html().removeprefix("<!DOCTYPE html>\n"))


def test_text_is_not_markup(profile):
    row = dataclasses.replace(profile.rows[0], ops="<b>&\"'", lines=("a<b>&.py:1",))
    other = dataclasses.replace(
        profile, name="</svg><script>", rows=(row, *profile.rows[1:]), events=(Event(row.number, 0.0, 1e6),)
    )
    root = ET.fromstring(other.to_svg())
    assert any("<b>&" in t for t in titles(root))
    assert "<script" not in other.to_html() and "<script" not in other.to_svg()
    ET.fromstring(other.to_html().removeprefix("<!DOCTYPE html>\n"))


def test_empty_profiles():
    empty = fg.jit(lambda x: x).compile(np.ones(0)).profile(np.ones(0), runs=1)
    none = dataclasses.replace(empty, rows=(), events=())
    for each in (empty, none):
        ET.fromstring(each.to_svg())
        ET.fromstring(each.to_html().removeprefix("<!DOCTYPE html>\n"))


def test_interpreted():
    x = np.ones((8, 8))
    profile = fg.jit(lambda x: np.exp(x @ x), backend="numpy").compile(x).profile(x, runs=1)
    assert any("matmul" in t for t in titles(ET.fromstring(profile.to_svg())))


def test_every_kind_has_a_colour():
    assert tuple(COLOURS) == tuple(MEANINGS) == KINDS
    assert len(set(COLOURS.values())) == len(KINDS)


@pytest.mark.parametrize(
    ("name", "begin"),
    [("p.svg", "<svg"), ("p.html", "<!DOCTYPE html>"), ("P.HTML", "<!DOC"), ("p.txt", "profile ")],
)
def test_save(profile, tmp_path, name, begin):
    path = profile.save(tmp_path / name)
    assert path == tmp_path / name and path.read_text(encoding="utf-8").startswith(begin)
    assert profile.save(str(tmp_path / name)) == path


def test_save_refuses_other_formats(profile, tmp_path):
    with pytest.raises(ArgumentError, match=r"no format for 'p\.png'") as caught:
        profile.save(tmp_path / "p.png")
    assert caught.value.hint == 'a name that ends in ".html", ".svg" or ".txt"'
    assert not list(tmp_path.iterdir())
