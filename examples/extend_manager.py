"""Extending the manager: ``python examples/extend_manager.py`` (needs cronsim; runs for a second).

1. `Scheduler` adds ``schedule(cron, fn)`` to every plugin's context. Jobs are entries of the
   registry, of a kind that the scheduler adds, so they go live and disappear together with their
   plugin, like routes and hooks. `Garden` uses it.
2. `Memory` replaces a core plugin by its name: ``core={"storage": Memory}``.
3. `Garden` adds an event and a command of its own.
"""

import asyncio
import inspect
import logging
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import anyio
import msgspec
from cronsim import CronSim, CronSimError

from veko import Event, Handle, Kernel, Origin, Plugin, VekoError
from veko.extend import Draft, Kind
from veko_plugins import Context, PluginManager


class Job(msgspec.Struct, frozen=True):
    """A function that runs on a cron expression of five fields, or six with seconds."""

    name: str
    cron: str
    fn: Callable[[], Any]
    plugin: str

    def after(self, moment: datetime) -> datetime:
        return next(CronSim(self.cron, moment))


RUN = Event("schedule:run", Job, doc="A job is about to run: the job.")
ERROR = Event("schedule:error", Job, doc="A job failed: the job and the error.")
CHANGE = Event("schedule:change", tuple, doc="Jobs were added or removed: all current jobs.")


class Scheduler(Plugin):
    """Runs jobs on cron expressions, in UTC. Provides itself as the service `scheduler`."""

    name = "scheduler"
    version = "1.0.0"
    description = "context.schedule(cron, fn)"

    kernel: Kernel

    def load(self, context: Context) -> None:
        self.kernel = context.kernel
        self.changed = anyio.Event()
        for event in (RUN, ERROR, CHANGE):
            context.declare(event)
        context.add_kind(Kind("job", unique=True, accept=accept_jobs))
        context.attach("schedule", scheduling)
        context.provide("scheduler", self)
        context.add_command("jobs", self.table, "List the jobs and when each runs next")
        context.hook("schedule:change", self.wake)
        context.spawn(self.run)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The jobs of the plugins that are switched on."""
        jobs: tuple[Job, ...] | None = self.kernel.registry.view("job")
        return jobs or ()

    def table(self) -> str:
        now = datetime.now(UTC)
        rows = (f"  {job.name:<14}{job.cron:<18}{job.after(now):%a %H:%M:%S}" for job in self.jobs)
        return "\n".join(rows)

    def wake(self) -> None:
        self.changed.set()

    async def run(self) -> None:
        """Sleep until the next job is due or the jobs change."""
        due: dict[Job, datetime] = {}
        async with anyio.create_task_group() as group:
            while True:
                now = datetime.now(UTC)
                due = {job: due.get(job) or job.after(now) for job in self.jobs}
                for job in [job for job, moment in due.items() if moment <= now]:
                    due[job] = job.after(now)
                    group.start_soon(self.perform, job)
                wait = min(due.values()) - now if due else None
                with anyio.move_on_after(wait.total_seconds() if wait else None):
                    await self.changed.wait()
                    self.changed = anyio.Event()

    async def perform(self, job: Job) -> None:
        """Run a job. The pin makes unloading its plugin wait until the job has ended."""
        with self.kernel.pin():
            try:
                await self.kernel.bus.emit(RUN.name, job)
                answer = job.fn()
                if inspect.isawaitable(answer):
                    await answer
            except Exception as error:
                await self.kernel.bus.emit(ERROR.name, job, error)
                await self.kernel.fault(
                    error, plugin=job.plugin, origin=Origin(job.plugin, handler=job.name)
                )


async def accept_jobs(draft: Draft) -> None:
    """Update the view of all jobs; raising here would refuse the whole transaction."""
    jobs = tuple(entry.value for entry in draft.entries("job"))
    draft.set_view("job", jobs)
    draft.post(CHANGE.name, jobs)


def scheduling(context: Context) -> Callable[..., Handle]:
    """Return the `schedule` method of one plugin's context."""

    def schedule(cron: str, fn: Callable[[], Any]) -> Handle:
        job = Job(f"{context.name}.{fn.__name__}", cron, fn, context.name)
        try:
            job.after(datetime.now(UTC))
        except (CronSimError, StopIteration) as error:
            raise VekoError(
                f"{cron!r} is not a valid schedule: {str(error) or 'it never occurs'}",
                plugin=context.name,
                remedy="Give minute, hour, day, month and weekday; seconds may come first.",
            ) from error
        return context.register("job", job.name, job)

    return schedule


class Memory(Plugin):
    """A storage in memory: only what `context.storage` needs."""

    name = "storage"
    version = "1.0.0"

    def load(self, context: Context) -> None:
        context.attach("storage", lambda holder: Notes())
        context.provide("storage", self)


class Notes(dict[str, Any]):
    def set(self, key: str, value: object) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


GROWN = Event("garden:grown", int, doc="The plant has grown: its height.")


class Garden(Plugin):
    name = "garden"
    version = "1.0.0"
    dependencies = ["scheduler"]

    def load(self, context: Context) -> None:
        self.context = context
        context.declare(GROWN)
        context.add_command("height", self.height, "Show the height of the plant")
        context.schedule("* * * * * *", self.grow)
        context.schedule("* * * * * *", self.rake)
        context.schedule("0 6 * * MON-FRI", self.water)

    def height(self) -> int:
        height = self.context.storage.get("height", 0)
        assert isinstance(height, int)
        return height

    async def grow(self) -> None:
        self.context.storage.set("height", self.height() + 1)
        await self.context.kernel.bus.emit(GROWN.name, self.height())

    def rake(self) -> None:
        raise OSError("the rake is broken")

    def water(self) -> None: ...


async def main(root: str) -> None:
    manager = PluginManager(
        root=root, adapter=None, auto_load=False, core={"storage": Memory}, max_retries=0
    )
    done = {event: asyncio.Event() for event in (ERROR.name, GROWN.name)}

    def show(event: str) -> Callable[..., None]:
        def shown(value: Any, *rest: object) -> None:
            print(event, getattr(value, "name", value), *rest)
            if event in done:
                done[event].set()

        return shown

    for event in (RUN, ERROR, GROWN):
        manager.on(event.name, show(event.name))

    async with manager:
        print("storage:", type(manager.use("storage")).__name__)
        await manager.load_plugin(Scheduler)
        await manager.load_plugin(Garden)
        print("jobs:", await manager.run_command("jobs"), sep="\n")
        for happened in done.values():
            await happened.wait()
        print("height:", await manager.run_command("height"))
        print("errors of garden:", manager.error_count("garden"))

        await manager.toggle_plugin("garden", False)
        print("off:", len(manager.use("scheduler").jobs), "jobs")
        await manager.toggle_plugin("garden", True)
        print("on:", len(manager.use("scheduler").jobs), "jobs")
        await manager.unload_plugin("garden")
        print("unloaded:", len(manager.use("scheduler").jobs), "jobs")

        bad = manager.create_simple_plugin(
            "bad", lambda context: context.schedule("61 * * * *", main), dependencies=["scheduler"]
        )
        try:
            await manager.load_plugin(bad)
        except VekoError as error:
            print("refused:", error)


if __name__ == "__main__":
    logging.getLogger("veko").setLevel(logging.CRITICAL)  # the events show failures
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(folder))
