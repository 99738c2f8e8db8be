"""The stdio face: whatever comes in a line, the session goes on; nothing but messages goes out."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from gateway_rig import PRINCIPAL, Rig, open_rig
from kill_switches import switch
from live_stream import LiveStream, answer, until
from scripted_server import HANDSHAKE, MODERN, ScriptedServer

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.api.mcp import stdio
from fulcrum_mcp.api.mcp.stdio import StdioFace
from fulcrum_mcp.core.budget import Budget, Scope
from fulcrum_mcp.core.switch import KillSwitch
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.single import SingleFace
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio

CALLS = Budget("b1", "acme", "calls", Scope("tenant"), {"calls": 100})
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
HELLO = {"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
LIMIT = 64 * 1024


class Piped:
    """A client on the other side of the pipes."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.reader = asyncio.StreamReader(limit=LIMIT)
        self.lines: list[Any] = []
        face = SingleFace(rig.hub.exchanges["files"], rig.hub.sessions)
        self.serving = asyncio.ensure_future(StdioFace(face, PRINCIPAL, self.reader, self._write).serve())

    def _write(self, line: bytes) -> None:
        assert b"\n" not in line
        self.lines.append(json.loads(line))

    def feed(self, line: bytes) -> None:
        self.reader.feed_data(line)

    def send(self, method: str, params: Any = None, **members: Any) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params or {}, **members}
        self.feed(json.dumps(message).encode() + b"\n")

    def call(self, request_id: Any = 1, *, modern: bool = True, **arguments: Any) -> None:
        meta = {"_meta": META} if modern else {}
        self.send("tools/call", {"name": "echo", "arguments": arguments, **meta}, id=request_id)

    async def got(self, count: int) -> list[Any]:
        await until(lambda: len(self.lines) >= count, f"{count} lines")
        assert len(self.lines) == count
        return self.lines

    async def end(self) -> None:
        self.reader.feed_eof()
        async with asyncio.timeout(10):
            await self.serving

    async def ended(self, *outcomes: str) -> None:
        def recorded() -> list[str]:
            return [record["data"]["outcome"] for record in self.rig.records("finished")]

        await until(lambda: len(recorded()) >= len(outcomes), "recorded")
        assert recorded() == list(outcomes)
        usage = self.rig.ledger.usage([CALLS], now_ns())
        assert usage[0].reserved == {"calls": 0}


