"""What a benchmark hands back, and its command line: the same for every script of this folder.

A script calls `script(measure, seconds=...)`. `measure` gets a `Report` to fill, and what the
command line says. Run by hand, the script prints Markdown; with `--result FILE` it writes the same
as JSON, which `run.py` puts into docs/benchmarks.md. Progress and warnings go to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["Goal", "Report", "Result", "progress", "script", "table"]


class Goal(msgspec.Struct):
    """A figure that should be met.

    Attributes:
        what: What was measured.
        measured: The figure, as it is shown.
        wanted: What it should be, as it is shown.
        met: Whether it is.
    """

    what: str
    measured: str
    wanted: str
    met: bool

    @property
    def verdict(self) -> str:
        """The cell of a table."""
        return "met" if self.met else "**missed**"

    def cells(self) -> list[str]:
        """Return a row of a table."""
        return [self.what, self.measured, self.wanted, self.verdict]


class Result(msgspec.Struct):
    """What a script found.

    Attributes:
        parts: The Markdown of each part, by its name in docs/benchmarks.md.
        goals: All its goals.
        plots: SVG, by the name of the file in docs/.
    """

    parts: dict[str, str] = {}
    goals: list[Goal] = []
    plots: dict[str, str] = {}


class Report:
    """Collects what a script finds."""

    def __init__(self, name: str) -> None:
        self._parts: dict[str, list[str]] = {}
        self._name = name
        self._goals: list[Goal] = []
        self._plots: dict[str, str] = {}

    def part(self, name: str) -> None:
        """Begin another part of the document; the first has the name of the script."""
        self._name = name

    def say(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.setdefault(self._name, []).append(text)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table."""
        self.say(table(head, rows))

    def plot(self, name: str, picture: str, what: str = "") -> None:
        """Add a picture in SVG; `what` is read where it cannot be seen. Without, only the file."""
        self._plots[name] = picture
        if what:
            self.say(f"![{what}]({name})")

    def goal(
        self,
        what: str,
        value: float,
        form: str = "{:.2f}×",
        *,
        most: float | None = None,
        least: float | None = None,
    ) -> Goal:
        """Note a figure that must be at most or at least so much.

        Args:
            what: What was measured.
            value: The figure.
            form: How it is shown, with its unit.
            most: At most this.
            least: At least this.
        """
        if most is not None:
            wanted, met = f"≤ {self._shown(form, most)}", value <= most
        else:
            assert least is not None
            wanted, met = f"≥ {self._shown(form, least)}", value >= least
        noted = Goal(what, form.format(value), wanted, met)
        self._goals.append(noted)
        return noted

    @staticmethod
    def _shown(form: str, limit: float) -> str:
        unit = form.partition("}")[2]
        return f"{limit:,g}{unit}"

    def goals(self, head: str, rows: Sequence[Goal]) -> None:
        """Add a table of goals."""
        self.table([head, "measured", "goal", ""], [row.cells() for row in rows])

    def result(self) -> Result:
        """Return all of it."""
        parts = {name: "\n\n".join(texts) for name, texts in self._parts.items()}
        return Result(parts, self._goals, self._plots)


Measure = Callable[[Report, argparse.Namespace], Awaitable[None] | None]


def script(
    measure: Measure,
    *,
    seconds: float,
    options: Callable[[argparse.ArgumentParser], object] | None = None,
) -> None:
    """Run a benchmark from the command line.

    Args:
        measure: Fills the report. It gets `seconds`, about how long it should take, and the
            script's own options.
        seconds: The default of `--seconds`; together they make the ten minutes of `make bench`.
        options: Adds the script's own options.
    """
    main: Any = sys.modules["__main__"]
    parser = argparse.ArgumentParser(
        description=main.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=seconds, help=f"about how long ({seconds:g})"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the time, and less exact")
    parser.add_argument("--result", type=Path, help="write JSON for run.py into this file")
    if options is not None:
        options(parser)
    given = parser.parse_args()
    if given.quick:
        given.seconds /= 10
    report = Report(Path(main.__file__).stem)
    done = measure(report, given)
    if inspect.iscoroutine(done):
        asyncio.run(done)
    result = report.result()
    if given.result:
        given.result.write_bytes(msgspec.json.encode(result))
    else:
        print("\n\n".join(result.parts.values()))
        if result.goals:
            met = sum(goal.met for goal in result.goals)
            print(f"\n{met} of {len(result.goals)} goals met.")


def progress(text: str) -> None:
    """Say on stderr what is being measured."""
    print(f"  {text}", file=sys.stderr, flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others align right."""
    cells = [head, *rows]
    wide = [max(3, *(len(row[i]) for row in cells)) for i in range(len(head))]
    rule = ["-" * wide[0], *("-" * (width - 1) + ":" for width in wide[1:])]
    lines = [
        [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, wide, strict=True))
        ]
        for row in [head, rule, *rows]
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
