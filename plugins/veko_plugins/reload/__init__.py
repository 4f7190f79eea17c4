"""Reloading: files that changed become new generations of their plugins."""

from .plugin import EVENTS, Reload
from .refresh import Refreshed, Refresher

__all__ = ["EVENTS", "Refreshed", "Refresher", "Reload"]
