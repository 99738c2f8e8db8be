"""A request that was sent upstream and whose answer must pass through us before the client sees it."""

from dataclasses import dataclass

from fulcrum_mcp.core.call import Context, Principal
from fulcrum_mcp.gateway.catalog import ToolEntry
from fulcrum_mcp.gateway.snapshot import Snapshot
from fulcrum_mcp.gateway.ticket import Ticket
from fulcrum_mcp.gateway.trace import Trace

__all__ = ["Pending", "owner_of"]


@dataclass(slots=True)
class Pending:
    """What must be known when the answer comes, on whichever stream it comes."""

    request_id: str | int
    method: str
    server: str
    principal: Principal
    context: Context
    snapshot: Snapshot
    modern: bool
    ticket: Ticket | None = None
    structured: bool = False
    """The called tool has no outputSchema."""
    mine: dict[str, ToolEntry] | None = None
    """The tools that the client's session shows otherwise than the catalog."""
    task: str | None = None
    """The task that a tasks/* request names."""
    cancelled: bool = False
    trace: Trace | None = None
    lost_at: float | None = None
    """When its stream ended without an answer (monotonic seconds); another stream may still bring it."""


def owner_of(principal: Principal) -> str:
    """To whom a handle is bound: sessions, request states and tasks of one are unknown to any other."""
    return f"{principal.tenant}\n{principal.agent}\n{principal.key}"
