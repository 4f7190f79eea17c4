"""Pins: what is awaited inside sees one registry, whatever changes meanwhile."""

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from veko import Bus, Kernel
from veko.extend import Kind, Registry

pytestmark = pytest.mark.anyio


def plugin(name: str, load: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load, **more}


async def test_inside_a_pin_nothing_changes() -> None:
    bus = Bus()
    old = bus.on("x", lambda value: f"{value} old")
    emit = bus.emitter("x")
    with bus.pin() as registry:
        assert isinstance(registry, Registry)
        old.cancel()
        bus.on("x", lambda value: f"{value} new")
        bus.on("y", lambda value: "new")
        assert await bus.emit("x", "a") == await emit("a") == "a old"
        assert await bus.first("x", "a") == "a old"
        assert await bus.gather("x", "a") == ["a old"]
        assert await bus.emit("y", "nobody yet") == "nobody yet"
        assert not bus.heard("y")
    assert await bus.emit("x", "a") == await emit("a") == "a new"
    assert await bus.emit("y", 1) == "new"


async def test_a_pin_is_its_own_tasks_business() -> None:
    bus = Bus()
    old = bus.on("x", lambda value: "old")
    changed, looked = anyio.Event(), anyio.Event()
    seen: dict[str, str] = {}

    async def pinned() -> None:
        with bus.pin():
            await changed.wait()
            seen["pinned"] = await bus.emit("x")
            await looked.wait()
        seen["released"] = await bus.emit("x")

    async with anyio.create_task_group() as group:
        group.start_soon(pinned)
        await anyio.wait_all_tasks_blocked()
        old.cancel()
        bus.on("x", lambda value: "new")
        seen["free"] = await bus.emit("x")
        changed.set()
        await anyio.wait_all_tasks_blocked()
        looked.set()
    assert seen == {"pinned": "old", "free": "new", "released": "new"}


async def test_tasks_of_a_pin_inherit_it_until_it_ends() -> None:
    bus = Bus()
    old = bus.on("x", lambda value: "old")
    go, ended = anyio.Event(), anyio.Event()
    seen: list[str] = []

    async def child() -> None:
        seen.append(await bus.emit("x"))
        go.set()
        await ended.wait()
        seen.append(await bus.emit("x"))

    async with anyio.create_task_group() as group:
        with bus.pin():
            old.cancel()
            bus.on("x", lambda value: "new")
            group.start_soon(child)
            await go.wait()
        ended.set()
    assert seen == ["old", "new"]


async def test_pins_nest_and_the_inner_one_keeps_the_outer_registry() -> None:
    bus = Bus()
    with bus.pin() as outer:
        bus.on("x", lambda value: "new")
        with bus.pin() as inner:
            assert inner is outer
        assert bus.pinned().registry is outer
    assert bus.pinned().registry is bus.registry is not outer


async def test_a_pin_may_be_released_early_and_twice() -> None:
    bus = Bus()
    pin = bus.pin()
    with pin as registry:
        bus.on("x", lambda value: "new")
        assert bus.pinned().registry is registry
        pin.release()
        pin.release()
        assert await bus.emit("x") == "new"
    assert await bus.emit("x") == "new"


async def test_pins_of_two_buses_do_not_touch() -> None:
    one, other = Bus(), Bus()
    with one.pin(), other.pin():
        one.on("x", lambda value: "one")
        other.on("x", lambda value: "other")
        assert not one.heard("x")
        assert not other.heard("x")
    with one.pin():
        with other.pin():
            one.on("y", lambda value: "one")
        assert not one.heard("y")
        assert await other.emit("x") == "other"


async def test_many_registries_pinned_at_once() -> None:
    bus = Bus()
    held: list[Any] = []
    subscription = bus.on("x", lambda value: -1)
    seen: list[int] = []

    async def request(number: int, begun: anyio.Event, end: anyio.Event) -> None:
        with bus.pin():
            begun.set()
            await end.wait()
            seen.append(await bus.emit("x"))

    async with anyio.create_task_group() as group:
        for number in range(5):
            subscription.cancel()
            subscription = bus.on("x", lambda value, number=number: number)
            begun, end = anyio.Event(), anyio.Event()
            held.append(end)
            group.start_soon(request, number, begun, end)
            await begun.wait()
        for number in (2, 0, 4, 1, 3):
            held[number].set()
            await anyio.wait_all_tasks_blocked()
    assert seen == [2, 0, 4, 1, 3]
    assert await bus.emit("x") == 4


async def test_a_plan_that_two_pinned_registries_share_retires_with_the_last() -> None:
    bus = Bus()
    subscription = bus.on("x", lambda value: "old")
    await bus.emit("x")
    plan = bus.plan("x")
    assert plan is not None
    first = bus.pin()
    with first:
        bus.on("other", lambda: None)  # nothing changes for x: the next registry shares its plan
        second = bus.pin()
        first.release()
        with second:
            bus.on("more", lambda: None)
            third = bus.pin()
            with third:
                subscription.cancel()
                assert await bus.emit("x") == "old"
                second.release()
                assert plan.token is not None
            third.release()
    assert plan.token is None
    assert await bus.emit("x", "none") == "none"


