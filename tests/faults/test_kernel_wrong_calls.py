"""Calls that are wrong (from another thread, of another type) are refused and break nothing."""

from collections.abc import Callable
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from veko import Context, Event, Handle, Kernel, Plugin, PluginRecord, VekoError

pytestmark = pytest.mark.anyio


def plugin(load: Any, name: str = "p", version: str = "1.0.0") -> dict[str, Any]:
    return {"name": name, "version": version, "load": load}


ACTS: dict[str, Callable[[Context, Handle], object]] = {
    "hook": lambda context, handle: context.hook("x", lambda value: "thread"),
    "provide": lambda context, handle: context.provide("y", 1),
    "spawn": lambda context, handle: context.spawn(anyio.sleep, 0),
    "every": lambda context, handle: context.every(1, lambda: None),
    "attach": lambda context, handle: context.attach("z", lambda context: None),
    "remove_hook": lambda context, handle: context.remove_hook("x", first),
    "register": lambda context, handle: context.register("thing", "a", 1),
    "declare": lambda context, handle: context.declare(Event("y")),
    "cancel": lambda context, handle: handle.cancel(),
    "bus.on": lambda context, handle: context.kernel.bus.on("x", lambda value: "thread"),
}


def first(value: Any) -> str:
    return "own"


@pytest.mark.parametrize("verb", ACTS)
@pytest.mark.parametrize("when", ["in load", "live"])
async def test_a_verb_in_another_thread_is_refused(verb: str, when: str) -> None:
    errors: list[BaseException] = []
    contexts: list[tuple[Context, Handle]] = []

    def work() -> None:
        try:
            ACTS[verb](*contexts[0])
        except BaseException as error:
            errors.append(error)

    async def in_a_thread() -> None:
        await anyio.to_thread.run_sync(work)

    async def load(context: Context) -> None:
        contexts.append((context, context.hook("x", first)))
        if when == "in load":
            await in_a_thread()

    async with Kernel() as kernel:
        await kernel.load(plugin(load))
        if when == "live":
            await in_a_thread()
        await anyio.lowlevel.checkpoint()
        assert await kernel.bus.emit("x", 1) == "own"
        assert len(errors) == 1, "it was accepted"
        assert isinstance(errors[0], VekoError), errors
        assert "from_thread" in str(errors[0]), "it says what to do instead"


async def test_what_the_refusal_says_works() -> None:
    async def load(context: Context) -> None:
        await anyio.to_thread.run_sync(lambda: anyio.from_thread.run_sync(context.hook, "x", first))

    async with Kernel() as kernel:
        await kernel.load(plugin(load))
        assert await kernel.bus.emit("x", 1) == "own"


async def test_a_kernel_runs_in_whatever_thread_it_is_entered() -> None:
    kernel = Kernel()

    async def live() -> object:
        async with kernel:
            await kernel.load(plugin(lambda context: context.hook("x", first)))
            return await kernel.bus.emit("x", 1)

    assert await anyio.to_thread.run_sync(anyio.run, live) == "own"
    assert await live() == "own"
    kernel.bus.on("x", lambda: "host", priority=0)
    await anyio.to_thread.run_sync(lambda: kernel.bus.on("y", first))


def provider(version: str) -> dict[str, Any]:
    return plugin(lambda context: context.provide("s", version), "provider", version)


def user(version: str) -> dict[str, Any]:
    return plugin(lambda context: context.use("s"), "user", version)


class User(Plugin):
    name = "user"
    version = "2.0.0"

    def load(self, context: Context) -> None:
        context.use("s")


@pytest.mark.parametrize("form", [user("2.0.0"), User, User()], ids=["mapping", "class", "object"])
@pytest.mark.parametrize("waits", [False, True], ids=["def", "async def"])
async def test_dependents_may_return_whatever_load_takes(form: Any, waits: bool) -> None:
    async def later(record: PluginRecord) -> Any:
        return form

    async with Kernel() as kernel:
        await kernel.load(provider("1.0.0"))
        await kernel.load(user("1.0.0"))
        dependents: Any = later if waits else lambda record: form
        await kernel.reload(provider("2.0.0"), dependents=dependents)
        found = kernel.get("user")
        assert found is not None
        assert (kernel.use("s"), found.version) == ("2.0.0", "2.0.0")


@pytest.mark.parametrize("form", [None, "user.py", {"name": "user"}, [user("2.0.0")]])
async def test_a_reload_says_what_is_wrong_with_its_dependents(form: Any) -> None:
    async def dependents(record: PluginRecord) -> Any:
        return form

    async with Kernel() as kernel:
        await kernel.load(provider("1.0.0"))
        await kernel.load(user("1.0.0"))
        with pytest.raises(VekoError) as caught:
            await kernel.reload(provider("2.0.0"), dependents=dependents)
        assert "`dependents`" in str(caught.value)
        assert caught.value.plugin == "user"
        assert kernel.use("s") == "1.0.0"
