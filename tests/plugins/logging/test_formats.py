"""What a line shows: one record, whatever was logged; no secrets; bounded."""

import dataclasses
import enum
import io
import json
import logging
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veko_plugins.logging import JSONFormatter, Logging, TextFormatter

Emit = Callable[..., str]
FORMATS = ["text", "json"]


class Settings(msgspec.Struct):
    host: str
    password: str


@dataclasses.dataclass
class Login:
    user: str
    api_key: str


class Colour(enum.Enum):
    RED = "red"


class Evil:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


class Quoting:
    def __repr__(self) -> str:
        return "Client(token='s3cret', url='redis://u:s3cret@h')"


@pytest.fixture
def console() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(params=FORMATS)
def emit(request: pytest.FixtureRequest, console: io.StringIO) -> Iterator[Emit]:
    """Log with the standard library, and return what was written."""
    logs = Logging()
    logs.configure("debug", format=request.param, stream=console)

    def emit(message: object, *args: object, **named: Any) -> str:
        console.seek(0)
        console.truncate()
        veko = logging.getLogger("veko")
        veko.propagate = False  # pytest's handler raises where ours must not
        try:
            logging.getLogger("veko.plugin.a").info(message, *args, **named)
        finally:
            veko.propagate = True
        assert logs.lost == 0
        return console.getvalue()

    yield emit
    logs.reset()


def shown(value: object, name: str = "value") -> Any:
    record = logging.makeLogRecord({"msg": "x", "levelno": 20, "levelname": "INFO", name: value})
    return json.loads(JSONFormatter().format(record))[name]


def test_fields_of_the_standard_library_are_written(emit: Emit) -> None:
    line = emit("made %s", "tea", extra={"left": 3, "tags": ["a"]})
    assert "made tea" in line
    assert re.search(r'left"?[=:]3', line)
    assert '["a"]' in line


@pytest.mark.parametrize(
    "text",
    [
        "password=s3cret", "DB_PASSWORD='s3cret x'", "{'api_key': 's3cret'}", '{"token": "s3cret"}',
        "redis://u:s3cret@h", "Authorization: Bearer s3cret-s3cret", "Cookie: sid=s3cret; a=s3cret",
        "sent Bearer s3cret.s3cret.s3cret", "https://h/?access_token=s3cret&x=1",
        "Settings(host='h', password='s3cret')", "client_secret=s3cret,other=1",
    ],
)  # fmt: skip
def test_secrets_are_not_written(emit: Emit, text: str) -> None:
    for line in (
        emit(text),
        emit("x", extra={"field": text}),
        emit("x", extra={"deep": [{"a": text}]}),
    ):
        assert "s3cret" not in line
        assert "********" in line
    try:
        raise ValueError(text)
    except ValueError:
        assert "s3cret" not in emit("x", exc_info=True).replace(repr(text), "")


@pytest.mark.parametrize(
    "value",
    [
        {"password": "s3cret"}, {"a": {"Api-Key": "s3cret"}}, [{"cookie": "s3cret"}],
        Settings("h", "s3cret"), Login("u", "s3cret"), {"deep": [Settings("h", "s3cret")]},
        Quoting(), {"k": Quoting()}, ValueError("token=s3cret"),
    ],
)  # fmt: skip
def test_secrets_in_values_are_not_written(emit: Emit, value: object) -> None:
    line = emit("x", extra={"value": value})
    assert "s3cret" not in line
    assert "********" in line


def test_words_that_only_speak_of_secrets_stay() -> None:
    for text in ("unexpected token: )", "no password was given", "basic authorization is off"):
        record = logging.makeLogRecord({"msg": text, "levelno": 20})
        assert json.loads(JSONFormatter().format(record))["message"] == text


FORGED = "x\n2026-01-01 00:00:00 error   bank  all is lost"


