"""The conformance suite, run against each adapter of ours."""

import pytest

from veko_adapters.conformance import *  # noqa: F403
from veko_plugins.http import Adapter, find_adapter


@pytest.fixture(scope="module", params=["asgi", "litestar", "starlette"])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return find_adapter(request.param)
