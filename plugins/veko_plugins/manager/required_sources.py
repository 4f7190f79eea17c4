"""Whether the source of a plugin that does not load says that the plugin is required.

Its manifest cannot be read, since it does not load: a syntax error is enough. So this looks for the
line `required = True` (in `plugin.toml` `required = true`, in scripts and `package.json`
`required: true`), or for `.required()` of a builder.

Cost: reads the plugin's own file; only for plugins that failed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from veko import VekoError

from .._source.bytecode import read_source
from .._source.packages import main_file
from .._source.scripts import PACKAGE

__all__ = ["says_required"]

_SAYS: Final = re.compile(
    rb"^[ \t]*required[ \t]*(:[^=\n#]*)?=[ \t]*[Tt]rue[ \t]*(#.*)?\r?$|\.required\((True)?\)"
    rb"|^[ \t]*[\"']?required[\"']?[ \t]*:[ \t]*true[ \t]*,?[ \t]*(//.*)?\r?$",
    re.MULTILINE,
)


def says_required(path: Path | None) -> bool:
    """Tell whether a plugin says that it is required.

    Args:
        path: Its file or folder; `None`, or one that cannot be read, says nothing.
    """
    if path is None:
        return False
    files = {path / "plugin.toml", path / PACKAGE, main_file(path)} if path.is_dir() else {path}
    return any(_SAYS.search(_read(file)) for file in files)


def _read(path: Path) -> bytes:
    try:
        return read_source(str(path))[0]
    except (OSError, ValueError, VekoError):
        return b""
