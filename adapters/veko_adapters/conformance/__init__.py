"""The conformance suite: what every HTTP adapter must do, through real sockets.

A module of tests takes all of it over with a star import and says which adapter it is about::

    import pytest
    from veko_adapters.conformance import *

    @pytest.fixture(scope="module")
    def adapter():
        return MyAdapter()

Nothing else is to be set up: the marks and fixtures that the cases need come along, and pytest
explains their assertions as it does those of the module. The modules of this package may be taken
one by one too. It needs pytest, httpx and the extra `conformance`.
"""

from importlib import import_module

import pytest

from ._site import Guest, Site, anyio_backend, served, site, verify_loop

_MODULES = (
    "paths",
    "requests",
    "bodies",
    "routes",
    "hooks",
    "answers",
    "files",
    "malformed",
    "sockets",
)

# Only what is registered before it is imported has its assertions explained.
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
