"""Errors that cross between two Python processes."""

from __future__ import annotations

import msgspec
import pytest

from veko.errors import ConfigError, Fault, LoadError, VekoError
from veko_plugins.http import HTTPError
from veko_plugins.remote.python.errors import error_of
from veko_plugins.remote.python.failures import failure_of
from veko_plugins.remote.python.kinds import kinds


class Broke(LookupError):
    pass


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


def crossed(error: Exception, *, traces: bool = True) -> Exception:
    return error_of(msgspec.json.decode(msgspec.json.encode(failure_of(error, traces=traces))))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad"),
        KeyError("gone"),
        OSError("no disk"),
        VekoError("wrong", plugin="shop", event="a:b", path="/x/y.py", line=3, remedy="Fix it."),
        LoadError("load() raised", step="load", plugin="shop", path="/x/y.py", line=3),
        ConfigError("refused", faults=[Fault("limit", "is missing")], plugin="shop"),
        HTTPError(409, "taken", headers={"retry-after": "3"}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_known_error_is_itself_again(error: Exception) -> None:
    found = crossed(raised(error))
    assert type(found) is type(error)
    assert str(found) == str(error)
    for name in ("plugin", "event", "path", "line", "remedy", "faults", "status", "headers"):
        assert getattr(found, name, None) == getattr(error, name, None), name


def test_any_other_error_is_below_the_nearest_known_one() -> None:
    found = crossed(raised(Broke("lost"), ValueError("before")))
    assert isinstance(found, LookupError)
    assert (type(found).__name__, str(found)) == ("Broke", "lost")
    assert repr(found.__cause__) == "ValueError('before')"
    assert crossed(found).__class__ is found.__class__  # it goes back as it came


def test_a_class_with_the_name_of_anothers_is_not_taken_for_it() -> None:
    class HTTPError(Exception):
        status = "down"

    found = crossed(raised(HTTPError("mine")))
    assert type(found).__name__ == "HTTPError"
    assert not isinstance(found, VekoError)


def test_a_worker_is_not_told_where_in_the_host_an_error_was_raised() -> None:
    error = raised(Broke("lost"), ValueError("secret"))
    for one in (error, crossed(error)):  # one of another worker, too
        text = msgspec.json.encode(failure_of(one, traces=False)).decode()
        assert "lost" in text
        assert "test_errors" not in text.replace(Broke.__module__, "")
        assert "secret" not in text


def test_marks_that_are_malformed_are_the_workers_fault() -> None:
    decode = kinds().decode
    for kind, sent in (
        ("stored", b"\xc1"), ("stored", b"\xc7\x01\x63\x00"), ("stored", "text"), ("error", [1]),
        ("named", 3), ("stored", msgspec.msgpack.encode([1]) + b"x"),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            decode[kind](sent)


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"type": 3, "message": None},
        {"type": "HTTPError", "message": "x", "status": 999},
        {"type": "OSError", "message": "x", "more": {"frames": [[1], None, ["f", -5, "g"]]}},
        {"type": "A", "message": "x", "more": {"bases": ["VekoError", 7], "faults": 3, "notes": 1}},
        {"type": "A", "message": "x", "more": {"group": [3, {}], "cause": "no", "counts": False}},
        {"type": "UnicodeDecodeError", "message": "x", "more": {"module": "builtins"}},
        {"type": "a\0b", "message": "\0", "more": {"module": "x\0", "frames": [["\0", 1, "\0"]]}},
        {"type": "x" * 10_000, "message": "x", "more": {"path": "\0", "bases": ["VekoError"]}},
        {"type": "SystemExit", "message": "3", "more": {"module": "builtins"}},
    ],
)
def test_whatever_a_worker_sends_becomes_an_exception(sent: dict[str, object]) -> None:
    found = error_of(sent)
    assert isinstance(found, Exception)
    assert isinstance(str(found), str)
    failure_of(found)
