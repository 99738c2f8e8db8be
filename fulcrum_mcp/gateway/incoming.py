"""What a face hands to the gateway, and what it gets back: the terms of Streamable HTTP, without HTTP."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fulcrum_mcp.core.call import Context, Principal
from fulcrum_mcp.gateway.sessions import Session
from fulcrum_mcp.gateway.upcall import Via
from fulcrum_mcp.gateway.wire import Message
from fulcrum_mcp.ports import ServerSentEvent, UpstreamReply

__all__ = ["Answer", "Incoming"]


@dataclass(slots=True)
class Incoming:
    """One message of a client. `headers` are those that go on upstream, lower-case, in their order."""

    verb: str
    principal: Principal
    context: Context
    modern: bool
    version: str
    """The protocol version of the request; empty where an older client names none."""
    headers: list[tuple[bytes, bytes]]
    message: Message | None = None
    session: Session | None = None
    values: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """All `mcp-*` headers received, by lower-case name; empty for faces that have none."""
    over_http: bool = True

    @property
    def via(self) -> Via:
        """How the gateway itself would reach an upstream on behalf of this client."""
        return Via(self.version or "2025-03-26")

    def header(self, name: str) -> str | None:
        """The first value of an `mcp-*` or `last-event-id` header."""
        values = self.values.get(name)
        return values[0] if values else None


@dataclass(slots=True)
class Answer:
    """What the client gets: a body, or events. `detached`: the client's going does not cancel (handshake era)."""

    status: int
    body: bytes = b""
    events: AsyncIterator[ServerSentEvent] | None = None
    close: Callable[[], Awaitable[None]] | None = None
    """To be awaited once after the events, or instead of them."""
    session: Session | None = None
    """A session that begins with this answer."""
    headers: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    detached: bool = False
    timings: Sequence[tuple[str, int]] = ()
    """Stages and their microseconds, for Server-Timing."""
    upstream: UpstreamReply | None = None
    """The head of the upstream's answer."""
