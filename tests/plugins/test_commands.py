"""Commands: from a signature to a command line, run by name, attributed when they fail."""

import asyncio
import enum
import functools
import gc
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from veko import (
    ConflictError,
    HookError,
    Kernel,
    LoadTimeout,
    NotFoundError,
    Plugin,
    StateError,
    VekoError,
)
from veko_plugins.commands import Commands, UsageError
from veko_plugins.manager import PluginManager


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Tool(Plugin):
    """A plugin with the commands that it is given."""

    name = "tool"
    version = "1.0.0"

    def __init__(self, commands: dict[str, Callable[..., object]], name: str = "tool") -> None:
        self.name = name
        self._commands = commands

    def load(self, context) -> None:
        for name, fn in self._commands.items():
            context.add_command(name, fn, f"does {name}")


@pytest.fixture
async def kernel() -> AsyncIterator[Kernel]:
    async with Kernel() as kernel:
        await kernel.load(Commands())
        yield kernel


@pytest.fixture
def commands(kernel: Kernel) -> Commands:
    return kernel.use("commands")


async def invoke(kernel: Kernel, fn: Callable[..., object], *words: str) -> object:
    """Run a function as a command with the words of a command line."""
    await kernel.load(Tool({"it": fn}))
    try:
        return await kernel.use("commands").invoke("it", list(words))
    finally:
        await kernel.unload("tool")


@pytest.mark.anyio
async def test_runs_def_and_async_def(kernel: Kernel, commands: Commands) -> None:
    async def later(a: int, *, b: int = 1) -> int:
        await asyncio.sleep(0)
        return a + b

    await kernel.load(Tool({"now": lambda a, b: a * b, "later": later}))
    assert await commands.run("now", 2, 3) == 6
    assert await commands.run("later", 2, b=5) == 7
    assert await commands.invoke("later", ["2", "--b", "5"]) == 7


@pytest.mark.anyio
async def test_a_command_may_name_its_arguments_as_it_likes(
    kernel: Kernel, commands: Commands
) -> None:
    def fn(name: str, self: str = "x", help: bool = False) -> tuple[str, str, bool]:
        return name, self, help

    await kernel.load(Tool({"it": fn}))
    assert await commands.run("it", name="n", self="s") == ("n", "s", False)
    assert await commands.invoke("it", ["n", "--self", "s", "--help"]) == ("n", "s", True)


@pytest.mark.anyio
async def test_annotations_become_types(kernel: Kernel) -> None:
    def fn(
        text: str,
        number: int,
        part: float,
        path: Path,
        color: Color,
        *rest: int,
        flag: bool = False,
        size: Size = Size.SMALL,
        mode: Literal["fast", 2] = "fast",
        maybe: int | None = None,
        many: list[Color] | None = None,
        unique: frozenset[int] = frozenset(),
        day: date | None = None,
        guessed=1.5,
    ) -> dict[str, object]:
        return dict(locals())

    given = await invoke(kernel, fn, "t", "1", "2.5", "a/b", "blue")
    assert given == {
        "text": "t", "number": 1, "part": 2.5, "path": Path("a/b"), "color": Color.BLUE,
        "rest": (), "flag": False, "size": Size.SMALL, "mode": "fast", "maybe": None,
        "many": None, "unique": frozenset(), "day": None, "guessed": 1.5,
    }  # fmt: skip
    words = "t 1 2.5 a/b red 7 8 --flag --size LARGE --mode 2 --maybe 3 --many red --many blue"
    words += " --unique 1 --unique 1 --day 2026-01-02 --guessed 2"
    given = await invoke(kernel, fn, *words.split())
    assert given == {
        "text": "t", "number": 1, "part": 2.5, "path": Path("a/b"), "color": Color.RED,
        "rest": (7, 8), "flag": True, "size": Size.LARGE, "mode": 2, "maybe": 3,
        "many": [Color.RED, Color.BLUE], "unique": frozenset({1}), "day": date(2026, 1, 2),
        "guessed": 2.0,
    }  # fmt: skip