async def test_a_plan_made_for_a_pin_retires_with_it() -> None:
    bus = Bus()
    subscription = bus.on("x", lambda value: "old")
    with bus.pin():
        subscription.cancel()
        assert await bus.emit("x") == "old"
        plan = bus.plan("x")
        assert plan is not None
    assert plan.token is None


async def test_names_forgotten_while_a_pin_holds_them_still_work() -> None:
    bus = Bus()
    bus.on("user:*", lambda value: value + 1)
    assert await bus.emit("user:0", 1) == 2

    async def many() -> None:
        for number in range(1, 5000):
            await bus.emit(f"user:{number}", 1)

    with bus.pin():
        bus.on("other", lambda: None)
        await many()  # the pinned registry forgets user:0, the live one has the same plan
        assert await bus.emit("user:0", 1) == 2
    assert await bus.emit("user:0", 1) == 2
    with bus.pin():
        bus.on("more", lambda: None)
        async with anyio.create_task_group() as group:
            pin = bus.pin()
            with pin:
                pin.move_on()
                await many()  # the live one forgets it, the pinned one has it
            group.start_soon(anyio.lowlevel.checkpoint)
        assert await bus.emit("user:0", 1) == 2
    assert await bus.emit("user:0", 1) == 2
    assert len(bus.live) <= 4096


async def test_a_pinned_request_uses_services_of_its_own_generation(kernel: Kernel) -> None:
    await kernel.load(plugin("s", lambda context: context.provide("s", "old")))
    done = anyio.Event()
    seen: list[Any] = []

    async def request() -> None:
        with kernel.pin() as registry:
            started.set()
            await swapped.wait()
            seen.append(kernel.use("s"))
            seen.append(kernel.registry is registry)
        seen.append(kernel.use("s"))
        done.set()

    started, swapped = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(request)
        await started.wait()

        async def reload() -> None:
            await kernel.reload(plugin("s", lambda context: context.provide("s", "new")))

        group.start_soon(reload)
        await anyio.wait_all_tasks_blocked()
        assert kernel.use("s") == "new"
        swapped.set()
    assert seen == ["old", True, "new"]


async def test_draining_waits_for_older_pins_and_not_for_released_ones(kernel: Kernel) -> None:
    ended: list[str] = []

    def load(context: Any) -> None:
        context.hook("x", print)

    await kernel.load(plugin("p", load, unload=lambda: ended.append("unload")))
    pinned, release, end = anyio.Event(), anyio.Event(), anyio.Event()

    async def stream() -> None:
        pin = kernel.pin()
        with pin:
            pinned.set()
            await release.wait()
            pin.release()
            await end.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(stream)
        await pinned.wait()
        group.start_soon(kernel.unload, "p")
        await anyio.wait_all_tasks_blocked()
        assert ended == []
        release.set()
        await anyio.wait_all_tasks_blocked()
        assert ended == ["unload"]
        end.set()


async def test_a_pinned_caller_does_not_wait_for_itself(kernel: Kernel) -> None:
    await kernel.load(plugin("p", lambda: None))
    with anyio.fail_after(2), kernel.pin():
        await kernel.unload("p")
    assert kernel.get("p") is None


@pytest.mark.parametrize("verb", ["unload", "toggle", "reload"])
async def test_a_drain_does_not_wait_for_what_cannot_call_the_plugin(
    kernel: Kernel, verb: str
) -> None:
    """Work reaches a kind that is not pinned only if its pin names the owner of the entry."""
    ended: list[str] = []
    release = {owner: anyio.Event() for owner in (None, "other", "p")}
    pinned: list[str | None] = []

    def form() -> dict[str, Any]:
        return plugin(
            "p",
            lambda context: context.register("thing", "a", 1),
            unload=lambda: ended.append("end"),
            deactivate=lambda: ended.append("end"),
        )

    async def work(owner: str | None) -> None:
        with (pin := kernel.pin()):
            pin.owner = owner
            pinned.append(owner)
            await release[owner].wait()

    async def end() -> None:
        if verb == "unload":
            await kernel.unload("p")
        elif verb == "toggle":
            await kernel.toggle("p", False)
        else:
            await kernel.reload(form())

    kernel.bus.register("kind", "thing", Kind("thing", pinned=False))
    await kernel.load(form())
    async with anyio.create_task_group() as group:
        for owner in release:
            group.start_soon(work, owner)
        await anyio.wait_all_tasks_blocked()
        assert len(pinned) == 3
        group.start_soon(end)
        await anyio.wait_all_tasks_blocked()
        assert ended == [], "its own work runs"
        release["p"].set()
        await anyio.wait_all_tasks_blocked()
        assert set(ended) == {"end"}
        release[None].set()
        release["other"].set()


async def test_a_live_pin_inside_a_pin_sees_what_is_live(kernel: Kernel) -> None:
    with kernel.pin() as outer:
        kernel.bus.register("service", "b", 1)
        assert kernel.registry is outer
        with kernel.pin_live() as inner:
            assert inner is kernel.bus.live.registry
            assert kernel.use("b") == 1
        assert kernel.registry is outer
