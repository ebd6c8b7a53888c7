"""A profile as a picture: one typical run from left to right, a box a row, coloured by its kind.

The strip below a box is dark for the time that the row would take at its limit, and pale for what is left to gain. A box
says in a tooltip all that is known of its row. The picture is one SVG element without scripts, styles or links: it can be
opened, mailed and put into a page as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from .row import Event, Row, shortened, show_ns, where

if TYPE_CHECKING:
    from .profile import Profile

# Okabe & Ito 2008: distinguishable with any colour vision.
COLOURS = {
    "product": "#0072B2", "map": "#009E73", "fold": "#E69F00", "copy": "#7A7A7A", "library": "#CC79A7",
    "update": "#D55E00",
}  # fmt: skip
MEANINGS = {
    "product": "matrix product", "map": "elementwise", "fold": "reduction", "copy": "copy", "library": "routine",
    "update": "optimizer's update",
}  # fmt: skip
FONT = "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\""
INK, SOFT, RULE = "#1F2933", "#66727F", "#D9DEE3"
WIDTH, MARGIN = 1160, 20
LANE, STRIP, TOP = 66, 12, 92
"""Heights of a box and of the strip below it, and where the boxes begin."""
CHARACTER = 6.3
"""Pixels of a character at the size of labels."""
NARROW = 0.4
"""Rows that come to fewer pixels are drawn as one box with those that follow."""


def svg(profile: Profile) -> str:
    """The timeline as one self-contained SVG image, with a title, a time axis, a legend and tooltips."""
    end = max([e.end for e in profile.events], default=0.0) or 1.0
    scale = (WIDTH - 2 * MARGIN) / end
    rows = {row.number: row for row in profile.rows}
    parts = [
        text(MARGIN, 30, f"{profile.name}: {show_ns(profile.step_ns)} a call", 19, weight=600),
        text(MARGIN, 52, subtitle(profile), 12.5, SOFT),
        *_axis(end, scale),
        *(box(group, rows, scale) for group in _grouped(profile.events, scale)),
        *_legend(profile, TOP + LANE + STRIP + 62),
    ]
    height = TOP + LANE + STRIP + 62 + 34
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" {FONT}>'
    )
    return "\n".join([head, f"<title>{escape(profile.name)}: timeline of a run</title>",
                      f'<rect width="{WIDTH}" height="{height}" fill="#FFFFFF"/>', *parts, "</svg>"])  # fmt: skip


def subtitle(profile: Profile) -> str:
    """What the figures are of, in one line."""
    whole = profile.step_ns or 1.0
    shares = [f"kernels {100 * profile.kernels_ns / whole:.1f}%"]
    if profile.control_ns:
        shares.append(f"loops and branches {100 * profile.control_ns / whole:.1f}%")
    if profile.unsteady_ns > 0.01 * whole:
        shares.append(f"unsteady {100 * profile.unsteady_ns / whole:.1f}%")
    shares.append(f"overhead {100 * profile.overhead_ns / whole:.1f}%")
    return (
        f"median of {profile.runs} runs, threads: {profile.threads}, {profile.backend}; {', '.join(shares)}; "
        f"{profile.flops / whole:.1f} GFLOP/s; every kernel at its limit: {show_ns(profile.least_ns)}"
    )


class _Group(NamedTuple):
    """Rows that are drawn as one box."""

    events: list[Event]
    begin: float
    end: float


def _grouped(events: Sequence[Event], scale: float) -> list[_Group]:
    groups: list[_Group] = []
    for event in events:
        last = groups[-1] if groups else None
        thin = (event.end - event.begin) * scale < NARROW
        if last is not None and thin and (last.end - last.begin) * scale < NARROW:
            groups[-1] = _Group([*last.events, event], last.begin, event.end)
        else:
            groups.append(_Group([event], event.begin, event.end))
    return groups


def box(group: _Group, rows: dict[int, Row], scale: float) -> str:
    """One box, with its label where there is room, and its tooltip."""
    first = rows[group.events[0].row]
    x, width = MARGIN + group.begin * scale, max((group.end - group.begin) * scale, NARROW)
    colour = COLOURS[first.kind]
    least = sum(min(rows[e.row].least_ns, e.end - e.begin) for e in group.events)
    at_limit = min(width, least * scale)
    parts = [
        f'<rect x="{x:.2f}" y="{TOP}" width="{width:.2f}" height="{LANE}" fill="{colour}"/>',
        f'<rect x="{x:.2f}" y="{TOP + LANE}" width="{width:.2f}" height="{STRIP}" fill="{colour}" fill-opacity="0.3"/>',
        f'<rect x="{x:.2f}" y="{TOP + LANE}" width="{at_limit:.2f}" height="{STRIP}" fill="{INK}" fill-opacity="0.75"/>',
    ]
    if width > 6:
        parts.append(
            f'<rect x="{x:.2f}" y="{TOP}" width="{width:.2f}" height="{LANE + STRIP}" fill="none" stroke="#FFFFFF"/>'
        )
    room = int((width - 10) / CHARACTER)
    if room >= 4:
        lines = [first.ops, where(first), show_ns(group.end - group.begin)]
        parts += [
            text(x + 6, TOP + 20 + 18 * i, shortened(line, room), 11.5, "#FFFFFF")
            for i, line in enumerate(line for line in lines if line)
        ]
    if len(group.events) == 1:
        tip = tooltip(first, group.end - group.begin)
    else:
        names = "\n".join(dict.fromkeys(rows[e.row].ops for e in group.events[:12]))
        tip = f"{len(group.events)} short rows, {show_ns(group.end - group.begin)}\n{names}"
    return f"<g><title>{escape(tip)}</title>{''.join(parts)}</g>"


def tooltip(row: Row, ns: float) -> str:
    """All that is known of a row, in lines."""
    calls = f", {row.calls} calls" if row.calls != 1 else ""
    facts = [
        f"row {row.number}: {row.ops}", row.kernel, *row.lines[:6],
        f"here {show_ns(ns)}; median {show_ns(row.ns)} a run{calls}, threads: {row.threads}, {row.dtype}",
        f"{row.gflops:.1f} GFLOP/s ({100 * row.of_peak:.0f}% of peak)",
        f"{row.gbs:.1f} GB/s ({100 * row.of_bandwidth:.0f}% of {row.level})",
        f"limit: {row.limit}, reached {100 * row.of_limit:.0f}% of it",
    ]  # fmt: skip
    return "\n".join(facts)


def _axis(end: float, scale: float) -> list[str]:
    """Marks at round times below the boxes."""
    step = next(s for s in _round_steps() if end / s <= 9)
    parts, y = [], TOP + LANE + STRIP
    for i in range(int(end / step) + 1):
        x = MARGIN + i * step * scale
        parts.append(f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{y + 8}" stroke="{RULE}"/>')
        parts.append(text(x, y + 24, _mark(i * step), 11.5, SOFT, anchor="middle" if i else "start"))
    return parts


def _mark(ns: float) -> str:
    """A round time, without zeros."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:g} {unit}"
    return f"{ns:g} ns" if ns else "0"


