"""Many large messages at once neither hold up the event loop, so that its watchdog ends it, nor other callers."""

import asyncio
import json
import time
from itertools import pairwise
from typing import Any

import pytest
from asgi_driver import Asgi

from fulcrum_adapters.memory.identity import MemoryIdentity
from fulcrum_mcp.api.mcp import endpoint as module
from fulcrum_mcp.api.mcp.endpoint import Bounds, McpEndpoint
from fulcrum_mcp.api.mcp.origin import OriginPolicy
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.gateway.incoming import Answer, Incoming
from fulcrum_mcp.gateway.wire import Message, WireError, parse_message

pytestmark = pytest.mark.anyio

WORK = 0.03
"""Seconds that reading a large message takes here."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Echo:
    async def post(self, incoming: Incoming) -> Answer:
        del incoming
        return Answer(200, b"{}")

    async def get(self, incoming: Incoming) -> Answer:
        del incoming
        return Answer(200)

    async def delete(self, incoming: Incoming) -> Answer:
        del incoming
        return Answer(200)


def _endpoint() -> Asgi:
    people = {name: Principal("t", name, name, scopes=frozenset({"tool:call"})) for name in ("attacker", "other")}
    sessions: Any = None
    return Asgi(
        McpEndpoint(
            {"/mcp": Echo()},
            sessions,
            MemoryIdentity(people),
            OriginPolicy("127.0.0.1"),
            bounds=Bounds(),
            challenge=lambda _: "Bearer",
        )
    )


def _headers(who: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"host", b"127.0.0.1"),
        (b"content-type", b"application/json"),
        (b"authorization", f"Bearer {who}".encode()),
    ]


def _message(who: str, size: int) -> bytes:
    params = {"name": who, "arguments": {"q": "x" * size}}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, float]]:
    """Who wrote each large message that was read, when that began and ended."""
    found: list[tuple[str, float, float]] = []

    def slow(body: bytes, depth: int) -> Message:
        message = parse_message(body, depth)
        if len(body) > 100_000:
            began = time.monotonic()
            while time.monotonic() < began + WORK:
                pass
            found.append((message.params["name"], began, time.monotonic()))
        return message

    monkeypatch.setattr(module, "parse_message", slow)
    return found


async def test_between_two_large_messages_timers_have_their_turn(read: list[tuple[str, float, float]]) -> None:
    app, ticks = _endpoint(), list[float]()

    async def tick() -> None:
        while True:
            await asyncio.sleep(WORK / 10)
            ticks.append(time.monotonic())

    ticking = asyncio.create_task(tick())
    sent = [app.request("POST", "/mcp", _headers("attacker"), _message("attacker", 200_000)) for _ in range(6)]
    replies = await asyncio.gather(*sent)
    ticking.cancel()
    assert [reply.status for reply in replies] == [200] * 6
    assert len(read) == 6
    for (_, _, ended), (_, began, _) in pairwise(read):
        assert any(ended < moment < began for moment in ticks)
    await app.close()


async def test_nobody_waits_for_more_than_one_large_message_of_another(read: list[tuple[str, float, float]]) -> None:
    app = _endpoint()
    flood = [
        asyncio.create_task(app.request("POST", "/mcp", _headers("attacker"), _message("attacker", 200_000)))
        for _ in range(8)
    ]
    async with asyncio.timeout(10):
        while not read:  # noqa: ASYNC110 - it is filled without an event
            await asyncio.sleep(0)
    assert (await app.request("POST", "/mcp", _headers("other"), _message("other", 200_000))).status == 200
    assert [who for who, _, _ in read].index("other") <= 3
    before = len(read)
    assert (await app.request("POST", "/mcp", _headers("other"), _message("other", 10))).status == 200
    assert len(read) <= before + 1
    await asyncio.gather(*flood)
    await app.close()


async def test_large_message_that_is_refused_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(body: bytes, depth: int) -> Message:
        raise WireError(-32700, f"{len(body)} {depth}")

    monkeypatch.setattr(module, "parse_message", refuse)
    app = _endpoint()
    async with asyncio.timeout(10):
        for _ in range(3):
            reply = await app.request("POST", "/mcp", _headers("attacker"), _message("attacker", 200_000))
            assert reply.status == 400
    await app.close()
