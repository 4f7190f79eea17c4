"""The protocol runs on asyncio's loop and on uvloop, which `veko serve` uses where it is there."""

import sys

import pytest

_LOOPS = {"asyncio": {}, "uvloop": {"use_uvloop": True}}
if sys.platform == "win32":
    del _LOOPS["uvloop"]


@pytest.fixture(scope="module", params=_LOOPS.values(), ids=_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    return "asyncio", request.param
