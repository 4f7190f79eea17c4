"""Plugins with dependencies of their own: what they need, and environments that have it."""

from .making import Environments
from .requirements import Requirements, requirements_of

__all__ = ["Environments", "Requirements", "requirements_of"]
