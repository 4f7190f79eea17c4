"""The commands about what has happened: `veko record` and `veko replay`."""

from __future__ import annotations

from typing import Final

from .record import record
from .replay import replay

__all__ = ["COMMANDS"]

COMMANDS: Final = (record, replay)
