"""The database service: SQLAlchemy's asyncio engine, with migrations for each plugin.

It needs `pip install "veko[database]"`, and the option `database`, a URL.
"""

from .config import DatabaseConfig
from .database import Database
from .errors import DatabaseError, MigrationError
from .ownership import Owned
from .plugin import DatabasePlugin
from .queries import Query, QueryError

__all__ = [
    "Database",
    "DatabaseConfig",
    "DatabaseError",
    "DatabasePlugin",
    "MigrationError",
    "Owned",
    "Query",
    "QueryError",
]
