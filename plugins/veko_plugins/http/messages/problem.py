"""Errors that are answers, and the problem response (RFC 9457) of any error.

An `HTTPError` below 500 is an answer like any other: nothing has failed, and it counts against no
plugin. Every other error becomes a 500 that reveals nothing, unless `dev_mode` is on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec

from veko.errors import HookTimeout, VekoError

from ..._lib.masking import masked_text
from ..._lib.tracebacks import folded
from .faults import Fault
from .headers import Headers

__all__ = ["PROBLEM_JSON", "RETRY", "HTTPError", "Problem", "describe", "phrase", "refusal_of"]

PROBLEM_JSON = "application/problem+json"
RETRY = {"retry-after": "1"}
"""The header of a 503 that is over in a moment."""
_ANY = "about:blank"


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of a problem response (RFC 9457).

    Attributes:
        type: The kind of problem; `about:blank` means that the status says it.
        title: The status in words.
        status: The status code.
        detail: What went wrong this time.
        errors: Every fault of a bad request.
        traceback: The traceback of the error, with `dev_mode` only.
    """

    type: str
    title: str
    status: int
    detail: str = ""
    errors: Sequence[Fault] = ()
    traceback: Sequence[str] = ()


class HTTPError(VekoError):
    """Raise it in a handler, a middleware or a hook on `request:start` to answer with a problem.

    A status below 500 never counts as a failure of the plugin; one from 500 does, unless the
    plugin says that it does not: a 503 while a server elsewhere is gone, or too many ask at once.

    Args:
        status: The status code, 400 to 599.
        detail: The text for the client, shown as it is.
        errors: The single faults of a bad request.
        headers: Headers of the response, such as `Retry-After` or `WWW-Authenticate`.
        counts: `False` for a status from 500 that is no failure of the plugin.

    Attributes:
        status: The status code.
        detail: The text for the client.
        errors: The single faults.
        headers: Headers of the response, names in lower case.
        counts: Whether it counts as a failure.

    Raises:
        ValueError: The status is not 400 to 599, or a header is not valid.
    """

    def __init__(
        self,
        status: int,
        detail: str = "",
        *,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        counts: bool = True,
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"status must be 400 to 599, got {status!r}")
        # A lone surrogate cannot be encoded.
        detail = str(detail).encode("utf-8", "replace").decode()
        super().__init__(detail or phrase(status))
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(Headers.of(headers)) if headers else {}
        self.counts = counts and status >= HTTPStatus.INTERNAL_SERVER_ERROR


def refusal_of(error: BaseException) -> BaseException:
    """Return the error to answer with if a hook fails that decides about a request.

    Args:
        error: What the hook raised; a 503 if it exceeded its time limit, a 500 otherwise.
    """
    if not isinstance(error, HookTimeout):
        return error
    refusal = HTTPError(503, headers=RETRY)
    refusal.__cause__ = error  # shown in `dev_mode`
    return refusal


def phrase(status: int) -> str:
    """Return a status in words."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def describe(error: BaseException, *, dev_mode: bool = False) -> Problem:
    """Return what a client may know about an error.

    Args:
        error: The error.
        dev_mode: Whether that includes the error's text and traceback.
    """
    trace = masked_text(folded(error)).splitlines(keepends=True) if dev_mode else ()
    if isinstance(error, HTTPError):
        return Problem(
            _ANY,
            phrase(error.status),
            error.status,
            detail=error.detail,
            errors=error.errors,
            traceback=trace if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR else (),
        )
    detail = masked_text(f"{type(error).__name__}: {error}") if dev_mode else ""
    return Problem(_ANY, phrase(500), 500, detail=detail, traceback=trace)
