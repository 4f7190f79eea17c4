"""Names of users: one form for each name, and no two that look alike.

A name is compared in lower case and in Unicode's compatibility form (NFKC), so a name in full-width
letters is the plain one. It has letters of one script only (or of those that are written together,
as in Japanese): `admin` with a Cyrillic letter in it is refused. A name in another script that has
letters which look like Latin ones takes the Latin name too. What looks alike within Latin (`adm1n`)
is not caught.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["MAX_NAME", "key_of", "normalise"]

MAX_NAME: Final = 64
"""Characters of a name."""

_ASCII: Final = re.compile(r"[a-z0-9._@+-]+", re.ASCII)
_SIGNS: Final = frozenset("0123456789._@+-")
_TOGETHER: Final = (
    frozenset({"LATIN", "CJK", "HIRAGANA", "KATAKANA"}),
    frozenset({"LATIN", "CJK", "HANGUL"}),
    frozenset({"LATIN", "CJK", "BOPOMOFO"}),
)
# Of these scripts, NFKC has one character for a letter with its accents.
_COMPOSED: Final = frozenset({"LATIN", "GREEK", "CYRILLIC", "ARMENIAN"})
_INVISIBLE: Final = re.compile("FILLER|SELECTOR|JOINER|INHERENT")
_ALIKE: Final = str.maketrans(
    # Cyrillic
    "асԁеһіјӏкморԛѕгвутѵԝхҽ"
    # Greek
    "αγικνορτυχω"
    # Armenian
    "աոսօցհյ"
    # Latin
    "ɑɡıɩʋꞓ",
    "acdehijlkmopqsrbytvwxeayiknoptuxwwnuoghjagiiuc",
)


def normalise(name: str) -> str:
    """Return the form of a name in which it is kept and shown.

    Raises:
        ValueError: It is empty, too long, or has a character that names do not have; the message is
            for the user.
    """
    if not 0 < len(name) <= MAX_NAME:
        raise ValueError(f"a name has 1 to {MAX_NAME} characters")
    made = name.lower()
    if not _ASCII.fullmatch(made):
        # Twice: lowering a letter may need composing again, and the other way round.
        made = _fold(_fold(name))
        if not 0 < len(made) <= MAX_NAME:
            raise ValueError(f"a name has 1 to {MAX_NAME} characters")
        _check(made)
    if not any(character.isalnum() for character in made):
        raise ValueError("a name has a letter or a digit")
    return made


def key_of(name: str) -> str:
    """Return the key that a normalised name takes; names that look alike take the same."""
    return name.translate(_ALIKE)


def _fold(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _check(name: str) -> None:
    scripts: set[str] = set()
    for character in name:
        if character in _SIGNS:
            continue
        kind = unicodedata.category(character)
        title = unicodedata.name(character, "")
        if kind not in {"Ll", "Lo", "Lm", "Mn", "Mc"} or _INVISIBLE.search(title):
            raise ValueError("a name has letters, digits and . _ @ + - only")
        script = title.split(" ", 1)[0].split("-", 1)[0]
        if kind in {"Mn", "Mc"}:
            if not scripts or scripts & _COMPOSED:
                raise ValueError("a name has an accent that belongs to no letter")
            continue
        scripts.add(script)
    if len(scripts) > 1 and not any(scripts <= together for together in _TOGETHER):
        raise ValueError("a name has letters of one script only")
