"""The importer: each generation of a plugin is a module with a name of its own.

`shop.py` becomes `veko_generation.shop_1`, after an edit `veko_generation.shop_2`. Both live side
by side, and `dispose` removes all of one, so that it can be garbage-collected. The submodules of a
package folder are imported below its name. Relative imports work as usual, and `import shop.models`
inside the folder `shop` imports from the same generation too, unless there is an importable `shop`
outside.

Cost: one finder in `sys.meta_path` while packages are loaded (a prefix test for every import that
is new to Python); a package that imports itself by name gets a copy of the builtins (some 10 KiB)
whose `__import__` knows the generation.
Promise: an import that fails leaves nothing in `sys.modules`; no `.pyc` file is read or written;
tracebacks name the original file. Late imports of a generation run the sources as they were when it
was imported, since it keeps them.
"""

from __future__ import annotations

import builtins
import itertools
import linecache
import os
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

from veko import LoadError

from .._source.bytecode import Compiled, SourceCache
from .._source.import_errors import declared_peers, explain
from .foreign import Foreign

__all__ = ["ROOT", "Importer", "ModuleGeneration", "sources_of"]

ROOT: Final = "veko_generation"
_numbers: dict[str, itertools.count[int]] = {}


class ModuleGeneration:
    """One import of a plugin's file or folder.

    Attributes:
        name: The plugin it was imported as.
        number: From 1, counted by name in this process.
        path: The file, or the folder of a package.
        module: The module; `None` after `dispose`.
        sources: Its source files by path, as they were when it was imported; late imports run
            them, even if the files have changed.
        transpiled: What its sources in other languages were compiled to, or why they were not, by
            path.
        foreign: Their paths, by the path that each would have without its suffix.
    """

    __slots__ = ("__weakref__", "_builtins", "_own", "foreign", "importer", "is_package", "module",
                 "name", "number", "path", "root", "sources", "transpiled")  # fmt: skip

    def __init__(
        self,
        importer: Importer,
        name: str,
        path: Path,
        is_package: bool,
        sources: Mapping[str, bytes] | None = None,
    ) -> None:
        base = name if name.isidentifier() else re.sub(r"\W", "_", name)
        self.importer = importer
        self.name = name
        self.number = next(_numbers.setdefault(base, itertools.count(1)))
        self.path = path
        self.root = f"{ROOT}.{base}_{self.number}"
        self.is_package = is_package
        self.module: ModuleType | None = None
        self.sources = dict(sources or {})
        self.transpiled: Mapping[str, Compiled | Exception] = {}
        self.foreign: Mapping[str, str] = {}
        self._builtins: dict[str, Any] | None = None
        self._own: re.Pattern[bytes] | None = None
        if is_package and path.name.isidentifier():
            pattern = rf"^[ \t]*(?:from|import)\b[^\n#]*\b{re.escape(path.name)}\b"
            self._own = re.compile(pattern.encode(), re.MULTILINE)

    def modules(self) -> list[str]:
        """Return the names of its modules that are in `sys.modules`."""
        inside = f"{self.root}."
        return [name for name in list(sys.modules) if name == self.root or name.startswith(inside)]

    def __repr__(self) -> str:
        return f"<generation {self.number} of {self.name} from {self.path}>"

    def compile(self, path: str) -> Compiled:
        """Compile a file as it was when the generation was imported, or else as it is now."""
        ready = self.transpiled.get(path)
        if isinstance(ready, Exception):
            raise ready
        compiled = ready or self.importer.cache.compile(path, self.sources.get(path))
        self.sources[path] = compiled.source
        return compiled

    def execute(self, module: ModuleType, path: str) -> None:
        """Compile a file and run it in a module."""
        compiled = self.compile(path)
        if self._own is not None and self._own.search(compiled.source):
            if self._builtins is None and not self._exists_outside():
                self._builtins = _self_importing(self.path.name, self.root)
            if self._builtins is not None:
                module.__dict__["__builtins__"] = self._builtins
        exec(compiled.get_code(), module.__dict__)

    def _exists_outside(self) -> bool:
        top = self.path.name
        try:
            spec = find_spec(top)
        except (ImportError, ValueError):
            return top in sys.modules
        paths = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
        own = os.path.realpath(self.path)
        real = [os.path.realpath(path) for path in paths if path is not None]
        return any(path != own and not path.startswith(own + os.sep) for path in real)


