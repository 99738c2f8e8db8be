"""FULCRUM_AUDIT_MAC_KEY is replaced: what was on its way is kept whole, and comes again from the spools."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

import pytest
from processor_doubles import SmallArchive, Turns
from record_taker import Written, open_spool, write_calls
from servers.nats import NatsServer
from stream_rigs import SEAL, eventually, nats_config

from fulcrum_adapters.jetstream import (
    Connection,
    JetStreamAuditFeed,
    JetStreamAuditStream,
    Seal,
    ensure_streams,
    tenant_of,
)
from fulcrum_adapters.signing import AuditKeys
from fulcrum_adapters.spool import FileLeadership, Spool, SpoolReader
from fulcrum_mcp.gateway.courier import Courier, CourierConfig
from fulcrum_mcp.processor.service import EventProcessor

pytestmark = [pytest.mark.anyio, pytest.mark.service, pytest.mark.parts, pytest.mark.timeout(120)]

T = TypeVar("T")
NEW = Seal(b"the key that took the place of the old")
QUICK = CourierConfig(linger=0.005, idle=0.02, resend_after=1.0, tidy_every=0.2, standby=0.05)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Installation:
    """Gateway and processor, each with the key that it is started with."""

    def __init__(self, stack: AsyncExitStack, folder: Path, url: str) -> None:
        self._stack = stack
        self._folder = folder
        self._url = url
        self.archive = SmallArchive()
        self.written = Written()

    def spool(self) -> Spool:
        return open_spool(self._folder / "spool")

    async def _connected(self, make: Callable[[Connection], T]) -> T:
        connection = Connection(nats_config(self._url))
        self._stack.push_async_callback(connection.close)
        made = make(connection)
        connection.start()
        await connection.ready()
        await ensure_streams(connection)
        return made

    async def courier(self, seal: Seal) -> Courier:
        stream = await self._connected(lambda connection: JetStreamAuditStream(connection, seal))
        source = SpoolReader(self._folder / "spool", self._folder / "aside")
        courier = Courier(source, stream, FileLeadership(self._folder / "courier.lock"), QUICK)
        courier.start()
        return courier

    async def processor(self, seal: Seal) -> tuple[EventProcessor, "asyncio.Task[None]"]:
        feed = await self._connected(lambda connection: JetStreamAuditFeed(connection, seal, ack_wait=1.0))
        await feed.prepare()
        keys = AuditKeys(self._folder / "keys")
        made = EventProcessor(feed, self.archive, self.archive, Turns(), keys, tenant_of)
        return made, asyncio.create_task(made.run())

    def whole(self) -> bool:
        return {(ref.chain, ref.seq) for ref in self.written.refs} == set(self.archive.rows)


@pytest.fixture
async def installation(own_nats: NatsServer, tmp_path: Path) -> AsyncIterator[Installation]:
    async with AsyncExitStack() as stack:
        yield Installation(stack, tmp_path, own_nats.url)


async def test_records_under_the_old_key_are_kept_whole_and_sent_again_under_the_new_one(
    installation: Installation,
) -> None:
    with installation.spool() as spool:
        write_calls(spool, installation.written, 30, ["default", "acme"])
        before = await installation.courier(SEAL)
        await eventually(lambda: before.lag().records == len(installation.written.refs))
        await before.close(0.1)  # nobody stores: all of it is in the stream, under the old key
        processor, running = await installation.processor(NEW)
        await eventually(lambda: processor.storer.letters > 0)
        assert installation.archive.rows == {}
        after = await installation.courier(NEW)
        write_calls(spool, installation.written, 5, ["default", "acme"])
        await eventually(installation.whole, 60)
        await eventually(lambda: after.lag().records == 0, 60)
        assert (after.faults, list((installation._folder / "aside").glob("*"))) == ([], [])
        stored = {record.line for record in installation.archive.rows.values()}
        kept = b"".join(letter.body for letter in installation.archive.letters)
        assert sum(line in kept for line in stored) == 120, (
            "what came under the old key is whole among the dead letters"
        )
        await after.close(2.0)
        processor.stop()
        async with asyncio.timeout(20):
            await running


async def test_a_gateway_that_still_has_the_old_key_keeps_its_records_until_it_has_the_new_one(
    installation: Installation,
) -> None:
    processor, running = await installation.processor(NEW)
    with installation.spool() as spool:
        write_calls(spool, installation.written, 20)
        late = await installation.courier(SEAL)
        await eventually(lambda: processor.storer.letters > 0)
        await eventually(lambda: late.resent > 0, 30)
        assert late.lag().records == len(installation.written.refs)
        assert not await late.close(0.1)
        after = await installation.courier(NEW)
        await eventually(installation.whole, 60)
        await eventually(lambda: after.lag().records == 0, 60)
        await after.close(2.0)
    processor.stop()
    async with asyncio.timeout(20):
        await running
