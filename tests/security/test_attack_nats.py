"""An attacker who may publish to NATS: nothing stops, nothing is lost, nothing false is believed unsaid."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from servers.nats import NatsServer
from stream_rigs import nats_config

from fulcrum_adapters.jetstream import Connection, JetStreamAuditFeed, JetStreamConfigFeed
from fulcrum_adapters.jetstream.pieces import HEADER
from fulcrum_adapters.jetstream.streams import ensure_streams
from fulcrum_adapters.jetstream.subjects import CONFIG

pytestmark = [pytest.mark.anyio, pytest.mark.service, pytest.mark.parts]

DEEP = b"[" * 200_000
REVISIONS = [
    DEEP,
    b'{"revision":' + DEEP,
    b'{"revision":' + b"9" * 4000 + b"}",
    b'{"revision":99999999999999999999}',
    b'{"revision":-5}',
    b'{"revision":true}',
    b'{"revision":"7"}',
    b'{"revision":1e999}',
    b"\xff\xfe",
    b"",
]
PIECES = [
    DEEP,
    b'{"parcel":"a","pieces":true,"sha256":""}',
    b'{"parcel":"a","pieces":3,"sha256":' + DEEP,
    b'{"parcel":"a","pieces":9e99}',
    b'{"parcel":"a.*","pieces":1}',
    json.dumps({"parcel": "a" * 100_000, "pieces": 3}).encode(),
    b"null",
    b"[1]",
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def attacker(own_nats: NatsServer) -> AsyncIterator[Connection]:
    connection = Connection(nats_config(own_nats.url, 5.0), "attacker")
    connection.start()
    await connection.ready()
    await ensure_streams(connection)
    yield connection
    await connection.close()


@pytest.mark.parametrize("forged", REVISIONS, ids=range(len(REVISIONS)))
async def test_a_forged_revision_neither_counts_nor_keeps_a_replica_from_nats(
    own_nats: NatsServer, attacker: Connection, forged: bytes
) -> None:
    acknowledged = await attacker.client.request(CONFIG, forged)
    assert b"error" not in acknowledged.data
    connection = Connection(nats_config(own_nats.url, 5.0))
    feed = JetStreamConfigFeed(connection)
    connection.start()
    await connection.ready()  # it reads the key before it counts as connected
    watching = feed.watch()
    first = asyncio.ensure_future(anext(watching))
    await feed.announce(8, "")
    async with asyncio.timeout(10):
        assert await first == 8
    await feed.close()


async def test_a_message_that_speaks_of_no_parcel_holds_up_no_other(own_nats: NatsServer, attacker: Connection) -> None:
    connection = Connection(nats_config(own_nats.url, 5.0))
    feed = JetStreamAuditFeed(connection)
    connection.start()
    await connection.ready()
    await feed.prepare()
    for forged in PIECES:
        await attacker.client.publish("fulcrum.audit.t", forged, headers={HEADER: "3"})
    await attacker.client.publish("fulcrum.audit.t", b"good")
    await attacker.client.flush()
    bodies: list[bytes] = []
    async with asyncio.timeout(20):
        while len(bodies) < len(PIECES) + 1:
            for delivery in await feed.fetch(64, 1.0):
                bodies.append(delivery.body)
                await delivery.ack()
    assert bodies == [*PIECES, b"good"]
    async with asyncio.timeout(10):
        while await feed.lag() != (0, 0):
            assert not await feed.fetch(64, 0.05)
    await feed.close()
