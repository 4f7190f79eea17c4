"""The kernel's tests run on every backend that it promises to run on."""

import sys

import pytest

_BACKENDS = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
if sys.platform == "win32":
    del _BACKENDS["uvloop"]


@pytest.fixture(scope="module", params=_BACKENDS.values(), ids=_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Run async tests on asyncio, uvloop and trio."""
    backend: tuple[str, dict[str, object]] = request.param
    return backend
