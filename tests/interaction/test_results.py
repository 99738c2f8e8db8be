"""Phase `result`: withheld, redacted, tainted; nothing of it leaves before it was judged."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from gateway_rig import Rig, open_rig, with_defaults
from live_stream import LiveStream, open_post
from scripted_server import ScriptedServer, json_reply

from fulcrum_adapters.memory.policy import MemoryPolicyEngine
from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.core.budget import Budget, Scope
from fulcrum_mcp.core.call import Phase
from fulcrum_mcp.core.decision import Verdict
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.ports import PolicyEngine, UpstreamRequest

pytestmark = pytest.mark.anyio

PATH = "/servers/files/mcp"
ECHO = {"name": "echo", "arguments": {}}
SPENT = Budget("b1", "acme", "spent", Scope("tenant"), {"usd_micros": 1000, "calls": 100})
REGO = """package fulcrum.policies.results

import rego.v1

allow := true

cost := {"usd_micros": 100} if input.phase == "call"

cost := {"usd_micros": input.result.structuredContent.price} if input.phase == "result"

deny contains {"code": "leak", "message": "the result holds a key"} if {
	input.phase == "result"
	contains(input.result.content[_].text, "PRIVATE")
}

deny contains "an error is a result too" if {
	input.phase == "result"
	contains(input.result.error.message, "PRIVATE")
}

redact contains "/structuredContent/card" if input.phase == "result"

redact contains {"pattern": "[0-9]{4}-[0-9]{4}", "with": "****"} if input.phase == "result"

