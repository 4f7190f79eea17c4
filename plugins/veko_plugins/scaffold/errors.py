"""The error of what cannot be generated."""

from __future__ import annotations

from veko import VekoError

__all__ = ["ScaffoldError"]


class ScaffoldError(VekoError):
    """A plugin or an application cannot be generated. Nothing was written."""
