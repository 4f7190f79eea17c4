"""`veko validate`: a plugin checked as it would be loaded, without loading it.

Inside an application its settings count (`strict_peers`, the plugin's section, the plugins that
are there); none of its plugins is loaded, and it may be served meanwhile.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from veko import VekoError
from veko_plugins.logging import Logging
from veko_plugins.manager import PluginManager
from veko_plugins.validation import ValidationReport

from .application import options_of
from .runner import Stop, complain, kernel_quiet, run

__all__ = ["validate_plugin"]


def validate_plugin(
    wanted: str, directory: Path | None, *, strict: bool, as_json: bool, debug: bool
) -> int:
    """Validate a plugin; returns the exit code, 1 if there are errors."""
    logs = Logging()
    with tempfile.TemporaryDirectory() as nowhere:
        try:
            options = options_of(directory, logs)
        except VekoError as error:
            if directory is not None:
                complain(error, debug=debug)
                return 2
            options = {"root": Path(nowhere), "core": {"logging": logs}}
        options |= {"auto_load": False, "required": (), "watch_mode": False, "adapter": None}
        options |= {"storage": "sqlite:///:memory:"}

        async def work(_: Stop) -> int:
            return await _validate(options, wanted, strict=strict, as_json=as_json)

        logs.configure("debug" if debug else "error")
        try:
            with kernel_quiet(debug=debug):
                return run(work, debug=debug)
        finally:
            logs.reset()


async def _validate(options: dict[str, Any], wanted: str, *, strict: bool, as_json: bool) -> int:
    with contextlib.redirect_stdout(sys.stderr):  # what is imported may print
        async with PluginManager(**options) as manager:
            report = await manager.validate_plugin(_asked(wanted))
    if as_json:
        found = msgspec.json.encode(report, enc_hook=str)
        click.echo(msgspec.json.format(found, indent=2).decode())
    else:
        _show(report)
    return int(not report.ok or (strict and bool(report.warnings)))


def _asked(wanted: str) -> str | Path:
    """Take what is there, or is written like it, as a path; the rest is a name."""
    path = Path(wanted)
    is_path = path.exists() or len(path.parts) > 1 or path.suffix == ".py"
    return path.absolute() if is_path else wanted


def _show(report: ValidationReport) -> None:
    for text in report.errors:
        click.echo(f"error: {text}")
    for text in report.warnings:
        click.echo(f"warning: {text}")
    name = report.name or Path(report.path).name
    if report.ok:
        more = "" if not report.warnings else f", {_count(report.warnings, 'warning')}"
        click.echo(f"{name} is sound{more}")
    else:
        click.echo(f"{name} is not sound: {_count(report.errors, 'error')}")


def _count(found: list[str], what: str) -> str:
    return f"{len(found)} {what}{'s' if len(found) > 1 else ''}"
