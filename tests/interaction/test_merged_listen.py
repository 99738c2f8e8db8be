"""`subscriptions/listen` on the merged face: one acknowledgement, everybody's notifications, one end."""

import asyncio
from typing import Any

import pytest
from asgi_driver import Stream
from gateway_rig import Rig, open_rig
from live_stream import LiveStream, open_post, until
from scripted_server import ScriptedServer, json_reply, tool

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.gateway import merged_listen
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio

ACK = "notifications/subscriptions/acknowledged"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
CHANGED = {"jsonrpc": "2.0", "method": "notifications/resources/list_changed", "params": {}}


class Listened:
    """A server whose subscriptions/listen is a stream that the test feeds; `asked`: what it was asked for."""

    def __init__(self, name: str, *, refuses: bool = False) -> None:
        self.asked: list[Any] = []
        self.stream = LiveStream()
        self._refuses = refuses
        resources = [{"uri": f"x:{name}"}]
        self.server = ScriptedServer(name, tools=[tool("t")], resources=resources, answer=self._answer)

    def _answer(self, _: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        document = request.document or {}
        if document.get("method") != "subscriptions/listen":
            return None
        self.asked.append(document["params"]["notifications"])
        if self._refuses:
            error = {"code": -32601, "message": "Method not found"}
            return json_reply({"jsonrpc": "2.0", "id": document["id"], "error": error})
        return self.stream.reply

    def acknowledge(self, **granted: Any) -> None:
        params = {"notifications": granted, "_meta": {SUBSCRIPTION: 7}}
        self.stream.push({"jsonrpc": "2.0", "method": ACK, "params": params})


def listen(rig: Rig, **wanted: Any) -> Stream:
    return open_post(rig.client("/mcp"), "subscriptions/listen", {"notifications": wanted})


async def test_one_acknowledgement_says_what_was_granted_anywhere() -> None:
    one, two = Listened("a"), Listened("b")
    async with open_rig(one.server, two.server) as rig:
        wanted = ["x:a", "x:b", "x:nobody"]
        stream = listen(rig, toolsListChanged=True, promptsListChanged=True, resourceSubscriptions=wanted)
        await stream.head()
        assert one.asked == [{"toolsListChanged": True, "resourceSubscriptions": ["x:a"]}]
        assert two.asked == [{"toolsListChanged": True, "resourceSubscriptions": ["x:b"]}]
        one.stream.push(CHANGED)
        one.acknowledge(toolsListChanged=True, resourceSubscriptions=["x:a"])
        for _ in range(30):
            await asyncio.sleep(0)
        assert stream.response.events == []
        two.acknowledge(resourceSubscriptions=["x:b"])
        first = (await stream.next_event()).message
        assert first["method"] == ACK
        assert first["params"] == {
            "notifications": {"toolsListChanged": True, "resourceSubscriptions": ["x:a", "x:b"]},
            "_meta": {SUBSCRIPTION: 7},
        }
        assert (await stream.next_event()).message == CHANGED
        two.acknowledge(resourceSubscriptions=["x:b"])
        two.stream.push({"jsonrpc": "2.0", "id": 7, "result": {}})
        two.stream.end()
        one.stream.push(CHANGED)
        assert (await stream.next_event()).message == CHANGED
        one.stream.end()
        last = (await stream.end()).events[-1].message
        assert (last["id"], last["result"]["_meta"]) == (7, {SUBSCRIPTION: 7})
        assert [event.message.get("method") for event in stream.response.events].count(ACK) == 1


async def test_server_that_never_acknowledges_keeps_nobody_waiting_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged_listen, "_PATIENCE", 0.05)
    one, silent = Listened("a"), Listened("b")
    async with open_rig(one.server, silent.server) as rig:
        stream = listen(rig, toolsListChanged=True)
        await stream.head()
        one.acknowledge(toolsListChanged=True)
        assert (await stream.next_event()).message["params"]["notifications"] == {"toolsListChanged": True}
        one.stream.push(CHANGED)
        assert (await stream.next_event()).message == CHANGED
        silent.stream.push(CHANGED)
        assert (await stream.next_event()).message == CHANGED


async def test_client_that_goes_closes_every_stream_upstream() -> None:
    one, two = Listened("a"), Listened("b")
    async with open_rig(one.server, two.server) as rig:
        stream = listen(rig, toolsListChanged=True)
        await stream.head()
        one.acknowledge(toolsListChanged=True)
        two.acknowledge(toolsListChanged=True)
        await stream.next_event()
        stream.disconnect()
        await asyncio.wait([stream.task], timeout=5)
        for each in (one, two):
            await until(each.stream.reply.closed.is_set, "closed upstream")


async def test_server_that_refuses_is_left_out() -> None:
    one, two = Listened("a"), Listened("b", refuses=True)
    async with open_rig(one.server, two.server) as rig:
        stream = listen(rig, toolsListChanged=True)
        await stream.head()
        one.acknowledge(toolsListChanged=True)
        assert (await stream.next_event()).message["params"]["notifications"] == {"toolsListChanged": True}
        one.stream.end()
        await stream.end()
