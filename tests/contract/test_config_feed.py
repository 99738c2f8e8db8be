"""One suite over every ConfigFeed."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from stalls import Stalls
from stream_rigs import ADAPTERS, Rig, open_rig

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=ADAPTERS)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with open_rig(request, request.param) as made:
        yield made


async def heard(feed: AsyncIterator[int], seconds: float = 60.0) -> int:
    async with asyncio.timeout(seconds):
        return await anext(feed)


async def test_every_replica_hears_a_change(rig: Rig) -> None:
    replicas = [(await rig.config_feed()).watch() for _ in range(3)]
    await (await rig.config_feed()).announce(7, "abc")
    assert [await heard(replica) for replica in replicas] == [7, 7, 7]


async def test_a_replica_that_comes_later_hears_the_present_revision_first(rig: Rig) -> None:
    await (await rig.config_feed()).announce(3, "a")
    await (await rig.config_feed()).announce(4, "b")
    late = (await rig.config_feed()).watch()
    assert await heard(late) == 4


async def test_a_change_is_heard_in_less_than_a_second(rig: Rig, tmp_path: Path) -> None:
    announcer = await rig.config_feed()
    replica = (await rig.config_feed()).watch()
    await announcer.announce(1, "")
    assert await heard(replica) == 1
    with Stalls(lambda: [os.getpid()], tmp_path) as stalls:
        for revision in range(2, 12):
            await announcer.announce(revision, "")
            began = time.monotonic()
            assert await heard(replica) == revision
            assert stalls.own(began, time.monotonic()) < 1


async def test_closing_ends_the_watch(rig: Rig) -> None:
    feed = await rig.config_feed()
    watching = asyncio.ensure_future(anext(feed.watch(), None))
    await asyncio.sleep(0.05)
    await feed.close()
    async with asyncio.timeout(20):
        assert await watching is None
