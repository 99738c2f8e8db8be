"""Deciding: what is read, what is refused unasked, what is kept readable, what a failing part does."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from gateway_rig import KEY, PRINCIPAL, Client, Rig, open_rig
from scripted_server import ScriptedServer, tool

from fulcrum_adapters.memory.policy import MemoryPolicyEngine
from fulcrum_mcp.core.budget import Budget, Scope
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.policy import PolicyInfo
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.snapshot import Limits

pytestmark = pytest.mark.anyio

PATH = "/servers/files/mcp"
META = "dev.fulcrum/decision"
BOXED = Principal("acme", "box", "k9", (), frozenset({"tool:call"}), require_envelope=True)
BUDGETS = [
    Budget("b1", "acme", "wide", Scope("tenant"), {"calls": 10, "usd_micros": 500}),
    Budget("b2", "acme", "narrow", Scope("agent"), {"calls": 4}),
]


def engine(rules: Any, **reads: bool) -> MemoryPolicyEngine:
    needs = {"judges_results": False, "reads_history": False, "reads_budget": False, "list_reads_time": False}
    return MemoryPolicyEngine({"p": rules}, PolicyInfo(names=("p",), revision="r", **{**needs, **reads}))


def allow(_: Mapping[str, Any]) -> dict[str, Any]:
    return {"allow": True}


def call(client: Client, name: str = "echo", meta: Mapping[str, Any] | None = None, **arguments: Any) -> Any:
    params: dict[str, Any] = {"name": name, "arguments": arguments}
    return client.request("tools/call", {**params, "_meta": dict(meta)} if meta else params)


def code_of(reply: Any) -> str:
    code: str = reply.result["_meta"][META]["reasons"][0]["code"]
    return code


def inputs(rig: Rig) -> list[Any]:
    return [json.loads(text) for _, text in rig.log.inputs]  # type: ignore[attr-defined]


async def test_history_is_read_only_where_a_policy_mentions_it() -> None:
    def tainting(document: Mapping[str, Any]) -> dict[str, Any]:
        return {"allow": True, "taint": ["seen"] if document["phase"] == "call" else []}

    async with open_rig(ScriptedServer("files"), rego=engine(tainting)) as rig:
        client = rig.client(PATH)
        await call(client)
        assert "history" not in rig.engine.documents("call")[0]
        assert rig.history.read("acme", "key:k1").calls == {}
        rig.use(engine(tainting, reads_history=True))
        for _ in range(2):
            await call(client)
        first, second = rig.engine.documents("call")
        assert first["history"] == {"taints": ["seen"], "calls": {"by_tool": {}}, "approvals": []}
        assert second["history"]["calls"]["by_tool"] == {"files__echo": 1}


async def test_history_of_an_envelope_is_its_own() -> None:
    async with open_rig(ScriptedServer("files"), rego=engine(allow, reads_history=True)) as rig:
        client = rig.client(PATH)
        await call(client, meta={"dev.fulcrum/envelope": "e1"})
        await call(client)
        await call(client, meta={"dev.fulcrum/envelope": "e1"})
        counts = [document["history"]["calls"]["by_tool"] for document in rig.engine.documents("call")]
        assert counts == [{}, {}, {"files__echo": 1}]


async def test_denied_call_is_neither_counted_nor_tainting() -> None:
    def denying(document: Mapping[str, Any]) -> dict[str, Any]:
        return {"allow": True, "taint": ["x"], "deny": ["no"] if document["phase"] == "call" else []}

    async with open_rig(ScriptedServer("files"), rego=engine(denying, reads_history=True)) as rig:
        assert code_of(await call(rig.client(PATH))) == "deny"
        assert rig.history.read("acme", "key:k1") == ((), {}, ())


async def test_what_is_left_is_the_least_over_all_budgets_that_match() -> None:
    rules = engine(allow, reads_budget=True)
    async with open_rig(ScriptedServer("files"), rego=rules, budgets=BUDGETS) as rig:
        client = rig.client(PATH)
        for _ in range(2):
            await call(client)
        remaining = [document["budget"]["remaining"] for document in rig.engine.documents("call")]
        assert remaining == [{"calls": 4, "usd_micros": 500}, {"calls": 3, "usd_micros": 500}]


async def test_key_that_needs_an_envelope_is_refused_without_one() -> None:
    async with open_rig(ScriptedServer("files"), principals={KEY: BOXED}) as rig:
        client = rig.client(PATH)
        assert code_of(await call(client)) == "envelope_required"
        assert rig.servers["files"].calls == []
        assert "echo" in (await call(client, meta={"dev.fulcrum/envelope": "e1"})).result


async def test_tool_that_is_not_listed_is_denied_before_its_arguments_are_judged() -> None:
    def hiding(document: Mapping[str, Any]) -> dict[str, Any]:
        return {"allow": document["phase"] != "list"}

    async with open_rig(ScriptedServer("files", prompts=[{"name": "p"}]), rego=engine(hiding)) as rig:
        client = rig.client(PATH)
        assert code_of(await call(client)) == "not_listed"
        assert (await client.request("prompts/get", {"name": "p"})).code == 403001
        assert rig.engine.documents("call") == []
        assert rig.servers["files"].calls == []
        assert [record["data"]["effect"] for record in rig.records("decided")] == ["deny", "deny"]


@pytest.mark.parametrize("broken", ["history", "budget"])
async def test_part_that_cannot_be_read_denies(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = engine(allow, reads_history=broken == "history", reads_budget=broken == "budget")
    async with open_rig(ScriptedServer("files"), rego=rules, budgets=BUDGETS) as rig:

        def fail(*_: Any) -> Any:
            raise Unavailable(f"{broken}: gone")

        if broken == "history":
            monkeypatch.setattr(rig.history, "read", fail)
        else:
            monkeypatch.setattr(rig.ledger, "peek", fail)
        reply = await call(rig.client(PATH))
        assert code_of(reply) == "unavailable"
        assert f"{broken}: gone" in reply.result["content"][0]["text"]
        assert reply.result["_meta"]["dev.fulcrum/decision"]["retry_after"] == 1
        assert rig.servers["files"].calls == []


SECRET = "ghp_" + "a1B2" * 9


@pytest.mark.parametrize("mode", ["redacted", "none", "full"])
async def test_readable_copy_is_redacted_by_policy_and_holds_no_known_secret(mode: str) -> None:
    def redacting(document: Mapping[str, Any]) -> dict[str, Any]:
        return {"allow": True, "redact": ["/card"] if document["phase"] == "call" else []}

    limits = Limits(inputs=mode)
    async with open_rig(ScriptedServer("files"), rego=engine(redacting), limits=limits) as rig:
        reply = await call(rig.client(PATH), card="4111", key=SECRET, note="hi")
        assert reply.result["echo"]["arguments"] == {"card": "4111", "key": SECRET, "note": "hi"}
        if mode == "none":
            assert inputs(rig) == []
            return
        arguments = inputs(rig)[0]["arguments"]
        assert arguments["note"] == "hi"
        assert SECRET not in str(inputs(rig))
        assert arguments["card"] == ("4111" if mode == "full" else "[redacted]")
        assert SECRET not in str(rig.records())


async def test_equal_arguments_have_equal_marks_in_one_tenant_and_others_elsewhere() -> None:
    other = Principal("other", "eve", "k3", (), frozenset({"tool:call"}))
    async with open_rig(ScriptedServer("files"), principals={KEY: PRINCIPAL, "e": other}) as rig:
        for key, text in ((KEY, "a"), (KEY, "a"), (KEY, "b"), ("e", "a")):
            await call(rig.client(PATH, key=key), text=text)
        marks = [record["data"]["arguments_mac"] for record in rig.records("decided")]
        assert marks[0] == marks[1]
        assert len(set(marks)) == 3


async def test_soft_budget_asks_for_approval() -> None:
    soft = Budget("b1", "acme", "gentle", Scope("tenant"), {"calls": 1}, action="soft")
    async with open_rig(ScriptedServer("files"), budgets=[soft]) as rig:
        client = rig.client(PATH)
        await call(client)
        reply = await call(client)
        assert reply.result["_meta"][META]["effect"] == "require_approval"
        assert len(rig.servers["files"].calls) == 1


async def test_tools_descriptor_reaches_policy_with_its_pin() -> None:
    described = tool("echo", title="Echo", annotations={"readOnlyHint": True}, more=1)
    async with open_rig(ScriptedServer("files", tools=[described])) as rig:
        await call(rig.client(PATH))
        document = rig.engine.documents("call")[0]
        assert (document["tool"]["title"], document["tool"]["annotations"]) == ("Echo", {"readOnlyHint": True})
        assert len(document["tool"]["pin"]) == 64
        assert rig.records("decided")[0]["data"]["pin"] == document["tool"]["pin"]
