"""Writes counts down: a table in docs/benchmarks.md, and a picture beside it."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Line", "picture", "put"]

_WIDE, _ROW, _LEFT, _MOST = 900, 22, 320, 5.0
_COLOURS: Final = {True: "#2a7f62", False: "#b3452c", None: "#5b6b8c"}


class Line(NamedTuple):
    """A bar.

    Attributes:
        name: What it is.
        ratio: How many times its base it takes.
        base: What that is.
        goal: At most how many times, if there is a goal.
    """

    name: str
    ratio: float
    base: str
    goal: float | None


def put(path: Path, mark: str, text: str) -> None:
    """Replace what stands between two marks of a Markdown file.

    Raises:
        SystemExit: The file has no such marks.
    """
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, found, rest = path.read_text("utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{path.name} has no lines {begin} and {end}")
    path.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", "utf-8")


def picture(path: Path, title: str, lines: list[Line]) -> None:
    """Draw ratios as bars, with a stroke at each goal; what is past the edge says its ratio."""
    scale = (_WIDE - _LEFT - 150) / _MOST
    height = 50 + _ROW * len(lines)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12"><title>{html.escape(title)}</title>',
        f'<rect width="{_WIDE}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="22" font-size="14" fill="#222">{html.escape(title)}</text>',
    ]
    for tick in range(1, int(_MOST) + 1):
        x = _LEFT + tick * scale
        parts.append(f'<path d="M{x:.0f} 34V{height - 8}" stroke="#ddd"/>')
        parts.append(f'<text x="{x + 2:.0f}" y="44" fill="#888" font-size="10">{tick}×</text>')
    for row, line in enumerate(lines):
        y = 46 + _ROW * row
        wide = min(line.ratio, _MOST) * scale
        met = None if line.goal is None else line.ratio <= line.goal
        label = f"{line.ratio:.2f}× {line.base}"
        parts.append(
            f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end" fill="#222">'
            f"{html.escape(line.name)}</text>"
            f'<rect x="{_LEFT}" y="{y + 3}" width="{wide:.0f}" height="{_ROW - 8}" '
            f'fill="{_COLOURS[met]}"><title>{html.escape(label)}</title></rect>'
            f'<text x="{_LEFT + max(wide, (line.goal or 0) * scale) + 6:.0f}" y="{y + 14}" '
            f'fill="#222">{line.ratio:.2f}×</text>'
        )
        if line.goal is not None and line.goal <= _MOST:
            x = _LEFT + line.goal * scale
            parts.append(f'<path d="M{x:.0f} {y}v{_ROW - 2}" stroke="#222" stroke-width="2"/>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", "utf-8")
