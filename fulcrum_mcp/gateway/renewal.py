"""What a writer holds is prolonged while it lives, and what dead ones held is let expire."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from fulcrum_mcp.core.budget import Expire, Operation, Renew
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.complaint import Complaint
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.reach import Reach
from fulcrum_mcp.ports import BudgetLedger

__all__ = ["RESERVATION_TTL", "RETRY", "Renewal"]

EVERY: Final = 20.0
RETRY: Final = 0.5
"""Seconds until a ledger that failed is asked again."""
RESERVATION_TTL: Final = 90
"""Seconds; a live writer renews long before."""

_log = structlog.get_logger("fulcrum.journal")


class Renewal:
    """One a writer, on the event loop."""

    def __init__(self, ledger: BudgetLedger, writer: str, reach: Reach, works: Callable[[], None]) -> None:
        """`works` is told each time that the ledger has answered."""
        self._ledger = ledger
        self._writer = writer
        self._reach = reach
        self._works = works
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._complaint = Complaint()
        self._stopped = False

    def renew(self) -> None:
        """Now, and again and again from then on."""
        at = now_ns()
        operations: list[Operation] = [Renew(self._writer, at, RESERVATION_TTL), Expire(at)]
        self._reach.ask(lambda: self._ledger.apply(operations), self._renewed)

    def soon(self) -> None:
        """The ledger has failed: see soon whether it works again, whoever calls."""
        self._again(RETRY)

    def stop(self) -> None:
        """Begin no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _renewed(self, _: object, fault: Exception | None) -> None:
        if fault is None:
            self._works()
            if self._complaint.over():
                _log.info("reservations renewed again")
        elif not (isinstance(fault, Unavailable) and fault.busy) and self._complaint.due(str(fault)):
            _log.warning("reservations not renewed", reason=str(fault))
        self._again(EVERY if fault is None else RETRY)

    def _again(self, seconds: float) -> None:
        if self._stopped:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self.renew)
