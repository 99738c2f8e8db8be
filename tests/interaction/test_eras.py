"""Clients and upstreams of different eras, and upstreams that are late, silent or no MCP servers: a word, no hang."""

import asyncio
import json
from typing import Any

import pytest
from gateway_rig import PRINCIPAL, Rig, open_rig
from scripted_server import HANDSHAKE, MODERN, Answering, ScriptedServer, json_reply, tool

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.gateway import catalog, merged_lists, merged_session
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio


def refusing_initialize(_server: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
    """A server of the modern era only."""
    document = request.document or {}
    if document.get("method") != "initialize":
        return None
    error = {"code": -32022, "message": "Unsupported protocol version", "data": {"supported": [MODERN]}}
    return json_reply({"jsonrpc": "2.0", "id": document["id"], "error": error}, status=400)


async def never(_request: UpstreamRequest) -> MemoryReply:
    await asyncio.Event().wait()
    raise AssertionError


def silent(_server: ScriptedServer, request: UpstreamRequest) -> Any:
    return never(request)


def old(name: str = "old") -> ScriptedServer:
    return ScriptedServer(name, eras=(HANDSHAKE,))


def new(name: str = "new") -> ScriptedServer:
    return ScriptedServer(name, answer=refusing_initialize)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged_lists, "_PATIENCE", 0.1)
    monkeypatch.setattr(merged_lists, "_FAILING", 0.05)
    monkeypatch.setattr(merged_session, "_PATIENCE", 0.1)
    monkeypatch.setattr(merged_session, "_FAILING", 0.05)
    monkeypatch.setattr(catalog, "_CALL_PATIENCE", 0.1)
    monkeypatch.setattr(catalog, "_RETRY_AFTER", 0.0)


def methods(rig: Rig, server: str) -> list[str]:
    return [(request.document or {}).get("method", request.verb) for request in rig.servers[server].requests]


async def tools(rig: Rig, *, modern: bool) -> list[str]:
    client = rig.client("/mcp", modern=modern)
    if not modern:
        assert (await client.connect()).result["serverInfo"]["name"] == "fulcrum"
    return [item["name"] for item in (await client.request("tools/list")).result["tools"]]


