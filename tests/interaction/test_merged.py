"""All upstreams as one: names, pages, ids of two servers that are equal, resources by URI, one server down."""

import asyncio
import json
from typing import Any

import pytest
from asgi_driver import Exchanged
from gateway_rig import Client, Rig, open_rig, with_defaults
from live_stream import LiveStream, open_get, open_post, until
from scripted_server import HANDSHAKE, MODERN, ScriptedServer, tool

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio


class Streaming:
    """A server that answers GET and these methods on a stream which the test feeds."""

    def __init__(self, name: str, *methods: str, **options: Any) -> None:
        self.posts: list[LiveStream] = []
        self.gets: list[tuple[str | None, LiveStream]] = []
        self._methods = methods
        self.server = ScriptedServer(name, answer=self._answer, **options)

    def _answer(self, _: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        if request.verb == "GET":
            last = dict(request.headers).get(b"last-event-id")
            self.gets.append((None if last is None else last.decode(), LiveStream()))
            return self.gets[-1][1].reply
        if (request.document or {}).get("method") in self._methods:
            self.posts.append(LiveStream())
            return self.posts[-1].reply
        return None


async def connected(rig: Rig) -> Client:
    client = rig.client("/mcp", modern=False)
    assert (await client.connect()).status == 200
    return client


def names(reply: Exchanged, member: str = "tools", key: str = "name") -> list[str]:
    return [item[key] for item in reply.result[member]]


@pytest.mark.parametrize("modern", [True, False])
async def test_names_are_joined_split_and_unknown_ones_forwarded_nowhere(modern: bool) -> None:
    one = ScriptedServer("a", tools=[tool("x__y"), tool("z")], prompts=[{"name": "p"}])
    two = ScriptedServer("b", tools=[tool("z")])
    async with open_rig(one, two) as rig:
        client = await connected(rig) if not modern else rig.client("/mcp")
        assert names(await client.request("tools/list")) == ["a__x__y", "a__z", "b__z"]
        assert names(await client.request("prompts/list"), "prompts") == ["a__p"]
        deep = await client.request("tools/call", {"name": "a__x__y", "arguments": {}})
        assert deep.result["echo"]["name"] == "x__y"
        assert (await client.request("prompts/get", {"name": "a__p"})).result["echo"]["name"] == "p"
        rig.forget()
        for name in ("z", "c__z", "a__", "__z", "a_z", ""):
            assert (await client.request("tools/call", {"name": name, "arguments": {}})).code == -32602
        denied = await client.request("tools/call", {"name": "b__p", "arguments": {}})
        assert denied.result["isError"] is True
        assert one.calls == two.calls == []
        sent = [request for request in one.requests if (request.document or {}).get("method") == "tools/call"]
        assert sent == []


async def test_header_names_the_upstreams_own_tool() -> None:
    server = ScriptedServer("a", tools=[tool("wörk")])
    async with open_rig(server) as rig:
        await rig.client("/mcp").request("tools/call", {"name": "a__wörk", "arguments": {}})
        assert dict(server.requests[-1].headers)[b"mcp-name"] == b"=?base64?d8O2cms=?="


@pytest.mark.parametrize("modern", [True, False])
async def test_long_list_comes_in_pages_and_foreign_cursors_are_refused(modern: bool) -> None:
    one = ScriptedServer("a", tools=[tool(f"t{number}") for number in range(700)])
    two = ScriptedServer("b", tools=[tool(f"t{number}") for number in range(400)])
    async with open_rig(one, two) as rig:
        client = await connected(rig) if not modern else rig.client("/mcp")
        seen: list[str] = []
        cursor: dict[str, Any] = {}
        for _ in range(10):
            page = await client.request("tools/list", cursor)
            seen += names(page)
            assert len(page.result["tools"]) <= 500
            if "nextCursor" not in page.result:
                break
            cursor = {"cursor": page.result["nextCursor"]}
        assert len(seen) == len(set(seen)) == 1100
        strange: tuple[Any, ...] = ("x", "", 7, {}, "eDox", "ZjotMQ==")
        for bad in strange:
            assert (await client.request("tools/list", {"cursor": bad})).code == -32602, bad


async def test_merged_lists_are_private_and_never_kept() -> None:
    async with open_rig(ScriptedServer("a")) as rig:
        result = (await rig.client("/mcp").request("tools/list")).result
        assert (result["cacheScope"], result["ttlMs"], result["resultType"]) == ("private", 0, "complete")


async def test_malformed_entries_of_one_server_spoil_no_list() -> None:
    bad: list[Any] = [{"uri": 7}, {"name": "no uri"}, {"uriTemplate": "x:{a}"}]
    one = ScriptedServer("a", tools=[{"name": 7}, tool("ok")], resources=[*bad, {"uri": "x:1"}])
    one.offers["resourceTemplates"] = [{"uri": "x:2"}, {"uriTemplate": "y:{a}"}, {"uriTemplate": ["z"]}]
    async with open_rig(one, ScriptedServer("b")) as rig:
        client = rig.client("/mcp")
        assert names(await client.request("tools/list")) == ["a__ok", "b__echo"]
        assert names(await client.request("resources/list"), "resources", "uri") == ["x:1"]
        listed = await client.request("resources/templates/list")
        assert names(listed, "resourceTemplates", "uriTemplate") == ["y:{a}"]


async def test_resources_are_routed_by_uri_and_ambiguous_ones_by_server() -> None:
    one = ScriptedServer("a", resources=[{"uri": "file:///both"}, {"uri": "file:///a"}])
    two = ScriptedServer("b", resources=[{"uri": "file:///both"}], templates=[{"uriTemplate": "db://{table}/row"}])
    async with open_rig(one, two) as rig:
        client = await connected(rig)
        listed = names(await client.request("resources/list"), "resources", "uri")
        assert listed == ["a+file:///both", "file:///a", "b+file:///both"]
        rig.forget()
        for uri, server, own in (
            ("file:///a", one, "file:///a"),
            ("b+file:///both", two, "file:///both"),
            ("a+file:///both", one, "file:///both"),
            ("db://users/row", two, "db://users/row"),
        ):
            reply = await client.request("resources/read", {"uri": uri})
            assert reply.result["echo"]["uri"] == own, uri
            assert server.calls[-1]["params"]["uri"] == own
        before = (len(one.calls), len(two.calls))
        for unclear in ("file:///both", "c+file:///a", 7):
            assert (await client.request("resources/read", {"uri": unclear})).code == -32002
        assert (len(one.calls), len(two.calls)) == before
        assert (await rig.client("/mcp").request("resources/read", {"uri": "file:///both"})).code == -32602


async def test_completions_go_where_the_prompt_or_resource_lives() -> None:
    one = ScriptedServer("a", prompts=[{"name": "p"}])
    two = ScriptedServer("b", templates=[{"uriTemplate": "db://{table}"}])
    async with open_rig(one, two) as rig:
        client = rig.client("/mcp")
        argument = {"argument": {"name": "x", "value": "y"}}
        asked = {"ref": {"type": "ref/prompt", "name": "a__p"}, **argument}
        assert (await client.request("completion/complete", asked)).result["echo"]["ref"]["name"] == "p"
        asked = {"ref": {"type": "ref/resource", "uri": "db://{table}"}, **argument}
        assert (await client.request("completion/complete", asked)).result["echo"]["ref"]["uri"] == "db://{table}"
        assert len(one.calls) == len(two.calls) == 1
        for ref in ({"type": "ref/prompt", "name": "p"}, {}, 7, {"type": "ref/prompt", "name": "c__p"}):
            assert (await client.request("completion/complete", {"ref": ref})).code == -32602


async def test_requests_of_two_servers_with_equal_ids_and_event_ids_are_kept_apart() -> None:
    one, two = Streaming("a", "tools/call"), Streaming("b", "tools/call")
    async with open_rig(one.server, two.server) as rig:
        client = await connected(rig)
        streams = [
            open_post(client, "tools/call", {"name": f"{name}__echo", "arguments": {}}, request_id=number)
            for number, name in enumerate("ab")
        ]
        ids = []
        for stream, upstream in zip(streams, (one, two), strict=True):
            await stream.head()
            upstream.posts[0].push({"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": {}}, "e1")
            event = await stream.next_event()
            ids.append((event.id, event.message["id"]))
        assert ids == [("a:e1", "a:1"), ("b:e1", "b:1")]
        rig.forget()
        await client.send({"jsonrpc": "2.0", "id": "b:1", "result": {"action": "accept"}})
        assert json.loads(two.server.received[-1]) == {"jsonrpc": "2.0", "id": 1, "result": {"action": "accept"}}
        assert one.server.received == []
        two.posts[0].push({"jsonrpc": "2.0", "id": "x", "method": "ping"}, "e2")
        event = await streams[1].next_event()
        await client.send({"jsonrpc": "2.0", "id": event.message["id"], "result": {}})
        assert json.loads(two.server.received[-1])["id"] == "x"
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
        two.posts[0].push(cancelled)
        assert (await streams[1].next_event()).message["params"]["requestId"] == "b:1"
        for foreign in (1, "1", "c:1", "b:", "b:{"):
            assert (await client.send({"jsonrpc": "2.0", "id": foreign, "result": {}})).status == 202
        assert len(two.server.received) == 2
        assert one.server.received == []
        for number, upstream in enumerate((one, two)):
            upstream.posts[0].push({"jsonrpc": "2.0", "id": number, "result": {"content": []}})
            upstream.posts[0].end()
            await streams[number].end()


async def test_one_get_stream_carries_all_servers_and_resumes_at_the_right_one() -> None:
    one, two = Streaming("a"), Streaming("b")
    async with open_rig(one.server, two.server) as rig:
        client = await connected(rig)
        stream = open_get(client)
        await stream.head()
        note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "hi"}}
        one.gets[0][1].push(note, "e1")
        assert (await stream.next_event()).id == "a:e1"
        two.gets[0][1].push(note, "e1")
        assert (await stream.next_event()).id == "b:e1"
        one.gets[0][1].end()
        two.gets[0][1].push(note, "e2")
        assert (await stream.next_event()).id == "b:e2"
        stream.disconnect()
        await asyncio.wait([stream.task], timeout=5)
        await until(two.gets[0][1].reply.closed.is_set, "closed")
        resumed = open_get(client, "b:e1")
        await resumed.head()
        assert [last for last, _ in two.gets] == [None, "e1"]
        assert len(one.gets) == 1
        two.gets[1][1].push(note, "e2")
        assert (await resumed.next_event()).id == "b:e2"
        two.gets[1][1].end()
        await resumed.end()
        assert (await open_get(client, "nobody").end()).status == 400
        assert (await open_get(client, "c:e1").end()).status == 400


