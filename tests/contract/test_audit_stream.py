"""One suite over every AuditStream."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from stream_rigs import ADAPTERS, Rig, eventually, fetched, open_rig, parcel

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=ADAPTERS)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with open_rig(request, request.param) as made:
        yield made


async def test_what_was_published_is_delivered_verbatim(rig: Rig) -> None:
    sent = [parcel(1, 3), parcel(4), parcel(1, tenant="other")]
    await rig.stream.publish(sent)
    found = await fetched(await rig.feed(), 3)
    assert sorted(item.body for item in found) == sorted(item.body for item in sent)
    assert {item.fault for item in found} == {None}


async def test_a_parcel_published_twice_arrives_once_and_another_attempt_once_more(rig: Rig) -> None:
    for item in (parcel(1), parcel(1), parcel(1, attempt=1), parcel(1, attempt=1)):
        await rig.stream.publish([item])
    feed = await rig.feed()
    assert len(await fetched(feed, 2)) == 2
    assert list(await feed.fetch(1, 0.2)) == []


async def test_publishing_nothing_is_nothing(rig: Rig) -> None:
    await rig.stream.publish([])
    assert await rig.stream.oldest() is None


async def test_a_parcel_of_five_megabytes_arrives_whole(rig: Rig) -> None:
    large = parcel(1, size=5_000_000)
    await rig.stream.publish([parcel(7, tenant="other"), large])
    found = await fetched(await rig.feed(), 2)
    assert large.body in [item.body for item in found]
    assert {item.fault for item in found} == {None}


@pytest.mark.parametrize("tenant", ["a.b", "*", ">", "with space", "Zoë", "", "a\nb", "=41", "A" * 200])
async def test_any_tenant_s_records_and_confirmations_travel(rig: Rig, tenant: str) -> None:
    item = parcel(1, tenant=tenant)
    await rig.stream.publish([item])
    feed = await rig.feed()
    assert [each.body for each in await fetched(feed, 1)] == [item.body]
    await feed.confirm({item.chain: 1})
    assert dict(await rig.stream.stored()) == {item.chain: 1}


async def test_what_was_stored_is_told_and_asked_for_again(rig: Rig) -> None:
    told: dict[str, int] = {}
    rig.stream.watch(lambda chain, seq: told.update({chain: seq}))
    feed = await rig.feed()
    assert dict(await rig.stream.stored()) == {}
    await feed.confirm({"w1.acme": 4, "w2.acme": 9})
    await feed.confirm({"w1.acme": 5})
    await eventually(lambda: told == {"w1.acme": 5, "w2.acme": 9})
    assert dict(await rig.stream.stored()) == {"w1.acme": 5, "w2.acme": 9}


async def test_the_oldest_parcel_that_nobody_stored_says_how_long_it_waits(rig: Rig) -> None:
    feed = await rig.feed()
    began = asyncio.get_running_loop().time()
    await rig.stream.publish([parcel(1)])
    await asyncio.sleep(0.3)
    await rig.stream.publish([parcel(2)])
    first, second = await fetched(feed, 2)
    age = await rig.stream.oldest()
    assert age is not None
    assert 0.25 < age < asyncio.get_running_loop().time() - began + 0.1
    await first.ack()

    async def younger() -> bool:
        now = await rig.stream.oldest()
        return now is not None and now < age

    await eventually(younger)
    await second.ack()

    async def nothing() -> bool:
        return await rig.stream.oldest() is None

    await eventually(nothing)


async def test_many_parcels_at_a_time_are_all_acknowledged(rig: Rig) -> None:
    await rig.stream.publish([parcel(number, size=100) for number in range(1, 501)])
    feed = await rig.feed()
    found = await fetched(feed, 500)
    assert len({item.body for item in found}) == 500


async def test_closing_twice_is_nothing(rig: Rig) -> None:
    await rig.stream.close()
    await rig.stream.close()
