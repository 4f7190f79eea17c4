"""What a plugin needs of the package index, and whether the host has it.

A plugin of one file says it in a comment as of PEP 723 (`# /// script`), a folder in
`requirements.txt`, in `[project]` of its `pyproject.toml`, or in such a comment too.

Cost: reads those files; the metadata of each distribution that is named.
Promise: nothing is imported, installed or asked of the network.
"""

from __future__ import annotations

import platform
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from veko import LoadError

from ..._lib.regular_files import MAX_SETTINGS, read_regular
from ..._source.source import Source

__all__ = ["Requirements", "requirements_of", "unmet"]

_BLOCK: Final = re.compile(
    r"^# /// script[ \t]*\r?$\n(?P<text>(?:^#(?: .*)?\r?$\n)+?)^# ///[ \t]*\r?$", re.MULTILINE
)
_OWN: Final = frozenset({"veko"})
"""What an environment has of the host anyhow."""


class Requirements(msgspec.Struct, frozen=True):
    """What a plugin needs.

    Attributes:
        distributions: Requirements as of PEP 508, sorted, each once.
        python: The versions of Python that it runs on; empty for any.
    """

    distributions: tuple[str, ...] = ()
    python: str = ""

    def unmet(self) -> list[str]:
        """Return what the host does not have, in words; empty if it can run the plugin."""
        here = platform.python_version()
        found = list(unmet(self.distributions))
        if self.python and not SpecifierSet(self.python).contains(here, prereleases=True):
            found.append(f"Python {self.python} is wanted, this is {here}")
        return found

    def check_index_only(self, plugin: str) -> None:
        """Refuse what is not to be found in the package index by its name.

        Raises:
            LoadError: A requirement names a URL, which the host would fetch for the plugin.
        """
        for text in self.distributions:
            if Requirement(text).url is not None:
                raise LoadError(
                    f"it is confined, and requires {text.partition('?')[0]}",
                    step="environment",
                    plugin=plugin,
                    remedy="Name a version of it in the package index.",
                )


def requirements_of(source: Source, sources: Mapping[str, bytes] | None = None) -> Requirements:
    """Return what a plugin needs.

    Args:
        source: Where it was found.
        sources: The texts of its files by path, if they are not to be read from disk.

    Raises:
        LoadError: What it says of that cannot be read.
    """
    if source.path is None or source.file is None:
        return Requirements()
    held = sources or {}
    texts: list[str] = []
    python: list[str] = []

    def take(file: Path, listed: Iterable[Any], versions: object) -> None:
        for text in listed:
            try:
                texts.append(str(Requirement(text)))
            except (InvalidRequirement, TypeError) as error:
                raise _wrong(source, file, f"{text!r} is not a requirement: {error}") from error
        if versions:
            try:
                python.append(str(SpecifierSet(str(versions))))
            except InvalidSpecifier as error:
                raise _wrong(source, file, f"requires-python: {error}") from error

    try:
        files = [source.file]
        if source.kind == "package":
            files += [source.path / "requirements.txt", source.path / "pyproject.toml"]
        for file in files:
            data = held.get(str(file))
            if data is None and (file == source.file or file.is_file()):
                data = read_regular(file, MAX_SETTINGS)
            if data is not None:
                take(file, *_said(source, file, data.decode()))
    except (OSError, ValueError) as error:
        raise _wrong(source, source.path, str(error)) from error
    kept = {
        text: canonicalize_name(Requirement(text).name)
        for text in texts
        if canonicalize_name(Requirement(text).name) not in _OWN
    }
    return Requirements(tuple(sorted(kept, key=lambda text: (kept[text], text))), ",".join(python))


def _said(source: Source, file: Path, text: str) -> tuple[Iterable[Any], object]:
    """Return the requirements that a file lists, and the versions of Python."""
    if file.name == "requirements.txt":
        return list(_lines(source, file, text)), ""
    if file.name == "pyproject.toml":
        project = tomllib.loads(text).get("project", {})
        return _listed(project, source, file)
    blocks = [found["text"] for found in _BLOCK.finditer(text)]
    if len(blocks) > 1:
        raise _wrong(source, file, "it has several `# /// script` blocks")
    if not blocks:
        return (), ""
    table = "".join(
        line[2:] if line.startswith("# ") else line[1:]
        for line in blocks[0].splitlines(keepends=True)
    )
    return _listed(tomllib.loads(table), source, file)


def _listed(table: Any, source: Source, file: Path) -> tuple[Iterable[Any], object]:
    listed = table.get("dependencies", []) if isinstance(table, dict) else None
    if not isinstance(listed, list):
        raise _wrong(source, file, "`dependencies` is not a list")
    return listed, table.get("requires-python", "")


def _lines(source: Source, file: Path, text: str) -> Iterator[str]:
    for line in text.replace("\\\n", " ").splitlines():
        said = re.sub(r"(^|\s)#.*$", "", line).strip()
        if said.startswith("-"):
            raise _wrong(source, file, f"{said!r} is an option; only requirements may stand there")
        if said:
            yield said


def _wrong(source: Source, file: Path, text: str) -> LoadError:
    return LoadError(
        f"what it requires cannot be read: {text}",
        step="environment",
        plugin=source.name,
        path=file,
        remedy="List requirements as of PEP 508, such as 'idna>=3,<4'.",
    )


def unmet(requirements: Iterable[str], extra: str = "") -> Iterator[str]:
    """Yield which requirements the host does not meet, in words.

    Args:
        requirements: As of PEP 508.
        extra: The extra that they belong to.
    """
    for text in requirements:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
            continue
        if wanted.url is not None:
            yield f"{wanted.name} is wanted from {wanted.url.partition('?')[0]}"
            continue
        try:
            here = distribution(wanted.name)
        except PackageNotFoundError:
            yield f"{wanted.name} is not installed here"
            continue
        try:
            fits = wanted.specifier.contains(here.version, prereleases=True)
        except (InvalidVersion, TypeError):  # its metadata are broken
            fits = False
        if not fits:
            yield f"{wanted.name}{wanted.specifier} is wanted, {here.version} is installed here"
        for one in wanted.extras:
            parts = [part for part in here.requires or () if "extra" in part]
            yield from unmet(parts, one)
