"""One suite for every policy engine: Rego in process, an external OPA, memory."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from peers.opa_server import FakeOpa, opa_over

from fulcrum_adapters.memory.policy import MemoryPolicyEngine, Rules
from fulcrum_adapters.opa import OpaConfig, OpaEngine
from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_mcp.core.call import Phase
from fulcrum_mcp.core.decision import Reason, Redaction, Verdict, combine
from fulcrum_mcp.core.policy import PolicyModule, PolicySource
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import PolicyEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass(frozen=True)
class Policy:
    """One policy, said twice."""

    rego: str
    rules: Rules


def _reads(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"deny": [], "redact": []}
    if given.get("tool", {}).get("annotations", {}).get("readOnlyHint") is True:
        found["allow"] = True
    if given["phase"] == "call" and given.get("arguments", {}).get("path", "").startswith("/etc"):
        found["deny"] = [{"code": "etc", "message": "not there"}]
    if given["phase"] == "result":
        found["redact"] = ["/a", {"pattern": "x+", "with": "-"}]
    return found


READS = Policy(
    """
allow if input.tool.annotations.readOnlyHint == true

deny contains {"code": "etc", "message": "not there"} if {
	input.phase == "call"
	startswith(input.arguments.path, "/etc")
}

redact contains "/a" if input.phase == "result"

redact contains {"pattern": "x+", "with": "-"} if input.phase == "result"
""",
    _reads,
)
COSTS = Policy(
    """
cost := {"calls": 2}

warn contains "dear"

taint contains "seen" if input.phase == "call"

require_approval contains "ask"
""",
    lambda given: {
        "cost": {"calls": 2},
        "warn": ["dear"],
        "taint": ["seen"] if given["phase"] == "call" else [],
        "require_approval": ["ask"],
    },
)
SILENT = Policy("x := 1", lambda _: {})
ODD = Policy('allow := "yes"', lambda _: {"allow": "yes"})


def rego(policies: Mapping[str, Policy]) -> PolicySource:
    return PolicySource(
        tuple(
            PolicyModule(f"{name}.rego", f"package fulcrum.policies.{name}\n{one.rego}\n")
            for name, one in policies.items()
        )
    )


@asynccontextmanager
async def in_process(policies: Mapping[str, Policy]) -> AsyncIterator[PolicyEngine]:
    yield RegoEngine(rego(policies))


@asynccontextmanager
async def external(policies: Mapping[str, Policy]) -> AsyncIterator[PolicyEngine]:
    async with FakeOpa(opa_over(rego(policies))).serve() as server:
        engine = OpaEngine(OpaConfig(server.url, timeout=20, policies=tuple(policies)))
        yield engine
        await engine.close()


@asynccontextmanager
async def memory(policies: Mapping[str, Policy]) -> AsyncIterator[PolicyEngine]:
    yield MemoryPolicyEngine({name: one.rules for name, one in policies.items()})


Open = Callable[[Mapping[str, Policy]], AbstractAsyncContextManager[PolicyEngine]]
EVERY = pytest.mark.parametrize("engine", [in_process, external, memory], ids=["rego", "opa", "memory"])


async def ask(engine: Open, phase: Phase, document: Mapping[str, Any], **policies: Policy) -> dict[str, Verdict]:
    async with engine(policies) as opened:
        verdicts = await opened.evaluate(phase, json.dumps({"phase": phase, **document}).encode())
        assert [verdict.policy for verdict in verdicts] == sorted(policies)
        assert opened.info.names == tuple(sorted(policies))
    return {verdict.policy: verdict for verdict in verdicts}


@EVERY
async def test_one_verdict_per_policy_in_the_order_of_names(engine: Open) -> None:
    found = await ask(engine, "call", {}, zoo=SILENT, ant=COSTS, bee=READS)
    assert list(found) == ["ant", "bee", "zoo"]


@EVERY
async def test_allow_and_deny_with_reason(engine: Open) -> None:
    tool = {"annotations": {"readOnlyHint": True}}
    assert (await ask(engine, "call", {"tool": tool, "arguments": {"path": "/srv"}}, p=READS))["p"].allow
    verdict = (await ask(engine, "call", {"tool": tool, "arguments": {"path": "/etc/x"}}, p=READS))["p"]
    assert verdict.allow
    assert verdict.deny == (Reason("p", "deny", "etc", "not there"),)
    assert combine((verdict,), "call").effect == "deny"


@EVERY
async def test_silence_is_neither_allow_nor_error(engine: Open) -> None:
    verdict = (await ask(engine, "call", {}, p=SILENT))["p"]
    assert not verdict.allow
    assert verdict.error is None
    assert combine((verdict,), "call").effect == "deny"


@EVERY
async def test_every_kind_of_word_in_phase_call(engine: Open) -> None:
    verdict = (await ask(engine, "call", {}, p=COSTS))["p"]
    assert verdict.cost == {"calls": 2}
    assert [reason.message for reason in verdict.warn] == ["dear"]
    assert verdict.taint == ("seen",)
    assert [reason.message for reason in verdict.require_approval] == ["ask"]


@EVERY
async def test_the_list_phase_knows_no_cost_taint_or_warning(engine: Open) -> None:
    verdict = (await ask(engine, "list", {}, p=COSTS))["p"]
    assert (verdict.cost, verdict.taint, verdict.warn) == ({}, (), ())
    assert verdict.require_approval


@EVERY
async def test_the_result_phase_redacts_and_asks_for_no_approval(engine: Open) -> None:
    found = await ask(engine, "result", {"result": {"a": 1}}, p=READS, q=COSTS)
    assert set(found["p"].redact) == {Redaction("/a"), Redaction(pattern="x+", replacement="-")}
    assert found["q"].require_approval == ()
    assert combine(tuple(found.values()), "result").effect == "allow"


@EVERY
async def test_a_wrong_shape_is_an_error_of_that_policy_alone(engine: Open) -> None:
    found = await ask(engine, "call", {"tool": {"annotations": {"readOnlyHint": True}}}, p=ODD, q=READS)
    assert found["p"].error
    assert found["q"].allow
    assert combine(tuple(found.values()), "call").effect == "deny"


@EVERY
async def test_a_policy_that_fails_never_allows(engine: Open) -> None:
    def fail(given: Mapping[str, Any]) -> dict[str, Any]:
        raise ValueError(str(given))

    failing = Policy("allow := true\n\ndeny contains 1 / 0", fail)
    async with engine({"p": failing}) as opened:
        try:
            verdicts = await opened.evaluate("call", b'{"phase": "call"}')
        except Unavailable:
            return
    assert [bool(verdict.error) for verdict in verdicts] == [True]
    assert combine(verdicts, "call").effect == "deny"


@EVERY
async def test_equal_input_gets_equal_verdicts(engine: Open) -> None:
    async with engine({"p": READS, "q": COSTS}) as opened:
        first = await opened.evaluate("call", b'{"phase": "call", "arguments": {"path": "/etc"}}')
        await opened.evaluate("call", b'{"phase": "call", "arguments": {"path": "/srv"}}')
        assert await opened.evaluate("call", b'{"phase": "call", "arguments": {"path": "/etc"}}') == first
