"""The stream ports over memory and over a real NATS, for one suite."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from fulcrum_adapters.jetstream import (
    Connection,
    JetStreamAuditFeed,
    JetStreamAuditStream,
    JetStreamConfig,
    JetStreamConfigFeed,
    Seal,
    ensure_streams,
)
from fulcrum_adapters.memory.stream import MemoryAuditFeed, MemoryAuditStream, MemoryBroker, MemoryConfigFeed
from fulcrum_mcp.core.frames import RECORD, frame
from fulcrum_mcp.ports import AuditFeed, AuditStream, ConfigFeed, Delivery, Parcel

__all__ = ["ADAPTERS", "SEAL", "Rig", "eventually", "fetched", "jetstream_rig", "nats_config", "open_rig", "parcel"]

ADAPTERS = ["memory", pytest.param("jetstream", marks=[pytest.mark.service, pytest.mark.parts])]
MIB = 1 << 20
SEAL = Seal(b"what all servers and processors have")


@dataclass
class Rig:
    stream: AuditStream
    feed: Callable[[], Awaitable[AuditFeed]]
    """Another processor."""
    config_feed: Callable[[], Awaitable[ConfigFeed]]
    """Another replica."""


def nats_config(url: str, timeout: float = 5.0) -> JetStreamConfig:
    return JetStreamConfig(url, timeout=timeout, max_bytes=64 * MIB, sync_always=True)


@asynccontextmanager
async def jetstream_rig(url: str, *, ack_wait: float = 30.0, patience: float = 5.0) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:

        async def connected() -> Connection:
            connection = Connection(nats_config(url, patience))
            stack.push_async_callback(connection.close)
            return connection

        async def begun(connection: Connection) -> None:
            connection.start()
            await connection.ready()

        async def feed() -> AuditFeed:
            connection = await connected()
            made = JetStreamAuditFeed(connection, SEAL, ack_wait=ack_wait)
            await begun(connection)
            await made.prepare()
            return made

        async def config_feed() -> ConfigFeed:
            connection = await connected()
            made = JetStreamConfigFeed(connection)
            await begun(connection)
            stack.push_async_callback(made.close)
            return made

        connection = await connected()
        stream = JetStreamAuditStream(connection, SEAL)
        await begun(connection)
        await ensure_streams(connection)
        yield Rig(stream, feed, config_feed)


@asynccontextmanager
async def memory_rig() -> AsyncIterator[Rig]:
    broker = MemoryBroker()
    feeds: list[MemoryConfigFeed] = []

    async def feed() -> AuditFeed:
        return MemoryAuditFeed(broker)

    async def config_feed() -> ConfigFeed:
        feeds.append(MemoryConfigFeed(broker))
        return feeds[-1]

    yield Rig(MemoryAuditStream(broker), feed, config_feed)
    for each in feeds:
        await each.close()


@asynccontextmanager
async def open_rig(request: pytest.FixtureRequest, kind: str) -> AsyncIterator[Rig]:
    async with memory_rig() if kind == "memory" else jetstream_rig(request.getfixturevalue("nats_url")) as rig:
        yield rig


def parcel(first: int = 1, last: int | None = None, *, tenant: str = "acme", attempt: int = 0, size: int = 0) -> Parcel:
    body = frame(RECORD, b"%d " % first + b"x" * size)
    return Parcel(tenant, f"w1.{tenant}", first, last or first, body, attempt)


async def fetched(feed: AuditFeed, number: int, seconds: float = 60.0) -> list[Delivery]:
    """So many deliveries."""
    found: list[Delivery] = []
    async with asyncio.timeout(seconds):
        while len(found) < number:
            found += await feed.fetch(number - len(found), 0.5)
    return found


async def eventually(true: Callable[[], bool] | Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    """Wait for a condition; fails when it does not come true."""
    async with asyncio.timeout(seconds):
        while True:
            found = true()
            if found is True or (not isinstance(found, bool) and await found):
                return
            await asyncio.sleep(0.005)
