"""Starts workers, each in a process of its own, confined to what it is granted."""

from .client import Launcher, LaunchError, Process
from .confine import System, missing
from .confinement import Confinement
from .messages import Command

__all__ = [
    "Command", "Confinement", "LaunchError", "Launcher", "Process", "System", "missing",
]  # fmt: skip
