"""Refusals of the management API: errors with the status that answers them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

from veko import ConfigError, ManifestError, NotFoundError, OptionError, VekoError
from veko.errors import Fault as VekoFault
from veko.errors import text_of

from .._lib.masking import masked_text
from .documents import Fault, Problem

__all__ = ["AdminError", "problem_of"]

_log: Final = logging.getLogger("veko.admin")
_UNPROCESSABLE: Final = (ConfigError, ManifestError, OptionError)


class AdminError(VekoError):
    """A request that the management API refuses.

    Args:
        status: The status code.
        message: What is wrong.
        remedy: What to do about it.
        plugin: The plugin that it is about.
        faults: Every fault, with its path.
        headers: Headers of the answer.
        exit_code: The code with which a command has exited.
    """

    counts = False

    def __init__(
        self,
        status: int,
        message: str,
        *,
        remedy: str | None = None,
        plugin: str | None = None,
        faults: Iterable[Fault | VekoFault] = (),
        headers: Mapping[str, str] | None = None,
        exit_code: int | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy, plugin=plugin)
        self.status = status
        self.faults = tuple(Fault(one.path, one.message) for one in faults)
        self.headers = dict(headers or {})
        self.exit_code = exit_code


def problem_of(error: BaseException) -> tuple[Problem, dict[str, str]]:
    """Return the problem document of an error, and the headers of the answer."""
    if isinstance(error, AdminError):
        made = _problem(error.status, error, error.faults)
        return made, error.headers
    if not isinstance(error, VekoError):
        _log.error("the management API failed", exc_info=error)
        return Problem(
            title=_title(500),
            status=500,
            detail=f"it failed: {type(error).__name__}",
            remedy="The log has the traceback.",
        ), {}
    status = 409
    if isinstance(error, NotFoundError):
        status = 404
    elif isinstance(error, _UNPROCESSABLE) or type(error).__name__ == "UsageError":
        status = 422
    faults = [Fault(one.path, one.message) for one in getattr(error, "faults", ())]
    return _problem(status, error, faults), {}


def _problem(status: int, error: VekoError, faults: Iterable[Fault]) -> Problem:
    detail = masked_text(error.message or text_of(error))
    step = getattr(error, "step", None)
    if isinstance(step, str) and not isinstance(error, AdminError):
        detail = f"{detail} (step {step})"
    return Problem(
        title=_title(status),
        status=status,
        detail=detail,
        remedy=None if error.remedy is None else masked_text(error.remedy),
        plugin=error.plugin,
        faults=tuple(faults),
        exit_code=_exit_code(error),
    )


def _exit_code(error: VekoError) -> int | None:
    if isinstance(error, AdminError):
        return error.exit_code
    # `CommandExit` is of another core plugin.
    return error.code if type(error).__name__ == "CommandExit" else None  # type: ignore[attr-defined]


def _title(status: int) -> str:
    return HTTPStatus(status).phrase
