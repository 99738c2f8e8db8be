"""An MCP server behind the gateway."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fulcrum_mcp.core.call import Principal

__all__ = ["ServerSentEvent", "Upstream", "UpstreamReply", "UpstreamRequest"]


@dataclass(slots=True)
class UpstreamRequest:
    """One message to an upstream, in the terms of MCP's Streamable HTTP (stdio upstreams speak them too).

    `message` is the exact JSON text that was judged; `document` the same, parsed. `headers` are lower-case names,
    without hop-by-hop ones and without the client's credentials: `mcp-*`, `last-event-id`, `accept`, `traceparent`.
    """

    verb: str
    headers: list[tuple[bytes, bytes]]
    message: bytes = b""
    document: Mapping[str, Any] | None = None
    principal: Principal | None = None


@dataclass(slots=True)
class ServerSentEvent:
    """One SSE event: `data` is a JSON-RPC message as bytes (empty for a priming event), `retry` milliseconds."""

    data: bytes
    id: str | None = None
    event: str | None = None
    retry: int | None = None
    comment: bool = field(default=False)


class UpstreamReply(Protocol):
    """What an upstream answers: a head, then either one body or a stream of events."""

    status: int
    headers: Mapping[str, str]
    """Lower-case names; `content-type`, `mcp-session-id`, `retry-after`, ... No credentials or challenges."""

    @property
    def streams(self) -> bool:
        """True when the body is `text/event-stream`: use `events`, else `read`."""
        ...

    async def read(self) -> bytes:
        """The whole body. Raises `UpstreamFailed` when it is cut off, stalls or exceeds the limit."""
        ...

    def events(self) -> AsyncIterator[ServerSentEvent]:
        """Events as they come. Raises `UpstreamFailed` when the stream breaks instead of ending."""
        ...

    async def close(self) -> None:
        """Give the stream up; before its end that cancels the request upstream. Idempotent."""
        ...


class Upstream(Protocol):
    """One MCP server behind the gateway."""

    name: str

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Send one message and wait for the answer's head.

        Sent at most once: never retried unless not one byte was written. Raises `UpstreamFailed` with the
        upstream's name and last words; its `sent` is False only when not one byte reached the upstream. Cancelling
        the awaiting task closes the stream.
        """
        ...

    async def close(self) -> None:
        """End every connection and process. Idempotent."""
        ...
