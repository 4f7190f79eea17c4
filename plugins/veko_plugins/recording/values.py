"""Payloads: snapshots while recording, readable forms in files, and values again for a replay.

A snapshot is made at the moment of the emission, because handlers may change what they get and a
kept object would keep its plugin alive. Builtin types are copied by `marshal`, in about the time of
one call; everything else takes the slower way of `forms_of`. A form is JSON, as `json_values`
writes it, plus `$struct` for structs and dataclasses, and `$opaque` for what cannot be written: its
type and the beginning of its `repr`.

Promise: what a form's names, or the URLs in its texts, show to be secret is masked before it is
written. Reading a form imports nothing and runs no code but the constructors of structs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import marshal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from .._lib.masking import MASK, masked_text, sounds_secret
from .._saved.json_values import from_json, to_json

__all__ = [
    "LIMIT",
    "Form",
    "Unreplayable",
    "find_class",
    "forms_of",
    "mask",
    "outcomes_of",
    "read_outcome",
    "read_snapshot",
    "recorded_value",
    "too_large",
    "value_of",
]

Form = Any
"""A JSON value."""
LIMIT: Final = 64 * 1024
"""Bytes of a payload, and of a body, that are recorded."""
_DEPTH: Final = 40
_MOST: Final = 5_000
"""Parts of one payload that the slower way writes."""
_SHOWN: Final = 200
"""Characters of a `repr`."""
_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(strict=False).decode
_HOUSE: Final = ("veko.", "veko_plugins.", "veko_adapters.")
_OPAQUE, _STRUCT = "$opaque", "$struct"


class Unreplayable(Exception):
    """A recorded value that cannot be made again; the text says which and why."""


def forms_of(values: Sequence[object]) -> list[Form]:
    """Return the forms of values that `marshal` does not copy. It never raises."""
    return [_Writer().form(value) for value in values]


def too_large(size: int) -> list[Form]:
    """Return what stands for a payload that is too large."""
    return [{_OPAQUE: f"a payload of {size} bytes, of which none is recorded"}]


def read_snapshot(snapshot: bytes | list[Form]) -> list[Form]:
    """Return the forms of a snapshot."""
    if isinstance(snapshot, list):
        return snapshot
    if len(snapshot) > LIMIT:
        return too_large(len(snapshot))
    return forms_of(marshal.loads(snapshot))


def read_outcome(outcome: bytes | list[Form]) -> list[Form]:
    """Return the form of a result, in a list."""
    if isinstance(outcome, list):
        return outcome[:1]
    return too_large(len(outcome)) if len(outcome) > LIMIT else forms_of([_unpack(outcome)])


def outcomes_of(value: object) -> list[list[Form]]:
    """Return the forms that a recorded result may have, if it was this one."""
    found = [forms_of([value])]
    with contextlib.suppress(Exception):  # what cannot be packed has no second form
        found.append(read_outcome(_pack(value)))
    return found


class _Writer:
    """Writes one value; what it has written counts against `_MOST`."""

    def __init__(self) -> None:
        self._left = _MOST

    def form(self, value: object, depth: int = _DEPTH) -> Form:
        self._left -= 1
        kind = type(value)
        if kind in (str, bytes) and len(value) > LIMIT:  # type: ignore[arg-type]
            return {_OPAQUE: f"a {kind.__name__} of {len(value)} characters"}  # type: ignore[arg-type]
        if not depth or self._left < 0:
            return {_OPAQUE: "nested too deeply" if not depth else "too large"}
        if kind is list:
            return [self.form(item, depth - 1) for item in value]  # type: ignore[attr-defined]
        if kind is dict:
            return self._mapping(value, depth - 1)  # type: ignore[arg-type]
        if kind in (tuple, set, frozenset):
            inner = [self.form(item, depth - 1) for item in value]  # type: ignore[attr-defined]
            if kind is not tuple:
                inner.sort(key=repr)  # the same in every process
            return {f"${kind.__name__}": inner}
        try:
            return to_json(value, 1)
        except (TypeError, RecursionError, ValueError):
            return self._object(value, depth - 1)

    def _mapping(self, value: Mapping[object, object], depth: int) -> Form:
        items = list(value.items())
        if all(type(key) is str and key[:1] != "$" for key, _ in items):
            return {key: self.form(item, depth) for key, item in items}
        return {"$dict": [[self.form(key, depth), self.form(item, depth)] for key, item in items]}

    def _object(self, value: object, depth: int) -> Form:
        kind = type(value)
        names: list[str] | None = None
        if isinstance(value, msgspec.Struct):
            names = list(value.__struct_fields__)
        elif dataclasses.is_dataclass(value):
            names = [field.name for field in dataclasses.fields(value) if field.init]
        if names is not None and not kind.__module__.startswith(_HOUSE):
            fields = {name: self.form(getattr(value, name, None), depth) for name in names}
            return {_STRUCT: [kind.__module__, kind.__qualname__, fields]}
        if kind.__module__.startswith(_HOUSE):
            return {_OPAQUE: f"<{kind.__qualname__}>"}  # a request may hold what a client sent
        try:
            shown = masked_text(repr(value))
        except Exception as error:
            shown = f"<{kind.__qualname__}, whose repr raises {type(error).__name__}>"
        return {_OPAQUE: shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"}


def mask(form: Form, name: object = None) -> Form:
    """Return a form without what shows to be secret."""
    if sounds_secret(name):
        return None if form is None else MASK
    if isinstance(form, str):
        return masked_text(form)
    if isinstance(form, list):
        return [mask(item) for item in form]
    if not isinstance(form, dict):
        return form
    pairs = form.get("$dict")
    if isinstance(pairs, list) and len(form) == 1:
        return {"$dict": [[mask(key), mask(item, key)] for key, item in pairs]}
    return {key: mask(item, key) for key, item in form.items()}


def value_of(form: Form, find: Callable[[str, str], object] | None = None) -> Any:
    """Return the value of a form.

    Args:
        form: The form.
        find: Returns the class of a module and a qualified name, or `None`.

    Raises:
        Unreplayable: A part of it was not recorded, or its class is not known.
    """
    if form == MASK:
        raise Unreplayable("a secret was masked")
    if isinstance(form, list):
        return [value_of(item, find) for item in form]
    if not isinstance(form, dict):
        return form
    if len(form) == 1:
        (tag, content), = form.items()  # fmt: skip
        if tag == _OPAQUE:
            raise Unreplayable(f"{content} was not recorded as a value")
        if tag == _STRUCT:
            return _struct(content, find)
        if tag == "$dict":
            return {value_of(key, find): value_of(item, find) for key, item in content}
        if tag in _CONTAINERS:
            return _CONTAINERS[tag](value_of(item, find) for item in content)
        if tag[:1] == "$":
            try:
                return from_json(form)
            except ValueError as error:
                raise Unreplayable(str(error)) from error
    return {key: value_of(item, find) for key, item in form.items()}


_CONTAINERS: Final[dict[str, Callable[[Any], Any]]] = {
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
}


def recorded_value(form: Form, manager: Any) -> Any:
    """Return the value of a form, for a test that was made of a recording.

    Args:
        form: The form.
        manager: The manager, among whose plugins the classes of recorded objects are.

    Raises:
        Unreplayable: A part of it was not recorded, or its class is not known.
    """
    return value_of(form, lambda module, name: find_class(manager, module, name))


def find_class(manager: Any, module: str, name: str) -> object:
    """Return the class of a recorded object, of a loaded plugin or of an imported module.

    Args:
        manager: The manager.
        module: The module that the class was in; a plugin's has another name in each generation.
        name: Its qualified name.
    """
    records = [manager.get_plugin(info.name) for info in manager.list_plugins()]
    for holder in (*(record.module for record in records if record), sys.modules.get(module)):
        found: Any = holder
        for part in name.split("."):
            found = getattr(found, part, None)
        if isinstance(found, type):
            return found
    return None


def _struct(content: Any, find: Callable[[str, str], object] | None) -> object:
    try:
        module, name, fields = content
        made = None if find is None else find(module, name)
        if not isinstance(made, type):
            raise Unreplayable(f"the class {name} of {module} is not known here")
        return made(**{key: value_of(item, find) for key, item in fields.items()})
    except (TypeError, ValueError, AttributeError) as error:
        raise Unreplayable(f"a recorded object cannot be made again: {error}") from error
