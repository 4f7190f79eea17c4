"""Errors of frameworks that a client causes with input that no decoder or encoder can take.

Frameworks let some of them pass raw: JSON nested too deeply, text that is no UTF-8, an unknown
charset, a lone surrogate in an echo. None of it is a handler's fault.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import Any

from veko_plugins.http import HTTPError

__all__ = ["refusal"]


def refusal(error: Exception, *decoders: Callable[..., Any]) -> Exception:
    """Return the refusal (400) of what a client sent, or the error itself if it is another.

    Args:
        error: What a framework's handler raised.
        decoders: The framework's functions that decode what the client sent: what one of them
            raises is the client's fault.
    """
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return HTTPError(400, "the answer would have a lone surrogate, which cannot be encoded")
    codes: set[CodeType] = {one.__code__ for one in decoders}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            deep = isinstance(error, RecursionError)
            return HTTPError(400, f"it cannot be decoded: {'nested too deeply' if deep else error}")
        trace = trace.tb_next
    return error
