"""What is wrong with a manifest, all of it at once: types, values, and what is merely odd.

The kernel knows the shapes of the fields; here are their meanings: versions, requirements,
permissions, kinds, schemas. A fault reads `path: what was expected; it is value`.

Cost: some ten microseconds for a manifest that declares little; requirement strings, ranges and
versions are parsed once and remembered.
Promise: pure functions, nothing of the plugin runs.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec
import nodesemver
from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Peer
from packaging.version import InvalidVersion, Version

from veko import ConfigError, Manifest, ManifestError, Plugin, as_plugin

from .faults import check_schema, type_faults
from .versions import Requirement, did_you_mean, valid_range

__all__ = [
    "PERMISSIONS", "TYPES", "Findings", "UnsoundError", "findings", "is_event", "peer_faults",
    "requirement_fault", "sound_plugin",
]  # fmt: skip

PERMISSIONS: Final = (
    "env:read", "net:connect", "net:listen", "process:spawn", "read:database", "read:files",
    "write:database", "write:files",
)  # fmt: skip
TYPES: Final = (
    "api", "auth", "cache", "cli", "database", "generic", "middleware", "router", "websocket",
)  # fmt: skip
FIELDS: Final = {field.name: field for field in msgspec.structs.fields(Manifest)}
_STEPS: Final = ("load", "unload", "activate", "deactivate", "export_state", "import_state")
_PART: Final = re.compile(rf"; (?=(?:{'|'.join([*FIELDS, *_STEPS])})(?:\(\)|:| is | names ))")
_URL: Final = re.compile(r"(?:[a-z][a-z0-9+.-]*://[^\s/]+|git@[^\s:]+:\S)\S*", re.I)
_SHORT: Final = re.compile(r"(?:[a-z]+:)?[\w.-]+/[\w.-]+")
"""`github:owner/name` and `owner/name`, as package.json has them."""


class Findings(msgspec.Struct):
    """What was found in a manifest.

    Attributes:
        errors: What keeps the plugin from being loaded.
        warnings: What does not.
        schema: The error of `config_schema`, which is among `errors` too.
    """

    errors: list[str] = []
    warnings: list[str] = []
    schema: ConfigError | None = None


class UnsoundError(ManifestError):
    """A manifest has faults; `faults` has them one by one."""

    def __init__(
        self, faults: Sequence[str], *, plugin: str | None = None, path: Path | None = None
    ) -> None:
        super().__init__(
            f"{plugin or 'a plugin'} is not sound: {'; '.join(faults)}",
            plugin=plugin,
            path=path,
            remedy="Mend what is listed; every plugin has a name, a version and a load().",
        )
        self.faults = tuple(faults)


def sound_plugin(obj: object, *, source: Path | None = None, module: object = None) -> Plugin:
    """Do as `as_plugin`, and if that finds a fault, find the others too.

    Raises:
        ManifestError: It is not sound; all faults of types, values and functions are listed.
    """
    try:
        return as_plugin(obj, source=source, module=module)
    except UnsoundError:
        raise
    except ManifestError as error:
        _, found, told = error.message.partition(" is not sound: ")
        if not found:
            raise
        fields = _fields(obj)
        faults: list[str] = []
        for part in _PART.split(told):
            key = part.partition(":")[0]
            field = FIELDS.get(key)
            better = [] if field is None else list(type_faults(fields.get(key), field.type, (key,)))
            faults += better or [part]
        faults += findings(fields).errors
        raise UnsoundError(list(dict.fromkeys(faults)), plugin=error.plugin, path=source) from None


def _fields(obj: object) -> dict[str, object]:
    """Return the manifest fields of a plugin in any form."""
    if isinstance(obj, Mapping):
        found = {key: obj.get(key) for key in FIELDS}
    elif isinstance(obj, ModuleType):
        found = {key: vars(obj).get(key) for key in FIELDS}
    else:
        found = {key: getattr(obj, key, None) for key in FIELDS}
    return {key: value for key, value in found.items() if value is not None}


def findings(manifest: Manifest | Mapping[str, object], *, plugin: str | None = None) -> Findings:
    """Find what is wrong with the values of a manifest; ill-typed fields are passed over.

    Args:
        manifest: A manifest, or fields of one as a source has them.
        plugin: The plugin's name, for the error of its schema.
    """
    found = Findings()
    if isinstance(manifest, Manifest):
        fields: Mapping[str, Any] = {key: getattr(manifest, key) for key in FIELDS}
    else:
        fields = {key: value for key, value in manifest.items() if _well_typed(key, value)}
    found.errors += _value_faults(fields)
    for key in ("homepage", "repository"):
        text = str(fields.get(key) or "")
        short = key == "repository" and _SHORT.fullmatch(text)
        if text and not short and not _URL.fullmatch(text):
            found.warnings.append(f"{key}: expected a URL (https://…); it is {_shown(text)}")
    try:
        check_schema(fields.get("config_schema"), plugin)
    except ConfigError as error:
        found.schema = error
        found.errors.append(error.message)
    return found


def _well_typed(key: str, value: object) -> bool:
    field = FIELDS.get(key)
    if field is not None and field.type == tuple[str, ...] and isinstance(value, list | tuple):
        return True  # those items that are strings can be looked at
    return field is not None and not any(type_faults(value, field.type, ()))


def _value_faults(fields: Mapping[str, Any]) -> Iterator[str]:
    version = fields.get("version")
    if version and not _is_version(version):
        yield (
            "version: expected one of PEP 440 or SemVer (1.2.0, 2.0.0rc1, 2.0.0-rc.1); "
            f"it is {_shown(version)}"
        )
    for number, text in _texts(fields, "dependencies"):
        fault = requirement_fault(text)
        if fault:
            yield f"dependencies[{number}]: {fault}"
    for number, text in _texts(fields, "peer_dependencies"):
        if isinstance(_peer(text), str):
            yield (
                f"peer_dependencies[{number}]: expected a requirement of PEP 508 (redis>=5); "
                f"it is {_shown(text)}"
            )
    for engine, range_ in (fields.get("engines") or {}).items():
        if not valid_range(range_):
            yield f"engines.{engine}: {range_!r} is neither a PEP 440 nor an npm range"
    for number, text in _texts(fields, "permissions"):
        permission = ":".join(text.split(":")[:2])
        if permission not in PERMISSIONS or text.endswith(":"):
            near = did_you_mean(permission, PERMISSIONS, count=1)
            yield (
                f"permissions[{number}]: expected one of {', '.join(PERMISSIONS)}, perhaps with a "
                f"scope (read:files:./data); it is {_shown(text)}" + (f" ({near})" if near else "")
            )
    for number, text in _texts(fields, "hooks"):
        if not is_event(text):
            yield (
                f"hooks[{number}]: expected the name of an event or a pattern (app:start, "
                f"plugin:*); it is {_shown(text)}"
            )
    kind = fields.get("type")
    if kind is not None and kind not in TYPES:
        near = did_you_mean(kind, TYPES, count=1)
        yield (
            f"type: expected one of {', '.join(TYPES)}; it is {_shown(kind)}"
            + (f" ({near})" if near else "")
        )  # fmt: skip
    if math.isnan(fields.get("priority", 0)):
        yield "priority: expected a number; it is nan"


def _texts(fields: Mapping[str, Any], key: str) -> Iterator[tuple[int, str]]:
    """Yield the strings of a field that should hold strings, each with its place."""
    for number, text in enumerate(fields.get(key) or ()):
        if isinstance(text, str):
            yield number, text


def is_event(text: str) -> bool:
    """Tell whether a text may be the name of an event, or a pattern of names."""
    return all(part and ("*" not in part or part in ("*", "**")) for part in text.split(":"))


@functools.lru_cache(maxsize=4096)
def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        try:
            nodesemver.make_semver(text, False)
        except ValueError:
            return False
    return True


@functools.lru_cache(maxsize=4096)
def requirement_fault(text: str) -> str:
    """Return what is wrong with a requirement of a plugin; empty if nothing is."""
    try:
        Requirement.parse(text)
    except ValueError as error:
        return f"expected a plugin and a range (db>=2,<3 or db@^2.0.0); {error}"
    return ""


@functools.lru_cache(maxsize=1024)
def _peer(text: str) -> Peer | str:
    try:
        return Peer(text)
    except InvalidRequirement as error:
        return str(error)


def peer_faults(peers: Sequence[str]) -> list[str]:
    """Return which distributions are missing here, or of another version than is wanted."""
    faults: list[str] = []
    for number, text in enumerate(peers):
        peer = _peer(text)
        if isinstance(peer, str) or (peer.marker and not peer.marker.evaluate({"extra": ""})):
            continue
        where = f"peer_dependencies[{number}]: {peer.name}{peer.specifier} is wanted"
        try:
            here = installed_version(peer.name)
            fits = peer.specifier.contains(Version(here), prereleases=True)
        except PackageNotFoundError:
            faults.append(f"{where}, {peer.name} is not installed (pip install {text!r})")
        except (InvalidVersion, TypeError):  # its metadata are broken
            faults.append(f"{where}, the version of {peer.name} cannot be told")
        else:
            if not fits:
                faults.append(f"{where}, {peer.name} {here} is installed")
    return faults


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:78] + "…")
