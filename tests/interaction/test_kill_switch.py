"""Kill switches: new calls denied before any policy, calls in flight ended within the turn, whatever they wait for."""

import asyncio
from typing import Any

import pytest
from gateway_rig import ALLOW_ALL, KEY, PRINCIPAL, Rig, engine_of, open_rig
from journal_doubles import GatedLog
from kill_switches import CALLS, ECHO, PATH, WHY, balance, outcomes, switch, told
from live_stream import LiveStream, answer, open_get, open_post, until
from scripted_server import ScriptedServer, tool

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.core.call import Phase, Principal
from fulcrum_mcp.core.decision import Verdict
from fulcrum_mcp.core.switch import EVERYBODY, KillSwitch
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio

BOB = Principal("acme", "bob", "k2", ("dev",), frozenset({"tool:call"}))
PRINCIPALS = {KEY: PRINCIPAL, "key-of-bob": BOB}


STOPPING = [
    switch(),
    switch("key", "k1"),
    switch("tool", "files__echo"),
    switch("server", "files"),
    switch("tenant", "acme"),
    switch("server", "files", EVERYBODY),
]
PASSING = [
    switch(target="bob"),
    switch("key", "k2"),
    switch("tool", "echo"),
    switch("tool", "files__other"),
    switch("server", "mail"),
    switch("tenant", "other", "other"),
    switch(tenant="other"),
]


class Slow:
    """Answers tools/call on a stream, or (with `body`) with one body when `gate` opens."""

    def __init__(self, *, body: bool = False) -> None:
        self.stream = LiveStream()
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.cancelled = 0
        self._body = body
        self.server = ScriptedServer("files", tools=[tool("echo"), tool("other")], answer=self._answer)

    def _answer(self, _: ScriptedServer, request: UpstreamRequest) -> Any:
        if (request.document or {}).get("method") != "tools/call":
            return None
        if self._body:
            return self._later(request)
        self.entered.set()
        return self.stream.reply

    async def _later(self, request: UpstreamRequest) -> MemoryReply:
        self.entered.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.server.usual(request)

    @property
    def notes(self) -> list[Any]:
        return [message for message in self.server.calls if message["method"] == "notifications/cancelled"]


@pytest.mark.parametrize("thrown", STOPPING, ids=lambda each: f"{each.tenant}-{each.kind}-{each.target}")
async def test_call_that_a_switch_stops_is_denied_before_any_policy_and_recorded(thrown: KillSwitch) -> None:
    async with open_rig(ScriptedServer("files"), budgets=[CALLS]) as rig:
        rig.throw(thrown)
        reply = await rig.client(PATH).request("tools/call", ECHO)
        assert reply.status == 200
        text = told(reply.message)
        assert f"Denied (stopped): {thrown.kind} {thrown.target} is stopped: it runs wild." in text
        assert "retry_after" not in reply.result["_meta"]["dev.fulcrum/decision"]
        assert rig.servers["files"].calls == []
        assert rig.engine.documents("call") == []
        (record,) = rig.records("decided")
        assert record["data"]["effect"] == "deny"
        said = f"{thrown.kind} {thrown.target} is stopped: it runs wild"
        assert record["data"]["reasons"] == [{"policy": "", "rule": thrown.id, "code": "stopped", "message": said}]
        assert record["data"]["snapshot"] == rig.holder.current.revision
        assert balance(rig) == (0, 0)
        rig.throw()
        assert (await rig.client(PATH).request("tools/call", ECHO)).result["echo"]["name"] == "echo"


@pytest.mark.parametrize("thrown", PASSING, ids=lambda each: f"{each.tenant}-{each.kind}-{each.target}")
async def test_call_of_somebody_else_goes_on(thrown: KillSwitch) -> None:
    slow = Slow(body=True)
    async with open_rig(slow.server, budgets=[CALLS]) as rig:
        stream = open_post(rig.client(PATH), "tools/call", ECHO)
        await slow.entered.wait()
        rig.throw(thrown)
        slow.gate.set()
        assert (await stream.end()).result["echo"]["name"] == "echo"
        await rig.settled()
        assert outcomes(rig) == ["ok"]


async def test_stopped_tool_stays_listed_and_other_methods_are_denied_as_errors() -> None:
    server = ScriptedServer("files", prompts=[{"name": "p"}])
    async with open_rig(server) as rig:
        rig.throw(switch("tool", "files__echo"))
        client = rig.client(PATH)
        assert [each["name"] for each in (await client.request("tools/list")).result["tools"]] == ["echo"]
        rig.throw(switch("server", "files"))
        reply = await client.request("prompts/get", {"name": "p"})
        assert reply.code == 403001
        assert "is stopped: it runs wild" in reply.message["error"]["message"]


