"""Calls that an upstream finishes later as a task: settled at the task's end, visible to their principal only."""

import time
from dataclasses import dataclass
from typing import Final

from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.gateway.pending import owner_of
from fulcrum_mcp.gateway.settle import Settler
from fulcrum_mcp.gateway.ticket import Ticket

__all__ = ["TASK_METHODS", "TERMINAL", "Tasks"]

TASK_METHODS: Final = frozenset({"tasks/get", "tasks/update", "tasks/cancel", "tasks/result", "tasks/list"})
TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})

_TTL: Final = 24 * 3600
_MAX_OPEN: Final = 100_000


@dataclass(slots=True)
class _Task:
    ticket: Ticket
    server: str
    deadline: float


class Tasks:
    """The tasks that this gateway has seen begin."""

    def __init__(self, settler: Settler) -> None:
        self._settler = settler
        self._tasks: dict[tuple[str, str, str], _Task] = {}

    def park(self, ticket: Ticket, task_id: str) -> None:
        """The call goes on as this task; its reservation stays open."""
        if len(self._tasks) >= _MAX_OPEN:
            self._settler.finish(ticket, "outcome_unknown", is_error=True)
            return
        key = (owner_of(ticket.call.principal), ticket.call.server, task_id)
        known = self._tasks.get(key)
        if known is not None:
            self._settler.finish(known.ticket, "outcome_unknown", is_error=True)
        ticket.task = task_id
        self._tasks[key] = _Task(ticket, ticket.call.server, time.monotonic() + _TTL)

    def find(self, principal: Principal, server: str, task_id: object) -> Ticket | None:
        """The ticket of a task; None for an unknown one and for another principal's."""
        task = self._tasks.get((owner_of(principal), server, task_id)) if isinstance(task_id, str) else None
        return None if task is None else task.ticket

    def servers(self, principal: Principal, task_id: object) -> list[str]:
        """The servers on which this principal has a task of this id."""
        owner = owner_of(principal)
        return [server for kept, server, name in self._tasks if kept == owner and name == task_id]

    def sweep(self) -> None:
        """Forget what is too old; what was not settled by then has an unknown outcome."""
        now = time.monotonic()
        for key in [key for key, task in self._tasks.items() if task.deadline < now]:
            self._settler.finish(self._tasks.pop(key).ticket, "outcome_unknown", is_error=True)
