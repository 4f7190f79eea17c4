"""The outline of a plugin, read from the syntax tree of its module without running it.

A field is known if each assignment to it is a literal and stands at the top of the module, or in
the body of the module's only `Plugin` subclass, or if it is an argument of the one assignment
`plugin = Plugin("name", "1.0.0", …)`. A field that is bound in another way (under an
`if`, by an import, computed) makes the whole outline `None`; then the plugin has to be imported.

Cost: one walk over the top-level statements.
Promise: the fields are those that `as_plugin` would find; in doubt there is no outline.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from veko import Manifest

from .source import Outline

__all__ = ["FIELDS", "bound_names", "make_outline", "outline_fields"]

FIELDS: Final = {field.name: field for field in msgspec.structs.fields(Manifest)}
# Whether these are bound decides which form the plugin has; see `loader.plugin_of`.
_FORMS: Final = frozenset({"plugin", "load", "__getattr__"})


class _Order(msgspec.Struct):
    name: str
    version: str
    dependencies: tuple[str, ...] = ()
    priority: float = 10


_ORDER: Final = _Order.__struct_fields__


def outline_fields(tree: ast.Module) -> dict[str, object] | None:
    """Return the manifest fields that a module spells out; `None` if they are not certain."""
    fields: dict[str, object] = {}
    bodies: list[ast.ClassDef] = []
    bases: set[str] = set()
    has_load = False
    if any(_reaches_out(node) for node in ast.walk(tree)):
        return None
    if any(_makes_plugin(statement) for statement in tree.body):
        return _declared_fields(tree)
    for statement in tree.body:
        if not _take(statement, fields):
            return None
        match statement:
            case ast.FunctionDef(name="load") | ast.AsyncFunctionDef(name="load"):
                has_load = True
            case ast.ImportFrom():
                bases |= _plugin_names(statement)
            case ast.ClassDef(bases=[ast.Name(id=base)]) if base in bases:
                bodies.append(statement)
            case ast.ClassDef(bases=[ast.Attribute(value=ast.Name(id="veko"), attr="Plugin")]):
                bodies.append(statement)
    if has_load or not bodies:
        return fields
    return _class_fields(bodies[0]) if len(bodies) == 1 and not fields else None


def _plugin_names(statement: ast.stmt) -> set[str]:
    """Return the names under which a statement imports `Plugin`."""
    match statement:
        case ast.ImportFrom(module="veko" | "veko_plugins", names=names, level=0):
            return {alias.asname or alias.name for alias in names if alias.name == "Plugin"}
    return set()


def _makes_plugin(statement: ast.stmt) -> bool:
    match statement:
        case ast.Assign(targets=[ast.Name(id="plugin")], value=ast.Call()):
            return True
    return False


def _declared_fields(tree: ast.Module) -> dict[str, object] | None:
    """Return the arguments of `plugin = Plugin("name", "1.0.0", …)`, if that is what it is."""
    names: set[str] = set()
    fields: dict[str, object] | None = None
    for statement in tree.body:
        names |= _plugin_names(statement)
        match statement:
            case ast.Assign(
                targets=[ast.Name(id="plugin")],
                value=ast.Call(func=ast.Name(id=made), args=args, keywords=keywords),
            ) if made in names and fields is None and len(args) <= 2:
                fields = {}
                given = [*zip(("name", "version"), args, strict=False)]
                for name, value in (*given, *((one.arg, one.value) for one in keywords)):
                    if name is None or not _take(ast.Assign([ast.Name(name)], value), fields):
                        return None
            case _ if "plugin" in bound_names(statement):
                return None
    changed = (
        isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store | ast.Del)
        and node.attr in FIELDS
        for node in ast.walk(tree)
    )
    return None if fields is None or any(changed) else fields


def _class_fields(body: ast.ClassDef) -> dict[str, object] | None:
    fields: dict[str, object] = {}
    if body.decorator_list or body.keywords:
        return None
    for statement in body.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return None  # it may set fields on the instance
        if not _take(statement, fields):
            return None
    return fields


def _reaches_out(node: ast.AST) -> bool:
    """Return whether a node deep in an expression or function binds a field of the module."""
    match node:
        case ast.Global(names=names):
            return not FIELDS.keys().isdisjoint(names)
        case ast.NamedExpr(target=ast.Name(id=name)):
            return name in FIELDS
    return False


def _take(statement: ast.stmt, fields: dict[str, object]) -> bool:
    """Add the fields of one statement; returns false if it binds one to no literal."""
    value: ast.expr | None
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            pass
        case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)) if (
            len(targets) == len(values)  # name, version = "shop", "1.0.0"
            and all(isinstance(target, ast.Name) for target in targets)
            and not any(isinstance(one, ast.Starred) for one in values)
        ):
            pairs = zip(targets, values, strict=True)
            return all(_take(ast.Assign([target], one), fields) for target, one in pairs)
        case ast.AnnAssign(target=ast.Name(id=name), value=value):
            if value is None:
                return True
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name not in FIELDS and name not in {"plugin", "__getattr__"}
        case _:
            return not any(
                name in FIELDS or name in _FORMS or name == "*" for name in bound_names(statement)
            )
    if name in _FORMS:
        return False
    if name in FIELDS:
        try:
            fields[name] = ast.literal_eval(value)
        except (ValueError, TypeError, MemoryError, RecursionError):
            if name in _ORDER:
                return False
            # For example, a type as config_schema; the order of plugins does not need it.
            fields.pop(name, None)
    return True


def bound_names(statement: ast.stmt) -> Iterator[str]:
    """Yield all names that a statement may bind or unbind, and perhaps some that it does not."""
    for node in ast.walk(statement):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.alias(name=name, asname=other):
                yield other or name.partition(".")[0]
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name):
                yield name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name
            case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield name


def make_outline(fields: Mapping[str, object] | None, more: Mapping[str, object]) -> Outline | None:
    """Make an outline of the fields in a source and in `plugin.toml`.

    Args:
        fields: The fields of the source; `None` if they are not certain.
        more: The fields of `plugin.toml`, for those that the source leaves out.

    Returns:
        `None` if the fields are not certain, or one that orders plugins has the wrong type; then
        importing the plugin raises the error that explains it.
    """
    if fields is None:
        return None
    found = {**more, **{key: value for key, value in fields.items() if value is not None}}
    try:
        order = msgspec.convert(found, _Order)
    except msgspec.ValidationError:
        return None
    return Outline(
        name=order.name,
        version=order.version,
        dependencies=order.dependencies,
        priority=order.priority,
        fields=found,
    )
