"""Activation at first use: plugins whose modules run when something of theirs is used."""

from .plugin import Activation

__all__ = ["Activation"]
