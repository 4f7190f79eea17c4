"""Transpilers: what turns sources of other languages into Python that can be imported."""

from .plugin import TRANSPILE, Code, Python, Transpile, TranspileFunction

__all__ = ["TRANSPILE", "Code", "Python", "Transpile", "TranspileFunction"]
