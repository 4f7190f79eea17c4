"""Whether a Python plugin asks for a process of its own, where its manifest cannot be read."""

from __future__ import annotations

import re
from typing import Final

from veko import VekoError

from .._source.bytecode import read_source
from .._source.source import Source

__all__ = ["says_isolated"]

_SAYS: Final = (re.compile(rb"\bisolation\b"), re.compile(rb"[\"']process[\"']"))


def says_isolated(source: Source) -> bool:
    """Return whether the text of a plugin has `isolation` and `"process"` anywhere.

    In doubt it runs in a process: it was written by somebody who wanted that.
    """
    file = source.file
    if file is None:
        return False
    try:
        text = read_source(str(file))[0]
        return all(part.search(text) for part in _SAYS)
    except (OSError, ValueError, VekoError):
        return False
