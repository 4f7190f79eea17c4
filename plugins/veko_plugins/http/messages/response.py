"""Response: what is sent to the client, whole or as a stream.

A response is an ASGI application too, so any framework can send it. A `send` of Veko's own takes
the object as it is, without splitting it into messages.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping

import msgspec

from veko.errors import RouteError

from .asgi import ASGISend, Message, Receive, Scope
from .cookies import SameSite, write_cookie
from .headers import Headers, received

__all__ = ["Response", "to_json", "to_text"]


def _encode_other(value: object) -> object:
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json")
    if callable(path := getattr(value, "__fspath__", None)):
        return path()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON-able")


_JSON = msgspec.json.Encoder(enc_hook=_encode_other)


_AS_JSON = (b"content-type", b"application/json")
_AS_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_AS_BYTES = (b"content-type", b"application/octet-stream")
_LENGTH = b"content-length"


class Response:
    """An HTTP response. Hooks and middleware may change it before it is sent.

    Args:
        content: `str`, `bytes`, an async iterator of either (streamed), or JSON-able data such as a
            `msgspec.Struct`, a dataclass or a pydantic model; `None` is an empty body.
        status: The status code, 200 to 599.
        headers: A mapping, or pairs of name and value where names repeat.
        media_type: The media type; derived from the content by default. `text/*` gets
            `charset=utf-8`.

    Attributes:
        status: The status code.
        headers: The headers. `headers[name] = value` replaces all headers of a name, `headers.add`
            keeps them.
        stream: The chunks of a streamed body, else `None`.

    Raises:
        ValueError: The name or value of a header could begin another header.
        RouteError: The content cannot be encoded.
    """

    __slots__ = ("_body", "headers", "status", "stream")

    def __init__(
        self,
        content: object = None,
        status: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        media_type: str | None = None,
    ) -> None:
        self.status = status
        self.stream: AsyncIterator[bytes | str] | None = None
        self._body: bytes | None
        kind = type(content)
        if kind is dict or kind is list:
            self._body, found = to_json(content), _AS_JSON
        elif isinstance(content, str):
            self._body, found = to_text(content), _AS_TEXT
        elif isinstance(content, (bytes, bytearray, memoryview)):
            self._body, found = bytes(content), _AS_BYTES
        elif content is None:
            self._body, found = b"", None
        elif isinstance(content, AsyncIterable):
            self.stream, self._body, found = aiter(content), None, _AS_TEXT
        else:
            self._body, found = to_json(content), _AS_JSON
        self.headers = Headers.of(headers) if headers else Headers()
        if media_type is not None:
            text = media_type.startswith("text/") and "charset" not in media_type
            self.headers["content-type"] = f"{media_type}; charset=utf-8" if text else media_type
        elif found is not None and not (headers and "content-type" in self.headers):
            self.headers.raw.append(found)

    @classmethod
    def of(cls, answer: object) -> Response:
        """Return a response for what a handler returned.

        Args:
            answer: A response, which is returned as it is; `None`, which is a 204; or content.

        Raises:
            RouteError: The content cannot be encoded.
        """
        kind = type(answer)
        if kind is dict or kind is list:  # most answers: a third of what the constructor takes
            made = cls.__new__(cls)
            made.status, made.stream = 200, None
            made._body = to_json(answer)
            made.headers = Headers([_AS_JSON])
            return made
        if isinstance(answer, Response):
            return answer
        return cls(answer) if answer is not None else cls(status=204)

    @classmethod
    def received(
        cls, status: int, raw: Iterable[tuple[bytes, bytes]], body: bytes | None
    ) -> Response:
        """Return a response for the messages that a framework sent.

        Args:
            status: The status code.
            raw: The headers.
            body: The body; `None` if it is streamed.

        Raises:
            ValueError: A header is not valid.
        """
        made = cls.__new__(cls)
        made.status, made._body, made.stream = status, body, None
        made.headers = Headers(received(raw))
        return made

    @property
    def body(self) -> bytes | None:
        """The encoded body; `None` if it is streamed. Assigning one corrects `content-length`."""
        return self._body

    @body.setter
    def body(self, body: bytes) -> None:
        self._body, self.stream = body, None
        self.headers.pop("content-length", None)

    @property
    def content(self) -> object:
        """The body: the bytes, or the chunks of a stream."""
        return self._body if self.stream is None else self.stream

    @property
    def media_type(self) -> str | None:
        """The media type without its parameters; `None` if there is none."""
        found = self.headers.get("content-type")
        return found.partition(";")[0].strip() if found else None

    def set_cookie(
        self,
        name: str,
        value: str,
        *,
        max_age: int | None = None,
        path: str = "/",
        domain: str | None = None,
        secure: bool = True,
        httponly: bool = True,
        samesite: SameSite = "lax",
    ) -> None:
        """Set a cookie, beside those that the response sets already.

        The defaults are the safe ones: the cookie is sent over HTTPS only (and, by most browsers,
        to localhost), scripts cannot read it, and other sites' forms do not carry it.

        Args:
            name: The name.
            value: The value, as the client sends it back. Encode what has spaces, quotes, commas,
                semicolons, backslashes or other than ASCII characters.
            max_age: Seconds that the client keeps it; 0 deletes it, `None` keeps it until the
                browser ends.
            path: The path below which the client sends it.
            domain: The domain whose hosts get it; `None` is this host only.
            secure: Whether it is sent over HTTPS only.
            httponly: Whether scripts on the page cannot read it.
            samesite: Whether other sites' requests carry it: `"lax"` on links, `"strict"` never,
                `"none"` always.

        Raises:
            ValueError: The name, the value, `path` or `domain` has a character that cookies cannot
                carry, or `samesite="none"` comes without `secure`.
        """
        text = write_cookie(
            name,
            value,
            max_age=max_age,
            path=path,
            domain=domain,
            secure=secure,
            httponly=httponly,
            samesite=samesite,
        )
        self.headers.add("set-cookie", text)

    def start(self, method: str = "GET") -> Message:
        """Return the ASGI message that starts this response.

        `content-length` is the length of the body, whatever the header says: servers that trust the
        header would send the excess as the beginning of the next response.

        Args:
            method: The request's method; a response to `HEAD` may have a length without a body.
        """
        raw, status, body = self.headers.raw, self.status, self._body
        if body is not None and len(raw) == 1 and raw[0] is _AS_JSON and status == 200:
            raw = [_AS_JSON, (_LENGTH, b"%d" % len(body))]
        elif status in (204, 304):
            raw = [pair for pair in raw if pair[0] != _LENGTH]
        elif body is not None:
            length = b"%d" % len(body)
            for name, value in raw:
                if name == _LENGTH:
                    if value != length and (body or method != "HEAD"):
                        raw = [(n, length if n == _LENGTH else v) for n, v in raw]
                    break
            else:
                raw = [*raw, (_LENGTH, length)]
        return {"type": "http.response.start", "status": status, "headers": raw}

    def silent(self, method: str) -> bool:
        """Return whether the body must not be sent: to `HEAD`, with 204 and with 304."""
        return method == "HEAD" or self.status in (204, 304)

    def whole(self, method: str) -> Message:
        """Return the ASGI message with the body of a response that is not streamed."""
        body = b"" if method == "HEAD" or self.status in (204, 304) else self._body
        return {"type": "http.response.body", "body": body}

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        """Send the response, as an ASGI application."""
        deliver = getattr(send, "deliver", None)
        if deliver is not None:
            deliver(self)
            return
        await send(self.start(scope["method"]))
        if self.stream is None or self.silent(scope["method"]):
            await send(self.whole(scope["method"]))
            return
        async for chunk in self.stream:
            data = to_text(chunk) if isinstance(chunk, str) else chunk
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.media_type or ''}>"


def to_text(content: str) -> bytes:
    """Encode text as UTF-8, with a question mark for a lone surrogate.

    A surrogate has no encoding, and a client can send one: `json.loads` accepts it.
    """
    try:
        return content.encode()
    except UnicodeEncodeError:
        return content.encode("utf-8", "replace")


def to_json(content: object) -> bytes:
    """Encode data as JSON. A lone surrogate is escaped (`\\ud800`), as clients send it.

    Args:
        content: JSON-able data.

    Raises:
        RouteError: The data cannot be encoded.
    """
    try:
        try:
            return _JSON.encode(content)
        except UnicodeEncodeError:
            plain = msgspec.to_builtins(content, str_keys=True, enc_hook=_encode_other)
            return json.dumps(plain, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RouteError(
            f"{type(content).__name__} cannot be encoded as JSON: {error}",
            remedy="Return JSON-able data, str, bytes, a Response or an async iterator.",
        ) from error
