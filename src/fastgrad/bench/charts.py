"""Charts of a run: how long a step takes beside fastgrad's, the first step, and peak memory. They need matplotlib."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .behind import MEASURES, OURS
from .contestant import CONTESTANTS
from .models import MODELS

Row = dict[str, Any]
# Okabe & Ito 2008: distinguishable with any colour vision; shapes differ as well.
STYLES = {
    "fastgrad": ("#000000", "o"),
    "interpreter": ("#56B4E9", "v"),
    "tensor": ("#0072B2", "^"),
    "torch": ("#D55E00", "s"),
    "torch-compile": ("#E69F00", "D"),
    "jax": ("#009E73", "P"),
    "autograd": ("#CC79A7", "X"),
}
SUFFIX = ".svg"
LANES = 0.75
"""Share of a model's line over which its contestants are spread."""
RATIOS = "times fastgrad's (log)"


def available() -> bool:
    """Whether charts can be drawn here."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """Draw all charts that the rows have figures for into ``folder``; returns the files, none without matplotlib."""
    if not available() or not rows:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    places = list(dict.fromkeys((row["dtype"], row["threads"]) for row in rows))
    dtype, threads = places[0][0], max(threads for _, threads in places)
    chosen = [row for row in rows if (row["dtype"], row["threads"]) == (dtype, threads)]
    where = f"{dtype}, threads: {threads}"
    panels = {
        f"{d}, threads: {t}": [
            (row, _relative(row)) for row in rows if (row["dtype"], row["threads"]) == (d, t)
        ]
        for d, t in places
    }
    made = [
        _chart(folder / "step_time", "One step: how many times fastgrad's time", RATIOS, panels),
        _chart(
            folder / "first_step",
            f"Seconds from starting Python to the end of the first step ({where})",
            "seconds (log)",
            {f"{key} caches": [(row, _figures(row, key)) for row in chosen] for key in ("cold", "warm")},
        ),
        _chart(
            folder / "peak_memory",
            f"Peak memory of the process ({where})",
            "MiB (log)",
            {"": [(row, _figures(row, "memory")) for row in chosen]},
        ),
    ]
    return [path for path in made if path is not None]


def _figures(row: Row, measure: str) -> dict[str, float]:
    read = MEASURES[measure].read
    found = {name: read(result) for name, result in row["results"].items()}
    return {name: figures[0] for name, figures in found.items() if figures is not None}


def _relative(row: Row) -> dict[str, float]:
    steps = _figures(row, "step")
    return {name: us / steps[OURS] for name, us in steps.items()} if OURS in steps else {}


def _chart(
    path: Path, title: str, label: str, panels: dict[str, list[tuple[Row, dict[str, float]]]]
) -> Path | None:
    """One file: a dot for each contestant on a line for each model, one panel beside or below another."""
    panels = {name: lines for name, lines in panels.items() if any(figures for _, figures in lines)}
    if not panels:
        return None
    import matplotlib
    from matplotlib.figure import Figure

    across = min(2, len(panels))
    down = -(-len(panels) // across)
    height = max(len(lines) for lines in panels.values())
    with matplotlib.rc_context({"svg.hashsalt": path.stem, "font.size": 9}):
        # A figure without pyplot needs no display and leaves no global state.
        figure = Figure(
            figsize=(6.0 * across + 1.2, down * (0.55 * height + 0.9) + 0.8), layout="constrained"
        )
        axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for ax, (name, lines) in zip(axes.flat, panels.items(), strict=False):
            _panel(ax, name, lines, reference=label == RATIOS)
        for ax in list(axes.flat)[len(panels) :]:
            ax.set_visible(False)
        for ax in axes[-1]:
            ax.set_xlabel(label)
        figure.suptitle(title, fontsize=11, wrap=True)
        _legend(figure, panels)
        path = path.with_suffix(SUFFIX)
        figure.savefig(path, metadata={"Date": None})
    return path


def _panel(ax: Any, name: str, lines: list[tuple[Row, dict[str, float]]], reference: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    marker: dict[str, Any] = {"markersize": 7.5, "markeredgecolor": "white", "markeredgewidth": 0.6}
    lanes = [name for name in CONTESTANTS if any(name in figures for _, figures in lines)]
    for y, (_, figures) in enumerate(lines):
        if y % 2 == 0:
            ax.axhspan(y - 0.5, y + 0.5, color="0.96", zorder=0)
        for i, contestant in enumerate(lanes):
            if contestant in figures:
                colour, shape = STYLES[contestant]
                lane = y + LANES * ((i + 0.5) / len(lanes) - 0.5)  # each its own height: none hides another
                ax.plot(figures[contestant], lane, shape, color=colour, **marker)
    if reference:
        ax.axvline(1.0, color="0.4", linewidth=0.8, zorder=1)
    ax.set_xscale("log")
    ax.set_yticks(range(len(lines)), [MODELS[row["model"]].title for row, _ in lines])
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=30))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="x", color="0.88")
    ax.tick_params(axis="y", length=0)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title(name, fontsize=10)


def _legend(figure: Any, panels: dict[str, list[tuple[Row, dict[str, float]]]]) -> None:
    from matplotlib.lines import Line2D

    shown = [n for n in CONTESTANTS if any(n in figures for lines in panels.values() for _, figures in lines)]
    make: Callable[[str], Any] = lambda name: Line2D(  # noqa: E731
        [],
        [],
        linestyle="",
        color=STYLES[name][0],
        marker=STYLES[name][1],
        markeredgecolor="white",
        markersize=8,
    )
    titles = [CONTESTANTS[name].title for name in shown]
    columns = len(shown) if len(panels) > 1 else 4  # what one panel is wide enough for
    figure.legend([make(n) for n in shown], titles, loc="outside lower center", ncols=columns, frameon=False)
