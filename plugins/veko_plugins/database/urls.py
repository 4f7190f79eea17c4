"""URLs of databases: which driver serves one, where its file is, and what is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from veko import OptionError

from .._lib.masking import masked_text

__all__ = ["MEMORY", "location_of", "read_url"]

MEMORY: Final = ":memory:"
_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
}
_MODULES: Final = {"aiosqlite": "database", "asyncpg": "postgres"}
_KNOWN: Final = "sqlite:///path, sqlite:///:memory: or postgresql://user:password@host/database"


def read_url(text: str, directory: Path) -> URL:
    """Return the URL with its driver.

    Args:
        text: The option `database`.
        directory: The application's directory, in which a relative path begins.

    Raises:
        OptionError: It is no URL, its database is unknown, has no asyncio driver, or the driver is
            not installed.
    """
    shown = masked_text(text)
    scheme = text.partition("://")[0]
    try:
        url = make_url(text.replace(scheme, _DRIVERS.get(scheme, scheme), 1))
        dialect = url.get_dialect()
    except ModuleNotFoundError as error:
        raise _missing(shown, error.name or "") from error
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise OptionError(
            f"database {shown!r}: the URL is not valid, or its scheme {scheme!r} is unknown"
            if "://" in text
            else f"database {shown!r} is not a URL",
            remedy=f"Use one of {_KNOWN}",
        ) from error.with_traceback(None)
    if not dialect.is_async:
        raise OptionError(
            f"database {shown!r}: the driver {url.get_driver_name()} is not for asyncio",
            remedy=f"Use one of {_KNOWN}; of other databases, name the driver: mysql+asyncmy://…",
        )
    driver = url.get_driver_name()
    if importlib.util.find_spec(driver) is None:
        raise _missing(shown, driver)
    if url.get_backend_name() != "sqlite":
        return url
    if not url.database:
        raise OptionError(
            f"database {shown!r} has no path",
            remedy="Three slashes begin a relative path, four an absolute one: sqlite:///data.db",
        )
    if url.database == MEMORY:
        return url
    return url.set(database=str(directory.absolute() / url.database))


def _missing(shown: str, module: str) -> OptionError:
    extra = _MODULES.get(module)
    remedy = f"pip install {module}" if extra is None else f'pip install "veko[{extra}]"'
    return OptionError(f"database {shown!r} needs {module}, which is not installed", remedy=remedy)


def location_of(url: URL) -> str:
    """Return where a database is, without user and password: `postgresql at host:5432/name`."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite at {url.database}"
    port = "" if url.port is None else f":{url.port}"
    return f"{url.get_backend_name()} at {url.host or 'localhost'}{port}/{url.database or ''}"
