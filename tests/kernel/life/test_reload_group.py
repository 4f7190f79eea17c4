"""Reload with dependents: one transaction of all that need each other, all or none."""

import functools
import weakref
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from veko import (
    Context,
    DependencyError,
    Kernel,
    LoadError,
    ManifestError,
    Plugin,
    PluginRecord,
    RefusedError,
    ServiceError,
    State,
    StateError,
    VekoError,
    as_plugin,
)

pytestmark = pytest.mark.anyio


def plugin(name: str, load: Any = lambda: None, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1", "load": load, **more}


class Chain:
    """The plugins `base`, `middle` that uses it, `top` that needs `middle`; and `alone`."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.broken: tuple[str, str] | None = None

    def form(self, name: str, version: int) -> Plugin:
        below = {"middle": "base", "top": "middle"}.get(name)
        mark = f"{name} {version}"

        def step(which: str) -> Any:
            def run(*args: Any) -> Any:
                self.steps.append(f"{which} {mark}")
                if self.broken == (which, mark):
                    raise ValueError(f"broken {mark}")
                return mark

            return run

        def load(context: Context) -> None:
            context.provide(name, mark)
            if below is not None:
                below_mark = context.use(below)
                record = context.get_plugin(below)
                assert record is not None
                assert f"{below} {record.version}" == below_mark
                context.hook("x", lambda value: [*value, f"{mark} on {below_mark}"])
            else:
                context.hook("x", lambda value: [*value, mark])
            step("load")()

        names = ("unload", "activate", "deactivate", "export_state")
        more: dict[str, Any] = {which: functools.partial(step(which)) for which in names}
        more["import_state"] = step("import_state")
        if name == "top":
            more["dependencies"] = ["middle"]
        return as_plugin(plugin(name, load, **more) | {"version": str(version)})

    async def load(self, kernel: Kernel) -> None:
        for name in ("base", "middle", "alone", "top"):
            await kernel.load(self.form(name, 1))
        self.steps.clear()

    async def reload(self, kernel: Kernel, name: str = "base") -> PluginRecord:
        async def dependents(record: PluginRecord) -> Plugin:
            return self.form(record.name, 2)

        return await kernel.reload(self.form(name, 2), dependents=dependents)


OLD = ["base 1", "middle 1 on base 1", "alone 1", "top 1 on middle 1"]
NEW = ["base 2", "middle 2 on base 2", "alone 1", "top 2 on middle 2"]


async def test_dependents_reload_in_one_swap(kernel: Kernel) -> None:
    chain, heard = Chain(), list[str]()
    await chain.load(kernel)
    for event in ("plugin:reload", "plugin:loaded", "plugin:retired"):
        kernel.bus.on(event, lambda name, event=event: heard.append(f"{event[7:]} {name}"))
    version = kernel.registry.version
    assert await kernel.bus.emit("x", []) == OLD
    await chain.reload(kernel)
    assert kernel.registry.version == version + 1
    assert await kernel.bus.emit("x", []) == NEW
    names = ("base", "middle", "top")
    up = [f"{step} {name} 2" for name in names for step in ("load", "activate")]
    over = [
        f"{step} {name} {version}"
        for name in names
        for step, version in (("export_state", 1), ("import_state", 2))
    ]
    down = [f"{step} {name} 1" for name in reversed(names) for step in ("deactivate", "unload")]
    assert chain.steps == [*up, *over, *down]
    assert heard == [
        *(f"reload {name}" for name in names),
        *(f"loaded {name}" for name in names),
        *(f"retired {name}" for name in reversed(names)),
    ]
    assert [(r.generation, r.active) for r in kernel.records()] == [
        (2, True), (2, True), (1, True), (2, True),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["base", "middle", "top"])
@pytest.mark.parametrize("step", ["load", "activate", "export_state", "import_state"])
async def test_all_or_none(kernel: Kernel, name: str, step: str, faults: Any) -> None:
    chain = Chain()
    await chain.load(kernel)
    seen = faults(kernel.bus)
    chain.broken = (step, f"{name} {1 if step == 'export_state' else 2}")
    records = {record.name: record.current for record in kernel.records()}
    with pytest.raises(LoadError) as caught:
        await chain.reload(kernel)
    assert caught.value.plugin == name
    assert ("it was reloaded because it needs base" in str(caught.value)) is (name != "base")
    assert [error for error, _ in seen] == [caught.value]
    assert await kernel.bus.emit("x", []) == OLD
    assert {record.name: record.current for record in kernel.records()} == records
    begun = [s for s in chain.steps if s.endswith("2") and s.startswith("load")]
    undone = [s for s in chain.steps if s.startswith("unload")]
    assert not [s for s in chain.steps if s.startswith(("deactivate", "unload")) and s[-1] == "1"]
    assert len(undone) == len(begun) - (step == "load")
    chain.broken = None
    await chain.reload(kernel)
    assert await kernel.bus.emit("x", []) == NEW


async def test_without_new_versions_dependents_get_another_life(kernel: Kernel) -> None:
    chain = Chain()
    await chain.load(kernel)
    await kernel.reload(chain.form("base", 2))
    assert await kernel.bus.emit("x", []) == [
        "base 2", "middle 1 on base 2", "alone 1", "top 1 on middle 1",
    ]  # fmt: skip


async def test_only_what_is_above_reloads(kernel: Kernel) -> None:
    chain = Chain()
    await chain.load(kernel)
    await chain.reload(kernel, "middle")
    assert [record.generation for record in kernel.records()] == [1, 2, 1, 2]


async def test_the_load_of_a_dependent_sees_what_is_staged_and_nobody_else(kernel: Kernel) -> None:
    seen: list[Any] = []

    def base(version: str) -> dict[str, Any]:
        def load(context: Context) -> None:
            context.provide("s", version)
            context.attach("tool", lambda context: f"tool {version}")

        return plugin("base", load, exports=version) | {"version": version}

    async def above(context: Any) -> None:
        other = context.get_plugin("base")
        assert [(r.version, r.exports) for r in context.list_plugins() if r.name == "base"] == [
            (other.version, other.exports)
        ]
        mine = (context.use("s"), context.tool, other.version, other.exports)
        record = kernel.get("base")
        assert record is not None
        await anyio.lowlevel.checkpoint()
        assert (record.version, record.exports) == (kernel.use("s"), kernel.use("s"))
        seen.append((mine, (kernel.use("s"), kernel.registry.get("service", "s").value)))  # type: ignore[union-attr]

    await kernel.load(base("1"))
    record = await kernel.load(plugin("above", above))
    await kernel.reload(base("2"))
    new, old = ("2", "tool 2", "2", "2"), ("1", "tool 1", "1", "1")
    assert seen == [(old, ("1", "1")), (new, ("1", "1"))]
    assert record.current.context.tool == "tool 2"  # type: ignore[union-attr]


async def test_a_hook_may_refuse_it_for_one_of_them(kernel: Kernel) -> None:
    chain = Chain()
    await chain.load(kernel)

    def refuse(name: str) -> None:
        if name == "top":
            raise ValueError("not the top")

    kernel.bus.on("plugin:reload", refuse)
    with pytest.raises(RefusedError, match=r"not the top.*because it needs base") as caught:
        await chain.reload(kernel)
    assert caught.value.plugin == "top"
    assert chain.steps == []
    assert await kernel.bus.emit("x", []) == OLD


async def test_what_gives_the_new_versions_may_refuse(kernel: Kernel) -> None:
    chain, asked = Chain(), list[str]()
    await chain.load(kernel)

    async def dependents(record: PluginRecord) -> Plugin:
        asked.append(record.name)
        if record.name == "top":
            raise DependencyError("middle>=3 is wanted", plugin="top")
        return chain.form(record.name, 2)

    with pytest.raises(DependencyError, match="middle>=3 is wanted"):
        await kernel.reload(chain.form("base", 2), dependents=dependents)
    assert asked == ["middle", "top"]
    assert chain.steps == []

    async def renamed(record: PluginRecord) -> Plugin:
        return chain.form(f"{record.name}-2", 2)

    with pytest.raises(ManifestError, match="its name is 'middle-2' now"):
        await kernel.reload(chain.form("base", 2), dependents=renamed)
    assert await kernel.bus.emit("x", []) == OLD


async def test_those_that_are_off_get_a_generation_and_stay_off(kernel: Kernel) -> None:
    chain = Chain()
    await chain.load(kernel)
    await kernel.toggle("middle", cascade=True)
    chain.steps.clear()
    await chain.reload(kernel)
    assert [s for s in chain.steps if "activate" in s] == ["activate base 2", "deactivate base 1"]
    assert await kernel.bus.emit("x", []) == ["base 2", "alone 1"]
    await kernel.toggle("middle")
    await kernel.toggle("top")
    assert await kernel.bus.emit("x", []) == NEW


async def test_a_group_that_is_off_altogether(kernel: Kernel) -> None:
    chain = Chain()
    await chain.load(kernel)
    await kernel.toggle("base", cascade=True)
    await chain.reload(kernel)
    assert await kernel.bus.emit("x", []) == ["alone 1"]
    for name in ("base", "middle", "top"):
        await kernel.toggle(name)
    assert await kernel.bus.emit("x", []) == NEW


async def test_a_circle_reloads_each_once(kernel: Kernel) -> None:
    loads: list[str] = []

    def form(name: str, other: str) -> dict[str, Any]:
        def load(context: Context) -> None:
            loads.append(name)
            context.provide(name, name)
            context.hook(f"{name}:work", lambda: context.use(other))

        return plugin(name, load)

    await kernel.load(form("a", "b"))
    await kernel.load(form("b", "a"))
    await kernel.bus.emit("a:work")
    await kernel.bus.emit("b:work")
    loads.clear()
    await kernel.reload(form("b", "a"))
    assert loads == ["b", "a"]
    assert [record.generation for record in kernel.records()] == [2, 2]


async def test_dropping_a_service_that_others_look_up_is_refused(kernel: Kernel) -> None:
    await kernel.load(plugin("base", lambda context: context.provide("s", 1)))
    await kernel.load(plugin("above", lambda context: context.hook("x", lambda: context.use("s"))))
    assert await kernel.bus.emit("x") == 1
    with pytest.raises(DependencyError, match="no longer provides 's', which above uses") as caught:
        await kernel.reload(plugin("base"))
    assert caught.value.plugin == "base"
    assert await kernel.bus.emit("x") == 1
    await kernel.unload("above")
    await kernel.reload(plugin("base"))
    with pytest.raises(ServiceError):
        kernel.use("s")


async def test_dropping_a_service_that_is_used_in_load_is_the_loads_business(
    kernel: Kernel,
) -> None:
    await kernel.load(plugin("base", lambda context: context.provide("s", 1)))
    await kernel.load(plugin("above", lambda context: context.use("s")))
    with pytest.raises(ServiceError, match="there is no service 's'") as caught:
        await kernel.reload(plugin("base"))
    assert caught.value.plugin == "above"
    assert kernel.use("s") == 1

    async def renamed(record: PluginRecord) -> Plugin:
        return as_plugin(plugin("above", lambda context: context.use("t")))

    new = plugin("base", lambda context: context.provide("t", 2))
    await kernel.reload(new, dependents=renamed)
    assert [record.generation for record in kernel.records()] == [3, 3]


async def test_a_service_may_move_within_the_group(kernel: Kernel) -> None:
    await kernel.load(plugin("base", lambda context: context.provide("s", 1)))

    def load(context: Context) -> None:
        context.hook("x", lambda: context.use("t"))
        context.provide("u", context.use("s"))

    await kernel.load(plugin("above", load))

    async def dependents(record: PluginRecord) -> Plugin:
        return as_plugin(plugin("above", lambda context: context.provide("s", 3)))

    new = plugin("base", lambda context: context.provide("u", 2))
    await kernel.reload(new, dependents=dependents)
    assert (kernel.use("u"), kernel.use("s")) == (2, 3)


async def test_a_new_dependency_must_be_there(kernel: Kernel) -> None:
    record = await kernel.load(plugin("p"))
    with pytest.raises(DependencyError, match="needs the plugin 'other', which is not loaded"):
        await kernel.reload(plugin("p", dependencies=["other"]))
    await kernel.load(plugin("other"))
    await kernel.reload(plugin("p", dependencies=["other"]))
    assert kernel.dependents("other") == [record]


async def test_another_operation_on_one_of_them_waits(kernel: Kernel) -> None:
    begun, go = anyio.Event(), anyio.Event()
    order: list[str] = []
    await kernel.load(plugin("base", lambda context: context.provide("s", 1)))
    record = await kernel.load(plugin("above", lambda context: context.use("s")))

    async def slow(context: Context) -> None:
        begun.set()
        await go.wait()
        context.provide("s", 2)

    async def act(what: str, *args: Any) -> None:
        await getattr(kernel, what)(*args)
        order.append(what)

    async with anyio.create_task_group() as group:
        group.start_soon(act, "reload", plugin("base", slow))
        await begun.wait()
        group.start_soon(act, "toggle", "above")
        await anyio.wait_all_tasks_blocked()
        assert record.active
        go.set()
    assert sorted(order) == ["reload", "toggle"]
    assert (record.state, record.generation) == (State.INACTIVE, 2)


async def test_who_comes_to_need_it_while_it_waits_reloads_too(kernel: Kernel) -> None:
    begun, go = anyio.Event(), anyio.Event()
    await kernel.load(plugin("base", lambda context: context.provide("s", 1)))

    async def hold() -> None:
        begun.set()
        await go.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(
            kernel.reload, plugin("base", lambda context: context.provide("s", 2), activate=hold)
        )
        await begun.wait()
        group.start_soon(kernel.reload, plugin("base", lambda context: context.provide("s", 3)))
        await anyio.wait_all_tasks_blocked()
        go.set()
        late = await kernel.load(
            plugin("late", lambda context: context.provide("t", context.use("s")))
        )
        again = kernel.use("t")
    assert kernel.use("t") == 3
    assert late.generation == 4 - again  # each of the two reloads that came after it made one


@pytest.mark.parametrize("manner", ["swap", "restart"])
async def test_what_comes_to_need_it_while_it_reloads_reloads_too(
    kernel: Kernel, manner: str
) -> None:
    begun, go = anyio.Event(), anyio.Event()
    steps: list[str] = []

    def base(version: int, load: Any = anyio.lowlevel.checkpoint) -> dict[str, Any]:
        async def provide(context: Context) -> None:
            context.provide("s", version)
            await load()

        return plugin(
            "base",
            provide,
            unload=lambda: steps.append(f"unload {version}"),
            export_state=lambda: steps.append(f"export {version}"),
            import_state=lambda state, before: None,
        )

    async def hold() -> None:
        begun.set()
        await go.wait()

    def hook(name: str) -> Any:
        return lambda context: context.hook("x", lambda: seen.append((name, context.use("s"))))

    seen: list[Any] = []
    await kernel.load(base(1))
    above = plugin("above", lambda context: context.provide("held", context.use("s")))
    await kernel.load(above | {"reload": manner})
    await kernel.load(plugin("looks", hook("looks")))
    async with anyio.create_task_group() as group:
        group.start_soon(kernel.reload, base(2, hold))
        await begun.wait()
        loads = plugin("late", lambda context: context.provide("held too", context.use("s")))
        await kernel.load(loads)
        await kernel.bus.emit("x")
        go.set()
    assert [kernel.use("held"), kernel.use("held too")] == [2, 2]
    await kernel.bus.emit("x")
    assert seen == [("looks", 1), ("looks", 2)]
    generations = {record.name: record.generation for record in kernel.records()}
    # The first attempt takes a number too, and so does a restart that is taken back.
    above_now = 3 if manner == "swap" else 4
    assert generations == {"base": 3, "above": above_now, "looks": 2, "late": 2}
    assert steps == ["unload 2", "export 1", "unload 1"]


async def test_a_reload_that_others_come_to_need_each_time_is_refused(
    kernel: Kernel, faults: Any
) -> None:
    names, seen = iter(range(100)), faults(kernel.bus)
    loads: list[int] = []

    def load(context: Context) -> None:
        context.provide("s", 1)
        loads.append(1)

    async def activate() -> None:
        if len(loads) > 1:
            await kernel.load(plugin(f"late-{next(names)}", lambda context: context.use("s")))

    await kernel.load(plugin("base", load))
    before = kernel.get("base").current  # type: ignore[union-attr]
    with pytest.raises(StateError, match="late-15 came to need it while it was reloaded"):
        await kernel.reload(plugin("base", load, activate=activate))
    assert kernel.get("base").current is before  # type: ignore[union-attr]
    assert len(seen) == 1


async def test_a_load_that_used_what_was_replaced_meanwhile_fails(kernel: Kernel) -> None:
    begun, go = anyio.Event(), anyio.Event()
    await kernel.load(plugin("base", lambda context: context.provide("s", 1)))
    failed: list[LoadError] = []

    async def load(context: Context) -> None:
        context.use("s")
        begun.set()
        await go.wait()

    async def late() -> None:
        with pytest.raises(LoadError, match="it holds the service 's' of base") as caught:
            await kernel.load(plugin("late", load))
        failed.append(caught.value)

    async with anyio.create_task_group() as group:
        group.start_soon(late)
        await begun.wait()
        await kernel.reload(plugin("base", lambda context: context.provide("s", 2)))
        go.set()
    assert failed[0].step == "load"
    await kernel.load(plugin("late", load))


async def test_what_holds_a_service_of_a_plugin_that_came_anew_is_not_switched_on(
    kernel: Kernel,
) -> None:
    base = plugin("base", lambda context: context.provide("s", object()))
    await kernel.load(base)
    await kernel.load(plugin("above", lambda context: context.use("s")))
    await kernel.toggle("above")
    await kernel.unload("base")
    await kernel.load(base)
    with pytest.raises(LoadError, match="was replaced or has left since"):
        await kernel.toggle("above")
    await kernel.reload(plugin("above", lambda context: context.use("s")))
    await kernel.toggle("above")


async def test_an_operation_on_one_of_them_from_within_is_refused(kernel: Kernel) -> None:
    raised: list[BaseException] = []

    async def load(context: Context) -> None:
        context.provide("s", 1)
        if above.current is not None:
            try:
                await kernel.toggle("above")
            except StateError as error:
                raised.append(error)

    above = PluginRecord(as_plugin(plugin("none")), 0)
    await kernel.load(plugin("base", load))
    above = await kernel.load(plugin("above", lambda context: context.use("s")))
    await kernel.reload(plugin("base", load))
    assert [type(error) for error in raised] == [StateError]
    assert above.active


async def test_groups_that_overlap_do_not_lock_each_other_out(kernel: Kernel) -> None:
    names = ("a", "b", "c")

    def form(name: str) -> dict[str, Any]:
        async def load(context: Context) -> None:
            context.provide(name, 1)
            await anyio.lowlevel.checkpoint()
            for other in names[: names.index(name)]:
                context.use(other)

        return plugin(name, load)

    for name in names:
        await kernel.load(form(name))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for _ in range(5):
                for name in reversed(names):
                    group.start_soon(kernel.reload, form(name))
    assert [record.generation for record in kernel.records()] == [6, 11, 16]


async def test_a_failed_group_leaves_nothing(kernel: Kernel, all_die: Any) -> None:
    references: list[weakref.ref[Any]] = []

    class Base(Plugin):
        name, version = "base", "1"

        def load(self, context: Context) -> None:
            context.provide("s", self)

    class Above(Plugin):
        name, version = "above", "1"
        fails = False

        def load(self, context: Context) -> None:
            self.below = context.use("s")
            if self.fails:
                raise ValueError("broken")

    async def dependents(record: PluginRecord) -> Plugin:
        broken = as_plugin(Above)
        broken.fails = True  # type: ignore[attr-defined]
        references.append(weakref.ref(broken))
        return broken

    await kernel.load(Base)
    await kernel.load(Above)
    new = as_plugin(Base)
    references.append(weakref.ref(new))
    with pytest.raises(VekoError):
        await kernel.reload(new, dependents=dependents)
    del new
    await all_die(*references)


async def test_a_late_provider_reloads_under_its_users(kernel: Kernel) -> None:
    """It provides from a task; its users look the service up while they run."""

    def provider(version: str) -> dict[str, Any]:
        def load(context: Any) -> None:
            async def connect() -> None:
                await anyio.lowlevel.checkpoint()
                context.provide("db", version)

            context.spawn(connect)

        return {"name": "provider", "version": version, "load": load}

    def user(context: Any) -> None:
        context.hook("ask", lambda: context.use("db"))

        async def ask_later() -> Any:
            return await context.when("db")

        context.hook("wait", ask_later)

    await kernel.load(provider("1"))
    await kernel.load({"name": "user", "version": "1", "load": user})
    assert await kernel.bus.emit("wait") == "1"
    assert await kernel.bus.emit("ask") == "1"
    for version in ("2", "3"):
        with anyio.fail_after(5):
            await kernel.reload(provider(version))
            assert await kernel.bus.emit("wait") == version
        assert await kernel.bus.emit("ask") == version
    await kernel.toggle("provider", False, cascade=True)
    await kernel.toggle("provider", True)
    await kernel.toggle("user", True)
    assert await kernel.bus.emit("ask") == "3"
    with anyio.fail_after(5):
        await kernel.reload(provider("4"))
        assert await kernel.bus.emit("wait") == "4"
