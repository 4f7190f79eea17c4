"""The composition: which core plugins there are, in which order, with which options."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from veko import Event, Kernel, Plugin, as_plugin
from veko.errors import OptionError

from .._lib.versions import did_you_mean
from ..activation import Activation
from ..auth import auth_events
from ..backup import Backup
from ..cache import EVENTS as CACHE_EVENTS
from ..commands import Commands
from ..config import BUDGET, Config
from ..console import Console
from ..dependencies import Dependencies
from ..devtools import EVENTS as DEVELOPMENT_EVENTS
from ..discovery import Discovery
from ..health import Health
from ..http import HTTPError, OpenAPI, Routes
from ..ledger import EVENTS as LEDGER_EVENTS
from ..loader import Loader
from ..logging import Logging
from ..metrics import Metrics
from ..options import FILES, NO_STORAGE, Options, settings_of
from ..probation import EVENTS as PROBATION_EVENTS
from ..probation import Probation
from ..profiling import Profiling
from ..reload import EVENTS as RELOAD_EVENTS
from ..reload import Reload
from ..remote import Permissions, Remote
from ..signals import Signals
from ..state import State
from ..storage import Storage
from ..transpile import Transpile
from ..validation import Validation
from ..watch import EVENTS as FILE_EVENTS
from ..watch import Watch
from ..watchdog import Watchdog
from .loading import Loading
from .on_demand import ON_DEMAND

__all__ = ["core_plugins", "kernel_of"]

APP_EVENTS: Final = (
    Event("app:init", doc="All plugins are loaded; before `app:start`. Argument: the application."),
    Event("app:start", doc="The application starts. Argument: the application."),
    Event(
        "app:stop",
        doc="The application stops; its plugins are still active. Argument: the application.",
    ),
    Event(
        "app:restart", doc="The application is about to stop and start. Argument: the application."
    ),
)
_STORED: Final = Path(".veko")
_SOMETIMES: Final = (
    "admin", "auth", "cache", "console", "database", "ledger", "metrics", "openapi", "probation",
    "recording", "reload", "routes", "storage", "telemetry", "tracing", "watch", "watchdog",
)  # fmt: skip
"""Core plugins that other options leave out; `core` may do so too."""
_OF_DATABASE: Final = frozenset({"sqlalchemy", "alembic", "greenlet"})


def kernel_of(app: Any, options: Options) -> Kernel:
    """Make the kernel, with the events of the manager declared."""
    kernel = Kernel(
        app,
        timeout=options.timeout,
        drain_timeout=options.drain_timeout,
        enable_hooks=options.enable_hooks,
    )
    if options.storage == NO_STORAGE:
        kernel.absent["storage"] = (
            "the storage is off (storage = 'none'). Set the option `storage`, or leave it out for "
            "SQLite in .veko/"
        )
    if not options.auth:
        kernel.absent["auth"] = (
            "auth is off. Set the option `auth = true` (pip install 'veko[auth]')"
        )
    if options.cache is None and options.core.get("cache") is None:
        kernel.absent["cache"] = (
            'the cache is off. Set the option cache = "memory:", or to the URL of a Redis'
        )
    if options.database is None:
        kernel.absent["database"] = (
            "the database service is off. Set the option `database` to a URL, such as "
            "'sqlite:///data.db' or 'postgresql://…'"
        )
    if options.adapter is None:
        why = "HTTP is off (adapter = None). Set the option `adapter`"
        kernel.absent |= dict.fromkeys(("add_route", "add_middleware", "add_websocket"), why)
    # Declared even if their plugins are left out, so that hooks on them are no mistake.
    for event in (
        *APP_EVENTS, *CACHE_EVENTS, *FILE_EVENTS, *LEDGER_EVENTS, *PROBATION_EVENTS,
        *RELOAD_EVENTS, *DEVELOPMENT_EVENTS, *auth_events(HTTPError),
    ):  # fmt: skip
        kernel.bus.declare(event)
    return kernel


def core_plugins(
    options: Options, signals: Signals, unwatched: Iterable[str], manager: object
) -> Iterator[Plugin]:
    """Make the core plugins, in the order in which they are loaded.

    Args:
        options: All options; `core` replaces core plugins or leaves them out.
        signals: The observers, which stay over a restart.
        unwatched: Patterns of files that are no longer watched.
        manager: The manager, for consoles.

    Raises:
        OptionError: `core` leaves out a plugin that does not exist.
    """
    stored = options.directory / _STORED
    loader = Loader(
        stored / "cache",
        max_source=options.max_source_size,
        allow_symlinks=options.allow_symlinks,
    )
    made: dict[str, Callable[[], Plugin]] = {
        "logging": lambda: Logging(options.directory),
        "signals": lambda: signals,
        "health": lambda: Health(
            warn_threshold=options.warn_threshold,
            error_threshold=options.error_threshold,
            spared=options.required,
        ),
        "dependencies": Dependencies,
        "config": lambda: Config(
            options.sections,
            validate=options.enable_validation,
            overrides=stored / "overrides.jsonl",
        ),
        "validation": lambda: Validation(
            strict_peers=options.strict_peers, max_source=options.max_source_size
        ),
        "loader": lambda: loader,
        "permissions": lambda: Permissions(
            options.directory,
            sandbox=options.enable_sandbox,
            locked=options.locked,
            learn=options.learn,
            dev_mode=options.dev_mode,
        ),
        "remote": lambda: Remote(
            options.directory, sandbox=options.enable_sandbox, dev_mode=options.dev_mode
        ),
        "transpile": lambda: Transpile(loader.importer.cache),
        "discovery": lambda: Discovery(
            options.plugins_dir,
            cache=loader.importer.cache,
            allow_symlinks=options.allow_symlinks,
            missing_ok="plugins_dir" not in options.origins,
            directory=options.directory,
            scripts=_no_scripts(options),
        ),
        "loading": lambda: Loading(
            max_retries=options.max_retries,
            probation=options.probation > 0,
            validate=options.enable_validation,
            max_source=options.max_source_size,
        ),
        "activation": lambda: Activation(stored / "first-use"),
        "storage": lambda: Storage(options.storage or stored / "storage.db"),
        "commands": Commands,
        "state": lambda: State(stored / "state.jsonl"),
        "backup": lambda: Backup(stored / "backups"),
        "profiling": lambda: Profiling(stored / "profiles"),
    }
    if options.otlp is not None or options.sections.mentions("tracing"):
        made = {"tracing": lambda: _tracing(options.otlp), **made}  # the outermost interceptors
    if options.sections.mentions("recording"):
        made = {"recording": lambda: _recorder(options), **made}  # it hears of all that follows
    if options.storage == NO_STORAGE:
        del made["storage"]
    if options.cache is not None:
        made["cache"] = lambda: _cache(options)
    if options.dev_mode:
        made["console"] = lambda: Console(options.directory, manager)
    if options.enable_metrics:
        made["metrics"] = Metrics
    if options.watchdog:
        made["watchdog"] = lambda: Watchdog(options.watchdog, begin=False)
    if _has_ledger(options):
        made["ledger"] = _ledger
    if options.adapter is not None:
        made["routes"] = lambda: Routes(
            options.adapter,
            dev_mode=options.dev_mode,
            threads=options.threads,
            required=options.required,
        )
    if options.openapi and "routes" in made and options.core.get("routes", ...) is not None:
        path = options.openapi
        made["openapi"] = lambda: OpenAPI(path, options.directory)
    if options.enable_api:
        made["admin"] = lambda: _admin(options.directory)
    if options.auth:
        made["auth"] = lambda: _auth(stored / "auth-keys.json")
    # Counting for the export costs each request two hooks.
    if options.prometheus is not None or (options.otlp is not None and options.enable_metrics):
        made["telemetry"] = lambda: _telemetry(options)
    if options.database is not None:
        url = options.database
        made["database"] = lambda: _database(url, options.directory)
    if options.probation:
        made["probation"] = lambda: Probation(options.probation)
    if options.watch_mode:
        ignore = (*options.watch_ignore, *unwatched)
        made["watch"] = lambda: Watch(
            options.plugins_dir, ignore=ignore, allow_symlinks=options.allow_symlinks
        )
        if options.allow_hot_reload:
            made["reload"] = lambda: Reload(
                options.plugins_dir,
                load_new=options.auto_load,
                settings=lambda: settings_of(options.directory),
                settings_files=(options.directory / name for name in FILES),
            )
    for name, make in made.items():
        if name not in options.core:
            yield as_plugin(make())
        elif options.core[name] is not None:
            yield _core(options.core[name])
    for name, plugin in options.core.items():
        if plugin is None and name not in (*made, *_SOMETIMES, *ON_DEMAND):
            raise OptionError(
                f"core: there is no core plugin {name!r} to leave out",
                remedy=did_you_mean(name, made) or f"There are: {', '.join(made)}.",
            )
        if name not in made and plugin is not None:
            yield _core(plugin)


def _no_scripts(options: Options) -> str | None:
    """Return why scripts are passed over; `None` if they are not."""
    if not options.support_typescript:
        if "support_typescript" in options.origins:
            return "support_typescript is off"
        return 'plugins in JavaScript and TypeScript need Deno: pip install "veko[typescript]"'
    if options.core.get("remote", ...) is None:
        return "the core plugin `remote` was left out"
    return None


def _admin(directory: Path) -> Plugin:
    from ..admin import Admin

    return Admin(directory, serve=True)


def _auth(keys: Path) -> Plugin:
    from ..auth import Authentication

    return Authentication(keys)


def _cache(options: Options) -> Plugin:
    from ..cache import CachePlugin

    return CachePlugin(options.cache or "memory:", options.directory)


def _database(url: str, directory: Path) -> Plugin:
    try:
        from ..database import DatabasePlugin
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _OF_DATABASE:
            raise
        raise OptionError(
            f"the option `database` needs {error.name}", remedy='pip install "veko[database]"'
        ) from error
    return DatabasePlugin(url, directory)


def _has_ledger(options: Options) -> bool:
    """Return whether the ledger is asked for, or something needs it."""
    if "ledger" in options.origins:
        return options.ledger
    sections = options.sections
    return options.enable_api or sections.mentions("ledger") or bool(sections.with_table(BUDGET))


def _ledger() -> Plugin:
    from ..ledger import Ledger

    return Ledger()


def _telemetry(options: Options) -> Plugin:
    from ..telemetry import Telemetry

    resource = {"service.name": options.directory.absolute().name}
    if os.environ.get("OTEL_SERVICE_NAME"):
        resource = {}
    return Telemetry(otlp=options.otlp, prometheus=options.prometheus, resource=resource)


def _recorder(options: Options) -> Plugin:
    from ..recording import Recorder

    adapter = options.adapter if isinstance(options.adapter, str | None) else "asgi"
    return Recorder(options.directory, adapter)


def _tracing(otlp: str | None) -> Plugin:
    try:
        from ..tracing import Tracing
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise OptionError(
            "traces need the OpenTelemetry SDK", remedy='pip install "veko[otel]"'
        ) from error
    return Tracing(otlp)


def _core(form: Any) -> Plugin:
    """Make a core plugin from the option `core`; it may be given in any form."""
    plugin = as_plugin(form)
    vars(plugin)["core"] = True
    return plugin
