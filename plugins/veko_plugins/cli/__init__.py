"""`veko`: the command line.

Each file here is a group of commands. The console script and `python -m veko_plugins.cli` start
this one, so that a missing extra is reported in one clear line instead of an ImportError.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code: 0 done, 1 failed, 2 used wrongly."""
    try:
        import rich_click  # noqa: F401
    except ImportError as error:
        print(
            f"veko: the command line needs {error.name}: pip install 'veko[cli]'", file=sys.stderr
        )
        sys.exit(1)
    from .main import veko

    veko.main(prog_name="veko")
