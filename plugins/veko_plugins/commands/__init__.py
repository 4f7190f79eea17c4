"""Commands: functions that plugins register by name, run from the command line or from code."""

from .arguments import Usage
from .arguments import read as read_usage
from .plugin import Command, CommandExit, Commands, UsageError

__all__ = ["Command", "CommandExit", "Commands", "Usage", "UsageError", "read_usage"]
