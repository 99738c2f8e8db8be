"""No client takes the gateway from the others: slow bodies, streams by the hundred, names that nobody lists."""

import asyncio
import time
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from gateway_rig import PRINCIPAL, Rig, open_rig, with_defaults
from live_stream import LiveStream, open_get, open_post
from scripted_server import ScriptedServer
from wire_server import Peer, http_upstream, post, wire_server

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.api.mcp.endpoint import Bounds
from fulcrum_mcp.api.mcp.origin import OriginPolicy
from fulcrum_mcp.core.call import Context
from fulcrum_mcp.gateway.naming import resource_server
from fulcrum_mcp.gateway.seal import Sealer
from fulcrum_mcp.gateway.sessions import Replay, Sessions
from fulcrum_mcp.ports import ServerSentEvent, UpstreamRequest

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b"data: {}\n\n"
META = b'"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}'
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


@pytest.mark.parametrize("modern", [True, False])
async def test_a_listener_that_leaves_early_holds_no_stream_of_any_upstream(modern: bool) -> None:
    live = LiveStream()

    async def never(asked: asyncio.Event) -> MemoryReply:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    def listens(request: UpstreamRequest) -> bool:
        return request.verb == "GET" or (request.document or {}).get("method") == "subscriptions/listen"

    slow_asked = asyncio.Event()
    quick = ScriptedServer("quick", answer=lambda _, request: live.reply if listens(request) else None)
    slow = ScriptedServer("slow", answer=lambda _, request: never(slow_asked) if listens(request) else None)
    async with open_rig(quick, slow) as rig:
        client = rig.client("/mcp", modern=modern)
        if modern:
            stream = open_post(client, "subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        else:
            await client.connect()
            stream = open_get(client)
        async with asyncio.timeout(5):
            await slow_asked.wait()
            stream.disconnect()
            await live.reply.closed.wait()


async def test_names_that_clients_make_up_do_not_fill_the_memory() -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        law = rig.hub.exchanges["files"].gate.governor.law
        snapshot = rig.holder.current
        for number in range(12_000):
            uri = f"{number}-" + "u" * 8000
            await law.named(snapshot, PRINCIPAL, Context(), "files", "resource", uri)
        kept = [key for _, verdicts in law._cache.values() for key in verdicts]
        assert sum(len(key[3]) for key in kept) <= 65_536 * 256
        assert len(kept) <= 8_192


async def test_hosts_too_long_to_be_names_are_refused_and_not_remembered() -> None:
    origins = OriginPolicy("127.0.0.1")
    for number in range(10):
        assert origins.refusal(f"{number}" + "h" * 30_000, None) is not None
        assert origins.refusal("127.0.0.1", f"http://{number}" + "h" * 30_000) is not None
    assert origins._known.cache_info().currsize == 0


@dataclass
class Offering:
    """One server's templates."""

    lists: Mapping[str, Sequence[Mapping[str, Any]]]
    name: str = "files"
    capabilities: Mapping[str, Any] = field(default_factory=dict[str, Any])


@pytest.mark.parametrize(
    "templates", [["{a}" * 100_000], ["{+a}{b}" * 50_000], [f"{{a}}u{{b}}{number}" * 3 for number in range(50_000)]]
)
async def test_templates_of_an_upstream_cost_next_to_nothing(templates: list[str]) -> None:
    offer = Offering({"resourceTemplates": [{"uriTemplate": template} for template in templates]})
    began = time.process_time()
    resource_server([offer], "u" * 8000)
    resource_server([offer], "u" * 2000)
    assert time.process_time() - began < 2


async def test_events_kept_for_clients_that_come_back_have_one_bound_for_all() -> None:
    sessions = Sessions(Sealer([b"k" * 32]))
    data = b"d" * 1_000_000
    kept: list[Replay] = []
    for _ in range(20):
        session = sessions.create(PRINCIPAL, {}, None)
        for number in range(10):
            kept.append(session.record())
            kept[-1].add(ServerSentEvent(data, id=str(number)))
    assert sum(replay.position(str(number % 10)) is not None for number, replay in enumerate(kept)) <= 33
    assert kept[-1].position("9") == 1
    assert sessions.room.size <= 32 * 1024 * 1024


async def test_events_of_an_ended_session_are_forgotten() -> None:
    sessions = Sessions(Sealer([b"k" * 32]))
    session = sessions.create(PRINCIPAL, {}, None)
    for _ in range(40):
        session.record().add(ServerSentEvent(b"d" * 1000, id="1"))
    assert sessions.room.size == 32 * 1200
    sessions.forget(session)
    assert sessions.room.size == 0


async def test_a_header_that_only_a_gateway_interface_takes_for_ours_goes_nowhere() -> None:
    files = ScriptedServer("files")
    async with open_rig(files) as rig:
        client = rig.client("/servers/files/mcp")
        lines = client.headers("ping", {})
        body = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{' + META + b"}}}"
        reply = await rig.post(client.path, body, *lines, ("mcp-session_id", "foreign"), ("mcp-name_", "x"))
        assert reply.status == 200
        assert not [name for name, _ in files.requests[-1].headers if b"_" in name]
