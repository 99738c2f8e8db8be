"""Calls that were admitted and have not ended, tasks included: those that a kill switch must end at once."""

from fulcrum_mcp.core.switch import KillSwitch, SwitchIndex
from fulcrum_mcp.gateway.ticket import Ticket, scopes_of

__all__ = ["InFlight"]


class InFlight:
    """Tickets between their admission and their end; one set operation at each."""

    __slots__ = ("_tickets",)

    def __init__(self) -> None:
        self._tickets: set[Ticket] = set()

    def __len__(self) -> int:
        return len(self._tickets)

    def enter(self, ticket: Ticket) -> None:
        """It was admitted and may be forwarded."""
        self._tickets.add(ticket)

    def leave(self, ticket: Ticket) -> None:
        """It has ended. Nobody who waits for it needs to be told anything any more."""
        self._tickets.discard(ticket)
        ticket.halts.clear()

    def stopped_by(self, switches: SwitchIndex) -> list[tuple[Ticket, KillSwitch]]:
        """The calls that have to end, and why."""
        if not switches.switches:
            return []
        found = [(ticket, switches.stopping(scopes_of(ticket.call))) for ticket in self._tickets]
        return [(ticket, switch) for ticket, switch in found if switch is not None]
