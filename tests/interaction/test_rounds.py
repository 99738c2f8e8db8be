"""Calls of several requests (MRTR): judged on every leg, charged once, their state bound to who and what."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from asgi_driver import Exchanged
from gateway_rig import ALLOW_ALL, KEY, PRINCIPAL, Client, Rig, engine_of, open_rig
from journal_doubles import GatedLog
from live_stream import LiveStream, open_post, until
from scripted_server import ScriptedServer, json_reply, tool

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.core.budget import Budget, Scope
from fulcrum_mcp.core.call import Phase, Principal
from fulcrum_mcp.core.decision import Verdict
from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio

PATH = "/servers/files/mcp"
CALLS = Budget("b1", "acme", "calls", Scope("tenant"), {"calls": 100})
BOB = Principal("acme", "bob", "k2", ("dev",), frozenset({"tool:call"}))
ASK = {"resultType": "input_required", "inputRequests": {"q": {"method": "elicitation/create", "params": {}}}}
ARGUMENTS = {"path": "/a"}
SECOND_LEG = """package fulcrum.policies.legs

import rego.v1

allow := true

deny contains "that answer is not wanted" if input.input_responses.q.content.ok == false
"""


class Asking:
    """Asks `times` times before it answers; `states`: what came back to it."""

    def __init__(self, times: int = 1, *, state: str | None = "up-1") -> None:
        self.times = times
        self.state = state
        self.states: list[str | None] = []
        self.fault: UpstreamFailed | None = None
        self.streams: list[LiveStream] = []
        tools = [tool("ask"), tool("other")]
        self.server = ScriptedServer("files", tools=tools, prompts=[{"name": "ask"}], answer=self._answer)

    def _answer(self, _: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        document = request.document or {}
        if document.get("method") != "tools/call":
            return None
        self.states.append(document["params"].get("requestState"))
        if self.fault is not None:
            raise self.fault
        if self.times:
            self.times -= 1
            state = {} if self.state is None else {"requestState": self.state}
            return json_reply({"jsonrpc": "2.0", "id": document["id"], "result": {**ASK, **state}})
        return None


def call(client: Client, state: str | None = None, arguments: Any = None, name: str = "ask", ok: bool = True) -> Any:
    params: dict[str, Any] = {"name": name, "arguments": ARGUMENTS if arguments is None else arguments}
    if state is not None:
        params |= {"requestState": state, "inputResponses": {"q": {"action": "accept", "content": {"ok": ok}}}}
    return client.request("tools/call", params)


def state_of(reply: Exchanged) -> str:
    assert reply.result["resultType"] == "input_required", reply.result
    state: str = reply.result["requestState"]
    return state


def balance(rig: Rig) -> tuple[int, int]:
    usage = rig.ledger.usage([CALLS], now_ns())
    return (usage[0].committed["calls"], usage[0].reserved["calls"]) if usage else (0, 0)


def ends(rig: Rig) -> list[tuple[int, str]]:
    return [(record["data"]["leg"], record["data"]["outcome"]) for record in rig.records("finished")]


async def test_every_leg_is_judged_and_the_call_is_charged_once() -> None:
    asking = Asking(2)
    async with open_rig(asking.server, budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        first = state_of(await call(client))
        assert "up-1" not in first
        await rig.settled()
        assert balance(rig) == (0, 1)
        second = state_of(await call(client, first))
        done = await call(client, second)
        assert done.result["echo"]["inputResponses"]["q"]["content"] == {"ok": True}
        await rig.settled()
        assert asking.states == [None, "up-1", "up-1"]
        assert ends(rig) == [(0, "input_required"), (1, "input_required"), (2, "ok")]
        decided = [record["data"] for record in rig.records("decided")]
        assert [each["leg"] for each in decided] == [0, 1, 2]
        assert len({each["call_id"] for each in decided}) == 1
        assert [("input_responses" in each) for each in rig.engine.documents("call")] == [False, True, True]
        assert balance(rig) == (1, 0)


async def test_denied_leg_is_not_forwarded_and_the_call_is_charged_at_its_estimate() -> None:
    asking = Asking()
    async with open_rig(asking.server, rego=[SECOND_LEG], budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        state = state_of(await call(client))
        reply = await call(client, state, ok=False)
        assert reply.result["isError"] is True
        assert asking.states == [None]
        await rig.settled()
        assert balance(rig) == (1, 0)


async def test_replayed_leg_is_a_new_call() -> None:
    asking = Asking()
    async with open_rig(asking.server, budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        state = state_of(await call(client))
        for _ in range(3):
            assert "echo" in (await call(client, state)).result
        await rig.settled()
        assert balance(rig) == (3, 0)
        assert len({record["data"]["call_id"] for record in rig.records("decided")}) == 3
        assert asking.states == [None, "up-1", "up-1", "up-1"]


async def test_changed_arguments_are_a_new_call_and_the_first_one_is_still_open() -> None:
    asking = Asking()
    async with open_rig(asking.server, budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        state = state_of(await call(client))
        await call(client, state, {"path": "/b"})
        await rig.settled()
        assert balance(rig) == (1, 1)
        await call(client, state, {"path": "/a"})
        await rig.settled()
        assert balance(rig) == (2, 0)


async def test_state_is_good_for_its_principal_target_and_server_only() -> None:
    asking, web = Asking(5), ScriptedServer("web", tools=[tool("ask")])
    principals = {KEY: PRINCIPAL, "key-of-bob": BOB}
    async with open_rig(asking.server, web, principals=principals, budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        state = state_of(await call(client))
        forwarded = len(asking.states)
        bob, elsewhere = rig.client(PATH, key="key-of-bob"), rig.client("/servers/web/mcp")
        tampered = state[:-2] + ("AA" if state[-2:] != "AA" else "BB")
        for reply in (
            await call(bob, state),
            await call(elsewhere, state),
            await call(client, state, name="other"),
            await client.request("prompts/get", {"name": "ask", "requestState": state}),
            await call(client, tampered),
            await call(client, "up-1"),
            await client.request("tools/call", {"name": "ask", "arguments": ARGUMENTS, "requestState": {"a": 1}}),
        ):
            assert (reply.status, reply.code) == (400, -32602)
        assert len(asking.states) == forwarded
        assert web.calls == []
        state_of(await call(client, state))


async def test_expired_state_is_refused_and_the_call_settled_at_its_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = Asking(2)
    async with open_rig(asking.server, budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        state = state_of(await call(client))
        rig.hub.sweep(time.monotonic())
        await rig.settled()
        assert balance(rig) == (0, 1)
        later = SimpleNamespace(time=lambda: time.time() + 601, monotonic=lambda: time.monotonic() + 601)
        monkeypatch.setattr("fulcrum_mcp.gateway.rounds.time", later)
        assert (await call(client, state)).code == -32602
        rig.hub.sweep(time.monotonic())
        await rig.settled()
        assert balance(rig) == (1, 0)
        rig.hub.sweep(time.monotonic() + 700)
        await rig.settled()
        assert balance(rig) == (1, 0)


async def test_upstream_without_a_state_gets_none_back() -> None:
    asking = Asking(state=None)
    async with open_rig(asking.server, budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        await call(client, state_of(await call(client)))
        assert asking.states == [None, None]
        await rig.settled()
        assert balance(rig) == (1, 0)


@pytest.mark.parametrize("sent", [False, True])
async def test_call_whose_second_leg_fails_is_charged_for_its_first(sent: bool) -> None:
    asking = Asking()
    async with open_rig(asking.server, budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        state = state_of(await call(client))
        asking.fault = UpstreamFailed("upstream files: gone", sent=sent)
        await call(client, state)
        await rig.settled()
        assert balance(rig) == (1, 0)
        assert ends(rig)[1:] == [(1, "outcome_unknown" if sent else "error")]


async def test_client_that_goes_while_its_second_leg_is_recorded_pays_for_the_first() -> None:
    asking, log = Asking(), GatedLog()
    async with open_rig(asking.server, log=log, budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        state = state_of(await call(client))
        await rig.settled()
        log.reached.clear()
        log.gate.clear()
        params = {"name": "ask", "arguments": ARGUMENTS, "requestState": state}
        stream = open_post(client, "tools/call", params)
        await asyncio.to_thread(log.reached.wait, 5)
        stream.disconnect()
        await asyncio.wait([stream.task], timeout=5)
        log.gate.set()
        await until(lambda: (1, "cancelled") in ends(rig), "recorded")
        assert asking.states == [None]
        assert balance(rig) == (1, 0)


async def test_client_that_goes_before_its_second_leg_is_judged_leaves_nothing_reserved() -> None:
    asking = Asking()
    async with open_rig(asking.server, budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        state = state_of(await call(client))
        await rig.settled()
        entered = asyncio.Event()

        class Endless:
            info = rig.engine.info

            async def evaluate(self, phase: Phase, document: bytes) -> tuple[Verdict, ...]:
                assert phase, document
                entered.set()
                await asyncio.Event().wait()
                return ()

        rig.use(Endless())
        stream = open_post(client, "tools/call", {"name": "ask", "arguments": ARGUMENTS, "requestState": state})
        await entered.wait()
        stream.disconnect()
        await asyncio.wait([stream.task], timeout=5)
        await rig.settled()
        assert asking.states == [None]
        assert balance(rig) == (1, 0)


async def test_leg_keeps_the_policies_it_comes_under() -> None:
    asking = Asking()
    async with open_rig(asking.server, rego=[ALLOW_ALL], budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        state = state_of(await call(client))
        rig.use(engine_of(SECOND_LEG))
        assert (await call(client, state, ok=False)).result["isError"] is True
        await rig.settled()
        assert [record["data"]["effect"] for record in rig.records("decided")] == ["allow", "deny"]
