"""Starts workers, each in a process of its own, confined to what it is granted."""

from .client import Launcher, LaunchError, Process
from .confinement import Confinement
from .messages import Command

__all__ = ["Command", "Confinement", "LaunchError", "Launcher", "Process"]
