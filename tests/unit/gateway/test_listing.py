from dataclasses import replace
from typing import Any

import pytest
from gateway_rig import RecordingEngine

from fulcrum_adapters.memory.policy import MemoryPolicyEngine
from fulcrum_adapters.rego.substitute import substitute
from fulcrum_mcp.core.call import Context, Phase, Principal, Tool
from fulcrum_mcp.core.decision import Verdict
from fulcrum_mcp.core.policy import PolicyInfo
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.listing import LIST_METHODS, ListLaw
from fulcrum_mcp.gateway.snapshot import Limits, Snapshot

pytestmark = pytest.mark.anyio

ANN = Principal("acme", "ann", "k1", ("reader",))
HERE = Context(client="cli", protocol="2026-07-28", envelope="e1", workflow="w1")
TOOL = Tool("read", None, {"readOnlyHint": True}, "pin1")


def snapshot(rules: Any, *, reads_time: bool = False, **limits: Any) -> tuple[Snapshot, RecordingEngine]:
    info = PolicyInfo(("p",), "r", False, False, False, reads_time)
    engine = RecordingEngine(MemoryPolicyEngine({"p": rules}, info))
    return Snapshot("1", engine, lambda _: (), substitute, Limits(**limits), {"files": {"zone": "eu"}}), engine


async def test_policy_is_asked_once_for_each_question() -> None:
    law, (state, engine) = ListLaw(), snapshot(lambda _: {"allow": True})
    for _ in range(5):
        assert await law.tool(state, ANN, HERE, "files", TOOL)
        assert await law.named(state, ANN, HERE, "files", "prompt", "read")
        assert await law.named(state, ANN, HERE, "files", "resource", "read")
    assert [document["method"] for document in engine.documents("list")] == [
        "tools/list",
        "prompts/list",
        "resources/list",
    ]


async def test_document_says_who_and_what_and_nothing_of_one_call() -> None:
    law, (state, engine) = ListLaw(), snapshot(lambda _: {"allow": True})
    await law.tool(state, ANN, HERE, "files", TOOL)
    [document] = engine.documents("list")
    assert document["phase"] == "list"
    assert document["tool"] == {"name": "read", "annotations": {"readOnlyHint": True}, "pin": "pin1"}
    assert document["server"] == {"name": "files", "labels": {"zone": "eu"}}
    assert document["principal"]["roles"] == ["reader"]
    assert document["context"].keys() == {"client", "protocol", "time"}
    assert not document.keys() & {"arguments", "history", "budget"}


@pytest.mark.parametrize(
    "other",
    [
        {"snapshot": {"revision": "2"}},
        {"principal": {"agent": "bob"}},
        {"principal": {"roles": ("writer",)}},
        {"principal": {"key": "k2"}},
        {"principal": {"on_behalf_of": {"sub": "x"}}},
        {"principal": {"scopes": frozenset({"admin"})}},
        {"principal": {"tenant": "other"}},
        {"context": {"client": "other"}},
        {"context": {"protocol": "2025-11-25"}},
        {"server": "web"},
        {"tool": {"name": "write"}},
        {"tool": {"pin": "pin2"}},
    ],
    ids=str,
)
async def test_another_question_is_asked_anew(other: dict[str, Any]) -> None:
    law, (state, engine) = ListLaw(), snapshot(lambda _: {"allow": True})
    await law.tool(state, ANN, HERE, "files", TOOL)
    await law.tool(
        replace(state, **other.get("snapshot", {})),
        replace(ANN, **other["principal"]) if "principal" in other else ANN,
        replace(HERE, **other.get("context", {})),
        other.get("server", "files"),
        replace(TOOL, **other.get("tool", {})),
    )
    assert len(engine.documents("list")) == 2


async def test_equal_principal_of_a_renewed_credential_gets_an_answer_of_its_own() -> None:
    law, (state, engine) = ListLaw(), snapshot(lambda _: {"allow": True})
    for _ in range(3):
        assert await law.tool(state, Principal("acme", "ann", "k1", ("reader",)), HERE, "files", TOOL)
    assert {document["principal"]["agent"] for document in engine.documents("list")} == {"ann"}


@pytest.mark.parametrize(
    ("values", "listed"),
    [
        ({"allow": True}, True),
        ({}, False),
        ({"allow": False}, False),
        ({"allow": "true"}, False),
        ({"allow": True, "deny": ["no"]}, False),
        ({"require_approval": ["ask"]}, True),
        ({"allow": True, "require_approval": ["ask"]}, True),
        ({"require_approval": ["ask"], "deny": ["no"]}, False),
        ({"allow": True, "warn": ["careful"]}, True),
        ({"allow": True, "deny": 5}, False),
    ],
    ids=str,
)
async def test_shown_is_what_is_not_denied(values: dict[str, Any], listed: bool) -> None:
    state, _ = snapshot(lambda _: values)
    assert await ListLaw().tool(state, ANN, HERE, "files", TOOL) is listed


async def test_policy_that_fails_shows_nothing() -> None:
    state, _ = snapshot(lambda document: document["missing"])
    assert not await ListLaw().tool(state, ANN, HERE, "files", TOOL)


async def test_descriptor_too_large_to_judge_is_not_shown() -> None:
    state, engine = snapshot(lambda _: {"allow": True}, max_input=500)
    assert not await ListLaw().tool(state, ANN, HERE, "files", replace(TOOL, title="x" * 500))
    assert engine.asked == []


async def test_verdict_that_reads_the_time_is_kept_for_that_second_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr("fulcrum_mcp.gateway.listing.time.time", lambda: now)
    for reads_time, wanted in ((True, 2), (False, 1)):
        law, (state, engine) = ListLaw(), snapshot(lambda _: {"allow": True}, reads_time=reads_time)
        now = 1_000_000.0
        await law.tool(state, ANN, HERE, "files", TOOL)
        now += 0.5
        await law.tool(state, ANN, HERE, "files", TOOL)
        now += 0.6
        await law.tool(state, ANN, HERE, "files", TOOL)
        assert len(engine.documents("list")) == wanted


async def test_engine_that_does_not_answer_leaves_no_verdict() -> None:
    law, (state, engine) = ListLaw(), snapshot(lambda _: {"allow": True})
    answering = engine.engine

    class Silent:
        info = engine.info

        async def evaluate(self, phase: Phase, document: bytes) -> tuple[Verdict, ...]:
            del phase, document
            raise Unavailable("policy engine: no answer")

    engine.engine = Silent()
    with pytest.raises(Unavailable):
        await law.tool(state, ANN, HERE, "files", TOOL)
    engine.engine = answering
    assert await law.tool(state, ANN, HERE, "files", TOOL)


async def test_memory_of_verdicts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fulcrum_mcp.gateway.listing._CACHE_SIZE", 50)
    law, (state, _) = ListLaw(), snapshot(lambda _: {"allow": True})
    for number in range(300):
        who = replace(ANN, agent=f"a{number}")
        for tool in ("a", "b"):
            assert await law.named(state, who, replace(HERE, client=str(number)), "files", "prompt", tool)
        kept = sum(1 + len(cache) for _, cache in law._cache.values())
        assert kept <= 52


def test_every_list_method_has_a_member_and_a_kind() -> None:
    assert LIST_METHODS["resources/templates/list"] == ("resourceTemplates", "resource")
    assert set(LIST_METHODS) == {"tools/list", "prompts/list", "resources/list", "resources/templates/list"}
