"""Masks secrets in what people read: log lines, errors, representations.

What a schema marks as secret is found by `secret_fields`. This is for everything else: text that
may quote a URL with a password, and values whose names alone say what they are.

Cost: one search for `://` in a text; text without it is returned as it is.
Promise: masking too much is safer than too little, so a name that only sounds secret is masked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["MASK", "masked_section", "masked_text", "masked_value", "sounds_secret"]

MASK: Final = "********"
_DEPTH: Final = 8
_NAME: Final = re.compile(
    r"passw|pwd|passphrase|secret|token|api_?-?key|private_?-?key|authorization|credential|cookie",
    re.I,
)
# The bounds keep a text without any `@` linear. A password may hold any character but these.
_PASSWORD: Final = re.compile(r"""(://[^\s:/@'"]{0,200}:)[^\s'"]{1,1000}@""")
_TOKEN: Final = re.compile(r"""((?:https?|wss?|nats|tls)://)[^\s:/@'"]{1,1000}@""", re.I)
_PARAMETER: Final = re.compile(
    rf"""([?&;][^\s=&?;'"]{{0,60}}?(?:{_NAME.pattern})[^\s=&'"]{{0,60}}=)[^\s&;#'"]+""", re.I
)


def sounds_secret(name: object) -> bool:
    """Return whether a name alone says that its value is secret: `db_password`, `apiKey`."""
    return isinstance(name, str) and _NAME.search(name) is not None


def masked_text(text: str) -> str:
    """Return a text with the passwords of the URLs in it as `********`: `redis://u:********@h`."""
    if "://" not in text:
        return text
    text = _PASSWORD.sub(rf"\1{MASK}@", text)
    text = _TOKEN.sub(rf"\1{MASK}@", text)
    return _PARAMETER.sub(rf"\1{MASK}", text)


def masked_value(value: object, name: object = None, depth: int = 0) -> object:
    """Return a value without what its names, or the URLs in its texts, show to be secret.

    Args:
        value: Any value; mappings and sequences in it are searched.
        name: The name that it has, if any.
        depth: How deep it lies in a larger one; what lies too deep becomes `...`.
    """
    if sounds_secret(name):
        return MASK
    if isinstance(value, str):
        return masked_text(value)
    if isinstance(value, Mapping | list | tuple) and depth == _DEPTH:
        return "..."
    if isinstance(value, Mapping):
        return {str(key): masked_value(item, key, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked_value(item, None, depth + 1) for item in value]
    return value


def masked_section(value: object, depth: int = 0) -> object:
    """Return a configuration whose schema is unknown: its names, and nothing that they hold."""
    if isinstance(value, Mapping) and depth < _DEPTH:
        return {str(key): masked_section(item, depth + 1) for key, item in value.items()}
    return value if value is None or isinstance(value, bool) else MASK
