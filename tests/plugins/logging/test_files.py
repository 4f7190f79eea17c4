"""Log files: several processes on one, rotation, disks that are full, files that others move."""

import contextlib
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from veko import OptionError
from veko_plugins.logging import Logging
from veko_plugins.logging.files import LogFile

SECONDS = 60.0
WRITER = """
import logging, sys, io
from veko_plugins.logging import Logging
logs = Logging()
file, number, count, most, backups = sys.argv[1], *map(int, sys.argv[2:])
logs.configure("info", file, "json", stream=io.StringIO(), max_bytes=most, backups=backups)
log = logging.getLogger("veko.plugin.writer")
print("ready", flush=True)
sys.stdin.readline()
for i in range(count):
    log.info("line", extra={"writer": number, "i": i, "text": "x" * (i % 200)})
assert logs.lost == 0
logs.reset()
"""


@pytest.fixture
def logs() -> Iterator[Logging]:
    logs = Logging()
    yield logs
    logs.reset()


def record(text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "veko.plugin.a", "msg": text, "levelno": 20})


@contextlib.contextmanager
def log_file(path: Path, most: int = 0, backups: int = 3) -> Iterator[LogFile]:
    file = LogFile(path, most, backups)
    try:
        yield file
    finally:
        file.close()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def all_lines(path: Path) -> list[str]:
    return [line for one in path.parent.iterdir() for line in lines(one)]


def test_rotation_by_two_processes_loses_and_tears_nothing(tmp_path: Path) -> None:
    file, count = tmp_path / "veko.log", 2_000
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, file, str(number), str(count), "20000", "1000"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(3)
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.close()
    for writer in writers:
        assert writer.wait(SECONDS) == 0
        assert writer.stdout is not None
        writer.stdout.close()
    assert len(list(tmp_path.iterdir())) > 3  # a busy lock may let a file grow
    found = [(entry["writer"], entry["i"]) for entry in map(json.loads, all_lines(file))]
    assert sorted(found) == [(number, i) for number in range(3) for i in range(count)]


def test_the_oldest_backups_go(tmp_path: Path) -> None:
    path = tmp_path / "veko.log"
    with log_file(path, 100, 2) as file:
        for number in range(50):
            file.handle(record(f"record {number:02}"))
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "veko.log",
        "veko.log.1",
        "veko.log.2",
    ]
    kept = [*lines(tmp_path / "veko.log.2"), *lines(tmp_path / "veko.log.1"), *lines(path)]
    assert kept == [f"record {number:02}" for number in range(50 - len(kept), 50)]


def test_without_backups_the_file_begins_anew(tmp_path: Path) -> None:
    with log_file(tmp_path / "veko.log", 100, 0) as file:
        for number in range(50):
            file.handle(record(f"record {number:02}"))
    assert [one.name for one in tmp_path.iterdir()] == ["veko.log"]
    assert lines(tmp_path / "veko.log")[-1] == "record 49"


def test_a_record_larger_than_the_limit_has_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "veko.log"
    with log_file(path, 100, 5) as file:
        for text in ("a", "b" * 500, "c"):
            file.handle(record(text))
    assert sorted(all_lines(path)) == ["a", "b" * 500, "c"]


def test_a_file_that_others_move_or_delete_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "veko.log"
    path.parent.mkdir()
    with log_file(path) as file:
        file.handle(record("one"))
        path.rename(tmp_path / "moved")
        file.handle(record("two"))
        path.unlink()
        path.parent.rmdir()
        file.handle(record("three"))
        assert file.lost == 0
    assert lines(tmp_path / "moved") == ["one"]
    assert lines(path) == ["three"]


def test_a_rotated_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "veko.log"
    with log_file(path, 100) as file:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o640)
        for number in range(30):
            file.handle(record(f"record {number}"))
    assert {stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()} == {0o640}


def test_a_closed_file_is_not_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "veko.log"
    with log_file(path) as file:
        pass
    path.unlink()
    file.handle(record("late"))
    assert not path.exists()


