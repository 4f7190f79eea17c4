"""Logging: where records go, how they look, and from which level on they are written."""

from .config import LEVELS, LoggingConfig
from .files import open_log
from .formats import JSONFormatter, TextFormatter, message_of
from .plugin import Logging
from .structlogs import structlog_settings

__all__ = [
    "LEVELS",
    "JSONFormatter",
    "Logging",
    "LoggingConfig",
    "TextFormatter",
    "message_of",
    "open_log",
    "structlog_settings",
]
