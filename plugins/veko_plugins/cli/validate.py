"""`veko validate`: checks a plugin as loading would, without loading it.

Inside an application, its settings apply (`strict_peers`, the plugin's section) and its other
plugins are known; none of them is loaded, and the application may be running.
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
from veko_plugins._lib.masking import masked_text
from veko_plugins.logging import Logging
from veko_plugins.manager import PluginManager
from veko_plugins.validation import ValidationReport

from .application import options_of
from .lines import coloured
from .runner import Stop, print_error, run_quiet

__all__ = ["validate_plugin"]


def validate_plugin(
    wanted: str, directory: Path | None, *, strict: bool, as_json: bool, debug: bool
) -> int:
    """Validate a plugin; return the exit code: 1 if there are errors.

    Args:
        wanted: The plugin's file, folder or name.
        directory: The application's directory, as the user gave it.
        strict: Whether warnings count as errors.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """
    logs = Logging()
    with tempfile.TemporaryDirectory() as nowhere:
        try:
            options = options_of(directory, logs)
        except VekoError as error:
            if directory is not None:
                print_error(error, debug=debug)
                return 2
            options = {"root": Path(nowhere), "core": {"logging": logs}}
        options |= {"auto_load": False, "required": (), "watch_mode": False, "adapter": None}
        options |= {"storage": "sqlite:///:memory:"}

        async def work(_: Stop) -> int:
            return await _validate(options, wanted, strict=strict, as_json=as_json)

        return run_quiet(logs, work, "error", debug=debug)


async def _validate(options: dict[str, Any], wanted: str, *, strict: bool, as_json: bool) -> int:
    with contextlib.redirect_stdout(sys.stderr):  # the plugin's module may print
        async with PluginManager(**options) as manager:
            report = await manager.validate_plugin(_asked(wanted))
    if as_json:
        found = msgspec.json.encode(report, enc_hook=str)
        click.echo(msgspec.json.format(found, indent=2).decode())
    else:
        _show(report)
    return int(not report.ok or (strict and bool(report.warnings)))


def _asked(wanted: str) -> str | Path:
    """Return a path if it exists or looks like one; anything else is a name."""
    path = Path(wanted)
    is_path = path.exists() or len(path.parts) > 1 or path.suffix == ".py"
    return path.absolute() if is_path else wanted


def _show(report: ValidationReport) -> None:
    for text in report.errors:
        click.echo(coloured(masked_text(f"error: {text}"), "error"))
    for text in report.warnings:
        click.echo(coloured(f"warning: {text}", "warning"))
    name = report.name or Path(report.path).name
    if report.ok:
        found = _count(report.warnings, "warning") if report.warnings else "no problems"
        click.echo(f"{name}: {found} found")
    else:
        click.echo(f"{name}: {_count(report.errors, 'error')} found")


def _count(found: list[str], what: str) -> str:
    return f"{len(found)} {what}{'s' if len(found) > 1 else ''}"
