"""The conformance suite: what every HTTP adapter must do, through real sockets.

A test module runs all cases by a star import, and names the adapter in a fixture::

    import pytest
    from veko_adapters.conformance import *

    @pytest.fixture(scope="module")
    def adapter():
        return MyAdapter()

No other setup is needed: the import brings the marks and fixtures, and pytest explains failed
assertions as usual. The modules of this package can be imported one by one too. The suite needs the
extra `conformance` (pytest and httpx).
"""

from importlib import import_module

import pytest

from ._site import Guest, Site, anyio_backend, served, site, verify_loop

_MODULES = (
    "paths",
    "requests",
    "bodies",
    "routes",
    "threads",
    "hooks",
    "guards",
    "answers",
    "files",
    "malformed",
    "sockets",
)

# Pytest explains the assertions only of modules that are registered before their import.
pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in _MODULES))

pytestmark = pytest.mark.anyio
__all__ = ["Guest", "Site", "anyio_backend", "pytestmark", "served", "site", "verify_loop"]

_cases: dict[str, object] = {}
for _module in _MODULES:
    for _name, _test in vars(import_module(f"{__name__}.{_module}")).items():
        if _name.startswith("test_"):
            if _name in _cases:
                raise ImportError(f"two cases are called {_name}, one of them in {_module}")
            _cases[_name] = _test
globals().update(_cases)
__all__ += list(_cases)
