"""Validation: manifests, configurations and sources, before anything runs."""

from .plugin import Validation, ValidationReport

__all__ = ["Validation", "ValidationReport"]