@pytest.mark.anyio
async def test_lists_without_default_are_arguments(kernel: Kernel) -> None:
    def fn(first: list[int], second: list[str]) -> object:
        return first, second

    assert await invoke(kernel, fn, "1", "2", "--second", "x") == ([1, 2], ["x"])
    with pytest.raises(UsageError, match="FIRST"):
        await invoke(kernel, fn, "--second", "x")


@pytest.mark.anyio
async def test_parameters_of_every_kind(kernel: Kernel) -> None:
    def fn(a, /, b, c="c", *rest, d, e="e", **more):
        return a, b, c, rest, d, e, more

    assert await invoke(kernel, fn, "1", "2", "--d", "3") == ("1", "2", "c", (), "3", "e", {})
    assert await invoke(kernel, fn, "1", "2", "4", "5", "--d", "3", "--c", "6") == (
        "1", "2", "6", ("4", "5"), "3", "e", {},
    )  # fmt: skip
    with pytest.raises(UsageError, match="--d"):
        await invoke(kernel, fn, "1", "2")


@pytest.mark.anyio
async def test_flags_can_be_turned_off_and_defaults_are_the_functions_own(kernel: Kernel) -> None:
    marker = object()

    def fn(*, on: bool = True, thing: object = marker, unreadable: "Nowhere" = 3) -> object:  # noqa: F821
        return on, thing, unreadable

    assert await invoke(kernel, fn) == (True, marker, 3)
    assert await invoke(kernel, fn, "--no-on") == (False, marker, 3)
    with pytest.raises(UsageError, match="--thing"):
        await invoke(kernel, fn, "--thing", "x")


@pytest.mark.anyio
async def test_annotations_that_are_text(kernel: Kernel) -> None:
    class Local(enum.Enum):
        A = "a"

    def fn(color: "Color", local: "Local", n: "int | None" = None) -> object:
        _ = Local
        return color, local, n

    assert await invoke(kernel, fn, "red", "a", "--n", "1") == (Color.RED, Local.A, 1)


@pytest.mark.anyio
async def test_constraints_are_checked_and_described(kernel: Kernel) -> None:
    depth = Annotated[int, msgspec.Meta(ge=1, description="how deep")]

    def fn(depth: depth, tags: list[Annotated[str, "a tag"]] = []) -> object:  # noqa: B006
        return depth, tags

    assert await invoke(kernel, fn, "2", "--tags", "x") == (2, ["x"])
    with pytest.raises(UsageError, match=">= 1"):
        await invoke(kernel, fn, "0")
    assert "a tag" in str(await invoke(kernel, fn, "--help"))


@pytest.mark.anyio
async def test_partials_and_callable_objects(kernel: Kernel) -> None:
    class Adder:
        def __init__(self, n: int) -> None:
            self.n = n

        async def __call__(self, m: int) -> int:
            """Adds."""
            return self.n + m

    assert await invoke(kernel, Adder(1), "2") == 3
    assert "Adds." in str(await invoke(kernel, Adder(1), "--help"))
    assert await invoke(kernel, functools.partial(lambda a, b=1: (a, b), b=5), "x") == ("x", 5)


