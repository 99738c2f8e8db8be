"""The exchange: the last line before the upstream holds whatever the gate does."""

from typing import Any

import pytest
from gateway_rig import Rig, open_rig
from scripted_server import ScriptedServer, json_reply

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.core.budget import Budget, Scope
from fulcrum_mcp.gateway.gate import Gate
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.incoming import Incoming
from fulcrum_mcp.gateway.pending import Pending
from fulcrum_mcp.gateway.wire import Message
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio

PATH = "/servers/files/mcp"
ECHO = {"name": "echo", "arguments": {}}
CALLS = Budget("b1", "acme", "calls", Scope("tenant"), {"calls": 100})


class OpenGate(Gate):
    """Lets everything through undecided."""

    async def judge(self, incoming: Incoming, message: Message, pending: Pending) -> Message:
        del incoming, pending
        return message


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read", "vendor/x"])
async def test_governed_request_without_a_decision_is_not_forwarded_and_counted(method: str) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        exchange = rig.hub.exchanges["files"]
        gate = exchange.gate
        exchange.gate = OpenGate(gate.catalog, gate.governor, gate.rounds)
        params = {"uri": "x:1"} if method == "resources/read" else ECHO
        reply = await rig.client(PATH).request(method, params)
        assert (reply.status, reply.code) == (500, -32603)
        assert rig.servers["files"].calls == []
        assert rig.forwarded_blindly == 1


async def test_known_methods_pass_unjudged_and_are_counted() -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        client = rig.client(PATH)
        for method in ("ping", "completion/complete", "tools/list", "tools/list"):
            assert (await client.request(method)).status == 200
        await client.request("tools/call", ECHO)
        await client.request("vendor/x")
        counted = rig.hub.exchanges["files"].counted
        assert counted == {"ping": 1, "completion/complete": 1, "tools/list": 2, "tools/call": 1, "other": 1}
        assert len(rig.records("decided")) == 2


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read", "tools/list", "initialize"])
async def test_notification_that_names_a_request_is_refused(method: str) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        reply = await rig.client(PATH).notify(method, ECHO)
        assert (reply.status, reply.code) == (400, -32600)
        assert rig.servers["files"].received == []


async def test_response_of_a_modern_client_is_refused() -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        reply = await rig.client(PATH).send({"jsonrpc": "2.0", "id": 1, "result": {}})
        assert reply.status == 400
        assert rig.servers["files"].received == []


@pytest.mark.parametrize("arguments", [[], "x", 7, True])
async def test_arguments_that_are_no_object_are_refused_unjudged(arguments: Any) -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        reply = await rig.client(PATH).request("tools/call", {"name": "echo", "arguments": arguments})
        assert reply.code == -32602
        assert rig.servers["files"].calls == []
        assert rig.engine.documents("call") == []


def outcomes(rig: Rig) -> list[str]:
    return [record["data"]["outcome"] for record in rig.records("finished")]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"<html>", 200, "not a JSON-RPC message"),
        (b"", 202, "HTTP 202 without a JSON-RPC answer"),
        (b"<html>", 500, "HTTP 500 without a JSON-RPC answer"),
        (b'{"jsonrpc":"2.0","method":"x"}', 200, "HTTP 200 without a JSON-RPC answer"),
        (b"{}", 403, "refused the gateway's credentials (HTTP 403)"),
    ],
)
async def test_answer_that_is_none_becomes_a_tool_error_and_is_charged(body: bytes, status: int, told: str) -> None:
    def odd(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        called = (request.document or {}).get("method") == "tools/call"
        return json_reply(body, status=status, www_authenticate="Bearer") if called else None

    async with open_rig(ScriptedServer("files", answer=odd), budgets=[CALLS]) as rig:
        reply = await rig.client(PATH).request("tools/call", ECHO)
        assert reply.status == 200
        assert told in reply.result["content"][0]["text"]
        assert reply.header("www-authenticate") is None
        await rig.settled()
        assert outcomes(rig) in (["error"], ["outcome_unknown"])
        (usage,) = rig.ledger.usage([CALLS], now_ns())
        assert (usage.committed["calls"], usage.reserved["calls"]) == (1, 0)


async def test_error_of_the_upstream_passes_as_it_is() -> None:
    error = {"code": -32099, "message": "mine", "data": {"big": 2**70}, "extra": 1}

    def failing(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        document = request.document or {}
        if document.get("method") != "tools/call":
            return None
        return json_reply({"jsonrpc": "2.0", "id": document["id"], "error": error}, status=400, retry_after="7")

    async with open_rig(ScriptedServer("files", answer=failing)) as rig:
        reply = await rig.client(PATH).request("tools/call", ECHO)
        assert (reply.status, reply.message["error"], reply.header("retry-after")) == (400, error, "7")
        await rig.settled()
        assert outcomes(rig) == ["error"]


async def test_stages_of_a_call_are_told() -> None:
    async with open_rig(ScriptedServer("files")) as rig:
        timing = (await rig.client(PATH).request("tools/call", ECHO)).header("server-timing")
        assert timing is not None
        assert [stage.partition(";")[0] for stage in timing.split(", ")] == ["policy", "journal", "upstream"]


async def test_too_many_requests_of_one_session_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fulcrum_mcp.gateway.exchange._MAX_OPEN", 0)
    async with open_rig(ScriptedServer("files")) as rig:
        client = rig.client(PATH, modern=False)
        await client.connect()
        assert (await client.request("tools/call", ECHO)).code == -32600
        assert rig.servers["files"].calls == []
