"""Simulation: run concurrent code in a thousand orders, each of which can be repeated.

Imported by `import veko.testing` only. It needs asyncio: trio has no loop that can be replaced.
"""

from .failures import Deadlock, EndlessRun, NotSimulated, SimulationFailure, TaskLeft
from .simulate import Scenario, Simulated, simulate
from .simulation import Simulation

__all__ = [
    "Deadlock",
    "EndlessRun",
    "NotSimulated",
    "Scenario",
    "Simulated",
    "Simulation",
    "SimulationFailure",
    "TaskLeft",
    "simulate",
]
