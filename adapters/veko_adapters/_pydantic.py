"""Bodies that a handler takes as pydantic models; pydantic itself is never imported here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from veko_plugins.http import MAX_FAULTS, Fault

__all__ = ["InvalidBody", "is_model", "validate"]


class InvalidBody(msgspec.ValidationError):
    """A model refused a body. It is msgspec's error, so that binding has one kind to handle.

    Attributes:
        faults: Every fault that the model found.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("the body does not fit")
        self.faults = faults


def is_model(annotation: object) -> bool:
    """Return whether an annotation is a pydantic model or dataclass."""
    return hasattr(annotation, "__pydantic_validator__")


def validate(load: Callable[[Any], Any], value: object) -> Any:
    """Return what a model makes of a body.

    Args:
        load: The model's `model_validate` or `model_validate_json`.
        value: The form, or the bytes of JSON.

    Raises:
        InvalidBody: The body does not fit.
    """
    try:
        return load(value)
    except ValueError as error:
        errors = getattr(error, "errors", None)
        if errors is None:
            raise
        found = errors(include_url=False, include_context=False, include_input=False)
        raise InvalidBody([_fault(one) for one in found[:MAX_FAULTS]]) from None


def _fault(error: Mapping[str, Any]) -> Fault:
    message: str = error["msg"]
    return Fault.at(message[:1].lower() + message[1:], "body", error["loc"])
