"""Every engine passes the conformance suite of storages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from veko_adapters.conformance.storage import *  # noqa: F403

KINDS = ("memory", "sqlite", "redis", "postgres", "nats")


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param in ("memory", "sqlite"):
        yield request.param
        return
    with request.getfixturevalue("start_server")(request.param) as server:
        yield server


@pytest.fixture
def storage_url(kind: Any, tmp_path: Path) -> str:
    if kind == "memory":
        return "memory:"
    return str(tmp_path / "s.db") if kind == "sqlite" else kind.url
