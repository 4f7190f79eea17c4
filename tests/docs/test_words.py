"""The words of docs, docstrings, comments and messages: none that a reader has to read twice.

`PHRASES` maps a pattern to what to write instead; in a pattern, a space matches any white space, so
a phrase is found across lines. `NAMES` does the same for identifiers. To allow a phrase again,
remove it here: there is no way to mark a single line.
"""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PROSE = [
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml", "docs",
    "examples", "benchmarks", "tests/docs/pages.py", "tests/docs/test_docs.py",
]  # fmt: skip
CODE = ["kernel", "plugins", "adapters"]
SUFFIXES = {".md", ".py", ".toml", ".yaml", ".mjs", ""}

PHRASES = {
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\b(is|are) sound\b": "is valid; no problems found",
    r"\bcannot be had\b": "cannot be loaded, fails to load, is not available",
    r"\bgo(es)? on\b": "continues, keeps running",
    r"\bgone back to\b": "is rolled back to, is restored",
    r"\bstood it\b": "passed",
    r"\blooking after\b": "Operations",
    r"\bseeing inside\b": "Observability",
    r"\bnobody's\b": "not attributed to any plugin; does not count as an error",
    r"\b(w|W)hoever\b": "say who: the caller, any plugin that, the client",
    r"(\A|[.;:] |\bso that )who [a-z]+(?![^.]*\?)": "name the subject: the caller, a plugin that",
    r"\bill-typed\b": "of the wrong type",
    r"\b(is|are|was|were|be) told\b": "is reported, is shown, gets an error",
    r"\btold of\b": "reported, notified of",
    r"\banew\b": "again",
    r"\bfor ever\b": "forever",
    r"\bafter the fact\b": "afterwards; say when it happens",
    r"\bis nowhere\b": "does not exist, is not found",
}
NAMES = {
    r"_*[Tt]old": "the name of what it holds: errors, events, header, reported",
    r"_*places?": "order, index, position, path or location",
}
_PHRASES = [
    (re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE | re.MULTILINE), advice)
    for pattern, advice in PHRASES.items()
]
_NAMES = [(re.compile(pattern), advice) for pattern, advice in NAMES.items()]
_QUOTES = re.compile(r"^[a-zA-Z]*('''|\"\"\"|'|\")(.*)\1$", re.DOTALL)


class Text(NamedTuple):
    """Text that belongs together, and the line on which it starts."""

    line: int
    text: str


def prose(source: str) -> Iterator[Text]:
    """Yield the paragraphs of a text file."""
    line = 1
    for paragraph in re.split(r"(\n\s*\n)", source):
        yield Text(line, re.sub(r"^\s*# ?", "", paragraph, flags=re.MULTILINE))
        line += paragraph.count("\n")


def tokens(source: str) -> Iterator[tokenize.TokenInfo]:
    return tokenize.generate_tokens(io.StringIO(source).readline)


def code_texts(source: str) -> Iterator[Text]:
    """Yield blocks of comments, and strings with their implicit concatenation joined."""
    kind, start, line, parts = 0, 0, 0, [""]
    middle = getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)  # f-strings since 3.12
    for token in tokens(source):
        if token.type in {tokenize.NL, tokenize.INDENT, tokenize.DEDENT}:
            continue
        if token.type in {tokenize.STRING, tokenize.COMMENT, middle}:
            comment = token.type == tokenize.COMMENT
            now = tokenize.COMMENT if comment else tokenize.STRING
            if now != kind or (comment and token.start[0] != line + 1):
                yield Text(start, "".join(parts))
                kind, start, line, parts = now, token.start[0], token.start[0], []
            quoted = _QUOTES.match(token.string)
            text = token.string.lstrip("#") if comment else quoted[2] if quoted else token.string
            parts.append("\n" * (token.start[0] - line) + text)
            line = token.end[0]
        elif token.type not in _WITHIN_FSTRING and kind:
            yield Text(start, "".join(parts))
            kind, parts = 0, [""]


_WITHIN_FSTRING = {
    getattr(tokenize, name) for name in ("FSTRING_START", "FSTRING_END") if hasattr(tokenize, name)
}


def findings(path: Path) -> Iterator[str]:
    source = path.read_text("utf-8")
    is_code = path.suffix == ".py"
    for start, text in code_texts(source) if is_code else prose(source):
        for pattern, advice in _PHRASES:
            for found in pattern.finditer(text):
                line = start + text.count("\n", 0, found.start())
                yield f"{line}: {' '.join(found[0].split())!r}: better: {advice}"
    if is_code:
        for token in tokens(source):
            for pattern, advice in _NAMES:
                if token.type == tokenize.NAME and pattern.fullmatch(token.string):
                    yield f"{token.start[0]}: the name {token.string!r}: better: {advice}"


def files(root: str) -> Iterator[Path]:
    path = ROOT / root
    if path.is_file():
        yield path
        return
    for found in sorted(path.rglob("*")):
        hidden = any(part.startswith((".", "__")) for part in found.relative_to(ROOT).parts[:-1])
        if found.is_file() and found.suffix in SUFFIXES - {""} and not hidden:
            yield found


@pytest.mark.parametrize("root", PROSE + CODE)
def test_words_are_read_once(root: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{finding}" for path in files(root) for finding in findings(path)
    ]
    assert not found, "write it in other words:\n" + "\n".join(found)


def test_phrases_are_found_where_they_stand(tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text(
        '"""Idea.\n\nMend\nit. Who asks must wait."""\n'
        "# a plugin that cannot be\n# had\n"
        'told = f"the file {told} " "is\\n" "sound and goes " \\\n    f"on"\n'
    )
    assert [finding.partition(": better")[0] for finding in findings(code)] == [
        "3: 'Mend'",
        "4: '. Who asks'",
        "5: 'cannot be had'",
        "7: 'goes on'",
        "7: the name 'told'",
        *(["7: the name 'told'"] if hasattr(tokenize, "FSTRING_START") else []),
    ]
    page = tmp_path / "page.md"
    page.write_text("# Looking after\n\nWho reads this?\nIt was\ntold.\n")
    assert [finding.partition(": better")[0] for finding in findings(page)] == [
        "1: 'Looking after'",
        "4: 'was told'",
    ]
