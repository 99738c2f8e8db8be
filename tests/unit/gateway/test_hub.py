"""Sweeping reaches everything that may never come back."""

from typing import Any

from fulcrum_mcp.gateway.hub import LOST_AFTER, Hub
from fulcrum_mcp.gateway.seal import Sealer
from fulcrum_mcp.gateway.sessions import Sessions


class Swept:
    def __init__(self) -> None:
        self.count = 0

    def sweep(self) -> None:
        self.count += 1


def test_sweep_reaches_rounds_tasks_and_lost_requests() -> None:
    rounds: Any = Swept()
    tasks: Any = Swept()
    settler: Any = None
    asked: list[float] = []
    sessions = Sessions(Sealer([b"k" * 32]))
    lost = sessions.lost

    def watched(before: float) -> Any:
        asked.append(before)
        return lost(before)

    sessions.lost = watched  # type: ignore[method-assign]
    Hub({}, sessions, rounds, tasks, settler).sweep(1000.0)
    assert (rounds.count, tasks.count, asked) == (1, 1, [1000.0 - LOST_AFTER])
