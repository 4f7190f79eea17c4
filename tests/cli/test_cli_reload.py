"""`veko serve --dev`: plugins reload when they are saved, and each reload is a line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx


def test_D8_O5_dev_reloads_what_is_saved(start: Callable[..., Any], application: Path) -> None:
    path = application / "plugins" / "hello.py"
    source = path.read_text()
    veko = start("serve", "--dev", application, "--port", 0)
    url = veko.wait_for(r"Listening on (\S+)")[1]
    path.write_text(source.replace("1.2.3", "1.3.0").replace('"world"', '"again"'))
    assert veko.wait_for(r"reloaded hello 1\.3\.0 in \d+ ms")
    assert httpx.get(f"{url}/hello").json() == {"hello": "again"}
    path.write_text(source + "x = (\n")
    assert veko.wait_for(r"hello failed: .*hello\.py:\d+")
    assert veko.wait_for(r"failed hello: version 1\.3\.0 keeps running")
    assert veko.text.count("hello.py:") == 1
    assert httpx.get(f"{url}/hello").json() == {"hello": "again"}
    (application / "plugins" / "broken.py").write_text(
        'name = "broken"\nversion = "1.0.0"\n\ndef load():\n    pass\n'
    )
    veko.wait_for(r"loaded broken 1\.0\.0")
    veko.wait_for(r"loaded needy 1\.0\.0")
    path.unlink()
    veko.wait_for("unloaded hello: its files are gone")
    assert httpx.get(f"{url}/hello").status_code == 404


def test_nothing_reloads_without_dev(start: Callable[..., Any], application: Path) -> None:
    path = application / "plugins" / "hello.py"
    veko = start("serve", application, "--port", 0)
    url = veko.wait_for(r"Listening on (\S+)")[1]
    path.write_text(path.read_text().replace('"world"', '"again"'))
    assert httpx.get(f"{url}/hello").json() == {"hello": "world"}
