"""An upstream's answer over any transport: one body, or a stream of events."""

from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Self

from fulcrum_mcp.ports import ServerSentEvent

from .fault import Fault
from .sse import EventParser
from .target import Target
from .transport import Exchange

__all__ = ["HttpReply"]


class HttpReply:
    """Implements `UpstreamReply`. Cancelling `read` or the wait for an event closes the connection."""

    __slots__ = ("_body", "_exchange", "_max_body", "_max_event", "_target", "headers", "status", "streams")

    def __init__(
        self, exchange: Exchange, headers: dict[str, str], target: Target, *, max_body: int, max_event: int
    ) -> None:
        self.status = exchange.status
        self.headers: Mapping[str, str] = headers
        media = headers.get("content-type", "")
        self.streams = media[:17].lower() == "text/event-stream" and media[17:18] in ("", ";", " ", "\t")
        self._exchange = exchange
        self._target = target
        self._max_body = max_body
        self._max_event = max_event
        self._body: bytes | None = None

    async def read(self) -> bytes:
        """See `UpstreamReply`; asked again it answers the same."""
        if self._body is not None:
            return self._body
        parts: list[bytes] = []
        size = 0
        try:
            while data := await self._exchange.chunk():
                parts.append(data)
                size += len(data)
                if size > self._max_body:
                    break
        except Fault as fault:
            raise self._target.failed(fault) from fault
        if size > self._max_body:
            self._exchange.abort()
            raise self._target.failed(Fault(f"its answer is larger than {self._max_body} bytes", remedy="ask for less"))
        self._body = parts[0] if len(parts) == 1 else b"".join(parts)
        return self._body

    def events(self) -> AsyncIterator[ServerSentEvent]:
        """See `UpstreamReply`; one iterator a reply."""
        return _Events(self._exchange, self._target, self._max_event)

    async def close(self) -> None:
        """See `UpstreamReply`."""
        self._exchange.abort()


class _Events:
    """Events in the order they came."""

    __slots__ = ("_exchange", "_parser", "_ready", "_target")

    def __init__(self, exchange: Exchange, target: Target, limit: int) -> None:
        self._exchange = exchange
        self._parser = EventParser(limit)
        self._ready: deque[ServerSentEvent] = deque()
        self._target = target

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerSentEvent:
        ready = self._ready
        try:
            while not ready:
                data = await self._exchange.chunk()
                if not data:
                    self._parser.end()
                    raise StopAsyncIteration
                ready.extend(self._parser.feed(data))
        except Fault as fault:
            self._exchange.abort()
            raise self._target.failed(fault) from fault
        return ready.popleft()
