"""The manager's options: one frozen struct, read from arguments, environment and files.

Arguments override `VEKO_*` variables, these override `veko.toml`, and that overrides `[tool.veko]`
in `pyproject.toml`. Both files are in the application's directory; relative plugin folders start
there. A section `[plugins.<name>]` is the configuration of that plugin; the sections of all sources
are merged deeply, with variables such as `VEKO_PLUGINS__GUARD__TOKEN` between files and arguments.

Cost: reading two files, once.
Promise: all faults are reported together, each with the option, its source, what was expected and,
if the name is unknown, the nearest known one. A variable that is unknown is a warning only: other
programs set variables too, and Kubernetes sets some for a service called `veko`.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from veko import OptionError
from veko.extend import merge_config

from ._lib.faults import decode_path, fault_of
from ._lib.masking import masked_section, masked_text, masked_value
from ._lib.regular_files import read_toml
from ._lib.variables import PREFIX, Sections, is_of_kubernetes, words_of
from ._lib.versions import did_you_mean

__all__ = ["ENVIRONMENT", "FILES", "NO_STORAGE", "Options", "settings_of"]

FILES: Final = ("pyproject.toml", "veko.toml")
"""The settings files; a later one overrides an earlier one."""
ENVIRONMENT: Final = "VEKO_"
"""The prefix of environment variables that are options."""
NO_STORAGE: Final = "none"
"""The option `storage` of an application without storage."""
_ARGUMENT_ONLY: Final = frozenset({"core"})
_SECTIONS: Final = "plugins"
_NOT_SHOWN: Final = frozenset({"sections", "origins", "warnings", "ignored"})
_FIELD_OF_PLUGIN: Final = re.compile(rf"{PREFIX}[^_].*?__[^_].*")

Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]


def _typescript() -> bool:
    return importlib.util.find_spec("deno") is not None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """All options with their defaults; durations in seconds, sizes in bytes.

    Attributes:
        plugins_dir: Folders to search for plugins; the first one that has a plugin's name wins.
        auto_load: Load every plugin that is found, at `start()`.
        support_typescript: Find, compile and run `.ts` and `.js` plugins.
        dev_mode: Development tools (`veko debug`, `inject_code`) and verbose errors.
        watch_mode: Watch plugin files.
        enable_metrics: Count and measure hook calls, by plugin.
        enable_validation: Check manifests, engines, peers and JSON Schemas of configurations.
        allow_hot_reload: Reload a plugin when one of its files changes.
        max_retries: Tries after a first load that failed.
        timeout: Time limit of each life-cycle call.
        enable_sandbox: Run each plugin in a process of its own, confined to its `permissions`.
        locked: Refuse plugins whose files or permissions are not those in `veko.lock`.
        learn: Let confined plugins do everything, and write which permissions they need to
            `.veko/learned/`.
        enable_hooks: Dispatch the hooks of plugins.
        enable_api: Serve the management API and the dashboard.
        adapter: The HTTP adapter: its name, the adapter itself, or `None` for no HTTP.
        threads: How many `def` route handlers run at once, each in a thread.
        openapi: Path of the page that shows the OpenAPI document, which is served as `openapi.json`
            below it; `None` or empty for neither.
        storage: URL of the storage; `None`: SQLite under `.veko/`; `"none"`: no storage.
        auth: Provide the service `auth`: users, passwords, tokens and guards.
        cache: URL of the cache: `memory:`, `file:PATH` or `redis://…`; `None` for no cache.
        database: URL of the database of the service `database`; `None`: no such service.
        core: Core plugins that replace the built-in ones, by name; `None` leaves one out.
        watch_ignore: Patterns of files that are not watched.
        error_threshold: More errors than this within a minute switch a route or a plugin off.
        warn_threshold: More errors than this within a minute are a warning.
        strict_peers: Treat a missing or wrong peer as an error.
        drain_timeout: How long running calls of a replaced generation may take to finish.
        probation: How long a new generation is watched before the previous one is dropped.
        required: Plugins without which starting fails.
        otlp: URL of the OTLP collector (HTTP) that receives traces, and metrics unless
            `enable_metrics` is off.
        prometheus: Path of a route with the metrics in Prometheus's text format; `None` for none.
        watchdog: How long the event loop may be blocked before it is reported; 0 to never report.
        ledger: Measure processor time, waiting and memory by plugin and by route; on with
            `enable_api`, and if a plugin has a budget.
        allow_symlinks: Accept symbolic links that lead out of the plugin folders.
        max_source_size: The largest source file that is read.
        plugins: Configuration by plugin.
        directory: The application's directory, which contains `.veko/`.
        sections: The same as `plugins`, by source, with the variables that configure plugins.
        origins: Source of each option that was given: `argument`, a variable or a file.
        warnings: Messages about variables that are no options.
        ignored: Variables that Kubernetes has set.
    """

    plugins_dir: tuple[Path, ...] = (Path("plugins"),)
    auto_load: bool = True
    support_typescript: bool = msgspec.field(default_factory=_typescript)
    dev_mode: bool = False
    watch_mode: bool = False
    enable_metrics: bool = True
    enable_validation: bool = True
    allow_hot_reload: bool = True
    max_retries: Count = 3
    timeout: Annotated[float, Meta(gt=0)] = 30.0
    enable_sandbox: bool = False
    locked: bool = False
    learn: bool = False
    enable_hooks: bool = True
    enable_api: bool = False
    adapter: Any = "litestar"
    threads: Annotated[int, Meta(gt=0)] = 40
    openapi: str | None = "/schema"
    storage: str | None = None
    auth: bool = False
    cache: str | None = None
    database: str | None = None
    core: dict[str, Any] = {}
    watch_ignore: tuple[str, ...] = ()
    error_threshold: Count = 10
    warn_threshold: Count = 5
    strict_peers: bool = False
    drain_timeout: Seconds = 30.0
    probation: Seconds = 0.0
    required: tuple[str, ...] = ()
    otlp: str | None = None
    prometheus: str | None = None
    watchdog: Seconds = 0.1
    ledger: bool = False
    allow_symlinks: bool = False
    max_source_size: Annotated[int, Meta(gt=0)] = 10 * 2**20
    plugins: dict[str, dict[str, Any]] = {}
    directory: Path = Path()
    sections: Sections = Sections()
    origins: dict[str, str] = {}
    warnings: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        directory: str | Path | None = None,
        arguments: Mapping[str, object] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> Options:
        """Read all options of an application.

        Args:
            directory: The application's directory; by default the current one.
            arguments: Options given in code.
            environ: The environment variables; by default those of the process.

        Raises:
            OptionError: An option is of a wrong type, or unknown (except in the environment), or a
                file cannot be read; all faults are listed.
        """
        home = Path.cwd() if directory is None else Path(directory).absolute()
        faults: list[str] = []
        given: dict[str, _Given] = {}
        files: dict[str, dict[str, Any]] = {}
        in_code: dict[str, dict[str, Any]] = {}
        for origin, table in _tables(home, faults):
            for key, value in table.items():
                if key == _SECTIONS:
                    files = merge_config(files, _checked_sections(value, origin, faults))
                else:
                    given[key] = _Given(value, origin)
        variables = _Variables()
        for variable, text in (os.environ if environ is None else environ).items():
            variables.read(variable, text, given)
        for key, value in (arguments or {}).items():
            if key == _SECTIONS:
                in_code = _checked_sections(value, "argument", faults)
            else:
                given[key] = _Given(value, "argument")
        found: dict[str, Any] = {}
        for key, one in given.items():
            _take(key, one, found, faults)
        if faults:
            raise OptionError(
                faults[0] if len(faults) == 1 else f"{len(faults)} faults: {'; '.join(faults)}",
                remedy="Fix what is listed; `veko_plugins.options.Options` documents all options.",
            )
        folders: tuple[Path, ...] = found.get("plugins_dir", cls().plugins_dir)
        found["plugins_dir"] = tuple(home / folder for folder in folders)
        origins = {key: one.origin for key, one in given.items()}
        return cls(
            **found,
            plugins=merge_config(files, in_code),
            sections=Sections(files, variables.of_plugins, in_code),
            directory=home,
            origins=origins,
            warnings=tuple(variables.warnings),
            ignored=tuple(variables.ignored),
        )

    def __repr__(self) -> str:
        """Return what differs from the defaults, without passwords and plugins' configurations."""
        shown = {
            name: masked_section(value) if name == _SECTIONS else masked_value(value)
            for name, value in msgspec.structs.asdict(self).items()
            if value != getattr(_DEFAULTS, name) and name not in _NOT_SHOWN
        }
        return masked_text(f"Options({', '.join(f'{key}={one!r}' for key, one in shown.items())})")

    @property
    def state_dir(self) -> Path:
        """The folder for everything that Veko writes: `.veko` in the application's directory."""
        return self.directory / ".veko"


