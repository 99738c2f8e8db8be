"""While the store of keys hangs, only so many wait, and none of them for long."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from live_stream import until
from structlog.testing import capture_logs

from fulcrum_adapters.identity.lookup import KeyLookup
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import ApiKey

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Store:
    def __init__(self) -> None:
        self.gate = threading.Event()
        self.asked: list[str] = []

    def get(self, key_id: str) -> ApiKey | None:
        self.asked.append(key_id)
        assert self.gate.wait(10)
        return None


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.gate.set()


async def test_more_than_so_many_are_refused_at_once_and_counted(store: Store) -> None:
    lookup = KeyLookup(store.get, most=20)
    waiting = [asyncio.create_task(lookup(f"k{number}")) for number in range(20)]
    await until(lambda: len(store.asked) == 8, "the store is asked")
    assert lookup.waiting == 20
    for _ in range(3):
        with pytest.raises(Unavailable, match="too many keys") as refused:
            await lookup("one more")
        assert refused.value.busy
    assert (lookup.waiting, lookup.refused) == (20, 3)
    store.gate.set()
    assert await asyncio.gather(*waiting) == [None] * 20
    assert await lookup("and now") is None
    assert (lookup.waiting, lookup.refused) == (0, 3)
    assert "one more" not in store.asked
    lookup.close()


async def test_nobody_waits_for_long_and_who_has_given_up_is_not_asked_for(store: Store) -> None:
    lookup = KeyLookup(store.get, patience=0.05)
    answers = await asyncio.gather(*(lookup(f"k{number}") for number in range(30)), return_exceptions=True)
    assert all(isinstance(answer, Unavailable) and "does not answer" in str(answer) for answer in answers)
    assert (lookup.waiting, lookup.refused) == (0, 30)
    store.gate.set()
    assert await lookup("late") is None
    assert store.asked == [*(f"k{number}" for number in range(8)), "late"]
    lookup.close()


async def test_a_client_that_goes_gives_its_place_back(store: Store) -> None:
    lookup = KeyLookup(store.get, most=1)
    gone = asyncio.create_task(lookup("k"))
    await until(lambda: store.asked, "the store is asked")
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    store.gate.set()
    assert await lookup("another") is None
    lookup.close()


async def test_what_waits_at_the_end_is_given_up(store: Store) -> None:
    lookup = KeyLookup(store.get)
    waiting = [asyncio.create_task(lookup(f"k{number}")) for number in range(10)]
    await until(lambda: len(store.asked) == 8, "the store is asked")
    lookup.close()
    lookup.close()
    store.gate.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert answers[:8] == [None] * 8
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[8:])


async def test_who_is_not_known_is_not_told_where_the_store_is_and_the_log_says_it_once() -> None:
    fault = "postgres db.inside:5432/fulcrum_metrics: refused"
    faults = [fault, fault]

    def get(_: str) -> ApiKey | None:
        if faults:
            raise Unavailable(faults.pop())
        return None

    lookup = KeyLookup(get)
    with capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(Unavailable) as refused:
                await lookup("k")
            assert str(refused.value).startswith("the store of keys does not answer (")
        assert [each["reason"] for each in logs] == [fault]
        assert await lookup("k") is None
        faults.append(fault)
        with pytest.raises(Unavailable, match="store of keys"):
            await lookup("k")
        assert [each["reason"] for each in logs] == [fault, fault], "it had answered in between"
    lookup.close()
