"""The errors of the database service that are not SQLAlchemy's own."""

from __future__ import annotations

from veko.errors import VekoError

__all__ = ["DatabaseError", "MigrationError"]


class DatabaseError(VekoError):
    """The database cannot be opened or reached, or the service is used wrongly."""


class MigrationError(DatabaseError):
    """A plugin's migrations cannot be read or failed; the tables are as they were."""