def _round_steps():  # type: ignore[no-untyped-def]
    for exponent in range(16):
        yield from (m * 10.0**exponent for m in (1, 2, 5))
    yield math.inf


def _legend(profile: Profile, y: float) -> list[str]:
    parts, x = [], float(MARGIN)
    for kind, colour in COLOURS.items():
        ns = sum(row.ns for row in profile.rows if row.kind == kind)
        if not any(row.kind == kind for row in profile.rows):
            continue
        label = f"{MEANINGS[kind]} {100 * ns / (profile.step_ns or 1.0):.0f}%"
        parts.append(f'<rect x="{x:.1f}" y="{y - 10}" width="12" height="12" rx="2" fill="{colour}"/>')
        parts.append(text(x + 18, y, label, 12.5))
        x += 18 + len(label) * 6.7 + 22
    note = "strip below a box: dark, the time that the row would take at its limit; pale, left to gain"
    if profile.unseen:
        note += f"; {profile.unseen} more rows of the run are not drawn"
    parts.append(text(MARGIN, y + 22, note, 11.5, SOFT))
    return parts


def text(
    x: float, y: float, words: str, size: float, fill: str = INK, weight: int = 400, anchor: str = "start",
    turned: float = 0.0,
) -> str:  # fmt: skip
    """A line of text, turned by so many degrees."""
    around = f' transform="rotate({turned:.1f} {x:.1f} {y:.1f})"' if turned else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" font-weight="{weight}" '
        f'text-anchor="{anchor}"{around}>{escape(words)}</text>'
    )
