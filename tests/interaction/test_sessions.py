"""Sessions of the handshake era: bound to their principal; a lost stream is resumed; one charge, one `finished`."""

import asyncio
from typing import Any

import pytest
from gateway_rig import KEY, PRINCIPAL, Client, Rig, open_rig, with_defaults
from live_stream import LiveStream, answer, open_get, open_post, until
from scripted_server import ScriptedServer, json_reply, tool

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.core.budget import Budget, Scope
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.gateway import hub
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio

BOB = Principal("acme", "bob", "k2", ("dev",), frozenset({"tool:call"}))
CALLS = Budget("b1", "acme", "calls", Scope("tenant"), {"calls": 100})
PATHS = ("/servers/files/mcp", "/mcp")
NO_BOB = """package fulcrum.policies.no_bob

import rego.v1

allow if input.tool.name != "secret"

allow if input.tool.name == "secret"

deny contains "not for you" if {
	input.phase == "list"
	input.tool.name == "secret"
}
"""


class Polled:
    """A server that answers tools/call on streams which a test feeds; `streams` in the order they were opened."""

    def __init__(self) -> None:
        self.streams: list[LiveStream] = []
        self.gets: list[str | None] = []
        self.server = ScriptedServer("files", tools=[tool("echo"), tool("secret")], answer=self._answer)

    def _answer(self, _: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        method = (request.document or {}).get("method")
        if request.verb == "GET":
            headers = dict(request.headers)
            last = headers.get(b"last-event-id")
            self.gets.append(None if last is None else last.decode())
        elif method not in ("tools/call", "custom/list"):
            return None
        self.streams.append(LiveStream())
        return self.streams[-1].reply


async def connected(rig: Rig, path: str, key: str = KEY) -> Client:
    client = rig.client(path, modern=False, key=key)
    assert (await client.connect()).status == 200
    assert client.session is not None
    return client


def call(client: Client, request_id: object = 7) -> Any:
    name = "echo" if client.path != "/mcp" else "files__echo"
    return open_post(client, "tools/call", {"name": name, "arguments": {}}, request_id=request_id)


def finished(rig: Rig) -> list[str]:
    return [record["data"]["outcome"] for record in rig.records("finished")]


def charged(rig: Rig) -> tuple[int, int]:
    usage = rig.ledger.usage([CALLS], now_ns())
    return (usage[0].committed["calls"], usage[0].reserved["calls"]) if usage else (0, 0)


def shown(client: Client, event_id: str) -> str:
    return event_id if client.path != "/mcp" else f"files:{event_id}"


@pytest.mark.parametrize("path", PATHS)
async def test_clients_going_does_not_cancel_and_it_resumes_from_the_gateways_buffer(path: str) -> None:
    polled = Polled()
    async with open_rig(polled.server, budgets=[CALLS]) as rig:
        client = await connected(rig, path)
        stream = call(client)
        await stream.head()
        upstream = polled.streams[0]
        upstream.push(None, "e0")
        progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
        upstream.push(progress, "e1")
        assert (await stream.next_event()).id == shown(client, "e0")
        stream.disconnect()
        assert (await stream.next_event()).message == progress
        resumed = open_get(client, shown(client, "e0"))
        assert (await resumed.next_event()).message == progress
        upstream.push(answer(7, note="late"), "e2")
        upstream.end()
        last = await resumed.next_event()
        assert (last.id, last.message["result"]["note"]) == (shown(client, "e2"), "late")
        await resumed.end()
        await stream.end()
        again = open_get(client, shown(client, "e1"))
        assert [event.id for event in (await again.end()).events] == [shown(client, "e2")]
        await rig.settled()
        assert polled.gets == []
        assert finished(rig) == ["ok"]
        assert charged(rig) == (1, 0)
        assert len(rig.records("decided")) == 1


@pytest.mark.parametrize("path", PATHS)
async def test_stream_that_the_server_closed_is_resumed_through_the_upstream(path: str) -> None:
    polled = Polled()
    async with open_rig(polled.server, budgets=[CALLS]) as rig:
        client = await connected(rig, path)
        stream = call(client)
        await stream.head()
        polled.streams[0].push(None, "e0")
        polled.streams[0].end()
        first = await stream.end()
        assert [event.data for event in first.events] == [""]
        await rig.settled()
        assert finished(rig) == []
        assert charged(rig) == (0, 1)
        resumed = open_get(client, shown(client, "e0"))
        await resumed.head()
        assert polled.gets == ["e0"]
        polled.streams[1].push(answer(7), "e1")
        polled.streams[1].end()
        assert (await resumed.end()).events[-1].message["id"] == 7
        await rig.settled()
        assert finished(rig) == ["ok"]
        assert charged(rig) == (1, 0)


async def test_answer_that_the_client_missed_on_a_resumed_stream_can_be_had_again() -> None:
    polled = Polled()
    async with open_rig(polled.server, budgets=[CALLS]) as rig:
        client = await connected(rig, PATHS[0])
        stream = call(client)
        await stream.head()
        polled.streams[0].push(None, "e0")
        polled.streams[0].end()
        await stream.end()
        lost = open_get(client, "e0")
        await lost.head()
        polled.streams[1].push(answer(7, note="once"), "e1")
        await lost.next_event()
        lost.disconnect()
        await asyncio.gather(lost.task, return_exceptions=True)
        again = open_get(client, "e0")
        await again.head()
        polled.streams[-1].push(answer(7, note="once"), "e1")
        polled.streams[-1].end()
        assert [event.message["result"]["note"] for event in (await again.end()).events] == ["once"]
        await rig.settled()
        assert finished(rig) == ["ok"]
        assert charged(rig) == (1, 0)


async def test_request_whose_answer_never_comes_is_settled_as_unknown_after_a_while() -> None:
    polled = Polled()
    async with open_rig(polled.server, budgets=[CALLS]) as rig:
        client = await connected(rig, PATHS[0])
        for request_id in (7, 8):
            stream = call(client, request_id)
            await stream.head()
            polled.streams[-1].push(None, f"e{request_id}")
            polled.streams[-1].fail(UpstreamFailed("upstream files: broke off", sent=True))
            await stream.end()
        await client.notify("notifications/cancelled", {"requestId": 8})
        now = asyncio.get_running_loop().time()
        rig.hub.sweep(now + hub.LOST_AFTER - 5)
        await rig.settled()
        assert finished(rig) == []
        rig.hub.sweep(now + hub.LOST_AFTER + 5)
        rig.hub.sweep(now + 2 * hub.LOST_AFTER)
        await rig.settled()
        assert finished(rig) == ["outcome_unknown", "cancelled"]
        assert charged(rig) == (2, 0)


async def test_stream_without_event_ids_that_ends_early_is_answered_at_once() -> None:
    polled = Polled()
    async with open_rig(polled.server, budgets=[CALLS]) as rig:
        client = await connected(rig, PATHS[0])
        stream = call(client)
        await stream.head()
        polled.streams[0].end()
        text = (await stream.end()).message["result"]["content"][0]["text"]
        assert text == "upstream files: ended the stream without an answer"
        await rig.settled()
        assert finished(rig) == ["outcome_unknown"]
        assert charged(rig) == (1, 0)


async def test_list_answered_on_another_stream_is_filtered_and_answers_to_nothing_are_dropped() -> None:
    polled = Polled()
    lists: list[LiveStream] = []

    def listed(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        if (request.document or {}).get("method") == "tools/list" and (request.document or {}).get("id") == 9:
            lists.append(LiveStream())
            return lists[-1].reply
        return polled._answer(_, request)

    polled.server.answer = listed
    async with open_rig(polled.server, rego=[NO_BOB]) as rig:
        client = await connected(rig, PATHS[0])
        stream = open_post(client, "tools/list", {}, request_id=9)
        await stream.head()
        lists[0].push(None, "e0")
        lists[0].end()
        await stream.end()
        resumed = open_get(client, "e0")
        await resumed.head()
        rest = polled.streams[-1]
        rest.push(answer(55, secret="of somebody else"), "e1")
        rest.push(answer("9", secret="another id"), "e2")
        result = {"tools": polled.server.offers["tools"]}
        rest.push({"jsonrpc": "2.0", "id": 9, "result": result}, "e3")
        rest.push(answer(9, secret="twice"), "e4")
        rest.end()
        events = (await resumed.end()).events
        assert [event.id for event in events] == ["e3"]
        assert [item["name"] for item in events[0].message["result"]["tools"]] == ["echo"]


async def test_session_is_unknown_to_everybody_else() -> None:
    polled = Polled()
    principals = {KEY: PRINCIPAL, "key-of-bob": BOB}
    async with open_rig(polled.server, principals=principals) as rig:
        client = await connected(rig, PATHS[0])
        before = len(rig.servers["files"].requests)
        thief = rig.client(PATHS[0], modern=False, key="key-of-bob")
        for token in (client.session, "f1.forged", f"{client.session}x"):
            thief.session = token
            assert (await thief.request("tools/list")).status == 404
            assert (await open_get(thief, "e0").end()).status == 404
            deleted = await rig.app.request("DELETE", PATHS[0], with_defaults(thief.headers("", {})))
            assert deleted.status == 404
        assert len(rig.servers["files"].requests) == before
        assert (await client.request("tools/list")).status == 200


async def test_delete_ends_what_is_open_as_cancelled_and_forgets_the_session() -> None:
    polled = Polled()
    async with open_rig(polled.server, budgets=[CALLS]) as rig:
        client = await connected(rig, PATHS[0])
        stream = call(client)
        await stream.head()
        deleted = await rig.app.request("DELETE", PATHS[0], with_defaults(client.headers("", {})))
        assert deleted.status == 200
        polled.streams[0].end()
        await stream.end()
        await rig.settled()
        assert finished(rig) == ["cancelled"]
        assert charged(rig) == (1, 0)


async def test_delete_that_the_upstream_refuses_ends_nothing() -> None:
    polled = Polled()

    def keeps(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        return MemoryReply(405) if request.verb == "DELETE" else polled._answer(_, request)

    polled.server.answer = keeps
    async with open_rig(polled.server, budgets=[CALLS]) as rig:
        client = await connected(rig, PATHS[0])
        stream = call(client)
        await stream.head()
        deleted = await rig.app.request("DELETE", PATHS[0], with_defaults(client.headers("", {})))
        assert deleted.status == 405
        polled.streams[0].push(answer(7))
        polled.streams[0].end()
        assert (await stream.end()).result["content"] == []
        await rig.settled()
        assert finished(rig) == ["ok"]


async def test_equal_ids_under_way_are_refused_and_the_first_one_goes_on() -> None:
    polled = Polled()
    async with open_rig(polled.server, budgets=[CALLS]) as rig:
        client = await connected(rig, PATHS[0])
        stream = call(client)
        await stream.head()
        second = await call(client).end()
        assert second.code == -32600
        polled.streams[0].push(answer(7))
        polled.streams[0].end()
        assert (await stream.end()).message["id"] == 7
        third = call(client)
        await third.head()
        polled.streams[1].push(answer(7))
        polled.streams[1].end()
        await third.end()
        await rig.settled()
        assert finished(rig) == ["ok", "ok"]
        assert charged(rig) == (2, 0)


async def test_upstream_that_refuses_the_gateway_never_challenges_the_client() -> None:
    def locked(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        method = (request.document or {}).get("method", "")
        if request.verb == "GET" or method in ("tools/call", "notifications/roots/list_changed"):
            return json_reply(
                {"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": "who are you"}}, status=401
            )
        return None

    server = ScriptedServer("files", answer=locked)
    async with open_rig(server) as rig:
        client = await connected(rig, PATHS[0])
        called = await client.request("tools/call", {"name": "echo", "arguments": {}})
        assert called.status == 200
        assert "refused the gateway's credentials" in called.result["content"][0]["text"]
        for reply in (await client.notify("notifications/roots/list_changed"), await open_get(client).end()):
            assert reply.status == 502
            assert reply.header("www-authenticate") is None
            assert "refused the gateway's credentials" in reply.message["error"]["message"]


async def test_session_the_upstream_has_forgotten_is_unknown_to_the_client_too() -> None:
    def amnesia(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        return MemoryReply(404) if (request.document or {}).get("method") == "tools/call" else None

    async with open_rig(ScriptedServer("files", answer=amnesia), budgets=[CALLS]) as rig:
        client = await connected(rig, PATHS[0])
        reply = await client.request("tools/call", {"name": "echo", "arguments": {}})
        assert reply.status == 404
        await rig.settled()
        assert finished(rig) == ["error"]
        assert charged(rig) == (1, 0)


async def test_calls_of_a_session_that_was_crowded_out_are_still_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fulcrum_mcp.gateway.sessions._MAX_SESSIONS", 2)
    polled = Polled()
    async with open_rig(polled.server, budgets=[CALLS]) as rig:
        client = await connected(rig, PATHS[0])
        stream = call(client)
        await stream.head()
        polled.streams[-1].push(None, "e1")
        for _ in range(3):
            await connected(rig, PATHS[0])
        polled.streams[-1].end()
        await stream.end()
        rig.hub.sweep(asyncio.get_running_loop().time() + hub.LOST_AFTER + 5)
        await until(lambda: finished(rig) == ["outcome_unknown"], "settled")
        assert charged(rig) == (1, 0)
