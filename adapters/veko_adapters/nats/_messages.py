"""How entries are messages in the stream of a key-value bucket.

A subject is `$KV.<bucket>.<namespace>.<key>`, both in base64; long ones by their hash, because a
subject is limited to some 4,000 bytes. The payload has namespace, key and value, so no subject is
ever decoded. A deleted entry is a marker, which the server removes after an hour. The key `=`,
which base64 cannot yield here, is a marker that empties the namespace: all before it is gone.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import msgspec

from veko_plugins.storage import Changes, Record

__all__ = ["DELETE", "Message", "clear_subject", "messages", "read", "subject", "value_of"]

Message: TypeAlias = tuple[str, bytes, dict[str, str]]

DELETE: Final = "DEL"
_OPERATION: Final = "KV-Operation"
_CLEAR: Final = "="
# A subject has two such parts, and NATS limits a protocol line to 4,096 bytes.
_LONGEST: Final = 1_000
_GONE: Final = {_OPERATION: DELETE, "Nats-TTL": "1h"}

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[str, str | None, bytes | None]).decode


def _part(name: str) -> str:
    part = base64.urlsafe_b64encode(name.encode()).rstrip(b"=").decode()
    if len(part) <= _LONGEST:
        return part
    return "=" + hashlib.sha256(name.encode()).hexdigest()


def subject(bucket: str, namespace: str, key: str) -> str:
    """Return the subject of an entry."""
    return f"$KV.{bucket}.{_part(namespace)}.{_part(key)}"


def clear_subject(bucket: str, namespace: str) -> str:
    """Return the subject of what empties a namespace."""
    return f"$KV.{bucket}.{_part(namespace)}.{_CLEAR}"


def messages(bucket: str, changes: Sequence[Changes]) -> Iterator[Message]:
    """Return the messages that carry out changes: subject, payload, headers."""
    for one in changes:
        if one.cleared:
            payload = _encode((one.namespace, None, None))
            yield clear_subject(bucket, one.namespace), payload, {}
        for key, value in one.entries.items():
            if value is None and one.cleared:
                continue
            payload = _encode((one.namespace, key, value))
            name = subject(bucket, one.namespace, key)
            yield name, payload, {} if value is not None else dict(_GONE)


def read(revision: int, payload: bytes) -> Record | None:
    """Return the change that a message is; `None` for a marker that the server itself made."""
    if not payload:
        return None
    namespace, key, value = _decode(payload)
    if key is None:
        return Record(revision, namespace, {}, cleared=True)
    return Record(revision, namespace, {key: value})


def value_of(payload: bytes) -> bytes | None:
    """Return the encoded value in an entry's message, or `None` if it marks a deletion."""
    return _decode(payload)[2] if payload else None
