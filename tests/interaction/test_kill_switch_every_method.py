"""Kill switches and what no policy judges: every method, notifications, answers, and streams that stay open."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

import pytest
from gateway_rig import KEY, PRINCIPAL, Client, Rig, open_rig
from kill_switches import ECHO, switch
from live_stream import LiveStream, open_get, open_post, until
from scripted_server import ScriptedServer, tool

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.switch import KillSwitch, SwitchIndex
from fulcrum_mcp.gateway import govern, watched
from fulcrum_mcp.gateway.methods import GOVERNED, KNOWN
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio

SINGLE: Final = "/servers/files/mcp"
MERGED: Final = "/mcp"
THROWN: Final = (switch("key", "k1"), switch(), switch("tenant", "acme"), switch("server", "files"))
PERSONAL: Final = THROWN[:3]
ELSEWHERE: Final = (switch("server", "mail"), switch("key", "k2"), switch("agent", "bob"))
METHODS: Final = (*sorted(GOVERNED | KNOWN), "foo/bar")
PARAMS: Final[Mapping[str, dict[str, Any]]] = {
    "tools/call": ECHO,
    "prompts/get": {"name": "p"},
    "resources/read": {"uri": "x:1"},
    "resources/subscribe": {"uri": "x:1"},
    "completion/complete": {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": "LEAK"}},
    "logging/setLevel": {"level": "debug"},
    "subscriptions/listen": {"notifications": {"toolsListChanged": True}},
    "tasks/get": {"taskId": "t1"},
}


def kind_of(thrown: KillSwitch) -> str:
    return thrown.kind


class Listening:
    """A server whose GET streams, and answers to subscriptions/listen, are streams that a test feeds."""

    def __init__(self, name: str = "files") -> None:
        self.streams: list[LiveStream] = []
        self.gate = asyncio.Event()
        self.slow = ""
        prompts, resources = [{"name": "p"}], [{"uri": f"x:{name}"}]
        self.server = ScriptedServer(
            name, tools=[tool("echo")], prompts=prompts, resources=resources, answer=self._answer
        )

    def _answer(self, _: ScriptedServer, request: UpstreamRequest) -> Any:
        method = (request.document or {}).get("method")
        if request.verb == "GET" or method == "subscriptions/listen":
            self.streams.append(LiveStream())
            return self.streams[-1].reply
        return self._later(request) if method is not None and method == self.slow else None

    async def _later(self, request: UpstreamRequest) -> MemoryReply:
        await self.gate.wait()
        return self.server.usual(request)


def denied(message: Any) -> bool:
    """It is the denial for a kill switch, in the form of its method."""
    carrier = message.get("result", {}).get("_meta") or message.get("error", {}).get("data") or {}
    reasons = carrier.get("dev.fulcrum/decision", {}).get("reasons", [])
    return [reason["code"] for reason in reasons] == ["stopped"]


async def asked(client: Client, method: str) -> Any:
    """The answer to a request, on whichever kind of body."""
    stream = open_post(client, method, dict(PARAMS.get(method, {})))
    return (await stream.end()).message


async def connected(rig: Rig, path: str, *, modern: bool) -> Client:
    client = rig.client(path, modern=modern)
    if not modern:
        await client.connect()
    rig.forget()
    return client


def heard(rig: Rig, name: str = "files") -> list[tuple[str, bytes]]:
    """What has reached an upstream."""
    return [(request.verb, request.message) for request in rig.servers[name].requests]


@pytest.mark.parametrize("modern", [True, False], ids=["modern", "older"])
@pytest.mark.parametrize("thrown", THROWN, ids=kind_of)
@pytest.mark.parametrize("method", METHODS)
async def test_no_method_passes_a_switch_at_one_server(method: str, thrown: KillSwitch, modern: bool) -> None:
    async with open_rig(Listening().server) as rig:
        client = await connected(rig, SINGLE, modern=modern)
        rig.throw(thrown)
        message = await asked(client, method)
        assert denied(message), message
        if method != "tools/call":
            assert message["error"]["code"] == 403001
        assert heard(rig) == []
        (record,) = rig.records("decided")
        assert (record["data"]["method"], record["data"]["effect"]) == (method, "deny")


@pytest.mark.parametrize("modern", [True, False], ids=["modern", "older"])
@pytest.mark.parametrize("thrown", PERSONAL, ids=kind_of)
@pytest.mark.parametrize("method", sorted(KNOWN))
async def test_no_method_passes_a_switch_at_the_face_of_all(method: str, thrown: KillSwitch, modern: bool) -> None:
    async with open_rig(Listening().server, Listening("mail").server) as rig:
        client = await connected(rig, MERGED, modern=modern)
        rig.throw(thrown)
        message = await asked(client, method)
        assert denied(message), message
        assert heard(rig) == heard(rig, "mail") == []


@pytest.mark.parametrize("modern", [True, False], ids=["modern", "older"])
async def test_face_of_all_goes_on_without_a_stopped_server(modern: bool) -> None:
    async with open_rig(Listening().server, Listening("mail").server) as rig:
        client = await connected(rig, MERGED, modern=modern)
        rig.throw(switch("server", "files"))
        shown = await client.request("tools/list")
        assert [each["name"] for each in shown.result["tools"]] == ["mail__echo"]
        named = {"ref": {"type": "ref/prompt", "name": "files__p"}, "argument": {"name": "a", "value": "LEAK"}}
        assert denied((await client.request("completion/complete", named)).message)
        assert denied((await client.request("resources/subscribe", {"uri": "x:files"})).message)
        assert denied((await client.request("tools/call", {**ECHO, "name": "files__echo"})).message)
        assert heard(rig) == []
        assert "result" in (await client.request("tools/call", {**ECHO, "name": "mail__echo"})).message
        if not modern:
            await client.notify("notifications/roots/list_changed")
            again = await rig.client(MERGED, modern=False).connect()
            assert "server files is stopped" not in json.dumps(again.message["result"]["capabilities"])
            assert "Not available now: files" in again.result["instructions"]
            assert heard(rig) == []
            rig.throw(switch("server", "files"), switch("server", "mail"))
            assert denied((await rig.client(MERGED, modern=False).connect()).message)


@pytest.mark.parametrize("path", [SINGLE, MERGED])
@pytest.mark.parametrize("thrown", THROWN, ids=kind_of)
async def test_nothing_without_an_answer_passes_a_switch(thrown: KillSwitch, path: str) -> None:
    async with open_rig(Listening().server) as rig:
        client = await connected(rig, path, modern=False)
        rig.throw(thrown)
        assert (await client.notify("notifications/progress", {"message": "LEAK"})).status == 202
        assert (await client.notify("notifications/LEAK")).status == 202
        answer = {"jsonrpc": "2.0", "id": "files:1", "result": {"text": "LEAK"}}
        assert (await client.send(answer)).status == 202
        assert heard(rig) == []


@pytest.mark.parametrize("thrown", THROWN, ids=kind_of)
async def test_stopped_client_may_end_its_session_and_upstream_does_not_hear_of_it(thrown: KillSwitch) -> None:
    async with open_rig(Listening().server) as rig:
        client = await connected(rig, SINGLE, modern=False)
        rig.throw(thrown)
        headers = [*client.headers("", {}), ("host", "127.0.0.1:8080")]
        ended = await rig.app.request("DELETE", SINGLE, [(name.encode(), value.encode()) for name, value in headers])
        assert ended.status == 200
        assert heard(rig) == []


@pytest.mark.parametrize("path", [SINGLE, MERGED])
@pytest.mark.parametrize("thrown", THROWN, ids=kind_of)
async def test_open_stream_of_a_session_ends_within_a_second_and_none_is_opened(thrown: KillSwitch, path: str) -> None:
    listening = Listening()
    async with open_rig(listening.server) as rig:
        client = await connected(rig, path, modern=False)
        stream = open_get(client)
        await until(lambda: listening.streams, "it listens upstream")
        listening.streams[0].push({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": 1}})
        await stream.next_event()
        rig.throw(*ELSEWHERE)
        listening.streams[0].push({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": 2}})
        await stream.next_event()
        rig.throw(thrown)
        rig.throw(thrown, switch(target="somebody"))
        async with asyncio.timeout(1):
            assert len((await stream.end()).events) == 2
            await listening.streams[0].reply.closed.wait()
        assert len(rig.hub.settler.watched) == 0
        assert (await open_get(client).end()).status in (403, 405)
        assert len(listening.streams) == 1


@pytest.mark.parametrize("path", [SINGLE, MERGED])
@pytest.mark.parametrize("thrown", THROWN, ids=kind_of)
async def test_subscription_ends_within_a_second(thrown: KillSwitch, path: str) -> None:
    listening = Listening()
    async with open_rig(listening.server) as rig:
        stream = open_post(rig.client(path), "subscriptions/listen", PARAMS["subscriptions/listen"])
        await until(lambda: listening.streams, "it listens upstream")
        note = {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {"notifications": {}}}
        listening.streams[0].push(note)
        await stream.next_event()
        rig.throw(thrown)
        async with asyncio.timeout(1):
            last = (await stream.end()).events[-1].message
            await listening.streams[0].reply.closed.wait()
        assert last["id"] == 7
        assert path == MERGED or denied(last)
        assert len(rig.hub.settler.watched) == 0


@pytest.mark.parametrize("modern", [True, False], ids=["modern", "older"])
async def test_request_that_waits_for_its_upstream_is_denied_at_once(modern: bool) -> None:
    listening = Listening()
    async with open_rig(listening.server) as rig:
        client = await connected(rig, SINGLE, modern=modern)
        listening.slow = "completion/complete"
        stream = open_post(client, "completion/complete", PARAMS["completion/complete"])
        await until(lambda: heard(rig), "it is upstream")
        rig.throw(switch())
        async with asyncio.timeout(1):
            assert denied((await stream.end()).message)
        assert len(rig.hub.settler.watched) == 0


async def test_stopped_call_of_an_unknown_tool_does_not_look_for_it_in_the_session() -> None:
    async with open_rig(Listening().server) as rig:
        client = await connected(rig, SINGLE, modern=False)
        rig.throw(switch())
        assert denied((await client.request("tools/call", {"name": "nobody"})).message)
        session = client.session
        assert session is not None
        assert all((b"mcp-session-id", b"files-1") not in request.headers for request in rig.servers["files"].requests)


async def test_nothing_is_kept_of_what_has_ended() -> None:
    async with open_rig(Listening().server) as rig:
        for modern in (True, False):
            client = await connected(rig, SINGLE, modern=modern)
            for method in ("tools/list", "completion/complete", "ping"):
                assert "result" in await asked(client, method)
            await client.notify("notifications/progress")
        assert len(rig.hub.settler.watched) == 0


async def test_stream_of_a_credential_that_counts_no_longer_ends_within_a_second() -> None:
    listening = Listening()
    bob = Principal("acme", "bob", "k2", ("dev",), frozenset({"tool:call"}))
    async with open_rig(listening.server, principals={KEY: PRINCIPAL, "key-of-bob": bob}) as rig:
        ann = await connected(rig, SINGLE, modern=False)
        other = rig.client(SINGLE, modern=False, key="key-of-bob")
        await other.connect()
        streams = [open_get(ann), open_post(rig.client(SINGLE), "subscriptions/listen", {}), open_get(other)]
        await until(lambda: len(listening.streams) == 3, "all listen upstream")
        rig.endpoint.standing.look_soon()
        known = rig.endpoint.standing._identity._principals  # type: ignore[attr-defined]
        del known[KEY]
        rig.endpoint.standing.look_soon()
        async with asyncio.timeout(1):
            for stream in streams[:2]:
                await stream.end()
        assert len(rig.hub.settler.watched) == 1
        listening.streams[2].push({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": 1}})
        assert (await streams[2].next_event()).message["params"] == {"data": 1}


async def test_without_the_check_a_stopped_client_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: these tests tell it."""

    def nothing(_switches: SwitchIndex, _principal: Principal, _server: str) -> KillSwitch | None:
        return None

    monkeypatch.setattr(govern, "switch_on", nothing)
    monkeypatch.setattr(watched, "switch_on", nothing)
    async with open_rig(Listening().server) as rig:
        client = await connected(rig, SINGLE, modern=False)
        rig.throw(switch())
        assert not denied(await asked(client, "completion/complete"))
        await client.notify("notifications/LEAK")
        assert len(heard(rig)) == 2
