"""The manual: the pages of the docs, read and searched by agents and served as Markdown.

A wheel has them beside this file; in a checkout they are those of `docs/`.

Cost: pages are read and indexed at the first search (about 20 ms), so call it in a thread. Promise:
only pages of the manual can be read, whatever the name.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from veko import NotFoundError

from .._lib.versions import did_you_mean

__all__ = ["Found", "Manual", "Page", "manual"]

INDEX: Final = "llms.txt"
_HERE: Final = Path(__file__).parent
_HEADING: Final = re.compile(r"^(#{1,3}) (.+)$", re.MULTILINE)
_FENCE: Final = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_WORD: Final = re.compile(r"[a-z0-9_]+")
_IN_HEADING: Final = 4  # times that a word of a heading counts
_EXCERPT: Final = 400  # characters
_FEW, _MANY = 1, 30


class Page(msgspec.Struct, frozen=True):
    """A page of the manual.

    Attributes:
        name: Its path, such as `guides/reload.md`.
        title: Its title.
    """

    name: str
    title: str


class Found(msgspec.Struct, frozen=True):
    """A section that a search found.

    Attributes:
        page: The name of its page, for `read`.
        title: The title of the page.
        heading: The heading of the section.
        excerpt: How its text begins.
    """

    page: str
    title: str
    heading: str
    excerpt: str


class _Section(msgspec.Struct, frozen=True):
    page: Page
    heading: str
    text: str
    words: dict[str, int]


class Manual:
    """The pages below a directory.

    Args:
        directory: Where they are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @functools.cached_property
    def _texts(self) -> dict[str, str]:
        found = sorted(self._directory.rglob("*.md"))
        texts = {
            path.relative_to(self._directory).as_posix(): path.read_text("utf-8") for path in found
        }
        index = self._directory / INDEX
        return {INDEX: index.read_text("utf-8"), **texts} if index.is_file() else texts

    @functools.cached_property
    def _sections(self) -> tuple[_Section, ...]:
        return tuple(
            section for page in self.pages() for section in _split(page, self._texts[page.name])
        )

    def pages(self) -> list[Page]:
        """Return the pages, sorted by name."""
        return [
            Page(name, _title(name, text)) for name, text in self._texts.items() if name != INDEX
        ]

    def read(self, name: str, heading: str | None = None) -> str:
        """Return a page, or one section of it, as Markdown.

        Args:
            name: The page, such as `guides/reload.md`; `.md` may be left out. `llms.txt` is the
                index of all pages.
            heading: The heading of a section; `None` is the whole page.

        Raises:
            NotFoundError: There is no such page, or no such heading on it.
        """
        wanted = name.strip().lstrip("/").removeprefix("docs/")
        text = self._texts.get(wanted) or self._texts.get(f"{wanted}.md")
        if text is None:
            near = did_you_mean(wanted, self._texts)
            raise NotFoundError(
                f"the docs have no page {name[:80]!r}",
                remedy=near or "Read 'llms.txt', which lists all pages, or search.",
            )
        if heading is None:
            return text
        known: list[str] = []
        for found, end in _headings(text):
            known.append(found[2].strip())
            if known[-1].casefold() == heading.strip().lstrip("# ").casefold():
                return text[found.start() : end].strip() + "\n"
        raise NotFoundError(
            f"the page {wanted} has no heading {heading[:80]!r}",
            remedy=f"It has: {'; '.join(known)}.",
        )

    def search(self, query: str, limit: int = 8) -> list[Found]:
        """Return the sections that fit a query best, the best first.

        Args:
            query: Words, such as names of options, or what an error message says.
            limit: How many to return at most, 1 to 30.
        """
        wanted = set(_words(query))
        scored: list[tuple[float, int]] = []
        weights = {word: self._weight(word) for word in wanted}
        for index, section in enumerate(self._sections):
            score = sum(
                weights[word] * count / (count + 1.5)
                for word in wanted
                if (count := section.words.get(word, 0))
            )
            if score:
                scored.append((-score, index))
        scored.sort()
        return [
            _found(self._sections[index]) for _, index in scored[: max(_FEW, min(limit, _MANY))]
        ]

    def _weight(self, word: str) -> float:
        having = sum(1 for section in self._sections if word in section.words)
        return math.log(1 + len(self._sections) / (1 + having))


@functools.cache
def manual() -> Manual:
    """Return the manual of this installation."""
    packaged = _HERE / "docs"
    return Manual(packaged if packaged.is_dir() else _HERE.parents[2] / "docs")


def _headings(text: str) -> Iterator[tuple[re.Match[str], int]]:
    """Yield the headings outside code, and where the section of each ends."""
    code = [range(*found.span()) for found in _FENCE.finditer(text)]
    found = [one for one in _HEADING.finditer(text) if not any(one.start() in r for r in code)]
    for index, one in enumerate(found):
        later = (next_.start() for next_ in found[index + 1 :] if len(next_[1]) <= len(one[1]))
        yield one, next(later, len(text))


def _title(name: str, text: str) -> str:
    first = next(_headings(text), None)
    return first[0][2].strip() if first is not None else name


def _split(page: Page, text: str) -> Iterator[_Section]:
    """Yield the sections of a page, each up to the next heading of any level."""
    found = [one for one, _ in _headings(text)]
    for index, one in enumerate(found):
        end = found[index + 1].start() if index + 1 < len(found) else len(text)
        heading, body = one[2].strip(), text[one.end() : end].strip()
        words = Counter(_words(body))
        for word in _words(f"{page.name} {page.title} {heading}"):
            words[word] += _IN_HEADING
        yield _Section(page, heading, body, dict(words))


def _words(text: str) -> Iterator[str]:
    """Yield the words of a text, without the s of a plural; `plugins_dir` is also its parts."""
    for word in _WORD.findall(text.lower()):
        for part in {word, *word.split("_")} - {""}:
            yield part.removesuffix("s") if len(part) > 3 else part


def _found(section: _Section) -> Found:
    text = section.text
    if len(text) > _EXCERPT:
        text = text[:_EXCERPT].rsplit(None, 1)[0] + " …"
    return Found(section.page.name, section.page.title, section.heading, text)
