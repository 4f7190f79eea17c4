"""The example of an extended manager runs as its first line says, and shows what it promises."""

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from veko.errors import ConflictError, DependencyError, LoadError, NotFoundError, ServiceError
from veko_plugins import PluginManager

EXAMPLE = Path(__file__).parents[2] / "examples" / "extend_manager.py"
_spec = importlib.util.spec_from_file_location("extend_manager", EXAMPLE)
assert _spec is not None
assert _spec.loader is not None
example = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(example)


def test_extending_the_manager(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLE],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert ran.stderr == ""
    assert ran.returncode == 0
    lines = ran.stdout.splitlines()
    assert lines[0] == "storage: Memory"
    assert [line.split()[0] for line in lines[2:5]] == [
        "garden.grow", "garden.rake", "garden.water",
    ]  # fmt: skip
    assert lines[4].split()[1:6] == ["0", "6", "*", "*", "MON-FRI"]
    assert lines[4].endswith("06:00:00")
    for line in (
        "schedule:run garden.grow",
        "garden:grown 1",
        "schedule:run garden.rake",
        "schedule:error garden.rake the rake is broken",
    ):
        assert line in lines[5:]
    # A second may begin at any moment: the jobs of the next one may show among these.
    results = [line for line in lines[5:] if not line.startswith(("schedule:", "garden:"))]
    assert results[0] in {"height: 1", "height: 2"}
    assert results[1] in {"errors of garden: 1", "errors of garden: 2"}
    assert results[2:5] == ["off: 0 jobs", "on: 3 jobs", "unloaded: 0 jobs"]
    assert results[5].startswith(
        "refused: '61 * * * *' is not a valid schedule: Bad minute (plugin bad"
    )
    assert len(results) == 6
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"


# -- the scheduler of the example, in a manager of the test's own


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[PluginManager]:
    options: dict[str, Any] = {"adapter": None, "auto_load": False, "max_retries": 0}
    async with PluginManager(root=tmp_path, core={"storage": example.Memory}, **options) as manager:
        await manager.load_plugin(example.Scheduler)
        yield manager


def jobs(manager: PluginManager) -> list[str]:
    return [job.name for job in manager.use("scheduler").jobs]


def made(name: str, load: Any, **more: Any) -> dict[str, Any]:
    manifest = {"version": "1.0.0", "dependencies": ["scheduler"]}
    return {"name": name, "load": load, **manifest, **more}


def one() -> str:
    return "one"


async def test_jobs_go_live_together_or_not_at_all(manager: PluginManager) -> None:
    seen: list[list[str]] = []

    def load(context: Any) -> None:
        context.schedule("0 0 1 1 *", one)
        context.schedule("0 0 1 1 *", jobs)
        seen.append(jobs(manager))
        if len(seen) == 1:
            raise ValueError("not today")

    with pytest.raises(LoadError, match="not today"):
        await manager.load_plugin(made("guest", load))
    assert jobs(manager) == []
    await manager.load_plugin(made("guest", load))
    assert seen == [[], []]
    assert jobs(manager) == ["guest.one", "guest.jobs"]


async def test_a_name_is_taken_once(manager: PluginManager) -> None:
    def load(context: Any) -> None:
        context.schedule("0 0 1 1 *", one)
        context.schedule("0 0 2 1 *", one)

    with pytest.raises(ConflictError, match=r"job 'guest\.one' is taken by guest"):
        await manager.load_plugin(made("guest", load))
    assert jobs(manager) == []


async def test_jobs_follow_their_plugin_and_the_scheduler(manager: PluginManager) -> None:
    counts: list[int] = []
    manager.on("schedule:change", lambda jobs: counts.append(len(jobs)))
    await manager.load_plugin(
        made("guest", lambda context: context.schedule("0 0 1 1 *", one), priority=0)
    )
    before = manager.use("scheduler").jobs
    await manager.reload_plugin("guest")
    assert jobs(manager) == ["guest.one"]
    assert before == manager.use("scheduler").jobs
    with pytest.raises(DependencyError, match="guest"):
        await manager.unload_plugin("scheduler")
    with pytest.raises(DependencyError, match="guest"):
        await manager.toggle_plugin("scheduler", False)
    await manager.toggle_plugin("scheduler", False, cascade=True)
    with pytest.raises(ServiceError, match="inactive"):
        manager.use("scheduler")
    with pytest.raises(NotFoundError, match="jobs"):
        await manager.run_command("jobs")
    await manager.toggle_plugin("scheduler", True)
    assert jobs(manager) == []
    await manager.toggle_plugin("guest", True)
    assert jobs(manager) == ["guest.one"]
    await manager.unload_plugin("scheduler", cascade=True)
    with pytest.raises(LoadError, match="schedule"):
        await manager.load_plugin(
            made("late", lambda context: context.schedule("* * * * *", one), dependencies=[])
        )
    assert "schedule:run" not in {event.name for event in manager.events()}


async def test_unloading_waits_for_a_job_that_runs(manager: PluginManager) -> None:
    began, goes_on = asyncio.Event(), asyncio.Event()

    async def long() -> None:
        began.set()
        await goes_on.wait()

    await manager.load_plugin(made("guest", lambda context: context.schedule("0 0 1 1 *", long)))
    scheduler = manager.use("scheduler")
    running = asyncio.create_task(scheduler.perform(scheduler.jobs[0]))
    await began.wait()
    leaving = asyncio.create_task(manager.unload_plugin("guest"))
    done, _ = await asyncio.wait([leaving], timeout=0.05)
    assert not done
    assert jobs(manager) == []
    goes_on.set()
    await leaving
    await running


async def test_a_job_that_fails_counts_against_its_plugin(manager: PluginManager) -> None:
    reported: list[Any] = []
    manager.on("schedule:error", lambda job, error: reported.append((job.name, str(error))))
    manager.on("plugin:error", lambda name, error: reported.append((name, str(error))))

    def fails() -> None:
        raise ValueError("no")

    await manager.load_plugin(made("guest", lambda context: context.schedule("0 0 1 1 *", fails)))
    scheduler = manager.use("scheduler")
    await scheduler.perform(scheduler.jobs[0])
    assert reported == [("guest.fails", "no"), ("guest", "no")]
    assert manager.error_count("guest") == 1
