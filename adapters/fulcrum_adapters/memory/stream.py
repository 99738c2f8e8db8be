"""The stream ports in memory: for tests and dry runs. One `MemoryBroker` is what NATS would be."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import Delivery, Parcel, Seen, StreamLag

__all__ = ["MemoryAuditFeed", "MemoryAuditStream", "MemoryBroker", "MemoryConfigFeed", "MemoryStreamView"]


@dataclass(slots=True)
class _Message:
    subject: str
    body: bytes
    at: float
    attempts: int = 0


@dataclass(slots=True)
class MemoryBroker:
    """What all adapters made from it share; on one event loop."""

    down: bool = False
    """Then everything raises `Unavailable`."""
    ready: deque[_Message] = field(default_factory=deque[_Message])
    unacknowledged: list[_Message] = field(default_factory=list[_Message])
    stored: dict[str, int] = field(default_factory=dict[str, int])
    watchers: list[Callable[[str, int], None]] = field(default_factory=list[Callable[[str, int], None]])
    seen: set[tuple[str, int, int, int]] = field(default_factory=set[tuple[str, int, int, int]])
    revision: int | None = None
    digest: str = ""
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def check(self) -> None:
        """Raises `Unavailable` while it is down."""
        if self.down:
            raise Unavailable("the stream in memory is down")


class MemoryAuditStream:
    """An `AuditStream`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def publish(self, parcels: Sequence[Parcel]) -> None:
        """See `AuditStream`."""
        broker = self._broker
        broker.check()
        async with broker.news:
            for parcel in parcels:
                place = (parcel.chain, parcel.first, parcel.last, parcel.attempt)
                if place not in broker.seen:
                    broker.seen.add(place)
                    broker.ready.append(_Message(parcel.tenant, parcel.body, time.monotonic()))
            broker.news.notify_all()

    async def stored(self) -> Mapping[str, int]:
        """See `AuditStream`."""
        self._broker.check()
        return dict(self._broker.stored)

    def watch(self, told: Callable[[str, int], None]) -> None:
        """See `AuditStream`."""
        self._broker.watchers.append(told)

    async def oldest(self) -> float | None:
        """See `AuditStream`."""
        self._broker.check()
        waiting = [message.at for message in itertools.chain(self._broker.ready, self._broker.unacknowledged)]
        return time.monotonic() - min(waiting) if waiting else None

    async def close(self) -> None:
        """See `AuditStream`."""


class _Delivery:
    """A `Delivery`; nobody else can say anything here, so all of them are believed."""

    fault: str | None = None

    def __init__(self, broker: MemoryBroker, message: _Message) -> None:
        self._broker = broker
        self._message = message
        self.subject = message.subject
        self.body = message.body
        self.attempts = message.attempts

    async def ack(self) -> None:
        """See `Delivery`."""
        self._taken()

    async def again(self, delay: float) -> None:
        """See `Delivery`."""
        if self._taken():
            asyncio.get_running_loop().call_later(delay, self._broker.ready.append, self._message)

    def _taken(self) -> bool:
        held = [message for message in self._broker.unacknowledged if message is not self._message]
        found = len(held) != len(self._broker.unacknowledged)
        self._broker.unacknowledged[:] = held
        return found


class MemoryAuditFeed:
    """An `AuditFeed`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def fetch(self, most: int, wait: float) -> Sequence[Delivery]:
        """See `AuditFeed`."""
        broker = self._broker
        until = time.monotonic() + wait
        while not broker.ready and time.monotonic() < until:
            broker.check()
            await asyncio.sleep(min(0.01, wait))
        broker.check()
        found: list[Delivery] = []
        while broker.ready and len(found) < most:
            message = broker.ready.popleft()
            message.attempts += 1
            broker.unacknowledged.append(message)
            found.append(_Delivery(broker, message))
        return found

    async def confirm(self, stored: Mapping[str, int]) -> None:
        """See `AuditFeed`."""
        self._broker.check()
        self._broker.stored.update(stored)
        for chain, seq in stored.items():
            for told in self._broker.watchers:
                told(chain, seq)

    async def lag(self) -> StreamLag:
        """See `AuditFeed`."""
        self._broker.check()
        return StreamLag(len(self._broker.ready), len(self._broker.unacknowledged))

    async def close(self) -> None:
        """See `AuditFeed`."""


class MemoryStreamView:
    """A `StreamView`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def parcels(self) -> AsyncIterator[Seen]:
        """See `StreamView`."""
        self._broker.check()
        for message in [*self._broker.unacknowledged, *self._broker.ready]:
            yield Seen(message.subject, message.body, None)

    async def close(self) -> None:
        """See `StreamView`."""


class MemoryConfigFeed:
    """A `ConfigFeed`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._closed = False

    async def announce(self, revision: int, digest: str) -> None:
        """See `ConfigFeed`."""
        self._broker.check()
        async with self._broker.news:
            self._broker.revision, self._broker.digest = revision, digest
            self._broker.news.notify_all()

    async def watch(self) -> AsyncIterator[int]:
        """See `ConfigFeed`."""
        seen: int | None = None
        while not self._closed:
            async with self._broker.news:
                while not self._closed and self._broker.revision == seen:
                    await self._broker.news.wait()
                seen = self._broker.revision
            if seen is not None and not self._closed:
                yield seen

    async def close(self) -> None:
        """See `ConfigFeed`."""
        self._closed = True
        async with self._broker.news:
            self._broker.news.notify_all()
