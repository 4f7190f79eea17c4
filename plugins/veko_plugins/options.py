"""The manager's options: one frozen struct, read from arguments, environment and files.

Arguments weigh more than `VEKO_*`, these more than `veko.toml`, that more than `[tool.veko]` in
`pyproject.toml`; both files lie in the application's directory, and relative plugin folders start
there. A section `[plugins.<name>]` is the configuration of that plugin; sections of both files
are merged deep.

Cost: two files read, once.
Promise: all that is wrong is said at once, each fault with the option, where it came from, what
was expected and, if the name is unknown, the nearest known one.
"""

from __future__ import annotations

import importlib.util
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from veko import OptionError

from ._lib.versions import did_you_mean

__all__ = ["ENVIRONMENT", "FILES", "NO_STORAGE", "Options", "merged", "settings_of"]

FILES: Final = ("pyproject.toml", "veko.toml")
"""The settings files; what the later one says counts more."""
ENVIRONMENT: Final = "VEKO_"
NO_STORAGE: Final = "none"
"""The option `storage` of an application that does without."""
_WORDS: Final = {"1": True, "true": True, "yes": True, "on": True,
                 "0": False, "false": False, "no": False, "off": False}  # fmt: skip
_ARGUMENT_ONLY: Final = frozenset({"core"})
_SECTIONS: Final = "plugins"

Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]


def _typescript() -> bool:
    return importlib.util.find_spec("deno") is not None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """All options, with their defaults; durations in seconds, sizes in bytes.

    Attributes:
        plugins_dir: Folders where plugins are looked for; of two of one name the first counts.
        auto_load: Load everything that is found at `start()`.
        support_typescript: Find, compile and run `.ts` and `.js` plugins.
        dev_mode: Development tools and verbose errors.
        watch_mode: Watch plugin files.
        enable_metrics: Count and measure.
        enable_validation: Check engines, peers and JSON Schemas of configurations.
        allow_hot_reload: Let a changed file reload its plugin.
        max_retries: Tries after the first load that failed.
        timeout: Limit of each life-cycle call.
        enable_sandbox: Run plugins in processes of their own.
        enable_hooks: Dispatch the hooks of plugins.
        enable_api: Serve the management API and the dashboard.
        adapter: The HTTP adapter: a name, the adapter itself, or `None` for none.
        openapi: Path of the page that shows the OpenAPI document, which is `openapi.json` below it;
            `None` or empty for none.
        storage: URL of the storage; `None`: SQLite under `.veko/`; `"none"`: no storage.
        core: Core plugins by name that replace ours; `None` leaves one out.
        watch_ignore: Patterns of files that are not watched.
        error_threshold: More errors than that within a minute switch a plugin off.
        warn_threshold: More errors than that within a minute are a warning.
        strict_peers: Make a missing or wrong peer an error.
        drain_timeout: How long calls of an old generation may take to end.
        probation: How long a new generation is watched before the old one is let go.
        required: Plugins without which starting fails.
        otlp: URL of an OTLP collector (HTTP) that traces and metrics are sent to.
        prometheus: Path of a route with the metrics in Prometheus's text format; `None` for none.
        watchdog: How long the event loop may be blocked before that is reported; 0 for never.
        allow_symlinks: Accept links that lead out of the plugin folders.
        max_source_size: The largest source file that is read.
        plugins: Configuration by plugin.
        directory: The application's directory: `.veko/` lies there.
        origins: Where each option that is not the default came from.
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
    enable_hooks: bool = True
    enable_api: bool = False
    adapter: Any = "litestar"
    openapi: str | None = "/schema"
    storage: str | None = None
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
    allow_symlinks: bool = False
    max_source_size: Annotated[int, Meta(gt=0)] = 10 * 2**20
    plugins: dict[str, dict[str, Any]] = {}
    directory: Path = Path()
    origins: dict[str, str] = {}

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
            directory: The application's directory; the current one if left out.
            arguments: Options as given in code.
            environ: The environment; that of the process if left out.

        Raises:
            OptionError: Something is unknown, ill-typed or unreadable; all faults are listed.
        """
        home = Path.cwd() if directory is None else Path(directory).absolute()
        faults: list[str] = []
        given: dict[str, _Given] = {}
        sections: dict[str, dict[str, Any]] = {}
        for origin, table in _tables(home, faults):
            for key, value in table.items():
                if key == _SECTIONS:
                    sections = merged(sections, _checked_sections(value, origin, faults))
                else:
                    given[key] = _Given(value, origin)
        for variable, text in (os.environ if environ is None else environ).items():
            if variable.startswith(ENVIRONMENT):
                key = variable.removeprefix(ENVIRONMENT).lower()
                given[key] = _Given(_from_text(key, text), variable, text=True)
        for key, value in (arguments or {}).items():
            if key == _SECTIONS:
                sections = merged(sections, _checked_sections(value, "argument", faults))
            else:
                given[key] = _Given(value, "argument")
        found: dict[str, Any] = {}
        for key, one in given.items():
            _take(key, one, found, faults)
        if faults:
            raise OptionError(
                faults[0] if len(faults) == 1 else f"{len(faults)} faults: {'; '.join(faults)}",
                remedy="Mend what is listed; `veko_plugins.options.Options` has all options.",
            )
        folders: tuple[Path, ...] = found.get("plugins_dir", cls().plugins_dir)
        found["plugins_dir"] = tuple(home / folder for folder in folders)
        origins = {key: one.origin for key, one in given.items()}
        return cls(**found, plugins=sections, directory=home, origins=origins)

    @property
    def state_dir(self) -> Path:
        """Where Veko keeps what it writes: `.veko` in the application's directory."""
        return self.directory / ".veko"