_DEFAULTS: Final = Options()


class _Given(msgspec.Struct):
    value: object
    origin: str
    text: bool = False


_FIELDS: Final = {
    field.name: field
    for field in msgspec.structs.fields(Options)
    if field.name not in {_SECTIONS, "directory", *_NOT_SHOWN}
}


class _Variables:
    """The environment variables, sorted by what they are.

    Attributes:
        of_plugins: Those that configure plugins, with their texts.
        warnings: Messages about those that are nothing.
        ignored: Those that Kubernetes has set.
    """

    def __init__(self) -> None:
        self.of_plugins: dict[str, str] = {}
        self.warnings: list[str] = []
        self.ignored: list[str] = []

    def read(self, variable: str, text: str, given: dict[str, _Given]) -> None:
        """Take one variable; those that are options are put among the options that were given."""
        if not variable.startswith(ENVIRONMENT):
            return
        key = variable.removeprefix(ENVIRONMENT).lower()
        if key in _FIELDS:
            given[key] = _Given(_from_text(key, text), variable, text=True)
        elif _FIELD_OF_PLUGIN.fullmatch(variable):
            self.of_plugins[variable] = text
        elif is_of_kubernetes(variable, text):
            self.ignored.append(variable)
        elif key.partition("__")[0] == _SECTIONS:
            self.warnings.append(
                f"{variable} names no field of a plugin: write {PREFIX}<PLUGIN>__<FIELD>"
            )
        else:
            # Compared without the prefix, which would make everything look alike.
            near = did_you_mean(key.upper(), [name.upper() for name in _FIELDS], count=1)
            near = near.replace("'", f"'{ENVIRONMENT}", 1)
            self.warnings.append(f"{variable} is not an option. {near}".rstrip())


