"""The backend: one connection, and a consumer for each time that all entries are read or followed.

The client's own reconnecting is off: what it keeps meanwhile would be sent behind the engine's
back. A lost connection fails what waits for it, and the next call makes a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit, urlunsplit

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import (
    ConnectionClosedError,
    ConnectionDrainingError,
    ConnectionReconnectingError,
    MaxPayloadError,
    NoRespondersError,
    NoServersError,
    StaleConnectionError,
)
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError, NotFoundError
from veko.errors import OptionError, StorageError
from veko_plugins.storage import (
    HEARTBEAT,
    Changes,
    Contents,
    Lagged,
    Record,
    Unreachable,
    location_of,
    split_prefix,
)

from .._storage import OneChange
from ._inbox import Inbox
from ._messages import Message, clear_subject, messages, read, subject, value_of

__all__ = ["NatsBackend"]

# Seconds.
_CONNECT: Final = 3.0
_ANSWER: Final = 4.0
_WAIT: Final = 0.5 * HEARTBEAT
# Messages that a transaction may have, by the server's default.
_MOST: Final = 1_000
# The server's codes for errors.
_WRONG_SEQUENCE: Final = frozenset({10071, 10164})
_DUPLICATE: Final = 10201
_EXISTS: Final = 10058
_GONE: Final = (
    OSError,
    ConnectionClosedError,
    ConnectionDrainingError,
    ConnectionReconnectingError,
    NatsTimeoutError,
    NoRespondersError,
    NoServersError,
    StaleConnectionError,
)


class _Refused(Exception):
    """The server answered with an error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class NatsBackend:
    """A NATS server or cluster; see `StorageBackend`.

    Args:
        url: Its URL.

    Raises:
        OptionError: The URL is not valid.
    """

    def __init__(self, url: str) -> None:
        self.location = location_of(url)
        url, self._bucket = split_prefix(url)
        parts = urlsplit(url)
        parameters = parse_qs(parts.query)
        replicas = parameters.pop("replicas", ["1"])[-1]
        if parameters or not replicas.isdecimal() or not parts.netloc:
            raise OptionError(
                f"storage {self.location} is not valid",
                remedy="Use nats://user:password@host:port?prefix=veko&replicas=1",
            )
        login, _, hosts = parts.netloc.rpartition("@")
        login = f"{login}@" if login else ""
        self._servers = [
            urlunsplit((parts.scheme, f"{login}{host}", "", "", "")) for host in hosts.split(",")
        ]
        self._replicas = int(replicas)
        self._stream = f"KV_{self._bucket}"
        self._client: Client | None = None
        self._connecting = asyncio.Lock()
        self._limits: set[asyncio.Timeout] = set()
        self._inboxes: set[Inbox] = set()

    async def open(self) -> None:
        """Connect, and create the bucket if it is missing."""
        async with self._connection() as client:
            try:
                config = (await self._ask(client, f"STREAM.INFO.{self._stream}"))["config"]
            except NotFoundError:
                config = await self._create(client)
        missing = [name for name in ("allow_atomic", "allow_msg_ttl") if not config.get(name)]
        if missing:
            raise StorageError(
                f"{self.location}: the bucket {self._bucket!r} was not made by Veko, or the server "
                f"is older than NATS 2.12 (it has no {', '.join(missing)})",
                remedy="Name another bucket with ?prefix=, or use a newer server",
            )

    async def _create(self, client: Client) -> dict[str, Any]:
        wanted = {
            "name": self._stream,
            "subjects": [f"$KV.{self._bucket}.>"],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "num_replicas": self._replicas,
            "max_msgs_per_subject": 1,
            "duplicate_window": 120 * 10**9,
            "deny_delete": True,
            "allow_rollup_hdrs": True,
            "allow_direct": True,
            "allow_atomic": True,
            "allow_msg_ttl": True,
        }
        try:
            answer = await self._ask(client, f"STREAM.CREATE.{self._stream}", wanted)
        except _Refused as error:
            if error.code != _EXISTS:
                raise
            answer = await self._ask(client, f"STREAM.INFO.{self._stream}")
        config: dict[str, Any] = answer["config"]
        return config

    async def load(self) -> Contents:
        """Return all entries."""
        entries: dict[str, dict[str, bytes]] = {}
        async with self._connection() as client:
            info = await self._ask(client, f"STREAM.INFO.{self._stream}")
            last: int = info["state"]["last_seq"]
            if not info["state"]["messages"]:
                return Contents(entries, last)
            async with self._consumer(client, DeliverPolicy.LAST_PER_SUBJECT) as inbox:
                while True:
                    if not await inbox.wait(_ANSWER):
                        raise Unreachable(f"{self.location} does not send its entries")
                    message = inbox.arrived.popleft()
                    data = message.metadata
                    record = read(data.sequence.stream, message.data)
                    if record is not None:
                        _keep(entries, record)
                    last = max(last, data.sequence.stream)
                    if not data.num_pending:
                        return Contents(entries, last)

    async def follow(self, revision: int) -> AsyncIterator[Sequence[Record]]:
        """Yield the changes after a revision."""
        async with (
            self._connection(ends=False) as client,
            self._consumer(client, DeliverPolicy.BY_START_SEQUENCE, revision + 1) as inbox,
        ):
            number = 0
            while True:
                if not await inbox.wait(_WAIT):
                    await self._still_there(client, inbox, number)
                    yield ()
                    continue
                found: list[Record] = []
                while inbox.arrived and len(found) < _MOST:
                    message = inbox.arrived.popleft()
                    number += 1
                    data = message.metadata
                    if data.sequence.consumer != number:
                        raise Lagged(f"{self.location}: messages were lost")
                    record = read(data.sequence.stream, message.data)
                    found.append(record or Record(data.sequence.stream, "", {}))
                yield found

    async def _still_there(self, client: Client, inbox: Inbox, number: int) -> None:
        try:
            info = await self._ask(client, f"CONSUMER.INFO.{self._stream}.{inbox.consumer}")
        except NotFoundError:
            raise Lagged(f"{self.location}: the server was restarted") from None
        if info["delivered"]["consumer_seq"] != number and not inbox.arrived:
            raise Lagged(f"{self.location}: messages were lost")

    async def write(self, changes: Sequence[Changes], token: str) -> int:
        """Carry out changes, in one transaction if they are not too many."""
        parts = list(messages(self._bucket, changes))
        revision = 0
        async with self._connection() as client:
            try:
                if not parts:
                    return await self._last(client)
                if len(parts) == 1:
                    name, payload, headers = parts[0]
                    revision = await self._publish(
                        client, name, payload, {**headers, "Nats-Msg-Id": token}
                    )
                carry_out = self._commit if any(one.whole for one in changes) else self._publish_all
                for at in range(0, len(parts) if len(parts) > 1 else 0, _MOST):
                    revision = await carry_out(client, parts[at : at + _MOST], f"{token}-{at}")
            except _Refused as error:
                raise self._refusal(error) from None
            for one in changes:
                if one.cleared:
                    await self._purge(client, one.namespace)
        return revision

    async def _commit(self, client: Client, parts: list[Message], token: str) -> int:
        batch = uuid.uuid4().hex
        *others, last = parts
        common = {"Nats-Batch-Id": batch}
        for number, (name, payload, headers) in enumerate(others, 1):
            await client.publish(
                name, payload, headers={**headers, **common, "Nats-Batch-Sequence": str(number)}
            )
        name, payload, headers = last
        closing = {
            "Nats-Batch-Sequence": str(len(parts)),
            "Nats-Batch-Commit": "1",
            "Nats-Msg-Id": token,
        }
        try:
            return await self._publish(client, name, payload, {**headers, **common, **closing})
        except _Refused as error:
            if error.code != _DUPLICATE:
                raise
            return await self._last(client)  # it was carried out, not later than this

    async def _publish_all(self, client: Client, parts: list[Message], token: str) -> int:
        """Publish entries that need no transaction, which costs the server 20 ms, all at once."""
        if any(len(payload) > client.max_payload for _, payload, _ in parts):
            raise MaxPayloadError  # before the first is stored
        revision, name = 0, client.new_inbox()
        async with self._inbox(client, f"{name}.*") as inbox:
            for number, (to, payload, headers) in enumerate(parts):
                unique = {**headers, "Nats-Msg-Id": f"{token}-{number}"}
                await client.publish(to, payload, reply=f"{name}.{number}", headers=unique)
            for _ in parts:
                if not await inbox.wait(_ANSWER):
                    raise Unreachable(f"{self.location} does not answer")
                answer = _checked(json.loads(inbox.arrived.popleft().data))
                revision = max(revision, answer["seq"])
        return revision

    async def _purge(self, client: Client, namespace: str) -> None:
        """Remove what a marker has emptied. It only saves space: the marker has the effect."""
        name = clear_subject(self._bucket, namespace)
        marker = await self._get(client, name)
        if marker is not None:
            wanted = {"filter": f"{name.rpartition('.')[0]}.>", "seq": _sequence(marker)}
            with contextlib.suppress(_Refused):
                await self._ask(client, f"STREAM.PURGE.{self._stream}", wanted)

    async def get(self, namespace: str, key: str) -> bytes | None:
        """Return the encoded value of an entry, or `None`."""
        async with self._connection() as client:
            return (await self._entry(client, namespace, key))[0]

    async def _entry(self, client: Client, namespace: str, key: str) -> tuple[bytes | None, int]:
        """Return an entry's value, and the number of its last message."""
        found = await self._get(client, subject(self._bucket, namespace, key))
        if found is None:
            return None, 0
        value, sequence = value_of(found.data), _sequence(found)
        if value is not None:
            marker = await self._get(client, clear_subject(self._bucket, namespace))
            if marker is not None and _sequence(marker) > sequence:
                value = None
        return value, sequence

    async def compare_and_set(
        self, namespace: str, key: str, expected: bytes | None, value: bytes | None, token: str
    ) -> int | None:
        """Set or delete an entry if its encoded value is the expected one."""
        ((name, payload, headers),) = messages(self._bucket, [OneChange(namespace, {key: value})])
        async with self._connection() as client:
            found = await self._get(client, name)
            if found is not None and (found.headers or {}).get("Nats-Msg-Id") == token:
                return _sequence(found)  # carried out before; its answer was lost
            current, sequence = await self._entry(client, namespace, key)
            if current != expected:
                return None
            condition = {
                "Nats-Msg-Id": token,
                "Nats-Expected-Last-Subject-Sequence": str(sequence),
            }
            try:
                return await self._publish(client, name, payload, {**headers, **condition})
            except _Refused as error:
                if error.code in _WRONG_SEQUENCE:
                    return None
                raise self._refusal(error) from None

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await _ended(client)

    def _refusal(self, error: _Refused) -> StorageError:
        return StorageError(f"{self.location} refuses: {error}")

    async def _last(self, client: Client) -> int:
        info = await self._ask(client, f"STREAM.INFO.{self._stream}")
        last: int = info["state"]["last_seq"]
        return last

    async def _get(self, client: Client, name: str) -> Msg | None:
        found = await client.request(
            f"$JS.API.DIRECT.GET.{self._stream}.{name}", b"", timeout=_ANSWER
        )
        status = (found.headers or {}).get("Status")
        if status is not None and status != "404":
            raise Unreachable(f"{self.location} cannot read now: status {status}")
        return None if status else found

    async def _publish(
        self, client: Client, name: str, payload: bytes, headers: dict[str, str]
    ) -> int:
        answer = await client.request(name, payload, timeout=_ANSWER, headers=headers)
        revision: int = _checked(json.loads(answer.data))["seq"]
        return revision

    async def _ask(self, client: Client, what: str, body: object = None) -> dict[str, Any]:
        data = b"" if body is None else json.dumps(body).encode()
        answer = await client.request(f"$JS.API.{what}", data, timeout=_ANSWER)
        return _checked(json.loads(answer.data))

    @asynccontextmanager
    async def _consumer(
        self, client: Client, policy: DeliverPolicy, start: int | None = None
    ) -> AsyncIterator[Inbox]:
        """Yield a subscription with the messages of the bucket, in order, each once."""
        name = client.new_inbox()
        config = ConsumerConfig(
            deliver_policy=policy,
            opt_start_seq=start,
            ack_policy=AckPolicy.NONE,
            deliver_subject=name,
            filter_subject=f"$KV.{self._bucket}.>",
            mem_storage=True,
            num_replicas=1,
            inactive_threshold=30.0,
            max_deliver=1,
        )
        js = client.jetstream(timeout=_ANSWER)
        async with self._inbox(client, name) as inbox:
            made = await js.add_consumer(self._stream, config)
            inbox.consumer = made.name
            yield inbox
            await js.delete_consumer(self._stream, made.name)

    @asynccontextmanager
    async def _inbox(self, client: Client, name: str) -> AsyncIterator[Inbox]:
        """Yield what keeps the messages to a subject."""
        inbox = Inbox(client)
        subscription = await client.subscribe(
            name, cb=inbox.take, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        self._inboxes.add(inbox)
        try:
            yield inbox
        finally:
            self._inboxes.discard(inbox)
            with contextlib.suppress(NatsError, OSError):
                await subscription.unsubscribe()
            # The client leaves its task behind if the connection was closed meanwhile.
            subscription._stop_processing()

    @asynccontextmanager
    async def _connection(self, *, ends: bool = True) -> AsyncIterator[Client]:
        """Yield the connection; it is given up if it fails.

        Args:
            ends: Whether what waits ends when the connection is lost; the client's requests would
                wait for their time limit. What yields in between must notice it by itself.
        """
        client: Client | None = None
        try:
            async with self._connecting:
                client = self._client
                if client is None or not client.is_connected:
                    client = self._client = await self._connect()
            if not ends:
                yield client
                return
            async with asyncio.timeout(None) as limit:
                self._limits.add(limit)
                try:
                    yield client
                finally:
                    self._limits.discard(limit)
        except MaxPayloadError:
            raise StorageError(
                f"{self.location} refuses: the value is larger than the server's max_payload",
                remedy="Raise max_payload in the server's configuration, or store less",
            ) from None
        except (*_GONE, TimeoutError) as error:
            await self._give_up(client)
            why = str(error) or type(error).__name__
            raise Unreachable(f"{self.location} is not reached: {why}") from None
        except NotFoundError as error:
            raise StorageError(
                f"{self.location}: the bucket {self._bucket!r} is gone: {error}",
                remedy="Start the application again, which creates it",
            ) from None
        except APIError as error:
            raise Unreachable(f"{self.location} cannot answer now: {error}") from None
        except NatsError as error:
            await self._give_up(client)
            raise self._login_refused(str(error)) from None

    async def _give_up(self, client: Client | None) -> None:
        if client is not None:
            if self._client is client:
                self._client = None
            await _ended(client)

    async def _connect(self) -> Client:
        refused: list[str] = []

        async def on_error(error: Exception) -> None:
            refused.append(str(error))

        async def on_loss() -> None:
            for limit in [*self._limits]:
                limit.reschedule(asyncio.get_running_loop().time())
            self._limits.clear()
            for inbox in self._inboxes:
                inbox.wake.set()

        client = Client()
        try:
            async with asyncio.timeout(_CONNECT):
                await client.connect(
                    self._servers,
                    error_cb=on_error,
                    disconnected_cb=on_loss,
                    allow_reconnect=False,
                    connect_timeout=2,
                    max_reconnect_attempts=1,
                    ping_interval=5,
                    max_outstanding_pings=2,
                )
        except BaseException as error:
            await _ended(client)
            if not isinstance(error, (*_GONE, NatsError)):
                raise
            logins = [text for text in refused if "uthoriz" in text or "uthent" in text]
            if logins:
                raise self._login_refused(logins[0]) from None
            raise
        return client

    def _login_refused(self, why: str) -> StorageError:
        if "uthoriz" not in why and "uthent" not in why:
            return StorageError(f"{self.location} refuses: {why}")
        return StorageError(
            f"{self.location} refuses the login: {why}",
            remedy="Check user and password in the URL",
        )


async def _ended(client: Client) -> None:
    with contextlib.suppress(NatsError, OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            await client.close()
    # Closing ends the tasks of subscriptions last, and not at all if writing to a dead server fails
    # before; a subscription that was just being made is missed, too.
    for subscription in tuple(client._subs.values()):
        subscription._stop_processing()


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    error = answer.get("error")
    if error is None:
        return answer
    if error.get("code") == 404:
        raise NotFoundError.from_error(error)
    if error.get("code") == 503:
        raise APIError.from_error(error)
    raise _Refused(error.get("err_code", 0), str(error.get("description")))


def _sequence(message: Msg) -> int:
    return int((message.headers or {})["Nats-Sequence"])


def _keep(entries: dict[str, dict[str, bytes]], record: Record) -> None:
    if record.cleared:
        entries.pop(record.namespace, None)
    for key, value in record.entries.items():
        if value is None:
            entries.get(record.namespace, {}).pop(key, None)
        else:
            entries.setdefault(record.namespace, {})[key] = value
