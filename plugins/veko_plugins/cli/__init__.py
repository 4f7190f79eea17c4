"""`veko`: the command line.

Each file here holds one or two commands and is named after them. The console script
(`veko_command`) and `python -m veko_plugins.cli` start this file, which reports a missing extra in
one line instead of an ImportError.
"""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code: 0 success, 1 failure, 2 wrong usage."""
    try:
        import rich_click  # noqa: F401
    except ImportError as error:
        print(
            f"veko: the command line needs {error.name}: pip install 'veko[cli]'", file=sys.stderr
        )
        sys.exit(1)
    from .main import veko

    colours = False if os.environ.get("NO_COLOR") else None  # None: on a terminal only
    try:
        veko.main(prog_name="veko", color=colours)
    except Exception as error:  # a fault of ours, but no reason to show a traceback unasked
        from .runner import print_error

        print_error(error, debug="--debug" in sys.argv)
        sys.exit(1)
