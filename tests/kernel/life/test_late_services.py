"""Reload of plugins that provide a service from a task, under plugins that need it in `load()`."""

import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from veko import (
    ConflictError,
    Context,
    Kernel,
    LoadError,
    LoadTimeout,
    Plugin,
    PluginRecord,
    ServiceError,
    State,
    as_plugin,
)

pytestmark = pytest.mark.anyio
Get = Callable[[Context, str], Awaitable[Any]]


async def by_when(context: Context, service: str) -> Any:
    return await context.when(service)


async def by_use(context: Context, service: str) -> Any:
    return context.use(service)


@pytest.fixture(params=[by_when, by_use])
def get(request: pytest.FixtureRequest) -> Get:
    """How users get the service in `load()`."""
    found: Get = request.param
    return found


async def shortly() -> None:
    for _ in range(3):
        await anyio.lowlevel.checkpoint()


class Late:
    """`db`, which provides `db` from a task, and plugins that use it in `load()`."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.running: list[str] = []

    def step(self, version: str) -> dict[str, Callable[[], None]]:
        def note(step: str) -> Callable[[], None]:
            return lambda: self.steps.append(f"{step} {version}")

        return {step: note(step) for step in ("activate", "deactivate", "unload")}

    def provider(self, version: str, connect: Any = None, **more: Any) -> dict[str, Any]:
        def load(context: Context) -> None:
            async def usual() -> None:
                await shortly()
                context.provide("db", version)

            async def run() -> None:
                self.running.append(version)
                try:
                    await (usual() if connect is None else connect(context))
                    await anyio.sleep_forever()
                finally:
                    self.running.remove(version)

            self.steps.append(f"load {version}")
            context.spawn(run)

        form = {"name": "db", "version": version, "load": load, **self.step(version)}
        return form | {"export_state": lambda: version, **more}

    @staticmethod
    def user(get: Get, name: str = "user", service: str = "db", **more: Any) -> dict[str, Any]:
        async def load(context: Context) -> None:
            value = await get(context, service)
            context.hook("ask", lambda values: [*values, f"{name} {value}"])

        return {"name": name, "version": "1", "load": load, **more}

    async def start(self, kernel: Kernel, get: Get, **more: Any) -> PluginRecord:
        record = await kernel.load(self.provider("1", **more))
        assert await kernel.when("db") == "1"
        await kernel.load(self.user(get))
        self.steps.clear()
        return record


async def ask(kernel: Kernel) -> Any:
    return await kernel.bus.emit("ask", [])


async def test_it_reloads_with_users_that_need_it_in_load(kernel: Kernel, get: Get) -> None:
    late = Late()
    await late.start(kernel, get)
    seen: list[Any] = []

    async def look() -> None:
        while True:
            seen.append((*(await ask(kernel)), kernel.use("db")))
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        for version in ("2", "3", "4"):
            with anyio.fail_after(5):
                await kernel.reload(late.provider(version))
            assert await ask(kernel) == [f"user {version}"]
            assert late.running == [version]
        group.cancel_scope.cancel()
    assert list(dict.fromkeys(seen)) == [(f"user {v}", v) for v in "1234"]
    assert late.steps[:4] == ["load 2", "activate 2", "deactivate 1", "unload 1"]
    assert [record.generation for record in kernel.records()] == [4, 4]


async def test_by_its_type(kernel: Kernel) -> None:
    class Pool:
        pass

    def load(context: Context) -> None:
        async def connect() -> None:
            await shortly()
            context.provide("pool", Pool())

        context.spawn(connect)

    seen: list[Pool] = []

    async def use(context: Context) -> None:
        seen.append(await context.when(Pool))

    form = {"name": "db", "version": "1", "load": load}
    await kernel.load(form)
    await kernel.load({"name": "user", "version": "1", "load": use})
    await kernel.reload(form)
    assert len(set(seen)) == 2
    assert seen[1] is kernel.use("pool")


async def test_late_upon_late(kernel: Kernel, get: Get) -> None:
    """`user` needs `middle` in load(), the task of which needs `db`, which comes from a task."""
    late = Late()

    def load(context: Context) -> None:
        async def connect() -> None:
            below = await get(context, "db")
            await shortly()
            context.provide("middle", f"middle on {below}")

        context.spawn(connect)

    await kernel.load(late.provider("1"))
    await kernel.when("db")
    await kernel.load({"name": "middle", "version": "1", "load": load})
    await kernel.when("middle")
    await kernel.load(late.user(get, service="middle"))
    for version in ("2", "3"):
        with anyio.fail_after(5):
            await kernel.reload(late.provider(version))
        assert await ask(kernel) == [f"user middle on {version}"]
        assert kernel.use("db") == version
    await kernel.reload({"name": "middle", "version": "2", "load": load})
    assert await ask(kernel) == ["user middle on 3"]
    assert [record.generation for record in kernel.records()] == [3, 4, 4]


async def test_a_circle_of_late_ones(kernel: Kernel) -> None:
    def form(name: str, other: str, version: str) -> dict[str, Any]:
        def load(context: Context) -> None:
            async def connect() -> None:
                context.provide(name, version)
                context.provide(f"{name} on", (version, await context.when(other)))

            context.spawn(connect)

        return {"name": name, "version": version, "load": load}

    await kernel.load(form("a", "b", "1"))
    await kernel.load(form("b", "a", "1"))
    await kernel.load(Late.user(by_when, service="b on"))
    with anyio.fail_after(5):
        await kernel.reload(form("a", "b", "2"))
    assert await ask(kernel) == ["user ('1', '2')"]
    assert await kernel.when("a on") == ("2", "1")


async def test_what_its_task_registers_goes_live_with_the_rest(kernel: Kernel, get: Get) -> None:
    late = Late()
    seen: list[Any] = []

    async def connect(context: Context) -> None:
        await context.hook("more", lambda: context.plugin.version)  # does not wait for the swap
        context.spawn(provide, context)
        await context.emit("begun")

    async def provide(context: Context) -> None:
        seen.append(await kernel.bus.emit("more"))
        await context.provide("db", context.manifest.version)

    await late.start(kernel, get, connect=connect)
    await kernel.reload(late.provider("2", connect))
    assert seen == ["1", "1"]
    assert await kernel.bus.emit("more") == "2"
    assert await ask(kernel) == ["user 2"]


async def test_one_that_never_provides_leaves_the_old_ones(get: Get, faults: Any) -> None:
    late, go = Late(), anyio.Event()
    heard: list[Any] = []
    async with Kernel(timeout=0.05) as kernel:
        await late.start(kernel, get)
        seen = faults(kernel.bus)
        kernel.bus.on("plugin:timeout", lambda name, error: heard.append((name, error.step)))

        async def wait(context: Context) -> None:
            await go.wait()

        message = "its tasks did not provide 'db' within 0.05 s, which user uses in load"
        with pytest.raises(LoadTimeout, match=message) as caught:
            await kernel.reload(late.provider("2", wait))
        assert caught.value.plugin == "db"
        assert heard == [("db", "load")]
        assert [str(error) for error, _ in seen] == [str(caught.value)]
        assert late.steps == ["load 2", "activate 2", "deactivate 2", "unload 2"]
        assert late.running == ["1"]
        assert (await ask(kernel), kernel.use("db")) == (["user 1"], "1")
        assert [record.state for record in kernel.records()] == [State.ACTIVE] * 2
        await kernel.reload(late.provider("3"))
        assert await ask(kernel) == ["user 3"]


async def test_a_task_that_fails_is_not_waited_for(kernel: Kernel, get: Get, faults: Any) -> None:
    late = Late()
    await late.start(kernel, get)
    seen = faults(kernel.bus)

    async def fail(context: Context) -> None:
        raise OSError("no route to the database")

    kernel.timeout = 5 if get is by_use else 0.05
    expected = "there is no service 'db'" if get is by_use else "it waited for the service 'db'"
    with pytest.raises((ServiceError, LoadTimeout), match=expected) as caught:
        await kernel.reload(late.provider("2", fail))
    assert caught.value.plugin == "user"
    assert "it needs db, which was" in str(caught.value)
    assert "no route to the database" in str(seen[0][0])
    assert late.running == ["1"]
    assert (await ask(kernel), kernel.use("db")) == (["user 1"], "1")


async def test_one_that_provides_in_load_now(kernel: Kernel, get: Get) -> None:
    late = Late()
    await late.start(kernel, get)

    def load(context: Context) -> None:
        context.provide("db", "2")
        context.spawn(count)

    async def count() -> None:
        late.steps.append("task 2")
        assert kernel.use("db") == "2", "it ran before the swap"

    await kernel.reload({"name": "db", "version": "2", "load": load})
    assert await ask(kernel) == ["user 2"]
    await anyio.wait_all_tasks_blocked()
    assert late.steps.count("task 2") == 1
    await kernel.reload({"name": "db", "version": "3", "load": load})
    assert [record.generation for record in kernel.records()] == [3, 3]


async def test_one_that_drops_it_with_its_users(kernel: Kernel, get: Get) -> None:
    """The new user does without: the wait ends with the tasks, and the reload succeeds."""
    late = Late()
    await late.start(kernel, get)

    async def dependents(record: PluginRecord) -> Plugin:
        return as_plugin({"name": "user", "version": "2", "load": lambda: None})

    def load(context: Context) -> None:
        context.spawn(shortly)

    with anyio.fail_after(2):
        await kernel.reload({"name": "db", "version": "2", "load": load}, dependents=dependents)
    with pytest.raises(ServiceError):
        kernel.use("db")


async def test_a_user_that_fails_takes_the_tasks_back(kernel: Kernel, get: Get) -> None:
    late = Late()
    await late.start(kernel, get)

    async def dependents(record: PluginRecord) -> Plugin:
        async def load(context: Context) -> None:
            assert await get(context, "db") == "2"
            assert late.running == ["1", "2"]
            raise ValueError("broken")

        return as_plugin({"name": "user", "version": "2", "load": load})

    with pytest.raises(LoadError, match="broken"):
        await kernel.reload(late.provider("2"), dependents=dependents)
    assert late.running == ["1"]
    assert late.steps == ["load 2", "activate 2", "deactivate 2", "unload 2"]
    assert (await ask(kernel), kernel.use("db")) == (["user 1"], "1")


async def test_a_name_that_is_taken_refuses_the_reload(kernel: Kernel, get: Get) -> None:
    late = Late()
    await late.start(kernel, get)
    await kernel.load(
        {"name": "x", "version": "1", "load": lambda context: context.provide("taken", 1)}
    )

    async def connect(context: Context) -> None:
        context.provide("taken", 2)
        context.provide("db", "2")

    with pytest.raises(ConflictError, match="taken"):
        await kernel.reload(late.provider("2", connect))
    assert late.running == ["1"]
    assert (await ask(kernel), kernel.use("db")) == (["user 1"], "1")


async def test_it_is_cancelled_with_its_caller(kernel: Kernel, get: Get) -> None:
    late, begun = Late(), anyio.Event()
    await late.start(kernel, get)

    async def wait(context: Context) -> None:
        begun.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(kernel.reload, late.provider("2", wait))
        await begun.wait()
        assert late.running == ["1", "2"]
        group.cancel_scope.cancel()
    assert late.running == ["1"]
    assert late.steps == ["load 2", "activate 2", "deactivate 2", "unload 2"]
    assert (await ask(kernel), kernel.use("db")) == (["user 1"], "1")
    await kernel.reload(late.provider("3"))
    assert await ask(kernel) == ["user 3"]


async def test_leaving_the_kernel_ends_the_wait(get: Get) -> None:
    late, begun = Late(), anyio.Event()

    async def wait(context: Context) -> None:
        begun.set()
        await anyio.sleep_forever()

    async def reload(kernel: Kernel) -> None:
        with pytest.raises(Exception, match="clos"):
            await kernel.reload(late.provider("2", wait))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group, Kernel() as kernel:
            await late.start(kernel, get)
            group.start_soon(reload, kernel)
            await begun.wait()
    assert late.running == []
    assert [late.steps.count(f"unload {version}") for version in "12"] == [1, 1]


async def test_plugins_that_are_off(kernel: Kernel, get: Get) -> None:
    """The tasks run for as long as `load()` of the user needs them, and again when it is on."""
    late = Late()
    await late.start(kernel, get)
    await kernel.toggle("db", cascade=True)
    await kernel.reload(late.provider("2"))
    assert late.running == []
    assert await ask(kernel) == []
    with pytest.raises(ServiceError, match="belongs to db, which is inactive"):
        kernel.use("db")
    assert "activate 2" not in late.steps


async def test_off_and_on_again(kernel: Kernel, get: Get) -> None:
    late = Late()

    def form(version: str) -> dict[str, Any]:
        def load(context: Context) -> None:
            async def connect() -> None:
                await shortly()
                context.provide("db", version)

            context.spawn(connect)

        return {"name": "db", "version": version, "load": load}

    await kernel.load(form("1"))
    await kernel.when("db")
    await kernel.load(late.user(get))
    await kernel.toggle("db", cascade=True)
    await kernel.reload(form("2"))
    await kernel.toggle("db")
    await kernel.toggle("user")
    assert (await ask(kernel), kernel.use("db")) == (["user 2"], "2")
    await kernel.reload(form("3"))
    assert (await ask(kernel), kernel.use("db")) == (["user 3"], "3")


async def test_a_provider_that_restarts(kernel: Kernel, get: Get) -> None:
    late = Late()
    await late.start(kernel, get, reload="restart")
    await kernel.reload(late.provider("2", reload="restart"))
    assert late.steps == ["deactivate 1", "unload 1", "load 2", "activate 2"]
    assert (await ask(kernel), late.running) == (["user 2"], ["2"])


async def test_a_provider_that_restarts_comes_back_with_its_users(kernel: Kernel, get: Get) -> None:
    late = Late()
    await late.start(kernel, get, reload="restart")

    async def dependents(record: PluginRecord) -> Plugin:
        def load() -> None:
            raise ValueError("broken")

        return as_plugin({"name": "user", "version": "2", "load": load})

    with pytest.raises(LoadError, match="broken"):
        await kernel.reload(late.provider("2", reload="restart"), dependents=dependents)
    assert (await ask(kernel), late.running) == (["user 1"], ["1"])
    assert [(record.state, record.version) for record in kernel.records()] == [
        (State.ACTIVE, "1"),
        (State.ACTIVE, "1"),
    ]


async def test_a_load_that_waits_for_a_service_says_so_when_its_time_is_over() -> None:
    async with Kernel(timeout=0.02) as kernel:
        with pytest.raises(LoadTimeout, match="it waited for the service 'db'"):
            await kernel.load(Late.user(by_when))


async def test_nothing_is_left_of_a_generation_that_provided_in_vain(
    kernel: Kernel, get: Get, all_die: Any
) -> None:
    late = Late()
    await late.start(kernel, get)

    class Pool:
        pass

    references: list[weakref.ref[Any]] = []

    async def connect(context: Context) -> None:
        pool = Pool()
        references.append(weakref.ref(pool))
        context.provide("db", pool)

    async def dependents(record: PluginRecord) -> Plugin:
        def load() -> None:
            raise ValueError("broken")

        return as_plugin({"name": "user", "version": "2", "load": load})

    with pytest.raises(LoadError):
        await kernel.reload(late.provider("2", connect), dependents=dependents)
    await all_die(*references)
    assert references
