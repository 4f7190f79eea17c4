"""Plugins in JavaScript and TypeScript: the runtime that is found, and the worker that it runs."""

from .runtime import JavaScript, RuntimeMissing, find

__all__ = ["JavaScript", "RuntimeMissing", "find"]