@pytest.mark.anyio
async def test_help_comes_from_description_and_docstring(kernel: Kernel) -> None:
    def fn(name: str, *, loud: bool = False, times: int = 2) -> None:
        """Greet somebody.

        Args:
            name: Whom.
            loud: Whether to shout,
                as one does.
            times: How often.

        Raises:
            ValueError: Never.
        """

    text = str(await invoke(kernel, fn, "--help"))
    assert "does it" in text
    assert "Greet somebody." in text
    assert "--loud / --no-loud" in text
    assert "Whether to shout, as one does." in text
    assert "[default: 2]" in text
    assert "ValueError" not in text


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "'NUMBER'"),
        (["x"], "'x' is not a valid integer"),
        (["1", "2"], "unexpected extra argument"),
        (["1", "--lout"], "--loud"),
        (["1", "--color", "green"], "'red', 'blue'"),
        (["1", "--day", "soon"], "'soon'"),
        (["-1", "--lout"], "put -- before"),
    ],
)
async def test_a_bad_line_is_said_and_nothing_runs(
    kernel: Kernel, commands: Commands, words: list[str], said: str
) -> None:
    ran = []

    def fn(number: int, loud: bool = False, color: Color = Color.RED, day: date | None = None):
        ran.append(number)

    await kernel.load(Tool({"it": fn}))
    with pytest.raises(UsageError) as caught:
        await commands.invoke("it", words)
    assert said.lower() in str(caught.value).lower()
    assert "Usage: it [OPTIONS] NUMBER" in str(caught.value)
    assert caught.value.plugin == "tool"
    assert not ran
    assert kernel.get("tool").error_count == 0


@pytest.mark.anyio
@pytest.mark.parametrize("word", ["-1", "-.5", "-2.", "-1e-3", "-0"])
async def test_numbers_below_zero_need_no_dashes_before_them(
    kernel: Kernel, commands: Commands, word: str
) -> None:
    await kernel.load(Tool({"it": lambda number, *, by=1.0, loud=False: (number, by, loud)}))
    assert await commands.invoke("it", [word, "--by", "-2", "--loud"]) == (word, -2.0, True)
    assert await commands.invoke("it", ["--loud", word]) == (word, 1.0, True)
    assert await commands.invoke("it", ["--", word]) == (word, 1.0, False)
    with pytest.raises(UsageError):
        await commands.invoke("it", [word, "-x"])


@pytest.mark.anyio
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(),
    number=st.integers(),
    rest=st.lists(st.floats(allow_nan=False)),
    flag=st.booleans(),
    many=st.lists(st.text(), min_size=1),
    color=st.sampled_from(Color),
    day=st.none() | st.dates(),
)
async def test_what_is_written_arrives(
    kernel: Kernel,
    commands: Commands,
    text: str,
    number: int,
    rest: list[float],
    flag: bool,
    many: list[str],
    color: Color,
    day: date | None,
) -> None:
    def fn(
        text: str,
        number: int,
        *rest: float,
        flag: bool = True,
        many: tuple[str, ...] = ("x",),
        color: Color = Color.RED,
        day: date | None = None,
    ) -> dict[str, object]:
        return dict(locals())

    words = [f"--{'' if flag else 'no-'}flag", f"--color={color.value}"]
    words += [f"--many={one}" for one in many]
    words += [] if day is None else ["--day", day.isoformat()]
    words += ["--", text, str(number), *map(str, rest)]
    if kernel.get("tool") is None or not kernel.get("tool").loaded:
        await kernel.load(Tool({"it": fn}))
    assert await commands.invoke("it", words) == {
        "text": text, "number": number, "rest": tuple(rest), "flag": flag, "many": tuple(many),
        "color": color, "day": day,
    }  # fmt: skip


@pytest.mark.anyio
async def test_bad_python_arguments_are_said(kernel: Kernel, commands: Commands) -> None:
    await kernel.load(Tool({"it": lambda a: a}))
    with pytest.raises(UsageError, match=r"missing a required argument.*it\(a\)"):
        await commands.run("it")
    with pytest.raises(UsageError, match="unexpected keyword"):
        await commands.run("it", 1, b=2)


@pytest.mark.anyio
async def test_what_no_text_could_give_names_the_parameter(kernel: Kernel) -> None:
    def fn(thing: Kernel) -> object:
        return thing

    with pytest.raises(UsageError, match="'thing'"):
        await invoke(kernel, fn, "x")
    await kernel.load(Tool({"it": fn}))
    assert await kernel.use("commands").run("it", kernel) is kernel