taint contains "pii" if {
	input.phase == "result"
	input.result.structuredContent.card
}
"""


def result(text: str, **structured: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "structuredContent": structured, "resultType": "complete"}


def note(text: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": text}}


def outcomes(rig: Rig) -> list[dict[str, Any]]:
    return [record["data"] for record in rig.records("finished")]


def spent(rig: Rig) -> dict[str, int]:
    return dict(rig.ledger.usage([SPENT], now_ns())[0].committed)


class Telling:
    """A server that answers tools/call with this message (its id added), or on a stream that the test feeds."""

    def __init__(self, told: Mapping[str, Any] | None) -> None:
        self.told = told
        self.stream = LiveStream()
        self.server = ScriptedServer("files", answer=self._answer)

    def _answer(self, _: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        document = request.document or {}
        if document.get("method") != "tools/call":
            return None
        if self.told is None:
            return self.stream.reply
        return json_reply({"jsonrpc": "2.0", "id": document["id"], **self.told})


async def test_denied_result_is_withheld_and_charged_at_what_policy_says() -> None:
    telling = Telling({"result": result("-----BEGIN PRIVATE KEY-----", price=70)})
    async with open_rig(telling.server, rego=[REGO], budgets=[SPENT]) as rig:
        reply = await rig.client(PATH).request("tools/call", ECHO)
        assert reply.result["isError"] is True
        assert b"BEGIN" not in reply.body
        assert reply.result["_meta"]["dev.fulcrum/decision"]["reasons"][0]["code"] == "leak"
        await rig.settled()
        assert (outcomes(rig)[0]["outcome"], outcomes(rig)[0]["reasons"][0]["code"]) == ("withheld", "leak")
        assert spent(rig) == {"usd_micros": 70, "calls": 1}


async def test_error_of_an_upstream_is_judged_too() -> None:
    telling = Telling({"error": {"code": -32000, "message": "PRIVATE", "data": "1234-5678"}})
    async with open_rig(telling.server, rego=[REGO], budgets=[SPENT]) as rig:
        reply = await rig.client(PATH).request("tools/call", ECHO)
        assert b"PRIVATE" not in reply.body
        telling.told = {"error": {"code": -32000, "message": "no such file", "data": "card 1234-5678"}}
        reply = await rig.client(PATH).request("tools/call", ECHO)
        assert reply.message["error"] == {"code": -32000, "message": "no such file", "data": "card ****"}
        await rig.settled()
        assert [each["outcome"] for each in outcomes(rig)] == ["withheld", "error"]
        assert spent(rig) == {"usd_micros": 200, "calls": 2}


async def test_result_is_redacted_by_pointer_and_pattern_with_its_text_twin() -> None:
    twin = json.dumps({"card": "1111222233334444", "price": 5})
    telling = Telling({"result": result(twin, card="1111222233334444", price=5, other="1234-5678")})
    async with open_rig(telling.server, rego=[REGO], budgets=[SPENT]) as rig:
        reply = await rig.client(PATH).request("tools/call", ECHO)
        assert b"1111222233334444" not in reply.body
        assert reply.result["structuredContent"] == {"card": "[redacted]", "price": 5, "other": "****"}
        assert json.loads(reply.result["content"][0]["text"])["card"] == "[redacted]"
        await rig.settled()
        assert outcomes(rig)[0]["outcome"] == "ok"
        assert outcomes(rig)[0]["redacted"] >= 3
        assert rig.history.read("acme", "key:k1").taints == ("pii",)


class Failing:
    """Answers `call` and then is gone."""

    def __init__(self, engine: PolicyEngine) -> None:
        self.info = engine.info
        self._engine = engine

    async def evaluate(self, phase: Phase, document: bytes) -> tuple[Verdict, ...]:
        if phase == "result":
            raise Unavailable("policy engine: no answer")
        return await self._engine.evaluate(phase, document)


async def test_engine_that_fails_withholds_the_result() -> None:
    telling = Telling({"result": result("fine")})
    engine = Failing(MemoryPolicyEngine({"p": lambda _: {"allow": True}}))
    async with open_rig(telling.server, rego=engine, budgets=[SPENT]) as rig:
        reply = await rig.client(PATH).request("tools/call", ECHO)
        assert reply.result["isError"] is True
        assert b"fine" not in reply.body
        await rig.settled()
        assert outcomes(rig)[0]["reasons"][0]["code"] == "result_not_judged"
        assert spent(rig)["calls"] == 1


async def test_redaction_that_cannot_be_done_withholds_the_result() -> None:
    telling = Telling({"result": result("secret")})
    rules = {"p": lambda _: {"allow": True, "redact": [{"pattern": "(", "with": ""}]}}
    async with open_rig(telling.server, rego=MemoryPolicyEngine(rules), budgets=[SPENT]) as rig:
        reply = await rig.client(PATH).request("tools/call", ECHO)
        assert b"secret" not in reply.body
        await rig.settled()
        assert outcomes(rig)[0]["outcome"] == "withheld"


async def test_taint_that_cannot_be_kept_withholds_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    telling = Telling({"result": result("fine", card="1")})
    async with open_rig(telling.server, rego=[REGO], budgets=[SPENT]) as rig:

        def broken(*_: object) -> None:
            raise Unavailable("history: read-only")

        monkeypatch.setattr(rig.history, "taint", broken)
        reply = await rig.client(PATH).request("tools/call", ECHO)
        assert b"fine" not in reply.body
        assert "history: read-only" in reply.result["content"][0]["text"]


async def test_taint_is_kept_before_the_first_byte() -> None:
    telling = Telling({"result": result("fine", card="1")})
    async with open_rig(telling.server, rego=[REGO], budgets=[SPENT]) as rig:
        seen: list[tuple[str, ...]] = []

        async def watched(_: object) -> None:
            seen.append(rig.history.read("acme", "key:k1").taints)

        client = rig.client(PATH)
        headers = with_defaults(client.headers("tools/call", ECHO))
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": client.params(ECHO)}
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        queue.put_nowait({"type": "http.request", "body": json.dumps(message).encode()})
        scope = {"type": "http", "method": "POST", "path": PATH, "headers": headers, "client": ("127.0.0.1", 1)}
        await rig.endpoint(scope, queue.get, watched)
        assert seen
        assert set(seen) == {("pii",)}


async def test_notifications_of_an_inspected_call_wait_for_its_verdict_and_are_redacted_with_it() -> None:
    telling = Telling(None)
    async with open_rig(telling.server, rego=[REGO], budgets=[SPENT]) as rig:
        stream = open_post(rig.client(PATH), "tools/call", ECHO)
        await stream.head()
        telling.stream.push(note("card 1234-5678"))
        asking = {"jsonrpc": "2.0", "id": 5, "method": "elicitation/create", "params": {}}
        telling.stream.push(asking)
        assert (await stream.next_event()).message == asking
        assert b"card" not in stream.response.body
        telling.stream.push({"jsonrpc": "2.0", "id": 7, "result": result("done 1234-5678", price=1)})
        telling.stream.push(note("after 1234-5678"))
        telling.stream.push({"jsonrpc": "2.0", "id": 7, "result": result("twice")})
        telling.stream.end()
        events = [event.message for event in (await stream.end()).events]
        assert [message.get("method") for message in events] == [
            "elicitation/create",
            "notifications/message",
            None,
            "notifications/message",
        ]
        assert (events[1]["params"]["data"], events[3]["params"]["data"]) == ("card ****", "after ****")
        assert events[2]["result"]["content"][0]["text"] == "done ****"


async def test_notifications_of_a_withheld_result_are_dropped_before_and_after_it() -> None:
    telling = Telling(None)
    async with open_rig(telling.server, rego=[REGO], budgets=[SPENT]) as rig:
        stream = open_post(rig.client(PATH), "tools/call", ECHO)
        await stream.head()
        for number in range(1100):
            telling.stream.push(note(f"PRIVATE {number}"))
        telling.stream.push({"jsonrpc": "2.0", "id": 7, "result": result("PRIVATE KEY", price=1)})
        telling.stream.push(note("PRIVATE after"))
        telling.stream.end()
        done = await stream.end()
        assert b"PRIVATE" not in done.body
        assert len(done.events) == 1
        assert done.events[0].message["result"]["isError"] is True


async def test_actual_cost_above_the_estimate_is_committed_and_recorded_as_overrun() -> None:
    telling = Telling({"result": result("fine", price=1500)})
    async with open_rig(telling.server, rego=[REGO], budgets=[SPENT]) as rig:
        client = rig.client(PATH)
        await client.request("tools/call", ECHO)
        await rig.settled()
        assert spent(rig)["usd_micros"] == 1500
        assert outcomes(rig)[0]["cost"] == {"usd_micros": 1500}
        assert len(rig.records("budget.overrun")) == 1
        over = await client.request("tools/call", ECHO)
        assert over.result["_meta"]["dev.fulcrum/decision"]["reasons"][0]["code"] == "budget_exceeded"