def _take(key: str, given: _Given, found: dict[str, Any], faults: list[str]) -> None:
    field = _FIELDS.get(key)
    if field is None:
        near = did_you_mean(key, _FIELDS)
        faults.append(f"{key!r} ({given.origin}) is not an option. {near}".rstrip())
        return
    if key in _ARGUMENT_ONLY and given.origin != "argument":
        faults.append(f"{key} ({given.origin}) can only be given as an argument")
        return
    value = given.value
    if key == "plugins_dir" and isinstance(value, str | Path):
        value = (value,)
    try:
        if key == "adapter" and given.origin != "argument":
            msgspec.convert(value, str)
        found[key] = msgspec.convert(value, field.type, strict=not given.text, dec_hook=decode_path)
    except msgspec.ValidationError as error:
        message = fault_of(error).message
        faults.append(f"{key} ({given.origin}): {message}; it is {_shown(key, value)}")


def _from_text(key: str, text: str) -> object:
    field = _FIELDS.get(key)
    if field is None:
        return text
    if key == "plugins_dir":
        return tuple(part for part in text.split(os.pathsep) if part)
    if field.type is bool:
        return words_of(text)
    if field.type == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _tables(home: Path, faults: list[str]) -> Iterator[tuple[str, Mapping[str, object]]]:
    for name in FILES:
        file = home / name
        try:
            table: object = read_toml(file)
        except FileNotFoundError:
            continue
        except ValueError as error:
            faults.append(f"{file} cannot be read: {error}")
            continue
        if name == "pyproject.toml":
            tool = table.get("tool") if isinstance(table, dict) else None
            table = tool.get("veko", {}) if isinstance(tool, dict) else {}
        if isinstance(table, dict):
            yield name, table
        else:
            faults.append(f"[tool.veko] ({name}) is not a table")


def settings_of(directory: Path) -> tuple[dict[str, object], list[str]]:
    """Read the settings files without checking the settings.

    Args:
        directory: The application's directory.

    Returns:
        The settings by key, with plugins' sections as `plugins.<name>`; and the faults of the
        files.
    """
    faults: list[str] = []
    table: dict[str, Any] = {}
    for _, one in _tables(directory, faults):
        table = merge_config(table, one)
    sections = table.pop(_SECTIONS, {})
    if isinstance(sections, dict):
        table |= {f"{_SECTIONS}.{name}": section for name, section in sections.items()}
    return table, faults


def _checked_sections(value: object, origin: str, faults: list[str]) -> dict[str, dict[str, Any]]:
    if not isinstance(value, Mapping):
        faults.append(f"plugins ({origin}): expected a table of tables, got {_kind(value)}")
        return {}
    sections: dict[str, dict[str, Any]] = {}
    for name, section in value.items():
        if isinstance(section, Mapping):
            sections[str(name)] = dict(section)
        else:
            faults.append(f"plugins.{name} ({origin}): expected a table, got {_kind(section)}")
    return sections


def _shown(key: str, value: object) -> str:
    return masked_text(repr(masked_value(value, key)))


def _kind(value: object) -> str:
    """Return the type of a value that may be a plugin's secret."""
    return type(value).__name__
