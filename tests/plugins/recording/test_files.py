"""Files of recordings: cut short, damaged, of another version, on a full disk."""

import resource
import signal
import zlib
from pathlib import Path

import pytest

from veko_plugins.recording import RecordingError, read_recording
from veko_plugins.recording.entries import FORMAT, VERSION, Emission, Header, Loaded
from veko_plugins.recording.files import write_recording

HEADER = Header(FORMAT, VERSION, "2.0.0", 1, "/app", "asgi", "asked for")
PLUGINS = [Loaded("shop", "1.0.0", "/app/plugins/shop.py", {"a": 1}, "active")]
ENTRIES = [Emission(n, None, n, "sale", [{"text": "ü\n" * 3}], None) for n in range(1, 6)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "one.vekorec"
    assert write_recording(path, HEADER, PLUGINS, ENTRIES) == 7
    return path


def test_what_is_read_is_what_was_written(file: Path) -> None:
    found = read_recording(file)
    assert (found.header, found.plugins, found.entries, found.cut) == (
        HEADER, PLUGINS, ENTRIES, None,
    )  # fmt: skip
    assert file.stat().st_mode & 0o077 == 0


def test_cut_anywhere_it_is_read_up_to_the_cut_and_says_so(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    first = whole.index(b"\n") + 1
    cut = tmp_path / "cut.vekorec"
    for length in range(first, len(whole)):
        cut.write_bytes(whole[:length])
        found = read_recording(cut)
        lines = whole[:length].count(b"\n")
        assert len(found.entries) == max(0, min(lines - 2, 5))
        assert found.cut is not None
        assert "is cut short" in found.cut


def test_a_damaged_line_ends_what_is_read(file: Path) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b"sale", b"sail")
    file.write_bytes(b"".join(lines))
    found = read_recording(file)
    assert [one.number for one in found.entries] == [1, 2]
    assert "line 5 is damaged" in str(found.cut)


def line(text: bytes) -> bytes:
    return b"%08x %b\n" % (zlib.crc32(text), text)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b"no recording\n", "it is no recording"),
        (b"\x00\xff" * 100, "it is no recording"),
        (line(b"{}"), "it is no recording"),
        (line(b"[" * 5000), "it is no recording"),
        (
            line(b'{"kind":"recording","format":"veko-recording","version":9,"veko":"3.1"}'),
            "format 9, and this Veko reads format 1.*Veko 3.1",
        ),
        (
            line(b'{"kind":"recording","format":"veko-recording","version":1}'),
            "its first line is damaged",
        ),
    ],
    ids=["empty", "text", "bytes", "json", "deep", "version", "header"],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x.vekorec"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=says):
        read_recording(path)
    with pytest.raises(RecordingError, match="cannot be read"):
        read_recording(tmp_path)


def test_without_space_nothing_is_left(tmp_path: Path) -> None:
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        large = [Emission(n, None, n, "sale", ["x" * 1000], None) for n in range(200)]
        with pytest.raises(RecordingError, match=r"cannot be written: .*Free some space"):
            write_recording(tmp_path / "large.vekorec", HEADER, PLUGINS, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_never_replaced(file: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be written"):
        write_recording(file, HEADER, PLUGINS, [])
    assert len(read_recording(file).entries) == 5
