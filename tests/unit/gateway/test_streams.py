"""Several streams as one: all of it, in the order of each, closed whatever happens."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from fulcrum_mcp.gateway.incoming import Answer
from fulcrum_mcp.gateway.streams import closing, collect, merge
from fulcrum_mcp.ports import ServerSentEvent

pytestmark = pytest.mark.anyio


class Source:
    """An answer of `count` events (endless if None); `closed` counts."""

    def __init__(self, name: str, count: int | None) -> None:
        self.name = name
        self.count = count
        self.closed = 0
        self.answer = Answer(200, events=self._events(), close=self._close)

    async def _events(self) -> AsyncIterator[ServerSentEvent]:
        number = 0
        while self.count is None or number < self.count:
            yield ServerSentEvent(f"{self.name}{number}".encode())
            number += 1
            await asyncio.sleep(0)

    async def _close(self) -> None:
        self.closed += 1


async def test_everything_comes_in_each_streams_own_order() -> None:
    sources = [Source("a", 600), Source("b", 3), Source("c", 0)]
    async with asyncio.timeout(5):
        seen = [event.data.decode() async for event in merge([source.answer for source in sources])]
    for source in sources:
        assert [text for text in seen if text[0] == source.name] == [
            f"{source.name}{n}" for n in range(source.count or 0)
        ]
    assert [source.closed for source in sources] == [1, 1, 1]


async def test_reader_that_goes_while_much_is_waiting_closes_all() -> None:
    sources = [Source("a", None), Source("b", None), Source("c", 300)]
    merged = merge([source.answer for source in sources])
    async with asyncio.timeout(5):
        await anext(merged)
        for _ in range(700):
            await asyncio.sleep(0)
        await merged.aclose()
    assert [source.closed for source in sources] == [1, 1, 1]


async def test_stream_that_fails_ends_alone() -> None:
    async def broken() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(b"x")
        raise RuntimeError("a bug")

    other = Source("b", 5)
    async with asyncio.timeout(5):
        seen = [event.data async for event in merge([Answer(200, events=broken()), other.answer])]
    assert len(seen) == 6


async def test_collect_finds_the_one_response_and_closes() -> None:
    async def events() -> AsyncIterator[ServerSentEvent]:
        for message in ({"method": "note"}, {"id": 1, "result": {"a": 1}}):
            yield ServerSentEvent(json.dumps(message).encode())
        yield ServerSentEvent(b"")
        yield ServerSentEvent(b"not json")

    source = Source("a", 0)
    assert await collect(Answer(200, events=events(), close=source._close)) == {"id": 1, "result": {"a": 1}}
    assert source.closed == 1
    assert await collect(Answer(200, b'{"id":1,"error":{"code":1}}')) == {"id": 1, "error": {"code": 1}}
    for text in (b"", b"[]", b"{}", b"x"):
        assert await collect(Answer(200, text)) is None
    await closing([Answer(200), source.answer])()
    assert source.closed == 2