def test_a_process_that_holds_the_lock_keeps_nobody_from_writing(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / "veko.log"
    with log_file(path, 100) as file, path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        begin = time.monotonic()
        for number in range(100):
            file.handle(record(f"record {number}"))
        assert time.monotonic() - begin < 10  # each would wait 0.05 s, and one does
        assert len(lines(path)) == 100
        assert file.lost == 0


def test_a_disk_that_is_full_is_said_once_counted_and_noted_in_the_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    program = """
import io, json, logging, resource, signal, sys
from veko_plugins.logging import Logging
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
console = io.StringIO()
logs = Logging()
logs.configure("info", sys.argv[1], "json", stream=console, max_bytes=0)
log = logging.getLogger("veko.plugin.a")
log.info("before")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for number in range(50):
    log.info("during %d", number)
lost = logs.lost
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.info("after")
print(json.dumps([lost, logs.lost, console.getvalue().splitlines()]))
"""
    assert resource.RLIMIT_FSIZE is not None
    file = tmp_path / "veko.log"
    done = subprocess.run(
        [sys.executable, "-c", program, file],
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lost, at_last, console = json.loads(done.stdout)
    entries = [json.loads(line) for line in console]
    (said,) = [entry for entry in entries if entry.get("logger") == "veko.logging"]
    assert said["message"].startswith(f"log records are being lost: {file} cannot be written: ")
    written = [json.loads(line) for line in lines(file)]  # none is torn
    messages = [entry["message"] for entry in written]
    count = sum(message.startswith("during") for message in messages)
    assert lost == at_last == 50 - count
    assert messages[0] == "before"
    assert messages[-2].startswith(f"{lost} log records are missing here: ")
    assert (written[-2]["lost"], messages[-1]) == (lost, "after")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_the_application_continues_where_nothing_can_be_written(
    logs: Logging, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", "/dev/full", "json")
    log = logging.getLogger("veko.plugin.a")
    for number in range(10):
        log.info("record %d", number)
    assert logs.lost == 10
    entries = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [entry["message"] for entry in entries if "lost" in entry["message"]] == [
        "log records are being lost: /dev/full cannot be written: No space left on device"
    ]
    assert sum(entry["message"].startswith("record") for entry in entries) == 10


def test_a_folder_that_is_not_there_any_more_and_is_there_again(
    logs: Logging, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    logs.configure("info", folder / "veko.log", max_bytes=0)
    log = logging.getLogger("veko.plugin.a")
    log.info("one")
    folder.rename(tmp_path / "away")
    folder.write_text("a file in its place")
    log.info("two")
    log.info("three")
    folder.unlink()
    log.info("four")
    found = lines(folder / "veko.log")
    assert "2 log records are missing here" in found[0]
    assert "four" in found[1]
    assert capsys.readouterr().err.count("being lost") == 1


@pytest.mark.parametrize("what", ["folder", "pipe", "zero", "below a file"])
def test_a_file_that_is_none_is_refused(logs: Logging, tmp_path: Path, what: str) -> None:
    path = tmp_path / "veko.log"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)  # opening it would wait for a reader
    elif what == "zero":
        path = tmp_path / "a\0b"
    else:
        path.touch()
        path = path / "veko.log"
    with pytest.raises(OptionError, match="the log file cannot be written"):
        logs.configure("info", path)
    assert logs.config is None


def test_a_configuration_that_fails_leaves_the_former_one(
    logs: Logging, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", tmp_path / "a.log")
    with pytest.raises(OptionError):
        logs.configure("info", tmp_path)
    logging.getLogger("veko.plugin.a").info("still here")
    assert "still here" in (tmp_path / "a.log").read_text()


def test_a_forked_process_writes_too(logs: Logging, tmp_path: Path) -> None:
    path = tmp_path / "veko.log"
    program = f"""
import io, logging, os, sys
from veko_plugins.logging import Logging
logs = Logging()
logs.configure("info", {str(path)!r}, stream=io.StringIO(), max_bytes=2000, backups=100)
log = logging.getLogger("veko.plugin.a")
child = os.fork()
for number in range(200):
    log.info("%s %d", "parent" if child else "child", number)
if child:
    assert os.waitpid(child, 0)[1] == 0
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=SECONDS)
    found = sorted(" ".join(line.split()[-2:]) for line in all_lines(path))
    assert found == sorted(
        f"{who} {number}" for who in ("parent", "child") for number in range(200)
    )


def test_a_writer_that_is_killed_leaves_whole_lines(tmp_path: Path) -> None:
    file = tmp_path / "veko.log"
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, file, "1", "1000000", "50000", "3"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as writer:  # fmt: skip
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
            end = time.monotonic() + SECONDS
            while not Path(f"{file}.2").exists() and time.monotonic() < end:
                time.sleep(0.005)
            writer.send_signal(signal.SIGKILL)
    for line in all_lines(file):
        json.loads(line)
