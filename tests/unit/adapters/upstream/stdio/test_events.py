import anyio
import pytest

from fulcrum_adapters.upstream.stdio.events import EventReader, EventStream
from fulcrum_mcp.errors import UpstreamFailed

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def stream(*, keeps: bool = True, limit: int = 1000, lagging: list[EventReader] | None = None) -> EventStream:
    return EventStream(3, keeps=keeps, limit=limit, on_lag=(lagging if lagging is not None else []).append)


async def drain(reader: EventReader) -> list[tuple[bytes, str | None]]:
    with anyio.fail_after(5):
        return [(event.data, event.id) async for event in reader]


async def test_every_reader_sees_every_event_with_the_same_ids() -> None:
    made = stream()
    first, second = made.read(), made.read()
    made.push(b"a")
    made.push(b"b", last=True)
    assert await drain(first) == await drain(second) == [(b"a", "3-1"), (b"b", "3-2")]


async def test_reader_from_a_place_sees_only_what_follows() -> None:
    made = stream()
    for data in (b"a", b"b", b"c"):
        made.push(data)
    made.finish()
    assert await drain(made.read(2)) == [(b"c", "3-3")]


async def test_stream_that_does_not_keep_holds_no_bytes_after_reading() -> None:
    made = stream(keeps=False)
    reader = made.read()
    made.push(b"a")
    made.push(b"b", last=True)
    assert await drain(reader) == [(b"a", None), (b"b", None)]
    assert made.kept == 0


async def test_failure_comes_after_what_was_received_before_it() -> None:
    made = stream()
    reader = made.read()
    made.push(b"a")
    made.finish(UpstreamFailed("gone", sent=True))
    assert (await anext(reader)).data == b"a"
    with pytest.raises(UpstreamFailed, match="gone"):
        await anext(reader)


async def test_reader_waits_for_events_and_ends_when_closed() -> None:
    made = stream()
    reader = made.read()
    seen: list[tuple[bytes, str | None]] = []

    async def consume() -> None:
        seen.extend(await drain(reader))

    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        await anyio.lowlevel.checkpoint()
        made.push(b"a")
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        reader.close()
    assert seen == [(b"a", "3-1")]
    assert made.readers == []


async def test_first_returns_after_its_time_without_an_event() -> None:
    made = stream()
    with anyio.fail_after(5):
        await made.read().first(0.001)
    assert made.end == 0


async def test_reader_that_holds_back_more_than_the_limit_is_named_but_an_answer_always_fits() -> None:
    lagging: list[EventReader] = []
    made = stream(limit=10, lagging=lagging)
    reader = made.read()
    made.push(b"x" * 10)
    assert lagging == []
    made.push(b"y")
    assert lagging == [reader]
    lagging.clear()
    made.push(b"z" * 1000, last=True)
    assert lagging == []
    assert len(await drain(reader)) == 3


async def test_trimming_spares_what_a_reader_needs_and_the_answer() -> None:
    made = stream()
    reader = made.read()
    for data in (b"a", b"b", b"c"):
        made.push(data)
    await anext(reader)
    assert (made.trim(), made.trim()) == (1, 0)
    made.push(b"answer", last=True)
    reader.close()
    while made.trim():
        pass
    assert await drain(made.read()) == [(b"answer", "3-4")]


async def test_lag_counts_bytes_after_trimming_too() -> None:
    made = stream()
    for data in (b"aa", b"bbb", b"cccc"):
        made.push(data)
    assert made.trim() == 2
    late = made.read(0)
    assert (late.place, late.lag) == (1, 7)
    await anext(late)
    assert late.lag == 4
