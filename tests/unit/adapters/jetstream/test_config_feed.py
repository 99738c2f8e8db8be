"""News of configuration over a server that goes and comes."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from servers.nats import NatsServer
from stream_rigs import nats_config

from fulcrum_adapters.jetstream import Connection, JetStreamConfigFeed
from fulcrum_mcp.errors import Unavailable

pytestmark = [pytest.mark.anyio, pytest.mark.service, pytest.mark.parts]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def feed(server: NatsServer) -> tuple[Connection, JetStreamConfigFeed]:
    connection = Connection(nats_config(server.url, 1.0))
    made = JetStreamConfigFeed(connection)
    connection.start()
    await connection.ready()
    return connection, made


async def announced(made: JetStreamConfigFeed, revision: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await made.announce(revision, "")
            except Unavailable:
                await asyncio.sleep(0.05)
            else:
                return


async def heard(watching: AsyncIterator[int], wanted: int) -> None:
    async with asyncio.timeout(10):
        while await anext(watching) != wanted:
            pass


@pytest.mark.parametrize("empty", [False, True])
async def test_a_watch_outlives_the_server(own_nats: NatsServer, empty: bool) -> None:
    _, one = await feed(own_nats)
    _, other = await feed(own_nats)
    watching = other.watch()
    await announced(one, 1)
    await heard(watching, 1)
    await asyncio.to_thread(own_nats.restart, empty=empty, kill=True)
    await announced(one, 2)
    await heard(watching, 2)
    await one.close()
    await other.close()


async def test_what_was_announced_while_a_replica_was_away_is_heard_when_it_is_back(own_nats: NatsServer) -> None:
    connection, away = await feed(own_nats)
    _, one = await feed(own_nats)
    watching = away.watch()
    await announced(one, 1)
    await heard(watching, 1)
    client = connection.client
    connection.on_up.insert(0, lambda _client: announced(one, 2))  # before it listens again
    await client.close()
    await heard(watching, 2)
    await one.close()
    await away.close()


async def test_announcing_to_nobody_says_so(own_nats: NatsServer) -> None:
    connection = Connection(nats_config(own_nats.url))
    made = JetStreamConfigFeed(connection)
    with pytest.raises(Unavailable, match="not connected"):
        await made.announce(1, "")


async def test_a_bucket_that_is_not_there_yet_holds_up_no_news(own_nats: NatsServer) -> None:
    """Others listen, so no answer comes that nobody does; and none that it is kept."""
    connection = Connection(nats_config(own_nats.url, 8.0))
    made = JetStreamConfigFeed(connection)
    connection.start()
    await connection.ready()
    _, other = await feed(own_nats)
    watching = other.watch()
    async with asyncio.timeout(4):
        await made.announce(1, "")
    await heard(watching, 1)
    await made.close()
    await other.close()
