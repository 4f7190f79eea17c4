"""The console script `veko`: starts the command line, or says which extra it needs.

It stands beside the packages because `veko_plugins` cannot be imported where only the kernel is
installed.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code: 0 success, 1 failure, 2 wrong usage."""
    try:
        from veko_plugins import cli
    except ImportError as error:
        missing = error.name or str(error)
        print(f"veko: the command line needs {missing}: pip install 'veko[cli]'", file=sys.stderr)
        sys.exit(1)
    cli.main()


if __name__ == "__main__":
    main()