class Down(ScriptedServer):
    """Cannot be reached until `up`."""

    up = False

    async def send(self, request: UpstreamRequest) -> MemoryReply:
        if not self.up:
            raise UpstreamFailed(f"upstream {self.name}: connection refused", sent=False)
        return await super().send(request)


async def test_server_that_is_down_is_named_and_the_others_work() -> None:
    down, works = Down("a"), ScriptedServer("b")
    async with open_rig(down, works, warm=False) as rig:
        client = rig.client("/mcp", modern=False)
        hello = await client.connect()
        assert "Not available now: a" in hello.result["instructions"]
        assert names(await client.request("tools/list")) == ["b__echo"]
        assert "echo" in (await client.request("tools/call", {"name": "b__echo", "arguments": {}})).result
        missing = await client.request("tools/call", {"name": "a__echo", "arguments": {}})
        assert "initialize anew" in missing.message["error"]["message"]
        down.up = True
        rig.hub.exchanges["a"].catalog._fresh_until = 0.0
        later = rig.client("/mcp", modern=False)
        assert "Not available" not in (await later.connect()).result["instructions"]
        assert names(await later.request("tools/list")) == ["a__echo", "b__echo"]


async def test_nobody_there_is_said_with_each_servers_reason() -> None:
    async with open_rig(Down("a"), Down("b"), warm=False) as rig:
        reply = await rig.client("/mcp", modern=False).request(
            "initialize",
            {"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
        )
        text = reply.message["error"]["message"]
        assert "upstream a: connection refused" in text
        assert "upstream b: connection refused" in text


async def test_delete_ends_the_session_everywhere() -> None:
    one, two = ScriptedServer("a"), ScriptedServer("b")
    async with open_rig(one, two) as rig:
        client = await connected(rig)
        ended = await rig.app.request("DELETE", "/mcp", with_defaults(client.headers("", {})))
        assert ended.status == 200
        for server in (one, two):
            deletes = [request for request in server.requests if request.verb == "DELETE"]
            assert [dict(each.headers)[b"mcp-session-id"].decode() for each in deletes] == [f"{server.name}-1"]


async def test_discover_is_offered_only_where_all_speak_it() -> None:
    async with open_rig(ScriptedServer("a"), ScriptedServer("b", eras=(MODERN,))) as rig:
        result = (await rig.client("/mcp").request("server/discover")).result
        assert result["supportedVersions"] == [MODERN]
    async with open_rig(ScriptedServer("a"), ScriptedServer("b", eras=(HANDSHAKE,))) as rig:
        reply = await rig.client("/mcp").request("server/discover")
        assert (reply.status, reply.code) == (404, -32601)
        assert "is not spoken (yet) by b" in reply.message["error"]["message"]


async def test_list_changed_is_seen_by_the_next_list() -> None:
    one = Streaming("a")
    async with open_rig(one.server, ScriptedServer("b")) as rig:
        client = await connected(rig)
        stream = open_get(client)
        await stream.head()
        one.server.offers["tools"] = [tool("new")]
        one.gets[0][1].push({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        await stream.next_event()
        assert names(await client.request("tools/list")) == ["a__new", "b__echo"]
        gone = await client.request("tools/call", {"name": "a__echo", "arguments": {}})
        assert gone.result["isError"] is True


async def test_change_that_is_announced_while_the_lists_are_read_is_not_missed() -> None:
    gate = asyncio.Event()
    asked: list[str] = []
    one = Streaming("a")

    def slow(server: ScriptedServer, request: UpstreamRequest) -> Any:
        if gate.is_set() or (request.document or {}).get("method") != "tools/list":
            return one._answer(server, request)
        asked.append("tools/list")
        return later(server.usual(request))

    async def later(reply: MemoryReply) -> MemoryReply:
        await gate.wait()
        return reply

    async with open_rig(one.server) as rig:
        client = await connected(rig)
        stream = open_get(client)
        await stream.head()
        changed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        one.server.answer = slow
        one.server.offers["tools"] = [tool("old")]
        one.gets[0][1].push(changed)
        await stream.next_event()
        await until(lambda: asked, "the lists are being read")
        one.server.offers["tools"] = [tool("new")]
        one.gets[0][1].push(changed)
        await stream.next_event()
        listing = asyncio.ensure_future(rig.client("/mcp").request("tools/list"))
        gate.set()
        assert names(await listing) == ["a__new"]
