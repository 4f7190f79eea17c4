"""What a simulation finds: a deadlock, a run without end, a call that cannot be simulated."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import VekoError

__all__ = ["Deadlock", "EndlessRun", "NotSimulated", "SimulationFailure", "TaskLeft"]


class Deadlock(VekoError):
    """No task can run, no timer is set, and the scenario has not ended.

    Attributes:
        waiting: A text for each task: its name and the lines at which it waits.
    """

    def __init__(self, waiting: Sequence[str]) -> None:
        super().__init__(
            "no task can run and no timer is set\n" + "\n".join(waiting),
            remedy="Each task waits at the last line that is listed for it.",
        )
        self.waiting = tuple(waiting)


class EndlessRun(VekoError):
    """The scenario did not end within its steps, or one step within its time.

    Attributes:
        busiest: A text for each of the tasks that ran most often.
    """

    def __init__(self, message: str, busiest: Sequence[str] = ()) -> None:
        super().__init__("\n".join((message, *busiest)))
        self.busiest = tuple(busiest)


class NotSimulated(VekoError):
    """Code asked for a thread, a socket, a process or a signal, which no simulation has.

    Attributes:
        call: The call that was refused, such as `socket.connect`.
    """

    def __init__(self, call: str, remedy: str | None = None) -> None:
        super().__init__(
            f"{call} is not possible in a simulation: it has no threads, sockets or processes",
            remedy=remedy or "Give the code under test an object in memory instead.",
        )
        self.call = call


class TaskLeft(VekoError):
    """The scenario has ended, and tasks that it started still run."""

    def __init__(self, left: Sequence[str]) -> None:
        super().__init__(
            "tasks still run after the scenario has ended\n" + "\n".join(left),
            remedy="Wait for each task, or cancel it and wait for its end.",
        )


class SimulationFailure(AssertionError):
    """A scenario failed; its cause is `__cause__`.

    Attributes:
        error: What the scenario raised, or what was found.
        seed: Give it to `simulate(scenario, seed=…)` to repeat this run.
        found_with: The number of the run that failed first, before it was made smaller.
        decisions: What differs from a run in which tasks take turns in the order in which they
            became ready; without any one of them the scenario passes.
        notes: What the scenario noted.
        runs: How many runs there were until it failed.
    """

    def __init__(
        self,
        name: str,
        error: BaseException,
        *,
        seed: str,
        found_with: int | str,
        decisions: Sequence[str],
        notes: Sequence[str],
        runs: int,
        reproduced: bool,
    ) -> None:
        lines = [f"the scenario {name!r} failed: {type(error).__name__}: {error}"]
        if notes:
            lines += ["", "What it did:", *(f"  {note}" for note in notes)]
        if decisions:
            lines += ["", "What differs from the usual order:", *(f"  {d}" for d in decisions)]
        elif reproduced:
            lines += ["", "It fails in the usual order of tasks, too."]
        lines += ["", f"Found in run {found_with}, after {runs} runs."]
        if reproduced:
            lines.append(f'Repeat it with simulate({name}, seed="{seed}").')
        else:
            lines.append(
                "A second run with the same decisions did not fail in the same way: the scenario "
                "depends on something outside the simulation, such as objects that are kept from "
                "run to run, the date, or files."
            )
        super().__init__("\n".join(lines))
        self.error = error
        self.seed, self.found_with, self.runs = seed, found_with, runs
        self.decisions, self.notes = tuple(decisions), tuple(notes)
        self.reproduced = reproduced
