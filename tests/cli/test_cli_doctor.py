"""`veko doctor`: each kind of fault is found, with a remedy."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

FOREIGN = """
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

provider = TracerProvider()
provider.add_span_processor(SpanProcessor())
trace.set_tracer_provider(provider)
"""


@pytest.fixture
def examined(veko: Run) -> Callable[..., tuple[int, list[dict[str, Any]]]]:
    def examine(*words: object, **env: str) -> tuple[int, list[dict[str, Any]]]:
        done = veko("doctor", "--json", *words, **env)
        assert "Traceback" not in done.stderr
        answer = json.loads(done.stdout)
        assert answer["ok"] is (done.returncode == 0)
        return done.returncode, answer["findings"]

    return examine


def bad(findings: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(one["area"], one["level"], one["text"]) for one in findings if one["level"] != "ok"]


def test_a_healthy_application(veko: Run, examined: Any, application: Path) -> None:
    for name in ("broken", "needy"):
        (application / "plugins" / f"{name}.py").unlink()
    code, found = examined(application)
    assert (code, bad(found)) == (0, [])
    assert {one["area"] for one in found} == {
        "environment", "extras", "settings", "folder", "plugins",
    }  # fmt: skip
    text = veko("doctor", application).stdout
    assert "2 loaded: events, hello" in text
    assert text.splitlines()[-1] == "no problems, no warnings"
    assert not (application / ".veko" / "storage.db").exists()


def test_plugins_that_do_not_load(examined: Any, application: Path) -> None:
    code, found = examined(application)
    assert code == 1
    problems = {text for _, level, text in bad(found) if level == "problem"}
    assert any(one.startswith("broken did not load: load() raised ValueError") for one in problems)
    assert "needy was skipped: needs 'broken', which failed to load" in problems
    assert all(one["remedy"] for one in found if "broken did not load" in one["text"])


def test_settings(examined: Any, application: Path) -> None:
    (application / "veko.toml").write_text("max_retrys = 0\n")
    code, found = examined(application)
    assert code == 1
    assert bad(found) == [
        ("settings", "problem", "'max_retrys' (veko.toml) is not an option. "
         "Did you mean 'max_retries'?"),
    ]  # fmt: skip
    (application / "veko.toml").write_text("max_retries = 0\n[plugins.helo]\na = 1\n")
    _, found = examined(application, VEKO_MAX_RETRYS="1")
    warnings = [text for _, level, text in bad(found) if level == "warning"]
    assert any("[plugins.helo]" in text and "'hello'" in text for text in warnings)
    assert any("VEKO_MAX_RETRYS is not an option" in text for text in warnings)


def test_an_adapter_that_is_not_installed(examined: Any, application: Path) -> None:
    (application / "veko.toml").write_text('adapter = "flask"\n')
    code, found = examined(application)
    assert code == 1
    assert any("flask" in text for _, level, text in bad(found) if level == "problem")


def test_a_provider_with_foreign_span_processors(
    examined: Any, application: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    for name in ("broken", "needy"):
        (application / "plugins" / f"{name}.py").unlink()
    (application / "veko.toml").write_text("[plugins.tracing]\nkeep = 5\n")
    code, found = examined(application)
    assert (code, bad(found)) == (0, [])
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(FOREIGN)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    code, found = examined(application, PYTHONPATH=path)
    assert code == 0  # it works, at a price
    assert [one[:2] for one in bad(found)] == [("tracing", "warning")]


def test_without_an_application(veko: Run, examined: Any, tmp_path: Path) -> None:
    code, found = examined()
    assert (code, bad(found)) == (0, [])
    assert "there is no application in this folder" in found[-1]["text"]
    code, found = examined("nowhere")
    assert code == 1
    assert "nowhere does not exist" in found[-1]["text"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_in_the_way(examined: Any, application: Path) -> None:
    (application / ".veko").write_text("")
    code, found = examined(application)
    assert code == 1
    assert ("folder", "problem") in [one[:2] for one in bad(found)]
