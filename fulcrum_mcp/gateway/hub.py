"""The hub: every exchange with an upstream, and what they share. One for each worker."""

from collections.abc import Mapping
from dataclasses import dataclass

from fulcrum_mcp.gateway.exchange import Exchange
from fulcrum_mcp.gateway.rounds import Rounds
from fulcrum_mcp.gateway.sessions import Sessions
from fulcrum_mcp.gateway.settle import Settler
from fulcrum_mcp.gateway.tasks import Tasks

__all__ = ["LOST_AFTER", "Hub"]

LOST_AFTER = 300.0
"""Seconds that a request whose stream ended may wait for another stream to bring its answer."""


@dataclass(slots=True)
class Hub:
    """What the faces talk to."""

    exchanges: Mapping[str, Exchange]
    sessions: Sessions
    rounds: Rounds
    tasks: Tasks
    settler: Settler

    def sweep(self, now: float) -> None:
        """Settle what never came back. Call it every few seconds, with `now` in monotonic seconds."""
        self.rounds.sweep()
        self.tasks.sweep()
        for pending in self.sessions.lost(now - LOST_AFTER):
            if pending.ticket is not None:
                outcome = "cancelled" if pending.cancelled else "outcome_unknown"
                self.settler.finish(pending.ticket, outcome, is_error=True)

    def warm(self) -> None:
        """Begin to read every upstream's catalog in the background."""
        for exchange in self.exchanges.values():
            exchange.catalog.refresh_soon()
