"""The tree that comes out: whatever runs at once, re-enters, is cancelled, fails or is closed."""

import asyncio
import contextvars
import logging
import pickle
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest
from opentelemetry import context as otel_context
from opentelemetry import propagate, trace

from veko import HookTimeout, Kernel, Stop
from veko_plugins.tracing import Tracing

pytestmark = pytest.mark.anyio


@pytest.fixture
async def tracing() -> Tracing:
    return Tracing()


@pytest.fixture
async def kernel(tracing: Tracing) -> AsyncIterator[Kernel]:
    async with Kernel() as kernel:
        await kernel.load(tracing, {"keep": 500, "events": {"step": 0}})
        yield kernel


def plugin(load: Callable[..., Any], name: str = "busy") -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load}


def hooks(name: str = "busy", **handlers: Callable[..., Any]) -> dict[str, Any]:
    """A plugin of one hook an event."""

    def load(context: Any) -> None:
        for event, handler in handlers.items():
            context.hook(event, handler)

    return plugin(load, name)


def shape(found: dict[str, Any]) -> dict[str, Any]:
    """The names of a trace's spans, each under its parent's."""
    below: dict[str | None, list[Any]] = {}
    ids = {span["spanID"] for span in found["spans"]}
    for span in found["spans"]:
        parent = span["references"][0]["spanID"] if span["references"] else None
        below.setdefault(parent if parent in ids else None, []).append(span)

    def made(parent: str | None) -> dict[str, Any]:
        names: dict[str, Any] = {}
        for span in below.get(parent, ()):
            name, number = span["operationName"], 1
            while name in names:
                number += 1
                name = f"{span['operationName']} #{number}"
            names[name] = made(span["spanID"])
        return names

    return made(None)


async def shapes(tracing: Tracing) -> list[dict[str, Any]]:
    """The trees of all traces, the oldest first."""
    return [shape(found) for found in reversed(await tracing.traces())]


async def spans(tracing: Tracing) -> dict[str, dict[str, Any]]:
    """All spans by name, with their tags as a dictionary."""
    return {
        span["operationName"]: {
            **span,
            "tags": {tag["key"]: tag["value"] for tag in span["tags"]},
        }
        for found in await tracing.traces()
        for span in found["spans"]
    }


def outcome(span: dict[str, Any]) -> str:
    found: str = span["tags"]["veko.outcome"]
    return found


async def test_hooks_below_their_emission(kernel: Kernel, tracing: Tracing) -> None:
    async def slow(value: int) -> int:
        await asyncio.sleep(0)
        return value + 1

    await kernel.load(hooks("one", tick=slow))
    await kernel.load(hooks("two", tick=lambda value: value * 2))
    assert await kernel.bus.emit("tick", 1) == 4
    kernel.bus.on("tick", lambda value: value)
    assert await kernel.bus.emit("nobody", 1) == 1
    assert await shapes(tracing) == [{"tick": {"one.slow": {}, "two.<lambda>": {}}}]
    assert await kernel.bus.emit("tick", 1) == 4
    (_, last) = await shapes(tracing)
    assert set(last["tick"]) == {"one.slow", "two.<lambda>", "<lambda>"}
    found = (await spans(tracing))["<lambda>"]
    assert "veko.plugin" not in found["tags"]


async def test_compiled_plans_and_loops_alike(kernel: Kernel, tracing: Tracing) -> None:
    seen = []

    async def one(value: int) -> None:
        seen.append(value)

    await kernel.load(hooks(tick=one))
    for number in range(1500):
        await kernel.bus.emit("tick", number)
    assert seen == list(range(1500))
    found = await shapes(tracing)
    assert len(found) == 500
    assert all(shape == {"tick": {"busy.one": {}}} for shape in found)
    assert tracing.stats().recorded == 3000


async def test_reentrant_emissions(kernel: Kernel, tracing: Tracing) -> None:
    async def down(value: int) -> int:
        return 0 if value == 0 else 1 + await kernel.bus.emit("down", value - 1)

    await kernel.load(hooks(down=down))
    assert await kernel.bus.emit("down", 3) == 3
    wanted: dict[str, Any] = {}
    for _ in range(4):
        wanted = {"down": {"busy.down": wanted}}
    assert await shapes(tracing) == [wanted]