@pytest.mark.parametrize("modern", [True, False], ids=["modern", "older"])
@pytest.mark.parametrize("body", [True, False], ids=["body", "stream"])
@pytest.mark.parametrize("path", [PATH, "/mcp"])
async def test_call_in_flight_ends_at_once_with_the_same_denial(modern: bool, body: bool, path: str) -> None:
    slow = Slow(body=body)
    async with open_rig(slow.server, budgets=[CALLS]) as rig:
        client = rig.client(path, modern=modern)
        if not modern:
            await client.connect()
        name = "echo" if path == PATH else "files__echo"
        stream = open_post(client, "tools/call", {"name": name, "arguments": {}})
        await slow.entered.wait()
        if not body:
            slow.stream.push({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": 1}})
            await stream.next_event()
        assert len(rig.hub.settler.in_flight) == 1
        rig.throw(switch())
        assert len(rig.hub.settler.in_flight) == 0
        reply = await stream.end()
        assert reply.message["id"] == 7
        assert WHY in told(reply.message)
        if body:
            assert slow.cancelled == 1
        else:
            assert slow.stream.reply.closed.is_set()
        await rig.settled()
        (finished,) = rig.records("finished")
        assert (finished["data"]["outcome"], finished["data"]["is_error"]) == ("cancelled", True)
        assert finished["data"]["reasons"][0]["code"] == "stopped"
        assert balance(rig) == (1, 0)
        await until(lambda: modern or len(slow.notes) == 1, "an upstream of the handshake era is told")
        assert [note["params"]["requestId"] for note in slow.notes] == ([] if modern else [7])
        await quiet(rig)


async def quiet(rig: Rig) -> None:
    """What is still under way ends by itself."""
    async with asyncio.timeout(5):
        while any(exchange._errands for exchange in rig.hub.exchanges.values()):  # noqa: ASYNC110 - nobody else waits for it
            await asyncio.sleep(0.001)


async def test_only_the_calls_that_it_stops_are_ended() -> None:
    slow = Slow(body=True)
    async with open_rig(slow.server, budgets=[CALLS], principals=PRINCIPALS) as rig:
        ann = [open_post(rig.client(PATH), "tools/call", ECHO, request_id=number) for number in range(20)]
        bob = [open_post(rig.client(PATH, key="key-of-bob"), "tools/call", ECHO, request_id=n) for n in range(20)]
        await until(lambda: len(slow.server.calls) == 40, "all are under way")
        rig.throw(switch())
        for stream in ann:
            assert WHY in told((await stream.end()).message)
        slow.gate.set()
        for stream in bob:
            assert (await stream.end()).result["echo"]["name"] == "echo"
        await rig.settled()
        assert sorted(outcomes(rig)) == ["cancelled"] * 20 + ["ok"] * 20
        assert balance(rig) == (40, 0)
        assert rig.forwarded_blindly == 0


async def test_client_that_does_not_read_gets_the_denial_once_it_does_and_upstream_is_closed_before() -> None:
    slow = Slow()
    async with open_rig(slow.server, budgets=[CALLS]) as rig:
        stream = open_post(rig.client(PATH), "tools/call", ECHO)
        await stream.head()
        async with stream._changed:  # the client takes nothing more for now
            slow.stream.push({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": 1}})
            await asyncio.sleep(0.01)
            rig.throw(switch())
            async with asyncio.timeout(5):
                await slow.stream.reply.closed.wait()
        slow.stream.push(answer(7))
        reply = await stream.end()
        assert WHY in told(reply.message)
        assert [event.message.get("method") for event in reply.events] == ["notifications/message", None]
        await rig.settled()
        assert outcomes(rig) == ["cancelled"]


async def test_client_that_went_at_the_same_moment_is_no_fault() -> None:
    slow = Slow(body=True)
    async with open_rig(slow.server, budgets=[CALLS]) as rig:
        stream = open_post(rig.client(PATH), "tools/call", ECHO)
        await slow.entered.wait()
        stream.task.cancel()
        rig.throw(switch())
        await asyncio.wait([stream.task], timeout=5)
        assert stream.task.cancelled()
        await rig.settled()
        assert outcomes(rig) == ["cancelled"]
        assert balance(rig) == (1, 0)


class Thinking:
    """An engine that judges results, and takes its time in one phase."""

    def __init__(self, slow: Phase) -> None:
        self._engine = engine_of(
            ALLOW_ALL, 'package fulcrum.policies.r\n\nimport rego.v1\n\ndeny contains "no" if input.result.secret\n'
        )
        self.info = self._engine.info
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self._slow = slow

    async def evaluate(self, phase: Phase, document: bytes) -> tuple[Verdict, ...]:
        if phase == self._slow:
            self.entered.set()
            await self.gate.wait()
        return await self._engine.evaluate(phase, document)


async def test_call_that_is_stopped_while_it_is_judged_is_never_forwarded() -> None:
    engine = Thinking("call")
    async with open_rig(ScriptedServer("files"), rego=engine, budgets=[CALLS]) as rig:
        stream = open_post(rig.client(PATH), "tools/call", ECHO)
        await engine.entered.wait()
        rig.throw(switch())
        engine.gate.set()
        assert WHY in told((await stream.end()).message)
        assert rig.servers["files"].calls == []
        await rig.settled()
        (finished,) = rig.records("finished")
        assert finished["data"]["outcome"] == "cancelled"
        assert balance(rig) == (0, 0), "a call that was never sent costs nothing"


async def test_call_that_is_stopped_while_it_is_recorded_is_never_forwarded() -> None:
    log = GatedLog()
    async with open_rig(ScriptedServer("files"), log=log, budgets=[CALLS]) as rig:
        log.gate.clear()
        log.reached.clear()
        stream = open_post(rig.client(PATH), "tools/call", ECHO)
        assert await asyncio.to_thread(log.reached.wait, 5)
        rig.throw(switch())
        log.gate.set()
        reply = await stream.end()
        assert WHY in told(reply.message)
        assert rig.servers["files"].calls == []
        await rig.settled()
        decided = rig.records("decided")[0]["data"]
        assert reply.result["_meta"]["dev.fulcrum/decision"]["decision_id"] == decided["decision_id"]
        assert outcomes(rig) == ["cancelled"]
        assert balance(rig) == (0, 0)


async def test_result_that_is_judged_when_the_call_is_stopped_is_not_passed_on() -> None:
    engine = Thinking("result")
    async with open_rig(ScriptedServer("files"), rego=engine, budgets=[CALLS]) as rig:
        stream = open_post(rig.client(PATH), "tools/call", ECHO)
        await engine.entered.wait()
        rig.throw(switch())
        engine.gate.set()
        reply = await stream.end()
        assert WHY in told(reply.message)
        assert b"echo" not in reply.body
        await rig.settled()
        assert outcomes(rig) == ["cancelled"]
        assert balance(rig) == (1, 0)


async def test_answer_on_another_stream_after_the_stop_is_the_denial() -> None:
    """An older client has lost its stream; the upstream brings the answer on the one it opens next."""
    slow = Slow()
    live = LiveStream()
    serve = slow._answer

    def listened(server: ScriptedServer, request: UpstreamRequest) -> Any:
        return live.reply if request.verb == "GET" else serve(server, request)

    slow.server.answer = listened
    async with open_rig(slow.server, budgets=[CALLS]) as rig:
        client = rig.client(PATH, modern=False)
        await client.connect()
        stream = open_post(client, "tools/call", ECHO)
        slow.stream.push(None, "e0")
        await stream.next_event()
        slow.stream.end()
        await stream.end()
        rig.throw(switch("tool", "files__echo"))
        why = "tool files__echo is stopped: it runs wild"
        again = open_get(client, "e-unknown")
        live.push(answer(7, secret=1), "e1")
        event = await again.next_event()
        assert why in told(event.message)
        live.end()
        await again.end()
        resumed = open_get(client, "e0")
        assert why in told((await resumed.end()).message), "what is kept of its first stream ends with it, too"
        await rig.settled()
        assert outcomes(rig) == ["cancelled"]
        assert balance(rig) == (1, 0)


async def test_nothing_is_kept_of_calls_that_have_ended() -> None:
    slow = Slow()
    async with open_rig(slow.server, budgets=[CALLS]) as rig:
        client = rig.client(PATH)
        stream = open_post(client, "tools/call", ECHO)
        await stream.head()
        slow.stream.push(answer(7))
        slow.stream.end()
        await stream.end()
        await rig.settled()
        assert outcomes(rig) == ["ok"]
        assert len(rig.hub.settler.in_flight) == 0
        rig.throw(switch())
        assert rig.hub.stop(rig.holder.current.switches) == 0
        assert outcomes(rig) == ["ok"]
