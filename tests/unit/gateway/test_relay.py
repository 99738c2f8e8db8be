"""One stream: what is malformed ends it, what is unknown passes, comments and priming events too."""

import json

import pytest
from gateway_rig import open_rig
from live_stream import LiveStream, answer, open_post
from scripted_server import ScriptedServer

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.core.budget import Budget, Scope
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.ports import ServerSentEvent, UpstreamRequest

pytestmark = pytest.mark.anyio

PATH = "/servers/files/mcp"
ECHO = {"name": "echo", "arguments": {}}
CALLS = Budget("b1", "acme", "calls", Scope("tenant"), {"calls": 100})


class Streaming:
    def __init__(self) -> None:
        self.live = LiveStream()
        self.server = ScriptedServer("files", answer=self._answer)

    def _answer(self, _: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        return self.live.reply if (request.document or {}).get("method") == "tools/call" else None

    def raw(self, event: ServerSentEvent) -> None:
        self.live._queue.put_nowait(event)


@pytest.mark.parametrize("modern", [True, False])
async def test_unknown_messages_pass_in_their_order_and_the_answer_ends_it(modern: bool) -> None:
    streaming = Streaming()
    async with open_rig(streaming.server) as rig:
        client = rig.client(PATH, modern=modern)
        if not modern:
            await client.connect()
        stream = open_post(client, "tools/call", ECHO)
        await stream.head()
        sent = [
            {"jsonrpc": "2.0", "method": "notifications/vendor", "params": {"x": 2**70}, "extra": None},
            {"jsonrpc": "2.0", "id": "s1", "method": "sampling/createMessage", "params": {}},
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 0.5}},
        ]
        for message in sent:
            streaming.live.push(message)
        streaming.live.push(answer(7, unknown={"a": [1, None]}))
        streaming.live.end()
        got = [event.message for event in (await stream.end()).events]
        assert got == [*sent, answer(7, unknown={"a": [1, None]})]


@pytest.mark.parametrize("data", [b"not json", b"[1]", b"7", b'{"id":7,"result":', b"\xff"])
async def test_malformed_message_ends_the_call_with_a_tool_error(data: bytes) -> None:
    streaming = Streaming()
    async with open_rig(streaming.server, budgets=[CALLS]) as rig:
        stream = open_post(rig.client(PATH), "tools/call", ECHO)
        await stream.head()
        streaming.raw(ServerSentEvent(data))
        streaming.live.push(answer(7, late=1))
        reply = await stream.end()
        assert reply.message["id"] == 7
        assert reply.result["isError"] is True
        assert "upstream files: not a JSON-RPC message" in reply.result["content"][0]["text"]
        assert b"late" not in reply.body
        assert streaming.live.reply.closed.is_set()
        await rig.settled()
        assert rig.records("finished")[0]["data"]["outcome"] == "outcome_unknown"
        (usage,) = rig.ledger.usage([CALLS], now_ns())
        assert (usage.committed["calls"], usage.reserved["calls"]) == (1, 0)


async def test_answer_to_another_request_never_reaches_this_client() -> None:
    streaming = Streaming()
    async with open_rig(streaming.server) as rig:
        stream = open_post(rig.client(PATH), "tools/call", ECHO)
        await stream.head()
        for other in (8, "7", 7.0, None, True):
            streaming.live.push(answer(other, secret=1))
        streaming.live.push(answer(7))
        streaming.live.end()
        assert [event.message for event in (await stream.end()).events] == [answer(7)]


async def test_event_names_ids_and_retries_are_kept() -> None:
    streaming = Streaming()
    async with open_rig(streaming.server) as rig:
        stream = open_post(rig.client(PATH), "tools/call", ECHO)
        await stream.head()
        streaming.raw(ServerSentEvent(b"", id="e0", retry=50))
        note = {"jsonrpc": "2.0", "method": "notifications/a"}
        streaming.raw(ServerSentEvent(json.dumps(note).encode(), event="message", id="e1"))
        streaming.live.push(answer(7), "e2")
        streaming.live.end()
        events = (await stream.end()).events
        assert [(event.id, event.retry) for event in events] == [("e0", 50), ("e1", None), ("e2", None)]
