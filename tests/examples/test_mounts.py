"""The examples of mounting and of swapping the adapter run and answer as they should."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
NOT_FOUND = '404 {"type":"about:blank","title":"Not Found","status":404}'
ANSWERS = [
    'POST /notes 401 {"detail":"the x-key header is missing or wrong"}',
    'POST /notes 201 {"id":1}',
    'GET /notes/1 200 {"text":"buy bread"}',
    f"GET /notes/one {NOT_FOUND}",
    'GET /counts 200 {"200":1,"201":1,"401":1}',
]


def run(cwd: Path, name: str, *words: str) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    assert [*cwd.iterdir()] == []
    return ran.stdout.splitlines()


def test_mount_in_fastapi(tmp_path: Path) -> None:
    assert run(tmp_path, "mount_in_fastapi.py") == [
        '/ 200 {"plugins":["greetings"]}',
        '/plugins/hello/world 200 {"greeting":"hello, world"}',
        f"/plugins/nothing {NOT_FOUND}",
    ]


def test_mount_in_litestar(tmp_path: Path) -> None:
    assert run(tmp_path, "mount_in_litestar.py") == [
        '/ 200 {"plugins":["greetings"]}',
        '/hello/world 200 {"greeting":"hello, world"}',
        f"/nothing {NOT_FOUND}",
    ]


def test_swap_adapter_answers_the_same_on_each(tmp_path: Path) -> None:
    assert run(tmp_path, "swap_adapter.py") == [
        line
        for adapter in ("litestar", "starlette", "asgi")
        for line in (f"-- {adapter}", *ANSWERS)
    ]


def test_swap_adapter_takes_one(tmp_path: Path) -> None:
    assert run(tmp_path, "swap_adapter.py", "asgi") == ["-- asgi", *ANSWERS]