@pytest.mark.anyio
async def test_an_unknown_name_is_answered_with_the_nearest(
    kernel: Kernel, commands: Commands
) -> None:
    with pytest.raises(NotFoundError, match="No active plugin"):
        await commands.run("links:prune")
    await kernel.load(Tool({"links:prune": lambda: None}))
    with pytest.raises(NotFoundError, match="Did you mean 'links:prune'"):
        await commands.run("link:prune")
    with pytest.raises(NotFoundError, match="There are: links:prune"):
        await commands.invoke("zzz", [])


@pytest.mark.anyio
async def test_a_name_is_taken_once(kernel: Kernel, commands: Commands) -> None:
    await kernel.load(Tool({"it": lambda: 1}))
    with pytest.raises(ConflictError, match="tool"):
        await kernel.load(Tool({"it": lambda: 2, "other": lambda: 3}, name="second"))
    assert [command.name for command in commands.list()] == ["it"]
    assert await commands.run("it") == 1


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["", "two words", "-x", 3])
async def test_a_bad_name_fails_the_load(kernel: Kernel, name: str) -> None:
    with pytest.raises(VekoError, match="not a valid command name"):
        await kernel.load(Tool({name: lambda: None}))


@pytest.mark.anyio
async def test_what_is_no_function_fails_the_load(kernel: Kernel) -> None:
    with pytest.raises(VekoError, match="not a function"):
        await kernel.load(Tool({"it": "print"}))  # type: ignore[dict-item]


@pytest.mark.anyio
async def test_a_failure_is_attributed_and_raised(kernel: Kernel, commands: Commands) -> None:
    heard = []
    kernel.bus.on("plugin:error", lambda name, error: heard.append((name, error)))
    error = ValueError("no")

    async def fails() -> None:
        raise error

    await kernel.load(Tool({"it": fails}))
    with pytest.raises(ValueError, match="no") as caught:
        await commands.run("it")
    assert caught.value is error
    assert heard == [("tool", error)]
    assert kernel.get("tool").error_count == 1


@pytest.mark.anyio
async def test_exit_ends_the_command_not_the_host(kernel: Kernel, commands: Commands) -> None:
    await kernel.load(Tool({"it": sys.exit}))
    assert await commands.run("it", 0) is None
    with pytest.raises(HookError, match="exited: 3"):
        await commands.run("it", 3)
    assert kernel.get("tool").error_count == 1


@pytest.mark.anyio
async def test_somebody_elses_cancelled_task_is_a_failure(
    kernel: Kernel, commands: Commands
) -> None:
    async def fn() -> None:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    await kernel.load(Tool({"it": fn}))
    with pytest.raises(HookError, match="cancelled"):
        await commands.run("it")


@pytest.mark.anyio
async def test_cancelling_the_caller_cancels_the_command(
    kernel: Kernel, commands: Commands
) -> None:
    started = asyncio.Event()

    async def fn() -> None:
        started.set()
        await asyncio.Event().wait()

    await kernel.load(Tool({"it": fn}))
    task = asyncio.create_task(commands.run("it"))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert kernel.get("tool").error_count == 0


@pytest.mark.anyio
async def test_toggle_and_unload_take_commands_along(kernel: Kernel, commands: Commands) -> None:
    await kernel.load(Tool({"it": lambda: 1}))
    await kernel.toggle("tool", False)
    assert commands.list() == ()
    with pytest.raises(NotFoundError):
        await commands.run("it")
    await kernel.toggle("tool", True)
    assert await commands.run("it") == 1
    await kernel.unload("tool")
    with pytest.raises(NotFoundError):
        await commands.run("it")


