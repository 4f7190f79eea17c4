"""How commands print data: as tables for people, or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import rich_click as click

__all__ = ["STATES", "print_json", "print_result", "print_table"]

STATES: Final = {
    "active": "green", "failed": "red", "skipped": "yellow", "inactive": "yellow", "off": "yellow",
    "waiting": "cyan",
}  # fmt: skip
"""The colours of states."""
_NONE: Final[Mapping[str, str]] = {}


def print_table(lines: Sequence[Sequence[str]], colours: Mapping[str, str] = _NONE) -> None:
    """Print lines whose cells stand below each other.

    Args:
        lines: The lines, of which the first names the columns.
        colours: The colours of cells that have a text.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)][:-1]
    for number, line in enumerate(lines):
        padded = [cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)]
        styled = [
            click.style(cell, fg=colours.get(cell.rstrip()), bold=number == 0 or None)
            if number == 0 or cell.rstrip() in colours
            else cell
            for cell in padded
        ]
        click.echo("  ".join(styled).rstrip())


def print_json(value: object) -> None:
    """Print a value as JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_result(result: object) -> None:
    """Print what a plugin's command returned: text as it is, anything else as JSON."""
    if result is None:
        return
    if isinstance(result, str):
        click.echo(result)
    elif isinstance(result, bytes):
        sys.stdout.buffer.write(result)
        sys.stdout.buffer.flush()
    else:
        encoded = msgspec.json.encode(result, enc_hook=str)
        click.echo(msgspec.json.format(encoded, indent=2).decode())
