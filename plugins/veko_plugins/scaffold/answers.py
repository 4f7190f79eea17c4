"""What a template is filled in with, beside the name: the answers."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from veko.errors import Fault

from .._lib.manifests import findings
from .._lib.versions import did_you_mean
from .errors import ScaffoldError

__all__ = ["Answers", "check_answers"]

_LONGEST: Final = 200


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What a template is filled in with.

    Attributes:
        description: One line.
        author: One line.
        version: A version of PEP 440 or SemVer.
        license: One line, such as `MIT`.
    """

    description: str = ""
    author: str = ""
    version: str = "1.0.0"
    license: str = ""


def check_answers(answers: Mapping[str, Any]) -> Answers:
    """Check answers, and return them with defaults.

    Raises:
        ScaffoldError: One does not exist, or is not valid; all faults are listed.
    """
    faults = list(_faults(answers))
    if faults:
        raise ScaffoldError(
            f"the answers are not valid: {'; '.join(map(str, faults))}",
            remedy=f"There are: {', '.join(Answers.__struct_fields__)}.",
        )
    return Answers(**{key: value.strip() for key, value in answers.items() if value is not None})


def _faults(answers: Mapping[str, Any]) -> Iterator[Fault]:
    for key, value in answers.items():
        if key not in Answers.__struct_fields__:
            near = did_you_mean(key, Answers.__struct_fields__)
            yield Fault(key, f"is not known. {near}".rstrip())
        elif value is None:
            continue
        elif not isinstance(value, str):
            yield Fault(key, f"expected text; it is {value!r}")
        elif len(value) > _LONGEST:
            yield Fault(key, f"it has {len(value)} characters, and {_LONGEST} are the most")
        elif any(unicodedata.category(one) in {"Cc", "Cs", "Zl", "Zp"} for one in value):
            yield Fault(key, f"expected one line without control characters; it is {value!r}")
        elif key == "version":
            yield from findings({"version": value.strip()}).errors
            if not value.strip():
                yield Fault(key, "is empty")
