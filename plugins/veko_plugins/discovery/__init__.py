"""Discovery: finds plugins in the plugin folders and among the entry points."""

from .plugin import GROUP, RESOLVE, Discovery, Found, Outline, Problem, Source

__all__ = ["GROUP", "RESOLVE", "Discovery", "Found", "Outline", "Problem", "Source"]
