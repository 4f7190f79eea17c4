"""The core plugin `transpile`: sources of other languages become Python, each by its suffix.

A plugin adds a transpiler with `context.add_transpiler(".coco", to_python)`. From then on files of
that suffix are plugins too, and modules of plugin folders. Each transpiler is a hook on
`source:transpile`; it may turn its language into another one, which the next transpiler takes.

What runs keeps running without its transpiler, which only imports need. When a transpiler goes
live in another version, the plugins that the former one made are reloaded.

Cost: nothing for Python; a source that was transpiled before costs what cached Python does. It is
found by its content and that of the transpiler's plugin, never by time.
Promise: nothing is written but the bytecode cache. Errors and tracebacks show the source's own
lines. A transpiler that fails is a failure of its plugin, a source that is wrong one of its own.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import msgspec

from veko import ConflictError, Event, LoadError, Plugin, Subscription, VekoError
from veko.extend import check_callable

from .._lib.calls import call
from .._source.bytecode import SourceCache
from .._source.loading import Loading
from .._source.transpilers import PYTHON, Python

if TYPE_CHECKING:
    from veko import Context

__all__ = ["TRANSPILE", "Code", "Python", "Transpile", "TranspileFunction", "Transpiler"]


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """A source on its way to Python: what the handlers of `source:transpile` get and return.

    Attributes:
        path: The file that the source was read from.
        suffix: The suffix of the language that `text` is in; `.py` at the end.
        text: The code.
        lines: For each line of `text`, the line of the source that it comes from, counted from 1.
            `None` if line n comes from line n.
    """

    path: Path
    suffix: str
    text: str
    lines: Sequence[int] | None = None


TRANSPILE: Final = Event(
    "source:transpile",
    payload=Code,
    returns=True,
    stops=SyntaxError | LoadError,
    doc="A source in another language is to become Python. Argument: the `Code`. A handler returns "
    "it in another language, or `None`. A `SyntaxError` that it raises is one of the source, with "
    "its line. Emitted only for sources that are not cached.",
)
_LONGEST_CHAIN: Final = 10
"""Transpilers that a source may go through; more is a circle."""

TranspileFunction = Callable[[str, Path], str | Python | Awaitable[str | Python]]
"""Gets the text of a source and its path; returns Python, or what `to` names."""


class Transpiler:
    """A handler of `source:transpile` that takes one suffix.

    Attributes:
        suffix: What the names of its files end with.
        to: The suffix of what it makes.
        plugin: The name of its plugin.
        identity: The digest of what it is made of; `None` if that is not known.
    """

    def __init__(
        self,
        context: Context,
        suffix: str,
        to: str,
        fn: TranspileFunction,
        identity: bytes | None,
        timeout: float | None,
    ) -> None:
        self.suffix = suffix
        self.to = to
        self.plugin = context.name
        self.identity = identity
        self._context = context
        self._fn = fn
        self._timeout = timeout
        self.__name__ = self.__qualname__ = f"add_transpiler({suffix!r})"

    async def __call__(self, code: Code) -> Code | None:
        """Return the code in the other language; `None` if it is in none that this one takes."""
        if code.suffix != self.suffix:
            return None
        try:
            with anyio.fail_after(self._timeout):
                made = await call(self._fn, code.text, code.path)
            if isinstance(made, str):
                made = Python(made)
            if not isinstance(made, Python):
                raise TypeError(f"it returned {type(made).__name__}, not a str or a Python")
        except SyntaxError as error:
            line = (error.lineno or 1) if code.lines is None else _at(code.lines, error.lineno or 1)
            wrong = SyntaxError(error.msg, (str(code.path), line, None, None))
            raise wrong.with_traceback(error.__traceback__) from error
        except Exception as error:
            raise await self._failed(code.path, error) from error
        lines = made.lines if made.lines is not None or code.lines is None else code.lines
        if made.lines is not None and code.lines is not None:
            lines = [_at(code.lines, line) for line in made.lines]
        return Code(path=code.path, suffix=self.to, text=made.text, lines=lines)

    async def _failed(self, path: Path, error: Exception) -> LoadError:
        """Report a failure of the transpiler, and return what it means for the source."""
        if isinstance(error, TimeoutError) and not str(error):
            error = TimeoutError(f"it took longer than {self._timeout:g} s")
        bus, record = self._context.kernel.bus, self._context.plugin
        owner = record.current or record
        name = TRANSPILE.name
        await bus.report(error, owner=owner, event=name, handler=self.__name__, subject=path)
        return LoadError(
            f"the transpiler of {self.plugin} for {self.suffix} failed: "
            f"{type(error).__name__}: {error}",
            step="transpile",
            path=path,
            remedy=f"Fix {self.plugin}, or what it says about the source.",
        )


def _at(lines: Sequence[int], number: int) -> int:
    return Python("", lines).line(number)


class Transpile(Plugin):
    """The service `transpile`; see `_source.transpilers.Transpilers`.

    Args:
        cache: The cache that asks it.
    """

    name = "transpile"
    version = "2.0.0"
    description = "Turns sources of other languages into Python"
    core = True

    _context: Context

    def __init__(self, cache: SourceCache) -> None:
        self._cache = cache
        self._former: dict[str, str] = {}  # suffixes that there were, with the plugins' names
        self._follows = False
        self._made: dict[str, bytes | None] = {}  # by path: the identity of what transpiled it
        self._seen: tuple[int, dict[str, Transpiler]] = (-1, {})  # of one version of the registry

    def load(self, context: Context) -> None:
        """Attach `context.add_transpiler`, and follow which transpilers there are."""
        self._context = context
        context.declare(TRANSPILE)
        context.attach("add_transpiler", self._adder)
        context.provide("transpile", self)
        self._cache.transpilers = self

    def unload(self) -> None:
        """Leave only Python."""
        self._cache.transpilers = None

    # -- what there is

    def suffixes(self) -> frozenset[str]:
        """Return the suffixes that transpilers take now."""
        return frozenset(self._live())

    def _live(self) -> dict[str, Transpiler]:
        """Return the transpilers that are live, by suffix."""
        registry = self._context.kernel.bus.live.registry
        if self._seen[0] != registry.version:
            hooks = [entry.value.handler for entry in registry.hooks(TRANSPILE.name)]
            found = [one for one in hooks if isinstance(one, Transpiler)]
            self._former |= {one.suffix: one.plugin for one in found}
            self._seen = registry.version, {one.suffix: one for one in reversed(found)}
        return self._seen[1]

    def suffix_of(self, name: str) -> str | None:
        """Return the longest of these suffixes that a file's name ends with."""
        return _longest(self.suffixes(), name)

    def missing(self, name: str) -> str | None:
        """Return why a file that could be transpiled before cannot be now."""
        suffix = _longest(self._former.keys() - self.suffixes(), name)
        if suffix is None:
            return None
        if name in self._made:
            self._made[name] = b""  # so it is reloaded when there is a transpiler again
        plugin = self._former[suffix]
        return f"{plugin}, which turned {suffix} into Python, is not active: load it or turn it on."

    def identity(self, path: str) -> bytes | None:
        """Return the digest of the transpilers that a file goes through; `None` if unknown."""
        found = b""
        for one in self._chain(self.suffix_of(path)):
            if one.identity is None:
                return None
            found += one.identity
        return hashlib.blake2b(found, digest_size=16).digest() if found else None

    def _chain(self, suffix: str | None) -> list[Transpiler]:
        live, chain = self._live(), list[Transpiler]()
        while suffix in live and len(chain) < _LONGEST_CHAIN:
            chain.append(live[suffix])
            suffix = chain[-1].to
        return chain

    def used(self, path: str) -> None:
        """Note that a file is imported as the transpilers of now make it."""
        self._made[path] = self.identity(path)

    # -- transpiling

    async def transpile(self, path: str, source: bytes) -> Python:
        """Turn a source into Python; see `Transpilers.transpile`."""
        try:
            text = source.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = source.count(b"\n", 0, error.start) + 1
            raise SyntaxError(f"the file is not UTF-8: {error}", (path, line, None, None)) from None
        code = Code(path=Path(path), suffix=self.suffix_of(path) or "", text=text)
        for _ in range(_LONGEST_CHAIN):
            before = code.suffix
            code = await self._context.kernel.bus.emit(TRANSPILE, code)
            if code.suffix == PYTHON:
                return Python(code.text, code.lines)
            if code.suffix == before:
                break
        raise LoadError(
            f"nothing turned {code.suffix or Path(path).suffix} into Python",
            step="transpile",
            path=path,
            remedy="Load a plugin that transpiles it: context.add_transpiler(suffix, fn).",
        )

    def _adder(self, context: Context) -> Callable[..., Subscription]:
        return functools.partial(self._add, context)

    def _add(
        self,
        context: Context,
        suffix: str,
        fn: TranspileFunction,
        *,
        to: str = PYTHON,
        version: str = "",
        timeout: float | None = 30.0,
    ) -> Subscription:
        """Add a transpiler (staged).

        Args:
            suffix: What the names of its files end with; several dots are fine (`.py.md`).
            fn: Gets the text and the path of a source, returns Python: as text in which each line
                stands where it stood in the source, or as a `Python` that maps its lines. `def` or
                `async def`. For a source that is wrong it raises `SyntaxError` with the line.
            to: The suffix of what it returns, if that goes through another transpiler.
            version: What else it depends on beside its plugin's files: the version of a library.
                Another version transpiles everything again.
            timeout: Seconds that it may take for one source; `None` for no limit.

        Returns:
            Its subscription to `source:transpile`; cancelling it removes the transpiler.

        Raises:
            VekoError: An argument is not valid.
        """
        for value in (suffix, to):
            if not _is_suffix(value):
                raise VekoError(
                    f"{value!r} is not a suffix of files",
                    plugin=context.name,
                    remedy="It begins with a dot and has no separators: '.coco', '.py.md'.",
                )
        if suffix in (PYTHON, to):
            raise VekoError(
                f"{suffix!r} needs no transpiler",
                plugin=context.name,
                remedy="Take a suffix of its own for each language, such as '.coco'.",
            )
        check_callable("fn", fn)
        other = self._live().get(suffix)
        if other is not None and other.plugin != context.name:
            raise ConflictError(
                f"{other.plugin} transpiles {suffix} already",
                plugin=context.name,
                remedy="Unload it, or take another suffix.",
            )
        if not self._follows:  # every plugin that loads would pay for these hooks
            self._follows = True
            self._context.hook("plugin:loaded", self._changed)
            self._context.hook("plugin:activated", self._changed)
        identity = self._identity(fn, version)
        transpiler = Transpiler(context, suffix, to, fn, identity, timeout)
        return context.hook(TRANSPILE.name, transpiler, timeout=None)

    def _identity(self, fn: Callable[..., object], version: str) -> bytes | None:
        """Return the digest of a version, and of the files of the plugin that a function is in."""
        inner: object = fn
        while isinstance(inner, functools.partial):
            inner = inner.func
        name = getattr(inner, "__module__", None) or type(inner).__module__
        loader = self._context.kernel.use("loader")
        sources: Mapping[str, bytes] = loader.sources_of(sys.modules.get(name))
        if not sources and not version:
            return None
        digest = hashlib.blake2b(version.encode(), digest_size=16)
        for _, source in sorted(sources.items()):
            digest.update(b"%d\0%b" % (len(source), source))
        return digest.digest()

    # -- what was made by another version

    def _changed(self, name: str) -> None:
        """Reload what the former version of a plugin's transpilers made."""
        if not self._made:  # each plugin that loads comes by here
            return
        suffixes = {one.suffix for one in self._live().values() if one.plugin == name}
        if suffixes and self._stale():
            self._context.spawn(self._reload_stale)

    def _stale(self) -> list[str]:
        """Return the plugins that their transpilers would make otherwise now."""
        loading: Loading = self._context.kernel.use("loading")
        stale: dict[str, None] = {}
        for path, made in self._made.items():
            if self.suffix_of(path) is not None and (made is None or self.identity(path) != made):
                for location, name in loading.locations().items():
                    if Path(path) == location or location in Path(path).parents:
                        stale[name] = None
        return list(stale)

    async def _reload_stale(self) -> None:
        loading: Loading = self._context.kernel.use("loading")
        for name in self._stale():
            if name in self._stale():  # else it was reloaded with one before it
                try:
                    await loading.reload_plugin(name, drained=False)
                except Exception as error:  # why was reported by the reload
                    self._context.log("warning", f"{name} keeps running as it was: {error}")


def _longest(suffixes: Iterable[str], name: str) -> str | None:
    return max((one for one in suffixes if name.endswith(one)), key=len, default=None)


def _is_suffix(value: object) -> bool:
    return (
        isinstance(value, str)
        and len(value) > 1
        and value.startswith(".")
        and not any(one in value for one in "/\\\0 ")
    )
