"""A function's signature, read as a command line.

A function such as `def backup(target: Path, *, keep: int = 3, dry_run: bool = False)` already
describes its command line. Parameters without a default are required arguments, those with one are
options, `bool` options are flags, lists may be repeated, the docstring is the help and its `Args:`
section the help of each option. This file keeps all of it as plain data; `commandline` makes a
click command of it.

Cost: a signature is read when its command line is parsed, never when it is called from Python.
Promise: a parameter that no text can give is reported by name.
"""

from __future__ import annotations

import enum
import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin
from uuid import UUID

import msgspec

from veko import VekoError

COLLECTIONS: dict[object, Callable[[Iterable[object]], Collection[object]]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    Sequence: list,
    Iterable: list,
    Collection: list,
}
_PLAIN: tuple[type, ...] = (str, int, float, bool, Path)
_PARSED: tuple[type, ...] = (datetime, date, time, timedelta, Decimal, UUID)
_KNOWN = (
    "str, int, float, bool, Path, an Enum, a Literal, a date or time, Decimal, UUID, "
    "or a list of one of them"
)

EMPTY = inspect.Parameter.empty


class UsageError(VekoError):
    """A command got arguments that it does not accept; the remedy shows its usage."""


class Argument(msgspec.Struct, frozen=True):
    """One parameter of a command.

    Attributes:
        name: Its name in the signature.
        kind: Its kind in the signature.
        form: How the command line gives it: an `argument` by position, an `option` by name, or
            `hidden` if no text can give it, so that its default is used.
        type: The annotation of one value.
        default: The function's own default, or `EMPTY`.
        many: The collection type for several values, or `None`.
        help: Its description in the docstring or the annotation.
    """

    name: str
    kind: inspect._ParameterKind
    form: Literal["argument", "option", "hidden"]
    type: object = str
    default: object = EMPTY
    many: object = None
    help: str = ""

    @property
    def required(self) -> bool:
        return self.default is EMPTY and self.kind is not inspect.Parameter.VAR_POSITIONAL


class Usage(msgspec.Struct, frozen=True):
    """A function's command line.

    Attributes:
        arguments: The arguments, in the order of the signature.
        help: The docstring without its sections.
    """

    arguments: tuple[Argument, ...]
    help: str


def read(fn: Callable[..., object]) -> Usage:
    """Read a function's signature and docstring.

    Raises:
        UsageError: No text converts to the annotation of a parameter that has no default.
    """
    text, notes = _docstring(fn)
    found: list[Argument] = []
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        variadic = any(argument.form == "argument" and argument.many for argument in found)
        found.append(_argument(parameter, _resolve(parameter.annotation, fn), notes, variadic))
    return Usage(tuple(found), text)


def _argument(
    parameter: inspect.Parameter, annotation: object, notes: dict[str, str], variadic: bool
) -> Argument:
    name, default, kind = parameter.name, parameter.default, parameter.kind
    if annotation is EMPTY:
        annotation = str if default is EMPTY or default is None else type(default)
    single, many, note = _unwrap(annotation)
    if kind is inspect.Parameter.VAR_POSITIONAL:
        many = tuple
    if not _readable(single):
        if default is EMPTY:
            raise UsageError(
                f"parameter {name!r} needs {label(annotation)}, which no text converts to",
                remedy=f"Annotate it with {_KNOWN}, or give it a default.",
            )
        return Argument(name, kind, "hidden", default=default)
    by_position = default is EMPTY and kind is not inspect.Parameter.KEYWORD_ONLY
    return Argument(
        name,
        kind,
        "argument" if by_position and not (many and variadic) else "option",
        single,
        default,
        many,
        notes.get(name, note),
    )


def _resolve(annotation: object, fn: Callable[..., object]) -> object:
    """Return the annotation itself where `from __future__ import annotations` left its text.

    Each is evaluated alone, not through `get_type_hints`, which fails for all parameters if one
    names what is imported for type checkers only.
    """
    if not isinstance(annotation, str):
        return annotation
    inner = inspect.unwrap(fn)
    scope: dict[str, object] = dict(getattr(inner, "__globals__", {}))
    code = getattr(inner, "__code__", None)
    cells = getattr(inner, "__closure__", None) or ()
    for name, cell in zip(getattr(code, "co_freevars", ()), cells, strict=True):
        try:
            scope[name] = cell.cell_contents
        except ValueError:
            continue
    try:
        return eval(annotation, scope)
    except Exception:
        return annotation


def _unwrap(annotation: object) -> tuple[object, object, str]:
    """Return the type of one value, the collection for several or `None`, and a description."""
    note = ""
    if get_origin(annotation) is Annotated:
        note = _note(annotation)
        inner = get_args(annotation)[0]
        if _is_union(inner) or get_origin(inner) in COLLECTIONS:
            single, many, _ = _unwrap(inner)
            return single, many, note
        return annotation, None, note
    if _is_union(annotation):
        options = [option for option in get_args(annotation) if option is not type(None)]
        return _unwrap(options[0]) if len(options) == 1 else (annotation, None, note)
    origin = get_origin(annotation)
    if origin in COLLECTIONS:
        single, many, note = _unwrap((get_args(annotation) or (str,))[0])
        return (object if many else single), origin, note
    if isinstance(annotation, type) and annotation in COLLECTIONS:
        return str, annotation, note
    return annotation, None, note


def _note(annotation: object) -> str:
    for extra in get_args(annotation)[1:]:
        if isinstance(extra, msgspec.Meta) and extra.description:
            return extra.description
        if isinstance(extra, str):
            return extra
    return ""


def _readable(annotation: object) -> bool:
    if get_origin(annotation) is Annotated:
        return _readable(get_args(annotation)[0])
    if _is_union(annotation):
        return all(option in (int, float, str, type(None)) for option in get_args(annotation))
    if get_origin(annotation) is Literal:
        return True
    return isinstance(annotation, type) and (
        annotation in _PLAIN or annotation in _PARSED or issubclass(annotation, enum.Enum)
    )


def _is_union(annotation: object) -> bool:
    return get_origin(annotation) in (typing.Union, types.UnionType)


def label(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _docstring(fn: Callable[..., object]) -> tuple[str, dict[str, str]]:
    """Return the prose of a Google-style docstring, and what its `Args:` say of each parameter."""
    prose: list[str] = []
    notes: dict[str, str] = {}
    section, current = "", ""
    while isinstance(fn, functools.partial):
        fn = fn.func
    documented = fn if inspect.isroutine(fn) else type(fn).__call__
    for line in (inspect.getdoc(documented) or "").splitlines():
        if line.strip() in (
            "Args:",
            "Arguments:",
            "Returns:",
            "Raises:",
            "Yields:",
            "Example:",
            "Examples:",
        ):
            section = line.strip()
        elif section and line and not line[0].isspace():
            section = ""
        if not section:
            prose.append(line)
        elif section in ("Args:", "Arguments:") and line.strip() != section:
            head, colon, rest = line.strip().partition(":")
            if colon and len(line) - len(line.lstrip()) <= 4:
                current = head.split("(")[0].strip().lstrip("*")
                notes[current] = rest.strip()
            elif current:
                notes[current] = f"{notes[current]} {line.strip()}".strip()
    return "\n".join(prose).strip(), notes
