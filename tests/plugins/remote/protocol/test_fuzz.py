"""Whatever a worker sends, its connection ends with a named error or goes on; the loop never fails.

Each test also asks the host for something else while it happens: it must be answered.
"""

import asyncio
import gc
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veko_plugins.remote.protocol import Connection, ConnectionLost, ProtocolError

from .pair import Raw, packed, raw_pair

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
TAGS = st.sampled_from(
    ["hello", "call", "ok", "fail", "cancel", "note", "drop", "ping", "pong", "?"]
)
MESSAGES = st.tuples(TAGS, *[JSON] * 4).flatmap(
    lambda parts: st.integers(1, 5).map(lambda size: list(parts[:size]))
)
IDS = st.integers(-1, 5) | st.sampled_from([2**53, 2**64, 10**30])
MARKS = st.sampled_from(
    ["fn", "iter", "own", "bytes", "text", "date", "set", "error", "request", "?", None, 1]
)


async def settled(host: Connection, raw: Raw, text: bytes) -> ConnectionLost | None:
    """Send bytes and a ping; return why the connection ended, or `None` if it answered."""
    failures: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    try:
        await raw.send(text + packed(["ping", 7]))
        while True:
            if host.closed:
                return host.reason
            message = await asyncio.wait_for(raw.hear(), 5)
            if message == ["pong", 7]:
                return None
    except (EOFError, ConnectionError):
        await asyncio.sleep(0)
        return host.reason
    finally:
        loop.set_exception_handler(None)
        assert failures == []


def methods() -> dict[str, Any]:
    async def later(*args: Any) -> Any:
        await asyncio.sleep(0)
        return args

    return {"echo": lambda *args: args, "later": later, "give": lambda: [print, later]}


def run(text_of: Any) -> ConnectionLost | None:
    async def one() -> ConnectionLost | None:
        notes = {"n": lambda *args: None}
        async with raw_pair(methods=methods(), notes=notes) as (host, raw):
            pending = asyncio.ensure_future(host.call("asked"))
            await raw.hear()
            try:
                return await settled(host, raw, text_of(raw))
            finally:
                pending.cancel()
                await asyncio.wait([pending])

    ended = asyncio.run(one())
    assert ended is None or str(ended).startswith("the worker of p ")
    return ended


@given(st.binary(max_size=200))
def test_garbage_bytes(data: bytes) -> None:
    # A length that is not complete is waited for: here the ping is taken for the rest of it.
    if len(data) >= 8 and struct.unpack(">I", data[:4])[0] > 2**10:
        run(lambda raw: data)
    else:
        run(lambda raw: data + bytes(2**11))


@given(st.binary(max_size=100), st.binary(max_size=20))
def test_frames_that_are_not_json(text: bytes, tail: bytes) -> None:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        ended = run(lambda raw: packed(text, tail))
        assert isinstance(ended, ProtocolError)


@given(JSON | MESSAGES)
def test_messages_of_wrong_shapes(message: Any) -> None:
    run(lambda raw: packed(message))


@given(st.lists(st.tuples(TAGS, IDS, IDS, st.lists(IDS, max_size=2)), max_size=6))
def test_wrong_ids_and_handles(parts: list[Any]) -> None:
    def text(raw: Raw) -> bytes:
        shapes = {
            "call": lambda a, b, c: ["call", a, b, c, 0],
            "ok": lambda a, b, c: ["ok", a, b],
            "fail": lambda a, b, c: ["fail", a, {"type": "E", "message": "m"}],
            "note": lambda a, b, c: ["note", a, c],
            "drop": lambda a, b, c: ["drop", [[a, b]]],
        }
        made = [shapes.get(tag, lambda a, b, c, t=tag: [t, a])(a, b, c) for tag, a, b, c in parts]
        return b"".join(map(packed, made))

    run(text)


@given(st.lists(st.tuples(MARKS, st.lists(JSON | IDS, max_size=3)), max_size=3), st.binary())
def test_malformed_marks(marks: list[Any], tail: bytes) -> None:
    def text(raw: Raw) -> bytes:
        args = [{raw.nonce: [kind, *rest]} for kind, rest in marks]
        return packed(["call", 1, "echo", args, 0], tail)

    run(text)


