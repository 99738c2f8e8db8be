"""Nothing is forwarded before its decision is durable, every fault denies, and a model can act on what it is told."""

import asyncio
import json
from typing import Any

import pytest
from gateway_rig import ALLOW_ALL, Rig, engine_of, open_rig
from journal_doubles import GatedLog, MoodyLedger
from live_stream import open_post, until
from scripted_server import ScriptedServer, json_reply, tool

from fulcrum_adapters.memory.audit import MemoryAuditLog
from fulcrum_adapters.memory.policy import MemoryPolicyEngine
from fulcrum_adapters.memory.upstream import MemoryReply, MemoryUpstream
from fulcrum_mcp.core.budget import Budget, Scope
from fulcrum_mcp.errors import Unavailable, UpstreamFailed
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.snapshot import Limits
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio

PATH = "/servers/files/mcp"
ECHO = {"name": "echo", "arguments": {"a": 1}}
CALLS = Budget("b1", "acme", "two a day", Scope("agent"), {"calls": 2}, thresholds=())
META = "dev.fulcrum/decision"
READ_ONLY = """package fulcrum.policies.read_only

import rego.v1

allow if input.phase == "list"

allow if input.tool.annotations.readOnlyHint == true

deny contains {"code": "writes", "message": "the tool writes"} if {
	input.phase == "call"
	input.tool.annotations.readOnlyHint == false
}

require_approval contains {"code": "big", "message": "more than ten"} if {
	input.phase == "call"
	input.arguments.n > 10
}
"""


def servers(**options: Any) -> ScriptedServer:
    tools = [
        tool("echo", annotations={"readOnlyHint": True}),
        tool("write", annotations={"readOnlyHint": False}),
        tool("typed", annotations={"readOnlyHint": False}, outputSchema={"type": "object"}),
        tool("plain"),
    ]
    prompts, resources = [{"name": "greet"}], [{"uri": "file:///a", "name": "a"}]
    return ScriptedServer("files", tools=tools, prompts=prompts, resources=resources, **options)


def balance(rig: Rig) -> tuple[int, int]:
    usage = rig.ledger.usage([CALLS], now_ns())
    return (usage[0].committed["calls"], usage[0].reserved["calls"]) if usage else (0, 0)


def text_of(reply: Any) -> str:
    text: str = reply.result["content"][0]["text"]
    return text


@pytest.mark.parametrize("modern", [True, False])
async def test_upstream_sees_nothing_while_the_log_is_slow(modern: bool) -> None:
    log = GatedLog()
    async with open_rig(servers(), log=log, budgets=[CALLS]) as rig:
        log.gate.clear()
        log.reached.clear()
        client = rig.client(PATH, modern=modern)
        stream = open_post(client, "tools/call", ECHO)
        await asyncio.to_thread(log.reached.wait, 5)
        for _ in range(50):
            await asyncio.sleep(0)
        assert rig.servers["files"].calls == []
        log.gate.set()
        assert (await stream.end()).result["echo"]["arguments"] == {"a": 1}
        assert len(rig.servers["files"].calls) == 1
        assert rig.forwarded_blindly == 0


