"""Twenty incidents that an agent finds and repairs through the tools alone, and undoes again."""

from pathlib import Path

import pytest

from .agents import agent_at, served
from .incidents import INCIDENTS, Incident

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", INCIDENTS, ids=lambda kind: str(kind.__name__))
async def test_an_agent_finds_and_repairs_and_nothing_is_irreversible(
    tmp_path: Path, kind: type[Incident]
) -> None:
    incident = kind()
    async with (
        served(tmp_path, incident.files, incident.settings) as site,
        agent_at(site) as agent,
    ):
        await incident.cause(site)
        assert await incident.broken(site)
        changes = await incident.repair(agent)
        assert changes
        assert not await incident.broken(site)

        undone = []
        for change in reversed(changes):
            undone.append((await agent.call("undo", change=change))["id"])
        assert await incident.broken(site)

        for change in reversed(undone):
            await agent.call("undo", change=change)
        assert not await incident.broken(site)


def test_there_are_twenty() -> None:
    assert len(INCIDENTS) == len({kind.__name__ for kind in INCIDENTS}) == 20
    assert all(kind.__doc__ for kind in INCIDENTS)
