"""The faults of a manifest, all at once: types, values, and what is odd but harmless.

The kernel checks the types of the fields; this file checks what they mean: versions, requirements,
permissions, types of plugins, schemas.

Cost: some ten microseconds for a manifest that declares little; requirement strings, ranges and
versions are parsed once and remembered.
Promise: pure functions; no code of the plugin runs.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from veko.errors import Fault

from .config_schemas import check_schema
from .faults import type_faults
from .permissions import PERMISSIONS, parse_permission, reaches_application
from .versions import Requirement, did_you_mean, valid_range

__all__ = [
    "PERMISSIONS", "TYPES", "Findings", "checked_plugin", "findings", "is_event",
    "manifest_error", "peer_faults", "requirement_fault",
]  # fmt: skip

TYPES: Final = (
    "api", "auth", "cache", "cli", "database", "generic", "middleware", "router", "websocket",
)  # fmt: skip
FIELDS: Final = {field.name: field for field in msgspec.structs.fields(Manifest)}
_URL: Final = re.compile(r"(?:[a-z][a-z0-9+.-]*://[^\s/]+|git@[^\s:]+:\S)\S*", re.I)
_SHORT: Final = re.compile(r"(?:[a-z]+:)?[\w.-]+/[\w.-]+")
"""`github:owner/name` and `owner/name`, as package.json has them."""


class Findings(msgspec.Struct):
    """What was found in a manifest.

    Attributes:
        errors: The faults that keep the plugin from loading.
        warnings: Those that do not.
        schema: The error of `config_schema`, whose faults are among `errors` too.
    """

    errors: list[Fault] = []
    warnings: list[Fault] = []
    schema: ConfigError | None = None


def manifest_error(
    faults: Iterable[Fault], *, plugin: str | None = None, path: Path | None = None
) -> ManifestError:
    """Return the error of a plugin whose manifest has faults.

    Args:
        faults: All of them.
        plugin: The plugin's name, if it has a valid one.
        path: The plugin's file or folder.
    """
    return ManifestError(
        f"{plugin or 'a plugin'} is not valid",
        faults=faults,
        plugin=plugin,
        path=path,
        remedy="Fix what is listed; every plugin needs a name, a version and a load().",
    )


def checked_plugin(obj: object, *, source: Path | None = None, module: object = None) -> Plugin:
    """Return what `as_plugin` returns; where it finds a fault, find all the others too.

    Args:
        obj: A plugin in any form.
        source: The file or folder that it came from.
        module: The module that it came from, if that is not `obj`.

    Raises:
        ManifestError: It is not valid; all faults of types, values and functions are listed.
    """
    try:
        return as_plugin(obj, source=source, module=module)
    except ManifestError as error:
        if not error.faults:
            raise
        fields = _fields(obj)
        faults: list[Fault] = []
        for fault in error.faults:
            key = fault.path
            # The kernel stops at a field's first wrong item; the walk finds each, with its index.
            found = type_faults(fields[key], FIELDS[key].type, (key,)) if key in fields else ()
            faults += list(found) or [fault]
        faults += findings(fields).errors
        raise manifest_error(faults, plugin=error.plugin, path=source) from None


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
    """Find what is wrong with the values of a manifest; fields of a wrong type are skipped.

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
            message = f"expected a URL (https://…); it is {_shown(text)}"
            found.warnings.append(Fault(key, message))
    found.warnings += _wide_permissions(fields)
    schema = fields.get("config_schema")
    try:
        if schema is not None:
            check_schema(schema, plugin)
    except ConfigError as error:
        found.schema = error
        found.errors += error.faults or [Fault("config_schema", error.message)]
    return found


def _well_typed(key: str, value: object) -> bool:
    field = FIELDS.get(key)
    if field is not None and field.type in _TEXTS and isinstance(value, list | tuple):
        return True  # those items that are strings can be looked at
    return field is not None and not any(type_faults(value, field.type))


