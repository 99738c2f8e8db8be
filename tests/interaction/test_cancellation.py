"""Who may cancel: a client of 2026-07-28 by going, an older one by saying so; and what upstream sees of it."""

import asyncio
from typing import Any

import pytest
from asgi_driver import Stream
from gateway_rig import Client, Rig, open_rig
from live_stream import LiveStream, answer, open_get, open_post, until
from scripted_server import ScriptedServer

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.core.budget import Budget, Scope
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio

PATH = "/servers/files/mcp"
ECHO = {"name": "echo", "arguments": {}}
CALLS = Budget("b1", "acme", "calls", Scope("tenant"), {"calls": 100})


class Slow:
    """A server that answers tools/call on a stream, or (with `body`) with one body when `gate` opens."""

    def __init__(self, *, body: bool = False) -> None:
        self.stream = LiveStream()
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.cancelled: list[object] = []
        self._body = body
        self.server = ScriptedServer("files", answer=self._answer)

    def _answer(self, _: ScriptedServer, request: UpstreamRequest) -> Any:
        if (request.document or {}).get("method") != "tools/call":
            return None
        if self._body:
            return self._later(request)
        self.entered.set()
        return self.stream.reply

    async def _later(self, request: UpstreamRequest) -> MemoryReply:
        self.entered.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append((request.document or {})["id"])
            raise
        return self.server.usual(request)


def outcomes(rig: Rig) -> list[str]:
    return [record["data"]["outcome"] for record in rig.records("finished")]


def balance(rig: Rig) -> tuple[int, int]:
    usage = rig.ledger.usage([CALLS], now_ns())
    return (usage[0].committed["calls"], usage[0].reserved["calls"]) if usage else (0, 0)


async def gone(stream: Stream) -> None:
    stream.disconnect()
    done, _ = await asyncio.wait([stream.task], timeout=5)
    assert done


async def test_modern_client_that_closes_its_stream_cancels_upstream() -> None:
    slow = Slow()
    async with open_rig(slow.server, budgets=[CALLS]) as rig:
        stream = open_post(rig.client(PATH), "tools/call", ECHO)
        await stream.head()
        assert not slow.stream.reply.closed.is_set()
        await gone(stream)
        assert slow.stream.reply.closed.is_set()
        await rig.settled()
        assert outcomes(rig) == ["cancelled"]
        assert balance(rig) == (1, 0)


async def test_modern_client_that_goes_before_any_answer_cancels_upstream() -> None:
    slow = Slow(body=True)
    async with open_rig(slow.server, budgets=[CALLS]) as rig:
        stream = open_post(rig.client(PATH), "tools/call", ECHO)
        await slow.entered.wait()
        await gone(stream)
        assert slow.cancelled
        await rig.settled()
        assert outcomes(rig) == ["cancelled"]
        assert balance(rig) == (1, 0)


async def test_older_client_that_goes_cancels_nothing() -> None:
    slow = Slow(body=True)
    async with open_rig(slow.server, budgets=[CALLS]) as rig:
        client = rig.client(PATH, modern=False)
        await client.connect()
        stream = open_post(client, "tools/call", ECHO, request_id=1)
        newer = open_post(rig.client(PATH), "tools/call", ECHO, request_id=2)
        await until(lambda: len(slow.server.calls) == 2, "both are under way")
        stream.disconnect()
        await gone(newer)
        await asyncio.sleep(0)
        assert slow.cancelled == [2], "the newer one's going was noticed, and only that cancels"
        slow.gate.set()
        assert (await stream.end()).result["echo"]["name"] == "echo"
        await rig.settled()
        assert outcomes(rig) == ["cancelled", "ok"]
        assert balance(rig) == (2, 0)


@pytest.mark.parametrize("path", [PATH, "/mcp"])
async def test_older_client_cancels_by_saying_so(path: str) -> None:
    slow = Slow()
    async with open_rig(slow.server, budgets=[CALLS]) as rig:
        client = rig.client(path, modern=False)
        await client.connect()
        name = "echo" if path == PATH else "files__echo"
        stream = open_post(client, "tools/call", {"name": name, "arguments": {}})
        await stream.head()
        slow.stream.push(None, "e0")
        assert (await client.notify("notifications/cancelled", {"requestId": 7, "reason": "enough"})).status == 202
        said = [message for message in slow.server.calls if message["method"] == "notifications/cancelled"]
        assert said[0]["params"] == {"requestId": 7, "reason": "enough"}
        slow.stream.end()
        await stream.end()
        await rig.settled()
        assert outcomes(rig) == ["cancelled"]
        assert balance(rig) == (1, 0)


async def test_call_that_was_cancelled_too_late_is_ok() -> None:
    slow = Slow()
    async with open_rig(slow.server, budgets=[CALLS]) as rig:
        client = rig.client(PATH, modern=False)
        await client.connect()
        stream = open_post(client, "tools/call", ECHO)
        await stream.head()
        await client.notify("notifications/cancelled", {"requestId": 7})
        slow.stream.push(answer(7))
        slow.stream.end()
        assert (await stream.end()).result == {"content": []}
        await rig.settled()
        assert outcomes(rig) == ["ok"]


@pytest.mark.parametrize("request_id", [{}, [1], None, True, 7.0, "7", 8])
async def test_cancelling_what_is_not_there_passes_and_changes_nothing(request_id: Any) -> None:
    slow = Slow()
    async with open_rig(slow.server, budgets=[CALLS]) as rig:
        client = rig.client(PATH, modern=False)
        await client.connect()
        stream = open_post(client, "tools/call", ECHO)
        await stream.head()
        assert (await client.notify("notifications/cancelled", {"requestId": request_id})).status == 202
        slow.stream.end()
        await stream.end()
        await rig.settled()
        assert outcomes(rig) == ["outcome_unknown"]


async def test_listening_client_that_goes_closes_the_stream_upstream() -> None:
    live = LiveStream()

    def listened(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        return live.reply if request.verb == "GET" else None

    async with open_rig(ScriptedServer("files", answer=listened)) as rig:
        client: Client = rig.client(PATH, modern=False)
        await client.connect()
        stream = open_get(client)
        live.push({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}})
        assert (await stream.next_event()).message["method"] == "notifications/message"
        await gone(stream)
        await until(live.reply.closed.is_set, "closed upstream")


class Stuck(MemoryReply):
    """A stream whose closing takes for ever."""

    async def close(self) -> None:
        self.closed.set()
        await asyncio.Event().wait()


async def test_stream_whose_closing_is_interrupted_is_still_settled() -> None:
    slow = Slow()
    reply = slow.stream.reply = Stuck(200, slow.stream.reply.headers, stream=slow.stream.reply.stream)
    async with open_rig(slow.server, budgets=[CALLS]) as rig:
        stream = open_post(rig.client(PATH), "tools/call", ECHO)
        await stream.head()
        stream.task.cancel()
        await reply.closed.wait()
        stream.task.cancel()
        await asyncio.wait([stream.task], timeout=5)
        await rig.settled()
        assert outcomes(rig) == ["cancelled"]
        assert balance(rig) == (1, 0)