@pytest.mark.anyio
async def test_a_command_added_later_is_live_when_its_handle_says_so(
    kernel: Kernel, commands: Commands
) -> None:
    contexts = []

    class Late(Plugin):
        name = "late"
        version = "1.0.0"

        def load(self, context) -> None:
            contexts.append(context)

    await kernel.load(Late)
    handle = contexts[0].add_command("late", lambda: "now")
    await handle
    assert await commands.run("late") == "now"
    handle.cancel()
    handle.cancel()
    with pytest.raises(NotFoundError):
        await commands.run("late")


@pytest.mark.anyio
async def test_nothing_of_an_unloaded_command_is_kept(kernel: Kernel, commands: Commands) -> None:

    def fn(a: int) -> int:
        return a

    kept = weakref.ref(fn)
    await kernel.load(Tool({"it": fn}))
    del fn
    assert await commands.invoke("it", ["1"]) == 1
    assert "Usage" in str(await commands.invoke("it", ["--help"]))
    with pytest.raises(UsageError):
        await commands.invoke("it", ["x"])
    await kernel.unload("tool")
    await kernel.load(Tool({}))
    gc.collect()
    assert kept() is None


@pytest.mark.anyio
async def test_the_manager_runs_commands(tmp_path: Path) -> None:
    async with PluginManager(root=tmp_path, adapter=None) as manager:
        await manager.load_plugin(Tool({"add": lambda a, b=1: a + b}))
        assert await manager.run_command("add", 1, b=2) == 3
        assert manager.get_stats().commands == 1
        assert manager.list_plugins()[0].type == "cli"
        await manager.toggle_plugin("tool", False)
        with pytest.raises(NotFoundError):
            await manager.run_command("add", 1)


def test_without_click_commands_run_and_a_command_line_says_what_is_missing() -> None:
    program = """
import sys
sys.modules["click"] = sys.modules["rich_click"] = sys.modules["litestar"] = None
import asyncio
from veko import Kernel
from veko_plugins.commands import Commands

async def main():
    async with Kernel() as kernel:
        await kernel.load(Commands())
        load = lambda context: context.add_command("it", lambda a: a)
        await kernel.load({"name": "tool", "version": "1.0.0", "load": load})
        print(await kernel.use("commands").run("it", "ran"))
        try:
            await kernel.use("commands").invoke("it", ["x"])
        except Exception as error:
            print(error)

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert "ran" in done.stdout
    assert "pip install 'veko[cli]'" in done.stdout


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["run", "invoke"])
async def test_a_command_is_cut_after_drain_timeout(how: str) -> None:
    """One that hangs delays the end of its plugin, and of the application, no longer than that."""
    began, reported = asyncio.Event(), list[BaseException]()

    async def hang() -> None:
        began.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(5):
        async with Kernel(drain_timeout=0.05) as kernel:
            kernel.bus.on("error:handle", lambda error: reported.append(error))
            commands = Commands()
            await kernel.load(commands)
            for number in range(3):
                await kernel.load(Tool({f"other{number}": print}, f"other{number}"))
            await kernel.load(Tool({"hang": hang}))
            arguments = ["hang"] if how == "run" else ["hang", []]
            running = asyncio.create_task(getattr(commands, how)(*arguments))
            await began.wait()
            await kernel.unload("tool")
            with pytest.raises(StateError, match="cut off") as caught:
                await running
            assert caught.value.plugin == "tool"
            assert len(reported) == 1
            assert isinstance(reported[0], LoadTimeout)
            await kernel.load(Tool({"hang": hang}))
            began.clear()
            running = asyncio.create_task(getattr(commands, how)(*arguments))
            await began.wait()
        with pytest.raises(StateError, match="cut off"):
            await running


@pytest.mark.anyio
async def test_a_command_may_end_its_own_plugin(kernel: Kernel, commands: Commands) -> None:
    async def end() -> str:
        await kernel.unload("tool")
        return "done"

    await kernel.load(Tool({"end": end}))
    async with asyncio.timeout(5):
        assert await commands.run("end") == "done"
    assert kernel.get("tool") is None