class Slow:
    """Answers tools/call when `gate` opens; `cancelled` counts."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.cancelled = 0
        self.server = ScriptedServer("files", answer=self._answer)

    def _answer(self, _: ScriptedServer, request: UpstreamRequest) -> Any:
        return self._later(request) if (request.document or {}).get("method") == "tools/call" else None

    async def _later(self, request: UpstreamRequest) -> MemoryReply:
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.server.usual(request)


@asynccontextmanager
async def piped(server: ScriptedServer | None = None) -> AsyncIterator[Piped]:
    async with open_rig(server or ScriptedServer("files"), budgets=[CALLS]) as rig:
        client = Piped(rig)
        yield client
        if not client.serving.done():
            await client.end()


async def test_modern_calls_need_no_handshake_and_are_governed() -> None:
    async with piped() as client:
        client.call(1, a=1)
        assert (await client.got(1))[0]["result"]["echo"]["arguments"] == {"a": 1}
        await client.end()
        await client.ended("ok")
        assert client.rig.records("decided")[0]["data"]["context"]["protocol"] == MODERN
        assert client.rig.forwarded_blindly == 0


async def test_session_of_an_older_client_is_kept_for_it() -> None:
    async with piped() as client:
        client.send("initialize", HELLO, id=1)
        client.send("notifications/initialized")
        client.call(2, modern=False)
        lines = await client.got(2)
        assert lines[0]["result"]["protocolVersion"] == HANDSHAKE
        assert lines[1]["id"] == 2
        sent = client.rig.servers["files"].requests[-1]
        assert dict(sent.headers)[b"mcp-session-id"] == b"files-1"
        await client.ended("ok")


@pytest.mark.parametrize("thrown", [switch(), switch("key", "k1"), switch("server", "files")])
async def test_stopped_client_of_either_era_gets_nothing_through_and_its_stream_is_closed(thrown: KillSwitch) -> None:
    stream = LiveStream()
    server = ScriptedServer("files", answer=lambda _, request: stream.reply if request.verb == "GET" else None)
    async with piped(server) as client:
        client.send("initialize", HELLO, id=1)
        client.send("notifications/initialized")
        await until(lambda: any(request.verb == "GET" for request in server.requests), "it listens")
        client.rig.forget()
        client.rig.throw(thrown)
        async with asyncio.timeout(1):
            await stream.reply.closed.wait()
        client.send("completion/complete", {"argument": {"name": "a", "value": "LEAK"}}, id=2)
        client.send("ping", {"_meta": META}, id=3)
        client.send("notifications/LEAK")
        lines = await client.got(3)
        assert [line["error"]["code"] for line in sorted(lines[1:], key=lambda line: line["id"])] == [403001, 403001]
        await client.end()
        assert server.requests == []


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"garbage", -32700),
        (b"\xff\xfe", -32700),
        (b"[]", -32600),
        (b"7", -32600),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":[1],"method":"ping"}', -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"dev.fulcrum/envelope":7}}}', -32602),
        (b"x" * (3 * LIMIT), -32600),
    ],
)
async def test_bad_line_is_answered_and_the_next_one_served(line: bytes, code: int) -> None:
    async with piped() as client:
        client.feed(line + b"\n\n   \r\n")
        client.call(5)
        lines = await client.got(2)
        assert lines[0]["error"]["code"] == code
        assert lines[1]["result"]["echo"]["name"] == "echo"


async def test_line_too_long_that_comes_in_pieces_is_thrown_away_whole() -> None:
    async with piped() as client:
        for _ in range(40):
            client.feed(b"y" * 5000)
            await asyncio.sleep(0)
        client.feed(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        client.call(2)
        lines = await client.got(2)
        assert [line.get("id") for line in lines] == [None, 2]


async def test_large_line_within_the_limit_passes() -> None:
    async with piped() as client:
        client.call(1, text="x" * (LIMIT - 1000))
        assert len((await client.got(1))[0]["result"]["echo"]["arguments"]["text"]) == LIMIT - 1000


@pytest.mark.parametrize("request_id", [{}, [1], None, True, 7.5])
async def test_cancelling_nonsense_harms_nothing(request_id: Any) -> None:
    async with piped() as client:
        client.call(1)
        client.send("notifications/cancelled", {"requestId": request_id, "_meta": META})
        client.call(2)
        assert {line["id"] for line in await client.got(2)} == {1, 2}


async def test_equal_ids_under_way_are_refused_and_free_again_afterwards() -> None:
    slow = Slow()
    async with piped(slow.server) as client:
        client.call(1)
        client.call(1)
        lines = await client.got(1)
        assert lines[0]["error"]["code"] == -32600
        client.call("1")
        slow.gate.set()
        assert sorted(str(line["id"]) for line in await client.got(3)) == ["1", "1", "1"]
        client.call(1)
        assert "result" in (await client.got(4))[3]


async def test_modern_cancel_stops_the_call_upstream_and_is_never_answered() -> None:
    slow = Slow()
    async with piped(slow.server) as client:
        client.call(1)
        await until(lambda: slow.server.calls, "forwarded")
        client.send("notifications/cancelled", {"requestId": 1})
        await client.ended("cancelled")
        assert slow.cancelled == 1
        assert client.lines == []
        slow.gate.set()
        client.call(1)
        assert len(await client.got(1)) == 1


async def test_older_cancel_goes_upstream_and_the_call_goes_on() -> None:
    slow = Slow()
    async with piped(slow.server) as client:
        client.send("initialize", HELLO, id=0)
        client.call(1, modern=False)
        await until(lambda: slow.server.calls, "forwarded")
        client.send("notifications/cancelled", {"requestId": 1})
        await until(lambda: len(slow.server.calls) == 2, "passed")
        assert slow.cancelled == 0
        slow.gate.set()
        await client.ended("ok")


async def test_end_of_input_lets_calls_under_way_finish() -> None:
    slow = Slow()
    async with piped(slow.server) as client:
        client.call(1)
        await until(lambda: slow.server.calls, "forwarded")
        client.reader.feed_eof()
        slow.gate.set()
        await client.serving
        assert client.lines[0]["id"] == 1
        await client.ended("ok")


async def test_end_of_input_ends_what_does_not_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio, "_LAST_WORDS", 0.05)
    slow = Slow()
    async with piped(slow.server) as client:
        client.call(1)
        await until(lambda: slow.server.calls, "forwarded")
        await client.end()
        assert slow.cancelled == 1
        await client.ended("cancelled")


async def test_last_line_needs_no_line_break() -> None:
    async with piped() as client:
        client.feed(json.dumps({"jsonrpc": "2.0", "id": 9, "method": "ping", "params": {"_meta": META}}).encode())
        await client.end()
        assert client.lines[0]["id"] == 9


async def test_streamed_answer_and_what_the_server_says_beside_it_come_as_lines() -> None:
    live, beside = LiveStream(), LiveStream()

    def streamed(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        if request.verb == "GET":
            return beside.reply
        return live.reply if (request.document or {}).get("method") == "tools/call" else None

    async with piped(ScriptedServer("files", answer=streamed)) as client:
        client.send("initialize", HELLO, id=0)
        client.send("notifications/initialized")
        client.call(1, modern=False)
        note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x"}}
        beside.push(note)
        assert (await client.got(2))[1] == note
        live.push(None, "e0")
        live.push(answer(1))
        live.end()
        assert (await client.got(3))[2]["id"] == 1
        client.feed(b'{"jsonrpc":"2.0","id":4,"result":{}}\n')
        await client.end()
        assert beside.reply.closed.is_set()
        await client.ended("ok")


async def test_envelope_is_known_and_stripped() -> None:
    async with piped() as client:
        meta = {**META, "dev.fulcrum/envelope": "e1"}
        client.send("tools/call", {"name": "echo", "arguments": {}, "_meta": meta}, id=1)
        echoed = (await client.got(1))[0]["result"]["echo"]
        assert echoed["_meta"] == META
        assert client.rig.records("decided")[0]["data"]["context"]["envelope"] == "e1"
