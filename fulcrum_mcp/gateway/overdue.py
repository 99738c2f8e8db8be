"""Calls that wait too long are denied: a disk or a store that hangs must not hang them."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Literal

from fulcrum_mcp.core.budget import Outcome
from fulcrum_mcp.errors import Unavailable

__all__ = ["Overdue", "Side"]

Side = Literal["ledger", "log"]
"""Who is waited for."""


class Overdue:
    """Those that wait, the longest first; on the event loop."""

    def __init__(self, patience: float, remedy: str, late: Callable[[Side, str], None]) -> None:
        """`patience` in seconds; `late` is told for whom a call has waited too long, and what is said to it."""
        self._patience = patience
        self._why = f"the journal has not answered for {patience} s; {remedy}"
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, asyncio.Future[Outcome | None], Side]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def wait(self, future: "asyncio.Future[Outcome | None]", side: Side) -> None:
        """From now on."""
        self._waiting.append((self._loop.time(), future, side))

    def look(self) -> None:
        """Now, and again and again from then on."""
        waiting, since = self._waiting, self._loop.time() - self._patience
        while waiting and (waiting[0][1].done() or waiting[0][0] < since):
            _, future, side = waiting.popleft()
            if not future.done():
                self._late(side, self._why)
                future.set_exception(Unavailable(self._why))
        self._timer = self._loop.call_later(self._patience / 10, self.look)

    def stop(self) -> None:
        """Deny nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
