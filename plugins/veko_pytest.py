"""The pytest plugin `veko`: fixtures for tests of plugins, and two checks after each such test.

It stands beside the packages and imports nothing of Veko until a test asks for a fixture, so tests
that do not use it pay for this file alone. `-p no:veko` leaves it out.

Cost: some 0.2 ms at the start of pytest; `manager` takes some 20 ms a test, `kernel` 1 ms.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from veko import Kernel
    from veko_plugins import PluginManager
    from veko_plugins._lib.leaks import Leak
    from veko_plugins.testing.client import Client
    from veko_plugins.testing.clock import Clock
    from veko_plugins.testing.failures import PluginFailures
    from veko_plugins.testing.hosts import LoadPlugin
    from veko_plugins.testing.recorder import BusRecorder

_CHECKS = "veko_checks"
_MARKS = (
    "plugin_failures(*plugins): code of these plugins may fail in this test; without names, of any",
    "leaves_behind(reason): this test may leave tasks, threads or registrations behind",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting `veko_checks`."""
    parser.addini(
        _CHECKS,
        "checks after tests that use Veko's fixtures: leftovers, failures; empty for none",
        type="args",
        default=["leftovers", "failures"],
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks."""
    for mark in _MARKS:
        config.addinivalue_line("markers", mark)
    unknown = set(config.getini(_CHECKS)) - {"leftovers", "failures"}
    if unknown:
        names = ", ".join(sorted(unknown))
        raise pytest.UsageError(f"{_CHECKS}: {names}: there are `leftovers` and `failures`")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test fail in which a plugin's code failed."""
    result = yield
    failures = getattr(item, "funcargs", {}).get("plugin_failures")
    if failures is not None:
        _check(failures)
    return result


def _check(failures: object) -> None:
    report = getattr(failures, "report", None)
    text = report() if callable(report) else None
    if text is not None:
        pytest.fail(str(text), pytrace=False)


def _leftovers(request: pytest.FixtureRequest) -> bool:
    wanted = "leftovers" in request.config.getini(_CHECKS)
    return wanted and request.node.get_closest_marker("leaves_behind") is None


@pytest.fixture
def plugin_failures(request: pytest.FixtureRequest) -> Iterator[PluginFailures]:
    """The failures of plugins' code in this test.

    A test in which there is one fails, unless it happened in `with plugin_failures.expect():` or
    after `plugin_failures.allow()`, or the test is marked with `plugin_failures`.
    """
    from veko_plugins.testing.failures import PluginFailures

    mark = request.node.get_closest_marker("plugin_failures")
    allowed = () if mark is None else mark.args or None
    if "failures" not in request.config.getini(_CHECKS):
        allowed = None
    failures = PluginFailures(allowed)
    yield failures
    try:
        _check(failures)  # those that happened while plugins were unloaded
    finally:
        failures.clear()


@pytest.fixture
async def kernel(
    request: pytest.FixtureRequest, anyio_backend: object, plugin_failures: PluginFailures
) -> AsyncIterator[Kernel]:
    """A running kernel without plugins, on asyncio and trio."""
    from veko import Kernel
    from veko_plugins.testing.hosts import hosted

    made = Kernel(timeout=5, drain_timeout=5)
    async with hosted(made, plugin_failures, leftovers=_leftovers(request)) as running:
        yield running


@pytest.fixture
def veko_options() -> dict[str, Any]:
    """Options of `manager`; override it: `return {"adapter": "starlette"}`."""
    return {}


@pytest.fixture
async def manager(
    request: pytest.FixtureRequest,
    anyio_backend: object,
    anyio_backend_name: str,
    veko_options: dict[str, Any],
    plugin_failures: PluginFailures,
    tmp_path: Any,
) -> AsyncIterator[PluginManager]:
    """A running manager with a folder of its own, in which there are no plugins."""
    if anyio_backend_name != "asyncio":
        pytest.skip(f"PluginManager runs on asyncio, not on {anyio_backend_name}")
    from veko_plugins import PluginManager
    from veko_plugins.testing.hosts import hosted

    options = {"root": tmp_path, "max_retries": 0, "timeout": 10, **veko_options}
    made = PluginManager(**options)
    async with hosted(made, plugin_failures, leftovers=_leftovers(request)) as running:
        yield running


def _host(request: pytest.FixtureRequest) -> Any:
    """Return the kernel if the test asks for that, otherwise the manager."""
    only_kernel = "kernel" in request.fixturenames and "manager" not in request.fixturenames
    return request.getfixturevalue("kernel" if only_kernel else "manager")


@pytest.fixture
def _veko_host(request: pytest.FixtureRequest, anyio_backend: object) -> Any:
    return _host(request)


@pytest.fixture
async def load_plugin(
    request: pytest.FixtureRequest, anyio_backend: object, _veko_host: Any
) -> AsyncIterator[LoadPlugin]:
    """Load plugins, `await load_plugin(path_or_form, config)`; they are unloaded after the test."""
    from veko_plugins.testing.hosts import loading

    async with loading(_veko_host, leftovers=_leftovers(request)) as load:
        yield load


@pytest.fixture
async def client(anyio_backend: object, manager: PluginManager) -> AsyncIterator[Client]:
    """An `httpx.AsyncClient` on the manager's adapter, with `client.websocket(path)`."""
    try:
        from veko_plugins.testing.client import Client
    except ModuleNotFoundError as error:
        raise pytest.UsageError(
            f"the fixture `client` needs {error.name}: pip install 'veko[testing]'"
        ) from error
    async with Client(manager.asgi) as made:
        yield made


@pytest.fixture
def bus_recorder(_veko_host: Any) -> Iterator[BusRecorder]:
    """What is emitted: `bus_recorder["event"]`, `await bus_recorder.wait_for("event")`."""
    from veko_plugins.testing.recorder import BusRecorder

    recorder = BusRecorder(_veko_host.bus)
    yield recorder
    recorder.close()


@pytest.fixture
async def clock(anyio_backend: object) -> AsyncIterator[Clock]:
    """A clock that can be moved: `await clock.move(60)`."""
    from veko_plugins.testing.clock import Clock

    with Clock.moving() as made:
        yield made


@pytest.fixture
def plugin_leaks(manager: PluginManager) -> Callable[[str], Awaitable[list[Leak]]]:
    """What keeps ended generations of a plugin in memory: `assert not await plugin_leaks(name)`."""

    async def leaks(name: str) -> list[Leak]:
        from veko_plugins.manager.on_demand import service_on_demand

        testing = await service_on_demand(manager.kernel, "testing", manager.options.core)
        found: list[Leak] = await testing.leaks(name)
        return found

    return leaks