async def test_first_strict_and_stop(kernel: Kernel, tracing: Tracing) -> None:
    def end(value: int) -> None:
        raise Stop(value + 1)

    await kernel.load(hooks("one", ask=lambda value: None, chain=end))
    await kernel.load(hooks("two", ask=lambda value: value, chain=lambda value: value))
    assert await kernel.bus.first("ask", 7) == 7
    assert await kernel.bus.emit("chain", 1, strict=True) == 2
    assert await shapes(tracing) == [
        {"ask": {"one.<lambda>": {}, "two.<lambda>": {}}},
        {"chain": {"one.end": {}}},
    ]
    assert outcome((await spans(tracing))["one.end"]) == "stop"


async def test_gather_keeps_concurrent_hooks_apart(kernel: Kernel, tracing: Tracing) -> None:
    started = asyncio.Event()

    async def slow(value: int) -> int:
        await started.wait()
        return int(await kernel.bus.emit("inner", value))

    async def quick(value: int) -> int:
        started.set()
        await asyncio.sleep(0)
        return int(await kernel.bus.emit("inner", value + 10))

    await kernel.load(hooks("one", ask=slow))
    await kernel.load(hooks("sync", ask=lambda value: value, inner=lambda value: value))
    await kernel.load(hooks("two", ask=quick))
    assert await kernel.bus.gather("ask", 1) == [1, 1, 11]
    (found,) = await shapes(tracing)
    inner = {"inner": {"sync.<lambda>": {}}}
    assert found == {"ask": {"one.slow": inner, "sync.<lambda>": {}, "two.quick": inner}}
    (raw,) = await tracing.traces()
    times = {
        span["operationName"]: (span["startTime"], span["startTime"] + span["duration"])
        for span in raw["spans"]
    }
    assert times["one.slow"][0] <= times["two.quick"][1]
    assert times["two.quick"][0] >= times["ask"][0]


async def test_concurrent_emissions_below_one_hook(kernel: Kernel, tracing: Tracing) -> None:
    async def fan(value: int) -> None:
        await asyncio.gather(*(kernel.bus.emit("leaf", n) for n in range(3)))

    async def leaf(value: int) -> None:
        await asyncio.sleep(0)

    await kernel.load(hooks(fan=fan, leaf=leaf))
    await kernel.bus.emit("fan")
    leaves = {name: {"busy.leaf": {}} for name in ("leaf", "leaf #2", "leaf #3")}
    assert await shapes(tracing) == [{"fan": {"busy.fan": leaves}}]


async def test_a_task_that_outlives_its_hook(kernel: Kernel, tracing: Tracing) -> None:
    go = asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []

    async def later() -> None:
        await go.wait()
        await kernel.bus.emit("late")

    def start(value: Any) -> None:
        tasks.append(asyncio.create_task(later()))

    await kernel.load(hooks("one", tick=start, late=lambda: None))
    await kernel.load(hooks("two", tick=lambda value: None))
    await kernel.bus.emit("tick")
    await tracing.flush()
    go.set()
    await tasks[0]
    (found,) = await shapes(tracing)
    assert found == {"tick": {"one.start": {"late": {"one.<lambda>": {}}}, "two.<lambda>": {}}}


def by_task(work: Callable[[], None], later: asyncio.Event) -> Any:
    async def run() -> None:
        await later.wait()
        work()

    return asyncio.create_task(run())


def by_group(work: Callable[[], None], later: asyncio.Event) -> Any:
    async def run() -> None:
        await later.wait()
        work()

    async def grouped() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(run)

    return asyncio.ensure_future(grouped())


def by_callback(work: Callable[[], None], later: asyncio.Event) -> Any:
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def run() -> None:
        if later.is_set():
            work()
            done.set_result(None)
        else:
            loop.call_later(0.001, run)

    loop.call_soon(run)
    return done


def by_thread(work: Callable[[], None], later: asyncio.Event) -> Any:
    return asyncio.ensure_future(anyio.to_thread.run_sync(until_set(work, later)))


def by_copy(work: Callable[[], None], later: asyncio.Event) -> Any:
    context = contextvars.copy_context()

    async def run() -> None:
        await later.wait()
        context.run(work)

    return asyncio.get_running_loop().create_task(run(), context=contextvars.Context())


def by_copy_that_was_set(work: Callable[[], None], later: asyncio.Event) -> Any:
    context = contextvars.copy_context()
    context.run(contextvars.ContextVar[int]("other").set, 1)

    async def run() -> None:
        await later.wait()
        context.run(work)

    return asyncio.get_running_loop().create_task(run(), context=contextvars.Context())


