"""A profile as a page: the timeline, every kernel under the machine's roofline, the table. No scripts, no links."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from .row import Row, show_ns, where
from .timeline import COLOURS, FONT, INK, RULE, SOFT, subtitle, svg, text, tooltip

if TYPE_CHECKING:
    from .profile import Profile

_STYLE = f"""
body {{ margin: 0 auto; max-width: 1200px; padding: 12px 20px 40px; color: {INK}; background: #FFFFFF;
  font: 14px/1.45 system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; }}
h2 {{ font-size: 16px; margin: 30px 0 8px; }}
p {{ color: {SOFT}; margin: 4px 0 10px; max-width: 90ch; }}
svg {{ max-width: 100%; height: auto; }}
svg g:hover {{ filter: brightness(0.88); }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 13px; }}
th {{ position: sticky; top: 0; background: #F3F5F7; text-align: right; font-weight: 600; padding: 6px 8px; }}
td {{ text-align: right; padding: 4px 8px; border-top: 1px solid {RULE}; white-space: nowrap; }}
td.l, th.l {{ text-align: left; }}
td.ops {{ white-space: normal; min-width: 150px; }}
tr:hover td {{ background: #F7F9FA; }}
.bar {{ display: inline-block; height: 9px; border-radius: 2px; margin-right: 6px; vertical-align: middle; }}
.kind {{ display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 6px; }}
pre {{ background: #F3F5F7; padding: 10px 14px; border-radius: 4px; font-size: 12.5px; overflow-x: auto; }}
"""
_HEAD = (
    ("row", "l"), ("kind", "l"), ("ops", "l"), ("line", "l"), ("calls", ""), ("time", ""), ("share", "l"), ("GFLOP/s", ""),
    ("% of peak", ""), ("GB/s", ""), ("% of bandwidth", ""), ("limit", "l"), ("% of it", ""),
)  # fmt: skip


def page(profile: Profile) -> str:
    """The page: well-formed as HTML and as XML."""
    rows = "\n".join(_row(row, profile) for row in profile.rows)
    head = "".join(f'<th class="{kind}">{name}</th>' if kind else f"<th>{name}</th>" for name, kind in _HEAD)
    where_run = "all threads" if profile.threads > 1 else "one thread"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<title>{escape(profile.name)}: profile</title>
<style>{_STYLE}</style>
</head>
<body>
{svg(profile)}
<h2>Kernels under the roofline</h2>
<p>A dot a kernel, as large as its share of the time. The slanted lines are what each level of memory can feed, the flat
one what the cores can compute ({where_run}); the gap above a dot is what is left.</p>
{_roofline(profile)}
<h2>Kernels in order</h2>
<p>{escape(subtitle(profile))}</p>
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
<h2>Machine</h2>
<pre>{escape(str(profile.rates))}</pre>
</body>
</html>
"""


def _row(row: Row, profile: Profile) -> str:
    share = row.ns / (profile.step_ns or 1.0)
    colour = COLOURS[row.kind]
    ran = bool(row.ns)
    cells = [
        ("l", str(row.number)),
        ("l", f'<span class="kind" style="background:{colour}"></span>{row.kind}'),
        ("l ops", escape(row.ops)),
        ("l", escape(where(row))),
        ("", str(row.calls)),
        ("", show_ns(row.ns)),
        (
            "l",
            f'<span class="bar" style="width:{90 * min(share, 1.0):.1f}px;background:{colour}"></span>{100 * share:.1f}%',
        ),
        ("", f"{row.gflops:.1f}"),
        ("", f"{100 * row.of_peak:.0f}" if ran else "-"),
        ("", f"{row.gbs:.1f}"),
        ("", f"{100 * row.of_bandwidth:.0f}" if ran else "-"),
        ("l", row.limit),
        ("", f"{100 * row.of_limit:.0f}" if ran else "-"),
    ]
    inner = "".join(
        f'<td class="{kind}">{words}</td>' if kind else f"<td>{words}</td>" for kind, words in cells
    )
    return f'<tr title="{escape(tooltip(row, row.ns / max(row.calls, 1)))}">{inner}</tr>'


# -- the roofline ------------------------------------------------------------------------------------------------------

_W, _H, _LEFT, _RIGHT, _TOP, _BOTTOM = 1160, 380, 64, 150, 16, 44


def _roofline(profile: Profile) -> str:
    """GFLOP/s against operations a byte, both logarithmic, with the ceilings of the widest rows."""
    shown = [row for row in profile.rows if row.ns and row.flops and row.read + row.written]
    if not shown:
        return "<p>No kernel computes anything.</p>"
    threads = max(row.threads for row in shown)
    heaviest = max(shown, key=lambda r: r.flops * r.calls)
    rates, peak = profile.rates, heaviest.peak_on(profile.rates, threads)
    points = [(row.flops / (row.read + row.written), row.gflops, row) for row in shown]
    low_x = min(0.05, *(x for x, _, _ in points))
    high_x = max(100.0, *(2 * x for x, _, _ in points))
    low_y, high_y = min(max(0.1, 0.5 * min(y for _, y, _ in points)), peak / 100), 2.0 * peak

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log(x) - math.log(low_x)) / (math.log(high_x) - math.log(low_x))
        up = (math.log(max(y, low_y)) - math.log(low_y)) / (math.log(high_y) - math.log(low_y))
        return _LEFT + across * (_W - _LEFT - _RIGHT), _H - _BOTTOM - up * (_H - _TOP - _BOTTOM)

    parts = [_grid(low_x, high_x, low_y, high_y, place)]
    for level in rates.levels:
        gbs = level.read[0] if threads == 1 else min(threads * level.read[0], level.read[1])
        begin, knee = max(low_x, low_y / gbs), peak / gbs
        (x1, y1), (x2, y2) = place(begin, begin * gbs), place(min(knee, high_x), min(peak, high_x * gbs))
        parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{SOFT}" stroke-width="1.2"/>'
        )
        slope = math.degrees(math.atan2(y2 - y1, x2 - x1))
        below = level is rates.levels[-1]
        name = text(
            x1 + 8, y1 + (12 if below else -9), f"{level.name} {gbs:.0f} GB/s", 11, SOFT, turned=slope
        )
        # A white rim, where the line of a level beside this one passes below the words.
        parts.append(f'<g paint-order="stroke" stroke="#FFFFFF" stroke-width="3">{name}</g>')
    x1, y1 = place(max(low_x, peak / max(level.read[threads > 1] for level in rates.levels)), peak)
    x2, _ = place(high_x, peak)
    parts.append(
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y1:.1f}" stroke="{INK}" stroke-width="1.6"/>'
    )
    parts.append(text(x2 + 6, y1 + 4, f"{peak:.0f} GFLOP/s", 11.5))
    faster = heaviest.peak > 1.01 * rates.peak(heaviest.dtype, heaviest.threads)
    parts.append(text(x2 + 6, y1 + 20, "bfloat16 operands" if faster else heaviest.dtype, 11, SOFT))
    whole = profile.step_ns or 1.0
    for x, y, row in sorted(points, key=lambda p: -p[2].ns):
        cx, cy = place(x, y)
        radius = 3.5 + 22 * math.sqrt(min(row.ns / whole, 1.0))
        parts.append(
            f"<g><title>{escape(tooltip(row, row.ns / max(row.calls, 1)))}</title>"
            f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{radius:.1f}" fill="{COLOURS[row.kind]}" fill-opacity="0.65" '
            f'stroke="#FFFFFF"/></g>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_W} {_H}" width="{_W}" height="{_H}" role="img" {FONT}>'
        + "\n".join(parts)
        + "</svg>"
    )


def _grid(low_x: float, high_x: float, low_y: float, high_y: float, place) -> str:  # type: ignore[no-untyped-def]
    """A line and a number at each power of ten, and what the axes are."""
    parts = []
    for exponent in range(math.ceil(math.log10(low_x)), math.floor(math.log10(high_x)) + 1):
        x, _ = place(10.0**exponent, low_y)
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_H - _BOTTOM}" stroke="{RULE}"/>')
        parts.append(text(x, _H - _BOTTOM + 17, f"{10.0**exponent:g}", 11, SOFT, anchor="middle"))
    for exponent in range(math.ceil(math.log10(low_y)), math.floor(math.log10(high_y)) + 1):
        _, y = place(low_x, 10.0**exponent)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_W - _RIGHT}" y2="{y:.1f}" stroke="{RULE}"/>')
        parts.append(text(_LEFT - 8, y + 4, f"{10.0**exponent:g}", 11, SOFT, anchor="end"))
    parts.append(text(_LEFT, _H - 8, "operations a byte", 12, SOFT))
    parts.append(text(8, _TOP - 3, "GFLOP/s", 12, SOFT))
    return "".join(parts)
