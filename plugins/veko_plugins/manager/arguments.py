"""What `PluginManager(**options)` accepts, as type checkers and editors see it.

`Options` is the source of truth; `tests/plugins/manager/test_manager_arguments.py` compares names
and types. Here the types are those that callers write, so a list is as good as a tuple.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from veko.errors import OptionError

from .._source.source import Form
from ..http import Adapter

__all__ = ["ManagerOptions", "check_path", "root_of"]


class ManagerOptions(TypedDict, total=False):
    """The options of a `PluginManager`; see `Options` for what each one means."""

    plugins_dir: str | Path | Sequence[str | Path]
    auto_load: bool
    support_typescript: bool
    dev_mode: bool
    watch_mode: bool
    enable_metrics: bool
    enable_validation: bool
    allow_hot_reload: bool
    max_retries: int
    timeout: float
    enable_sandbox: bool
    locked: bool
    learn: bool
    enable_hooks: bool
    enable_api: bool
    adapter: str | Adapter | None
    threads: int
    openapi: str | None
    storage: str | None
    auth: bool
    cache: str | None
    database: str | None
    core: Mapping[str, Form | None]
    watch_ignore: Sequence[str]
    error_threshold: int
    warn_threshold: int
    strict_peers: bool
    drain_timeout: float
    probation: float
    required: Sequence[str]
    otlp: str | None
    prometheus: str | None
    watchdog: float
    ledger: bool
    allow_symlinks: bool
    max_source_size: int
    plugins: Mapping[str, Mapping[str, Any]]


def root_of(plugins_dir: object) -> Path | None:
    """Return the application's directory that belongs to the (first) plugins folder."""
    if isinstance(plugins_dir, list | tuple) and plugins_dir:
        plugins_dir = plugins_dir[0]
    if not isinstance(plugins_dir, str | Path) or not Path(plugins_dir).is_absolute():
        return None
    folder = Path(plugins_dir)
    return folder.parent if folder.name == "plugins" else folder


def check_path(path: object, *, optional: bool = False) -> None:
    """Raise unless an argument is a path.

    Args:
        path: The argument.
        optional: Whether it may be `None`.

    Raises:
        OptionError: It is neither a string nor a `Path`.
    """
    if not isinstance(path, str | Path) and not (optional and path is None):
        raise OptionError(
            f"a path must be a string or a Path, not {path!r}", remedy="Pass the path of the file."
        )