@pytest.mark.parametrize(
    "text", [FORGED, "a\rb", "a\x1b[2Jb", "a\x9b31mb", "a\u2028b", "a\x85b", "a\u202eb", "a\0b"]
)
def test_no_text_forges_a_line_or_controls_a_terminal(emit: Emit, text: str) -> None:
    for line in (
        emit(text), emit("x", extra={"k": text}), emit("x", extra={"k": {"d": text}}),
        emit("x", extra={text: 1}),
    ):  # fmt: skip
        assert len(line.splitlines()) == 1 or line.startswith("{")
        assert line.count("\n") == 1
        assert not set(line.rstrip("\n")) & set("\r\x1b\x9b\x85\0") or line.startswith("{")
        if line.startswith("{"):
            json.loads(line)
            assert not set(line) & set("\r\x1b\0")


def test_lines_of_a_traceback_are_indented(console: io.StringIO) -> None:
    logs = Logging()
    logs.configure("debug", stream=console)
    try:
        raise ValueError(FORGED + "\x1b[2J")
    except ValueError:
        logging.getLogger("veko.plugin.a").exception("failed")
    logs.reset()
    first, *others = console.getvalue().splitlines()
    assert first.endswith("failed")
    assert all(line.startswith("    ") for line in others)
    assert "all is lost\\x1b[2J" in others[-1]


def test_the_name_of_a_logger_forges_nothing(console: io.StringIO) -> None:
    record = logging.makeLogRecord(
        {"msg": "x", "levelno": 20, "name": "veko.plugin.a\nb", "levelname": "IN\nFO"}
    )
    assert "\n" not in TextFormatter().format(record)
    record.levelno = 23
    assert "\n" not in TextFormatter().format(record)


def test_huge_records_are_bounded(emit: Emit) -> None:
    big = "x" * 5_000_000
    for line in (
        emit(big), emit("x", extra={"k": big}), emit("x", extra={"k": list(range(1_000_000))}),
        emit("x", extra={"k": {str(i): i for i in range(100_000)}}),
        emit("x", extra={"k": [[big] * 100] * 100}), emit("x", extra={"k": big.encode()}),
        emit("x", extra={f"k{i}": big for i in range(1000)}), emit("x", extra={"k": 10**100_000}),
    ):  # fmt: skip
        assert 0 < len(line) < 120_000
    try:
        raise ValueError(big)
    except ValueError:
        assert len(emit("x", exc_info=True)) < 120_000


def test_deep_and_endless_values_end(emit: Emit) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    assert "..." in emit("x", extra={"k": deep})
    assert "..." in emit("x", extra={"k": cycle})
    while deep:  # taken apart by hand: the interpreter would recurse
        deep = deep.pop()


@pytest.mark.parametrize(
    ("message", "args"),
    [("%d", ("no number",)), ("%s %s", ("one",)), (Evil(), ()), ("%s", (Evil(),)), (b"\xff", ())],
)
def test_what_cannot_be_formatted_is_written_all_the_same(
    emit: Emit, message: object, args: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert emit(message, *args).count("\n") == 1
    assert emit("x", extra={"evil": Evil(), "fine": 1}).count("fine") == 1
    assert capsys.readouterr().err == ""


def test_values_of_many_types() -> None:
    assert shown(Colour.RED) == "red"
    assert shown(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00+00:00"
    assert shown(uuid.UUID(int=1)) == str(uuid.UUID(int=1))
    assert shown(Decimal("1.50")) == "1.50"
    assert shown({3}) == [3]
    assert shown(float("nan")) is None
    assert shown(b"\xff") == "b'\\xff'"
    assert shown(Settings("h", "p")) == {"host": "h", "password": "********"}
    assert shown("s", "token") == "********"


def test_a_stack_and_the_text_of_an_exception_are_shown(emit: Emit) -> None:
    assert "test_a_stack_and_the_text" in emit("x", stack_info=True)


@given(
    message=st.text(),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    ),
)
def test_any_record_is_one_line_and_valid_json(message: str, value: object) -> None:
    record = logging.makeLogRecord(
        {"msg": "%s", "args": (message,), "levelno": 20, "name": message, "field": value}
    )
    line = JSONFormatter().format(record)
    assert "\n" not in line
    json.loads(line)
    text = TextFormatter().format(record)
    assert len(text.splitlines()) == 1
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in text)
