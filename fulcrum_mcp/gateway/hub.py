"""The hub: every exchange with an upstream, and what they share. One for each worker."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.decision import Reason
from fulcrum_mcp.core.switch import SwitchIndex, stop_reason
from fulcrum_mcp.gateway.denial import Denial
from fulcrum_mcp.gateway.exchange import Exchange
from fulcrum_mcp.gateway.ids import new_id
from fulcrum_mcp.gateway.rounds import Rounds
from fulcrum_mcp.gateway.sessions import Sessions
from fulcrum_mcp.gateway.settle import Settler
from fulcrum_mcp.gateway.tasks import Tasks
from fulcrum_mcp.gateway.ticket import Judged
from fulcrum_mcp.gateway.watched import Watched

_log = structlog.get_logger("fulcrum.gateway")

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

    def stop(self, switches: SwitchIndex) -> int:
        """End every call, request and stream that a kill switch stops, within this turn of the loop; how many.

        Calls are settled, clients told. What an upstream still answers is not passed on.
        """
        stopped = self.settler.in_flight.stopped_by(switches)
        watched = self.settler.watched.stopped_by(switches)
        for ticket, switch in stopped:
            ticket.stopped = Denial(ticket.decision_id, "deny", (stop_reason(switch),))
            halts = tuple(ticket.halts)
            self.settler.finish(ticket, "cancelled", is_error=True, judged=Judged(denial=ticket.stopped))
            _tell(halts, ticket.decision_id)
        for each, switch in watched:
            _end(each, stop_reason(switch))
        return len(stopped) + len(watched) + (self.rounds.stop(switches) if switches.switches else 0)

    def end(self, principal: Principal, why: Reason) -> int:
        """End what this very principal listens to: its credential counts no longer; how much that was."""
        found = self.settler.watched.of(principal)
        for each in found:
            _end(each, why)
        return len(found)

    def warm(self) -> None:
        """Begin to read every upstream's catalog in the background."""
        for exchange in self.exchanges.values():
            exchange.catalog.refresh_soon()


def _end(each: Watched, why: Reason) -> None:
    """It stands in no record, so that the log names it."""
    decision, who = f"dec_{new_id()}", each.principal
    each.stopped = Denial(decision, "deny", (why,))
    _log.warning("stream ended", decision=decision, key=who.key, agent=who.agent, server=each.server, code=why.code)
    _tell(tuple(each.halts), decision)


def _tell(halts: Sequence[Callable[[], object]], decision: str) -> None:
    for halt in halts:
        try:
            halt()
        except Exception:  # noqa: BLE001 - one that cannot be told must not save the others
            _log.exception("stopped, but nobody told", decision=decision)