def _value_faults(fields: Mapping[str, Any]) -> Iterator[Fault]:
    version = fields.get("version")
    if version and not _is_version(version):
        yield Fault(
            "version",
            "expected one of PEP 440 or SemVer (1.2.0, 2.0.0rc1, 2.0.0-rc.1); "
            f"it is {_shown(version)}",
        )
    for number, text in _texts(fields, "dependencies"):
        fault = requirement_fault(text)
        if fault:
            yield Fault(f"dependencies[{number}]", fault)
    for number, text in _texts(fields, "peer_dependencies"):
        if isinstance(_peer(text), str):
            yield Fault(
                f"peer_dependencies[{number}]",
                f"expected a requirement of PEP 508 (redis>=5); it is {_shown(text)}",
            )
    for engine, range_ in (fields.get("engines") or {}).items():
        if not valid_range(range_):
            yield Fault(f"engines.{engine}", f"{range_!r} is neither a PEP 440 nor an npm range")
    for number, text in _texts(fields, "permissions"):
        fault = _permission_fault(text)
        if fault:
            yield Fault(f"permissions[{number}]", f"{fault}; it is {_shown(text)}")
    for number, text in _texts(fields, "hooks"):
        if not is_event(text):
            yield Fault(
                f"hooks[{number}]",
                "expected the name of an event or a pattern (app:start, plugin:*); "
                f"it is {_shown(text)}",
            )
    kind = fields.get("type")
    if kind is not None and kind not in TYPES:
        near = did_you_mean(kind, TYPES, count=1)
        yield Fault(
            "type",
            f"expected one of {', '.join(TYPES)}; it is {_shown(kind)}"
            + (f" ({near})" if near else ""),
        )
    if math.isnan(fields.get("priority", 0)):
        yield Fault("priority", "expected a number; it is nan")


def _permission_fault(text: str) -> str:
    try:
        parse_permission(text)
    except ValueError as error:
        permission = ":".join(text.split(":")[:2])
        near = did_you_mean(permission, PERMISSIONS, count=1)
        expected = f"expected one of {', '.join(PERMISSIONS)}, perhaps with a scope "
        return str(error) or f"{expected}(read:files:./data)" + (f" ({near})" if near else "")
    return ""


def _wide_permissions(fields: Mapping[str, Any]) -> Iterator[Fault]:
    for number, text in _texts(fields, "permissions"):
        if not _permission_fault(text) and reaches_application(parse_permission(text)):
            message = f"{text!r} lets it change what it may do, and other plugins"
            yield Fault(f"permissions[{number}]", message)


_TEXTS: Final = (tuple[str, ...], tuple[str, ...] | None)


def _texts(fields: Mapping[str, Any], key: str) -> Iterator[tuple[int, str]]:
    """Yield the strings of a field that should hold strings, each with its index."""
    for number, text in enumerate(fields.get(key) or ()):
        if isinstance(text, str):
            yield number, text


def is_event(text: str) -> bool:
    """Return whether a text is a valid name of an event, or a valid pattern of names."""
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
    """Return what is wrong with a requirement of a plugin; empty if it is valid."""
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


def peer_faults(peers: Sequence[str]) -> list[Fault]:
    """Return which distributions are missing here, or installed in a version out of range.

    Args:
        peers: Requirements as `peer_dependencies` has them; invalid ones are skipped.
    """
    faults: list[Fault] = []
    for number, text in enumerate(peers):
        peer = _peer(text)
        if isinstance(peer, str) or (peer.marker and not peer.marker.evaluate({"extra": ""})):
            continue
        path = f"peer_dependencies[{number}]"
        wanted = f"{peer.name}{peer.specifier} is wanted"
        try:
            here = installed_version(peer.name)
            fits = peer.specifier.contains(Version(here), prereleases=True)
        except PackageNotFoundError:
            message = f"{wanted}, {peer.name} is not installed (pip install {text!r})"
            faults.append(Fault(path, message))
        except (InvalidVersion, TypeError):  # its metadata are broken
            faults.append(Fault(path, f"{wanted}, the version of {peer.name} is unknown"))
        else:
            if not fits:
                faults.append(Fault(path, f"{wanted}, {peer.name} {here} is installed"))
    return faults


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:78] + "…")
