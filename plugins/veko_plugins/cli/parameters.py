"""Parameters that the commands of `veko` share."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

__all__ = ["debug_option", "debugging", "directory_argument", "directory_option", "json_option"]


def _remember(context: click.Context, _: click.Parameter, debug: bool) -> bool:
    context.meta["veko.debug"] = debug or context.meta.get("veko.debug", False)
    return debug


directory_argument = click.argument(
    "directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path)
)
directory_option = click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="The application's folder."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_remember,
    help="Show tracebacks.",
)


def debugging() -> bool:
    """Return whether `--debug` was given, anywhere in the command line."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get("veko.debug", False))