def until_set(work: Callable[[], None], later: asyncio.Event) -> Callable[[], None]:
    def run() -> None:
        while not later.is_set():
            time.sleep(0.001)
        work()

    return run


BEGINNERS = (by_task, by_group, by_callback, by_thread, by_copy, by_copy_that_was_set)


@pytest.mark.parametrize("emissions", [1, 1100])  # interpreted, and compiled
@pytest.mark.parametrize("begin", BEGINNERS)
async def test_what_a_hook_begins_stays_below_it(
    kernel: Kernel,
    tracing: Tracing,
    begin: Callable[[Callable[[], None], asyncio.Event], Any],
    emissions: int,
) -> None:
    """Whatever copies the context keeps the hook that it was copied in.

    Each thing begins to look once other hooks of the same emission run, and at the latest after
    it: a place that is shared by the hooks of an emission would name another hook by then.
    """
    during, after = asyncio.Event(), asyncio.Event()
    tracer = trace.get_tracer("test")
    begun: list[Any] = []
    active = False

    def both(name: str) -> None:
        begun.append(begin(lambda: tracer.start_span(f"{name} during").end(), during))
        begun.append(begin(lambda: tracer.start_span(f"{name} after").end(), after))

    def first(value: Any) -> None:
        if active:
            both("first")

    async def second(value: Any) -> None:
        if active:
            await asyncio.sleep(0)
            both("second")

    async def third(value: Any) -> None:
        if active:
            during.set()
            await asyncio.sleep(0.02)

    for number, handler in enumerate((first, second, third)):
        await kernel.load(hooks(f"plugin{number}", tick=handler))
    for _ in range(emissions - 1):
        await kernel.bus.emit("tick", 1)
    active = True
    await kernel.bus.emit("tick", 1)
    after.set()
    await asyncio.gather(*begun)
    last = (await shapes(tracing))[-1]
    assert last == {
        "tick": {
            "plugin0.first": {"first during": {}, "first after": {}},
            "plugin1.second": {"second during": {}, "second after": {}},
            "plugin2.third": {},
        }
    }


@pytest.mark.parametrize("emissions", [1, 1100])
async def test_hooks_that_look_from_a_thread(
    kernel: Kernel, tracing: Tracing, emissions: int
) -> None:
    tracer = trace.get_tracer("test")

    async def ask(value: Any) -> None:
        await asyncio.to_thread(lambda: tracer.start_span("threaded").end())
        await kernel.bus.emit("leaf")
        tracer.start_span("own").end()

    await kernel.load(hooks("one", tick=ask, leaf=lambda: None))
    await kernel.load(hooks("two", tick=lambda value: tracer.start_span("of two").end()))
    for _ in range(emissions):
        await kernel.bus.emit("tick", 1)
    asked = {"threaded": {}, "leaf": {"one.<lambda>": {}}, "own": {}}
    last = (await shapes(tracing))[-1]
    assert last == {"tick": {"one.ask": asked, "two.<lambda>": {"of two": {}}}}


async def test_an_error_is_told_once(
    kernel: Kernel, tracing: Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "veko")

    async def inner(value: Any) -> None:
        raise ValueError("broken")

    async def outer(value: Any) -> None:
        await kernel.bus.emit("inner", 1, strict=True)

    await kernel.load(hooks("one", inner=inner, outer=outer))
    await kernel.load(hooks("two", outer=lambda value: None))
    await kernel.bus.emit("outer", 1)
    found = await spans(tracing)
    names = ("one.inner", "inner", "one.outer")
    assert [outcome(found[name]) for name in names] == ["error"] * 3
    assert [outcome(found[name]) for name in ("outer", "two.<lambda>")] == ["ok"] * 2
    logs = [(name, log) for name, span in found.items() for log in span["logs"]]
    (at, log) = logs[0]
    assert len(logs) == 1
    assert at == "one.inner"
    fields = {field["key"]: field["value"] for field in log["fields"]}
    assert fields["exception.type"] == "ValueError"
    assert 'raise ValueError("broken")' in fields["exception.stacktrace"]
    assert found["one.inner"]["tags"]["error.type"] == "ValueError"
    assert found["one.inner"]["tags"]["error"] is True