class _Given(msgspec.Struct):
    value: object
    origin: str
    text: bool = False


_FIELDS: Final = {
    field.name: field
    for field in msgspec.structs.fields(Options)
    if field.name not in {_SECTIONS, "directory", "origins"}
}


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
        found[key] = msgspec.convert(value, field.type, strict=not given.text, dec_hook=_path)
    except (msgspec.ValidationError, NotImplementedError) as error:
        wanted = str(error).partition(" - at")[0]
        faults.append(f"{key} ({given.origin}): {wanted[:1].lower()}{wanted[1:]}; it is {value!r}")


def _path(type_: type, value: object) -> object:
    if type_ is Path and isinstance(value, str | Path):
        return Path(value)
    raise msgspec.ValidationError(f"Expected `{type_.__name__}`, got `{type(value).__name__}`")


def _from_text(key: str, text: str) -> object:
    field = _FIELDS.get(key)
    if field is None:
        return text
    if key == "plugins_dir":
        return tuple(part for part in text.split(os.pathsep) if part)
    if field.type is bool:
        return _WORDS.get(text.strip().lower(), text)
    if field.type == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _tables(home: Path, faults: list[str]) -> Iterator[tuple[str, Mapping[str, object]]]:
    for name in FILES:
        file = home / name
        try:
            table: object = tomllib.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
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
    """Return what the settings files say by key, sections of plugins as `plugins.<name>`.

    Args:
        directory: The application's directory.

    Returns:
        The settings, and what is wrong with the files.
    """
    faults: list[str] = []
    table: dict[str, Any] = {}
    for _, one in _tables(directory, faults):
        table = merged(table, one)
    sections = table.pop(_SECTIONS, {})
    if isinstance(sections, dict):
        table |= {f"{_SECTIONS}.{name}": section for name, section in sections.items()}
    return table, faults


def _checked_sections(value: object, origin: str, faults: list[str]) -> dict[str, dict[str, Any]]:
    if not isinstance(value, Mapping):
        faults.append(f"plugins ({origin}): expected a table by plugin, it is {value!r}")
        return {}
    sections: dict[str, dict[str, Any]] = {}
    for name, section in value.items():
        if isinstance(section, Mapping):
            sections[str(name)] = dict(section)
        else:
            faults.append(f"plugins.{name} ({origin}): expected a table, it is {section!r}")
    return sections


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge deep: mappings into mappings, anything else replaces; neither is changed."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merged(old, value)  # noqa: PLW2901
        result[key] = value
    return result
