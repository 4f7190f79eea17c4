"""Response: what goes back, whole or as a stream.

It is an ASGI application too, so that any framework can send it; where Veko itself waits at the
other end of `send`, it goes there as it is, and nothing is taken apart and put together again.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping

import msgspec

from veko.errors import RouteError

from .asgi import ASGISend, Message, Receive, Scope
from .headers import Headers, received

__all__ = ["Response", "to_json"]


def _encode_other(value: object) -> object:
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json")
    if callable(path := getattr(value, "__fspath__", None)):
        return path()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON-able data")


_JSON = msgspec.json.Encoder(enc_hook=_encode_other)


_AS_JSON = (b"content-type", b"application/json")
_AS_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_AS_BYTES = (b"content-type", b"application/octet-stream")
_LENGTH = b"content-length"


class Response:
    """What is sent back.

    Args:
        content: `str`, `bytes`, an async iterator of either (streamed), or JSON-able data;
            `None` is an empty body.
        status: The status code.
        headers: Headers; what could begin another header is refused.
        media_type: The media type; found out from the content if left out.

    Attributes:
        status: The status code.
        stream: The chunks of a streamed body, else `None`.

    Raises:
        ValueError: A header is not fit to be sent.
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
            self._body, found = content.encode(), _AS_TEXT
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
        """Turn what a handler returned into a response; `None` is a 204."""
        if isinstance(answer, Response):
            return answer
        return cls(answer) if answer is not None else cls(status=204)

    @classmethod
    def received(
        cls, status: int, raw: Iterable[tuple[bytes, bytes]], body: bytes | None
    ) -> Response:
        """Make a response of the messages that a framework sent; a `None` body is streamed."""
        made = cls.__new__(cls)
        made.status, made._body, made.stream = status, body, None
        made.headers = Headers(received(raw))
        return made

    @property
    def body(self) -> bytes | None:
        """The encoded body; `None` if it is streamed. Setting it makes its length right again."""
        return self._body

    @body.setter
    def body(self, body: bytes) -> None:
        self._body, self.stream = body, None
        self.headers.pop("content-length", None)

    @property
    def content(self) -> object:
        """The body: bytes, or the chunks of a stream."""
        return self._body if self.stream is None else self.stream

    @property
    def media_type(self) -> str | None:
        """The media type without parameters."""
        found = self.headers.get("content-type")
        return found.partition(";")[0].strip() if found else None

    def start(self, method: str = "GET") -> Message:
        """Return the ASGI message that begins this response.

        A body has the length that it has, whatever a header says: servers that believe the header
        send what is too much as the beginning of the next response.

        Args:
            method: What was asked; to `HEAD` a length without its body is right.
        """
        raw, status, body = self.headers.raw, self.status, self._body
        if status in (204, 304):
            raw = [pair for pair in raw if pair[0] != _LENGTH]
        elif body is not None:
            length = b"%d" % len(body)
            for name, told in raw:
                if name == _LENGTH:
                    if told != length and (body or method != "HEAD"):
                        raw = [(n, length if n == _LENGTH else value) for n, value in raw]
                    break
            else:
                raw = [*raw, (_LENGTH, length)]
        return {"type": "http.response.start", "status": status, "headers": raw}

    def silent(self, method: str) -> bool:
        """Tell whether no body goes out, whatever there is of it."""
        return method == "HEAD" or self.status in (204, 304)

    def whole(self, method: str) -> Message:
        """Return the ASGI message that ends this response, unless that is a stream."""
        body = b"" if self.silent(method) else self._body
        return {"type": "http.response.body", "body": body}

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        """Send it, as an ASGI application."""
        deliver = getattr(send, "deliver", None)
        if deliver is not None:
            deliver(self)
            return
        await send(self.start(scope["method"]))
        if self.stream is None or self.silent(scope["method"]):
            await send(self.whole(scope["method"]))
            return
        async for chunk in self.stream:
            data = chunk.encode() if isinstance(chunk, str) else chunk
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.media_type or ''}>"


def to_json(content: object) -> bytes:
    """Encode data that a handler sends.

    Raises:
        RouteError: It cannot be encoded.
    """
    try:
        return _JSON.encode(content)
    except (TypeError, ValueError, RecursionError) as error:
        raise RouteError(
            f"{type(content).__name__} cannot be sent: {error}",
            remedy="Return JSON-able data, str, bytes, a Response or an async iterator.",
        ) from error
