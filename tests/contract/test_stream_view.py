"""One suite over every StreamView: what is there is seen, all of it, and nothing is taken."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from stream_rigs import ADAPTERS, SEAL, Rig, fetched, nats_config, open_rig, parcel

from fulcrum_adapters.jetstream import Connection, JetStreamView
from fulcrum_adapters.memory.stream import MemoryAuditStream, MemoryStreamView
from fulcrum_mcp.ports import StreamView

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=ADAPTERS)
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Rig, StreamView]]:
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(open_rig(request, request.param))
        view: StreamView
        if isinstance(rig.stream, MemoryAuditStream):
            view = MemoryStreamView(rig.stream._broker)
        else:
            connection = Connection(nats_config(request.getfixturevalue("nats_url")))
            connection.start()
            await connection.ready()
            view = JetStreamView(connection, SEAL)
        stack.push_async_callback(view.close)
        yield rig, view


async def bodies(view: StreamView) -> list[bytes]:
    found = [seen async for seen in view.parcels()]
    assert {seen.fault for seen in found} <= {None}
    return sorted(seen.body for seen in found)


async def test_an_empty_stream_shows_nothing(opened: tuple[Rig, StreamView]) -> None:
    assert await bodies(opened[1]) == []


async def test_everything_is_seen_and_nothing_is_taken(opened: tuple[Rig, StreamView]) -> None:
    rig, view = opened
    sent = [parcel(1, 3), parcel(4), parcel(1, tenant="a b.c"), parcel(5, size=5_000_000)]
    await rig.stream.publish(sent)
    expected = sorted(each.body for each in sent)
    assert await bodies(view) == expected
    assert await bodies(view) == expected
    assert sorted(found.body for found in await fetched(await rig.feed(), 4)) == expected


async def test_what_a_processor_holds_is_seen_and_what_it_has_stored_is_not(opened: tuple[Rig, StreamView]) -> None:
    rig, view = opened
    sent = [parcel(1), parcel(2), parcel(3)]
    await rig.stream.publish(sent)
    held = await fetched(await rig.feed(), 3)
    assert await bodies(view) == sorted(each.body for each in sent)
    stored = next(each for each in held if each.body == sent[1].body)
    await stored.ack()
    while await bodies(view) != sorted([sent[0].body, sent[2].body]):
        assert len(await bodies(view)) == 3
    assert len({seen.subject async for seen in view.parcels()}) == 1
