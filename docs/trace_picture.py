"""Draw one request's trace tree of the example application: `python docs/trace_picture.py`.

It goes to `docs/trace.svg`, or to the file that is named.
"""

from __future__ import annotations

import asyncio
import html
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from veko_plugins import PluginManager

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "examples/shortener"
WIDE, ROW, LEFT = 900, 24, 330


async def traced() -> dict[str, Any]:
    """Delete a link of the example application, and return the trace of that request."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "shortener"
        shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns(".veko"))
        settings = {"tracing": {"keep": 100, "service": "shortener"}}
        async with PluginManager(root=root, plugins=settings) as manager:
            token = (root / ".veko/links-token").read_text("utf-8").strip()
            transport = httpx.ASGITransport(manager.asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                client.headers["authorization"] = f"Bearer {token}"
                for _ in range(2):  # the second is the one to show: all is imported by then
                    made = await client.post("/links", json={"url": "https://example.org/"})
                    gone = await client.delete(f"/admin/links/{made.json()['code']}")
                    gone.raise_for_status()
            (found, *_) = await manager.use("tracing").traces()
            return found


def drawn(trace: dict[str, Any]) -> str:
    """Draw a trace as bars over time, each below what it is part of."""
    spans = trace["spans"]
    below: dict[str | None, list[Any]] = {}
    for span in sorted(spans, key=lambda span: span["startTime"]):
        above = span["references"][0]["spanID"] if span["references"] else None
        below.setdefault(above, []).append(span)
    begin = min(span["startTime"] for span in spans)
    whole = max(span["startTime"] + span["duration"] for span in spans) - begin or 1
    scale = (WIDE - LEFT - 90) / whole
    lines: list[str] = []

    def draw(span: dict[str, Any], depth: int) -> None:
        y = 8 + len(lines) // 3 * ROW
        x, wide = LEFT + (span["startTime"] - begin) * scale, max(2.0, span["duration"] * scale)
        plugin = any(tag["key"] == "veko.plugin" for tag in span["tags"])
        name = html.escape(span["operationName"])
        lines.append(f'<text x="{8 + 16 * depth}" y="{y + 14}">{name}</text>')
        lines.append(
            f'<rect x="{x:.1f}" y="{y + 3}" width="{wide:.1f}" height="14" rx="2" '
            f'fill="{"#3b7dd8" if plugin else "#b9c4d0"}"/>'
        )
        lines.append(f'<text x="{x + wide + 6:.1f}" y="{y + 14}">{span["duration"]} µs</text>')
        for one in below.get(span["spanID"], ()):
            draw(one, depth + 1)

    for span in below.get(None, ()):
        draw(span, 0)
    high = 16 + len(lines) // 3 * ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {high}" '
        'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{WIDE}" height="{high}" fill="#fff"/>\n' + "\n".join(lines) + "\n</svg>\n"
    )


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "trace.svg"
    target.write_text(drawn(asyncio.run(traced())), encoding="utf-8")
