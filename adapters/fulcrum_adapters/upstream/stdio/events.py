"""Streams of messages toward a client: one log, any number of readers, each with a place of its own in it.

The log of a legacy request outlives its readers, so that a client may resume it; a modern one forgets what was read.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.ports import ServerSentEvent

__all__ = ["EventReader", "EventStream"]


class EventStream:
    """The messages of one request, or of a session's GET stream (number 0), in order.

    `keeps`: events have ids and stay after they were read, until `trim`. `on_lag` is called with a reader that holds
    back more than `limit` bytes, `on_push` with the size of each message.
    """

    __slots__ = (
        "_base",
        "_events",
        "_limit",
        "_total",
        "done",
        "failure",
        "keeps",
        "number",
        "on_lag",
        "on_push",
        "readers",
    )

    def __init__(
        self,
        number: int,
        *,
        keeps: bool,
        limit: int,
        on_lag: Callable[["EventReader"], None],
        on_push: Callable[[int], None] | None = None,
    ) -> None:
        self.number = number
        self.keeps = keeps
        self.on_lag = on_lag
        self.on_push = on_push
        self.done = False
        self.failure: UpstreamFailed | None = None
        self.readers: list[EventReader] = []
        self._limit = limit
        self._events: deque[tuple[bytes, int]] = deque()
        self._base = 0
        self._total = 0

    @property
    def end(self) -> int:
        """The place after the last event."""
        return self._base + len(self._events)

    @property
    def start(self) -> int:
        """The place of the oldest event that is still there."""
        return self._base

    @property
    def kept(self) -> int:
        """Bytes in the log."""
        return sum(len(data) for data, _ in self._events)

    def push(self, data: bytes, *, last: bool = False) -> None:
        """Append a message; nothing follows the last one."""
        if self.done:
            return
        self._total += len(data)
        self._events.append((data, self._total))
        self.done = last
        for reader in tuple(self.readers):
            reader.wake()
            if not last and self._total - reader.offset > self._limit:
                self.on_lag(reader)
        if self.on_push is not None:
            self.on_push(len(data))

    def finish(self, failure: UpstreamFailed | None = None) -> None:
        """End the stream without a further message. Idempotent."""
        if not self.done:
            self.done = True
            self.failure = failure
            for reader in self.readers:
                reader.wake()

    def read(self, place: int = 0, on_close: Callable[["EventReader"], None] | None = None) -> "EventReader":
        """A reader of everything from `place` on that is still there."""
        reader = EventReader(self, max(place, self._base), on_close)
        self.readers.append(reader)
        return reader

    def at(self, place: int) -> tuple[bytes, int]:
        """The event at a place, and the bytes up to its end."""
        return self._events[place - self._base]

    def offset(self, place: int) -> int:
        """The bytes before a place."""
        if place <= self._base:
            return self._total if not self._events else self._events[0][1] - len(self._events[0][0])
        return self._events[place - 1 - self._base][1]

    def trim(self) -> int:
        """Forget the oldest event and say its size; 0 when a reader needs it or it is the answer itself."""
        limit = min((reader.place for reader in self.readers), default=self.end)
        if self.done:
            limit = min(limit, self.end - 1)
        return self.forget() if self._base < limit else 0

    def forget(self) -> int:
        """Drop the oldest event."""
        data, _ = self._events.popleft()
        self._base += 1
        return len(data)


class EventReader:
    """One reader; an asynchronous iterator of events that ends with the stream or raises its failure."""

    __slots__ = (
        "_closed",
        "_failure",
        "_on_close",
        "_waiter",
        "offset",
        "on_read",
        "place",
        "priming",
        "retry",
        "stream",
    )

    def __init__(self, stream: EventStream, place: int, on_close: Callable[["EventReader"], None] | None) -> None:
        self.stream = stream
        self.place = place
        self.offset = stream.offset(place)
        self.priming = False
        self.on_read: Callable[[EventReader], None] | None = None
        self.retry: int | None = None
        self._on_close = on_close
        self._closed = False
        self._failure: UpstreamFailed | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def lag(self) -> int:
        """Bytes that wait for this reader."""
        return self.stream.offset(self.stream.end) - self.offset

    def wake(self) -> None:
        """Something changed."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def fail(self, failure: UpstreamFailed) -> None:
        """Break this reader only."""
        self._failure = failure
        self.close()
        self.wake()

    async def first(self, delay: float) -> None:
        """Wait for the first event or the end, at most so many seconds. Raises the stream's failure."""
        stream = self.stream
        if self.place >= stream.end and not stream.done and not self._closed:
            handle = asyncio.get_running_loop().call_later(delay, self.wake)
            try:
                await self._wait()
            finally:
                handle.cancel()
        if self._failure is not None:
            raise self._failure
        if stream.failure is not None and self.place >= stream.end:
            raise stream.failure

    def __aiter__(self) -> "EventReader":
        return self

    async def __anext__(self) -> ServerSentEvent:
        stream = self.stream
        if self.priming:
            self.priming = False
            return ServerSentEvent(b"", f"{stream.number}-{self.place}", retry=self.retry)
        while True:
            if self._failure is not None:
                raise self._failure
            if self._closed:
                raise StopAsyncIteration
            if self.place < stream.end:
                return self._take()
            if stream.done:
                self.close()
                if stream.failure is not None:
                    raise stream.failure
                raise StopAsyncIteration
            await self._wait()

    def _take(self) -> ServerSentEvent:
        stream = self.stream
        data, self.offset = stream.at(self.place)
        self.place += 1
        if stream.keeps:
            event = ServerSentEvent(data, f"{stream.number}-{self.place}")
        else:
            stream.forget()
            event = ServerSentEvent(data)
        if self.on_read is not None:
            self.on_read(self)
        return event

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def close(self) -> None:
        """Give the stream up. Idempotent."""
        if not self._closed:
            self._closed = True
            if self in self.stream.readers:
                self.stream.readers.remove(self)
            self.wake()
            if self._on_close is not None:
                self._on_close(self)
