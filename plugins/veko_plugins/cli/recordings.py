"""The commands about what has happened: `veko record`, `veko replay`, `veko bisect`."""

from __future__ import annotations

from typing import Final

from .bisect import bisect
from .record import record
from .replay import replay

__all__ = ["COMMANDS"]

COMMANDS: Final = (record, replay, bisect)
