"""Where fastgrad is behind: every figure of another contestant that is smaller than fastgrad's, found in the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

from .contestant import CONTESTANTS
from .models import MODELS

OURS = "fastgrad"
Row = dict[str, Any]
Result = dict[str, Any]


class Measure(NamedTuple):
    """One figure of a contestant: its ``title``, the ``unit``, how to read it (median, min, max; None where missing)."""

    title: str
    better: str
    unit: str
    read: Callable[[Result], tuple[float, float, float] | None]


def _step(result: Result) -> tuple[float, float, float] | None:
    us = result.get("us")
    return (us["median"], us["min"], us["max"]) if us else None


def _seconds(kind: str) -> Callable[[Result], tuple[float, float, float] | None]:
    def read(result: Result) -> tuple[float, float, float] | None:
        found = result.get(f"{kind}_s")
        return (median(found), min(found), max(found)) if found else None

    return read


def _mib(result: Result) -> tuple[float, float, float] | None:
    mib = result.get("mib")
    return (mib, mib, mib) if mib is not None else None


MEASURES = {
    "step": Measure("step", "faster", "µs", _step),
    "cold": Measure("first step, cold", "starts faster (cold)", "s", _seconds("cold")),
    "warm": Measure("first step, warm", "starts faster (warm)", "s", _seconds("warm")),
    "memory": Measure("peak memory", "needs less memory", "MiB", _mib),
}


class Behind(NamedTuple):
    """One figure where another contestant is better. ``clear``: the spreads of the two do not overlap."""

    measure: str
    model: str
    dtype: str
    threads: int
    contestant: str
    ours: float
    theirs: float
    clear: bool

    @property
    def ratio(self) -> float:
        """How many times theirs ours is."""
        return self.ours / self.theirs


def behind(rows: Sequence[Row]) -> list[Behind]:
    """Every place where another contestant is better, the largest ratio of each measure first."""
    found = [item for row in rows for item in _of_row(row)]
    order = list(MEASURES)
    return sorted(found, key=lambda item: (order.index(item.measure), -item.ratio))


def _of_row(row: Row) -> Iterator[Behind]:
    ours = row["results"].get(OURS, {})
    for key, measure in MEASURES.items():
        mine = measure.read(ours)
        for name, result in row["results"].items():
            theirs = measure.read(result)
            if name == OURS or mine is None or theirs is None or theirs[0] >= mine[0]:
                continue
            place = (row["model"], row["dtype"], row["threads"])
            yield Behind(key, *place, name, mine[0], theirs[0], clear=theirs[2] < mine[1])


def compared(rows: Sequence[Row], measure: str, name: str) -> int:
    """In how many rows both fastgrad and contestant ``name`` have this figure."""
    read = MEASURES[measure].read
    return sum(
        read(row["results"].get(OURS, {})) is not None and read(row["results"].get(name, {})) is not None
        for row in rows
    )


def section(rows: Sequence[Row]) -> list[str]:
    """Markdown lines: a summary a measure and contestant, then every place."""
    found = behind(rows)
    names = [name for name in CONTESTANTS if name != OURS and any(name in row["results"] for row in rows)]
    lines = ["## Where fastgrad is behind", ""]
    failures = [row for row in rows if "failed" in row["results"].get(OURS, {})]
    lines += [
        f"- **fastgrad itself failed**: {MODELS[row['model']].title}, {row['dtype']}, threads: {row['threads']}: "
        f"{row['results'][OURS]['failed']}"
        for row in failures
    ]
    if not found:
        return [*lines, "Nowhere among these figures.", ""]
    lines += [
        "Found in the figures below by the program: every place where another contestant's median is smaller. Ratios are",
        "fastgrad's figure divided by the other's. *Within the spread* means that the two ranges, min to max, overlap.",
        "",
        "| | contestant | places | median ratio | largest ratio | where |",
        "|---|---|---|---|---|---|",
    ]
    for key, measure in MEASURES.items():
        for name in names:
            places = [item for item in found if item.measure == key and item.contestant == name]
            if places:
                lines.append(_summary(measure, name, places, compared(rows, key, name)))
    for key, measure in MEASURES.items():
        places = [item for item in found if item.measure == key]
        if places:
            lines += ["", *_every(measure, places)]
    return [*lines, ""]


def _summary(measure: Measure, name: str, places: list[Behind], of: int) -> str:
    worst = places[0]
    ratios = median(item.ratio for item in places)
    where = f"{MODELS[worst.model].title}, {worst.dtype}, threads: {worst.threads}"
    title = CONTESTANTS[name].title
    return (
        f"| {measure.better} | {title} | {len(places)} of {of} | {ratios:.2f} | {worst.ratio:.2f} | {where} |"
    )


def _every(measure: Measure, places: list[Behind]) -> list[str]:
    unit = measure.unit
    lines = [
        "<details>",
        f"<summary>{measure.title}: all {len(places)} places</summary>",
        "",
        f"| model | dtype | threads | contestant | fastgrad {unit} | theirs {unit} | ratio | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for item in places:
        figures = f"{number(item.ours)} | {number(item.theirs)} | {item.ratio:.2f}"
        lines.append(
            f"| {MODELS[item.model].title} | {item.dtype} | {item.threads} | {CONTESTANTS[item.contestant].title} "
            f"| {figures} | {'' if item.clear else 'within the spread'} |"
        )
    return [*lines, "", "</details>"]


def number(value: float) -> str:
    """Three digits, or more before the point, with commas.

    >>> number(12345.6), number(123.45), number(1.2345)
    ('12,346', '123', '1.23')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
