"""An upstream in memory: answers come from a function, everything asked of it is kept."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.ports import ServerSentEvent, UpstreamRequest

__all__ = ["MemoryReply", "MemoryUpstream"]


@dataclass(slots=True)
class MemoryReply:
    """A scripted answer: `body`, or `stream` (events; an exception in it is raised in its place)."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    body: bytes = b""
    stream: "Iterable[ServerSentEvent | Exception] | AsyncIterator[ServerSentEvent] | None" = None
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def streams(self) -> bool:
        """See `UpstreamReply`."""
        return self.stream is not None

    async def read(self) -> bytes:
        """See `UpstreamReply`."""
        return self.body

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """See `UpstreamReply`."""
        if isinstance(self.stream, AsyncIterator):
            async for event in self.stream:
                yield event
            return
        for item in self.stream or ():
            if isinstance(item, Exception):
                raise item
            yield item

    async def close(self) -> None:
        """See `UpstreamReply`."""
        self.closed.set()


class MemoryUpstream:
    """Implements `Upstream`; `requests` holds what was sent, in order."""

    def __init__(self, name: str, answer: Callable[[UpstreamRequest], MemoryReply | Awaitable[MemoryReply]]) -> None:
        self.name = name
        self.requests: list[UpstreamRequest] = []
        self.closed = False
        self._answer = answer

    async def send(self, request: UpstreamRequest) -> MemoryReply:
        """See `Upstream`."""
        if self.closed:
            raise UpstreamFailed(f"upstream {self.name}: it was closed; try again", sent=False)
        self.requests.append(request)
        answer = self._answer(request)
        return answer if isinstance(answer, MemoryReply) else await answer

    async def close(self) -> None:
        """See `Upstream`."""
        self.closed = True
