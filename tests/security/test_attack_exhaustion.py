"""No client takes the gateway from the others: slow bodies, streams by the hundred, names that nobody lists."""

import asyncio
from collections.abc import MutableMapping
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from gateway_rig import Rig, open_rig, with_defaults
from live_stream import LiveStream, open_get
from scripted_server import ScriptedServer
from wire_server import Peer, http_upstream, post, wire_server

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.api.mcp.endpoint import Bounds
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b"data: {}\n\n"
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


async def half_a_post(rig: Rig, begun: asyncio.Semaphore) -> None:
    """A client that sends the head of a message and no end of it."""

    async def receive() -> MutableMapping[str, Any]:
        begun.release()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(_: MutableMapping[str, Any]) -> None:
        begun.release()

    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": with_defaults(()), "client": None}
    await rig.endpoint(scope, receive, send)


async def test_bodies_that_do_not_come_take_the_places_of_their_key_only() -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        begun = asyncio.Semaphore(0)
        most = Bounds().in_flight_per_key
        slow = [asyncio.create_task(half_a_post(rig, begun)) for _ in range(most)]
        with anyio.fail_after(10):
            for _ in slow:
                await begun.acquire()
        reply = await rig.client("/servers/files/mcp").request("ping")
        assert reply.status == 429
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert (await rig.client("/servers/files/mcp").request("ping")).status == 200


async def test_streams_that_a_key_listens_on_have_a_bound_and_leave_room_for_calls() -> None:
    live: list[LiveStream] = []

    def answer(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        if request.verb != "GET":
            return None
        live.append(LiveStream())
        return live[-1].reply

    async with open_rig(ScriptedServer("files", answer=answer)) as rig:
        client = rig.client("/servers/files/mcp", modern=False)
        await client.connect()
        most = Bounds().streams_per_key
        streams = [open_get(client) for _ in range(most)]
        with anyio.fail_after(10):
            for stream in streams:
                assert (await stream.head()).status == 200
        refused = await open_get(client).end()
        assert refused.status == 429
        assert len(live) == most
        assert (await client.request("tools/call", {"name": "echo", "arguments": {}})).status == 200


async def test_streams_somebody_listens_on_take_no_place_from_calls_at_an_upstream() -> None:
    async def script(peer: Peer) -> None:
        while True:
            if (await peer.request()).startswith(b"GET"):
                await peer.send(HEAD + b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
                await peer.left()
            else:
                await peer.send(REPLY)

    async with wire_server(script) as server, http_upstream(server.port, max_connections=1) as upstream:
        async with AsyncExitStack() as stack:
            for _ in range(5):
                listening = await upstream.send(UpstreamRequest("GET", [], b""))
                stack.push_async_callback(listening.close)
                assert listening.streams
            with anyio.fail_after(5):
                for _ in range(3):
                    reply = await upstream.send(post())
                    assert await reply.read() == b"{}"
        await server.until(lambda: server.gone >= 5)
        assert await (await upstream.send(post())).read() == b"{}"
