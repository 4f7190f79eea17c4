"""What turns sources of other languages into Python, as discovery, loader and cache see it.

The core plugin `transpile` implements it; without that there is only Python.

Promise: plain data and a protocol; nothing here runs a plugin's code.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Protocol

import msgspec

__all__ = ["PYTHON", "Python", "Transpilers"]

PYTHON = ".py"


class Python(msgspec.Struct, frozen=True):
    """Python that was made of a source in another language.

    Attributes:
        text: The Python.
        lines: The source map: for each line of `text`, the line of the source that it comes from,
            counted from 1. `None` if line n comes from line n. Lines past its end come from the
            last one.
    """

    text: str
    lines: Sequence[int] | None = None

    def line(self, number: int) -> int:
        """Return the line of the source that a line of `text` comes from."""
        if self.lines is None:
            return number
        return self.lines[min(number, len(self.lines)) - 1] if self.lines and number > 0 else 1

    def tree(self, source: str, path: str) -> ast.Module:
        """Parse it into a tree whose lines are those of the source.

        So tracebacks, the debugger and `inspect` show the source, and no map is needed at run time.
        Columns are kept where a line is the same in both, and left out elsewhere.

        Args:
            source: The source, to compare its lines.
            path: The file, for errors.

        Raises:
            SyntaxError: It is not Python; the line is that of the source.
            ValueError: It holds null bytes.
        """
        try:
            tree = ast.parse(self.text, path)
        except SyntaxError as error:
            line = self.line(error.lineno or 1)
            text = _nth(source.splitlines(), line)
            raise SyntaxError(
                f"{error.msg} (in the Python that was made of it)", (path, line, None, text)
            ) from error
        before, after = source.splitlines(), self.text.splitlines()
        same = [
            _nth(after, number) == _nth(before, self.line(number))
            for number in range(len(after) + 2)
        ]
        for node in ast.walk(tree):
            if isinstance(getattr(node, "lineno", None), int):
                self._move(node, same)
        return tree

    def _move(self, node: ast.AST, same: Sequence[bool]) -> None:
        first, last = node.lineno, node.end_lineno or node.lineno  # type: ignore[attr-defined]
        begin, end = self.line(first), self.line(last)
        exact = same[min(first, len(same) - 1)] and same[min(last, len(same) - 1)]
        if begin > end:  # a transpiler may change the order of lines
            end = begin
            exact = False
        node.lineno, node.end_lineno = begin, end  # type: ignore[attr-defined]
        if not exact:  # -1 stands for "unknown" and both have to be it
            node.col_offset = node.end_col_offset = -1  # type: ignore[attr-defined]


def _nth(lines: Sequence[str], number: int) -> str | None:
    return lines[number - 1] if 0 < number <= len(lines) else None


class Transpilers(Protocol):
    """Which suffixes there are besides `.py`, and what turns them into Python."""

    def suffixes(self) -> frozenset[str]:
        """Return the suffixes, each with its dot; one may have several (`.py.md`)."""
        ...

    def suffix_of(self, name: str) -> str | None:
        """Return the longest suffix of these that a file's name ends with."""
        ...

    def missing(self, name: str) -> str | None:
        """Return why a file that was transpiled before cannot be now; `None` if it never was."""
        ...

    def identity(self, path: str) -> bytes | None:
        """Return what tells transpilers apart: another one, or another version, gives another.

        Returns:
            `None` if what it makes may not be kept, as it is not known when that changes.
        """
        ...

    def used(self, path: str) -> None:
        """Note that a file is imported as the transpilers of now make it."""
        ...

    async def transpile(self, path: str, source: bytes) -> Python:
        """Turn a source into Python.

        Raises:
            SyntaxError: The source is wrong; the line is its own.
            LoadError: The transpiler failed.
        """
        ...
