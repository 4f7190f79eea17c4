"""Pictures for docs/benchmarks.md, in SVG: bars of ratios, and curves on logarithmic axes."""

from __future__ import annotations

import html
import math
from typing import Final, NamedTuple

__all__ = ["Bar", "Curve", "bars", "curves"]

_WIDE = 900
_MET: Final = {True: "#2a7f62", False: "#b3452c", None: "#5b6b8c"}


class Bar(NamedTuple):
    """A bar.

    Attributes:
        name: What it is.
        ratio: How many times its base it takes.
        goal: At most how many times, if there is a goal.
        note: What is shown when one points at it.
    """

    name: str
    ratio: float
    goal: float | None = None
    note: str = ""


class Curve(NamedTuple):
    """What one change takes among more and more.

    Attributes:
        name: What it is.
        points: How many there are, and the time.
        note: The verdict, below the name.
        met: Whether that is as it should be.
    """

    name: str
    points: list[tuple[float, float]]
    note: str
    met: bool


def bars(title: str, rows: list[Bar], most: float = 5.0) -> str:
    """Draw ratios as bars, with a stroke at each goal; what is past the edge says its ratio."""
    row_high, left = 22, 320
    scale = (_WIDE - left - 150) / most
    height = 50 + row_high * len(rows)
    parts = [_head(title, height)]
    for tick in range(1, int(most) + 1):
        x = left + tick * scale
        parts.append(f'<path d="M{x:.0f} 34V{height - 8}" stroke="#ddd"/>')
        parts.append(_text(x + 2, 44, f"{tick}×", size=10, colour="#888"))
    for row, bar in enumerate(rows):
        y = 46 + row_high * row
        wide = min(bar.ratio, most) * scale
        met = None if bar.goal is None else bar.ratio <= bar.goal
        stroke = min(bar.goal or 0, most) * scale
        parts += [
            _text(left - 8, y + 14, bar.name, anchor="end"),
            f'<rect x="{left}" y="{y + 3}" width="{wide:.0f}" height="{row_high - 8}" '
            f'fill="{_MET[met]}"><title>{html.escape(bar.note or bar.name)}</title></rect>',
            _text(left + max(wide, stroke) + 6, y + 14, f"{bar.ratio:.2f}×"),
        ]
        if bar.goal is not None and bar.goal <= most:
            x = left + stroke
            parts.append(f'<path d="M{x:.0f} {y}v{row_high - 2}" stroke="#222" stroke-width="2"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def curves(title: str, found: list[Curve], unit: str) -> str:
    """Draw each curve in a field of its own; along both axes a step is ten times as much."""
    across, field_wide, field_high = 3, _WIDE // 3, 190
    rows = math.ceil(len(found) / across)
    parts = [_head(title, 36 + rows * field_high)]
    for index, curve in enumerate(found):
        left = index % across * field_wide + 44
        top = 36 + index // across * field_high + 34
        parts += _field(curve, left, top, field_wide - 60, field_high - 66, unit)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _field(curve: Curve, left: int, top: int, wide: int, high: int, unit: str) -> list[str]:
    points = [(max(x, 0.5), max(y, 1e-3)) for x, y in curve.points]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    # At least two steps of ten upwards, so that noise does not look like a slope.
    low = math.floor(math.log10(min(ys)))
    decades = max(2, math.ceil(math.log10(max(ys))) - low)
    begin, end = math.log10(min(xs)), math.log10(max(xs))

    def x_of(x: float) -> float:
        return left + (math.log10(x) - begin) / ((end - begin) or 1) * wide

    def y_of(y: float) -> float:
        return top + high - (math.log10(y) - low) / decades * high

    colour = _MET[curve.met]
    parts = [
        _text(left - 36, top - 18, curve.name, size=12),
        _text(left - 36, top - 4, curve.note, size=10, colour=colour),
        f'<path d="M{left} {top}v{high}h{wide}" fill="none" stroke="#888"/>',
    ]
    for decade in range(decades + 1):
        y = y_of(10 ** (low + decade))
        label = f"{10.0 ** (low + decade):,g}" + (f" {unit}" if decade == decades else "")
        parts.append(f'<path d="M{left} {y:.0f}h{wide}" stroke="#eee"/>')
        parts.append(_text(left - 4, y + 3, label, size=9, colour="#666", anchor="end"))
    for shown, (x, _) in zip(curve.points, points, strict=True):
        label = f"{shown[0]:,g}"
        parts.append(_text(x_of(x), top + high + 12, label, size=9, colour="#666", anchor="middle"))
    path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    parts += [
        f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3" fill="{colour}">'
        f"<title>{shown[0]:,g}: {shown[1]:,.2f} {unit}</title></circle>"
        for shown, (x, y) in zip(curve.points, points, strict=True)
    ]
    return parts


def _head(title: str, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12"><title>{html.escape(title)}</title>\n'
        f'<rect width="{_WIDE}" height="{height}" fill="#fff"/>\n' + _text(12, 22, title, size=14)
    )


def _text(
    x: float, y: float, text: str, *, size: int = 12, colour: str = "#222", anchor: str = "start"
) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}" '
        f'fill="{colour}">{html.escape(text)}</text>'
    )
