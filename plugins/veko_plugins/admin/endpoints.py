"""The endpoints of the management API: one table, for answering and for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .._lib.faults import type_faults
from .documents import Fault, Role
from .errors import AdminError
from .exchange import Answer, Asked

if TYPE_CHECKING:
    from .operations import Operations

__all__ = ["PLAN", "Endpoint", "Given", "Parameter", "answered", "given_of"]

Given = Mapping[str, Any]
"""The arguments of an endpoint by name: from the path, the query and the body."""
Handler = Callable[["Operations", Asked, Given], Awaitable[object]]


class Parameter(msgspec.Struct, frozen=True):
    """A query parameter.

    Attributes:
        name: Its name.
        type: The type that its text is converted to.
        default: Its value if it is left out.
        doc: What it does.
    """

    name: str
    type: Any
    default: object
    doc: str


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One verb on one path.

    Attributes:
        method: The method.
        path: The path below the prefix, with parameters as `{name}`; `{name:path}` is the rest.
        name: Its name: `operationId`, and what the audit log says.
        handler: Answers with a document or an `Answer`.
        answer: The type of the document; `None` for another media type.
        doc: What it does, in one line.
        role: The role that it needs.
        parameters: Its query parameters.
        body: The type of its body; `None` if it has none.
        body_required: Whether the body may not be left out.
        status: The status of success.
        media_type: The media type of success.
        conditional: Whether it takes `If-Match`; `required` if it refuses without.
        refusals: The statuses of its refusals, beside those of all.
        plans: Whether it takes `?plan=1`.
        versioned: Whether the answer has an `ETag`.
    """

    method: str
    path: str
    name: str
    handler: Handler
    answer: Any
    doc: str
    role: Role = "look"
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    body_required: bool = False
    status: int = 200
    media_type: str = "application/json"
    conditional: str = ""
    refusals: tuple[int, ...] = ()
    plans: bool = False
    versioned: bool = False

    @property
    def segments(self) -> tuple[str, ...]:
        """The segments of the path."""
        return tuple(self.path.split("/"))

    def match(self, path: tuple[str, ...]) -> dict[str, Any] | None:
        """Return the parameters of a path; `None` if it is not this endpoint's."""
        found: dict[str, Any] = {}
        segments = self.segments
        for index, segment in enumerate(segments):
            if segment.startswith("{") and segment.endswith(":path}"):
                found[segment[1:-6]] = path[index:]
                return found
            if index >= len(path):
                return None
            if segment.startswith("{"):
                found[segment[1:-1]] = path[index]
            elif segment != path[index]:
                return None
        return found if len(path) == len(segments) else None


PLAN: Final = Parameter("plan", bool, False, "Only say what would happen.")
_WORDS: Final = {"1": True, "true": True, "0": False, "false": False}


def given_of(endpoint: Endpoint, asked: Asked, path: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a request.

    Raises:
        AdminError: A parameter or the body is not valid, or a plan is asked for of what has none
            (422), or the body is not JSON (400, 415).
    """
    if endpoint.role == "operate" and not endpoint.plans:
        # One who asks for a plan must not get the thing itself.
        plan = asked.query.get("plan")
        if plan is not None and _WORDS.get(plan.lower(), True):
            raise AdminError(
                422,
                f"{endpoint.name} cannot be planned; nothing was done",
                faults=[Fault("query.plan", "there is no plan of this")],
                remedy="Leave out `plan` to do it.",
            )
    given = dict(path)
    faults = []
    parameters = (*endpoint.parameters, PLAN) if endpoint.plans else endpoint.parameters
    for one in parameters:
        text = asked.query.get(one.name)
        try:
            given[one.name] = one.default if text is None else _converted(text, one.type)
        except (msgspec.ValidationError, ValueError) as error:
            faults.append((f"query.{one.name}", str(error)))
    if faults:
        raise AdminError(
            422,
            "the query is not valid",
            faults=[Fault(name, message) for name, message in faults],
            remedy="Fix the parameters that are named.",
        )
    if endpoint.body is not None:
        given["body"] = _body(endpoint, asked)
    return given


def _converted(text: str, type_: Any) -> object:
    if type_ is bool:
        if text.lower() not in _WORDS:
            raise ValueError(f"expected 1 or 0, got {text[:40]!r}")
        return _WORDS[text.lower()]
    return msgspec.convert(text, type_, strict=False)


def _body(endpoint: Endpoint, asked: Asked) -> object:
    if not asked.body.strip():
        if endpoint.body_required:
            raise AdminError(400, "the body is missing", remedy="Send JSON.")
        return None if endpoint.body is Any else endpoint.body()
    kind = asked.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise AdminError(
            415,
            f"the body is {kind[:60] or 'of no type'}, not JSON",
            remedy="Send it with `Content-Type: application/json`.",
        )
    try:
        plain = msgspec.json.decode(asked.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AdminError(400, f"the body is not valid JSON: {error}") from error
    if endpoint.body is Any:
        return plain
    try:
        return msgspec.convert(plain, endpoint.body)
    except msgspec.ValidationError as error:
        faults = list(type_faults(plain, endpoint.body))
        raise AdminError(
            422, "the body is not valid", faults=faults, remedy="Fix the fields that are named."
        ) from error


def answered(endpoint: Endpoint, value: object) -> Answer:
    """Return the answer of what an endpoint's handler returned."""
    return value if isinstance(value, Answer) else Answer.of(value, endpoint.status)
