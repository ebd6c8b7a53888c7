"""`RESULTS.md` from the rows of a run: overview, charts, where fastgrad is behind, and all figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import charts
from .behind import MEASURES, OURS, Measure, number, section
from .contestant import CONTESTANTS
from .models import MODELS
from .quiet import QUIET_OTHERS
from .store import FILE, FOLDER, Row, Store, in_order

NAMED = 4
"""A remark that holds in more places than this is counted instead."""


def write(directory: Path, store: Store) -> list[Path]:
    """Write ``RESULTS.md`` and the charts below ``directory``; returns all files. Charts need matplotlib."""
    rows = in_order(store.rows, store.header["plan"])
    drawn = charts.draw(directory / FOLDER, rows)
    path = directory / "RESULTS.md"
    path.write_text("\n".join(markdown(store.header, rows, drawn)), encoding="utf-8")
    return [path, *drawn]


def markdown(header: dict[str, Any], rows: Sequence[Row], drawn: Sequence[Path] = ()) -> list[str]:
    """The lines of the report."""
    lines = ["# Results of the peers' bench", "", *_preamble(header, rows), "", *_quiet(header, rows), ""]
    lines += ["## Microseconds a step", "", *_overview(header, rows)]
    for path in drawn:
        lines += [f"![{path.stem.replace('_', ' ')}]({FOLDER}/{path.name})", ""]
    lines += section(rows)
    lines += ["## All figures", "", *_reading(header), ""]
    for model in header["plan"]["models"]:
        lines += _of_model(model, [row for row in rows if row["model"] == model])
    return [*lines, *_remarks(rows)]


def _preamble(header: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in header["versions"].items() if version)
    cells = len(header["plan"]["models"]) * len(header["plan"]["dtypes"]) * len(header["plan"]["threads"])
    lines = [
        f"Made by `{header['command']}` on {header['made']}. Written by the program; raw figures: "
        f"[{FOLDER}/{FILE}]({FOLDER}/{FILE}).",
        "",
        f"- machine: {header['machine']}",
        f"- versions: {versions}",
    ]
    lines += [f"- {CONTESTANTS[n].title} did not take part: {why}" for n, why in header["missing"].items()]
    if len(rows) < cells:
        lines.append(f"- **incomplete**: {len(rows)} of {cells} places were measured")
    return lines


def _quiet(header: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    noisy = [row for row in rows if (row["others_cores"] or 0.0) > QUIET_OTHERS]
    lines = []
    if header["busy"]:
        lines.append(
            f"**The machine was busy when the run began** ({header['busy']}): do not rely on these figures."
        )
    if noisy:
        most = max(row["others_cores"] for row in noisy)
        lines.append(
            f"**Other processes used up to {most:.2f} cores** during the rounds of {len(noisy)} of {len(rows)} places, "
            "marked † below."
        )
    return lines or [
        f"The machine was quiet: other processes used less than {QUIET_OTHERS} cores during all rounds."
    ]


def _mark(row: Row) -> str:
    return " †" if (row["others_cores"] or 0.0) > QUIET_OTHERS else ""


def _overview(header: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    """One table for each dtype and thread count: models down, contestants across; the fastest of a row is bold."""
    names = header["plan"]["contestants"]
    lines = []
    for dtype in header["plan"]["dtypes"]:
        for threads in header["plan"]["threads"]:
            chosen = [row for row in rows if (row["dtype"], row["threads"]) == (dtype, threads)]
            if not chosen:
                continue
            lines += [f"{dtype}, threads: {threads}", "", _table_row(["model", *_titles(names)])]
            lines += [_rule(1 + len(names)), *(_overview_row(row, names) for row in chosen), ""]
    return lines


def _overview_row(row: Row, names: Sequence[str]) -> str:
    found = {name: MEASURES["step"].read(row["results"].get(name, {})) for name in names}
    best = min((figures[0] for figures in found.values() if figures), default=None)
    cells = []
    for figures in found.values():
        text = number(figures[0]) if figures else "–"
        cells.append(f"**{text}**" if figures and figures[0] == best else text)
    return _table_row([MODELS[row["model"]].title + _mark(row), *cells])


def _reading(header: dict[str, Any]) -> list[str]:
    plan = header["plan"]
    starts = f"{plan['colds']} cold and {plan['warms']} warm starts at {max(plan['threads'])} threads"
    if len(plan["threads"]) > 1:
        starts += f"; {plan['colds']} and 1 at fewer threads"
    return [
        "A step is forward, backward and Adam (SGD for the softmax regression; of the elementwise chain, value and",
        "gradient). Everybody starts from the same numbers; first losses, and those three steps later, agreed. Then the",
        "learning rate is 1e-8, so that the network stays what it was. Contestants run in processes of their own, on as",
        f"many cores as threads, and take turns: {plan['rounds']} rounds of {plan['seconds']} s.",
        "",
        "- **µs a step**: median, in brackets min to max over the rounds.",
        "- **cold**, **warm**: seconds from before the process starts to the end of its first step, imports included, with",
        "  empty caches of compiled code (the system's file cache is warm), and with the caches that the cold start filled.",
        f"  Medians of {starts}.",
        "- **MiB**: largest resident size of the process that was timed, its start with filled caches and its libraries",
        "  included, a compiler's own processes not.",
        "- PyTorch eager has the fastest of its default, foreach and fused optimizers, named in the remarks; its start-up",
        "  is that of the default. `torch.compile` compiles the loss with its backward, and the optimizer's step.",
        "- JAX has one jitted function a step with donated buffers; HIPS autograd an optimizer by hand in NumPy.",
    ]


def _of_model(model: str, rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    heads = ["dtype", "threads", "contestant", "µs a step", "of fastgrad's", "cold s", "warm s", "MiB"]
    lines = [f"### {MODELS[model].title}", "", _table_row(heads), _rule(len(heads))]
    for row in rows:
        ours = MEASURES["step"].read(row["results"].get(OURS, {}))
        for name, result in row["results"].items():
            place = [row["dtype"] + _mark(row), str(row["threads"]), CONTESTANTS[name].title]
            if "failed" in result:
                lines.append(_table_row([*place, _failure(result), "–", *_figures(result)]))
                continue
            step = MEASURES["step"].read(result)
            assert step is not None  # who did not fail was timed
            took = f"{number(step[0])} ({number(step[1])}–{number(step[2])})"
            lines.append(
                _table_row([*place, took, f"{step[0] / ours[0]:.2f}" if ours else "–", *_figures(result)])
            )
    return [*lines, ""]


def _figures(result: dict[str, Any]) -> list[str]:
    return [_median(MEASURES[key], result) for key in ("cold", "warm", "memory")]


def _median(measure: Measure, result: dict[str, Any]) -> str:
    figures = measure.read(result)
    return number(figures[0]) if figures else "–"


def _failure(result: dict[str, Any]) -> str:
    return "timed out" if result["failed"].startswith("timed out") else "failed"


def _remarks(rows: Sequence[Row]) -> list[str]:
    """Why a contestant failed, and what it chose."""
    said: dict[str, list[str]] = {}
    for row in rows:
        for name, result in row["results"].items():
            for text in (result.get("failed"), result.get("note")):
                if text:
                    place = f"{MODELS[row['model']].title} {row['dtype']} threads: {row['threads']}"
                    said.setdefault(f"{CONTESTANTS[name].title}: {text}", []).append(place)
    if not said:
        return []
    total = len(rows)
    shown = {
        what: "; ".join(places) if len(places) <= NAMED else f"in {len(places)} of {total} places"
        for what, places in said.items()
    }
    return ["## Remarks", "", *(f"- {what} ({where})" for what, where in shown.items()), ""]


def _titles(names: Sequence[str]) -> list[str]:
    return [CONTESTANTS[name].title for name in names]


def _table_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _rule(columns: int) -> str:
    return "|" + "---|" * columns
