"""Names of plugins: what one may be, and the nearest valid one to a text that is none."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["LONGEST_NAME", "NAME", "nearest_name"]

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
LONGEST_NAME: Final = 128


def nearest_name(text: str, longest: int = LONGEST_NAME) -> str:
    """Return the valid name that is most like a text; empty if nothing of it can be kept.

    Accents are dropped, other characters become dashes: `Ünï cödé` becomes `uni-code`.

    Args:
        text: Any text.
        longest: The most characters that the name may have.
    """
    plain = unicodedata.normalize("NFKD", text[: 4 * longest])
    kept = "".join(one for one in plain if not unicodedata.combining(one)).casefold()
    name = re.sub(r"[^a-z0-9._-]+", "-", kept)
    name = re.sub(r"\.{2,}", ".", name).strip("._-")
    return name[:longest].rstrip("._-")
