"""Configurations by path: reading, changing and telling versions apart.

What is shown has the defaults in it and no secrets. What comes back is compared with what is shown:
a value that equals it is unchanged, so a form may send everything back, masks included, and neither
defaults nor masks become part of the configuration.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from veko import PluginRecord
from veko.extend import merge_config

from .._lib.faults import dotted
from .documents import Fault
from .errors import AdminError
from .hiding import hidden_config, hides

__all__ = ["at", "changed_paths", "edited", "etag_of", "given_of_record"]

_DEPTH: Final = 32
_MISSING: Final = object()
Path = tuple[str, ...]
_Where = tuple[str | int, ...]


def given_of_record(record: PluginRecord) -> dict[str, Any]:
    """Return what a plugin is configured with, without its defaults."""
    return dict(record.current.given) if record.current is not None else {}


def etag_of(record: PluginRecord, key: bytes) -> str:
    """Return the version of a configuration.

    It is made with a key: a plain digest would let who may only look guess a secret.
    """
    encoded = msgspec.json.encode(given_of_record(record), enc_hook=repr, order="deterministic")
    made = hashlib.blake2b(encoded, digest_size=12, key=key[:64], person=b"veko etag")
    return f'"{made.hexdigest()}"'


def at(config: Any, path: Path, plugin: str) -> Any:
    """Return the part of a configuration at a path.

    Raises:
        AdminError: There is nothing (404).
    """
    found = config
    for index, step in enumerate(path):
        if isinstance(found, Mapping) and step in found:
            found = found[step]
        elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        else:
            raise AdminError(
                404,
                f"the configuration has nothing at {dotted(path[: index + 1])!r}",
                plugin=plugin,
                remedy="Ask for the whole configuration to see what there is.",
            )
    return found


def edited(record: PluginRecord, path: Path, how: str, value: object) -> dict[str, Any]:
    """Return what a plugin is to be configured with, without its defaults.

    Args:
        record: The plugin.
        path: Where in its configuration.
        how: `put`, `patch` or `delete`.
        value: The new value.

    Raises:
        AdminError: There is nothing at the path (404), or the value is not valid there (422).
    """
    given, shown = given_of_record(record), hidden_config(record)
    if not isinstance(shown, Mapping):
        shown = {}
    if how == "delete":
        if not path:
            return {}
        at(shown, path, record.name)
        left: dict[str, Any] = _deleted(given, path)
        return left
    if not path and not isinstance(value, Mapping):
        raise _fault(record, path, f"expected an object, got {_kind(value)}")
    actual = _actual(record)
    edit = _Edit(record, merging=how == "patch")
    made: dict[str, Any] = edit.placed(given, shown, actual, path, value, ())
    return made


def _actual(record: PluginRecord) -> Any:
    """Return a configuration with its defaults and its secrets, as plain data."""
    config = record.config
    if callable(dump := getattr(config, "model_dump", None)):
        return dump()
    if isinstance(config, msgspec.Struct) or dataclasses.is_dataclass(config):
        try:
            return msgspec.to_builtins(config, enc_hook=str)
        except TypeError:
            pass
    return merge_config(record.manifest.default_config, given_of_record(record))


class _Edit:
    def __init__(self, record: PluginRecord, *, merging: bool) -> None:
        self._record = record
        self._merging = merging

    def placed(
        self, given: Any, shown: Any, actual: Any, path: Path, value: object, above: _Where
    ) -> Any:
        """Return what is given with a value placed at a path."""
        if not path:
            return self.merged(given, shown, actual, value, above)
        step, *rest = path
        here = (*above, step)
        if isinstance(shown, list):
            if not (step.isdecimal() and int(step) < len(shown)):
                raise _fault(self._record, here, "there is no such item")
            index = int(step)
            known = next((one for one in (given, actual) if isinstance(one, list)), shown)
            if known is shown and hides(shown):
                raise _fault(self._record, above, "has secrets; give the whole of it")
            items = list(known)
            items[index] = self.placed(
                items[index], shown[index], _item(actual, index), tuple(rest), value, here
            )
            return items
        if shown is not None and shown is not _MISSING and not isinstance(shown, Mapping):
            raise _fault(self._record, above, f"it is {_kind(shown)}, which has no {step!r}")
        inner = self.placed(
            _of(given, step), _of(shown, step), _of(actual, step), tuple(rest), value, here
        )
        base = dict(given) if isinstance(given, Mapping) else {}
        if inner is _MISSING:
            base.pop(step, None)
            return base
        return {**base, step: inner}

    def merged(self, given: Any, shown: Any, actual: Any, value: Any, path: _Where) -> Any:
        """Return what is given in place of `given`, for a new value; `_MISSING` for the default."""
        if len(path) > _DEPTH:
            raise _fault(self._record, path, "it is nested too deeply")
        if shown is not _MISSING and _same(value, shown):
            return given
        if isinstance(value, Mapping) and (
            shown is None or shown is _MISSING or isinstance(shown, Mapping)
        ):
            known = shown if isinstance(shown, Mapping) else {}
            return self._mapping(given, known, actual, value, path)
        if isinstance(value, list) and isinstance(shown, list):
            return [
                self._item(_item(given, i), _item(shown, i), _item(actual, i), one, (*path, i))
                for i, one in enumerate(value)
            ]
        if hides(value):
            raise _fault(self._record, path, "is masked, and there is no such secret to keep")
        return value

    def _mapping(
        self,
        given: Any,
        shown: Mapping[str, Any],
        actual: Any,
        value: Mapping[str, Any],
        path: _Where,
    ) -> dict[str, Any]:
        before = given if isinstance(given, Mapping) else {}
        made = dict(before) if self._merging else {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise _fault(self._record, (*path, str(key)), "a key must be text")
            new = self.merged(
                before.get(key, _MISSING),
                shown.get(key, _MISSING),
                _of(actual, key),
                item,
                (*path, key),
            )
            if new is _MISSING:
                made.pop(key, None)
            else:
                made[key] = new
        return made

    def _item(self, given: Any, shown: Any, actual: Any, value: object, path: _Where) -> Any:
        kept = given if given is not _MISSING else actual
        if shown is not _MISSING and _same(value, shown) and not (
            kept is _MISSING and hides(value)
        ):  # fmt: skip
            return kept if kept is not _MISSING else value
        merged = self.merged(kept, shown, actual, value, path)
        return value if merged is _MISSING else merged


def _deleted(given: Any, path: Path) -> Any:
    step, *rest = path
    if isinstance(given, Mapping):
        if step not in given:
            return dict(given)  # the default holds already
        if not rest:
            return {key: value for key, value in given.items() if key != step}
        return {**given, step: _deleted(given[step], tuple(rest))}
    if isinstance(given, list) and step.isdecimal() and int(step) < len(given):
        index = int(step)
        if not rest:
            return [*given[:index], *given[index + 1 :]]
        items = list(given)
        items[index] = _deleted(items[index], tuple(rest))
        return items
    return given


def changed_paths(before: Any, after: Any, path: Path = ()) -> list[str]:
    """Return the paths at which two configurations differ."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        found = []
        for key in (*before, *(key for key in after if key not in before)):
            inner = (*path, str(key))
            found += changed_paths(before.get(key, _MISSING), after.get(key, _MISSING), inner)
        return found
    return [] if before is not _MISSING and after is not _MISSING and _same(before, after) else [
        dotted(path)
    ]  # fmt: skip


def _same(one: object, other: object) -> bool:
    """Return whether two values are the same; unlike `==`, 1 is not true."""
    try:
        return _encoded(one) == _encoded(other)
    except (TypeError, UnicodeEncodeError):
        return one is other


def _encoded(value: object) -> bytes:
    return msgspec.json.encode(value, enc_hook=repr, order="deterministic")


def _of(config: Any, step: str) -> Any:
    return config.get(step, _MISSING) if isinstance(config, Mapping) else _MISSING


def _item(config: Any, index: int) -> Any:
    return config[index] if isinstance(config, list) and index < len(config) else _MISSING


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return "null" if value is None else kinds.get(type(value), "a number")


def _fault(record: PluginRecord, path: _Where, message: str) -> AdminError:
    return AdminError(
        422,
        f"the configuration of {record.name!r} cannot be changed so",
        plugin=record.name,
        faults=[Fault(dotted(path), message)],
        remedy="Fix the values that are named.",
    )