@given(st.data())
def test_a_frame_cut_anywhere_is_waited_for(data: st.DataObject) -> None:
    async def one() -> None:
        heard: list[Any] = []
        async with raw_pair(notes={"n": heard.append}) as (host, raw):
            text = packed(["note", "n", ["é" * 20]]) * 3
            cut = data.draw(st.integers(0, len(text)))
            await raw.send(text[:cut])
            await asyncio.sleep(0)
            await raw.send(text[cut:])
            await settled(host, raw, b"")
            assert heard == ["é" * 20] * 3

    asyncio.run(one())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (struct.pack(">II", 2**30, 10), "sent a frame of 1073741820 bytes, at most 16777216 are"),
        (struct.pack(">II", 2**32 - 1, 2**32 - 1), "sent a frame of 4294967291 bytes"),
        (struct.pack(">II", 2**23, 2**22), "sent 4194304 bytes of JSON in one frame, at most 1048"),
        (struct.pack(">II", 20, 100), "sent a frame of 20 bytes that claims to hold 100 bytes of"),
        (struct.pack(">II", 0, 0), "sent a frame of 0 bytes that claims"),
        (packed(b""), "sent a frame that is not JSON"),
        (packed(b"[" * 500_000), "sent a message that is nested too deeply"),
        (packed(b'["note","n",' + b"[" * 900 + b"]" * 900 + b"]"), None),
        (packed(["ok", 1, None]) * 2, "answered the call 1, which does not wait for an answer"),
        (packed(["ok", 99, None]), "answered the call 99, which does not wait for an answer"),
        (packed(["call", 5, "echo", [], 0]) * 2, "used the call id 5 after 5"),
        (packed(["call", 1, 77, [], 0]), "used the handle 77, which it was never given"),
        (packed(["call", 1, "delete", [], 0]), "called 'delete', which does not exist"),
        (packed(["note", "delete", []]), "called 'delete', which does not exist"),
        (packed(["drop", [[1, 1]]]), "dropped the handle 1, which it was never given"),
        (packed(["cancel", 3]), "cancelled the call 3, which it did not make"),
        (packed(["pong", 3]), "answered the ping 3, which was not sent"),
        (packed(["hello", {"protocol": 1}]), "sent 'hello' twice"),
        (packed(["call", 0, "echo", [], 0]), "sent a message that does not fit"),
        (packed(["call", 1, "echo", [], 0, 0]), "sent a message that does not fit"),
    ],
)
def test_what_breaks_the_protocol_is_named(text: bytes, named: str | None) -> None:
    ended = run(lambda raw: text)
    if named is None:
        assert ended is None
    else:
        assert isinstance(ended, ProtocolError)
        assert str(ended).startswith(f"the worker of p {named}")


async def test_a_handle_that_is_given_once_is_not_dropped_twice() -> None:
    async with raw_pair(methods=methods()) as (host, raw):
        await raw.say(["call", 1, "give", [], 0])
        kind, _, value = await raw.hear()
        assert kind == "ok"
        handle = value[0][raw.nonce][1]
        reason = await settled(host, raw, packed(["drop", [[handle, 1]]]))
        assert reason is None
        reason = await settled(host, raw, packed(["drop", [[handle + 1, 2]]]))
        assert "dropped the handle 2 2 times, but was given it 1 times" in str(reason)


async def test_calling_what_was_withdrawn_fails_that_call_alone() -> None:
    async with raw_pair() as (host, raw):
        lent = host.lend(lambda: 1, "next")
        call = asyncio.ensure_future(host.call("take", lent))
        mark = (await raw.hear())[3][0][raw.nonce]
        lent.withdraw()
        await raw.say(["call", 1, mark[1], [], 0])
        kind, _, failure = await raw.hear()
        assert (kind, failure["type"]) == ("fail", "GoneError")
        await raw.say(["drop", [[mark[1], 1]]])
        await raw.say(["ok", 1, {raw.nonce: ["own", mark[1]]}])
        with pytest.raises(Exception, match="was withdrawn by its owner"):
            await call
        assert await settled(host, raw, b"") is None


FLOOD = """
import json, socket, struct, sys, threading, time
form, nonce = sys.argv[2:]
sock = socket.socket(fileno=int(sys.argv[1]))
sock.setblocking(True)
def packed(text):
    return struct.pack(">II", 4 + len(text), len(text)) + text
def swallow():
    try:
        while sock.recv(2**16):
            pass
    except OSError:
        pass
threading.Thread(target=swallow, daemon=True).start()
end, number = time.monotonic() + 1, 1
while time.monotonic() < end:
    if form == "notes":
        data = packed(b'["note","n",[]]') * 1000
    elif form == "large":
        data = packed(b'["note","n",[' + b"[]," * 340_000 + b"1]]")
    elif form == "handles":
        marks = [{nonce: ["fn", number + i, "f"]} for i in range(1000)]
        data = packed(json.dumps(["note", "n", marks]).encode())
    else:
        calls = [["call", number + i, form, [], 0] for i in range(1000)]
        data = b"".join(packed(json.dumps(call).encode()) for call in calls)
    number += 1000
    sock.sendall(data)
"""
"""Sends as fast as it can for a second."""


@pytest.fixture
def alone() -> Iterator[None]:
    """Let no collection of garbage look at what thousands of other tests have left."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("form", ["notes", "later", "wait", "large", "handles"])
async def test_a_flood_leaves_the_host_answering(form: str) -> None:
    hang = asyncio.Event()
    options = {"methods": methods() | {"wait": hang.wait}, "notes": {"n": lambda *args: None}}
    async with raw_pair(**options) as (host, raw):
        raw.sock.setblocking(True)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FLOOD, str(raw.sock.fileno()), form, raw.nonce,
            pass_fds=[raw.sock.fileno()],
        )  # fmt: skip
        ended = asyncio.ensure_future(process.wait())
        # In time of this thread: other processes on the machine are no fault of the host's.
        gaps: list[float] = []
        last = time.thread_time()
        while not ended.done():
            await asyncio.sleep(0.001)
            gaps.append((now := time.thread_time()) - last)
            last = now
        # Twice in a thousand, a full collection of garbage may fall on top of a large frame.
        assert sorted(gaps)[-3] < 0.1
        assert max(gaps) < 0.3
        assert ended.result() == 0
        assert host.closed is False
        hang.set()


async def test_a_flood_of_calls_whose_answers_are_not_read_is_cut_off() -> None:
    async with raw_pair(methods={"large": lambda: b"x" * 2**18}, limit=2**18) as (host, raw):
        number = 0
        with pytest.raises(OSError):  # noqa: PT012 (it may be any of them)
            while not host.closed:
                number += 1
                await raw.say(["call", number, "large", [], 0])
                await asyncio.sleep(0)
            raise OSError
        assert "left" in str(host.reason)
        assert "bytes unread" in str(host.reason)
        assert number < 200
