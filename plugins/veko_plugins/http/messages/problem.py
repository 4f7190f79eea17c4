"""Errors that are answers, and how any error is told to a client (RFC 9457).

An `HTTPError` below 500 is an answer like another: nothing has failed and nobody is blamed for
it. Everything else becomes a 500 that says nothing but its name, unless `dev_mode` is on.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec

from veko.errors import VekoError

from .faults import Fault
from .headers import Headers

__all__ = ["PROBLEM_JSON", "HTTPError", "Problem", "describe", "phrase"]

PROBLEM_JSON = "application/problem+json"
_ANY = "about:blank"


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of a problem response, as RFC 9457 has it.

    Attributes:
        type: What kind of problem it is; `about:blank`: what its status says.
        title: The status in words.
        status: The status code.
        detail: What went wrong this time.
        errors: Every fault of a bad request.
        traceback: Where it happened, with `dev_mode` only.
    """

    type: str
    title: str
    status: int
    detail: str = ""
    errors: Sequence[Fault] = ()
    traceback: Sequence[str] = ()


class HTTPError(VekoError):
    """Raise it in a handler, a middleware or a hook on `request:start` to answer with a problem.

    Args:
        status: The status code, 400 to 599.
        detail: What to tell the client; shown as it is.
        errors: The single faults, if there are several.
        headers: Headers of the response (`Retry-After`, `WWW-Authenticate`).

    Raises:
        ValueError: The status is no error's, or a header is not fit to be sent.
    """

    def __init__(
        self,
        status: int,
        detail: str = "",
        *,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"{status!r} is not the status of an error: those are 400 to 599")
        # Half a surrogate pair could not be sent.
        detail = str(detail).encode("utf-8", "replace").decode()
        super().__init__(detail or phrase(status))
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(Headers.of(headers)) if headers else {}


def phrase(status: int) -> str:
    """Return a status in words."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def describe(error: BaseException, *, dev_mode: bool = False) -> Problem:
    """Say what a client may know of an error."""
    trace = traceback.format_exception(error) if dev_mode else ()
    if isinstance(error, HTTPError):
        return Problem(
            _ANY,
            phrase(error.status),
            error.status,
            detail=error.detail,
            errors=error.errors,
            traceback=trace if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR else (),
        )
    detail = f"{type(error).__name__}: {error}" if dev_mode else ""
    return Problem(_ANY, phrase(500), 500, detail=detail, traceback=trace)
