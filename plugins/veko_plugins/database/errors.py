"""The errors of the database service that are not SQLAlchemy's own."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

from veko.errors import VekoError

from .._lib.masking import masked_text

__all__ = ["DatabaseError", "MigrationError", "reason_of"]


class DatabaseError(VekoError):
    """The database cannot be opened or reached, or the service is used wrongly."""


class MigrationError(DatabaseError):
    """A plugin's migrations cannot be read or failed; the tables are as they were."""


def reason_of(error: BaseException) -> str:
    """Return why the database refused something, in the driver's words, with the statement."""
    if not isinstance(error, DBAPIError):
        return f"{type(error).__name__}: {masked_text(str(error))}"
    text = masked_text(str(error.orig))
    if not error.statement:
        return text
    return f"{text} (in: {' '.join(error.statement.split())[:200]})"
