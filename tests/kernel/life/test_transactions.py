"""Transactions: what load() registers goes live together or not at all; so does each verb later."""

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from veko import (
    ConflictError,
    Handle,
    Kernel,
    LoadError,
    RefusedError,
    ServiceError,
    TransactionError,
    VekoError,
)
from veko.extend import Draft, Kind

pytestmark = pytest.mark.anyio


def plugin(name: str, load: Any = lambda: None, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load, **more}


async def held(kernel: Kernel, name: str = "p") -> Any:
    """Load a plugin and return its context."""
    contexts: list[Any] = []
    await kernel.load(plugin(name, lambda context: contexts.append(context)))
    return contexts[0]


class Gate:
    """A kind whose acceptance waits, and may refuse."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.go = anyio.Event()
        self.refuse = False
        self.runs = 0

    async def accept(self, draft: Draft) -> None:
        self.runs += 1
        self.asked.set()
        await self.go.wait()
        if self.refuse:
            raise ValueError("refused on purpose")

    async def join(self, kernel: Kernel) -> None:
        await kernel.load(
            plugin("gate", lambda context: context.add_kind(Kind("gated", accept=self.accept)))
        )


async def test_nothing_is_live_before_load_has_returned_and_all_is_then(kernel: Kernel) -> None:
    swaps: list[int] = []

    async def load(context: Any) -> None:
        before = kernel.registry
        for number in range(5):
            context.hook("x", lambda value, number=number: [*value, number])
        context.provide("s", 1)
        context.register("thing", "key", "value")
        await anyio.lowlevel.checkpoint()
        assert not kernel.bus.heard("x")
        assert await kernel.bus.emit("x", []) == []
        assert kernel.registry is before
        swaps.append(before.version)

    await kernel.load(plugin("p", load))
    assert kernel.registry.version == swaps[0] + 1
    assert await kernel.bus.emit("x", []) == [0, 1, 2, 3, 4]


async def test_lookups_inside_see_what_it_stages_first(kernel: Kernel) -> None:
    await kernel.load(plugin("a", lambda context: context.provide("s", "live")))

    async def load(context: Any) -> None:
        assert context.use("s") == "live"
        context.provide("mine", "staged")
        assert context.use("mine") == "staged"
        assert await context.when("mine") == "staged"
        context.attach("extra", lambda context: f"of {context.name}")
        assert context.extra == "of p"
        with pytest.raises(ServiceError):
            kernel.use("mine")

    await kernel.load(plugin("p", load))
    assert kernel.use("mine") == "staged"


async def test_a_conflict_fails_the_load_and_names_the_holder(kernel: Kernel) -> None:
    await kernel.load(plugin("first", lambda context: context.provide("s", 1)))

    def load(context: Any) -> None:
        context.hook("x", print)
        context.provide("s", 2)

    with pytest.raises(ConflictError, match="first") as caught:
        await kernel.load(plugin("second", load))
    assert caught.value.plugin == "second"
    assert not kernel.bus.heard("x")
    assert kernel.use("s") == 1


async def test_a_staged_handle_awaited_in_load_says_so(kernel: Kernel) -> None:
    caught: list[Any] = []

    async def load(context: Any) -> None:
        for handle in (context.hook("x", print), context.provide("s", 1), context.spawn(print)):
            with pytest.raises(TransactionError, match="wait for itself"):
                await handle
            caught.append(handle)

    with anyio.fail_after(2):
        await kernel.load(plugin("p", load))
        for handle in caught:
            assert await handle is handle


async def test_handles_of_a_failed_load_raise_why(kernel: Kernel) -> None:
    handles: list[Any] = []

    def load(context: Any) -> None:
        handles.extend((context.hook("x", print), context.provide("s", 1)))
        raise ValueError

    with pytest.raises(LoadError):
        await kernel.load(plugin("p", load))
    for handle in handles:
        with pytest.raises(VekoError):
            await handle
        handle.cancel()
        handle.cancel()


async def test_a_handle_cancelled_inside_load(kernel: Kernel) -> None:
    handles: list[Any] = []

    def load(context: Any) -> None:
        handles.append(context.hook("x", print))
        handles[0].cancel()
        handles[0].cancel()

    await kernel.load(plugin("p", load))
    assert not kernel.bus.heard("x")
    with anyio.fail_after(2), pytest.raises(TransactionError, match="cancelled"):
        await handles[0]


async def test_after_load_each_verb_is_live_at_once(kernel: Kernel) -> None:
    context = await held(kernel)
    handle = context.hook("x", lambda value: value + 1)
    assert await kernel.bus.emit("x", 0) == 1
    assert await handle is handle
    service = context.provide("s", 1)
    assert kernel.use("s") == 1
    service.cancel()
    service.cancel()
    handle.cancel()
    handle.cancel()
    assert not kernel.bus.heard("x")
    with pytest.raises(ServiceError):
        kernel.use("s")


async def test_a_later_refusal_reaches_the_awaiter_and_plugin_error(
    kernel: Kernel,
) -> None:
    reported = anyio.Event()
    seen: list[Any] = []

    def hear(name: str, error: BaseException) -> None:
        seen.append((name, type(error)))
        reported.set()

    kernel.bus.on("plugin:error", hear)
    await kernel.load(plugin("first", lambda context: context.provide("s", 1)))
    context = await held(kernel)
    handle = context.provide("s", 2)
    with pytest.raises(ConflictError, match="first"):
        await handle
    handle.cancel()
    with anyio.fail_after(2):
        await reported.wait()
    assert seen == [("p", ConflictError)]
    assert kernel.use("s") == 1
    await kernel.unload("p")
    assert kernel.use("s") == 1


# -- acceptance


async def test_acceptance_holds_a_load_up_and_may_refuse_it(kernel: Kernel) -> None:
    gate = Gate()
    await gate.join(kernel)

    def load(context: Any) -> None:
        context.hook("x", print)
        context.register("gated", "key", "value")

    gate.refuse = True
    outcomes: list[Any] = []

    async def ask() -> None:
        try:
            await kernel.load(plugin("p", load, unload=lambda: outcomes.append("unload")))
        except RefusedError as error:
            outcomes.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await gate.asked.wait()
        assert not kernel.bus.heard("x")
        gate.go.set()
    assert outcomes[0] == "unload"
    assert "refused on purpose" in str(outcomes[1])
    assert not kernel.bus.heard("x")
    assert kernel.registry.entries("gated") == ()
    gate.refuse = False
    await kernel.load(plugin("p", load))
    assert kernel.bus.heard("x")


async def test_what_moved_meanwhile_is_accepted_anew(kernel: Kernel) -> None:
    gate = Gate()
    await gate.join(kernel)
    async with anyio.create_task_group() as group:
        group.start_soon(
            kernel.load, plugin("p", lambda context: context.register("gated", "key", "value"))
        )
        await gate.asked.wait()
        kernel.bus.on("x", print)
        gate.go.set()
    assert gate.runs == 2
    assert kernel.bus.heard("x")
    assert len(kernel.registry.entries("gated")) == 1


async def test_a_registry_that_never_stands_still(kernel: Kernel) -> None:
    async def accept(draft: Draft) -> None:
        await anyio.lowlevel.checkpoint()
        kernel.bus.on("x", print).cancel()

    await kernel.load(
        plugin("kind", lambda context: context.add_kind(Kind("moving", accept=accept)))
    )
    with (
        anyio.fail_after(5),
        pytest.raises(TransactionError, match="changed during each of 16 attempts"),
    ):
        await kernel.load(plugin("p", lambda context: context.register("moving", "key", 1)))
    assert kernel.registry.entries("moving") == ()


async def test_accept_sees_the_draft_replaces_values_and_sets_a_view(kernel: Kernel) -> None:
    async def accept(draft: Draft) -> None:
        for entry in draft.entries("number"):
            draft.replace(entry, entry.value * 10)
        draft.set_view("number", sum(entry.value for entry in draft.entries("number")))
        assert draft.view("number") is not None

    await kernel.load(plugin("k", lambda context: context.add_kind(Kind("number", accept=accept))))

    def load(context: Any) -> None:
        context.register("number", "a", 1)
        context.register("number", "b", 2, priority=5)

    await kernel.load(plugin("p", load))
    assert [(e.key, e.value) for e in kernel.registry.entries("number")] == [("b", 20), ("a", 10)]
    assert kernel.registry.view("number") == 30
    with kernel.pin() as registry:
        async with anyio.create_task_group() as group:
            group.start_soon(kernel.toggle, "p", False)
        assert registry.view("number") == 30
    assert kernel.registry.view("number") == 0
    await kernel.toggle("p", True)
    assert kernel.registry.view("number") == 30


async def test_hooks_have_their_say_in_acceptance_and_are_asked_anew(kernel: Kernel) -> None:
    made: list[list[Any]] = []

    async def accept(draft: Draft) -> None:
        made.append([await draft.emit("item:create", e.value) for e in draft.entries("item")])

    kind = Kind("item", accept=accept, retest=("item:create",))
    await kernel.load(plugin("k", lambda context: context.add_kind(kind)))
    await kernel.load(plugin("items", lambda context: context.register("item", "a", 1)))
    assert made[-1] == [1]
    # A guard counts for what is there already, in the very swap in which it comes and goes.
    await kernel.load(
        plugin("guard", lambda context: context.hook("item:create", lambda value: value + 100))
    )
    assert made[-1] == [101]
    await kernel.toggle("guard", False)
    assert made[-1] == [1]

    def refuse(value: int) -> None:
        raise PermissionError("no items")

    with pytest.raises(RefusedError):
        await kernel.load(plugin("wall", lambda context: context.hook("item:create", refuse)))
    assert not kernel.bus.heard("item:create")


async def test_a_later_verb_waits_for_its_acceptance(kernel: Kernel) -> None:
    gate = Gate()
    await gate.join(kernel)
    context = await held(kernel)
    handle = context.register("gated", "key", "value")
    await gate.asked.wait()
    assert kernel.registry.entries("gated") == ()
    gate.go.set()
    with anyio.fail_after(2):
        assert await handle is handle
    assert len(kernel.registry.entries("gated")) == 1
    gate.refuse = True
    other = context.register("gated", "other", "value")
    with anyio.fail_after(2), pytest.raises(RefusedError, match="on purpose"):
        await other
    gate.refuse = False
    await kernel.unload("p")
    assert kernel.registry.entries("gated") == ()


@pytest.mark.parametrize("how", ["cancel", "unload", "toggle"])
async def test_what_is_gone_before_it_was_accepted_does_not_come(kernel: Kernel, how: str) -> None:
    gate = Gate()
    await gate.join(kernel)
    context = await held(kernel)
    context.hook("other", print)
    handle = context.register("gated", "key", "value")
    await gate.asked.wait()
    async with anyio.create_task_group() as group:
        if how == "cancel":
            handle.cancel()
        elif how == "unload":
            group.start_soon(kernel.unload, "p")
        else:
            group.start_soon(kernel.toggle, "p", False)
        await anyio.wait_all_tasks_blocked()
        gate.go.set()
        await anyio.wait_all_tasks_blocked()
    assert kernel.registry.entries("gated") == ()
    if how == "toggle":
        await kernel.toggle("p", True)
        assert len(kernel.registry.entries("gated")) == 1
        with anyio.fail_after(2):
            assert await handle is handle
    else:
        with anyio.fail_after(2), pytest.raises(VekoError):
            await handle


async def test_a_removal_that_is_refused_does_not_hurt_the_host(
    kernel: Kernel, faults: Any
) -> None:
    gate = Gate()
    gate.go.set()
    await gate.join(kernel)
    seen = faults(kernel.bus)
    context = await held(kernel)
    handle = context.register("gated", "key", "value")
    await handle
    gate.refuse = True
    handle.cancel()
    await anyio.wait_all_tasks_blocked()
    assert [type(error) for error, _ in seen] == [RefusedError]
    gate.refuse = False
    await kernel.unload("p")
    assert kernel.registry.entries("gated") == ()


async def test_an_unload_that_is_refused_leaves_the_plugin_as_it_was(kernel: Kernel) -> None:
    gate = Gate()
    gate.go.set()
    await gate.join(kernel)

    def load(context: Any) -> None:
        context.register("gated", "key", "value")
        context.hook("x", print)

    record = await kernel.load(plugin("p", load))
    gate.refuse = True
    for operation in (kernel.unload("p"), kernel.toggle("p", False)):
        with pytest.raises((ValueError, RefusedError)):
            await operation
        assert record.active
        assert kernel.bus.heard("x")
    gate.refuse = False
    await kernel.unload("p")
    assert not kernel.bus.heard("x")


async def test_a_kernel_that_is_left_unloads_even_what_is_refused() -> None:
    gate = Gate()
    gate.go.set()
    ended: list[str] = []
    async with Kernel() as kernel:
        await gate.join(kernel)
        await kernel.load(
            plugin(
                "p",
                lambda context: context.register("gated", "key", "value"),
                unload=lambda: ended.append("unload"),
            )
        )
        gate.refuse = True
    assert ended == ["unload"]


async def test_unique_kinds(kernel: Kernel) -> None:
    def load(context: Any) -> None:
        context.add_kind(Kind("only", unique=True))

    await kernel.load(plugin("k", load))
    await kernel.load(plugin("a", lambda context: context.register("only", "key", 1)))
    with pytest.raises(ConflictError, match="a"):
        await kernel.load(plugin("b", lambda context: context.register("only", "key", 2)))
    with pytest.raises(ConflictError):
        await kernel.load(plugin("c", load))
    await kernel.unload("a")
    await kernel.load(plugin("b", lambda context: context.register("only", "key", 2)))
    entry = kernel.registry.get("only", "key")
    assert entry is not None
    assert (entry.value, entry.owner.name) == (2, "b")


async def test_what_is_cancelled_while_it_is_accepted_never_goes_live(kernel: Kernel) -> None:
    """And what is registered meanwhile goes live with the rest."""
    asked, go = anyio.Event(), anyio.Event()
    contexts: list[Any] = []
    handles: list[Handle] = []

    async def accept(draft: Draft) -> None:
        asked.set()
        await go.wait()

    def load(context: Any) -> None:
        contexts.append(context)
        handles.append(context.provide("given up", 1))
        context.register("slow", "key", "value")

    kind = Kind("slow", accept=accept)
    await kernel.load(plugin("kinds", lambda context: context.add_kind(kind)))
    async with anyio.create_task_group() as group:
        group.start_soon(kernel.load, plugin("p", load))
        await asked.wait()
        handles[0].cancel()
        late = contexts[0].provide("late", 2)
        go.set()
    assert kernel.registry.get("service", "given up") is None
    assert kernel.use("late") == 2
    assert await late is late
