"""One suite over every AuditFeed."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from stream_rigs import ADAPTERS, Rig, eventually, fetched, jetstream_rig, open_rig, parcel

from fulcrum_mcp.ports import AuditFeed, StreamLag

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=ADAPTERS)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with open_rig(request, request.param) as made:
        yield made


async def lag_is(feed: AuditFeed, wanted: StreamLag) -> None:
    async def reached() -> bool:
        return await feed.lag() == wanted

    await eventually(reached)


async def test_nothing_new_is_empty_within_the_wait(rig: Rig) -> None:
    feed = await rig.feed()
    begun = asyncio.get_running_loop().time()
    assert list(await feed.fetch(10, 0.2)) == []
    assert asyncio.get_running_loop().time() - begun < 10


async def test_what_comes_while_waiting_is_delivered_at_once(rig: Rig) -> None:
    feed = await rig.feed()
    waiting = asyncio.create_task(feed.fetch(10, 30.0))
    await asyncio.sleep(0.05)
    begun = asyncio.get_running_loop().time()
    await rig.stream.publish([parcel(1)])
    assert len(await waiting) == 1
    assert asyncio.get_running_loop().time() - begun < 15, "it waited to the end"


async def test_lag_counts_what_waits_and_what_is_in_hand(rig: Rig) -> None:
    feed = await rig.feed()
    await rig.stream.publish([parcel(number) for number in range(1, 6)])
    await lag_is(feed, StreamLag(5, 0))
    found = await fetched(feed, 2)
    await lag_is(feed, StreamLag(3, 2))
    for item in found:
        await item.ack()
    await lag_is(feed, StreamLag(3, 0))


async def test_a_delivery_given_back_comes_again_and_says_so(rig: Rig) -> None:
    feed = await rig.feed()
    await rig.stream.publish([parcel(1)])
    (item,) = await fetched(feed, 1)
    assert item.attempts == 1
    await item.again(0.05)
    (again,) = await fetched(feed, 1)
    assert (again.body, again.attempts) == (item.body, 2)
    await again.ack()
    assert list(await feed.fetch(1, 0.3)) == []


async def test_two_processors_share_the_records_between_them(rig: Rig) -> None:
    one, other = await rig.feed(), await rig.feed()
    await rig.stream.publish([parcel(number) for number in range(1, 41)])
    found = [*await fetched(one, 20), *await fetched(other, 20)]
    assert len({item.body for item in found}) == 40
    for item in found:
        await item.ack()
    await lag_is(one, StreamLag(0, 0))


async def test_confirming_nothing_is_nothing(rig: Rig) -> None:
    feed = await rig.feed()
    await feed.confirm({})
    assert dict(await rig.stream.stored()) == {}


@pytest.mark.service
@pytest.mark.parts
async def test_what_a_dead_processor_had_in_hand_comes_to_another(nats_url: str) -> None:
    async with jetstream_rig(nats_url, ack_wait=3.0) as rig:
        dead, other = await rig.feed(), await rig.feed()
        await rig.stream.publish([parcel(1), parcel(2, size=3_000_000)])
        first = await fetched(dead, 2)
        await dead.close()
        again = await fetched(other, 2)
        assert {item.body for item in again} == {item.body for item in first}
        assert {item.attempts for item in again} == {2}
