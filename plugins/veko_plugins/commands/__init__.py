"""Commands: functions that plugins register by name, run from the command line or from code."""

from .plugin import Command, Commands, UsageError

__all__ = ["Command", "Commands", "UsageError"]