async def test_a_hook_after_one_that_failed_has_its_own_time(
    kernel: Kernel, tracing: Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "veko")

    def fail(value: Any) -> None:
        raise ValueError

    async def slow_report(error: Any, origin: Any) -> None:
        await asyncio.sleep(0.02)

    kernel.bus.on("error:handle", slow_report)
    await kernel.load(hooks("one", tick=fail))
    await kernel.load(hooks("two", tick=lambda value: None))
    await kernel.bus.emit("tick", 1)
    found = await spans(tracing)
    assert found["two.<lambda>"]["duration"] < 15_000
    assert found["tick"]["duration"] >= 20_000
    reported = found["error:handle"]["references"][0]["spanID"]
    assert reported == found["one.fail"]["spanID"]


async def test_time_limits_and_cancelled_calls(
    kernel: Kernel, tracing: Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "veko")
    begun = asyncio.Event()

    async def stuck(value: Any) -> None:
        await asyncio.Event().wait()

    async def cut(value: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    def load(context: Any) -> None:
        context.hook("limited", stuck, timeout=0.01)
        context.hook("cut", cut, timeout=None)

    await kernel.load(plugin(load))
    with pytest.raises(HookTimeout):
        await kernel.bus.emit("limited", 1, strict=True)
    before = await spans(tracing)
    assert outcome(before["busy.stuck"]) == "timeout"
    assert before["busy.stuck"]["tags"]["error"] is True
    task = asyncio.create_task(kernel.bus.emit("cut", 1))
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    found = await spans(tracing)
    assert outcome(found["busy.cut"]) == "cancelled"
    assert outcome(found["cut"]) == "cancelled"
    assert found["cut"]["logs"] == []


async def test_a_coroutine_closed_from_elsewhere(kernel: Kernel, tracing: Tracing) -> None:
    async def stuck(value: Any) -> None:
        await asyncio.Event().wait()

    def load(context: Any) -> None:
        context.hook("tick", stuck, timeout=None)

    await kernel.load(plugin(load))
    await kernel.load(hooks("other", tock=lambda value: None))
    emission = kernel.bus.emit("tick", 1)

    async def begin() -> None:
        emission.send(None)

    async def close() -> None:
        emission.close()
        await kernel.bus.emit("tock")

    await asyncio.create_task(begin())
    await asyncio.create_task(close())
    await kernel.bus.emit("tock")
    found = await shapes(tracing)
    assert {"tick": {"busy.stuck": {}}} in found
    assert found.count({"tock": {"other.<lambda>": {}}}) == 2


async def test_async_generators_leave_no_context_behind(
    kernel: Kernel, tracing: Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = trace.get_tracer("test")

    async def numbers() -> AsyncIterator[int]:
        with tracer.start_as_current_span("numbers"):
            for number in range(3):
                await kernel.bus.emit("leaf")
                yield number

    async def walk(value: Any) -> None:
        generator = numbers()
        async for _ in generator:
            break
        await asyncio.create_task(generator.aclose())  # finished in another context

    await kernel.load(hooks("one", tick=walk, leaf=lambda: None))
    await kernel.load(hooks("two", tick=lambda value: None))
    await kernel.bus.emit("tick", 1)
    await kernel.bus.emit("tick", 1)
    assert "detach" not in caplog.text
    found = await shapes(tracing)
    walked = {"numbers": {"leaf": {"one.<lambda>": {}}}}
    assert found == [{"tick": {"one.walk": walked, "two.<lambda>": {}}}] * 2


async def test_spans_of_plugins_nest_below_the_hook(kernel: Kernel, tracing: Tracing) -> None:
    tracer = trace.get_tracer("test")

    async def work(value: Any) -> None:
        current = trace.get_current_span()
        current.set_attribute("busy.answer", 42)
        current.add_event("begun", {"n": 1})
        with tracer.start_as_current_span("mine"):
            await kernel.bus.emit("leaf")
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            seen.append(carrier["traceparent"])

    seen: list[str] = []
    await kernel.load(hooks(tick=work, leaf=lambda: None))
    await kernel.bus.emit("tick", 1)
    assert await shapes(tracing) == [
        {"tick": {"busy.work": {"mine": {"leaf": {"busy.<lambda>": {}}}}}}
    ]
    found = await spans(tracing)
    assert found["busy.work"]["tags"]["busy.answer"] == 42
    assert found["busy.work"]["logs"][0]["fields"][0]["value"] == "begun"
    (header,) = seen
    assert header == f"00-{found['mine']['traceID']}-{found['mine']['spanID']}-{header[-2:]}"
    assert int(header[-2:], 16) & 1


@pytest.mark.parametrize("kind", list(trace.SpanKind))
async def test_spans_of_plugins_keep_their_kind(
    kernel: Kernel, tracing: Tracing, kind: trace.SpanKind
) -> None:
    def ask(value: Any) -> None:
        trace.get_tracer("test").start_span("ask", kind=kind).end()

    await kernel.load(hooks(tick=ask))
    await kernel.bus.emit("tick", 1)
    assert (await spans(tracing))["ask"]["tags"]["span.kind"] == kind.name.lower()


async def test_below_a_span_of_the_application(kernel: Kernel, tracing: Tracing) -> None:
    await kernel.load(hooks(tick=lambda value: None))
    with trace.get_tracer("app").start_as_current_span("application"):
        await kernel.bus.emit("tick", 1)
        token = otel_context.attach(otel_context.set_value("key", "value"))
        await kernel.bus.emit("tick", 1)
        otel_context.detach(token)
    (found,) = await shapes(tracing)
    assert found == {
        "application": {"tick": {"busy.<lambda>": {}}, "tick #2": {"busy.<lambda>": {}}}
    }


async def test_a_context_left_attached_loses_no_hook(kernel: Kernel, tracing: Tracing) -> None:
    def careless(value: Any) -> None:
        otel_context.attach(otel_context.set_value("key", "value"))

    seen: list[Any] = []
    await kernel.load(hooks("one", tick=careless))
    await kernel.load(hooks("two", tick=lambda value: seen.append(otel_context.get_value("key"))))
    await kernel.bus.emit("tick", 1)
    assert await shapes(tracing) == [{"tick": {"one.careless": {}, "two.<lambda>": {}}}]
    assert otel_context.get_value("key") is None


async def test_log_records_carry_the_ids(
    kernel: Kernel, tracing: Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def load(context: Any) -> None:
        context.hook("tick", lambda value: context.log("info", "inside"))

    await kernel.load(plugin(load))
    await kernel.bus.emit("tick", 1)
    logging.getLogger("test").info("outside")
    found = await spans(tracing)
    inside, outside = caplog.records[-2:]
    assert inside.trace_id == found["busy.<lambda>"]["traceID"]  # type: ignore[attr-defined]
    assert inside.span_id == found["busy.<lambda>"]["spanID"]  # type: ignore[attr-defined]
    assert (outside.trace_id, outside.span_id) == ("0", "0")  # type: ignore[attr-defined]
    before = logging.getLogRecordFactory()
    await kernel.unload("tracing")
    assert logging.getLogRecordFactory() is not before
    assert not hasattr(logging.makeLogRecord({}), "trace_id")


async def test_code_that_writes_trace_ids_itself_goes_on(
    kernel: Kernel, tracing: Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    def own(value: Any) -> None:
        logging.getLogger("test").warning("own", extra={"trace_id": "mine", "other": 1})

    await kernel.load(hooks(tick=own))
    await kernel.bus.emit("tick", 1, strict=True)
    (record,) = [one for one in caplog.records if one.getMessage() == "own"]
    found = await spans(tracing)
    line = logging.Formatter("%(trace_id)s %(span_id)s %(other)s").format(record)
    assert line == f"mine {found['busy.own']['spanID']} 1"
    assert vars(pickle.loads(pickle.dumps(record))) == dict(vars(record))
    with pytest.raises(KeyError, match="Attempt to overwrite 'message'"):
        logging.getLogger("test").warning("own", extra={"message": "no"})


async def test_arguments_and_signatures_stay(kernel: Kernel, tracing: Tracing) -> None:
    class Adder:
        async def __call__(self, a: int, b: int) -> int:
            return a + b

    async def sub(a: int, b: int) -> int:
        return a - b

    await kernel.load(hooks("one", x=Adder(), y=lambda *args: len(args), z=sub))
    assert await kernel.bus.emit("x", 1, 2) == 3
    assert await kernel.bus.emit("y", 1, 2, 3) == 3
    with pytest.raises(TypeError, match=r"sub\(\) missing 1 required positional argument: 'b'"):
        await kernel.bus.emit("z", 1, strict=True)


async def test_switched_off_it_is_not_there(kernel: Kernel, tracing: Tracing) -> None:
    await kernel.load(hooks(tick=lambda value: None))
    await kernel.bus.emit("tick", 1)
    await kernel.toggle("tracing")
    await kernel.bus.emit("tick", 1)
    await kernel.toggle("tracing")
    await kernel.bus.emit("tick", 1)
    assert len(await tracing.traces()) == 2
