"""Spool to stream while NATS is killed, paused, emptied, its stream deleted, its files damaged: nothing is lost."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from record_taker import Taker, Written, faults_of, open_spool, write_calls
from servers.nats import NatsServer
from stream_rigs import SEAL, eventually, fetched, jetstream_rig, nats_config, parcel

from fulcrum_adapters.jetstream import Connection, JetStreamAuditFeed, JetStreamAuditStream, ensure_streams
from fulcrum_adapters.spool import FileLeadership, Spool, SpoolReader
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.courier import Courier, CourierConfig

pytestmark = [pytest.mark.anyio, pytest.mark.service, pytest.mark.parts]

QUICK = CourierConfig(linger=0.005, idle=0.02, resend_after=1.0, tidy_every=0.2, standby=0.05)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Host:
    root: Path
    nats: NatsServer
    spool: Spool
    written: Written
    connections: list[Connection]

    async def connected(self) -> Connection:
        connection = Connection(nats_config(self.nats.url, 1.0))
        self.connections.append(connection)
        return connection

    async def courier(self, config: CourierConfig = QUICK) -> Courier:
        connection = await self.connected()
        stream = JetStreamAuditStream(connection, SEAL)
        connection.start()
        await connection.ready()
        await ensure_streams(connection)
        courier = Courier(
            SpoolReader(self.root / "spool", self.root / "aside"),
            stream,
            FileLeadership(self.root / "courier.lock"),
            config,
        )
        courier.start()
        return courier

    async def taker(self) -> Taker:
        connection = await self.connected()
        feed = JetStreamAuditFeed(connection, SEAL, ack_wait=1.0)
        connection.start()
        await connection.ready()
        await feed.prepare()
        return Taker(feed)


@pytest.fixture
async def host(own_nats: NatsServer, tmp_path: Path) -> AsyncIterator[Host]:
    connections: list[Connection] = []
    with open_spool(tmp_path / "spool") as spool:
        yield Host(tmp_path, own_nats, spool, Written(), connections)
    for connection in connections:
        await connection.close()


async def work(host: Host, number: int = 10) -> None:
    """Calls in several group commits, some of them while whatever was done to NATS has its effect."""
    for _ in range(number):
        write_calls(host.spool, host.written, 5, ["default", "other"])
        await asyncio.sleep(0.01)


async def all_arrives(host: Host, courier: Courier, taker: Taker, seconds: float = 60.0) -> None:
    await taker.until(host.written, seconds)

    async def confirmed() -> bool:
        try:
            await taker.step()
            await taker.confirm_again()
        except Unavailable:
            return False
        return courier.lag().records == 0

    await eventually(confirmed, seconds)
    assert faults_of(host.written, taker) == []
    assert courier.faults == []


async def killed(nats: NatsServer) -> None:
    await asyncio.to_thread(nats.restart, kill=True)


async def stopped_for_a_while(nats: NatsServer) -> None:
    await asyncio.to_thread(nats.stop)
    await asyncio.sleep(1.0)
    await asyncio.to_thread(nats.start)


async def paused(nats: NatsServer) -> None:
    nats.pause()
    await asyncio.sleep(3.0)
    nats.resume()


async def emptied(nats: NatsServer) -> None:
    await asyncio.to_thread(nats.restart, empty=True)


async def stream_deleted(nats: NatsServer) -> None:
    connection = Connection(nats_config(nats.url))
    connection.start()
    await connection.ready()
    for name in ("FULCRUM_AUDIT", "FULCRUM_STORED"):
        await connection.api(f"STREAM.DELETE.{name}")
    await connection.close()


async def consumer_deleted(nats: NatsServer) -> None:
    connection = Connection(nats_config(nats.url))
    connection.start()
    await connection.ready()
    await connection.api("CONSUMER.DELETE.FULCRUM_AUDIT.processors")
    await connection.close()


@pytest.mark.parametrize("harm", [killed, stopped_for_a_while, paused, emptied, stream_deleted, consumer_deleted])
@pytest.mark.parametrize("taken", [True, False], ids=["while-taken", "while-it-waits"])
async def test_every_record_arrives_once_whatever_happens_to_nats(
    host: Host, harm: Callable[[NatsServer], Awaitable[None]], taken: bool
) -> None:
    courier, taker = await host.courier(), await host.taker()
    await work(host)
    if taken:
        await taker.step()
    writing = asyncio.create_task(work(host, 60))
    await harm(host.nats)
    await writing
    await work(host)
    await all_arrives(host, courier, taker)
    await courier.close(1.0)


def _more_than(courier: Courier, records: int) -> bool:
    return courier.lag().records > records


def damage(nats: NatsServer) -> None:
    """Flip one bit in the middle of the stream's first file."""
    (block, *_) = sorted(nats.data.rglob("streams/FULCRUM_AUDIT/msgs/*.blk"))
    raw = bytearray(block.read_bytes())
    raw[len(raw) // 2] ^= 4
    block.write_bytes(raw)


async def damaged(host: Host, config: CourierConfig) -> tuple[Courier, Taker]:
    """Acknowledged records lie in the stream when a bit of it changes."""
    courier, taker = await host.courier(config), await host.taker()
    for _ in range(20):
        before = courier.lag().records
        write_calls(host.spool, host.written, 5, ["default", "other"])
        await eventually(partial(_more_than, courier, before))
    await asyncio.to_thread(host.nats.kill)
    damage(host.nats)
    await asyncio.to_thread(host.nats.start)
    await work(host)
    return courier, taker


async def test_records_that_damage_has_taken_from_the_stream_are_sent_again(host: Host) -> None:
    courier, taker = await damaged(host, QUICK)
    await all_arrives(host, courier, taker)
    assert courier.resent > 0
    await courier.close(1.0)


async def test_the_checker_catches_what_damage_takes_when_nothing_is_sent_again(host: Host) -> None:
    courier, taker = await damaged(host, replace(QUICK, resend_after=3600.0))
    with pytest.raises(TimeoutError):
        await taker.until(host.written, 5.0)
    assert any("is missing" in fault for fault in faults_of(host.written, taker))
    assert courier.lag().records > 0
    await courier.close(1.0)


async def test_what_a_killed_server_keeps_though_it_was_acknowledged_is_not_on_its_way(own_nats: NatsServer) -> None:
    """Its messages and what is known of their consumer are files of their own: the first may be the older ones."""
    async with jetstream_rig(own_nats.url) as rig:
        feed = await rig.feed()
        await rig.stream.publish([parcel(1)])
        (first,) = await fetched(feed, 1)
        await asyncio.to_thread(own_nats.kill)
        (messages,) = own_nats.data.rglob("streams/FULCRUM_AUDIT/msgs")
        kept = messages.with_name("kept")
        shutil.copytree(messages, kept)
        await asyncio.to_thread(own_nats.start)
    async with jetstream_rig(own_nats.url, ack_wait=1.0) as rig:
        feed = await rig.feed()
        (first,) = await fetched(feed, 1)
        await first.ack()

        async def nothing() -> bool:
            return await rig.stream.oldest() is None

        await eventually(nothing)
        await asyncio.to_thread(own_nats.stop)
        shutil.rmtree(messages)
        kept.rename(messages)
        await asyncio.to_thread(own_nats.start)
    async with jetstream_rig(own_nats.url) as rig:
        connection = Connection(nats_config(own_nats.url))
        connection.start()
        await connection.ready()
        assert (await connection.api("STREAM.INFO.FULCRUM_AUDIT"))["state"]["messages"] == 1, "it is kept"
        await connection.close()
        assert await rig.stream.oldest() is None
        await rig.stream.publish([parcel(2)])
        age = await rig.stream.oldest()
        assert age is not None
        assert age < 1.0
