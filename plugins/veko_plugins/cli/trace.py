"""`veko trace`: the last traces of a running application, as a file or as trees."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

import rich_click as click

__all__ = ["show_traces"]

_LONGEST: Final = 120
"""Characters of an error that a line shows."""


def show_traces(url: str, file: Path | None, limit: int, *, as_json: bool = False) -> int:
    """Write or show the last traces; return the exit code.

    Args:
        url: The address of the application's Jaeger query API.
        file: The file to write for Jaeger's UI; `None` to show trees instead.
        limit: The highest number of traces.
        as_json: Whether to print JSON, as that of Jaeger's API.
    """
    try:
        services = _get(f"{url.rstrip('/')}/api/services")["data"]
        found: list[Any] = []
        for service in services:
            query = urllib.parse.urlencode({"service": service, "limit": limit})
            found += _get(f"{url.rstrip('/')}/api/traces?{query}")["data"]
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        click.echo(
            f"veko: no traces at {url}: {error}. Set `keep` and `jaeger` in [plugins.tracing], and "
            "name the address, such as http://127.0.0.1:8000/jaeger",
            err=True,
        )
        return 1
    if file is not None:
        try:
            file.write_text(json.dumps({"data": found}), encoding="utf-8")
        except OSError as error:
            click.echo(f"veko: {file} cannot be written: {error}", err=True)
            return 1
        click.echo(f"{len(found)} traces in {file}")
        return 0
    if as_json:
        click.echo(json.dumps({"data": found}, indent=2))
        return 0
    for one in found:
        click.echo(f"trace {one['traceID']}")
        for line in _tree(one["spans"]):
            click.echo(f"  {line}")
    return 0


def _get(url: str) -> Any:
    if not url.startswith(("http://", "https://")):
        raise ValueError("it is not an HTTP URL")
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def _outcome(span: Any) -> tuple[str, bool]:
    """Return what a line says of a span's end: status and error; and whether it has failed."""
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    status, failed = tags.get("http.response.status_code"), bool(tags.get("error"))
    failed = failed or (isinstance(status, int) and status >= HTTPStatus.INTERNAL_SERVER_ERROR)
    texts = [str(status)] if status is not None else []
    why = tags.get("otel.status_description") or tags.get("error.type")
    if failed:
        texts.append(f"failed: {_plain(str(why))}" if why else "failed")
    return (f"  {'  '.join(texts)}" if texts else ""), failed


def _plain(text: str) -> str:
    """Return the beginning of a text that an application sent, without what controls a terminal."""
    shown = text[:_LONGEST] + ("…" if len(text) > _LONGEST else "")
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in shown)


def _tree(spans: list[Any]) -> Iterator[str]:
    ids = {span["spanID"] for span in spans}
    below: dict[str | None, list[Any]] = {}
    for span in sorted(spans, key=lambda span: span["startTime"]):
        parent = span["references"][0]["spanID"] if span["references"] else None
        below.setdefault(parent if parent in ids else None, []).append(span)
    pending = [(span, 0) for span in reversed(below.get(None, []))]
    while pending:
        span, depth = pending.pop()
        line = f"{span['duration'] / 1000:9.3f} ms  {'  ' * depth}{span['operationName']}"
        outcome, failed = _outcome(span)
        yield click.style(f"{line}{outcome}", fg="red") if failed else f"{line}{outcome}"
        pending += [(one, depth + 1) for one in reversed(below.get(span["spanID"], []))]