def _self_importing(top: str, root: str) -> dict[str, Any]:
    """Return builtins whose `__import__` maps the package's own name to the generation."""
    real = builtins.__import__
    inside = f"{top}."

    def import_(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level or not (name == top or name.startswith(inside)):
            return real(name, globals, locals, fromlist or (), level)
        module = real(root + name[len(top) :], globals, locals, fromlist or (), 0)
        return module if fromlist else sys.modules[root]

    return {**vars(builtins), "__import__": import_}


class _Loader(SourceFileLoader):
    """Runs one source file of a generation; resources are read as from any file."""

    def __init__(self, fullname: str, path: str, generation: ModuleGeneration) -> None:
        super().__init__(fullname, path)
        self.generation = generation

    def get_code(self, fullname: str) -> CodeType:
        return self.generation.compile(self.get_filename(fullname)).get_code()

    def get_data(self, path: str) -> bytes:
        held = self.generation.sources.get(path)
        return super().get_data(path) if held is None else held

    def exec_module(self, module: ModuleType) -> None:
        self.generation.execute(module, self.get_filename(module.__name__))


class _Finder:
    """Finds the submodules of package folders; one for the process, installed while needed."""

    def __init__(self) -> None:
        self.packages: dict[str, ModuleGeneration] = {}

    def add(self, generation: ModuleGeneration) -> None:
        self.packages[generation.root] = generation
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def remove(self, generation: ModuleGeneration) -> None:
        self.packages.pop(generation.root, None)
        if not self.packages and self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(ROOT) or path is None:
            return None
        parts = fullname.split(".")
        generation = self.packages.get(".".join(parts[:2]))
        if generation is None or len(parts) < 3:
            return None
        for folder in path:
            stem = os.path.join(folder, parts[-1])  # noqa: PTH118
            for file, home in ((f"{stem}{os.sep}__init__.py", stem), (f"{stem}.py", None)):
                held = file in generation.sources
                if held or os.path.isfile(file):  # noqa: PTH113
                    if not held:
                        generation.importer.check_inside(generation, file)
                    return _spec(fullname, file, _Loader(fullname, file, generation), home)
            if stem in generation.foreign:
                file = generation.foreign[stem]
                return _spec(fullname, file, _Loader(fullname, file, generation), None)
            if os.path.isdir(stem):  # noqa: PTH112
                namespace = ModuleSpec(fullname, None, is_package=True)
                namespace.submodule_search_locations = [stem]
                return namespace
        return None


_finder: Final = _Finder()


def sources_of(module: object) -> Mapping[str, bytes]:
    """Return the source files of the generation that a module is part of; none for others."""
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    return loader.generation.sources if isinstance(loader, _Loader) else {}


def _spec(name: str, file: str, loader: _Loader, folder: str | None) -> ModuleSpec:
    spec = ModuleSpec(name, loader, origin=file, is_package=folder is not None)
    spec.has_location = True
    if folder is not None:
        spec.submodule_search_locations = [folder]
    return spec


class Importer:
    """Imports generations and disposes of them.

    Args:
        cache: Compiles sources.
        allow_symlinks: Whether a package may hold links to sources outside it.
    """

    def __init__(self, cache: SourceCache | None = None, *, allow_symlinks: bool = False) -> None:
        self.cache = cache or SourceCache()
        self.allow_symlinks = allow_symlinks

    def load(
        self,
        name: str,
        path: Path,
        *,
        is_package: bool,
        sources: Mapping[str, bytes] | None = None,
        fields: Mapping[str, object] | None = None,
        foreign: Foreign | None = None,
    ) -> ModuleGeneration:
        """Import a file or package folder as a new generation.

        Args:
            name: The name of the plugin, or a name for it until that is known.
            path: The file or folder.
            is_package: Whether it is a folder.
            sources: The `sources` of an earlier generation, to import that once more.
            fields: The fields of `plugin.toml`, for the remedies of errors.
            foreign: Its sources in other languages.

        Raises:
            LoadError: It cannot be read or compiled, or its code raised, `SystemExit` included.
        """
        generation = ModuleGeneration(self, name, path, is_package, sources)
        if foreign is not None:
            generation.transpiled, generation.foreign = foreign.transpiled, foreign.by_stem
        file = str(path / "__init__.py" if is_package else path)
        folder = str(path) if is_package else None
        root = generation.root
        if ROOT not in sys.modules:
            parent = sys.modules[ROOT] = ModuleType(ROOT, "Where generations of plugins live.")
            parent.__path__ = []
            parent.__spec__ = ModuleSpec(ROOT, None, is_package=True)
        module = ModuleType(root)
        loader = _Loader(root, file, generation)
        names = module.__dict__
        names["__spec__"] = _spec(root, file, loader, folder)
        names["__loader__"] = loader
        names["__file__"] = file
        names["__package__"] = root if is_package else ROOT
        if folder is not None:
            names["__path__"] = [folder]
            _finder.add(generation)
        sys.modules[root] = module
        try:
            if is_package and file not in generation.sources:
                self.check_inside(generation, file)
            generation.execute(module, file)
        except KeyboardInterrupt:
            self.dispose(generation)
            raise
        except BaseException as error:
            # Importing never waits, so a cancellation here was raised by the module.
            self.dispose(generation)
            peers: list[str] = []
            if isinstance(error, ImportError):
                peers = declared_peers(generation.sources.get(file), fields or {})
            raise explain(error, name, path, root, peers) from error
        generation.module = sys.modules.get(root, module)  # it may have replaced itself
        return generation

    def dispose(self, generation: ModuleGeneration) -> None:
        """Remove all modules of a generation from `sys.modules`; twice is fine.

        They are collected when nothing refers to them any more. References that the process itself
        keeps (the finder, caches of `typing`) are dropped here.
        """
        generation.module = None
        generation._builtins = None
        if generation.is_package:
            _finder.remove(generation)
            for name in generation.modules():
                del sys.modules[name]
        else:
            sys.modules.pop(generation.root, None)
        for file in generation.sources:
            linecache.cache.pop(file, None)
        # `typing` caches `Optional[Thing]` and `Box[Thing]`, and with them the module.
        for clear in getattr(typing, "_cleanups", ()):
            clear()

    def check_inside(self, generation: ModuleGeneration, file: str) -> None:
        """Refuse a source that a link brings in from outside the package's folder.

        Raises:
            LoadError: It lies outside, and such links are not allowed.
        """
        if self.allow_symlinks:
            return
        real, home = os.path.realpath(file), os.path.realpath(generation.path)
        if not real.startswith(home + os.sep):
            raise LoadError(
                f"{file} is a link out of its folder, to {real}",
                step="import",
                plugin=generation.name,
                path=file,
                remedy="Copy the file into the folder, or set the option `allow_symlinks`.",
            )