async def test_probe_whose_version_is_refused_is_sent_again_in_the_version_that_is_named() -> None:
    asked: list[str] = []

    def refuse_first(_server: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        document = request.document or {}
        asked.append(document["method"])
        if len(asked) > 1:
            return None
        error = {"code": -32022, "message": "no", "data": {"supported": [MODERN], "requested": MODERN}}
        return json_reply({"jsonrpc": "2.0", "id": document["id"], "error": error}, status=400)

    async with open_rig(ScriptedServer("files", answer=refuse_first)) as rig:
        assert rig.hub.exchanges["files"].catalog.modern is True
        assert asked == ["server/discover", "server/discover", "tools/list"]


@pytest.mark.usefixtures("impatient")
async def test_upstream_that_refuses_everything_for_a_while_is_not_taken_for_an_old_one() -> None:
    faults = 4

    def unavailable(_server: ScriptedServer, _request: UpstreamRequest) -> MemoryReply | None:
        nonlocal faults
        faults -= 1
        return json_reply(b"busy", status=503) if faults >= 0 else None

    async with open_rig(ScriptedServer("files", answer=unavailable), warm=False) as rig:
        await rig.hub.exchanges["files"].catalog.refresh()
        assert rig.hub.exchanges["files"].catalog.failure == (
            "upstream files: initialize: answered HTTP 503 instead of a JSON-RPC answer; check its url or command"
        )
        await rig.hub.exchanges["files"].catalog.refresh()
        await rig.hub.exchanges["files"].catalog.refresh()
        assert rig.hub.exchanges["files"].catalog.failure is None
        assert rig.hub.exchanges["files"].catalog.modern is True


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_are_said(status: int) -> None:
    def refuse(_server: ScriptedServer, _request: UpstreamRequest) -> MemoryReply:
        return json_reply(b"", status=status)

    async with open_rig(ScriptedServer("files", answer=refuse), warm=False) as rig:
        await rig.hub.exchanges["files"].catalog.refresh()
        failure = rig.hub.exchanges["files"].catalog.failure
        assert failure is not None
        assert f"HTTP {status}" in failure
        assert "check its headers" in failure


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("modern", [True, False])
async def test_upstream_that_was_down_at_the_start_is_listed_once_it_is_up(modern: bool) -> None:
    down = True

    def maybe(_server: ScriptedServer, _request: UpstreamRequest) -> MemoryReply | None:
        if down:
            raise UpstreamFailed("upstream late: connection refused", sent=False)
        return None

    async with open_rig(ScriptedServer("files"), ScriptedServer("late", answer=maybe), warm=False) as rig:
        assert await tools(rig, modern=modern) == ["files__echo"]
        down = False
        assert await tools(rig, modern=modern) == ["files__echo", "late__echo"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("modern", [True, False])
async def test_silent_upstream_does_not_hold_up_the_others(modern: bool) -> None:
    answering: Answering = silent
    async with open_rig(ScriptedServer("files"), ScriptedServer("mute", answer=answering), warm=False) as rig:
        async with asyncio.timeout(5):
            assert await tools(rig, modern=modern) == ["files__echo"]
            reply = await rig.client("/mcp").request("tools/call", {"name": "mute__echo", "arguments": {}})
        assert reply.result["content"][0]["text"] == (
            "upstream mute: has not answered yet; try again when it has started"
        )


@pytest.mark.usefixtures("impatient")
async def test_discovery_waits_for_the_handshake_where_an_upstream_may_prove_old() -> None:
    async with open_rig(ScriptedServer("files"), ScriptedServer("mute", answer=silent), warm=False) as rig:
        reply = await rig.client("/mcp").request("server/discover")
        assert (reply.status, reply.code) == (404, -32601)
        assert "mute; connect with initialize" in reply.message["error"]["message"]


async def test_discovery_is_refused_at_once_where_an_old_upstream_is_known() -> None:
    async with open_rig(old(), ScriptedServer("mute", answer=silent), warm=False) as rig:
        await rig.hub.exchanges["old"].catalog.refresh()
        async with asyncio.timeout(1):
            reply = await rig.client("/mcp").request("server/discover")
        assert (reply.status, reply.code) == (404, -32601)
        assert methods(rig, "mute") == []


async def test_client_of_both_eras_gets_every_upstream_that_knows_sessions() -> None:
    async with open_rig(new(), old(), ScriptedServer("both")) as rig:
        assert (await rig.client("/mcp").request("server/discover")).code == -32601
        assert await tools(rig, modern=False) == ["old__echo", "both__echo"]
        client = rig.client("/mcp", modern=False)
        hello = await client.connect()
        assert "Not available now: new." in hello.result["instructions"]
        reply = await client.request("tools/call", {"name": "new__echo", "arguments": {}})
        assert reply.status == 200
        assert "server new has no part in this session" in reply.message["error"]["message"]
        assert (await client.request("tools/call", {"name": "old__echo", "arguments": {}})).result


async def test_client_of_the_new_era_gets_every_upstream_that_speaks_it() -> None:
    async with open_rig(new(), old(), ScriptedServer("both")) as rig:
        assert await tools(rig, modern=True) == ["new__echo", "both__echo"]
        reply = await rig.client("/mcp").request("tools/call", {"name": "old__echo", "arguments": {}})
        assert reply.message["error"]["message"] == f"server old does not speak {MODERN}; connect with initialize"
        assert rig.servers["old"].calls == []


async def test_new_client_of_old_upstreams_is_told_to_initialize() -> None:
    async with open_rig(old()) as rig:
        for method in ("server/discover", "tools/list"):
            reply = await rig.client("/mcp").request(method)
            assert (reply.status, reply.code) == (404, -32601)
            assert "old; connect with initialize" in reply.message["error"]["message"]


async def test_old_client_of_new_upstreams_is_told_which_version_it_needs() -> None:
    async with open_rig(new()) as rig:
        client = rig.client("/mcp", modern=False)
        reply = await client.request(
            "initialize",
            {"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
        )
        assert (reply.status, reply.code) == (200, 502001)
        assert f"it speaks {MODERN}" in reply.message["error"]["message"]


async def test_one_servers_face_refuses_the_new_era_for_an_old_server_and_forwards_nothing() -> None:
    async with open_rig(old()) as rig:
        client = rig.client("/servers/old/mcp")
        for method, params in (("tools/list", {}), ("tools/call", {"name": "echo", "arguments": {}})):
            reply = await client.request(method, params)
            assert (reply.status, reply.code) == (400, -32022)
            assert reply.message["error"]["data"]["requested"] == MODERN
            assert HANDSHAKE in reply.message["error"]["data"]["supported"]
        assert methods(rig, "old") == []
        assert (await client.request("server/discover")).code == -32601, "the server's own answer"


async def test_unknown_tool_is_looked_for_in_the_clients_own_session() -> None:
    async with open_rig(old()) as rig:
        client = rig.client("/servers/old/mcp", modern=False)
        await client.connect()
        rig.servers["old"].offers["tools"].append({"name": "grown", "inputSchema": {"type": "object"}})
        rig.forget()
        assert (await client.request("tools/call", {"name": "grown", "arguments": {}})).result["echo"][
            "name"
        ] == "grown"
        asked = rig.servers["old"].requests[0]
        assert json.loads(asked.message)["method"] == "tools/list"
        assert asked.principal == PRINCIPAL
        assert (b"mcp-session-id", b"old-2") in asked.headers


async def test_merged_list_shows_what_each_server_offers_in_the_clients_own_session() -> None:
    def by_session(_server: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        document = request.document or {}
        if document.get("method") not in ("tools/list", "resources/list") or request.principal is None:
            return None
        own = {"tools": [tool("echo"), tool("ask_me")], "resources": [{"uri": "own://x", "name": "x"}]}
        member = document["method"].partition("/")[0]
        return json_reply({"jsonrpc": "2.0", "id": document["id"], "result": {member: own[member]}})

    picky = ScriptedServer("picky", eras=(HANDSHAKE,), resources=[{"uri": "all://x", "name": "x"}], answer=by_session)
    other = ScriptedServer("other", resources=[{"uri": "other://x", "name": "x"}])
    async with open_rig(picky, other) as rig:
        client = rig.client("/mcp", modern=False)
        await client.connect()
        names = [item["name"] for item in (await client.request("tools/list")).result["tools"]]
        assert names == ["picky__echo", "picky__ask_me", "other__echo"]
        assert (await client.request("tools/call", {"name": "picky__ask_me", "arguments": {}})).result
        assert [item["uri"] for item in (await client.request("resources/list")).result["resources"]] == [
            "own://x",
            "other://x",
        ]
        assert (await client.request("resources/read", {"uri": "own://x"})).result["echo"] == {"uri": "own://x"}
        assert [item["name"] for item in rig.hub.exchanges["picky"].catalog.lists["tools"]] == ["echo"], "of all"