@pytest.mark.parametrize("part", ["log", "ledger"])
async def test_failing_store_denies_within_a_second_and_holds_nothing(part: str) -> None:
    log, ledger = GatedLog(), MoodyLedger()
    async with open_rig(servers(), log=log, ledger=ledger, budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        if part == "log":
            log.broken = "audit: no space left on device"
        else:
            ledger.broken = Unavailable("ledger: locked")
        for _ in range(3):
            async with asyncio.timeout(1):
                reply = await client.request("tools/call", ECHO)
            assert reply.result["isError"] is True
            assert "the decision could not be recorded" in text_of(reply)
            assert reply.result["_meta"][META]["reasons"][0]["code"] == "unavailable"
            assert reply.header("retry-after") == "1"
        assert rig.servers["files"].calls == []
        log.broken = ledger.broken = None
        assert balance(rig) == (0, 0)
        for _ in range(2):
            assert "echo" in (await client.request("tools/call", ECHO)).result
        await rig.settled()
        assert balance(rig) == (2, 0)


async def test_client_that_goes_while_its_decision_is_recorded_is_never_served_and_pays_nothing() -> None:
    log = GatedLog()
    async with open_rig(servers(), log=log, budgets=[CALLS]) as rig:
        log.gate.clear()
        log.reached.clear()
        stream = open_post(rig.client(PATH), "tools/call", ECHO)
        await asyncio.to_thread(log.reached.wait, 5)
        stream.disconnect()
        await asyncio.wait([stream.task], timeout=5)
        log.gate.set()
        await until(lambda: rig.records("finished"), "the end is recorded")
        assert rig.servers["files"].calls == []
        assert rig.records("finished")[0]["data"]["outcome"] == "cancelled"
        assert rig.records("decided")[0]["data"]["effect"] == "allow"
        assert balance(rig) == (0, 0)


class Dead(MemoryUpstream):
    """Fails every governed call in the way it is told."""

    def __init__(self, behind: ScriptedServer, fault: UpstreamFailed) -> None:
        super().__init__(behind.name, behind.usual)
        self.fault = fault

    async def send(self, request: UpstreamRequest) -> MemoryReply:
        if (request.document or {}).get("method") in ("tools/call", "prompts/get"):
            raise self.fault
        return await super().send(request)


@pytest.mark.parametrize(
    ("fault", "outcome", "cost"),
    [
        (UpstreamFailed("upstream files: refused", sent=False), "error", 0),
        (UpstreamFailed("upstream files: broke off", sent=True), "outcome_unknown", 1),
        (UpstreamFailed("upstream files: silent for 60 s", sent=True, timeout=True), "timeout", 1),
    ],
)
async def test_failing_upstream_is_told_recorded_and_charged_only_if_it_saw_the_call(
    fault: UpstreamFailed, outcome: str, cost: int
) -> None:
    async with open_rig(servers(), budgets=[CALLS], upstream=lambda server: Dead(server, fault)) as rig:
        client = rig.client(PATH)
        reply = await client.request("tools/call", ECHO)
        assert reply.status == 200
        assert (reply.result["isError"], text_of(reply)) == (True, str(fault))
        assert (await client.request("prompts/get", {"name": "greet"})).message["error"]["data"]["server"] == "files"
        await rig.settled()
        assert [record["data"]["outcome"] for record in rig.records("finished")] == [outcome] * 2
        assert balance(rig) == (2 * cost, 0)


async def test_denial_names_policy_rule_and_decision_and_is_recorded() -> None:
    async with open_rig(servers(), rego=[READ_ONLY]) as rig:
        client = rig.client(PATH)
        reply = await client.request("tools/call", {"name": "write", "arguments": {}})
        assert reply.status == 200
        decision = reply.result["_meta"][META]
        assert reply.result["isError"] is True
        assert reply.result["structuredContent"] == decision
        assert decision["effect"] == "deny"
        assert decision["reasons"][0] == {
            "policy": "read_only",
            "rule": "deny",
            "code": "writes",
            "message": "the tool writes",
        }
        assert text_of(reply) == (
            f"Denied by policy read_only (writes): the tool writes. Decision {decision['decision_id']}."
        )
        record = rig.records("decided")[0]["data"]
        assert (record["decision_id"], record["effect"]) == (decision["decision_id"], "deny")
        assert rig.servers["files"].calls == []
        assert rig.records("finished") == []


async def test_tool_with_an_output_schema_gets_no_structured_denial() -> None:
    async with open_rig(servers(), rego=[READ_ONLY]) as rig:
        reply = await rig.client(PATH).request("tools/call", {"name": "typed", "arguments": {}})
        assert reply.result["isError"] is True
        assert "structuredContent" not in reply.result
        assert META in reply.result["_meta"]


async def test_approval_is_asked_for_and_no_allow_is_a_denial() -> None:
    async with open_rig(servers(), rego=[READ_ONLY]) as rig:
        client = rig.client(PATH)
        big = await client.request("tools/call", {"name": "echo", "arguments": {"n": 11}})
        assert big.result["_meta"][META]["effect"] == "require_approval"
        assert "Approval required by policy read_only (big): more than ten." in text_of(big)
        silent = await client.request("tools/call", {"name": "plain", "arguments": {}})
        assert silent.result["_meta"][META]["reasons"][0]["code"] == "no_allow"
        assert rig.servers["files"].calls == []


@pytest.mark.parametrize(
    ("method", "params"), [("prompts/get", {"name": "greet"}), ("resources/read", {"uri": "file:///a"})]
)
async def test_prompts_and_resources_are_governed_like_tools(method: str, params: dict[str, Any]) -> None:
    async with open_rig(servers(), rego=[ALLOW_ALL], budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        for _ in range(2):
            assert "result" in (await client.request(method, params)).message
        over = await client.request(method, params)
        assert over.code == 403001
        assert over.message["error"]["data"][META]["reasons"][0]["code"] == "budget_exceeded"
        await rig.settled()
        assert [record["data"]["method"] for record in rig.records("decided")] == [method] * 3
        assert len(rig.servers["files"].calls) == 2
        rig.use(engine_of(READ_ONLY))
        assert (await client.request(method, params)).code == 403001


async def test_unknown_method_passes_only_where_a_policy_allows_it() -> None:
    async with open_rig(servers(), rego=[READ_ONLY]) as rig:
        client = rig.client(PATH)
        refused = await client.request("vendor/magic", {"x": 1})
        assert refused.code == 403001
        assert rig.servers["files"].calls == []
        assert (await client.notify("vendor/event", {"x": 1})).status == 202
        assert rig.servers["files"].calls == []
        rig.use(engine_of(ALLOW_ALL))
        assert (await client.request("vendor/magic", {"x": 1})).result["echo"]["x"] == 1
        assert (await client.notify("vendor/event", {"x": 1})).status == 202
        assert [message["method"] for message in rig.servers["files"].calls] == ["vendor/magic", "vendor/event"]
        assert rig.engine.documents("call")[0]["arguments"] == {"x": 1}
        await rig.settled()
        assert [record["data"]["outcome"] for record in rig.records("finished")] == ["ok", "ok"]


async def test_budget_denial_says_what_is_left_and_when_it_resets() -> None:
    async with open_rig(servers(), budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        for _ in range(2):
            await client.request("tools/call", ECHO)
        reply = await client.request("tools/call", ECHO)
        decision = reply.result["_meta"][META]
        assert decision["reasons"][0]["code"] == "budget_exceeded"
        assert "0 of 2 calls" in text_of(reply)
        assert "resets" in text_of(reply)
        assert 0 < decision["retry_after"] <= 86_400
        assert reply.header("retry-after") == str(decision["retry_after"])
        await rig.settled()
        assert balance(rig) == (2, 0)


async def test_deny_as_error_answers_with_the_protocols_error() -> None:
    async with open_rig(servers(), rego=[READ_ONLY], limits=Limits(deny_as="error")) as rig:
        reply = await rig.client(PATH).request("tools/call", {"name": "write", "arguments": {}})
        assert (reply.status, reply.code) == (200, 403001)
        assert reply.message["error"]["data"][META]["effect"] == "deny"


async def test_policy_that_fails_denies() -> None:
    def broken(document: Any) -> dict[str, Any]:
        if document["phase"] == "call":
            raise ValueError("boom")
        return {"allow": True}

    async with open_rig(servers(), rego=MemoryPolicyEngine({"broken": broken})) as rig:
        reply = await rig.client(PATH).request("tools/call", ECHO)
        assert reply.result["_meta"][META]["reasons"][0]["code"] == "policy_error"
        assert rig.servers["files"].calls == []


async def test_call_too_large_for_policies_is_denied_unjudged() -> None:
    async with open_rig(servers(), limits=Limits(max_input=2000)) as rig:
        reply = await rig.client(PATH).request("tools/call", {"name": "echo", "arguments": {"a": "x" * 3000}})
        assert reply.result["_meta"][META]["reasons"][0]["code"] == "input_too_large"
        assert rig.servers["files"].calls == []
        (denied,) = rig.records("decided")
        assert denied["data"]["effect"] == "deny"
        assert isinstance(rig.log, MemoryAuditLog)
        assert denied["id"] not in dict(rig.log.inputs), "a copy of what is denied for its size fills the disk"


async def test_deep_arguments_are_judged_or_refused_and_harm_nobody_else() -> None:
    async with open_rig(servers(), budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        depths = (700, 100, 10)
        deep = [json.loads('{"password":' + "[" * depth + "1" + "]" * depth + "}") for depth in depths]
        params = [{"name": "echo", "arguments": arguments} for arguments in deep]
        refused, *judged = await asyncio.gather(*(client.request("tools/call", each) for each in params))
        assert (refused.status, refused.code) == (400, -32600)
        assert [reply.result["echo"]["arguments"] for reply in judged] == deep[1:]
        await rig.settled()
        assert balance(rig) == (2, 0)


async def test_unknown_tool_is_looked_for_once_and_never_forwarded() -> None:
    async with open_rig(servers()) as rig:
        client = rig.client(PATH)
        replies = await asyncio.gather(
            *(client.request("tools/call", {"name": "ghost", "arguments": {}}) for _ in range(5))
        )
        assert {reply.result["_meta"][META]["reasons"][0]["code"] for reply in replies} == {"unknown_tool"}
        assert rig.servers["files"].calls == []
        lists = [r for r in rig.servers["files"].requests if (r.document or {}).get("method") == "tools/list"]
        assert len(lists) == 1


async def test_answer_that_is_no_answer_is_an_error_and_charged() -> None:
    def silent(_: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        if (request.document or {}).get("method") != "tools/call":
            return None
        return json_reply(b"", status=204) if request.message.endswith(b"0") else json_reply({"hello": 1})

    async with open_rig(servers(answer=silent), budgets=[CALLS]) as rig:
        reply = await rig.client(PATH).request("tools/call", ECHO)
        assert "without a JSON-RPC answer" in text_of(reply)
        await rig.settled()
        assert rig.records("finished")[0]["data"]["outcome"] == "error"
        assert balance(rig) == (1, 0)
